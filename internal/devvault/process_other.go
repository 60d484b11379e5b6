//go:build unix && !linux

package devvault

import "syscall"

// childAttributes put the child in a process group of its own. Only Linux can also end it with its parent.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
