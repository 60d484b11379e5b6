package breach_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

// suspend has bob suspend a caller.
func (s *scene) suspend(id string) breach.SuspendedCaller {
	s.Helper()
	out, err := s.Breach.SuspendCaller(ctx(), s.Bob().Caller, id, "why")
	s.NoError(err)
	return out
}

// reinstate has two admins let a caller in again.
func (s *scene) reinstate(id string, by ...house.Person) {
	s.Helper()
	d, err := s.Breach.Propose(ctx(), by[0].Caller, breach.Action{Reinstate: id})
	s.NoError(err)
	for _, p := range by {
		d, _, err = s.sign(p, d)
		s.NoError(err)
	}
	if !d.Effective {
		s.Fatalf("%s is not reinstated by %d", id, len(by))
	}
}

func (s *scene) suspendedRows() string {
	s.Helper()
	return s.Ask("SELECT COUNT(*) FROM suspended_callers")
}

func TestSuspendWorkload(t *testing.T) {
	s := open(t, 1)
	pending, approved := s.Requested(s.acme), s.Approved(s.acme)
	other := s.Caller("contractor/acme/other")
	others, otherToken := s.Active(other)
	s.Trace()
	out := s.suspend(s.acme.ID)
	done := map[string]int{}
	order := s.Trace()
	for _, op := range order {
		done[op]++
	}
	if order[0] != "Update" || done["CloseFence"] != 2 || done["RevokeToken"] != 1 || done["DisableContractor"] != 0 {
		t.Errorf("order: %v", order)
	}
	e := s.Events(vault.EventCallerSuspended)
	if len(e) != 1 || e[0].Caller != s.acme.ID || e[0].Contractor != "acme" || e[0].Count != 3 || e[0].Index != out.Barrier.Index ||
		e[0].Note != vault.DigestOf([]byte("why")).String() || e[0].Actor != s.Bob().ID {
		t.Errorf("events %+v, answer %+v", e, out)
	}
	if out.Caller != s.acme.ID || out.By != s.Bob().ID || out.Grants != 3 || !out.Barrier.VaultDone || out.Void != 0 {
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
	s.refused(s.records[0], vault.ReasonCallerSuspended)
	if err := s.Opens(s.token, s.records[0]); vault.ReasonOf(err) != vault.ReasonKeyRefused {
		t.Errorf("its token at Vault: %v", err)
	}
	_, _, err := s.Grants.Activate(ctx(), s.acme, approved.Grant)
	s.Refused(err, vault.Denied, vault.ReasonCallerSuspended)
	_, err = s.Grants.Request(ctx(), s.acme, house.Ask())
	s.Refused(err, vault.Denied, vault.ReasonCallerSuspended)
	if s.Grant(others.Grant).State != vault.GrantActive || s.Opens(otherToken, s.records[0]) != nil {
		t.Error("another workload's grant ended as well")
	}
	// A row that says otherwise: nobody approves for who is suspended.
	s.SQL("UPDATE grants SET state = 'pending' WHERE id = ?", pending.Grant.String())
	_, err = s.Grants.Approve(ctx(), s.Alice().Caller, pending.Grant, s.Alice().Sign(pending.Decision()))
	s.Refused(err, vault.Denied, vault.ReasonCallerSuspended)
	s.SQL("UPDATE grants SET state = 'revoked' WHERE id = ?", pending.Grant.String())

	// Again: no event, no grant, and a barrier all the same.
	s.Connect(s.acme)
	if out = s.suspend(s.acme.ID); out.Grants != 0 || len(s.Events(vault.EventCallerSuspended)) != 1 || out.Barrier.Connections != 1 {
		t.Errorf("again: %+v", out)
	}

	s.reinstate(s.acme.ID, s.Alice(), s.Bob())
	if e := s.Last(); e.Type != vault.EventCallerReinstated || e.Caller != s.acme.ID || e.Decision == nil {
		t.Errorf("the log ends in %+v", e)
	}
	s.refused(s.records[0], vault.ReasonGrantRevoked)
	if s.Opens(s.token, s.records[0]) == nil {
		t.Error("an old token revived")
	}
	_, token := s.Active(s.acme)
	s.NoError(s.Opens(token, s.records[0]))
}

func TestSuspendWorkloadWhileVaultIsDown(t *testing.T) {
	s := open(t, 1)
	s.Vault.Down(true)
	out := s.suspend(s.acme.ID)
	if out.Barrier.VaultDone || out.Grants != 1 || out.Barrier.Connections != 1 {
		t.Errorf("answer %+v", out)
	}
	s.refused(s.records[0], vault.ReasonCallerSuspended)
	s.Vault.Down(false)
	if s.Opens(s.token, s.records[0]) != nil {
		t.Fatal("Vault had followed while it was down")
	}
	s.reinstate(s.acme.ID, s.Alice(), s.Bob()) // the debt stays
	s.Restart()
	s.NoError(s.Grants.Sweep(ctx()))
	if err := s.Opens(s.token, s.records[0]); vault.ReasonOf(err) != vault.ReasonKeyRefused {
		t.Errorf("its token at Vault: %v", err)
	}
}

// TestSuspendWorkloadWhileVaultHangs: the answer waits for a Vault that does not answer once, not
// for each grant, and not for ever.
func TestSuspendWorkloadWhileVaultHangs(t *testing.T) {
	s := open(t, 1)
	for range 4 {
		s.Active(s.acme)
	}
	s.Vault.Down(true)
	tried := 0
	s.Before(func(ctx context.Context, op string) {
		if op != "CloseFence" {
			return
		}
		tried++
		if at, ok := ctx.Deadline(); !ok || time.Until(at) > 20*time.Second {
			t.Error("it may take for ever")
		}
	})
	if out := s.suspend(s.acme.ID); out.Barrier.VaultDone || out.Grants != 5 || tried != 1 {
		t.Errorf("%d grants of %+v were tried at a Vault that is away", tried, out)
	}
	s.Before(nil)
	s.Vault.Down(false)
	s.NoError(s.Grants.Sweep(ctx()))
	if s.Opens(s.token, s.records[0]) == nil {
		t.Error("its token opens after the sweep")
	}
}

// TestSuspendCallerCrash drops the service after each step.
func TestSuspendCallerCrash(t *testing.T) {
	for n := 0; ; n++ {
		s := open(t, 1)
		s.CrashAfter(n)
		_, err := s.Breach.SuspendCaller(ctx(), s.Bob().Caller, s.acme.ID, "")
		crashed := s.Crashed()
		s.Restart()
		s.NoError(s.Grants.Sweep(ctx()))
		suspended := s.suspendedRows() == "1"
		if suspended != (n > 0) || (err != nil) != (n == 0) {
			t.Errorf("after %d steps: suspended %v, %v", n, suspended, err)
		}
		if opens := s.Opens(s.token, s.records[0]) == nil; opens == suspended {
			t.Errorf("after %d steps, its token opens: %v", n, opens)
		}
		if !crashed {
			return
		}
	}
}

func TestSuspendOthers(t *testing.T) {
	s := open(t, 0)
	lane, auditor := s.Caller("capture/north/lane-1"), s.Caller("auditor/ann")
	for _, c := range []vault.Caller{lane, auditor} {
		out := s.suspend(c.ID)
		if out.Barrier.Connections != 1 || out.Grants != 0 || !out.Barrier.VaultDone {
			t.Errorf("%s: %+v", c.ID, out)
		}
		if err := s.Store.Standing(ctx(), c); vault.ReasonOf(err) != vault.ReasonCallerSuspended {
			t.Errorf("%s: %v", c.ID, err)
		}
	}
	_, _, err := s.Capture.Store(ctx(), lane, s.Shot(vault.Face, 0))
	s.Refused(err, vault.Denied, vault.ReasonCallerSuspended)
	s.Record("south", vault.Face, 0) // another lane's
	all, err := s.Store.Suspensions(ctx(), "", 10)
	s.NoError(err)
	if len(all) != 2 || all[0].Caller != auditor.ID || all[1].Caller != lane.ID || all[1].By != s.Bob().ID || !all[1].At.Equal(s.Clock.Now()) {
		t.Errorf("suspended: %+v", all)
	}
}

// TestSuspendAdmin: from then on its signatures count no more, but on what is in force.
func TestSuspendAdmin(t *testing.T) {
	s := open(t, 1)
	alice, bob, carol := s.Alice(), s.Bob(), s.Person("admin/carol")
	pending := s.Requested(s.acme)
	_, err := s.Grants.Approve(ctx(), alice.Caller, pending.Grant, alice.Sign(pending.Decision()))
	s.NoError(err)
	d := s.Propose(breach.Action{Destroy: new(house.All())})
	_, _, err = s.sign(alice, d)
	s.NoError(err)
	s.SQL("CREATE TABLE copies AS SELECT * FROM signatures")

	out := s.suspend(alice.ID)
	if out.Void != 2 || len(out.Review.Grants) != 1 || out.Review.Grants[0] != s.grant.Grant ||
		!slices.Equal(out.Review.Purposes, []string{"tuning"}) || !slices.Equal(out.Review.Contractors, []string{"acme", "beta"}) || out.Review.More {
		t.Errorf("answer %+v", out)
	}
	if e := s.Events(vault.EventCallerSuspended); len(e) != 1 || e[0].Void != 2 || e[0].Caller != alice.ID {
		t.Errorf("events %+v", e)
	}
	_, err = s.Grants.Approve(ctx(), alice.Caller, s.Requested(s.acme).Grant, alice.Sign(pending.Decision()))
	s.Refused(err, vault.Denied, vault.ReasonCallerSuspended)
	_, err = s.Breach.Propose(ctx(), alice.Caller, breach.Action{Destroy: new(house.All())})
	s.Refused(err, vault.Denied, vault.ReasonCallerSuspended)
	s.NoError(s.Opens(s.token, s.records[0])) // what was approved before stays

	// Somebody who can write to the database puts the signatures back: it helps nobody.
	s.SQL("INSERT OR IGNORE INTO signatures SELECT * FROM copies")
	g, err := s.Grants.Approve(ctx(), bob.Caller, pending.Grant, bob.Sign(pending.Decision()))
	s.NoError(err)
	if d, _, err = s.sign(bob, d); err != nil || d.Effective || g.State != vault.GrantPending {
		t.Fatalf("effective %v, grant %s: a suspended admin's signature counts (%v)", d.Effective, g.State, err)
	}
	s.SQL("DELETE FROM signatures WHERE signer = ? AND decision_id IN (?, ?)", alice.ID, d.ID.String(), pending.Grant.String())

	s.reinstate(alice.ID, bob, carol)
	if again := s.Grant(pending.Grant); len(again.Signatures) != 1 {
		t.Errorf("%d signatures: the earlier one counts again", len(again.Signatures))
	}
	// It may sign anew.
	if g, err = s.Grants.Approve(ctx(), alice.Caller, pending.Grant, alice.Sign(pending.Decision())); err != nil || g.State != vault.GrantApproved {
		t.Errorf("grant %s, %v", g.State, err)
	}
	if d, _, err = s.sign(carol, d); err != nil || !d.Effective {
		t.Errorf("effective %v, %v", d.Effective, err)
	}
}

// TestSuspendYourself: the connection that asks is spared, so that the answer arrives.
func TestSuspendYourself(t *testing.T) {
	s := open(t, 0)
	asks := s.Bob().Caller
	elsewhere := asks
	elsewhere.Addr = "127.0.0.1:10"
	s.Connect(elsewhere)
	out := s.suspend(asks.ID)
	if cut := s.Cut(); len(cut) != 1 || cut[0].Addr != elsewhere.Addr || out.Barrier.Connections != 1 {
		t.Errorf("cut %+v", cut)
	}
	_, err := s.Breach.SuspendCaller(ctx(), asks, s.Alice().ID, "")
	s.Refused(err, vault.Denied, vault.ReasonCallerSuspended)
}

func TestReinstateCaller(t *testing.T) {
	s := open(t, 0)
	alice, bob, dan := s.Alice(), s.Bob(), s.Person("admin/dan")
	propose := func() vault.Proposal {
		t.Helper()
		d, err := s.Breach.Propose(ctx(), alice.Caller, breach.Action{Reinstate: dan.ID})
		s.NoError(err)
		return d
	}
	_, err := s.Breach.Propose(ctx(), alice.Caller, breach.Action{Reinstate: dan.ID})
	s.Refused(err, vault.Exists, vault.ReasonUnchanged)
	s.suspend(dan.ID)
	d := propose()
	if d.Kind != vault.ReinstateCaller || d.Need != 2 || !strings.Contains(d.Body, "caller: "+dan.ID+"\nsuspended_at: ") || propose().ID != d.ID {
		t.Errorf("decision %+v", d)
	}
	_, _, err = s.sign(dan, d)
	s.Refused(err, vault.Denied, vault.ReasonCallerSuspended)
	_, _, err = s.sign(alice, d)
	s.NoError(err)
	_, _, err = s.sign(alice, d)
	s.Refused(err, vault.Denied, vault.ReasonAlreadySigned)
	if s.suspendedRows() != "1" {
		t.Fatal("one admin reinstated")
	}
	// What is carried out is what was signed.
	s.SQL("UPDATE decisions SET payload = replace(CAST(payload AS TEXT), 'dan', 'eve') WHERE id = ?", d.ID.String())
	_, _, err = s.sign(bob, d)
	s.Refused(err, vault.Denied, vault.ReasonDecisionTampered)
	s.SQL("UPDATE decisions SET payload = replace(CAST(payload AS TEXT), 'eve', 'dan') WHERE id = ?", d.ID.String())
	// Of that suspension, not of another.
	s.SQL("UPDATE suspended_callers SET suspended_at = suspended_at + 1")
	_, _, err = s.sign(bob, d)
	s.Refused(err, vault.Conflict, vault.ReasonDecisionOvertaken)
	s.SQL("UPDATE suspended_callers SET suspended_at = suspended_at - 1")
	_, _, err = s.sign(bob, d)
	s.NoError(err)
	if s.suspendedRows() != "0" || s.Store.Standing(ctx(), dan.Caller) != nil {
		t.Error("it is not reinstated")
	}
	s.Clock.Advance(1_000_000)
	s.suspend(dan.ID)
	_, _, err = s.sign(bob, d)
	s.Refused(err, vault.State, vault.ReasonDecisionUnknown)
	if propose().ID == d.ID || s.suspendedRows() != "1" {
		t.Error("a decision that was carried out lifts a later suspension")
	}
}

func TestCallersThatAreNone(t *testing.T) {
	s := open(t, 0)
	before := len(s.Events())
	for name, id := range map[string]string{
		"empty": "", "no SPIFFE ID": "admin/alice", "another domain": "spiffe://else.test/admin/alice",
		"the service": "spiffe://vault.test/portcullisd", "no such role": "spiffe://vault.test/boss/alice",
		"a contractor": "spiffe://vault.test/contractor/acme", "spaces": "spiffe://vault.test/admin/al ice",
		"a line more": "spiffe://vault.test/admin/alice\nsuspended_at: x", "long": "spiffe://vault.test/admin/" + strings.Repeat("a", 3000),
	} {
		if _, err := s.Breach.SuspendCaller(ctx(), s.Bob().Caller, id, ""); vault.KindOf(err) != vault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := s.Breach.Propose(ctx(), s.Bob().Caller, breach.Action{Reinstate: id}); vault.KindOf(err) != vault.Invalid {
			t.Errorf("%s, reinstated: %v", name, err)
		}
	}
	_, err := s.Breach.SuspendCaller(ctx(), s.Bob().Caller, s.acme.ID, strings.Repeat("x", 501))
	if vault.KindOf(err) != vault.Invalid || len(s.Events()) != before || s.suspendedRows() != "0" {
		t.Errorf("a long note: %v", err)
	}
}
