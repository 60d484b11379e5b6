package breach_test

import (
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

func TestSigners(t *testing.T) {
	s := open(t, 1)
	d := s.Propose(breach.Action{Destroy: new(house.All())})
	refused := func(name string, by vault.Caller, sig vault.Signature, k vault.Kind, r vault.Reason) {
		t.Run(name, func(t *testing.T) {
			before := len(s.Events())
			_, _, err := s.Breach.Sign(t.Context(), by, d.ID, sig)
			s.Refused(err, k, r)
			if e := s.Last(); len(s.Events()) != before+1 || e.Type != vault.EventDecisionRefused || e.Reason != r || e.Actor != by.ID {
				t.Errorf("the log ends in %+v", e)
			}
			if s.Ask("SELECT COUNT(*) FROM records WHERE key_state = 'active'") != "1" {
				t.Error("a refusal changed something")
			}
		})
	}
	alice, bob := s.Alice(), s.Bob()
	_, _, err := s.sign(alice, d)
	s.NoError(err)
	refused("one admin twice", alice.Caller, alice.Sign(d.Decision), vault.Denied, vault.ReasonAlreadySigned)
	refused("another's signature", alice.Caller, bob.Sign(d.Decision), vault.Denied, vault.ReasonSignatureInvalid)
	other := d.Decision
	other.ID = vault.NewID()
	refused("another decision's", bob.Caller, bob.Sign(other), vault.Denied, vault.ReasonSignatureInvalid)
	auditor := s.Person("auditor/ann")
	refused("no admin's", auditor.Caller, auditor.Sign(d.Decision), vault.Denied, vault.ReasonSignatureInvalid)
	stale := bob.Sign(d.Decision)
	s.Clock.Advance(vault.SignatureSkew + time.Second)
	refused("stale", bob.Caller, stale, vault.Denied, vault.ReasonSignatureStale)
	s.SQL("INSERT INTO suspended_callers (id, suspended_at) VALUES (?, 0)", s.Person("admin/dan").ID)
	refused("a suspended admin's", s.Person("admin/dan").Caller, s.Person("admin/dan").Sign(d.Decision), vault.Denied, vault.ReasonCallerSuspended)
	s.Clock.Advance(vault.DecisionTTL)
	refused("expired", bob.Caller, bob.Sign(d.Decision), vault.State, vault.ReasonDecisionExpired)
	_, _, err = s.Breach.Sign(t.Context(), bob.Caller, vault.NewID(), bob.Sign(d.Decision))
	s.Refused(err, vault.NotFound, vault.ReasonDecisionUnknown)
	anew := s.Propose(breach.Action{Destroy: new(house.All())})
	if anew.ID == d.ID {
		t.Error("an expired decision is open again")
	}
	_, _, err = s.Breach.Sign(t.Context(), bob.Caller, anew.ID, bob.Sign(d.Decision))
	s.Refused(err, vault.Denied, vault.ReasonSignatureInvalid)
	s.refusedToSign(vault.ReasonSignatureInvalid)
}

func TestOvertaken(t *testing.T) {
	s := open(t, 1)
	p := house.Tuning()
	p.MaxRecords = 700_000
	first := s.Propose(breach.Action{Purpose: &p})
	_, _, err := s.sign(s.Alice(), first)
	s.NoError(err)
	p.MaxRecords = 800_000
	s.Decide(breach.Action{Purpose: &p})
	_, _, err = s.sign(s.Bob(), first)
	s.Refused(err, vault.Conflict, vault.ReasonDecisionOvertaken)
	s.refusedToSign(vault.ReasonDecisionOvertaken)
	if n := s.Ask("SELECT COUNT(*) FROM purposes"); n != "2" {
		t.Errorf("%s versions", n)
	}
	_, err = s.Breach.Propose(t.Context(), s.Alice().Caller, breach.Action{Purpose: &p})
	s.Refused(err, vault.Exists, vault.ReasonUnchanged)
}

// TestRestoreOvertaken: keys that were revoked anew since the restoration was proposed stay
// revoked.
func TestRestoreOvertaken(t *testing.T) {
	s := open(t, 2)
	s.revoke(house.All())
	s.Clock.Advance(time.Second)
	first := s.Propose(breach.Action{Restore: new(house.All())})
	_, _, err := s.sign(s.Alice(), first)
	s.NoError(err)
	s.restore(house.One(s.records[0]))
	s.revoke(house.One(s.records[0]))
	_, _, err = s.sign(s.Bob(), first)
	s.Refused(err, vault.Conflict, vault.ReasonDecisionOvertaken)
	s.keys(vault.KeyRevoked)
}

// TestTampered: whoever writes to the database has nothing carried out that was not signed.
func TestTampered(t *testing.T) {
	purpose := house.Tuning()
	purpose.MaxRecords = 700_000
	org := vault.Contractor{Name: "gamma", Title: "Gamma"}
	one := func(s *scene) *vault.Selection { return new(house.One(s.records[0])) }
	for name, c := range map[string]struct {
		action func(s *scene) breach.Action
		query  string
		reason vault.Reason
	}{
		"payload of a purpose": {func(*scene) breach.Action { return breach.Action{Purpose: &purpose} },
			`UPDATE decisions SET payload = CAST(replace(CAST(payload AS TEXT), '"MaxRecords":700000', '"MaxRecords":900000') AS BLOB)`, vault.ReasonDecisionTampered},
		"payload of a contractor": {func(*scene) breach.Action { return breach.Action{Contractor: &org} },
			`UPDATE decisions SET payload = CAST(replace(CAST(payload AS TEXT), 'gamma', 'delta') AS BLOB)`, vault.ReasonDecisionTampered},
		"payload of a destruction": {func(s *scene) breach.Action { return breach.Action{Destroy: one(s)} },
			`UPDATE decisions SET payload = CAST((SELECT '["' || group_concat(id, '","') || '"]' FROM records) AS BLOB) WHERE kind = 'key.destroy'`, vault.ReasonDecisionTampered},
		"payload without sense": {func(s *scene) breach.Action { return breach.Action{Destroy: one(s)} },
			`UPDATE decisions SET payload = CAST('[' AS BLOB)`, vault.ReasonDecisionTampered},
		"body": {func(*scene) breach.Action { return breach.Action{Purpose: &purpose} },
			`UPDATE decisions SET body = replace(body, 'max_records: 700000', 'max_records: 900000')`, vault.ReasonSignatureInvalid},
		"body and payload": {func(*scene) breach.Action { return breach.Action{Purpose: &purpose} },
			`UPDATE decisions SET body = replace(body, 'max_records: 700000', 'max_records: 800000'),
				payload = CAST(replace(CAST(payload AS TEXT), '"MaxRecords":700000', '"MaxRecords":800000') AS BLOB)`, vault.ReasonSignatureInvalid},
		"kind":            {func(s *scene) breach.Action { return breach.Action{Destroy: one(s)} }, `UPDATE decisions SET kind = 'key.restore'`, vault.ReasonSignatureInvalid},
		"end":             {func(s *scene) breach.Action { return breach.Action{Destroy: one(s)} }, `UPDATE decisions SET expires = expires + 1`, vault.ReasonSignatureInvalid},
		"first signature": {func(s *scene) breach.Action { return breach.Action{Destroy: one(s)} }, `UPDATE signatures SET signature = zeroblob(70)`, vault.ReasonSignatureInvalid},
		"a replayed signature": {func(s *scene) breach.Action { return breach.Action{Destroy: one(s)} },
			`INSERT INTO signatures SELECT (SELECT id FROM decisions WHERE kind = 'key.destroy'), 'spiffe://vault.test/admin/carol', signed_at, signature, chain
				FROM signatures WHERE signer LIKE '%/bob' LIMIT 1`, vault.ReasonSignatureInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, 2)
			d := s.Propose(c.action(s))
			_, _, err := s.sign(s.Alice(), d)
			s.NoError(err)
			rows := s.Ask("SELECT count(*) || (SELECT count(*) FROM contractors) FROM purposes")
			if s.SQL(c.query) == 0 {
				t.Fatal("nothing to tamper with")
			}
			before := len(s.Events())
			_, _, err = s.sign(s.Bob(), d)
			s.Refused(err, vault.Denied, c.reason)
			s.refusedToSign(c.reason)
			if len(s.Events()) != before+1 || s.Ask("SELECT count(*) || (SELECT count(*) FROM contractors) FROM purposes") != rows {
				t.Error("a refusal changed something")
			}
			s.keys(vault.KeyActive)
		})
	}
	t.Run("one signature is enough", func(t *testing.T) {
		s := open(t, 1)
		d := s.Propose(breach.Action{Destroy: new(house.All())})
		s.SQL("UPDATE decisions SET need = 1 WHERE id = ?", d.ID.String())
		_, work, err := s.sign(s.Alice(), d)
		s.NoError(err)
		if work != nil {
			t.Error("it was carried out")
		}
		s.keys(vault.KeyActive)
	})
}

// TestTamperedKeyStates: a row alone has no key opened or destroyed.
func TestTamperedKeyStates(t *testing.T) {
	s := open(t, 2)
	s.revoke(house.All())
	for _, state := range []vault.KeyState{vault.KeyRestoring, vault.KeyDestroying} {
		s.SQL("UPDATE records SET key_state = ?", string(state))
		s.Refused(s.Breach.Sweep(t.Context()), vault.Denied, vault.ReasonDecisionTampered)
		for _, r := range s.records {
			if err := s.Opens(s.token, r); vault.ReasonOf(err) != vault.ReasonKeyRevoked {
				t.Errorf("%s in the row: %v", state, err)
			}
		}
	}
	s.SQL("UPDATE records SET key_state = 'active'")
	for _, r := range s.records {
		s.refused(r, vault.ReasonKeyRevoked)
	}
}

// refusedToSign shows that the log ends in a refusal of a signature.
func (s *scene) refusedToSign(reason vault.Reason) {
	s.Helper()
	e := s.Last()
	if e.Type != vault.EventDecisionRefused || e.Reason != reason || e.Decision == nil || e.Actor != s.Bob().ID {
		s.Errorf("the log ends in %+v", e)
	}
}
