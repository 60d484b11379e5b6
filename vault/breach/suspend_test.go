package breach_test

import (
	"slices"
	"testing"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
)

func TestSuspend(t *testing.T) {
	s := open(t, 1)
	pending, approved := s.Requested(s.acme), s.Approved(s.acme)
	beta := s.Caller("contractor/beta/tuning")
	others, otherToken := s.Active(beta)
	s.Trace()
	out, err := s.Breach.Suspend(t.Context(), s.Alice().Caller, "acme", "why")
	s.NoError(err)
	if got := s.Trace(); !slices.Equal(got, []string{"Update", "DisableContractor", "Update"}) {
		t.Errorf("order: %v", got)
	}
	e := s.Events(vault.EventContractorSuspended)
	if len(e) != 1 || e[0].Contractor != "acme" || e[0].Epoch != 1 || e[0].Count != 3 || e[0].Index != out.Barrier.Index ||
		e[0].Note != vault.DigestOf([]byte("why")).String() {
		t.Errorf("events %+v, answer %+v", e, out)
	}
	if !out.Contractor.Suspended || out.Grants != 3 || !out.Barrier.VaultDone {
		t.Errorf("answer %+v", out)
	}
	if cut := s.Cut(); len(cut) != 1 || cut[0].ID != s.acme.ID {
		t.Errorf("cut %+v", cut)
	}
	for _, g := range []vault.Grant{pending, approved, s.grant} {
		if now := s.Grant(g.Grant); now.State != vault.GrantRevoked {
			t.Errorf("a grant is %s", now.State)
		}
	}
	s.refused(s.records[0], vault.ReasonContractorSuspended)
	if err := s.Opens(s.token, s.records[0]); vault.ReasonOf(err) != vault.ReasonKeyRefused {
		t.Errorf("its token at Vault: %v", err)
	}
	if s.Grant(others.Grant).State != vault.GrantActive || s.Opens(otherToken, s.records[0]) != nil {
		t.Error("another contractor's grant ended as well")
	}
	// Again: no event, no grant, and a barrier all the same.
	out, err = s.Breach.Suspend(t.Context(), s.Bob().Caller, "acme", "")
	s.NoError(err)
	if out.Grants != 0 || len(s.Events(vault.EventContractorSuspended)) != 1 || len(s.Events(vault.EventVaultCaughtUp)) != 1 {
		t.Errorf("again: %+v", out)
	}
	_, err = s.Breach.Suspend(t.Context(), s.Alice().Caller, "nobody", "")
	s.Refused(err, vault.NotFound, vault.ReasonContractorUnknown)
}

func TestSuspendWhileVaultIsDown(t *testing.T) {
	s := open(t, 1)
	s.Vault.Down(true)
	out, err := s.Breach.Suspend(t.Context(), s.Alice().Caller, "acme", "")
	s.NoError(err)
	if out.Barrier.VaultDone || out.Grants != 1 || out.Barrier.Connections != 1 {
		t.Errorf("answer %+v", out)
	}
	s.refused(s.records[0], vault.ReasonContractorSuspended)
	org := vault.Contractor{Name: "acme", Title: "Contractor acme"}
	_, err = s.Breach.Propose(t.Context(), s.Alice().Caller, breach.Action{Contractor: &org})
	s.Refused(err, vault.State, vault.ReasonVaultUnavailable) // or the old epoch's tokens would live on
	s.Refused(s.Breach.Sweep(t.Context()), vault.Unavailable, vault.ReasonVaultUnavailable)
	s.Vault.Down(false)
	if s.Opens(s.token, s.records[0]) != nil {
		t.Fatal("Vault had followed while it was down")
	}
	s.Restart()
	s.NoError(s.Breach.Sweep(t.Context()))
	if err := s.Opens(s.token, s.records[0]); vault.ReasonOf(err) != vault.ReasonKeyRefused {
		t.Errorf("its token at Vault: %v", err)
	}
	if e := s.Last(); e.Type != vault.EventVaultCaughtUp || e.Contractor != "acme" || e.Epoch != 1 {
		t.Errorf("the log ends in %+v", e)
	}
	s.Trace()
	s.NoError(s.Breach.Sweep(t.Context()))
	if got := s.Trace(); len(got) != 0 {
		t.Errorf("a later sweep called %v", got)
	}
	s.Admit("acme")
	if s.Ask("SELECT epoch FROM contractors WHERE name = 'acme'") != "2" || s.Grant(s.grant.Grant).State != vault.GrantRevoked {
		t.Error("it is not in a new epoch, or an old grant revived")
	}
	_, token := s.Active(s.acme)
	if err := s.Opens(token, s.records[0]); err != nil {
		t.Errorf("a grant of the new epoch: %v", err)
	}
	if s.Opens(s.token, s.records[0]) == nil {
		t.Error("a token of the old epoch opens")
	}
}

// TestReinstatementOvertaken: what admins signed was to reinstate once, not again and again.
func TestReinstatementOvertaken(t *testing.T) {
	s := open(t, 1)
	suspend := func() {
		t.Helper()
		_, err := s.Breach.Suspend(t.Context(), s.Alice().Caller, "acme", "")
		s.NoError(err)
	}
	suspend()
	org := vault.Contractor{Name: "acme", Title: "Contractor acme"}
	first := s.Propose(breach.Action{Contractor: &org})
	again := s.Propose(breach.Action{Contractor: &org})
	if first.ID != again.ID {
		t.Error("the same, proposed twice, are two decisions")
	}
	alice, bob := s.Alice().Sign(first.Decision), s.Bob().Sign(first.Decision)
	_, _, err := s.Breach.Sign(t.Context(), s.Alice().Caller, first.ID, alice)
	s.NoError(err)
	_, _, err = s.Breach.Sign(t.Context(), s.Bob().Caller, first.ID, bob)
	s.NoError(err)
	suspend()
	_, _, err = s.Breach.Sign(t.Context(), s.Bob().Caller, first.ID, bob)
	s.Refused(err, vault.State, vault.ReasonDecisionUnknown)
	second := s.Propose(breach.Action{Contractor: &org})
	_, _, err = s.Breach.Sign(t.Context(), s.Bob().Caller, second.ID, bob)
	s.Refused(err, vault.Denied, vault.ReasonSignatureInvalid)
	if s.Ask("SELECT suspended FROM contractors WHERE name = 'acme'") != "1" {
		t.Error("it is reinstated")
	}
}

// TestSuspendCrash drops the service after each step.
func TestSuspendCrash(t *testing.T) {
	for n := 0; ; n++ {
		s := open(t, 1)
		s.CrashAfter(n)
		_, err := s.Breach.Suspend(t.Context(), s.Alice().Caller, "acme", "")
		crashed := s.Crashed()
		s.Restart()
		s.NoError(s.Breach.Sweep(t.Context()))
		suspended := s.Ask("SELECT suspended FROM contractors WHERE name = 'acme'") == "1"
		if suspended != (n > 0) || (err != nil) != (n == 0) {
			t.Errorf("after %d steps: suspended %v, %v", n, suspended, err)
		}
		if opens := s.Opens(s.token, s.records[0]) == nil; opens == suspended {
			t.Errorf("after %d steps, its token opens: %v", n, opens)
		}
		if caught := len(s.Events(vault.EventVaultCaughtUp)); caught > 1 {
			t.Errorf("Vault caught up %d times", caught)
		}
		if !crashed {
			return
		}
	}
}
