package release_test

import (
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/grants"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

// TestNoTwoWindowsTellMore: where no times are told, days are the buckets all the same. Otherwise
// who asked for two windows would have the few records that one of them has more.
func TestNoTwoWindowsTellMore(t *testing.T) {
	s := apart(t, func(p *vault.Purpose) { p.Precision, p.MinBucket = vault.PrecisionNone, 10 })
	day := func(n int) time.Time { return time.Date(2026, 2, n, 0, 0, 0, 0, time.UTC) }
	s.shots(20, day(27).Add(4*time.Hour))
	lone := s.shots(1, day(28).Add(3*time.Hour))
	s.Clock.Advance(49 * time.Hour)
	seen := func(from, until time.Time) int {
		s.granted(func(r *grants.Request) { r.Scope.From, r.Scope.Until = from, until })
		return len(s.list(0, func() {}))
	}
	alone, without, with := seen(day(28), day(29)), seen(day(27), day(28)), seen(day(27), day(29))
	if alone != 0 || without != 20 || with != 20 {
		t.Errorf("%d, %d and %d records are seen, want 0, 20 and 20", alone, without, with)
	}
	if sent, err := s.fetch(lone[0]); len(sent) > 0 || vault.ReasonOf(err) != vault.ReasonBucketSmall {
		t.Errorf("%d sent, %v", len(sent), err)
	}
}

// TestNotLiveIsUntilNow: a purpose that is not live covers nothing that is captured after the
// request, whatever window was asked for; and the grant says so.
func TestNotLiveIsUntilNow(t *testing.T) {
	h := house.New(t)
	h.Admit("acme", "beta")
	p := house.Tuning()
	p.Live = false
	h.Decide(breach.Action{Purpose: &p})
	s := &scene{House: h, acme: h.Caller("contractor/acme/tuning")}
	before := s.shots(1, s.Clock.Now().Add(-time.Second))
	s.grant, s.token = s.Active(s.acme, func(r *grants.Request) { r.TTL = 8 * time.Hour })
	if until := s.grant.Scope.Until; !until.Equal(house.Start) {
		t.Errorf("the grant covers what is captured before %s", until)
	}
	s.Clock.Advance(7 * time.Hour)
	after := s.shots(1, s.Clock.Now().Add(-time.Second))
	if sent, err := s.fetch(after[0]); len(sent) > 0 || vault.ReasonOf(err) != vault.ReasonHandleUnknown {
		t.Errorf("%d sent of what was captured after the request, %v", len(sent), err)
	}
	if sent, err := s.fetch(before[0]); len(sent) != 1 {
		t.Error(err)
	}
}

// TestRefetchesDoNotForgiveExcess: who was refused again and again does not begin anew with a
// record that it has.
func TestRefetchesDoNotForgiveExcess(t *testing.T) {
	s := rated(t, vault.MaxRate, 2, func(r *grants.Request) { r.MaxRecords = 1 })
	if _, err := s.fetch(s.records[0]); err != nil {
		t.Fatal(err)
	}
	for range vault.MaxExcess {
		if _, err := s.fetch(s.records[1]); vault.ReasonOf(err) != vault.ReasonQuotaExceeded {
			t.Fatal(err)
		}
	}
	if _, err := s.fetch(s.records[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := s.fetch(s.records[1]); vault.ReasonOf(err) != vault.ReasonGrantSuspended {
		t.Error(err)
	}
}
