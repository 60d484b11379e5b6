package release_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/release"
)

// many adds n records like the first one, past the service.
func (s *scene) many(n int) {
	s.Helper()
	s.SQL(fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
		INSERT INTO records (id, site, lane, modality, captured_at, crossing_id, content_type, orientation, size, device, request_id,
			stored_at, wrapped_key, sealed_hash, key_state)
		SELECT printf('00000000-0000-4000-8000-%%012x', i), site, lane, modality, captured_at, crossing_id, content_type, orientation, size,
			device, printf('00000000-0000-4000-8000-%%012x', i), stored_at, wrapped_key, sealed_hash, key_state
		FROM n, (SELECT * FROM records LIMIT 1)`, n))
}

// list lists all, calling between after each page.
func (s *scene) list(most int, between func()) (all []release.View) {
	s.Helper()
	if most == 0 {
		most = release.MaxPage
	}
	for next := ""; ; between() {
		page, err := s.Release.List(context.Background(), s.acme, s.token, s.grant.Grant, next, most)
		s.NoError(err)
		if page.Next != "" && len(page.Views) != most {
			s.Fatalf("a page of %d in the middle", len(page.Views))
		}
		all = append(all, page.Views...)
		if next = page.Next; next == "" {
			return all
		}
	}
}

// counting counts what a listing costs, and refuses to let it read in the one writer.
type counting struct {
	release.Ledger
	t              testing.TB
	orders, looked int
}

type countingTx struct {
	release.Tx
	c       *counting
	writing bool
}

func (c *counting) Update(ctx context.Context, fn func(release.Tx) error) (int64, error) {
	return c.Ledger.Update(ctx, func(tx release.Tx) error { return fn(countingTx{tx, c, true}) })
}

func (c *counting) View(ctx context.Context, fn func(release.Tx) error) error {
	return c.Ledger.View(ctx, func(tx release.Tx) error { return fn(countingTx{tx, c, false}) })
}

func (c *counting) Scan(ctx context.Context, fn func(release.Tx) error) error {
	return c.Ledger.Scan(ctx, func(tx release.Tx) error { return fn(countingTx{tx, c, false}) })
}

func (x countingTx) EachInScope(s vault.Scope, fn func(vault.Record)) error {
	if x.c.orders++; x.writing {
		x.c.t.Error("the scope is read in the writer")
	}
	return x.Tx.EachInScope(s, fn)
}

func (x countingTx) RecordsOf(ids []vault.ID) ([]vault.Record, error) {
	if x.c.looked += len(ids); x.writing {
		x.c.t.Error("a page is read in the writer")
	}
	return x.Tx.RecordsOf(ids)
}

func byHandle(a, b release.View) int { return bytes.Compare(a.Handle[:], b.Handle[:]) }

// TestLongListing lists many records. Only the first page costs as much as
// the grant covers, and none of it is read in the one writer.
func TestLongListing(t *testing.T) {
	const n = 20_000
	s := open(t, 1)
	s.many(n - 1)
	c := &counting{Ledger: s.Release.Ledger, t: t}
	s.Release.Ledger = c
	start := time.Now()
	var first time.Duration
	all := s.list(release.MaxPage, func() {
		if first == 0 {
			first = time.Since(start)
		}
	})
	t.Logf("%d records in %s, the first page in %s", n, time.Since(start), first)
	if len(all) != n || c.orders != 1 || c.looked > n+n/release.MaxPage {
		t.Errorf("%d of %d records, put in order %d times, looked up %d times", len(all), n, c.orders, c.looked)
	}
	if !slices.IsSortedFunc(all, byHandle) {
		t.Error("they come in another order than that of handles")
	}
}

// TestListingOverWindows: what one window does not hold is listed whole all the same.
func TestListingOverWindows(t *testing.T) {
	const n = 300
	s := open(t, 1)
	s.many(n - 1)
	s.Release.Keep(100, 0)
	c := &counting{Ledger: s.Release.Ledger, t: t}
	s.Release.Ledger = c
	all := s.list(7, func() {})
	if len(all) != n || c.orders != 3 || !slices.IsSortedFunc(all, byHandle) {
		t.Errorf("%d of %d records, put in order %d times", len(all), n, c.orders)
	}
	if len(slices.CompactFunc(all, func(a, b release.View) bool { return a.Handle == b.Handle })) != n {
		t.Error("some are listed twice")
	}
}

// TestListWhileRecordsChange: what is revoked in the middle of a listing is not in its later
// pages, all else is; a page can be asked for again, by a service that knows nothing of it.
func TestListWhileRecordsChange(t *testing.T) {
	s := open(t, 12)
	whole := s.list(3, func() {})
	pages := 0
	got := s.list(3, func() {
		switch pages++; pages {
		case 1:
			for _, v := range []release.View{whole[3], whole[11]} {
				_, err := s.Breach.Revoke(t.Context(), s.Alice().Caller, vault.Selection{Record: s.grant.HandleKey.Record(v.Handle)}, "")
				s.NoError(err)
			}
		case 2:
			s.Restart()
		}
	})
	want := slices.Concat(whole[:3], whole[4:11])
	if !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
	s.Record("north", vault.Face, time.Second)
	if again := s.list(3, func() {}); len(again) != len(want)+1 {
		t.Errorf("a new listing has %d records, want %d", len(again), len(want)+1)
	}
}

// TestOrderTellsNothing: two grants on the same records list them in different orders.
func TestOrderTellsNothing(t *testing.T) {
	s := open(t, 20)
	order := func() (ids []vault.ID) {
		for _, v := range s.list(7, func() {}) {
			ids = append(ids, s.grant.HandleKey.Record(v.Handle))
		}
		return ids
	}
	one := order()
	s.grant, s.token = s.Active(s.acme)
	if other := order(); len(one) != 20 || len(other) != 20 || slices.Equal(one, other) {
		t.Error("the order of two grants is the same")
	}
}

// TestManyListings: listings that were pushed out by others go on.
func TestManyListings(t *testing.T) {
	s := open(t, 5)
	whole := s.list(5, func() {})
	mine, mineToken := s.grant, s.token
	s.Release.Keep(0, 2)
	got := s.list(2, func() {
		for range 3 {
			s.grant, s.token = s.Active(s.acme)
			_, err := s.Release.List(t.Context(), s.acme, s.token, s.grant.Grant, "", 1)
			s.NoError(err)
		}
		s.grant, s.token = mine, mineToken
	})
	if !slices.Equal(got, whole) {
		t.Errorf("listed %v, want %v", got, whole)
	}
}
