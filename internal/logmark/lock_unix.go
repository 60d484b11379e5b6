//go:build unix

package logmark

import (
	"os"
	"syscall"
)

// lock waits until no other saves in the directory, of this process or another on this machine. It
// ends when the directory is closed.
func lock(dir *os.File) error { return syscall.Flock(int(dir.Fd()), syscall.LOCK_EX) }
