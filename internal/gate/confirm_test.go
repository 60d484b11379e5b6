package gate

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// TestConfirmingThatFails: what a node did at its gate it does not do again because it can not
// say so. It goes on trying to say so, more and more rarely.
func TestConfirmingThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegister()
		n := join(t, r)
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { n.node.Run(ctx) })
		r.mu.Lock()
		r.mute = true
		r.mu.Unlock()
		over := make(chan error, 1)
		running.Go(func() {
			_, err := NewNodes(r, nil, time.Now).End(ctx, vault.Ending{Index: 2, Grants: []vault.ID{vault.NewID()}, Grantees: []string{"grantee"}})
			over <- err
		})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		n.mu.Lock()
		kept := len(n.endings)
		n.mu.Unlock()
		r.mu.Lock()
		if n.resets.Load() != 1 || kept != 1 || r.reads != 1 {
			t.Errorf("an ending was read %d times, cut connections %d times and is kept %d times, want once", r.reads, n.resets.Load(), kept)
		}
		if r.confirms < 5 || r.confirms > 20 {
			t.Errorf("in ten seconds %d tries to confirm", r.confirms)
		}
		r.mute = false
		r.mu.Unlock()
		start := time.Now()
		if err := <-over; err != nil || time.Since(start) > 2*renewEvery {
			t.Errorf("once the register answers, the ending took %v: %v", time.Since(start), err)
		}
		stop()
		running.Wait()
	})
}

// TestSendThatIsStuckIsCutOnce: a send that does not end is waited for again, and nobody else's
// connections are cut for it.
func TestSendThatIsStuckIsCutOnce(t *testing.T) {
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
		number, err := r.AddEnding(ctx, vault.Ending{Index: 2, Grants: []vault.ID{grant}, Grantees: []string{"grantee"}})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * patience)
		if missing, _, _ := r.Confirmed(ctx, number, time.Now()); missing != 1 || n.resets.Load() != 1 {
			t.Errorf("a send goes on: %d nodes have not confirmed, connections were cut %d times", missing, n.resets.Load())
		}
		leave()
		time.Sleep(2 * renewEvery)
		if missing, _, _ := r.Confirmed(ctx, number, time.Now()); missing != 0 {
			t.Error("the send is over, and nobody said so")
		}
		stop()
		running.Wait()
	})
}

// TestLostLeaseIsCutInTime: a node that can not renew its lease has stopped, and cut what it
// was sending, before the lease ends: from then on others, whose clocks differ by the margin at
// the most, may count it as gone.
func TestLostLeaseIsCutInTime(t *testing.T) {
	for _, after := range []time.Duration{0, renewEvery / 3, renewEvery / 2, renewEvery - time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			r := newRegister()
			n := join(t, r)
			ctx, stop := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { n.node.Run(ctx) })
			time.Sleep(time.Minute + after)
			r.mu.Lock()
			r.cut[n.node.id] = true
			until := r.leases[n.node.id]
			r.mu.Unlock()
			time.Sleep(time.Until(until) - time.Millisecond)
			synctest.Wait()
			if n.all.Load() != 1 {
				t.Errorf("just before its lease ends, a node has cut all connections %d times, want once", n.all.Load())
			}
			if _, err := n.Enter(someRelease(1, vault.NewID())); vault.ReasonOf(err) != vault.ReasonNoLease {
				t.Errorf("it says %v", err)
			}
			time.Sleep(time.Minute)
			if n.all.Load() != 1 {
				t.Errorf("connections were cut %d times, want once", n.all.Load())
			}
			stop()
			running.Wait()
		})
	}
}

// TestNodeThatStoodStill: a process that was stopped, its timers too, and renews its lease once
// it goes on, cuts what it was sending before: others went on without it meanwhile.
func TestNodeThatStoodStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegister()
		n := join(t, r)
		n.node.expiry.Stop()
		time.Sleep(2 * leaseFor)
		if err := n.node.renew(t.Context()); err != nil || n.all.Load() != 1 {
			t.Errorf("connections were cut %d times, want once: %v", n.all.Load(), err)
		}
		if err := n.node.renew(t.Context()); err != nil || n.all.Load() != 1 || !n.node.Leased() {
			t.Errorf("with its lease renewed in time, connections were cut %d times: %v", n.all.Load(), err)
		}
		n.node.expiry.Stop()
	})
}
