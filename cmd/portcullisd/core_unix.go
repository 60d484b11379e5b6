//go:build unix

package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// noCoreDumps keeps images and data keys in memory out of core files.
func noCoreDumps() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("switch core dumps off: %w", err)
	}
	return nil
}
