package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

func TestConfirm(t *testing.T) {
	for in, agrees := range map[string]bool{
		"y\n": true, "Y\n": true, "yes\n": true, " y \n": true, "y": true,
		"n\n": false, "\n": false, "": false, "yesterday\n": false, strings.Repeat("y", maxAnswer+1): false,
	} {
		var out bytes.Buffer
		a := &app{stdin: bufio.NewReader(strings.NewReader(in)), stderr: &out, asks: true}
		err := a.confirm(t.Context(), "Sign?")
		if (err == nil) != agrees {
			t.Errorf("answer %q: %v", in, err)
		}
		if err != nil && !errors.Is(err, errNotConfirmed) {
			t.Errorf("answer %q: %v", in, err)
		}
		if out.String() != "Sign? [y/N] " {
			t.Errorf("asked %q", out.String())
		}
	}
	a := &app{stdin: bufio.NewReader(strings.NewReader("y\n")), stderr: io.Discard}
	var u *usageError
	if err := a.confirm(t.Context(), "Sign?"); !errors.As(err, &u) {
		t.Errorf("without a terminal: %v", err)
	}
	a.yes = true
	if err := a.confirm(t.Context(), "Sign?"); err != nil {
		t.Errorf("with --yes: %v", err)
	}
}

func TestConfirmTyped(t *testing.T) {
	for in, agrees := range map[string]bool{"12\n": true, "1\n": false, "y\n": false, "\n": false, "012\n": false} {
		a := &app{stdin: bufio.NewReader(strings.NewReader(in)), stderr: io.Discard, asks: true}
		if err := a.confirmTyped(t.Context(), "How many?", "12"); (err == nil) != agrees {
			t.Errorf("answer %q: %v", in, err)
		}
	}
}

func TestInterruptEndsAQuestion(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a := &app{stdin: bufio.NewReader(r), stderr: io.Discard, asks: true}
	if err := a.confirm(ctx, "Sign?"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestProgressIsForPeople(t *testing.T) {
	for _, sits := range []bool{true, false} {
		var out bytes.Buffer
		a := &app{stderr: &out, showBar: sits}
		bar := a.bar("storing", 2)
		bar.add()
		bar.add()
		bar.done()
		if got := strings.Contains(out.String(), "storing"); got != sits {
			t.Errorf("somebody sits there: %t; the bar wrote %q", sits, out.String())
		}
	}
}

func TestTokensAreKeptPrivate(t *testing.T) {
	dir := t.TempDir()
	store := tokens(filepath.Join(dir, "tokens", "contractor"))
	grant := vault.NewID()
	if _, err := store.load(grant); vault.ReasonOf(err) != vault.ReasonGrantNotActive {
		t.Errorf("no token is kept, but: %v", err)
	}
	if err := store.prepare(); err != nil {
		t.Fatal(err)
	}
	for _, secret := range []vault.Token{vault.TokenOf("hvs.first"), vault.TokenOf("hvs.second")} {
		if err := store.keep(grant, secret); err != nil {
			t.Fatal(err)
		}
		if got, err := store.load(grant); err != nil || got.Reveal() != secret.Reveal() {
			t.Errorf("the newest token does not read back: %v", err)
		}
	}
	entries, err := os.ReadDir(string(store))
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files, want the token alone; %v", len(entries), err)
	}
	if info, err := os.Stat(store.path(grant)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("token file: %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(store.path(grant), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := store.load(grant); err == nil || strings.Contains(err.Error(), "hvs.") {
		t.Errorf("a token that others can read: %v", err)
	}
	if err := os.Chmod(string(store), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := store.prepare(); err == nil {
		t.Error("a folder that others can read was taken")
	}
	for range 2 {
		if err := store.forget(grant); err != nil {
			t.Errorf("forget: %v", err)
		}
	}
}

func TestSaveImageTrustsNoNames(t *testing.T) {
	dir := t.TempDir()
	good := func() *pb.Image {
		return &pb.Image{
			Handle: strings.Repeat("0a", 16), Modality: pb.Modality_MODALITY_FACE, ContentType: "image/png", Orientation: 6, Data: []byte("x"),
		}
	}
	facts, err := saveImage(dir, good())
	if err != nil || facts.File != filepath.Join(dir, "face-"+strings.Repeat("0a", 16)+".png") || facts.Orientation != 6 {
		t.Errorf("%+v, %v", facts, err)
	}
	for name, change := range map[string]func(*pb.Image){
		"path as handle": func(i *pb.Image) { i.Handle = "../../../../../../../../../tmp/x" },
		"no modality":    func(i *pb.Image) { i.Modality = 0 },
		"content type":   func(i *pb.Image) { i.ContentType = "text/html" },
	} {
		img := good()
		change(img)
		if _, err := saveImage(dir, img); err == nil {
			t.Errorf("%s: was saved", name)
		}
	}
}
