//go:build linux

package blob

import (
	"io"
	"io/fs"

	"github.com/portcullis/portcullis/internal/crashfs"
)

// memoryDisk is a disk in memory. If it has a trace, all that is done goes there, too.
type memoryDisk struct {
	tree  *crashfs.Tree
	trace *crashfs.Trace

	deaf bool // no sync reaches the trace
	lazy bool // no sync of a directory does
}

// traced runs the trace's part of an operation, if there is a trace.
func (d *memoryDisk) traced(fn func(t *crashfs.Trace) error) error {
	if d.trace == nil {
		return nil
	}
	return fn(d.trace)
}

func (d *memoryDisk) Mkdir(path string) error {
	if _, err := d.tree.Make(path, true); err != nil {
		return err
	}
	return d.traced(func(t *crashfs.Trace) error { return t.Mkdir(path) })
}

func (d *memoryDisk) Create(path string) (file, error) {
	e, err := d.tree.Make(path, false)
	if err != nil {
		return nil, err
	}
	f := &memoryFile{disk: d, path: path, entry: e}
	return f, d.traced(func(t *crashfs.Trace) (err error) {
		f.node, err = t.Create(path)
		return err
	})
}

func (d *memoryDisk) Open(path string) (file, error) {
	e, err := d.tree.Find(path)
	if err != nil {
		return nil, err
	}
	return &memoryFile{disk: d, path: path, entry: e}, nil
}

func (d *memoryDisk) Rename(from, to string) error {
	if err := d.tree.Rename(from, to); err != nil {
		return err
	}
	return d.traced(func(t *crashfs.Trace) error { return t.Rename(from, to) })
}

func (d *memoryDisk) Remove(path string) error {
	if err := d.tree.Remove(path); err != nil {
		return err
	}
	return d.traced(func(t *crashfs.Trace) error { return t.Remove(path) })
}

func (d *memoryDisk) ReadDir(path string) ([]fs.DirEntry, error) { return d.tree.List(path) }

func (d *memoryDisk) Stat(path string) (fs.FileInfo, error) {
	e, err := d.tree.Find(path)
	if err != nil {
		return nil, err
	}
	return e, nil
}

type memoryFile struct {
	disk  *memoryDisk
	path  string
	entry *crashfs.Entry
	node  int
	read  int
}

func (f *memoryFile) Read(b []byte) (int, error) {
	rest := f.entry.Data()[f.read:]
	if len(rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, rest)
	f.read += n
	return n, nil
}

func (f *memoryFile) Write(b []byte) (int, error) {
	at := f.entry.Size()
	f.entry.Append(b)
	return len(b), f.disk.traced(func(t *crashfs.Trace) error {
		t.Write(f.node, at, b)
		return nil
	})
}

func (f *memoryFile) Sync() error {
	return f.disk.traced(func(t *crashfs.Trace) error {
		switch {
		case f.disk.deaf, f.disk.lazy && f.entry.IsDir():
		case f.entry.IsDir():
			return t.SyncDir(f.path)
		default:
			t.Sync(f.node)
		}
		return nil
	})
}

func (f *memoryFile) Stat() (fs.FileInfo, error) { return f.entry, nil }
func (f *memoryFile) Close() error               { return nil }
