// Package crashfs tells what a power cut leaves of files: it keeps a trace of what was
// written and synced, and builds the disks that could be found after a crash at any point
// of it. It is for tests.
//
// The rules are those of POSIX at its harshest. Content is durable once its file was synced;
// a name, or that it is gone, once its directory was synced. Of what was not synced, any part
// may be there: all, nothing, the older part, or any choice of sectors and names.
package crashfs

import (
	"fmt"
	"io/fs"
	"path"
	"sync"
)

// Sector is how many bytes a disk writes at once, whole or not at all.
const Sector = 512

type kind uint8

const (
	makes     kind = iota // a name for a new file or directory
	writes                // bytes at an offset
	truncates             // to a size
	syncs                 // a file's content, or a directory's names
	loses                 // a sync that failed: what it was for may be lost, and later syncs do not see it
	renames
	removes
)

// op is one change, of the file or directory that it names by number.
type op struct {
	kind  kind
	node  int
	dir   int // of a name: the directory that it is in
	name  string
	to    int // of a rename: the new directory
	as    string
	at    int64
	data  []byte
	isDir bool // what is made
}

// Trace is the record of what was done to files, in order. The root is a directory, durable
// from the start. Paths are slash-separated and absolute. Its methods may be called at once.
type Trace struct {
	mu    sync.Mutex
	ops   []op
	names []map[string]int // by node; nil for a file
}

// root is the number of the root directory.
const root = 0

// NewTrace gives an empty one.
func NewTrace() *Trace { return &Trace{names: []map[string]int{{}}} }

// Len is the number of changes so far: whatever was done before is among them.
func (t *Trace) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.ops)
}

// find gives the number of a path.
func (t *Trace) find(p string) (int, error) {
	p = path.Clean(p)
	if p == "/" {
		return root, nil
	}
	dir, name := path.Split(p)
	in, err := t.find(dir)
	if err != nil {
		return 0, err
	}
	node, ok := t.names[in][name]
	if !ok {
		return 0, &fs.PathError{Op: "find", Path: p, Err: fs.ErrNotExist}
	}
	return node, nil
}

func (t *Trace) make(p string, dir bool) (int, error) {
	parent, name := path.Split(path.Clean(p))
	in, err := t.find(parent)
	if err != nil {
		return 0, err
	}
	if _, taken := t.names[in][name]; taken {
		return 0, &fs.PathError{Op: "make", Path: p, Err: fs.ErrExist}
	}
	var names map[string]int
	if dir {
		names = map[string]int{}
	}
	node := len(t.names)
	t.names = append(t.names, names)
	t.names[in][name] = node
	t.ops = append(t.ops, op{kind: makes, node: node, dir: in, name: name, isDir: dir})
	return node, nil
}

// Mkdir makes a directory.
func (t *Trace) Mkdir(p string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, err := t.make(p, true)
	return err
}

// Open gives the number of the file at a path, and makes it if it is absent.
func (t *Trace) Open(p string) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if node, err := t.find(p); err == nil {
		return node, nil
	}
	return t.make(p, false)
}

// Create makes a file. One that exists is an error.
func (t *Trace) Create(p string) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.make(p, false)
}

// Write notes bytes written to a file. The bytes are copied.
func (t *Trace) Write(node int, at int64, data []byte) {
	t.add(op{kind: writes, node: node, at: at, data: append([]byte(nil), data...)})
}

// Truncate notes a file's new size.
func (t *Trace) Truncate(node int, size int64) { t.add(op{kind: truncates, node: node, at: size}) }

// Sync notes that a file was synced.
func (t *Trace) Sync(node int) { t.add(op{kind: syncs, node: node}) }

// Lose notes a sync of a file that failed. What was not durable then may be on the disk or
// not, by sectors, and no later sync makes it so, as the page cache forgets that it is dirty.
func (t *Trace) Lose(node int) { t.add(op{kind: loses, node: node}) }

// SyncDir notes that a directory was synced.
func (t *Trace) SyncDir(p string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	node, err := t.find(p)
	if err == nil {
		t.ops = append(t.ops, op{kind: syncs, node: node})
	}
	return err
}

// Remove takes a name away.
func (t *Trace) Remove(p string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	dir, name := path.Split(path.Clean(p))
	in, err := t.find(dir)
	if err != nil {
		return err
	}
	node, ok := t.names[in][name]
	if !ok {
		return &fs.PathError{Op: "remove", Path: p, Err: fs.ErrNotExist}
	}
	delete(t.names[in], name)
	t.ops = append(t.ops, op{kind: removes, node: node, dir: in, name: name})
	return nil
}

// Rename gives a file another name, in the place of what had it.
func (t *Trace) Rename(from, to string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	fromDir, name := path.Split(path.Clean(from))
	toDir, as := path.Split(path.Clean(to))
	in, err := t.find(fromDir)
	if err != nil {
		return err
	}
	out, err := t.find(toDir)
	if err != nil {
		return err
	}
	node, ok := t.names[in][name]
	if !ok {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	delete(t.names[in], name)
	t.names[out][as] = node
	t.ops = append(t.ops, op{kind: renames, node: node, dir: in, name: name, to: out, as: as})
	return nil
}

func (t *Trace) add(o op) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if o.node < 0 || o.node >= len(t.names) {
		panic(fmt.Sprintf("crashfs: no file has the number %d", o.node))
	}
	t.ops = append(t.ops, o)
}
