package release_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/release"
)

// slow keeps scans from ending, and counts them.
type slow struct {
	release.Ledger
	let        chan struct{}
	begun, now atomic.Int64
	most       atomic.Int64
}

type slowTx struct {
	release.Tx
	l *slow
}

func (l *slow) View(ctx context.Context, fn func(release.Tx) error) error {
	return l.Ledger.View(ctx, func(tx release.Tx) error { return fn(slowTx{tx, l}) })
}

func (l *slow) Scan(ctx context.Context, fn func(release.Tx) error) error {
	return l.Ledger.Scan(ctx, func(tx release.Tx) error { return fn(slowTx{tx, l}) })
}

func (x slowTx) EachInScope(s vault.Scope, fn func(vault.Record)) error {
	x.l.begun.Add(1)
	x.l.most.Store(max(x.l.most.Load(), x.l.now.Add(1)))
	defer x.l.now.Add(-1)
	<-x.l.let
	return x.Tx.EachInScope(s, fn)
}

// TestListingsLeaveRoomForOthers: however many listings of whatever size are under way, callers
// are judged, endings are seen, and admins suspend at once.
func TestListingsLeaveRoomForOthers(t *testing.T) {
	s := open(t, 1)
	l := &slow{Ledger: s.Release.Ledger, let: make(chan struct{})}
	s.Release.Ledger = l
	var grants [10]vault.Grant
	var tokens [len(grants)]vault.Token
	for i := range grants {
		grants[i], tokens[i] = s.Active(s.acme)
	}
	var listing sync.WaitGroup
	for i := range grants {
		listing.Go(func() {
			page, err := s.Release.List(context.Background(), s.acme, tokens[i], grants[i].Grant, "", 0)
			if vault.ReasonOf(err) != vault.ReasonCallerSuspended {
				t.Errorf("%d records listed: %v", len(page.Views), err)
			}
		})
	}
	for l.begun.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond) // for the others to begin, if they may
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s.Check(s.Store.Standing(ctx, s.Bob().Caller))
	_, err := s.Store.Marked(ctx)
	s.Check(err)
	_, _, err = s.Store.EndingsAfter(ctx, 0)
	s.Check(err)
	_, _, err = s.Store.Confirmed(ctx, 1, time.Now())
	s.Check(err)
	_, err = s.Breach.SuspendCaller(ctx, s.Bob().Caller, s.acme.ID, "")
	s.Check(err)
	close(l.let)
	listing.Wait()
	if got := l.most.Load(); got != 1 {
		t.Errorf("one contractor made %d scans at once, want one", got)
	}
}

// TestListingGivesUpItsTurn: who waits for a scan does so no longer than its context.
func TestListingGivesUpItsTurn(t *testing.T) {
	s := open(t, 1)
	l := &slow{Ledger: s.Release.Ledger, let: make(chan struct{})}
	s.Release.Ledger = l
	var listing sync.WaitGroup
	listing.Go(func() {
		_, err := s.Release.List(context.Background(), s.acme, s.token, s.grant.Grant, "", 0)
		s.Check(err)
	})
	for l.begun.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	other, token := s.Active(s.acme)
	for _, g := range []vault.Grant{s.grant, other} { // the same listing, and the same contractor
		shown := token
		if g.Grant == s.grant.Grant {
			shown = s.token
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		_, err := s.Release.List(ctx, s.acme, shown, g.Grant, "", 0)
		if cancel(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting for a turn: %v", err)
		}
	}
	close(l.let)
	listing.Wait()
	_, err := s.Release.List(context.Background(), s.acme, token, other.Grant, "", 0)
	s.NoError(err) // nobody took a turn away with them
}

// TestFreshListing: a large listing is begun again without looking at all of it again, for some
// seconds.
func TestFreshListing(t *testing.T) {
	const n = 10_000
	s := open(t, 1)
	s.many(n - 1)
	c := &counting{Ledger: s.Release.Ledger, t: t}
	s.Release.Ledger = c
	first := func() []release.View {
		page, err := s.Release.List(t.Context(), s.acme, s.token, s.grant.Grant, "", 3)
		s.NoError(err)
		return page.Views
	}
	begin := first()
	for range 20 {
		first()
	}
	if c.orders != 1 {
		t.Errorf("%d scans for 21 times the first page", c.orders)
	}
	// What was revoked meanwhile is not listed all the same.
	_, err := s.Breach.Revoke(t.Context(), s.Alice().Caller, vault.Selection{Record: s.grant.HandleKey.Record(begin[0].Handle)}, "")
	s.NoError(err)
	if now := first(); c.orders != 1 || len(now) != 3 || now[0] != begin[1] {
		t.Errorf("after %d scans, %v; before it was %v", c.orders, now, begin)
	}
	s.Clock.Advance(5 * time.Second)
	if first(); c.orders != 2 {
		t.Errorf("five seconds later, %d scans", c.orders)
	}
	s.Clock.Advance(-time.Minute)
	if first(); c.orders != 3 {
		t.Errorf("with the clock set back, %d scans", c.orders)
	}
}
