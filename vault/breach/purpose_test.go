package breach_test

import (
	"slices"
	"testing"
	"time"

	"github.com/portcullis/portcullis/internal/store"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/grants"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

// changed is [house.Tuning] with a change.
func changed(change func(*vault.Purpose)) breach.Action {
	p := house.Tuning()
	change(&p)
	return breach.Action{Purpose: &p}
}

func fewer(p *vault.Purpose) { p.MaxRecords = 7 }
func more(p *vault.Purpose)  { p.MaxRecords++ }

// TestOneAdminTightens: and two loosen, whatever the decision's row says.
func TestOneAdminTightens(t *testing.T) {
	for name, c := range map[string]struct {
		before string // what somebody writes into the database before it is signed
		action breach.Action
		need   int
	}{
		"tightens":                           {"", changed(fewer), 1},
		"loosens":                            {"", changed(more), 2},
		"both":                               {"", changed(func(p *vault.Purpose) { fewer(p); p.Approvals = 1 }), 2},
		"withdraws":                          {"", breach.Action{Withdraw: "tuning"}, 1},
		"a row that wants less":              {"UPDATE decisions SET need = 1", changed(more), 2},
		"a row that wants none":              {"UPDATE decisions SET need = 0", changed(more), 2},
		"a row that wants more":              {"UPDATE decisions SET need = 5", changed(fewer), 1},
		"nobody signed the version in force": {`UPDATE purposes SET body = replace(body, '"MaxRecords":100000', '"MaxRecords":200000')`, changed(fewer), 2},
		"nobody signed the version, it is withdrawn": {`UPDATE purposes SET body = replace(body, '"MaxRecords":100000', '"MaxRecords":200000')`, breach.Action{Withdraw: "tuning"}, 2},
		"the version in force is without signatures": {`DELETE FROM signatures`, changed(fewer), 2},
		"a new purpose": {"", changed(func(p *vault.Purpose) { p.Name = "another" }), 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, 0)
			if name == "nobody signed the version in force" || name == "nobody signed the version, it is withdrawn" || name == "the version in force is without signatures" {
				s.SQL(c.before)
			}
			d := s.Propose(c.action)
			if d.Need != c.need {
				t.Errorf("proposed, it needs %d", d.Need)
			}
			if c.before != "" {
				s.SQL(c.before)
			}
			if again := s.Propose(c.action); again.ID != d.ID || again.Need != c.need {
				t.Errorf("proposed again, it is %s and needs %d", again.ID, again.Need)
			}
			got, _, err := s.sign(s.Alice(), d)
			s.NoError(err)
			if got.Effective != (c.need == 1) || got.Need != c.need {
				t.Errorf("with one signature it is in force: %t; it needs %d", got.Effective, got.Need)
			}
			if got.Effective {
				return
			}
			got, _, err = s.sign(s.Bob(), d)
			s.NoError(err)
			if !got.Effective {
				t.Error("with two signatures it is not in force")
			}
		})
	}
}

// TestTighteningOvertaken: what tightened when it was proposed takes two, or is refused, if it does
// not any more.
func TestTighteningOvertaken(t *testing.T) {
	s := open(t, 0)
	first := s.Propose(changed(func(p *vault.Purpose) { p.MaxRecords = 50 }))
	s.Decide(changed(fewer))
	_, _, err := s.sign(s.Alice(), first)
	s.NoError(err) // one of the two that it takes by now, if it were not overtaken
	_, _, err = s.sign(s.Bob(), first)
	s.Refused(err, vault.Conflict, vault.ReasonDecisionOvertaken)
	if n := s.Ask("SELECT COUNT(*) FROM purposes"); n != "2" {
		t.Errorf("%s versions", n)
	}
}

// TestClientDoesNotSayWhatIsOutput: the version, what it replaces and that it is withdrawn are the
// service's to say.
func TestClientDoesNotSayWhatIsOutput(t *testing.T) {
	s := open(t, 0)
	d := s.Propose(changed(func(p *vault.Purpose) {
		p.MaxRecords, p.Version, p.Replaces, p.Withdrawn = 7, 70, vault.DigestOf([]byte("x")), true
	}))
	want := house.Tuning()
	want.Version, want.Replaces = 1, vault.Digest{}
	want.Version, want.Replaces, want.MaxRecords = 2, want.Digest(), 7
	if d.Body != want.Text() {
		t.Errorf("proposed\n%s\nwant\n%s", d.Body, want.Text())
	}
}

func TestWithdraw(t *testing.T) {
	s := open(t, 1)
	other := house.Tuning()
	other.Name = "other"
	s.Decide(breach.Action{Purpose: &other})
	pending, approved := s.Requested(s.acme), s.Approved(s.acme)
	spared, sparedToken := s.Active(s.Caller("contractor/beta/tuning"), func(r *grants.Request) { r.Purpose = "other" })
	d := s.Propose(breach.Action{Withdraw: "tuning"})
	s.Trace()
	s.OnReset(func() {
		// The answer does not come before what is sent has ended; what is durable is so by then.
		if s.Ask("SELECT COUNT(*) FROM purposes WHERE name = 'tuning'") != "2" {
			t.Error("connections are cut before the withdrawal is durable")
		}
	})
	got, out, err := s.Breach.Sign(t.Context(), s.Alice().Caller, d.ID, s.Alice().Sign(d.Decision))
	s.NoError(err)
	if got.Need != 1 || !got.Effective || out.Ended == nil || out.Ended.Grants != 3 || !out.Ended.Barrier.VaultDone || out.Keys != nil {
		t.Fatalf("%+v, %+v", got, out.Ended)
	}
	e := s.Events(vault.EventPurposeWithdrawn)
	if len(e) != 1 || e[0].Count != 3 || e[0].Index != out.Ended.Barrier.Index || e[0].Decision.Body != d.Body || e[0].Actor != s.Alice().ID {
		t.Errorf("events %+v", e)
	}
	for _, g := range []vault.Grant{pending, approved, s.grant} {
		if now := s.Grant(g.Grant); now.State != vault.GrantRevoked {
			t.Errorf("a grant is %s", now.State)
		}
	}
	s.refused(s.records[0], vault.ReasonGrantRevoked)
	if err := s.Opens(s.token, s.records[0]); err == nil {
		t.Error("its token opens at Vault")
	}
	if s.Grant(spared.Grant).State != vault.GrantActive || s.Opens(sparedToken, s.records[0]) != nil {
		t.Error("a grant of another purpose ended as well")
	}
	_, err = s.Grants.Request(t.Context(), s.acme, house.Ask())
	s.Refused(err, vault.Denied, vault.ReasonPurposeWithdrawn)
	_, err = s.Breach.Propose(t.Context(), s.Bob().Caller, breach.Action{Withdraw: "tuning"})
	s.Refused(err, vault.Exists, vault.ReasonUnchanged)
	_, err = s.Breach.Propose(t.Context(), s.Bob().Caller, breach.Action{Withdraw: "nobody's"})
	s.Refused(err, vault.NotFound, vault.ReasonPurposeUnknown)

	// Applied anew as it was, it takes two, and its grants stay ended.
	back := s.Propose(changed(func(*vault.Purpose) {}))
	if back.Need != 2 {
		t.Errorf("to bring it back takes %d", back.Need)
	}
	s.Decide(changed(func(*vault.Purpose) {}))
	if _, err := s.Grants.Request(t.Context(), s.acme, house.Ask()); err != nil || s.Grant(approved.Grant).State != vault.GrantRevoked {
		t.Errorf("%v, an old grant is %s", err, s.Grant(approved.Grant).State)
	}
}

// TestWithdrawWhatIsNotWellFormed: what the program took once and would not take any more can be
// withdrawn as it stands.
func TestWithdrawWhatIsNotWellFormed(t *testing.T) {
	s := open(t, 0)
	s.SQL(`UPDATE purposes SET body = replace(body, '"LegalBasis":"Order 12"', '"LegalBasis":""')`)
	_, err := s.Breach.Propose(t.Context(), s.Alice().Caller, changed(func(p *vault.Purpose) { p.LegalBasis = "" }))
	if vault.KindOf(err) != vault.Invalid {
		t.Errorf("it may be applied: %v", err)
	}
	s.Decide(breach.Action{Withdraw: "tuning"})
	if n := len(s.Events(vault.EventPurposeWithdrawn)); n != 1 {
		t.Errorf("%d events tell of it", n)
	}
	_, err = s.Grants.Request(t.Context(), s.Caller("contractor/acme/tuning"), house.Ask())
	s.Refused(err, vault.Denied, vault.ReasonPurposeWithdrawn)
}

// TestWithdrawWhileVaultIsDown: it holds here at once, and Vault follows.
func TestWithdrawWhileVaultIsDown(t *testing.T) {
	s := open(t, 1)
	d := s.Propose(breach.Action{Withdraw: "tuning"})
	s.Vault.Down(true)
	_, out, err := s.Breach.Sign(t.Context(), s.Alice().Caller, d.ID, s.Alice().Sign(d.Decision))
	s.NoError(err)
	if out.Ended == nil || out.Ended.Barrier.VaultDone {
		t.Errorf("%+v", out.Ended)
	}
	s.refused(s.records[0], vault.ReasonGrantRevoked)
	s.Vault.Down(false)
	s.NoError(s.Grants.Sweep(t.Context()))
	if s.Opens(s.token, s.records[0]) == nil {
		t.Error("its token opens at Vault")
	}
}

// TestLogSaysWhatIsWithdrawn: whatever somebody wrote into the rows, after the next look nothing is
// granted for a purpose whose newest version is not the one that the log tells of.
func TestLogSaysWhatIsWithdrawn(t *testing.T) {
	forget := `DELETE FROM purposes WHERE version = 2`
	for name, c := range map[string]struct {
		action breach.Action
		sql    []string
		proved bool // the row is what admins signed again
	}{
		"withdrawal deleted":               {breach.Action{Withdraw: "tuning"}, []string{forget}, true},
		"with its grants back to life":     {breach.Action{Withdraw: "tuning"}, []string{forget, `UPDATE grants SET state = 'active'`}, true},
		"with its decision":                {breach.Action{Withdraw: "tuning"}, []string{forget, `DELETE FROM decisions WHERE body LIKE '%withdrawn: true%'`}, false},
		"withdrawal written over":          {breach.Action{Withdraw: "tuning"}, []string{`UPDATE purposes SET body = replace(body, '"Withdrawn":true', '"Withdrawn":false')`}, false},
		"another version on top":           {breach.Action{Withdraw: "tuning"}, []string{`INSERT INTO purposes SELECT name, 3, body, decision_id FROM purposes WHERE version = 1`}, false},
		"deleted, and a tightening before": {changed(fewer), []string{forget}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := watch(t, 1)
			w.Decide(c.action)
			w.look(breach.LookSince)
			for _, q := range c.sql {
				if w.SQL(q) == 0 {
					t.Fatal("changed nothing: ", q)
				}
			}
			w.look(breach.LookAll)
			if _, err := w.Grants.Request(ctx(), w.acme, house.Ask()); err == nil || (!slices.Contains([]vault.Kind{vault.Denied, vault.NotFound, vault.DataLoss}, vault.KindOf(err))) {
				t.Errorf("a request: %v", err)
			}
			if got := w.Grant(w.grant.Grant).State; got != vault.GrantRevoked {
				t.Errorf("a grant of it is %s", got)
			}
			n := len(w.Events())
			if w.look(breach.LookAll); len(w.Events()) != n {
				t.Error("it is told again")
			}
			if c.proved {
				_, err := w.Breach.Propose(ctx(), w.Alice().Caller, breach.Action{Withdraw: "tuning"})
				w.Refused(err, vault.Exists, vault.ReasonUnchanged)
			}
			if name == "with its decision" || name == "another version on top" {
				return // such rows can not be read: an operator restores the database
			}
			// Two admins bring it back.
			w.Decide(changed(func(*vault.Purpose) {}))
			if w.look(breach.LookAll); len(w.Events(vault.EventPurposeWithdrawn)) > 2 {
				t.Error("what two admins signed is withdrawn")
			}
			if _, err := w.Grants.Request(ctx(), w.acme, house.Ask()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLawfulPurposesStay: no look withdraws what admins signed, nor tells of purposes of which nobody
// proves anything.
func TestLawfulPurposesStay(t *testing.T) {
	w := watch(t, 1)
	w.Decide(changed(fewer))
	w.Decide(breach.Action{Withdraw: "tuning"})
	w.Decide(changed(fewer))
	w.vault.on("Keys", func() { w.Decide(changed(func(p *vault.Purpose) { p.MaxRecords = 6 })) })
	old := house.Tuning()
	old.Name = "old"
	w.Decide(breach.Action{Purpose: &old})
	w.SQL(`UPDATE purposes SET body = replace(body, 'Order 12', '') WHERE name = 'old'`) // as of before there were legal bases
	n := len(w.Events(vault.EventPurposeWithdrawn))
	w.look(breach.LookAll)
	w.look(breach.LookAll)
	if got := len(w.Events(vault.EventPurposeWithdrawn)); got != n {
		t.Errorf("%d purposes were withdrawn", got-n)
	}
}

// TestLookEndsAsTheLogSays: a grant that lapsed, or suspended itself, ends again as such.
func TestLookEndsAsTheLogSays(t *testing.T) {
	for as, state := range map[vault.EventType]vault.GrantState{
		vault.EventGrantLapsed: vault.GrantLapsed, vault.EventGrantSuspended: vault.GrantSuspended, vault.EventGrantDenied: vault.GrantDenied,
	} {
		t.Run(string(as), func(t *testing.T) {
			w := watch(t, 1)
			_, err := w.Store.Update(ctx(), func(tx *store.Tx) error {
				e := vault.NewEvent(as, vault.Caller{}, tx.Now())
				e.Grant, e.Contractor = w.grant.Grant.String(), "acme"
				return tx.Append(e)
			})
			w.NoError(err)
			w.look(breach.LookAll)
			if got := w.Grant(w.grant.Grant).State; got != state {
				t.Errorf("it is %s", got)
			}
			if e := w.Events(as); len(e) != 2 || e[1].Actor != "portcullisd" {
				t.Errorf("events %+v", e)
			}
		})
	}
}

func TestConflictGroups(t *testing.T) {
	s := open(t, 0)
	admit := func(group string) vault.Proposal {
		t.Helper()
		return s.Propose(breach.Action{Contractor: &vault.Contractor{Name: "acme", Title: "Contractor acme", Group: group}})
	}
	_, err := s.Breach.Propose(t.Context(), s.Alice().Caller, breach.Action{Contractor: &vault.Contractor{Name: "acme", Title: "Contractor acme", Group: "acme"}})
	s.Refused(err, vault.Exists, vault.ReasonUnchanged) // its own is what it has when it names none
	d := admit("holding")
	if d.Need != 2 {
		t.Errorf("it takes %d", d.Need)
	}
	got, _, err := s.sign(s.Alice(), d)
	s.NoError(err)
	if got.Effective || s.Ask("SELECT conflict_group FROM contractors WHERE name = 'acme'") != "acme" {
		t.Error("one admin changed a group")
	}
	_, _, err = s.sign(s.Bob(), d)
	s.NoError(err)
	if g := s.Ask("SELECT conflict_group FROM contractors WHERE name = 'acme'"); g != "holding" {
		t.Errorf("its group is %s", g)
	}
	// Whoever leaves the group out means the contractor's own: no file says less than it seems to.
	if d := admit(""); d.Need != 2 {
		t.Errorf("to leave the group takes %d", d.Need)
	}
}

// TestUnprovedContractorIsNotUnchanged: also if nobody altered it, as after an upgrade that gave
// contractors more to be signed.
func TestUnprovedContractorIsNotUnchanged(t *testing.T) {
	s := open(t, 0)
	s.SQL(`UPDATE decisions SET body = replace(body, 'conflict_group: acme' || char(10), '') WHERE kind = 'contractor.apply'`)
	_, err := s.Grants.Request(t.Context(), s.acme, house.Ask())
	s.Refused(err, vault.Denied, vault.ReasonDecisionTampered)
	s.Clock.Advance(time.Minute)
	s.Admit("acme")
	if _, err := s.Grants.Request(t.Context(), s.acme, house.Ask()); err != nil {
		t.Error(err)
	}
	if e := s.Events(vault.EventContractorApplied); !slices.Equal([]string{e[0].Contractor, e[len(e)-1].Contractor}, []string{"acme", "acme"}) || e[len(e)-1].Epoch != 1 {
		t.Errorf("%+v", e)
	}
}
