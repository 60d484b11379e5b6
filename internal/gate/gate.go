// Package gate knows what is being sent to whom, and closes it.
package gate

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portcullis/portcullis/vault"
)

const (
	// remember is how long an ending is kept for releases that were authorized before it and
	// have not entered yet.
	remember = 5 * time.Minute
	// stale is how old a release's authorization may be when it enters. It is less than
	// remember, so whoever enters late meets either the ending or this.
	stale = 2 * time.Minute
	// patience is how long a barrier waits for the sends that it cut.
	patience = 30 * time.Second
)

// Gate lets releases pass until their access ends. Its methods may be called at once from
// many goroutines.
type Gate struct {
	reset func(match func(vault.Caller) bool) int
	clock func() time.Time
	lease atomic.Pointer[int64] // until when this node may release; nil if it is no node

	mu      sync.Mutex
	sending map[*send]struct{}
	endings []ending
}

// send is one release under way.
type send struct {
	rel  vault.Release
	done chan struct{}
}

// ending is what has ended, ready for look-up.
type ending struct {
	vault.Ending
	grants, records map[vault.ID]struct{}
	at              time.Time
}

// New makes an open gate. reset cuts the connections of the callers that match, discards
// what was not sent yet, and says how many they were.
func New(reset func(match func(vault.Caller) bool) int, clock func() time.Time) *Gate {
	return &Gate{reset: reset, clock: clock, sending: map[*send]struct{}{}}
}

// Enter lets a release pass unless its access has ended since it was authorized, or its
// authorization is stale. leave must be called once, when the send is over.
func (g *Gate) Enter(rel vault.Release) (leave func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.clock()
	g.forget(now)
	if !leased(&g.lease, now) {
		return nil, vault.E(vault.Unavailable, vault.ReasonNoLease, "this node may not release at the moment; try again")
	}
	if now.Sub(rel.At) > stale {
		return nil, vault.E(vault.Unavailable, vault.ReasonAccessEnded, "opening the image took too long; try again")
	}
	for _, e := range g.endings {
		if rel.Index < e.Index && e.covers(rel) {
			return nil, vault.E(vault.State, vault.ReasonAccessEnded, "access ended while the image was on its way")
		}
	}
	s := &send{rel: rel, done: make(chan struct{})}
	g.sending[s] = struct{}{}
	return func() {
		g.mu.Lock()
		delete(g.sending, s)
		g.mu.Unlock()
		close(s.done)
	}, nil
}

// End returns when nothing that the ending covers is under way any more: it cuts the
// connections concerned and waits for their sends. The ending must be durable, so that
// nothing new is authorized. An error says that a send would not end.
func (g *Gate) End(ctx context.Context, e vault.Ending) (vault.Barrier, error) {
	return g.shut(e).wait(ctx)
}

// closing is an ending that is in force and whose sends may still be under way.
type closing struct {
	gate    *Gate
	start   time.Time
	cut     []*send
	barrier vault.Barrier
}

// shut puts an ending in force and cuts the connections concerned.
func (g *Gate) shut(e vault.Ending) *closing {
	end := ending{Ending: e, grants: set(e.Grants), records: set(e.Records)}
	g.mu.Lock()
	c := &closing{gate: g, start: g.clock()}
	end.at = c.start
	g.forget(c.start)
	g.endings = append(g.endings, end)
	conns := map[uint64]struct{}{}
	for s := range g.sending {
		// Whatever was authorized after the ending is lawful: a key restored since, for one.
		if s.rel.Index < e.Index && end.covers(s.rel) {
			c.cut = append(c.cut, s)
			conns[s.rel.Caller.Conn] = struct{}{}
		}
	}
	g.mu.Unlock()

	c.barrier = vault.Barrier{Index: e.Index, Sends: len(c.cut)}
	c.barrier.Connections = g.reset(func(c vault.Caller) bool {
		_, sending := conns[c.Conn]
		return sending || end.concerns(c)
	})
	return c
}

// wait returns when the sends that were cut are over. It may be called again.
func (c *closing) wait(ctx context.Context) (vault.Barrier, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	b := c.barrier
	for _, s := range c.cut {
		select {
		case <-s.done:
		case <-ctx.Done():
			return b, vault.E(vault.Unavailable, vault.ReasonInternal,
				"access has ended and nothing new is released, but a send under way did not end; try again").Because(ctx.Err())
		}
	}
	b.Waited = c.gate.clock().Sub(c.start)
	return b, nil
}

// forget drops endings that no release can meet any more.
func (g *Gate) forget(now time.Time) {
	for len(g.endings) > 0 && now.Sub(g.endings[0].at) > remember {
		g.endings = g.endings[1:]
	}
}

// covers says whether the release is of what ended.
func (e ending) covers(r vault.Release) bool {
	_, grant := e.grants[r.Grant]
	_, record := e.records[r.Record.ID]
	return grant || record || (e.Contractor != "" && e.Contractor == r.Contractor) || slices.Contains(e.Callers, r.Caller.ID)
}

// concerns says whether the caller's connections are cut, sending or not.
func (e ending) concerns(c vault.Caller) bool {
	if e.Contractor != "" && c.Role == vault.RoleContractor && c.Org == e.Contractor {
		return true
	}
	if slices.Contains(e.Callers, c.ID) {
		return e.Spare == "" || e.Spare != c.Addr
	}
	return slices.Contains(e.Grantees, c.ID)
}

func set(ids []vault.ID) map[vault.ID]struct{} {
	m := make(map[vault.ID]struct{}, len(ids))
	for _, id := range ids {
		m[id] = struct{}{}
	}
	return m
}
