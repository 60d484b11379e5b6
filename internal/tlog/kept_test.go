package tlog

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestShip: the file has every checkpoint, and survives a torn one at its end.
func TestShip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoints")
	if b, err := Shipped(path); b != nil || err != nil {
		t.Fatal(b, err)
	}
	l := newLog(t, 0)
	rng := rand.New(rand.NewPCG(1, 2))
	var last []byte
	for i := range 40 {
		l.grow(i % 3)
		signed, err := l.Checkpoint(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if rng.IntN(3) == 0 { // killed while it was written
			f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Write(signed[:rng.IntN(len(signed))]); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if got, err := Shipped(path); err != nil || !bytes.Equal(got, last) {
				t.Fatalf("%q, %v; want %q", got, err, last)
			}
		}
		if err := Ship(path, signed); err != nil {
			t.Fatal(err)
		}
		last = signed
		if got, err := Shipped(path); err != nil || !bytes.Equal(got, last) {
			t.Fatalf("%q, %v", got, err)
		}
	}
	kept, err := LoadKept(path, l.signer.Verifier())
	if err != nil || len(kept) != 40 || kept[39].Checkpoint != l.checkpoint() {
		t.Errorf("%d kept, %v", len(kept), err)
	}
	if _, err := LoadKept(path, newSigner(t).Verifier()); err == nil {
		t.Error("another log's checkpoints are taken")
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("x\n", 2*MaxCheckpoint)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Ship(path, last); err == nil {
		t.Error("a file of something else is cut off")
	}
}

func TestMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint")
	m := &Memory{Path: path, Write: func(p string, b []byte) error { return os.WriteFile(p, b, 0o600) }}
	l := newLog(t, 10)
	asked := 0
	answering := l
	prove := func(_ context.Context, from, to int64) ([]Hash, error) {
		asked++
		if to > answering.edge.Size() {
			return nil, ErrRewritten
		}
		return ProveConsistency(answering.checkpoint(), from, to, memTiles(answering.tiles))
	}
	check := func() error {
		signed, err := l.Checkpoint(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, err = m.Check(t.Context(), signed, l.signer.Verifier(), prove)
		return err
	}
	for i := range 5 {
		l.grow(i * 100)
		if err := check(); err != nil {
			t.Fatal(err)
		}
	}
	if asked != 4 {
		t.Errorf("asked for %d proofs", asked)
	}
	// An older one that fits is fine, and does not take the place of the newer.
	newest, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	old := newLog(t, 10)
	old.signer = l.signer
	l.signed, err = old.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := check(); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, newest) {
		t.Error("an older checkpoint is remembered")
	}
	// A fork, signed with the real key.
	fork := newLog(t, 0)
	fork.signer = l.signer
	fork.entries = [][]byte{[]byte("another history")}
	fork.edge.Append(LeafHash(fork.entries[0]))
	answering = fork
	for _, n := range []int{0, 1009, 5} { // shorter, as long, longer
		fork.grow(n)
		if l.signed, err = fork.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := check(); !errors.Is(err, ErrRewritten) {
			t.Errorf("a fork of size %d: %v", fork.edge.Size(), err)
		}
		if b, err := os.ReadFile(path + ".conflict"); err != nil || !bytes.Equal(b, l.signed) {
			t.Error("the evidence is not kept")
		}
	}
}
