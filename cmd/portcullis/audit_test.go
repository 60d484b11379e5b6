package main

import (
	"crypto/sha256"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/mod/sumdb/note"

	"github.com/portcullis/portcullis/internal/tlog"
)

// paint writes pictures, none like another: paint DIR N.
func paint(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: paint DIR N")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	for i := range n {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%d.png", i)))
		ts.Check(err)
		img := image.NewGray16(image.Rect(0, 0, 8, 8))
		img.SetGray16(0, 0, color.Gray16{Y: uint16(i)})
		ts.Check(png.Encode(f, img))
		ts.Check(f.Close())
	}
}

// flip changes one byte of the one file that a pattern names: flip PATTERN OFFSET.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip PATTERN OFFSET")
	}
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	files, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(files) != 1 {
		ts.Fatalf("%s names %q, want one file", args[0], files)
	}
	b, err := os.ReadFile(files[0])
	ts.Check(err)
	b[at] ^= 1
	ts.Check(os.WriteFile(files[0], b, 0o600))
}

// forge signs a checkpoint of a history that never was, with the log's own key: forge FILE SIZE.
func (d *daemon) forge(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: forge FILE SIZE")
	}
	size, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	v, err := note.NewVerifier(fmt.Sprint(d.config["log_key"]))
	ts.Check(err)
	signer, err := tlog.LoadKeyFile(filepath.Join(d.dir, "log.key"), v.Name())
	ts.Check(err)
	signed, err := tlog.Checkpoint{Origin: v.Name(), Size: size, Root: sha256.Sum256([]byte("never was"))}.Sign(signer)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), signed, 0o600))
}
