package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
)

// TestWatchResumesInTheSameClass: an answer that was lost is asked for under the same request,
// unless a watch of another class asks: what was stored under the first is of its class.
func TestWatchResumesInTheSameClass(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "p.png")
	if err := os.WriteFile(path, []byte("a picture"), 0o600); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	kept, _, err := openResults(filepath.Join(dir, "results.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer kept.close()
	begin := func(key, class string, last outcome) (client.Image, outcome) {
		t.Helper()
		run := &capture{byFile: true, class: class, requestID: func(in client.Image) (id vault.ID) {
			h := sha256.Sum256(fmt.Appendf(nil, "%s %s %s %x", key, in.Class, in.CapturedAt, in.Bytes))
			copy(id[:], h[:])
			return id
		}}
		j := &job{name: "p.png", picture: picture{path, vault.Face}, version: versionOf(info), last: last}
		j.out = outcome{File: "p.png", Modality: vault.Face, Class: class}
		j.out.setVersion(j.version)
		in, err := j.read(run, kept, time.Unix(9, 0))
		if err != nil {
			t.Fatal(err)
		}
		if in.Class != class || !bytes.Equal(in.Bytes, []byte("a picture")) {
			t.Errorf("read %+v", in)
		}
		j.out.Status = "begun"
		return in, j.out
	}
	for _, key := range []string{"same key", "renewed key"} {
		for _, class := range []string{vault.DefaultClass, "us-citizen"} {
			first, line := begin("same key", class, outcome{})
			if again, _ := begin(key, class, line); again.RequestID != first.RequestID {
				t.Errorf("%s, %s: what was begun is stored under another request", key, class)
			}
			if other, _ := begin(key, "officials", line); other.RequestID == first.RequestID {
				t.Errorf("%s, %s: what was begun is stored under its request in another class", key, class)
			}
			line.Class = "" // from before there were classes
			if again, _ := begin(key, class, line); (again.RequestID == first.RequestID) != (class == vault.DefaultClass || key == "same key") {
				t.Errorf("%s, %s: a line without a class is not of the default one", key, class)
			}
		}
	}
}
