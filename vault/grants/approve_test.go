package grants_test

import (
	"context"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

// TestApprovers: a purpose names who approves its grants.
func TestApprovers(t *testing.T) {
	s := open(t)
	p := house.Tuning()
	p.Name, p.Approvers = "named", []string{"bob", "carol"}
	s.sanction(p)
	g := s.Requested(s.acme, of(p))
	_, err := s.sign(s.Alice(), g)
	s.Refused(err, vault.Denied, vault.ReasonPurposeApprover)
	if e := s.Last(); e.Type != vault.EventGrantRefused || e.Reason != vault.ReasonPurposeApprover || e.Grant != g.Grant.String() {
		t.Errorf("the log ends in %+v", e)
	}
	for _, who := range []string{"admin/bob", "admin/carol"} {
		_, err := s.sign(s.Person(who), g)
		s.NoError(err)
	}
	s.state(g, vault.GrantApproved, vault.FenceWritten)
	// Whoever writes another's signature into the database approves nothing.
	other := s.Requested(s.acme, of(p))
	_, err = s.sign(s.Bob(), other)
	s.NoError(err)
	forged := s.Alice().Sign(other.Decision())
	chain := s.Ask("SELECT chain FROM signatures WHERE decision_id = ?", other.Grant.String())
	s.SQL("INSERT INTO signatures (decision_id, signer, signed_at, signature, chain) VALUES (?, ?, ?, ?, ?)",
		other.Grant.String(), forged.Signer, forged.SignedAt.UnixMicro(), forged.Bytes, chain)
	s.SQL("UPDATE grants SET state = 'approved', fence = 'due' WHERE id = ?", other.Grant.String())
	_, _, err = s.Grants.Activate(t.Context(), s.acme, other.Grant)
	s.Refused(err, vault.Denied, vault.ReasonGrantTampered)
}

// TestLapse: a request waits for its approvals as long as a decision does, and no longer.
func TestLapse(t *testing.T) {
	s := open(t)
	p := house.Tuning()
	p.Name, p.MaxTTL = "long", vault.MaxTTL
	s.sanction(p)
	long := func(r *request) { of(p)(r); r.TTL = vault.MaxTTL }
	g, other := s.Requested(s.acme, long), s.Requested(s.acme, long)
	denied, last := s.Requested(s.acme, long), s.Requested(s.acme, long)
	_, err := s.Grants.Deny(t.Context(), s.Alice().Caller, denied.Grant, "")
	s.NoError(err)
	_, err = s.sign(s.Alice(), g)
	s.NoError(err)
	s.Clock.Advance(vault.PendingTTL - time.Microsecond)
	s.NoError(s.Grants.Sweep(t.Context()))
	s.state(other, vault.GrantPending, vault.FenceNone)
	s.Clock.Advance(time.Microsecond)
	for _, x := range []vault.Grant{g, other} {
		_, err = s.sign(s.Bob(), x)
		s.Refused(err, vault.State, vault.ReasonGrantLapsed)
		if e := s.Last(); e.Type != vault.EventGrantRefused || e.Reason != vault.ReasonGrantLapsed {
			t.Errorf("the log ends in %+v", e)
		}
	}
	_, err = s.Grants.Deny(t.Context(), s.Alice().Caller, other.Grant, "")
	s.Refused(err, vault.State, vault.ReasonGrantLapsed)
	fresh := s.Requested(s.acme, long)
	// Whatever ends one while the sweep is on its way to it, wins.
	s.SQL("UPDATE grants SET state = 'approved' WHERE id = ?", g.Grant.String())
	s.Once("Update", func() {
		_, _, err := s.Grants.Revoke(context.Background(), s.Alice().Caller, last.Grant, "")
		s.Check(err)
		s.SQL("UPDATE grants SET state = 'retired' WHERE id = ?", last.Grant.String())
	})
	s.SQL("UPDATE grants SET requested_at = requested_at + 3600000000 WHERE id = ?", other.Grant.String())
	s.NoError(s.Grants.Sweep(t.Context()))
	s.SQL("UPDATE grants SET requested_at = requested_at - 3600000000 WHERE id = ?", other.Grant.String())
	s.SQL("UPDATE grants SET state = 'pending' WHERE id = ?", g.Grant.String())
	s.state(last, vault.GrantRetired, vault.FenceClosed)
	for range 2 {
		s.NoError(s.Grants.Sweep(t.Context()))
	}
	for _, x := range []vault.Grant{g, other} {
		s.state(x, vault.GrantLapsed, vault.FenceNone)
		if n := s.count(x, vault.EventGrantLapsed); n != 1 {
			t.Errorf("%d events", n)
		}
	}
	if e := s.Events(vault.EventGrantLapsed)[0]; e.Actor != "portcullisd" || e.Contractor != "acme" {
		t.Errorf("the event says %+v", e)
	}
	s.state(fresh, vault.GrantPending, vault.FenceNone)
	s.state(denied, vault.GrantDenied, vault.FenceNone)
	_, err = s.sign(s.Bob(), g)
	s.Refused(err, vault.State, vault.ReasonGrantLapsed)
	_, _, err = s.Grants.Activate(t.Context(), s.acme, g.Grant)
	s.Refused(err, vault.State, vault.ReasonGrantLapsed)
}

// TestWhoseSignature: whoever asked, an admin whose certificate has expired, and one who is
// suspended approve nothing, and what a suspended one signed before counts no more.
func TestWhoseSignature(t *testing.T) {
	s := open(t)
	refused := func(name string, err error, r vault.Reason) {
		t.Helper()
		if vault.KindOf(err) != vault.Denied || vault.ReasonOf(err) != r {
			t.Errorf("%s: %v, want %s", name, err, r)
		}
		if e := s.Last(); e.Type != vault.EventGrantRefused || e.Reason != r {
			t.Errorf("%s: the log ends in %+v", name, e)
		}
	}
	acme := s.Person("contractor/acme/tuning")
	g := s.Requested(acme.Caller)
	_, err := s.sign(acme, g)
	refused("its own", err, vault.ReasonSignatureInvalid)
	carol := s.Person("admin/carol")
	_, err = s.sign(carol, g)
	s.NoError(err)
	_, err = s.Breach.SuspendCaller(t.Context(), s.Alice().Caller, carol.ID, "")
	s.NoError(err)
	other := s.Requested(acme.Caller)
	_, err = s.sign(carol, other)
	refused("a suspended admin's", err, vault.ReasonCallerSuspended)
	_, err = s.sign(s.Alice(), g)
	s.NoError(err)
	s.state(g, vault.GrantPending, vault.FenceNone) // carol's counts no more
	_, err = s.sign(s.Bob(), g)
	s.NoError(err)
	s.state(g, vault.GrantApproved, vault.FenceWritten)

	s.Clock.Advance(370 * 24 * time.Hour) // people's certificates have one year
	late := s.Requested(acme.Caller, func(r *request) {
		r.Scope.From = s.Clock.Now().Add(-time.Hour)
		r.Scope.Until = s.Clock.Now()
	})
	_, err = s.sign(s.Alice(), late)
	refused("of an expired certificate", err, vault.ReasonSignatureInvalid)
	s.state(late, vault.GrantPending, vault.FenceNone)
}
