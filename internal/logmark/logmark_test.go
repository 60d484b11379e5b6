package logmark

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFile(t *testing.T) {
	dir := t.TempDir()
	f := File{Path: filepath.Join(dir, "log-remembered")}
	if size, last, err := f.Load(); size != 0 || last != "" || err != nil {
		t.Fatal(size, last, err)
	}
	for _, want := range []content{{1, "sha256:00"}, {1 << 40, "sha256:ff"}} {
		if err := f.Save(want.Size, want.Last); err != nil {
			t.Fatal(err)
		}
		if size, last, err := f.Load(); size != want.Size || last != want.Last || err != nil {
			t.Fatal(size, last, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%v is there, %v", entries, err)
	}
	if info, err := os.Stat(f.Path); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	// Nothing remembered and something unreadable are not the same.
	for _, text := range []string{"", "{}", "x", `{"size":0,"last":"x"}`, `{"size":3}`} {
		if err := os.WriteFile(f.Path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := f.Load(); err == nil {
			t.Errorf("%q is read", text)
		}
	}
	if err := (File{Path: filepath.Join(dir, "none", "x")}).Save(1, "x"); err == nil {
		t.Error("saved in a directory that is absent")
	}
}
