package logmark

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
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
	// What is read first may be saved last.
	if err := f.Save(7, "sha256:77"); err != nil {
		t.Fatal(err)
	}
	if size, last, err := f.Load(); size != 1<<40 || last != "sha256:ff" || err != nil {
		t.Error("it went back to", size, last, err)
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

func TestSavesAtOnce(t *testing.T) {
	f := File{Path: filepath.Join(t.TempDir(), "log-remembered")}
	for round := range int64(20) {
		var all sync.WaitGroup
		for i := range int64(8) {
			all.Go(func() {
				size := round*8 + i + 1
				if err := f.Save(size, fmt.Sprint("sha256:", size)); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if size, _, err := f.Load(); size != round*8+8 || err != nil {
			t.Fatalf("after 8 saves up to %d: %d, %v", round*8+8, size, err)
		}
	}
}
