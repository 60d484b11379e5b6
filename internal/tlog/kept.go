package tlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/note"
)

// Kept is a checkpoint that somebody keeps outside the log, so that a history that was
// rewritten and signed anew shows.
type Kept struct {
	Checkpoint
	Where string // it is kept
}

// maxKeptFile is the longest file of checkpoints that is read, in bytes: a year of one each
// minute has about 110 MB.
const maxKeptFile = 256 << 20

// LoadKept reads a file of signed checkpoints, one after the other. It is an error when one
// of them is not signed by the key, or when there is none.
func LoadKept(path string, key note.Verifier) (out []Kept, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("kept checkpoints: %w", err)
	}
	defer f.Close() // it was open for reading: there is nothing to lose
	b, err := io.ReadAll(io.LimitReader(f, maxKeptFile+1))
	if err != nil {
		return nil, fmt.Errorf("kept checkpoints: %w", err)
	}
	if len(b) > maxKeptFile {
		return nil, fmt.Errorf("kept checkpoints: %s is longer than %d MiB", path, maxKeptFile>>20)
	}
	for i, one := range splitNotes(string(b)) {
		c, err := Open([]byte(one), key)
		if err != nil {
			return nil, fmt.Errorf("kept checkpoints: %s, number %d: %w", path, i+1, err)
		}
		out = append(out, Kept{Checkpoint: c, Where: path})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("kept checkpoints: %s has none", path)
	}
	return out, nil
}

// splitNotes cuts a file of signed notes: each is some lines, an empty one, and the lines of
// its signatures, which begin with an em dash.
func splitNotes(text string) (out []string) {
	start, signed := 0, false
	for at := 0; at < len(text); {
		end := strings.IndexByte(text[at:], '\n')
		if end < 0 {
			end = len(text) - at - 1
		}
		is := strings.HasPrefix(text[at:], "— ")
		if signed && !is {
			out = append(out, text[start:at])
			start = at
		}
		signed = is
		at += end + 1
	}
	if start < len(text) {
		out = append(out, text[start:])
	}
	return out
}

// Ship appends a signed checkpoint to a file, which should lie where whoever can change the
// database can not, and may be append-only. It is durable on return. A torn one that a crash left
// at the end is cut off; where that is not allowed, it is an error.
func Ship(path string, signed []byte) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o644) // made to be read by others
	if err != nil {
		return fmt.Errorf("ship the checkpoint: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = fmt.Errorf("ship the checkpoint: %w", err)
		}
	}()
	end, err := wholeEnd(f)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() > end {
		if err := f.Truncate(end); err != nil {
			return err
		}
	}
	if _, err := f.Write(signed); err != nil {
		return err
	}
	return f.Sync()
}

// Shipped gives the last whole checkpoint of a file, nil when there is none.
func Shipped(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("shipped checkpoints: %w", err)
	}
	defer f.Close() // it was open for reading: there is nothing to lose
	end, err := wholeEnd(f)
	if err != nil {
		return nil, fmt.Errorf("shipped checkpoints: %w", err)
	}
	b, _, err := tail(f, end)
	if err != nil {
		return nil, fmt.Errorf("shipped checkpoints: %w", err)
	}
	notes := splitNotes(string(b))
	if len(notes) == 0 {
		return nil, nil
	}
	return []byte(notes[len(notes)-1]), nil
}

// wholeEnd gives where the last whole checkpoint of a file ends: behind the last line that
// is a signature.
func wholeEnd(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	b, from, err := tail(f, info.Size())
	if err != nil {
		return 0, err
	}
	text := string(b)
	cut := strings.LastIndexByte(text, '\n') + 1
	for cut > 0 {
		line := strings.LastIndexByte(text[:cut-1], '\n') + 1
		if strings.HasPrefix(text[line:cut], "— ") {
			return from + int64(cut), nil
		}
		cut = line
	}
	if from > 0 {
		return 0, fmt.Errorf("%s does not end in a signed checkpoint", f.Name())
	}
	return 0, nil
}

// tail gives the end of a file up to a place, and where it begins: room for two checkpoints.
func tail(f *os.File, end int64) (b []byte, from int64, err error) {
	from = max(0, end-2*MaxCheckpoint)
	b = make([]byte, end-from)
	if n, err := f.ReadAt(b, from); err != nil && (!errors.Is(err, io.EOF) || n < len(b)) {
		return nil, 0, err
	}
	return b, from, nil
}

// Memory remembers the newest checkpoint that a program has seen. Its methods may be called at
// once from many goroutines.
type Memory struct {
	Path string // of the file that keeps it; as long as the program runs if it is empty
	// Write replaces the file, durably.
	Write func(path string, b []byte) error

	mu   sync.Mutex
	last []byte // without a path
}

func (m *Memory) load() ([]byte, error) {
	if m.Path == "" {
		return m.last, nil
	}
	b, err := os.ReadFile(m.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

func (m *Memory) save(signed []byte) error {
	if m.Path == "" {
		m.last = signed
		return nil
	}
	return m.Write(m.Path, signed)
}

// ErrRewritten is in the chain of errors that say that a log is not the one that it was.
var ErrRewritten = errors.New("the log was rewritten")

// Check opens a signed checkpoint, proves that it fits the one that is remembered, and
// remembers the newer of the two. prove asks the log for a proof that its tree of size to
// begins with that of size from; it gives ErrRewritten when the log says that it never had so
// many entries. After an ErrRewritten both checkpoints are in files, the memory and one beside
// it, as the evidence.
func (m *Memory) Check(ctx context.Context, signed []byte, key note.Verifier, prove func(ctx context.Context, from, to int64) ([]Hash, error)) (Checkpoint, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.check(ctx, signed, key, prove)
}

func (m *Memory) check(ctx context.Context, signed []byte, key note.Verifier, prove func(ctx context.Context, from, to int64) ([]Hash, error)) (Checkpoint, error) {
	c, err := Open(signed, key)
	if err != nil {
		return Checkpoint{}, err
	}
	before, err := m.load()
	if err != nil {
		return Checkpoint{}, fmt.Errorf("remembered checkpoint: %w", err)
	}
	if before == nil {
		return c, m.save(signed)
	}
	old, err := Open(before, key)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("remembered checkpoint %s: %w", m.Path, err)
	}
	older, newer := old, c
	if c.Size < old.Size {
		older, newer = c, old
	}
	var proof []Hash
	// A log that is shorter than it was is asked also when it is empty, which begins every other:
	// it must still have what was seen.
	if older.Size < newer.Size && (older.Size > 0 || c.Size < old.Size) {
		proof, err = prove(ctx, older.Size, newer.Size)
		if err != nil && !errors.Is(err, ErrRewritten) {
			return Checkpoint{}, fmt.Errorf("prove that the log of %d entries begins with the one of %d: %w", newer.Size, older.Size, err)
		}
	}
	if err == nil {
		err = CheckConsistency(older, newer, proof)
	}
	if err != nil {
		bad := fmt.Errorf("%w: a checkpoint of %d entries was seen before, now one of %d comes that does not fit it", ErrRewritten, old.Size, c.Size)
		if m.Path == "" {
			return Checkpoint{}, bad
		}
		kept := m.Path + ".conflict"
		return Checkpoint{}, errors.Join(fmt.Errorf("%w; both are kept: %s and %s", bad, m.Path, kept), m.Write(kept, signed))
	}
	if c.Size <= old.Size {
		return c, nil
	}
	// Another process may have seen a newer one meanwhile, which must not be forgotten.
	if now, err := m.load(); err != nil {
		return Checkpoint{}, fmt.Errorf("remembered checkpoint: %w", err)
	} else if !bytes.Equal(now, before) {
		return m.check(ctx, signed, key, prove)
	}
	return c, m.save(signed)
}
