package breach_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

// TestRevocationDoesNotWait: while a destruction is at Vault, a revocation of another record
// is carried out.
func TestRevocationDoesNotWait(t *testing.T) {
	s := open(t, 3)
	done := make(chan *breach.KeyWork, 1)
	s.Once("DestroyKey", func() {
		go func() {
			work, err := s.Breach.Revoke(ctx(), s.Alice().Caller, house.One(s.records[2]), "")
			s.Check(err)
			done <- work
		}()
		select {
		case work := <-done:
			if !work.Barrier.VaultDone {
				t.Errorf("%+v", work)
			}
		case <-time.After(10 * time.Second):
			t.Error("the revocation waits for the destruction")
		}
	})
	sel := house.One(s.records[0])
	s.Decide(breach.Action{Destroy: &sel})
	s.keys(vault.KeyDestroyed, vault.KeyActive, vault.KeyRevoked)
}

// TestSweepRevokesFirst: what is to be revoked goes before what is to be destroyed.
func TestSweepRevokesFirst(t *testing.T) {
	s := open(t, 6)
	s.Vault.Down(true)
	for _, r := range s.records[:3] {
		sel := house.One(r)
		s.Decide(breach.Action{Destroy: &sel})
	}
	for _, r := range s.records[3:] {
		s.revoke(house.One(r))
	}
	s.Vault.Down(false)
	s.Trace()
	s.NoError(s.Breach.Sweep(t.Context()))
	trace := strings.Join(s.Trace(), " ")
	if last, first := strings.LastIndex(trace, "RevokeKey"), strings.Index(trace, "DestroyKey"); last < 0 || first < last {
		t.Errorf("in the order %s", trace)
	}
	s.keys(vault.KeyDestroyed, vault.KeyDestroyed, vault.KeyDestroyed, vault.KeyRevoked)
}

// TestSweepEndsWhenVaultIsAway: a Vault that hangs costs one deadline, and not one for each key.
func TestSweepEndsWhenVaultIsAway(t *testing.T) {
	s := open(t, 1)
	s.many(300)
	s.Vault.Down(true)
	s.revoke(house.All())
	var tried, late atomic.Int64
	s.Before(func(ctx context.Context, op string) {
		if op == "RevokeKey" {
			tried.Add(1)
			if _, ok := ctx.Deadline(); !ok {
				late.Add(1)
			}
		}
	})
	s.Refused(s.Breach.Sweep(t.Context()), vault.Unavailable, vault.ReasonVaultUnavailable)
	if n := tried.Load(); n < 1 || n > 16 || late.Load() > 0 {
		t.Errorf("%d keys were tried, %d of them without a deadline", n, late.Load())
	}
}

// TestRestoreOfAMissingKey ends: the record stays revoked, the log says why, and its ciphertext
// stays for a Vault that has the key.
func TestRestoreOfAMissingKey(t *testing.T) {
	s := open(t, 3)
	s.revoke(house.All())
	gone := s.records[1]
	s.NoError(s.Vault.DestroyKey(t.Context(), gone.KeyName()))
	work := s.restore(house.All())
	if len(work.Missing) != 1 || work.Missing[0] != gone.ID || !work.Barrier.VaultDone {
		t.Errorf("%+v", work)
	}
	if got := s.KeyState(gone.ID); got != vault.KeyRevoked {
		t.Errorf("it is %s", got)
	}
	if e := s.Events(vault.EventKeyMissing); len(e) != 1 || e[0].Record != gone.ID.String() {
		t.Errorf("%+v", e)
	}
	if _, err := s.Blobs.Get(t.Context(), gone.ID); err != nil {
		t.Errorf("its ciphertext: %v", err)
	}
	s.refused(gone, vault.ReasonKeyRevoked)
	s.NoError(s.Breach.Sweep(t.Context()))
	if n := len(s.Events(vault.EventKeyMissing)); n != 1 {
		t.Errorf("it was told %d times", n)
	}
}

// TestCertificateOnDemand: there is one although Vault was away when the decision fell.
func TestCertificateOnDemand(t *testing.T) {
	s := open(t, 3)
	one := house.One(s.records[0])
	first, _ := s.Decide(breach.Action{Destroy: &one})
	s.Vault.Down(true)
	sel := house.All()
	d, work := s.Decide(breach.Action{Destroy: &sel})
	if work.Certificate != "" {
		t.Fatal(work.Certificate)
	}
	get := func(d vault.Proposal) (string, error) {
		return s.Breach.Certificate(t.Context(), s.Alice().Caller, d.ID)
	}
	_, err := get(d)
	s.Refused(err, vault.State, vault.ReasonDestructionPending)
	s.Restart()
	s.NoError(s.Breach.Sweep(t.Context()))
	text, err := get(d)
	s.NoError(err)
	for i, r := range s.records {
		if strings.Contains(text, "destroyed: "+r.KeyName()+"\n") != (i > 0) {
			t.Errorf("record %d:\n%s", i, text)
		}
	}
	for _, want := range []string{"records: 2\n", d.ID.String(), d.Digest().String(), s.Alice().ID, s.Bob().ID, "attested_by: ", "signature: "} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if text, err := get(first); err != nil || !strings.Contains(text, "records: 1\n") {
		t.Errorf("%s %v", text, err)
	}

	// What nobody signed, and what the log does not tell of, is not certified.
	open := s.Propose(breach.Action{Contractor: &vault.Contractor{Name: "gamma", Title: "g"}})
	_, err = get(open)
	s.Refused(err, vault.NotFound, vault.ReasonDecisionUnknown)
	_, err = get(vault.Proposal{Decision: vault.Decision{ID: vault.NewID()}})
	s.Refused(err, vault.NotFound, vault.ReasonDecisionUnknown)
	s.SQL("UPDATE events SET type = 'vault.caught_up' WHERE type = 'key.destroyed' AND CAST(body AS TEXT) LIKE ?", "%"+s.records[1].ID.String()+"%")
	_, err = get(d)
	s.Refused(err, vault.DataLoss, vault.ReasonDataLoss)
}

// TestNothingIsRestoredUnchecked: a database that was rolled back may say of a key that it is to
// be restored, long after it was revoked again.
func TestNothingIsRestoredUnchecked(t *testing.T) {
	s := open(t, 1)
	s.revoke(house.All())
	unchecked := vault.E(vault.Unavailable, vault.ReasonVaultUnchecked, "unchecked")
	s.Breach.Checked = func(context.Context) error { return unchecked }
	if work := s.restore(house.All()); work.Barrier.VaultDone {
		t.Errorf("%+v", work)
	}
	if err := s.Opens(s.token, s.records[0]); vault.ReasonOf(err) != vault.ReasonKeyRevoked {
		t.Errorf("at Vault: %v", err)
	}
	s.Breach.Checked = func(context.Context) error { return nil }
	s.NoError(s.Breach.Sweep(t.Context()))
	s.keys(vault.KeyActive)
}

// TestNothingIsDestroyedUnchecked: nor is a key destroyed by a database that was rolled back.
func TestNothingIsDestroyedUnchecked(t *testing.T) {
	s := open(t, 1)
	s.Breach.Checked = func(context.Context) error { return vault.E(vault.Unavailable, vault.ReasonLogRolledBack, "older") }
	sel := house.All()
	s.Decide(breach.Action{Destroy: &sel})
	s.Check(s.Opens(s.token, s.records[0]))
	if err := s.Breach.Sweep(ctx()); vault.ReasonOf(err) != vault.ReasonLogRolledBack {
		t.Error(err)
	}
	s.Check(s.Opens(s.token, s.records[0]))
	s.Breach.Checked = func(context.Context) error { return nil }
	s.NoError(s.Breach.Sweep(ctx()))
	s.keys(vault.KeyDestroyed)
}
