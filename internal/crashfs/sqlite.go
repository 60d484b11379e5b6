//go:build linux

package crashfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// SQLite stands between SQLite and the system calls for its files in one directory: it adds
// to a trace what SQLite does to them, and makes calls fail. The calls are those that SQLite
// lets be replaced (sqlite3_vfs.xSetSystemCall), and fsync, which it does not.
//
// The index of the write-ahead log ("-shm") is shared memory, which SQLite builds anew after
// a crash: its calls can be made to fail, but are not in the trace.
type SQLite struct {
	dir   string // with a slash at its end
	at    string // the same directory in the trace
	trace *Trace

	mu   sync.Mutex
	fail func(Call) Fault
	deaf bool
}

// Call is one system call.
type Call struct {
	Op   string // such as "pwrite"
	File string // the last element of the path
}

func (c Call) String() string { return c.Op + " " + c.File }

// Fault is how a call fails.
type Fault struct {
	Errno syscall.Errno // none: it does not fail
	Half  bool          // a write writes half, and says so; the rest of it then fails
}

// calls is the one table of watched directories and open files: SQLite's own tables of system
// calls are global, too.
var calls = struct {
	once sync.Once
	mu   sync.Mutex
	dirs map[*SQLite]bool
	open map[int32]file

	sync     func(*libc.TLS, uintptr, int32) int32
	original map[string]uintptr
}{dirs: map[*SQLite]bool{}, open: map[int32]file{}, original: map[string]uintptr{}}

// file is one that SQLite has open.
type file struct {
	of   *SQLite
	name string
	node int // in the trace
}

// Watch adds the databases in a real directory to a trace, in which the directory has the
// path at. It holds until stop is called, once all databases there are closed.
func Watch(dir string, trace *Trace, at string) (s *SQLite, stop func()) {
	calls.once.Do(install)
	s = &SQLite{dir: filepath.Clean(dir) + "/", at: at, trace: trace}
	calls.mu.Lock()
	defer calls.mu.Unlock()
	calls.dirs[s] = true
	return s, func() {
		calls.mu.Lock()
		defer calls.mu.Unlock()
		delete(calls.dirs, s)
	}
}

// Fail asks fn before each call how it fails. nil: none does.
func (s *SQLite) Fail(fn func(Call) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fn
}

// Deaf keeps syncs out of the trace: what SQLite then holds to be durable is not.
func (s *SQLite) Deaf(deaf bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deaf = deaf
}

func (s *SQLite) hears() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.deaf
}

// called gives how a call fails.
func (s *SQLite) called(op, name string) Fault {
	s.mu.Lock()
	fn := s.fail
	s.mu.Unlock()
	if fn == nil {
		return Fault{}
	}
	return fn(Call{op, name})
}

// traced says whether a file's changes are in the trace.
func traced(name string) bool { return !strings.HasSuffix(name, "-shm") }

// must is for the trace, which has what SQLite was allowed to do: another answer is a mistake
// of this package.
func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("crashfs: the trace and the disk differ: %v", err))
	}
}

// watched gives the directory of a path and the name in it, nil for all other paths.
func watched(cPath uintptr) (*SQLite, string) {
	p := libc.GoString(cPath)
	calls.mu.Lock()
	defer calls.mu.Unlock()
	for s := range calls.dirs {
		if name, ok := strings.CutPrefix(p, s.dir); ok && !strings.Contains(name, "/") {
			return s, name
		}
	}
	return nil, ""
}

// opened gives a file by its descriptor, one without a directory if it is not watched.
func opened(fd int32) file {
	calls.mu.Lock()
	defer calls.mu.Unlock()
	return calls.open[fd]
}

// function makes a C function pointer of a Go function that is never collected, as the
// transpiler does (https://golang.org/s/go11func).
func function[F any](f F) uintptr { return **(**uintptr)(unsafe.Pointer(&struct{ p *F }{&f})) }

// callable is the way back.
func callable[F any](p uintptr) F { return *(*F)(unsafe.Pointer(&struct{ uintptr }{p})) }

// at gives what lies at an address of C.
func at[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

func original[F any](name string) F { return callable[F](calls.original[name]) }

// refuse sets errno, for calls that fail.
func refuse(tls *libc.TLS, e syscall.Errno) int32 {
	*at[int32](libc.X__errno_location(tls)) = int32(e)
	return -1
}

// install puts the functions below into SQLite's tables, for good.
func install() {
	tls := libc.NewTLS()
	defer tls.Close()
	vfs := sqlite3.Xsqlite3_vfs_find(tls, 0)
	v := at[sqlite3.Tsqlite3_vfs](vfs)
	set := callable[func(*libc.TLS, uintptr, uintptr, uintptr) int32](v.FxSetSystemCall)
	get := callable[func(*libc.TLS, uintptr, uintptr) uintptr](v.FxGetSystemCall)
	for name, fn := range map[string]uintptr{
		"open": function(openFile), "close": function(closeFile), "pwrite": function(pwrite), "pread": function(pread),
		"ftruncate": function(ftruncate), "unlink": function(unlink),
		"openDirectory": function(openDirectory), "mmap": function(mmap), "fstat": function(fstat),
	} {
		c, err := libc.CString(name)
		must(err)
		calls.original[name] = get(tls, vfs, c)
		if calls.original[name] == 0 {
			continue // not in use on this platform
		}
		if rc := set(tls, vfs, c, fn); rc != sqlite3.SQLITE_OK {
			panic(fmt.Sprintf("crashfs: SQLite does not let %s be replaced: %d", name, rc))
		}
		libc.Xfree(tls, c)
	}
	installSync(tls, vfs, v)
}

// installSync replaces fsync in the methods that SQLite's files share: databases have a table
// of their own, because they are locked, and all others have another. Each is found at a file
// that is opened for it.
func installSync(tls *libc.TLS, vfs uintptr, v *sqlite3.Tsqlite3_vfs) {
	dir, err := os.MkdirTemp("", "crashfs")
	must(err)
	defer os.RemoveAll(dir)
	name, err := libc.CString(filepath.Join(dir, "x"))
	must(err)
	defer libc.Xfree(tls, name)
	f := libc.Xcalloc(tls, 1, sqlite3.Tsize_t(v.FszOsFile))
	defer libc.Xfree(tls, f)
	open := callable[func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32](v.FxOpen)
	for _, what := range []int32{sqlite3.SQLITE_OPEN_MAIN_DB, sqlite3.SQLITE_OPEN_WAL} {
		if rc := open(tls, vfs, name, f, what|sqlite3.SQLITE_OPEN_READWRITE|sqlite3.SQLITE_OPEN_CREATE, 0); rc != sqlite3.SQLITE_OK {
			panic(fmt.Sprintf("crashfs: SQLite opens no file: %d", rc))
		}
		methods := at[sqlite3.Tsqlite3_io_methods](at[sqlite3.Tsqlite3_file](f).FpMethods)
		if calls.sync == nil {
			calls.sync = callable[func(*libc.TLS, uintptr, int32) int32](methods.FxSync)
		}
		methods.FxSync = function(syncFile)
		callable[func(*libc.TLS, uintptr) int32](methods.FxClose)(tls, f)
	}
}
