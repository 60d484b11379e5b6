package tlog

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// fsck builds the program that checks exports and knows nothing of us, and gives a function
// that runs it.
func fsck(t *testing.T) func(d Dir, key string) (string, error) {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "tlogfsck")
	build := exec.Command("go", "build", "-C", "../../tools/tlogfsck", "-o", bin, ".")
	build.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return func(d Dir, key string) (string, error) {
		out, err := exec.CommandContext(t.Context(), bin, "-dir", string(d), "-key", key).CombinedOutput()
		return string(out), err
	}
}

// TestOutsideTool: a program that knows nothing of us finds exports sound, and damage not.
func TestOutsideTool(t *testing.T) {
	check := fsck(t)
	d := Dir(t.TempDir()) // one export that grows
	l := newLog(t, 0)
	for _, size := range []int{0, 1, 255, 256, 257, 65_536, 100_001} {
		l.grow(size - int(l.edge.Size()))
		if _, err := d.Export(t.Context(), l, l.signer.Verifier(), silent); err != nil {
			t.Fatal(err)
		}
		if out, err := check(d, l.signer.Key()); err != nil {
			t.Errorf("size %d: %v: %s", size, err, out)
		}
		if size != 257 {
			continue
		}
		if _, err := check(d, newSigner(t).Key()); err == nil {
			t.Error("a wrong key is taken")
		}
		for _, name := range []string{"tile/0/000", "tile/1/000.p/1", "tile/0/001.p/1", "tile/entries/000", "tile/entries/001.p/1", "checkpoint"} {
			whole, err := os.ReadFile(d.path(name))
			if err != nil {
				t.Fatal(err)
			}
			flipped := append([]byte(nil), whole...)
			flipped[len(flipped)/2] ^= 1
			if err := os.WriteFile(d.path(name), flipped, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := check(d, l.signer.Key()); err == nil {
				t.Errorf("%s: a flipped byte is not found", name)
			}
			if err := os.WriteFile(d.path(name), whole, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}
