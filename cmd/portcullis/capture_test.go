package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portcullis/portcullis/vault"
)

func TestGather(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"face/b.png", "face/a.jpg", "face/x/c.JPEG", "face/notes.txt", "plate/d.png", "other/e.png", "f.jpg"} {
		path := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "face", "link.png")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args   []string
		only   vault.Modality
		want   []string
		passed int
	}{
		"two folders":    {[]string{""}, "", []string{"face face/a.jpg", "face face/b.png", "face face/x/c.JPEG", "plate plate/d.png"}, 1},
		"one modality":   {[]string{"plate"}, vault.Plate, []string{"plate plate/d.png"}, 0},
		"all of one":     {[]string{""}, vault.Face, []string{"face f.jpg", "face face/a.jpg", "face face/b.png", "face face/x/c.JPEG", "face other/e.png", "face plate/d.png"}, 1},
		"files":          {[]string{"f.jpg", "face/notes.txt"}, vault.Face, []string{"face f.jpg", "face face/notes.txt"}, 0},
		"file, modality": {[]string{"f.jpg"}, "", nil, 0},
		"which is it":    {[]string{"other"}, "", nil, 0},
		"absent":         {[]string{"absent"}, vault.Face, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var args []string
			for _, a := range c.args {
				args = append(args, filepath.Join(dir, a))
			}
			got, err := gather(args, c.only)
			if (err == nil) != (c.want != nil) {
				t.Fatalf("got %v", err)
			}
			if err != nil {
				return
			}
			if wantOdd := strings.Contains(strings.Join(c.want, " "), "face/x/"); wantOdd != (len(got.odd) == 1) {
				t.Errorf("not regular: %v", got.odd)
			}
			if len(got.pictures) != len(c.want) || got.passed != c.passed {
				t.Fatalf("got %+v; want %v and %d passed over", got, c.want, c.passed)
			}
			for i, p := range got.pictures {
				rel, err := filepath.Rel(dir, p.path)
				if err != nil || string(p.modality)+" "+rel != c.want[i] {
					t.Errorf("%d: %s %s, want %s", i, p.modality, rel, c.want[i])
				}
			}
		})
	}
}

func TestCaptureError(t *testing.T) {
	bad := stored{Status: "refused", err: vault.E(vault.Invalid, vault.ReasonImageRejected, "x")}
	away := stored{Status: "failed", err: vault.E(vault.Unavailable, "", "x")}
	denied := stored{Status: "refused", err: vault.E(vault.Denied, vault.ReasonRoleNotAllowed, "x")}
	stopped := stored{Status: "failed", err: context.Canceled}
	ok, known, untried := stored{Status: "stored"}, stored{Status: "known"}, stored{Status: "not_tried"}
	for name, c := range map[string]struct {
		all  []stored
		exit int
	}{
		"all":         {[]stored{ok, known}, exitOK},
		"one bad":     {[]stored{ok, bad, ok}, exitFailure},
		"away":        {[]stored{ok, bad, away, untried}, exitUnavailable},
		"denied":      {[]stored{denied, untried}, exitRefused},
		"interrupted": {[]stored{ok, stopped, untried}, exitFailure},
		"untried":     {[]stored{untried}, exitFailure},
	} {
		exit := exitOK
		if err := captureError(c.all); err != nil {
			_, exit = describe(err)
		}
		if exit != c.exit {
			t.Errorf("%s: exit code %d, want %d", name, exit, c.exit)
		}
	}
	if !stops(context.Canceled) || stops(errors.New("x")) || stops(bad.err) {
		t.Error("a bad file stops the others, or an interrupt does not")
	}
}
