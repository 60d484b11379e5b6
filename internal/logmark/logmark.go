// Package logmark remembers, in a small file outside the database, how far the log had come.
package logmark

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// maxFile is the longest file that is read, in bytes; Save writes about 110.
const maxFile = 4096

// File is the file. Its methods may be called at once, also by several processes.
type File struct{ Path string }

type content struct {
	Size int64  `json:"size"`
	Last string `json:"last"`
}

// Load gives the size of the log and the digest of its last event as last saved: 0 and "" if
// nothing was.
func (f File) Load() (size int64, last string, err error) {
	in, err := os.Open(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, "", nil
	}
	if err != nil {
		return 0, "", fmt.Errorf("remembered log: %w", err)
	}
	defer in.Close() // it was open for reading: there is nothing to lose
	text, err := io.ReadAll(io.LimitReader(in, maxFile))
	if err != nil {
		return 0, "", fmt.Errorf("remembered log: %w", err)
	}
	var c content
	if err := json.Unmarshal(text, &c); err != nil || c.Size < 1 || c.Last == "" {
		return 0, "", fmt.Errorf("remembered log: %s is damaged: %w", f.Path, errors.Join(err, errors.New("no size or digest")))
	}
	return c.Size, c.Last, nil
}

// Save replaces what is remembered, unless that is as much or more: whoever saves may have read the
// log before another did. It is durable on return.
func (f File) Save(size int64, last string) error {
	if err := f.saveMore(content{Size: size, Last: last}); err != nil {
		return fmt.Errorf("remember the log: %w", err)
	}
	return nil
}

func (f File) saveMore(c content) error {
	dir, err := os.Open(filepath.Dir(f.Path))
	if err != nil {
		return err
	}
	defer dir.Close() // it was open for reading; this ends the lock, too
	if err := lock(dir); err != nil {
		return err
	}
	known, _, err := f.Load()
	if err != nil || known >= c.Size {
		return err
	}
	return f.save(c)
}

func (f File) save(c content) error {
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	dir := filepath.Dir(f.Path)
	out, err := os.CreateTemp(dir, filepath.Base(f.Path)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = out.Write(append(text, '\n'))
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err == nil {
		err = os.Rename(out.Name(), f.Path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(out.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
