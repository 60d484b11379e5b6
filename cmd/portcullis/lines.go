package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// maxLine is the longest line of a file of lines, in bytes.
const maxLine = 1 << 20

// errNotRegular says that a name is that of a pipe, a device, a link or a folder.
var errNotRegular = errors.New("not a regular file")

// errInUse says that another process writes the same file of lines.
var errInUse = errors.New("another portcullis writes it")

// lines is a file of JSON objects, one on each line, readable by its owner alone, that only
// grows. A crash leaves at worst a torn last line, which is cut off when it is opened again.
// Its methods may be called at once from many goroutines.
type lines struct {
	path string
	mu   sync.Mutex
	file *os.File
	bad  error // of an append: nothing may follow what may be half a line
}

// openLines opens or makes the file, for this process alone, and gives each whole line.
func openLines(path string, each func(line []byte) error) (*lines, error) {
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		if err := syncDir(filepath.Dir(dir)); err != nil {
			return nil, err
		}
	}
	f, err := openLocked(path, each)
	if err != nil {
		return nil, err
	}
	return &lines{path: path, file: f}, nil
}

// openLocked opens or makes a file of lines in a folder that is there.
func openLocked(path string, each func(line []byte) error) (f *os.File, err error) {
	_, statErr := os.Stat(path)
	// Without O_NONBLOCK a pipe of that name would be waited for.
	if f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NONBLOCK, 0o600); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w", path, errNotRegular)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, &hinted{fmt.Errorf("%s has mode %04o, so others can read it", path, info.Mode().Perm()), "chmod 600 " + path}
	}
	if err := lockFile(f); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	// Who had the file until now may have put another one in its place.
	if now, err := os.Stat(path); err != nil || !os.SameFile(now, info) {
		return nil, fmt.Errorf("%s: %w", path, errInUse)
	}
	end, err := readLines(f, each)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := f.Truncate(end); err != nil {
		return nil, err
	}
	if _, err := f.Seek(end, 0); err != nil {
		return nil, err
	}
	if errors.Is(statErr, fs.ErrNotExist) {
		if err := syncDir(filepath.Dir(path)); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// here says whether the open file is still the one at its path: what is appended to one that
// was removed is nowhere.
func (l *lines) here() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, err := os.Stat(l.path)
	if err != nil {
		return false
	}
	open, err := l.file.Stat()
	return err == nil && os.SameFile(at, open)
}

// reopen goes on in the file that is at the path now, or makes it, but none of the folders
// above its own. It gives each whole line that is there, and then writes what more gives. It is
// durable on return; after an error all is as it was.
func (l *lines) reopen(each func(line []byte) error, more func() []any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	dir := filepath.Dir(l.path)
	switch err := os.Mkdir(dir, 0o700); {
	case err == nil:
		if err := syncDir(filepath.Dir(dir)); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrExist):
		return err
	}
	f, err := openLocked(l.path, each)
	if err != nil {
		return err
	}
	next := &lines{path: l.path, file: f}
	for _, v := range more() {
		if err = next.append(v); err != nil {
			break
		}
	}
	if err = errors.Join(err, next.sync()); err != nil {
		_ = f.Close()
		return err
	}
	_ = l.file.Close()
	l.file, l.bad = f, nil
	return nil
}

// replace makes the file hold just these lines, each without its line's end. A crash leaves
// the file as it was or as it shall be; it is durable on return.
func (l *lines) replace(keep [][]byte) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, err := os.CreateTemp(filepath.Dir(l.path), newFile)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	// Nobody may take it for free between the rename and its first line.
	if err := lockFile(f); err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	for _, b := range keep {
		_, _ = w.Write(b)
		_ = w.WriteByte('\n')
	}
	// Flush has the error of any write before it.
	if err := errors.Join(w.Flush(), f.Sync()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), l.path); err != nil {
		return err
	}
	_ = l.file.Close()
	l.file = f
	return syncDir(filepath.Dir(l.path))
}

// readLines gives each whole line, and where the last one ends.
func readLines(f *os.File, each func([]byte) error) (end int64, err error) {
	s := bufio.NewScanner(f)
	s.Buffer(make([]byte, 64<<10), maxLine)
	s.Split(func(b []byte, atEOF bool) (int, []byte, error) {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			return 0, nil, nil
		}
		end += int64(i) + 1
		return i + 1, b[:i], nil
	})
	for s.Scan() {
		if err := each(s.Bytes()); err != nil {
			return end, err
		}
	}
	return end, s.Err()
}

// append writes a line. It survives the end of the process; that of the machine only after sync.
func (l *lines) append(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bad != nil {
		return l.bad
	}
	if _, err := l.file.Write(append(b, '\n')); err != nil {
		l.bad = err
	}
	return l.bad
}

// sync makes what was appended durable.
func (l *lines) sync() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bad == nil {
		l.bad = l.file.Sync()
	}
	return l.bad
}

func (l *lines) close() error { return l.file.Close() }
