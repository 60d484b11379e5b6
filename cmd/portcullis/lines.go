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
)

// maxLine is the longest line of a file of lines, in bytes.
const maxLine = 1 << 20

// errInUse says that another process writes the same file of lines.
var errInUse = errors.New("another portcullis writes it")

// lines is a file of JSON objects, one on each line, readable by its owner alone, that only
// grows. A crash leaves at worst a torn last line, which is cut off when it is opened again.
// Its methods may be called at once from many goroutines.
type lines struct {
	mu   sync.Mutex
	file *os.File
	bad  error // of an append: nothing may follow what may be half a line
}

// openLines opens or makes the file, for this process alone, and gives each whole line.
func openLines(path string, each func(line []byte) error) (l *lines, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	_, statErr := os.Stat(path)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
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
	if info.Mode().Perm()&0o077 != 0 {
		return nil, &hinted{fmt.Errorf("%s has mode %04o, so others can read it", path, info.Mode().Perm()), "chmod 600 " + path}
	}
	if err := lockFile(f); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
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
	return &lines{file: f}, nil
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
