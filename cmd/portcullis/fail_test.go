package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

func TestMessages(t *testing.T) {
	full := &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
	for name, c := range map[string]struct {
		err        error
		want, next string
	}{
		"interrupt":        {fmt.Errorf("after 1 of 2 images: %w", fmt.Errorf("context canceled: %w", context.Canceled)), "after 1 of 2 images: interrupted", "run it again"},
		"interrupt alone":  {context.Canceled, "interrupted", "run it again"},
		"disk full":        {errors.Join(full, full), "write x: no space left on device", "the disk is full"},
		"two errors":       {errors.Join(errors.New("a"), errors.New("b")), "a; b", ""},
		"connection reset": {fmt.Errorf("x: %w", context.DeadlineExceeded), "x: context deadline exceeded", "no answer"},
	} {
		body, _ := describe(c.err)
		if next := hint(c.err, body); body.Message != c.want || !strings.HasPrefix(next, c.next) || c.next == "" && next != "" {
			t.Errorf("%s: %q, %q", name, body.Message, next)
		}
	}
	for _, text := range []string{"write: broken pipe", "read: connection reset by peer"} {
		if next := connectionHint(text); !strings.Contains(next, "may have refused this profile's certificate") {
			t.Errorf("%s: %s", text, next)
		}
	}
}

// TestFileNames: every name of a file comes back from JSON as it was, so no two are one.
func TestFileNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := fileName(rapid.SliceOfN(rapid.SampledFrom([]byte("a\\x/f\xff\xc3\xa9\x00")), 0, 20).Draw(t, "name"))
		b, err := json.Marshal(name)
		if err != nil {
			t.Fatal(err)
		}
		var back fileName
		if err := json.Unmarshal(b, &back); err != nil || back != name {
			t.Fatalf("%q became %s and %q (%v)", string(name), b, string(back), err)
		}
	})
}

// TestLinesReopened: what is known is in the file at the path, also after that was removed, and
// only one process at a time writes there.
func TestLinesReopened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "lines")
	none := func([]byte) error { return nil }
	l, err := openLines(path, none)
	if err != nil || !l.here() {
		t.Fatal(err)
	}
	if err := l.append("first"); err != nil {
		t.Fatal(err)
	}
	if err := l.replace([][]byte{[]byte(`"kept"`)}); err != nil || !l.here() {
		t.Fatal(err)
	}
	if _, err := openLines(path, none); !errors.Is(err, errInUse) {
		t.Errorf("a second one: %v", err)
	}
	if err := l.append("next"); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); string(b) != "\"kept\"\n\"next\"\n" {
		t.Errorf("replaced: %q", b)
	}
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	if l.here() {
		t.Error("a removed file is here")
	}
	if err := l.reopen(none, func() []any { return []any{"again"} }); err != nil || !l.here() {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); string(b) != "\"again\"\n" {
		t.Errorf("reopened: %q", b)
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
}
