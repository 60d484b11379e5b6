//go:build linux

package crashfs

import (
	"path"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// What stands here is called by SQLite in the place of the system call of that name.

func openFile(tls *libc.TLS, name uintptr, flags, mode int32) int32 {
	s, base := watched(name)
	if s != nil {
		if f := s.called("open", base); f.Errno != 0 {
			return refuse(tls, f.Errno)
		}
	}
	fd := original[func(*libc.TLS, uintptr, int32, int32) int32]("open")(tls, name, flags, mode)
	if s == nil || fd < 0 {
		return fd
	}
	f := file{of: s, name: base}
	if traced(base) {
		var err error
		f.node, err = s.trace.Open(path.Join(s.at, base))
		must(err)
	}
	calls.mu.Lock()
	defer calls.mu.Unlock()
	calls.open[fd] = f
	return fd
}

func closeFile(tls *libc.TLS, fd int32) int32 {
	// Forgotten first: once it is closed, another goroutine may be given the number.
	f := opened(fd)
	calls.mu.Lock()
	delete(calls.open, fd)
	calls.mu.Unlock()
	rc := original[func(*libc.TLS, int32) int32]("close")(tls, fd)
	if f.of != nil && rc == 0 {
		if fault := f.of.called("close", f.name); fault.Errno != 0 { // it is closed all the same, as on Linux
			return refuse(tls, fault.Errno)
		}
	}
	return rc
}

// written runs a write of size bytes by do, in whole or in part.
func written(tls *libc.TLS, op string, fd int32, buf uintptr, size, off int64, do func(size int64) int64) int64 {
	f := opened(fd)
	if f.of == nil {
		return do(size)
	}
	fault := f.of.called(op, f.name)
	if fault.Errno != 0 && !fault.Half {
		return int64(refuse(tls, fault.Errno))
	}
	if fault.Half {
		size /= 2
	}
	n := do(size)
	if n > 0 && traced(f.name) {
		f.of.trace.Write(f.node, off, unsafe.Slice(at[byte](buf), n))
	}
	return n
}

func pwrite(tls *libc.TLS, fd int32, buf uintptr, size sqlite3.Tsize_t, off sqlite3.Toff_t) sqlite3.Tssize_t {
	return sqlite3.Tssize_t(written(tls, "pwrite", fd, buf, int64(size), int64(off), func(n int64) int64 {
		return int64(original[func(*libc.TLS, int32, uintptr, sqlite3.Tsize_t, sqlite3.Toff_t) sqlite3.Tssize_t]("pwrite")(tls, fd, buf, sqlite3.Tsize_t(n), off))
	}))
}

func pread(tls *libc.TLS, fd int32, buf uintptr, size sqlite3.Tsize_t, off sqlite3.Toff_t) sqlite3.Tssize_t {
	if f := opened(fd); f.of != nil {
		if fault := f.of.called("pread", f.name); fault.Errno != 0 {
			return sqlite3.Tssize_t(refuse(tls, fault.Errno))
		}
	}
	return original[func(*libc.TLS, int32, uintptr, sqlite3.Tsize_t, sqlite3.Toff_t) sqlite3.Tssize_t]("pread")(tls, fd, buf, size, off)
}

func ftruncate(tls *libc.TLS, fd int32, size sqlite3.Toff_t) int32 {
	f := opened(fd)
	if f.of != nil {
		if fault := f.of.called("ftruncate", f.name); fault.Errno != 0 {
			return refuse(tls, fault.Errno)
		}
	}
	rc := original[func(*libc.TLS, int32, sqlite3.Toff_t) int32]("ftruncate")(tls, fd, size)
	if rc == 0 && f.of != nil && traced(f.name) {
		f.of.trace.Truncate(f.node, int64(size))
	}
	return rc
}

func unlink(tls *libc.TLS, name uintptr) int32 {
	s, base := watched(name)
	if s != nil {
		if f := s.called("unlink", base); f.Errno != 0 {
			return refuse(tls, f.Errno)
		}
	}
	rc := original[func(*libc.TLS, uintptr) int32]("unlink")(tls, name)
	if rc == 0 && s != nil && traced(base) {
		must(s.trace.Remove(path.Join(s.at, base)))
	}
	return rc
}

// openDirectory opens the directory of a file, which SQLite does to sync it and for nothing
// else. It gives a result code of SQLite.
func openDirectory(tls *libc.TLS, name, fd uintptr) int32 {
	s, base := watched(name)
	if s != nil {
		if f := s.called("openDirectory", base); f.Errno != 0 {
			refuse(tls, f.Errno)
			return sqlite3.SQLITE_CANTOPEN
		}
	}
	rc := original[func(*libc.TLS, uintptr, uintptr) int32]("openDirectory")(tls, name, fd)
	if rc == sqlite3.SQLITE_OK && s != nil && s.hears() {
		must(s.trace.SyncDir(s.at))
	}
	return rc
}

func mmap(tls *libc.TLS, addr uintptr, size sqlite3.Tsize_t, prot, flags, fd int32, off sqlite3.Toff_t) uintptr {
	if f := opened(fd); f.of != nil {
		if fault := f.of.called("mmap", f.name); fault.Errno != 0 {
			refuse(tls, fault.Errno)
			return ^uintptr(0) // MAP_FAILED
		}
	}
	return original[func(*libc.TLS, uintptr, sqlite3.Tsize_t, int32, int32, int32, sqlite3.Toff_t) uintptr]("mmap")(tls, addr, size, prot, flags, fd, off)
}

func fstat(tls *libc.TLS, fd int32, buf uintptr) int32 {
	if f := opened(fd); f.of != nil {
		if fault := f.of.called("fstat", f.name); fault.Errno != 0 {
			return refuse(tls, fault.Errno)
		}
	}
	return original[func(*libc.TLS, int32, uintptr) int32]("fstat")(tls, fd, buf)
}

// syncFile is the method of SQLite's files that calls fsync: for the file and then, the first
// time for a journal, for its directory.
func syncFile(tls *libc.TLS, id uintptr, flags int32) int32 {
	f := opened(at[sqlite3.TunixFile](id).Fh)
	if f.of != nil {
		if fault := f.of.called("fsync", f.name); fault.Errno != 0 {
			if traced(f.name) {
				f.of.trace.Lose(f.node)
			}
			refuse(tls, fault.Errno)
			return sqlite3.SQLITE_IOERR_FSYNC
		}
		if traced(f.name) && f.of.hears() {
			f.of.trace.Sync(f.node)
		}
	}
	return calls.sync(tls, id, flags)
}
