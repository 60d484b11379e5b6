//go:build unix && !linux

package main

import "syscall"

// childAttributes put the daemon in a process group of its own, so that Ctrl-C reaches the
// benchmark alone, which then stops the daemon. Only Linux can also end it with its parent.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
