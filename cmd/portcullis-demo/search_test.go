package main

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// plant writes files to a fresh folder and searches it.
func plant(t *testing.T, look *searcher, files map[string][]byte) report {
	t.Helper()
	dir := t.TempDir()
	for name, b := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r, err := look.searchTree(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func TestSearcher(t *testing.T) {
	faces, plates := drawn(t)
	stored := append(faces[:3:3], plates[:4]...)
	look, err := newSearcher(stored)
	if err != nil {
		t.Fatal(err)
	}
	jpg, pngFile := stored[0], stored[6]
	if !strings.HasSuffix(jpg.name, ".jpg") || !strings.HasSuffix(pngFile.name, ".png") {
		t.Fatalf("%s and %s are not of the formats that this test is about", jpg.name, pngFile.name)
	}
	amid := func(b []byte) []byte { return bytes.Join([][]byte{noise(5001), b, noise(3000)}, nil) }
	half := func(p picture) []byte { return p.bytes[len(p.bytes)/2:] }
	for _, c := range []struct {
		name  string
		file  []byte
		finds bool
		of    string // picture that must be told
	}{
		{"noise", noise(4 << 20), false, ""},
		{"text", bytes.Repeat([]byte("nothing to see\n"), 1000), false, ""},
		{"empty", nil, false, ""},
		{"a stored JPEG amid noise", amid(jpg.bytes), true, jpg.name},
		{"a stored PNG amid noise", amid(pngFile.bytes), true, pngFile.name},
		{"another JPEG", amid(faces[8].bytes), true, ""},
		{"another PNG", amid(plates[11].bytes), true, ""},
		{"half of a stored JPEG, without its beginning", amid(half(jpg)), true, jpg.name},
		{"half of a stored PNG, without its beginning", amid(half(pngFile)), true, pngFile.name},
		{"half of a JPEG that was not stored", amid(half(faces[9])), false, ""},
		{"a stored JPEG in base64", []byte(base64.StdEncoding.EncodeToString(jpg.bytes)), true, jpg.name},
		{"the same, begun one byte later", []byte(base64.StdEncoding.EncodeToString(jpg.bytes[1:])), true, jpg.name},
		{"the same, begun two bytes later", []byte(base64.StdEncoding.EncodeToString(jpg.bytes[2:])), true, jpg.name},
		{"the start of a JPEG with nothing behind it", amid([]byte("\xff\xd8\xff\xe0\x00\x04zz\x00\x00")), false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := plant(t, look, map[string][]byte{"a/b/file": c.file})
			if len(r.finds) > 0 != c.finds {
				t.Errorf("finds: %v", r.finds)
			}
			if r.files != 1 || r.bytes != int64(len(c.file)) {
				t.Errorf("searched %d files of %d bytes", r.files, r.bytes)
			}
			told := map[string]bool{}
			for _, f := range r.finds {
				if told[f.of] = true; f.file != filepath.Join("a", "b", "file") {
					t.Errorf("found in %q", f.file)
				}
			}
			if c.of != "" && !told[c.of] {
				t.Errorf("no piece of %s among %v", c.of, r.finds)
			}
		})
	}
}

// A single piece is found in base64 wherever it begins in a group of three bytes.
func TestSearcherFindsOnePieceInBase64(t *testing.T) {
	file := make([]byte, 42) // a quarter is passed over, which leaves one window
	for i := range file {
		file[i] = byte(200 - 3*i)
	}
	if n := len(piecesOf(file)); n != 1 {
		t.Fatalf("%d pieces", n)
	}
	look, err := newSearcher([]picture{{"small", file}})
	if err != nil {
		t.Fatal(err)
	}
	for before := range 3 {
		text := base64.StdEncoding.EncodeToString(bytes.Join([][]byte{noise(before), file[10:], noise(20)}, nil))
		if finds := look.search("file", []byte(text)); len(finds) != 1 {
			t.Errorf("%d bytes before it: %v", before, finds)
		}
	}
}

func TestSearcherCountsPictures(t *testing.T) {
	faces, _ := drawn(t)
	look, err := newSearcher(faces)
	if err != nil {
		t.Fatal(err)
	}
	r := plant(t, look, map[string][]byte{"one": faces[1].bytes, "two": faces[2].bytes, "again": faces[2].bytes, "noise": noise(1000)})
	if r.pictures() != 2 || r.files != 4 {
		t.Errorf("%d pictures in %d files", r.pictures(), r.files)
	}
}

func TestSearcherRefusesBlandPictures(t *testing.T) {
	if _, err := newSearcher([]picture{{"bland.jpg", make([]byte, 10_000)}}); err == nil {
		t.Error("a picture without a piece of its own was taken: finding none of it would show nothing")
	}
}

func TestSearchTreeNeedsItsDirectory(t *testing.T) {
	look, err := newSearcher(nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := look.searchTree(t.Context(), filepath.Join(t.TempDir(), "absent"))
	if err == nil {
		t.Errorf("searching nothing at all found nothing: %+v", r)
	}
}
