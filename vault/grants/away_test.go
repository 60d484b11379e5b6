package grants_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// tried counts the calls of one kind in a trace.
func tried(trace []string, op string) (n int) {
	for _, o := range trace {
		if o == op {
			n++
		}
	}
	return n
}

// TestSweepEndsWhenVaultIsAway: a Vault that does not answer costs a sweep one wait with each of
// the two credentials, not one for each grant.
func TestSweepEndsWhenVaultIsAway(t *testing.T) {
	s := open(t)
	for range 4 {
		s.Active(s.acme)
	}
	s.Clock.Advance(time.Hour)
	s.Vault.Down(true)
	s.Trace()
	s.Before(func(ctx context.Context, op string) {
		if at, ok := ctx.Deadline(); (op == "DeleteFence" || op == "RevokeToken") && (!ok || time.Until(at) > time.Minute) {
			t.Errorf("%s may take for ever", op)
		}
	})
	s.Refused(s.Grants.Sweep(t.Context()), vault.Unavailable, vault.ReasonVaultUnavailable)
	trace := s.Trace()
	if fences, tokens := tried(trace, "DeleteFence"), tried(trace, "RevokeToken"); fences != 1 || tokens > 1 {
		t.Errorf("%d fences and %d tokens were tried at a Vault that is away, want one each: %v", fences, tokens, trace)
	}
	s.Before(nil)
	s.Vault.Down(false)
	s.NoError(s.Grants.Sweep(t.Context()))
	s.shut()
}

// TestFencesDoNotWaitForEachOther: while Vault does not answer about one grant, others go on, and
// who waits for that one does so no longer than it wants.
func TestFencesDoNotWaitForEachOther(t *testing.T) {
	s := open(t)
	stuck, _ := s.Active(s.acme)
	other := s.Requested(s.acme)
	_, err := s.sign(s.Alice(), other)
	s.NoError(err)
	reached, let := make(chan struct{}), make(chan struct{})
	s.Once("CloseFence", func() {
		close(reached)
		<-let
	})
	var revoking sync.WaitGroup
	revoking.Go(func() {
		_, _, err := s.Grants.Revoke(context.Background(), s.Alice().Caller, stuck.Grant, "")
		s.Check(err)
	})
	<-reached
	done := make(chan struct{})
	revoking.Go(func() {
		defer close(done)
		_, err := s.sign(s.Bob(), other)
		s.Check(err)
		_, _, err = s.Grants.Activate(context.Background(), s.acme, other.Grant)
		s.Check(err)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		defer cancel()
		if err := s.Grants.Disarm(ctx, stuck.Grant); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting for a grant that is stuck: %v", err)
		}
	})
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Error("others wait for a grant about which Vault does not answer")
	}
	close(let)
	revoking.Wait()
	s.state(stuck, vault.GrantRevoked, vault.FenceClosed)
}
