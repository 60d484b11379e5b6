package main

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/portcullis/portcullis/internal/store"
	"github.com/portcullis/portcullis/internal/tlog"
	"github.com/portcullis/portcullis/vault"
)

type treeLedger struct{ *store.Store }

func (l treeLedger) View(ctx context.Context, fn func(tlog.Tx) error) error {
	return l.Store.View(ctx, func(t *store.Tx) error { return fn(t) })
}

func (l treeLedger) Update(ctx context.Context, fn func(tlog.Tx) error) error {
	_, err := l.Store.Update(ctx, func(t *store.Tx) error { return fn(t) })
	return err
}

// A paused log does not grow; one that goes on has every event, under a good signature.
func TestPauseTheLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "facts.db")
	log, err := openLog(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.close()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := tlog.NewSigner("portcullis.example/log", public, func(m []byte) ([]byte, error) { return ed25519.Sign(private, m), nil })
	if err != nil {
		t.Fatal(err)
	}
	ledger := treeLedger{log.facts}
	l := &tlog.Leader{Ledger: ledger, Signer: signer, Log: slog.New(slog.DiscardHandler), Clock: time.Now}
	add := func() {
		t.Helper()
		_, err := log.facts.Update(t.Context(), func(tx *store.Tx) error {
			return tx.Append(vault.NewEvent(vault.EventCallRefused, vault.Caller{}, tx.Now()))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	add()
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { l.Run(ctx, 20*time.Millisecond) })
	defer running.Wait()
	defer stop()
	if err := sleep(t.Context(), 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if err := log.whole(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := log.resume(t.Context()); err == nil {
		t.Error("a log that was not paused is resumed")
	}
	for range 2 {
		if err := log.pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		var before, after int64
		size := func(to *int64) {
			t.Helper()
			if err := log.db.QueryRowContext(t.Context(), `SELECT size FROM log_tree`).Scan(to); err != nil {
				t.Fatal(err)
			}
		}
		size(&before)
		add()
		time.Sleep(200 * time.Millisecond)
		if size(&after); after != before {
			t.Errorf("while it is paused the tree went from %d to %d", before, after)
		}
		if err := log.resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		if size(&after); after != before+1 {
			t.Errorf("the tree has %d events and not %d", after, before+1)
		}
	}
	const events = 2*atOnce + 7
	if err := log.fill(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	got, err := tlog.Reader{Ledger: ledger}.Verify(t.Context(), signer.Verifier(), nil, func(int64, int64) {})
	if err != nil || got.Checkpoint.Size != events || len(got.Findings) > 0 {
		t.Errorf("the log has %d events, %v, %v", got.Checkpoint.Size, got.Findings, err)
	}
}
