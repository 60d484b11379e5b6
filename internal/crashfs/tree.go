package crashfs

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Tree is a file system in memory. Its methods may be called at once.
type Tree struct {
	mu    sync.Mutex
	nodes map[string]*Entry          // by path
	below map[string]map[string]bool // names by directory
}

// Entry is a file or directory of a tree. It is also its own [fs.FileInfo] and [fs.DirEntry].
type Entry struct {
	tree *Tree
	name string
	dir  bool
	data []byte // replaced or appended to under the tree's lock, never changed in place
	made time.Time
}

// NewTree gives one with an empty root.
func NewTree() *Tree {
	t := &Tree{nodes: map[string]*Entry{}, below: map[string]map[string]bool{}}
	t.add("/", true, nil)
	return t
}

func (t *Tree) add(p string, dir bool, data []byte) *Entry {
	e := &Entry{tree: t, name: path.Base(p), dir: dir, data: data, made: time.Unix(0, 0)}
	t.nodes[p] = e
	if dir {
		t.below[p] = map[string]bool{}
	}
	if p != "/" {
		t.below[path.Dir(p)][e.name] = true
	}
	return e
}

func (t *Tree) fill(p string, at int, nodes []*node) {
	for name, n := range nodes[at].names {
		child := path.Join(p, name)
		t.add(child, nodes[n].names != nil, nodes[n].data)
		if nodes[n].names != nil {
			t.fill(child, n, nodes)
		}
	}
}

// Find gives what is at a path.
func (t *Tree) Find(p string) (*Entry, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.nodes[path.Clean(p)]; e != nil {
		return e, nil
	}
	return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
}

// Make makes an empty file, or a directory.
func (t *Tree) Make(p string, dir bool) (*Entry, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p = path.Clean(p)
	if t.nodes[p] != nil {
		return nil, &fs.PathError{Op: "make", Path: p, Err: fs.ErrExist}
	}
	if t.below[path.Dir(p)] == nil {
		return nil, &fs.PathError{Op: "make", Path: p, Err: fs.ErrNotExist}
	}
	return t.add(p, dir, nil), nil
}

// Remove removes a file.
func (t *Tree) Remove(p string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.remove(path.Clean(p))
}

func (t *Tree) remove(p string) error {
	if e := t.nodes[p]; e == nil || e.dir {
		return &fs.PathError{Op: "remove", Path: p, Err: fs.ErrNotExist}
	}
	delete(t.nodes, p)
	delete(t.below[path.Dir(p)], path.Base(p))
	return nil
}

// Rename gives a file another name, in the place of what had it.
func (t *Tree) Rename(from, to string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	from, to = path.Clean(from), path.Clean(to)
	e := t.nodes[from]
	if err := t.remove(from); err != nil {
		return err
	}
	e.name = path.Base(to)
	t.nodes[to] = e
	t.below[path.Dir(to)][e.name] = true
	return nil
}

// List gives what is in a directory, by name.
func (t *Tree) List(p string) ([]fs.DirEntry, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p = path.Clean(p)
	names, ok := t.below[p]
	if !ok {
		return nil, &fs.PathError{Op: "readdir", Path: p, Err: fs.ErrNotExist}
	}
	out := make([]fs.DirEntry, 0, len(names))
	for name := range names {
		out = append(out, t.nodes[path.Join(p, name)])
	}
	slices.SortFunc(out, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return out, nil
}

// Copy writes the files of one directory, not those below it, to a real one.
func (t *Tree) Copy(from, to string) error {
	entries, err := t.List(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if f := e.(*Entry); !f.dir {
			if err := os.WriteFile(filepath.Join(to, f.name), f.Data(), 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// Data gives a file's bytes, which must not be changed.
func (e *Entry) Data() []byte {
	e.tree.mu.Lock()
	defer e.tree.mu.Unlock()
	return e.data
}

// Append adds bytes to a file.
func (e *Entry) Append(b []byte) {
	e.tree.mu.Lock()
	defer e.tree.mu.Unlock()
	e.data = append(e.data, b...)
}

// Name is the last element of the path.
func (e *Entry) Name() string { return e.name }

// Size is in bytes.
func (e *Entry) Size() int64 { return int64(len(e.Data())) }

// Mode is that of a file or directory that its owner alone may use.
func (e *Entry) Mode() fs.FileMode {
	if e.dir {
		return fs.ModeDir | 0o700
	}
	return 0o600
}

// ModTime is the same for all.
func (e *Entry) ModTime() time.Time { return e.made }

// IsDir says whether it is a directory.
func (e *Entry) IsDir() bool { return e.dir }

// Sys gives nothing.
func (e *Entry) Sys() any { return nil }

// Type is that of the mode.
func (e *Entry) Type() fs.FileMode { return e.Mode().Type() }

// Info gives itself.
func (e *Entry) Info() (fs.FileInfo, error) { return e, nil }
