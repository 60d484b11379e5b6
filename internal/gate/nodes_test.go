package gate

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// register is one in memory, which can be cut off.
type register struct {
	mu        sync.Mutex
	leases    map[string]time.Time
	endings   []vault.Ending
	confirmed map[int64]map[string]vault.Barrier
	cut       map[string]bool // nodes whose calls fail
	mute      bool            // calls to Confirm fail
	confirms  int             // calls to Confirm
	reads     int             // endings that were read
	hang      chan struct{}   // calls to Renew and Leave wait for it, whatever their context says
}

var errCut = errors.New("cut off")

func newRegister() *register {
	return &register{leases: map[string]time.Time{}, confirmed: map[int64]map[string]vault.Barrier{}, cut: map[string]bool{}}
}

func (r *register) Renew(_ context.Context, node string, until time.Time) error {
	if hang := r.hanging(); hang != nil {
		<-hang
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut[node] {
		return errCut
	}
	r.leases[node] = until
	return nil
}

func (r *register) Leave(_ context.Context, node string) error {
	if hang := r.hanging(); hang != nil {
		<-hang
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.leases, node)
	return nil
}

func (r *register) hanging() chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hang
}

func (r *register) AddEnding(_ context.Context, e vault.Ending) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.endings = append(r.endings, e)
	return int64(len(r.endings)), nil
}

func (r *register) LastEnding(context.Context) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return int64(len(r.endings)), nil
}

func (r *register) EndingsAfter(_ context.Context, after int64) (numbers []int64, endings []vault.Ending, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := after; i < int64(len(r.endings)); i++ {
		r.reads++
		numbers, endings = append(numbers, i+1), append(endings, r.endings[i])
	}
	return numbers, endings, nil
}

func (r *register) Confirm(_ context.Context, n int64, node string, b vault.Barrier) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.confirms++; r.cut[node] || r.mute {
		return errCut
	}
	if r.confirmed[n] == nil {
		r.confirmed[n] = map[string]vault.Barrier{}
	}
	r.confirmed[n][node] = b
	return nil
}

func (r *register) Confirmed(_ context.Context, n int64, at time.Time) (missing int, b vault.Barrier, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for node, until := range r.leases {
		if _, done := r.confirmed[n][node]; !done && !until.Before(at) {
			missing++
		}
	}
	for _, c := range r.confirmed[n] {
		b.Connections += c.Connections
		b.Sends += c.Sends
	}
	return missing, b, nil
}

// one is a node of a test: its gate, and how often its connections were reset.
type one struct {
	*Gate
	node   *Node
	resets atomic.Int64 // of callers that match
	all    atomic.Int64 // resets of whoever there is
}

func join(t *testing.T, r *register) *one {
	t.Helper()
	n := &one{}
	n.Gate = New(func(match func(vault.Caller) bool) int {
		switch {
		case match(vault.Caller{ID: "nobody"}):
			n.all.Add(1)
		case match(vault.Caller{ID: "grantee"}):
			n.resets.Add(1)
			return 1
		}
		return 0
	}, time.Now)
	var err error
	if n.node, err = Join(t.Context(), n.Gate, r, time.Now, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	return n
}

func someRelease(index int64, grant vault.ID) vault.Release {
	return vault.Release{Index: index, At: time.Now(), Grant: grant, Caller: vault.Caller{ID: "grantee", Conn: 1}}
}

func TestEndingReachesEveryNodeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegister()
		a, b := join(t, r), join(t, r)
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		for _, n := range []*one{a, b} {
			running.Go(func() { n.node.Run(ctx) })
		}
		grant := vault.NewID()
		leave, err := b.Enter(someRelease(1, grant))
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, leave)
		start := time.Now()
		got, err := NewNodes(r, a.node, time.Now).End(ctx, vault.Ending{Index: 2, Grants: []vault.ID{grant}, Grantees: []string{"grantee"}})
		if err != nil || got.Connections != 2 || got.Sends != 1 || got.Waited < time.Second {
			t.Errorf("the barrier over both nodes is %+v, %v", got, err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
		for _, n := range []*one{a, b} {
			if _, err := n.Enter(someRelease(1, grant)); vault.ReasonOf(err) != vault.ReasonAccessEnded {
				t.Errorf("after it a node says %v", err)
			}
		}
		time.Sleep(10 * time.Second)
		if a.resets.Load() != 1 || b.resets.Load() != 1 {
			t.Errorf("connections were reset %d and %d times, want once: those made since are lawful", a.resets.Load(), b.resets.Load())
		}
		stop()
		running.Wait()
		if len(r.leases) != 0 {
			t.Error("a node that stopped kept its lease")
		}
		if _, err := a.Enter(someRelease(3, vault.NewID())); vault.ReasonOf(err) != vault.ReasonNoLease {
			t.Errorf("a node that stopped says %v", err)
		}
	})
}

func TestSilentNodeIsWaitedForAndReleasesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegister()
		silent := join(t, r)
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { silent.node.Run(ctx) })
		time.Sleep(time.Minute)
		if _, err := silent.Enter(someRelease(1, vault.NewID())); err != nil {
			t.Fatal("a node that renews its lease may not release:", err)
		}
		r.mu.Lock()
		r.cut[silent.node.id] = true
		r.mu.Unlock()
		start := time.Now()
		_, err := NewNodes(r, nil, time.Now).End(ctx, vault.Ending{Index: 2, Grants: []vault.ID{vault.NewID()}})
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < leaseFor-renewEvery || took > leaseFor+2*leaseMargin {
			t.Errorf("a silent node was waited for %v", took)
		}
		if _, err := silent.Enter(someRelease(3, vault.NewID())); vault.ReasonOf(err) != vault.ReasonNoLease {
			t.Errorf("after that the silent node says %v", err)
		}
		time.Sleep(leaseFor)
		if silent.all.Load() != 1 {
			t.Errorf("the silent node cut all its connections %d times, want once", silent.all.Load())
		}
		r.mu.Lock()
		r.cut[silent.node.id] = false
		r.mu.Unlock()
		time.Sleep(leaseFor)
		if _, err := silent.Enter(someRelease(4, vault.NewID())); err != nil {
			t.Errorf("back in touch it says %v", err)
		}
		stop()
		running.Wait()
	})
}

func TestSendThatDoesNotEndIsNoSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegister()
		n := join(t, r)
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { n.node.Run(ctx) })
		grant := vault.NewID()
		leave, err := n.Enter(someRelease(1, grant))
		if err != nil {
			t.Fatal(err)
		}
		// The lease goes on being renewed meanwhile: it must not run out and count as done.
		_, err = NewNodes(r, nil, time.Now).End(ctx, vault.Ending{Index: 2, Grants: []vault.ID{grant}})
		if vault.KindOf(err) != vault.Unavailable {
			t.Errorf("a barrier over a send that goes on says %v", err)
		}
		leave()
		time.Sleep(time.Second)
		if _, err := NewNodes(r, nil, time.Now).End(ctx, vault.Ending{Index: 3, Grants: []vault.ID{grant}}); err != nil {
			t.Error("once it is over:", err)
		}
		stop()
		running.Wait()
	})
}

// TestEndingsDoNotWaitForEachOther: while one send does not end, other endings go through, those
// of this process and those of others.
func TestEndingsDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegister()
		n := join(t, r)
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { n.node.Run(ctx) })
		stuck := vault.NewID()
		leave, err := n.Enter(someRelease(1, stuck))
		if err != nil {
			t.Fatal(err)
		}
		for _, local := range []*Node{n.node, nil} {
			running.Go(func() {
				_, _ = NewNodes(r, local, time.Now).End(ctx, vault.Ending{Index: 2, Grants: []vault.ID{stuck}})
			})
		}
		time.Sleep(time.Second)
		for _, local := range []*Node{n.node, nil} {
			start := time.Now()
			_, err := NewNodes(r, local, time.Now).End(ctx, vault.Ending{Index: 3, Grants: []vault.ID{vault.NewID()}, Grantees: []string{"grantee"}})
			if took := time.Since(start); err != nil || took > time.Second {
				t.Errorf("another ending took %v: %v", took, err)
			}
		}
		leave()
		time.Sleep(time.Minute)
		if got := n.resets.Load(); got != 2 {
			t.Errorf("two endings reset connections %d times", got)
		}
		n.node.mu.Lock()
		if n.node.seen != 4 || len(n.node.acted) != 0 || len(n.node.parts) != 0 {
			t.Errorf("%d endings are followed, %d and %d remembered", n.node.seen, len(n.node.acted), len(n.node.parts))
		}
		n.node.mu.Unlock()
		stop()
		running.Wait()
	})
}

// TestRenewalThatHangs: a database that never answers does not keep a node from cutting its
// connections when its lease is over, nor from stopping.
func TestRenewalThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegister()
		n := join(t, r)
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { n.node.Run(ctx) })
		time.Sleep(time.Minute)
		hang := make(chan struct{})
		set := func(to chan struct{}) {
			r.mu.Lock()
			r.hang = to
			r.mu.Unlock()
		}
		set(hang)
		time.Sleep(leaseFor + renewEvery)
		if n.node.Leased() || n.all.Load() != 1 {
			t.Errorf("without a lease all connections were cut %d times, want once", n.all.Load())
		}
		set(nil)
		close(hang)
		time.Sleep(2 * renewEvery)
		if !n.node.Leased() {
			t.Error("no lease once the database answers")
		}
		hang = make(chan struct{})
		set(hang)
		stop()
		start := time.Now()
		running.Wait()
		if took := time.Since(start); took > leaseFor {
			t.Errorf("stopping took %v", took)
		}
		close(hang)
	})
}
