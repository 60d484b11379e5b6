package crashfs

import (
	"os"
	"testing"
)

// memory is where Linux has files in memory.
const memory = "/dev/shm"

// Scratch gives an empty directory, in memory if there is such a place, and what removes it.
// What a crash leaves is built from a trace, so nothing is lost if the syncs below cost
// nothing.
func Scratch(t testing.TB) (dir string, remove func()) {
	t.Helper()
	in := memory
	if info, err := os.Stat(in); err != nil || !info.IsDir() {
		in = t.TempDir()
	}
	dir, err := os.MkdirTemp(in, "portcullis-crash-")
	if err != nil {
		t.Fatal(err)
	}
	return dir, func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}
}
