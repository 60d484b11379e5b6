package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
)

// raced is what 64 callers on 8 connections met who all fetched at once, one image each.
type raced struct {
	sent    []string // handles, in any order
	refused map[vault.Reason]int
}

// race lets 64 callers on 8 connections fetch, the i-th the handle that pick gives.
func (s *service) race(grant string, t vault.Token, pick func(i int) string) raced {
	s.t.Helper()
	const conns, callers = 8, 64
	var clients [conns]*client.Client
	for i := range clients {
		clients[i] = s.as(matcher)
		_, err := clients[i].Identity.WhoAmI(s.t.Context(), &pb.WhoAmIRequest{}) // so that all are connected
		noError(s.t, err)
	}
	out := raced{refused: map[vault.Reason]int{}}
	var mu sync.Mutex
	var all sync.WaitGroup
	start := make(chan struct{})
	for i := range callers {
		all.Go(func() {
			<-start
			// A stream is not repeated at this level: each caller has one answer.
			handle := pick(i)
			err := fetchOne(s, clients[i%conns], grant, t, handle)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				out.refused[vault.ReasonOf(err)]++
				return
			}
			out.sent = append(out.sent, handle)
		})
	}
	close(start)
	all.Wait()
	return out
}

// TestQuotaRaced: 64 callers on 8 connections get exactly the quota of records, of bytes, or the
// rate, and the log has each release and each refusal.
func TestQuotaRaced(t *testing.T) {
	const records, most = 40, 13
	s := begin(t)
	p := purpose()
	s.admit(p, devOrg)
	slow := p
	slow.Name, slow.MaxRate = "slow-check", most
	s.admit(slow)
	s.store(s.as(lane), vault.Plate, records, 1<<10) // eight pictures, five times each
	var sizes int64
	noError(t, openSQL(t, s.cfg.Store.Path).QueryRowContext(t.Context(), "SELECT MAX(size) FROM records").Scan(&sizes))
	c := s.as(matcher)
	for name, x := range map[string]struct {
		p       vault.Purpose
		records int64
		bytes   int64
		reason  vault.Reason
	}{
		"records": {p, most, 0, vault.ReasonQuotaExceeded},
		"bytes":   {p, records, most * sizes, vault.ReasonBytesExceeded},
		"rate":    {slow, records, 0, vault.ReasonRateExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			req := s.requestFor(x.p, x.records)
			req.MaxBytes = x.bytes
			got, err := c.Grants.RequestGrant(t.Context(), req)
			noError(t, err)
			grant := got.Grant.Name
			for _, admin := range []string{alice, bob} {
				_, err := s.as(admin).Approve(t.Context(), grant, yes)
				noError(t, err)
			}
			token := s.activate(c, grant)
			handles := s.handles(c, grant, token)
			if len(handles) != records {
				t.Fatalf("%d handles", len(handles))
			}
			met := s.race(grant, token, func(i int) string { return handles[i%records] })
			distinct := slices.Compact(slices.Sorted(slices.Values(met.sent)))
			if len(met.sent)+met.refused[x.reason] != 64 || len(met.refused) != 1 {
				t.Fatalf("%d sent, refused %v", len(met.sent), met.refused)
			}
			var released, bytes int64
			noError(t, openSQL(t, s.cfg.Store.Path).QueryRowContext(t.Context(),
				"SELECT released, released_bytes FROM grants WHERE id = ?", id(grant)).Scan(&released, &bytes))
			switch x.reason {
			case vault.ReasonQuotaExceeded:
				if len(distinct) != most {
					t.Errorf("%d records left, the quota is %d", len(distinct), most)
				}
			case vault.ReasonRateExceeded:
				if len(met.sent) != most {
					t.Errorf("%d images left in a minute of %d", len(met.sent), most)
				}
			case vault.ReasonBytesExceeded:
				if left := most*sizes - bytes; left < 0 || left >= sizes {
					t.Errorf("%d of %d bytes are left over: an image has at most %d", left, most*sizes, sizes)
				}
			}
			fresh, again := 0, 0
			for _, e := range s.events(string(vault.EventRecordReleased)) {
				switch {
				case e.Grant != id(grant):
				case e.Refetch:
					again++
				default:
					fresh++
				}
			}
			if fresh != len(distinct) || fresh+again != len(met.sent) || int64(fresh) != released {
				t.Errorf("%d and %d again by the log, %d by the row; %d were sent, %d of them again", fresh, again, released, len(met.sent), len(met.sent)-len(distinct))
			}
			refusals := 0
			for _, e := range s.events(string(vault.EventReleaseRefused)) {
				if e.Grant == id(grant) && e.Reason == x.reason {
					refusals++
				}
			}
			if refusals != met.refused[x.reason] {
				t.Errorf("%d refusals by the log, %d were met", refusals, met.refused[x.reason])
			}
		})
	}
}

// TestBreaker: who goes on whatever the service says loses the grant, at Vault as well. The rate's
// answer says how long to wait, and whoever waits loses nothing.
func TestBreaker(t *testing.T) {
	s := begin(t, func(cfg *config) { cfg.sweepEvery = time.Hour }) // nothing waits for it
	p := purpose()
	p.MaxRate = 5
	s.admit(p, devOrg)
	s.store(s.as(lane), vault.Plate, 6, 1<<10)
	c := s.as(matcher)
	grant, token := s.granted(c, p, 6)
	handles := s.handles(c, grant, token)
	got := 0
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // shorter than the wait: it is told, and not waited for
	defer cancel()
	err := c.Fetch(ctx, grant, token, handles, func(*pb.Image) error { got++; return nil })
	refused(t, err, vault.ReasonRateExceeded)
	if got != 5 {
		t.Errorf("%d images of a rate of five", got)
	}
	if e := new(vault.Error); !errors.As(err, &e) || e.After <= 0 || e.After > time.Minute {
		t.Errorf("to be asked again after %s", e.After)
	}
	if s.past(token) != 200 {
		t.Fatal("Vault opens nothing for a good grant")
	}
	// One refusal was met. The rest of what a grant stands, and one more.
	for range vault.MaxExcess - 1 {
		refused(t, fetchOne(s, c, grant, token, handles[0]), vault.ReasonRateExceeded)
	}
	refused(t, fetchOne(s, c, grant, token, handles[0]), vault.ReasonGrantSuspended)
	wait(t, "the policy at Vault is closed", func() bool { return s.past(token) == 403 })
	ended := s.events(string(vault.EventGrantSuspended))
	if len(ended) != 1 || ended[0].Grant != id(grant) || ended[0].Actor != "portcullisd" || ended[0].Reason != vault.ReasonRateExceeded {
		t.Errorf("events %+v", ended)
	}
	excess := 0
	for _, e := range s.events(string(vault.EventReleaseRefused)) {
		if e.Reason == vault.ReasonRateExceeded {
			excess++
		}
	}
	if excess != vault.MaxExcess {
		t.Errorf("%d refusals for the rate before the end, want %d", excess, vault.MaxExcess)
	}
}

// fetchOne asks for one image, once.
func fetchOne(s *service, c *client.Client, grant string, t vault.Token, handle string) error {
	stream, err := c.Release.FetchImages(s.t.Context(), &pb.FetchImagesRequest{Grant: grant, GrantToken: t.Reveal(), Handles: []string{handle}})
	if err == nil {
		_, err = stream.Recv()
	}
	return err
}
