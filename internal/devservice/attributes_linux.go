package devservice

import "syscall"

// attributes put the daemon in a process group of its own, so that Ctrl-C reaches this program
// alone, which then stops the daemon; and let it end when this program is killed.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
