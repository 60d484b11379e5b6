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

	mu    sync.Mutex
	seen  int64          // the newest ending that was followed
	acted map[int64]bool // endings of this process's own, acted on before they were followed
}

// Join makes this process a node: its gate opens, as long as Run renews the lease.
func Join(ctx context.Context, g *Gate, reg Register, clock func() time.Time, log *slog.Logger) (*Node, error) {
	n := &Node{id: vault.NewID().String(), gate: g, reg: reg, clock: clock, log: log, acted: map[int64]bool{}}
	g.lease.Store(new(int64)) // shut until the lease is there
	var err error
	if n.seen, err = reg.LastEnding(ctx); err != nil {
		return nil, err
	}
	return n, n.renew(ctx)
}

// Run follows endings and renews the lease until ctx ends; then it gives the lease back.
func (n *Node) Run(ctx context.Context) {
	var renewing sync.WaitGroup
	// Apart from following: a send that does not end must not cost the lease, for then the
	// ending would count as done.
	renewing.Go(func() { n.renewing(ctx) })
	every(ctx, pollEvery, func() {
		if err := n.follow(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn("this node can not follow endings", "error", err)
		}
	})
	renewing.Wait()
	n.gate.lease.Store(new(int64))
	if err := n.reg.Leave(context.WithoutCancel(ctx), n.id); err != nil {
		n.log.Warn("this node's lease is left to run out", "error", err)
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

// renewing keeps the lease. A node whose lease has run out cuts all its connections: others
// take it for silent.
func (n *Node) renewing(ctx context.Context) {
	lost := false
	every(ctx, renewEvery, func() {
		err := n.renew(ctx)
		if err == nil {
			lost = false
			return
		}
		if ctx.Err() == nil {
			n.log.Warn("this node can not renew its lease", "error", err)
		}
		if !lost && !leased(&n.gate.lease, n.clock()) {
			lost = true
			n.gate.reset(func(vault.Caller) bool { return true })
		}
	})
}

func (n *Node) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, renewEvery)
	defer cancel()
	until := n.clock().Add(leaseFor)
	if err := n.reg.Renew(ctx, n.id, until); err != nil {
		return err
	}
	us := until.UnixMicro()
	n.gate.lease.Store(&us)
	return nil
}

func (n *Node) follow(ctx context.Context) error {
	n.mu.Lock()
	seen := n.seen
	n.mu.Unlock()
	numbers, endings, err := n.reg.EndingsAfter(ctx, seen)
	if err != nil {
		return err
	}
	for i, e := range endings {
		if err := n.act(ctx, numbers[i], e); err != nil {
			return err
		}
		n.mu.Lock()
		n.seen = numbers[i]
		delete(n.acted, numbers[i])
		n.mu.Unlock()
	}
	return nil
}

// act does what an ending asks, once: doing it again would cut connections made since.
func (n *Node) act(ctx context.Context, number int64, e vault.Ending) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if number <= n.seen || n.acted[number] {
		return nil
	}
	if err := n.confirm(ctx, number, e); err != nil {
		return err
	}
	n.acted[number] = true
	return nil
}

// confirm ends at the gate what an ending covers, and says so. It may be done twice.
func (n *Node) confirm(ctx context.Context, number int64, e vault.Ending) error {
	b, err := n.gate.End(ctx, e)
	if err != nil {
		return err
	}
	return n.reg.Confirm(ctx, number, n.id, b)
}

// leased says whether the gate may let anything pass: always, if it is of no node.
func leased(lease *atomic.Pointer[int64], now time.Time) bool {
	until := lease.Load()
	return until == nil || now.UnixMicro() < *until
}
