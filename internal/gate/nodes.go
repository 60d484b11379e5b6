package gate

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portcullis/portcullis/vault"
)

const (
	// leaseFor is how long a node may release without renewing its lease. An ending waits at
	// the most this long, and the margin, for a node that has gone silent.
	leaseFor = 5 * time.Second
	// leaseMargin is by how much the clocks of two nodes may differ.
	leaseMargin = time.Second
	// renewEvery leaves three tries before a lease ends.
	renewEvery = leaseFor / 4
	// cutWithin is how long before the end of its lease a node that could not renew it stops
	// and cuts its connections: that must be over before others take it for gone, however far,
	// within the margin, its clock is behind theirs.
	cutWithin = leaseFor / 10
	// keepTrying is how long a node tries to confirm an ending. Nobody waits for it that long.
	keepTrying = 10 * time.Minute
	// pollEvery is how often a node looks for endings of others: what a barrier across
	// processes costs.
	pollEvery = 20 * time.Millisecond
)

// Register is where nodes learn of endings. What its methods write is durable on return.
type Register interface {
	Renew(ctx context.Context, node string, until time.Time) error
	Leave(ctx context.Context, node string) error
	AddEnding(ctx context.Context, e vault.Ending) (number int64, err error)
	LastEnding(ctx context.Context) (number int64, err error)
	EndingsAfter(ctx context.Context, after int64) (numbers []int64, endings []vault.Ending, err error)
	Confirm(ctx context.Context, number int64, node string, b vault.Barrier) error
	Confirmed(ctx context.Context, number int64, at time.Time) (missing int, b vault.Barrier, err error)
}

// Nodes ends access on every node: in each process that releases images.
type Nodes struct {
	reg   Register
	local *Node
	clock func() time.Time
}

// NewNodes gives the nodes of a register. local is this process's own, nil if it releases
// nothing; it acts without waiting to be told.
func NewNodes(reg Register, local *Node, clock func() time.Time) *Nodes {
	return &Nodes{reg: reg, local: local, clock: clock}
}

// End returns when nothing that the ending covers is under way on any node: each has
// confirmed it, or its lease is over, so that it releases nothing.
func (n *Nodes) End(ctx context.Context, e vault.Ending) (vault.Barrier, error) {
	ctx, cancel := context.WithTimeout(ctx, patience+leaseFor+leaseMargin)
	defer cancel()
	start := n.clock()
	number, err := n.reg.AddEnding(ctx, e)
	if err != nil {
		return vault.Barrier{Index: e.Index}, err
	}
	if n.local != nil {
		if err := n.local.act(ctx, number, e); err != nil {
			return vault.Barrier{Index: e.Index}, err
		}
	}
	tick := time.NewTicker(pollEvery / 4)
	defer tick.Stop()
	for {
		missing, b, err := n.reg.Confirmed(ctx, number, n.clock().Add(-leaseMargin))
		b.Index, b.Waited = e.Index, n.clock().Sub(start)
		if err != nil || missing == 0 {
			return b, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return b, vault.E(vault.Unavailable, vault.ReasonInternal,
				"access has ended and nothing new is released, but %d nodes did not confirm that nothing is under way; try again", missing).Because(ctx.Err())
		}
	}
}

// Node is this process's part: it holds a lease, and does at its gate what endings ask.
type Node struct {
	id    string
	gate  *Gate
	reg   Register
	clock func() time.Time
	log   *slog.Logger

	renewal chan error  // of a call to Renew under way; used by one goroutine
	expiry  *time.Timer // of the lease; used by the same

	mu    sync.Mutex
	seen  int64           // endings till here are known
	acted map[int64]bool  // and of those behind it these, which are confirmed
	parts map[int64]*part // still to be confirmed
	work  sync.WaitGroup  // what Run has begun
}

// part is what a node has still to do of an ending.
type part struct {
	ending  vault.Ending
	closing *closing      // once the gate is shut to what has ended, which is done once
	busy    chan struct{} // of a try under way, closed when it is over
	since   time.Time
	pause   time.Duration // after the last try
	next    time.Time     // of the next
}

// Join makes this process a node: its gate opens, as long as Run renews the lease.
func Join(ctx context.Context, g *Gate, reg Register, clock func() time.Time, log *slog.Logger) (*Node, error) {
	n := &Node{id: vault.NewID().String(), gate: g, reg: reg, clock: clock, log: log, acted: map[int64]bool{}, parts: map[int64]*part{}}
	g.lease.Store(new(int64)) // shut until the lease is there
	var err error
	if n.seen, err = reg.LastEnding(ctx); err != nil {
		return nil, err
	}
	return n, n.renew(ctx)
}

// Leased says whether this node may release at the moment.
func (n *Node) Leased() bool { return leased(&n.gate.lease, n.clock()) }

// Run follows endings and renews the lease until ctx ends; then it gives the lease back.
func (n *Node) Run(ctx context.Context) {
	var renewing sync.WaitGroup
	// Apart from following: a send that does not end must not cost the lease, for then the
	// ending would count as done.
	renewing.Go(func() { n.renewing(ctx) })
	var next time.Time
	var pause time.Duration
	every(ctx, pollEvery, func() {
		if n.clock().Before(next) {
			return
		}
		err := n.follow(ctx)
		if err == nil {
			pause = 0
			return
		}
		if pause = longer(pause); ctx.Err() == nil {
			n.log.Warn("this node can not follow endings", "error", err)
		}
		next = n.clock().Add(pause)
	})
	renewing.Wait()
	n.work.Wait()
	n.expiry.Stop()
	n.gate.lease.Store(new(int64))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewEvery)
	defer cancel()
	left := make(chan error, 1)
	go func() { left <- n.reg.Leave(ctx, n.id) }()
	if _, err := within(ctx, left); err != nil {
		n.log.Warn("this node's lease is left to run out", "error", err)
	}
}

// within waits for an answer no longer than ctx. The database may take an operation and not
// heed the context any more; closing it ends the call.
func within(ctx context.Context, answer <-chan error) (answered bool, err error) {
	select {
	case err := <-answer:
		return true, err
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// every calls do at once and then regularly, until ctx ends.
func every(ctx context.Context, d time.Duration, do func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		do()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// longer gives the pause after a failure, from the one before.
func longer(pause time.Duration) time.Duration {
	return min(max(2*pause, pollEvery), renewEvery)
}

// renewing keeps the lease.
func (n *Node) renewing(ctx context.Context) {
	every(ctx, renewEvery, func() {
		if err := n.renew(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn("this node can not renew its lease", "error", err)
		}
	})
}

// renew asks for a lease, and gives up in time to see that the last one is over. What was asked
// and not answered is waited for the next time: this node then takes no lease from it, for it
// does not count from now.
func (n *Node) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, renewEvery)
	defer cancel()
	if n.renewal != nil {
		if answered, _ := within(ctx, n.renewal); !answered {
			return ctx.Err()
		}
	}
	until := n.clock().Add(leaseFor)
	renewal := make(chan error, 1)
	n.renewal = renewal
	go func() { renewal <- n.reg.Renew(ctx, n.id, until) }()
	answered, err := within(ctx, renewal)
	if answered {
		n.renewal = nil
	}
	if err != nil {
		return err
	}
	n.lease(until.Add(-cutWithin))
	return nil
}

// lease opens the gate until a time. If the lease has not been renewed by then, a timer shuts
// the gate and cuts all connections: others are about to take this node for gone.
func (n *Node) lease(until time.Time) {
	us := until.UnixMicro()
	if n.expiry != nil {
		n.expiry.Stop()
	}
	if last := n.gate.lease.Load(); !leased(&n.gate.lease, n.clock()) {
		n.expire(last) // this process stood still, its timers too, and others may have gone on without it
	}
	n.gate.lease.Store(&us)
	n.expiry = time.AfterFunc(until.Sub(n.clock()), func() { n.expire(&us) })
}

// expire shuts the gate and cuts all connections, unless that is done or the lease is another.
func (n *Node) expire(lease *int64) {
	if *lease != 0 && n.gate.lease.CompareAndSwap(lease, new(int64)) {
		n.gate.reset(func(vault.Caller) bool { return true })
	}
}

// follow begins to act on endings that are new, and again on those that failed, side by side: a
// send that does not end must not hold up the others.
func (n *Node) follow(ctx context.Context) error {
	n.mu.Lock()
	seen := n.seen
	n.mu.Unlock()
	numbers, endings, err := n.reg.EndingsAfter(ctx, seen)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.clock()
	for i, e := range endings {
		number := numbers[i]
		if !n.acted[number] && n.parts[number] == nil {
			n.parts[number] = &part{ending: e, since: now}
		}
		delete(n.acted, number)
		n.seen = number
	}
	for number, p := range n.parts {
		if p.busy != nil || now.Before(p.next) {
			continue
		}
		if now.Sub(p.since) > keepTrying {
			delete(n.parts, number)
			continue
		}
		p.busy = make(chan struct{})
		n.work.Go(func() {
			if err := n.try(ctx, number, p); err != nil && ctx.Err() == nil {
				n.log.Warn("this node can not confirm an ending", "error", err)
			}
		})
	}
	return nil
}

// act does what an ending asks. It returns when that is done, whoever does it.
func (n *Node) act(ctx context.Context, number int64, e vault.Ending) error {
	for {
		n.mu.Lock()
		p := n.parts[number]
		switch {
		case n.acted[number], p == nil && number <= n.seen:
			n.mu.Unlock()
			return nil
		case p == nil:
			p = &part{ending: e, since: n.clock()}
			n.parts[number] = p
		}
		other := p.busy
		if other == nil {
			p.busy = make(chan struct{})
			n.mu.Unlock()
			return n.try(ctx, number, p)
		}
		n.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// try ends at the gate what an ending covers, and says so. The gate's part is done once: again,
// it would cut connections made since. Whoever calls it has made the part busy.
func (n *Node) try(ctx context.Context, number int64, p *part) error {
	if p.closing == nil {
		p.closing, p.ending = n.gate.shut(p.ending), vault.Ending{}
	}
	b, err := p.closing.wait(ctx)
	if err == nil {
		err = n.reg.Confirm(ctx, number, n.id, b)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	close(p.busy)
	p.busy = nil
	if err != nil {
		p.pause = longer(p.pause)
		p.next = n.clock().Add(p.pause)
		return err
	}
	if delete(n.parts, number); number > n.seen {
		n.acted[number] = true
	}
	return nil
}

// leased says whether the gate may let anything pass: always, if it is of no node.
func leased(lease *atomic.Pointer[int64], now time.Time) bool {
	until := lease.Load()
	return until == nil || now.UnixMicro() < *until
}
