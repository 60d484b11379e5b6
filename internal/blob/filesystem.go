package blob

import (
	"io"
	"io/fs"
	"os"
)

// fileSystem is every system call of the store, one method each, so that a test can make
// each fail, or forget what was not synced. Paths are those of package os, and so are the
// errors.
type fileSystem interface {
	Mkdir(path string) error          // mode 0700; its entry is durable after Sync on the parent
	Create(path string) (file, error) // for writing, mode 0600; fails if the path exists
	Open(path string) (file, error)   // a file for reading, or a directory for Sync
	Rename(from, to string) error     // durable after Sync on the directory of to
	Remove(path string) error         // durable after Sync on the directory
	ReadDir(path string) ([]fs.DirEntry, error)
	Stat(path string) (fs.FileInfo, error)
}

type file interface {
	io.Reader
	io.Writer
	Stat() (fs.FileInfo, error)
	Sync() error
	Close() error
}

// disk is the file system of the operating system.
type disk struct{}

func (disk) Mkdir(path string) error                    { return os.Mkdir(path, 0o700) }
func (disk) Open(path string) (file, error)             { return opened(os.Open(path)) }
func (disk) Rename(from, to string) error               { return os.Rename(from, to) }
func (disk) Remove(path string) error                   { return os.Remove(path) }
func (disk) ReadDir(path string) ([]fs.DirEntry, error) { return os.ReadDir(path) }
func (disk) Stat(path string) (fs.FileInfo, error)      { return os.Stat(path) }

func (disk) Create(path string) (file, error) {
	return opened(os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600))
}

// opened keeps a nil *os.File from becoming a file that is not nil.
func opened(f *os.File, err error) (file, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}
