package main

import "syscall"

// childAttributes put the daemon in a process group of its own, so that Ctrl-C reaches the
// benchmark alone, which then stops the daemon; and let it end when the benchmark
// is killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
