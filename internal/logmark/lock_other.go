//go:build !unix

package logmark

import "os"

// lock does nothing where directories have no such locks: run one process with the admin role.
func lock(*os.File) error { return nil }
