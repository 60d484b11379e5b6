package store

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// TestWhatAllHangsOnWaitsForNoRead: as many long reads as can be under way keep nobody from
// learning who may call, what has ended, and what was restored.
func TestWhatAllHangsOnWaitsForNoRead(t *testing.T) {
	st := open(t)
	let := make(chan struct{})
	var reading sync.WaitGroup
	for _, read := range []struct {
		most int
		do   func(context.Context, func(*Tx) error) error
	}{{readers, st.View}, {scans, st.Scan}} {
		var begun sync.WaitGroup
		for range read.most {
			begun.Add(1)
			reading.Go(func() {
				if err := read.do(context.Background(), func(*Tx) error { begun.Done(); <-let; return nil }); err != nil {
					t.Error(err)
				}
			})
		}
		begun.Wait()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := st.Standing(ctx, vault.Caller{ID: "spiffe://example.org/admin/alice", Role: vault.RoleAdmin}); err != nil {
		t.Error(err)
	}
	if _, err := st.Marked(ctx); err != nil {
		t.Error(err)
	}
	if _, err := st.LastEnding(ctx); err != nil {
		t.Error(err)
	}
	if _, _, err := st.EndingsAfter(ctx, 0); err != nil {
		t.Error(err)
	}
	if _, _, err := st.Confirmed(ctx, 1, time.Now()); err != nil {
		t.Error(err)
	}
	if err := st.Renew(ctx, "node", time.Now()); err != nil {
		t.Error(err)
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if err := st.Scan(short, func(*Tx) error { return nil }); err == nil {
		t.Error("a scan more than there may be at once")
	}
	close(let)
	reading.Wait()
}
