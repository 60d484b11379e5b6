package release_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/grants"
	"github.com/portcullis/portcullis/vault/release"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

// rated gives a house whose purpose allows so many records a minute.
func rated(t *testing.T, rate int64, records int, change ...func(*grants.Request)) *scene {
	h := house.New(t)
	h.Admit("acme", "beta")
	p := house.Tuning()
	p.MaxRate = rate
	h.Decide(breach.Action{Purpose: &p})
	s := &scene{House: h, records: h.Records(records), acme: h.Caller("contractor/acme/tuning")}
	s.grant, s.token = s.Active(s.acme, change...)
	return s
}

// TestRate: so many records a minute, the same one again as well, and the error says how long
// to wait.
func TestRate(t *testing.T) {
	s := rated(t, 3, 5)
	opens := func(r vault.Record) {
		t.Helper()
		if sent, err := s.fetch(r); err != nil || len(sent) != 1 {
			t.Fatalf("%v", err)
		}
	}
	over := func(want time.Duration) {
		t.Helper()
		for _, r := range []vault.Record{s.records[0], s.records[4]} { // also what left before
			s.refused(r, vault.Exhausted, vault.ReasonRateExceeded)
			_, err := s.fetch(r)
			if e := new(vault.Error); !errors.As(err, &e) || e.After != want {
				t.Errorf("wait %v, want %s", err, want)
			}
		}
	}
	opens(s.records[0])
	s.Clock.Advance(20 * time.Second)
	opens(s.records[1])
	opens(s.records[0]) // a refetch
	if e := s.Last(); !e.Refetch {
		t.Errorf("the log ends in %+v", e)
	}
	over(40 * time.Second)
	s.Clock.Advance(40*time.Second - time.Microsecond)
	over(time.Microsecond)
	if n := s.Grant(s.grant.Grant).Released; n != 2 {
		t.Errorf("%d of the quota", n)
	}
	s.Clock.Advance(time.Microsecond)
	for range 3 {
		opens(s.records[2])
	}
	over(time.Minute)
	if g := s.Grant(s.grant.Grant); g.Released != 3 || g.ReleasedBytes != s.records[0].Size+s.records[1].Size+s.records[2].Size {
		t.Errorf("%d records of %d bytes of the quota", g.Released, g.ReleasedBytes)
	}
}

// TestBytes: the quota of bytes takes what fits, to the byte.
func TestBytes(t *testing.T) {
	s := rated(t, vault.MaxRate, 4)
	most := s.records[0].Size + s.records[1].Size
	s.grant, s.token = s.Active(s.acme, func(r *grants.Request) { r.MaxBytes = most })
	for range 2 {
		for _, r := range s.records[:2] {
			if _, err := s.fetch(r); err != nil {
				t.Error(err)
			}
		}
		s.refused(s.records[2], vault.Exhausted, vault.ReasonBytesExceeded)
	}
	if g := s.Grant(s.grant.Grant); g.ReleasedBytes != most || g.Released != 2 {
		t.Errorf("%d bytes of %d records of the quota", g.ReleasedBytes, g.Released)
	}
	s.grant, s.token = s.Active(s.acme, func(r *grants.Request) { r.MaxBytes = most - 1 })
	if _, err := s.fetch(s.records[0]); err != nil {
		t.Error(err)
	}
	s.refused(s.records[1], vault.Exhausted, vault.ReasonBytesExceeded)
}

// barred is a barrier that says what it was asked for, once it is done. Before, the caller leaves.
type barred struct {
	release.Barrier
	leave func()
	met   func(vault.Ending)
	err   error
}

func (b barred) End(ctx context.Context, e vault.Ending) (vault.Barrier, error) {
	b.leave()
	out, err := b.Barrier.End(ctx, e)
	b.met(e)
	return out, errors.Join(err, ctx.Err(), b.err)
}

// TestBreakerBarrier: once it is answered that the grant has ended by itself, what was under way of it
// is not sent any more, not even if the caller has left or if a barrier fails; Vault's follower hears
// of it once.
func TestBreakerBarrier(t *testing.T) {
	for name, failed := range map[string]error{
		"holds": nil, "fails": vault.E(vault.Unavailable, vault.ReasonInternal, "a node is away"),
	} {
		t.Run(name, func(t *testing.T) {
			s := rated(t, vault.MaxRate, 2, func(r *grants.Request) { r.MaxRecords = 1 })
			ctx, leave := context.WithCancel(t.Context())
			var met []vault.Ending
			var told []vault.ID
			s.Release.Barrier = barred{s.Release.Barrier, leave, func(e vault.Ending) { met = append(met, e) }, failed}
			s.Release.Ended = func(id vault.ID) {
				if len(met) != 1 {
					t.Error("told before the barrier")
				}
				told = append(told, id)
			}
			s.Once("Unwrap", func() {
				for range vault.MaxExcess {
					s.refused(s.records[1], vault.Exhausted, vault.ReasonQuotaExceeded)
				}
				s.Before(nil)
				err := s.Release.Fetch(ctx, s.acme, s.token, s.grant.Grant, s.handle(s.records[1]), func(vault.Image) error {
					t.Error("it was sent")
					return nil
				})
				if s.Refused(err, vault.State, vault.ReasonGrantSuspended); errors.Is(err, context.Canceled) {
					t.Error("the barrier ended with the caller")
				}
			})
			sent, err := s.fetch(s.records[0])
			s.Refused(err, vault.State, vault.ReasonAccessEnded)
			if len(sent) != 0 {
				t.Error("sent after the answer")
			}
			ended := s.Events(vault.EventGrantSuspended)
			if len(met) != 1 || len(ended) != 1 || met[0].Index != ended[0].Index || !slices.Equal(met[0].Grants, told) ||
				len(told) != 1 || told[0] != s.grant.Grant || len(met[0].Grantees) != 0 {
				t.Errorf("endings %+v, told %v, in the log %+v", met, told, ended)
			}
			s.refused(s.records[1], vault.State, vault.ReasonGrantSuspended)
			if len(met) != 1 {
				t.Errorf("%d barriers", len(met))
			}
		})
	}
}

// TestLimitsRaced: 64 callers at once get exactly the quota of records, of bytes, or the rate.
func TestLimitsRaced(t *testing.T) {
	const records, callers, most = 30, 64, 11
	for name, c := range map[string]struct {
		rate   int64
		change func(*grants.Request)
		reason vault.Reason
	}{
		"records": {vault.MaxRate, func(r *grants.Request) { r.MaxRecords = most }, vault.ReasonQuotaExceeded},
		"bytes":   {vault.MaxRate, nil, vault.ReasonBytesExceeded},
		"rate":    {most, func(*grants.Request) {}, vault.ReasonRateExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			change := c.change
			if change == nil {
				change = func(*grants.Request) {}
			}
			s := rated(t, c.rate, records, change)
			if c.change == nil {
				// All of one size for the count, which is what the row says.
				s.SQL("UPDATE records SET size = 100")
				s.grant, s.token = s.Active(s.acme, func(r *grants.Request) { r.MaxBytes = 100*most + 99 })
			}
			var all sync.WaitGroup
			var sent, over, ended atomic.Int64
			start := make(chan struct{})
			for i := range callers {
				all.Go(func() {
					<-start
					_, err := s.fetch(s.records[i%records])
					switch vault.ReasonOf(err) {
					case "":
						sent.Add(1)
					case c.reason:
						over.Add(1)
					case vault.ReasonGrantSuspended:
						ended.Add(1)
					default:
						t.Error(err)
					}
				})
			}
			close(start)
			all.Wait()
			fresh, again := 0, 0
			for _, e := range s.Events(vault.EventRecordReleased) {
				if e.Refetch {
					again++
				} else {
					fresh++
				}
			}
			got := fresh
			if c.reason == vault.ReasonRateExceeded {
				got += again
			}
			if got != most || int64(fresh+again) != sent.Load() || ended.Load() != 0 {
				t.Errorf("%d and %d again are in the log, %d were sent, of %d; %d ended", fresh, again, sent.Load(), most, ended.Load())
			}
			if n := int64(len(s.Events(vault.EventReleaseRefused))); n != over.Load() || sent.Load()+over.Load() != callers {
				t.Errorf("%d refusals in the log, %d met", n, over.Load())
			}
			if g := s.Grant(s.grant.Grant); g.Released != int64(fresh) {
				t.Errorf("%d of the quota by the row, %d by the log", g.Released, fresh)
			}
		})
	}
}

// TestBreaker: a grant whose grantee goes on after being refused ends by itself. Any release
// begins the count anew.
func TestBreaker(t *testing.T) {
	for name, c := range map[string]struct {
		rate   int64
		change func(*grants.Request)
		reason vault.Reason
	}{
		"records": {vault.MaxRate, func(r *grants.Request) { r.MaxRecords = 1 }, vault.ReasonQuotaExceeded},
		"bytes":   {vault.MaxRate, func(r *grants.Request) { r.MaxBytes = 200 }, vault.ReasonBytesExceeded},
		"rate":    {1, func(*grants.Request) {}, vault.ReasonRateExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			s := rated(t, c.rate, 2, c.change)
			other, token := s.Active(s.acme, c.change)
			goOn := func(n int) {
				t.Helper()
				for i := range n {
					if sent, err := s.fetch(s.records[1]); len(sent) != 0 || vault.ReasonOf(err) != c.reason {
						t.Fatalf("refusal %d: %v", i+1, err)
					}
				}
			}
			if _, err := s.fetch(s.records[0]); err != nil {
				t.Fatal(err)
			}
			goOn(vault.MaxExcess)
			s.Clock.Advance(time.Minute)
			if _, err := s.fetch(s.records[0]); err != nil {
				t.Fatalf("after %d refusals: %v", vault.MaxExcess, err)
			}
			goOn(vault.MaxExcess)
			if len(s.Events(vault.EventGrantSuspended)) != 0 || s.Opens(s.token, s.records[0]) != nil {
				t.Fatal("it has ended")
			}
			s.refused(s.records[1], vault.State, vault.ReasonGrantSuspended)
			e := s.Events(vault.EventGrantSuspended)
			if len(e) != 1 || e[0].Actor != "portcullisd" || e[0].Grant != s.grant.Grant.String() || e[0].Contractor != "acme" || e[0].Reason != c.reason {
				t.Errorf("events %+v", e)
			}
			if g := s.Grant(s.grant.Grant); g.State != vault.GrantSuspended {
				t.Errorf("it is %s", g.State)
			}
			s.Clock.Advance(time.Minute)
			s.refused(s.records[0], vault.State, vault.ReasonGrantSuspended)
			_, err := s.Release.List(t.Context(), s.acme, s.token, s.grant.Grant, "", 0)
			s.Refused(err, vault.State, vault.ReasonGrantSuspended)
			if n := len(s.Events(vault.EventGrantSuspended)); n != 1 {
				t.Errorf("it ended %d times", n)
			}
			// Vault learns of it with the next sweep.
			s.NoError(s.Grants.Sweep(t.Context()))
			if s.Opens(s.token, s.records[0]) == nil {
				t.Error("its token opens at Vault")
			}
			s.grant, s.token = other, token
			if _, err := s.fetch(s.records[0]); err != nil {
				t.Errorf("another grant: %v", err)
			}
		})
	}
}
