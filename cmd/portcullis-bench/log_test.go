package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portcullis/portcullis/internal/store"
	"github.com/portcullis/portcullis/internal/tlog"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/release"
)

type treeLedger struct{ *store.Store }

func (l treeLedger) View(ctx context.Context, fn func(tlog.Tx) error) error {
	return l.Store.View(ctx, func(t *store.Tx) error { return fn(t) })
}

func (l treeLedger) Update(ctx context.Context, fn func(tlog.Tx) error) error {
	_, err := l.Store.Update(ctx, func(t *store.Tx) error { return fn(t) })
	return err
}

// beginLog opens a log. A leader makes its tree grow when it is told to run.
func beginLog(t *testing.T) (*auditLog, *tlog.Leader, *tlog.Signer) {
	t.Helper()
	log, err := openLog(t.Context(), filepath.Join(t.TempDir(), "facts.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.close(); err != nil {
			t.Error(err)
		}
	})
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := tlog.NewSigner("portcullis.example/log", public, func(m []byte) ([]byte, error) { return ed25519.Sign(private, m), nil })
	if err != nil {
		t.Fatal(err)
	}
	return log, &tlog.Leader{Ledger: treeLedger{log.facts}, Signer: signer, Log: slog.New(slog.DiscardHandler), Clock: time.Now}, signer
}

// add writes one event, as a load does.
func (l *auditLog) add(ctx context.Context) error {
	_, err := l.facts.Update(ctx, func(tx *store.Tx) error {
		return tx.Append(vault.NewEvent(vault.EventCallRefused, vault.Caller{}, tx.Now()))
	})
	return err
}

// lead runs the leader until the test ends.
func lead(t *testing.T, l *tlog.Leader, every time.Duration) {
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { l.Run(ctx, every) })
	t.Cleanup(func() { stop(); running.Wait() })
}

// A round without the log counts only where the tree stood still, and leaves a tree that has all.
func TestRoundBetweenSteps(t *testing.T) {
	log, leader, signer := beginLog(t)
	const window = 300 * time.Millisecond
	lead(t, leader, signEvery(window))
	s := &still{log: log}
	load := repeat(func(ctx context.Context, _ int) error {
		return errors.Join(log.add(ctx), sleep(ctx, 10*time.Millisecond))
	})
	for range 2 {
		got, err := s.round(t.Context(), 2, window, load)
		if err != nil {
			t.Fatal(err)
		}
		if got.done == 0 {
			t.Error("nothing was done")
		}
		if events, hashed, err := log.sizes(t.Context()); err != nil || events != hashed || events < int64(got.done) {
			t.Errorf("the tree has %d of %d events, %v", hashed, events, err)
		}
	}
	const events = 2*atOnce + 7
	if err := log.fill(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	got, err := tlog.Reader{Ledger: treeLedger{log.facts}}.Verify(t.Context(), signer.Verifier(), nil, func(int64, int64) {})
	if err != nil || got.Checkpoint.Size != events || len(got.Findings) > 0 {
		t.Errorf("the log has %d events, %v, %v", got.Checkpoint.Size, got.Findings, err)
	}
}

// A log that does not stand still is not measured as one that does.
func TestRoundOfALogThatGrows(t *testing.T) {
	log, leader, _ := beginLog(t)
	lead(t, leader, 20*time.Millisecond)
	_, err := (&still{log: log}).round(t.Context(), 1, 100*time.Millisecond, repeat(func(ctx context.Context, _ int) error {
		return errors.Join(log.add(ctx), sleep(ctx, 5*time.Millisecond))
	}))
	if err == nil || !strings.Contains(err.Error(), "grew within each of") {
		t.Errorf("a log that grows all the time: %v", err)
	}
}

// afterStep returns right after a step, not before.
func TestAfterStep(t *testing.T) {
	log, leader, _ := beginLog(t)
	began := time.Now()
	var stepped time.Time
	var stepping sync.WaitGroup
	size, err := log.afterStep(t.Context(), func(ctx context.Context) error {
		if err := log.add(ctx); err != nil {
			return err
		}
		stepping.Go(func() {
			time.Sleep(200 * time.Millisecond)
			stepped = time.Now()
			if _, err := leader.Step(ctx); err != nil {
				t.Error(err)
			}
		})
		return nil
	})
	back := time.Now()
	stepping.Wait()
	if err != nil || size != 1 || back.Before(stepped) || back.Sub(began) < 200*time.Millisecond {
		t.Errorf("after %s: size %d, %v; the step was after %s", back.Sub(began), size, err, stepped.Sub(began))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := log.afterStep(ctx, log.add); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a tree that does not grow: %v", err)
	}
	broken := errors.New("broken")
	if _, err := log.afterStep(t.Context(), func(context.Context) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("an event that fails: %v", err)
	}
}

// Whatever window is asked for fits between two steps, which the service allows.
func TestSignEvery(t *testing.T) {
	for _, window := range []time.Duration{leastSeconds * 1000 * time.Millisecond, time.Second, mostStill, mostSeconds * time.Second} {
		every := signEvery(window)
		if every < warm+min(window, mostStill)+spare || every > release.DefaultMaxLag/2 {
			t.Errorf("for a window of %s the tree grows each %s", window, every)
		}
	}
}
