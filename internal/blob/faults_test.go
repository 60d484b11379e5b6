package blob

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
)

// faultyDisk is a disk that tells what was asked of it, and fails where it is told to.
type faultyDisk struct {
	disk
	root string // what trace cuts from paths

	mu    sync.Mutex
	trace []string
	count int
	fails func(n int, call string) error // n counts from 0; nil: never
	short bool                           // a Write that fails has written half
}

var errBroken = errors.New("broken")

// reset forgets the trace and fails from now on as told.
func (d *faultyDisk) reset(fails func(n int, call string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trace, d.count, d.fails = nil, 0, fails
}

func (d *faultyDisk) called(op, path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	call := op + " " + strings.TrimPrefix(path, d.root)
	n := d.count
	d.count++
	d.trace = append(d.trace, call)
	if d.fails == nil {
		return nil
	}
	if err := d.fails(n, call); err != nil {
		return fmt.Errorf("%s: %w", call, err)
	}
	return nil
}

func (d *faultyDisk) Mkdir(path string) error {
	if err := d.called("mkdir", path); err != nil {
		return err
	}
	return d.disk.Mkdir(path)
}

func (d *faultyDisk) Create(path string) (file, error) {
	if err := d.called("create", path); err != nil {
		return nil, err
	}
	return d.wrap(path)(d.disk.Create(path))
}

func (d *faultyDisk) Open(path string) (file, error) {
	if err := d.called("open", path); err != nil {
		return nil, err
	}
	return d.wrap(path)(d.disk.Open(path))
}

func (d *faultyDisk) Rename(from, to string) error {
	if err := d.called("rename", to); err != nil {
		return err
	}
	return d.disk.Rename(from, to)
}

func (d *faultyDisk) Remove(path string) error {
	if err := d.called("remove", path); err != nil {
		return err
	}
	return d.disk.Remove(path)
}

func (d *faultyDisk) ReadDir(path string) ([]fs.DirEntry, error) {
	if err := d.called("readdir", path); err != nil {
		return nil, err
	}
	return d.disk.ReadDir(path)
}

func (d *faultyDisk) Stat(path string) (fs.FileInfo, error) {
	if err := d.called("stat", path); err != nil {
		return nil, err
	}
	return d.disk.Stat(path)
}

func (d *faultyDisk) wrap(path string) func(file, error) (file, error) {
	return func(f file, err error) (file, error) {
		if err != nil {
			return nil, err
		}
		return &faultyFile{f, path, d}, nil
	}
}

type faultyFile struct {
	file
	path string
	disk *faultyDisk
}

func (f *faultyFile) Read(b []byte) (int, error) {
	if err := f.disk.called("read", f.path); err != nil {
		return 0, err
	}
	return f.file.Read(b)
}

func (f *faultyFile) Write(b []byte) (int, error) {
	if err := f.disk.called("write", f.path); err != nil {
		n, _ := f.file.Write(b[:len(b)/2])
		if f.disk.short {
			err = nil
		}
		return n, err
	}
	return f.file.Write(b)
}

func (f *faultyFile) Stat() (fs.FileInfo, error) {
	if err := f.disk.called("fstat", f.path); err != nil {
		return nil, err
	}
	return f.file.Stat()
}

func (f *faultyFile) Sync() error {
	if err := f.disk.called("sync", f.path); err != nil {
		return err
	}
	return f.file.Sync()
}

// Close closes in any case, as close(2) does on Linux.
func (f *faultyFile) Close() error {
	err := f.disk.called("close", f.path)
	return errors.Join(err, f.file.Close())
}
