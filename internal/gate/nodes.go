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

	renewal chan error // of a call to Renew under way; used by one goroutine

	mu     sync.Mutex
	seen   int64                   // this ending and all before it were acted on
	acted  map[int64]bool          // others that were
	acting map[int64]chan struct{} // those being acted on, closed when that is over
	work   sync.WaitGroup          // what Run has begun
}

// Join makes this process a node: its gate opens, as long as Run renews the lease.
func Join(ctx context.Context, g *Gate, reg Register, clock func() time.Time, log *slog.Logger) (*Node, error) {
	n := &Node{id: vault.NewID().String(), gate: g, reg: reg, clock: clock, log: log, acted: map[int64]bool{}, acting: map[int64]chan struct{}{}}
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
	every(ctx, pollEvery, func() {
		if err := n.follow(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn("this node can not follow endings", "error", err)
		}
	})
	renewing.Wait()
	n.work.Wait()
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
	us := until.UnixMicro()
	n.gate.lease.Store(&us)
	return nil
}

// follow begins to act on endings that are new, side by side: a send that does not end must
// not hold up the others.
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
	whole := true // nothing before is still to be acted on
	for i, e := range endings {
		number := numbers[i]
		if whole = whole && n.acted[number]; whole {
			delete(n.acted, number)
			n.seen = number
		} else if !n.acted[number] && n.acting[number] == nil {
			n.work.Go(func() {
				if err := n.act(ctx, number, e); err != nil && ctx.Err() == nil {
					n.log.Warn("this node can not follow endings", "error", err)
				}
			})
		}
	}
	return nil
}

// act does what an ending asks, once: doing it again would cut connections made since. It
// returns when that is done, whoever does it.
func (n *Node) act(ctx context.Context, number int64, e vault.Ending) error {
	for {
		n.mu.Lock()
		if number <= n.seen || n.acted[number] {
			n.mu.Unlock()
			return nil
		}
		other := n.acting[number]
		if other == nil {
			break
		}
		n.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	over := make(chan struct{})
	n.acting[number] = over
	n.mu.Unlock()
	err := n.confirm(ctx, number, e)
	n.mu.Lock()
	defer n.mu.Unlock()
	if delete(n.acting, number); err == nil {
		n.acted[number] = true
	}
	close(over)
	return err
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
