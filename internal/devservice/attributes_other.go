//go:build unix && !linux

package devservice

import "syscall"

// attributes put the daemon in a process group of its own, so that Ctrl-C reaches this program
// alone, which then stops the daemon. Only Linux can also end it with its parent.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
