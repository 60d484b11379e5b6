package grants_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/grants"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

// divided is a house with two purposes, one of faces and one of plates.
func divided(t *testing.T) *scene {
	s := open(t)
	s.sanction(apart("faces", vault.Face), apart("plates", vault.Plate))
	return s
}

func faces(r *grants.Request) { r.Purpose, r.Scope.Modalities = "faces", []vault.Modality{vault.Face} }
func plates(r *grants.Request) {
	r.Purpose, r.Scope.Modalities = "plates", []vault.Modality{vault.Plate}
}

// affiliates makes beta one of acme's.
func (s *scene) affiliates() {
	s.Helper()
	for _, name := range []string{"acme", "beta"} {
		s.Decide(breach.Action{Contractor: &vault.Contractor{Name: name, Title: "Contractor " + name, Group: "holding"}})
	}
}

// asked has a workload ask.
func (s *scene) asked(c vault.Caller, change ...func(*grants.Request)) error {
	s.Helper()
	r := house.Ask()
	for _, f := range change {
		f(&r)
	}
	_, err := s.Grants.Request(s.Context(), c, r)
	return err
}

// TestConflict: who holds the faces of a site and day is not given its plates, nor are its
// affiliates, whatever the order.
func TestConflict(t *testing.T) {
	t.Run("at the request", func(t *testing.T) {
		s := divided(t)
		s.Approved(s.acme, faces)
		err := s.asked(s.acme, plates)
		s.Refused(err, vault.Denied, vault.ReasonConflictRule)
		if e := s.Last(); e.Type != vault.EventGrantRefused || e.Reason != vault.ReasonConflictRule {
			t.Errorf("the log ends in %+v", e)
		}
		s.Refused(s.asked(s.acme), vault.Denied, vault.ReasonConflictRule) // both, under a third purpose
		s.NoError(s.asked(s.acme, faces))
		beta := s.Caller("contractor/beta/tuning")
		s.NoError(s.asked(beta, plates)) // another organisation
		// Other sites, and other days, are another matter.
		s.Requested(s.acme, plates, func(r *grants.Request) {
			r.Scope.From, r.Scope.Until = r.Scope.From.AddDate(0, 0, -2), r.Scope.From
		})
	})
	t.Run("at the approval", func(t *testing.T) {
		s := divided(t)
		one, other := s.Requested(s.acme, faces), s.Requested(s.acme, plates)
		for _, p := range []house.Person{s.Alice(), s.Bob()} {
			_, err := s.sign(p, one)
			s.NoError(err)
		}
		_, err := s.sign(s.Alice(), other)
		s.Refused(err, vault.Denied, vault.ReasonConflictRule)
		s.state(other, vault.GrantPending, vault.FenceNone)
		// Once the other has ended, and nothing was opened, it may be approved.
		_, _, err = s.Grants.Revoke(t.Context(), s.Alice().Caller, one.Grant, "")
		s.NoError(err)
		_, err = s.sign(s.Alice(), other)
		s.NoError(err)
	})
	t.Run("affiliates", func(t *testing.T) {
		s := divided(t)
		s.affiliates()
		beta := s.Caller("contractor/beta/tuning")
		s.Approved(s.acme, faces)
		err := s.asked(beta, plates)
		s.Refused(err, vault.Denied, vault.ReasonConflictRule)
		if !strings.Contains(err.Error(), "acme may open the other half of site north") {
			t.Errorf("it says %v", err)
		}
	})
	t.Run("at the activation", func(t *testing.T) {
		s := divided(t)
		beta := s.Caller("contractor/beta/tuning")
		one, other := s.Approved(s.acme, faces), s.Approved(beta, plates)
		s.affiliates() // since then
		_, _, err := s.Grants.Activate(t.Context(), s.acme, one.Grant)
		s.NoError(err)
		_, token, err := s.Grants.Activate(t.Context(), beta, other.Grant)
		s.Refused(err, vault.Denied, vault.ReasonConflictRule)
		if !token.IsZero() || s.Vault.Calls("Mint") != 1 {
			t.Error("a token was minted")
		}
		_, _, err = s.Grants.Activate(t.Context(), s.acme, one.Grant)
		s.NoError(err) // the first may go on
	})
}

// TestConflictWithWhatWasOpened: what left under a grant that is over counts for ever, or as long
// as is configured.
func TestConflictWithWhatWasOpened(t *testing.T) {
	s := divided(t)
	s.affiliates()
	day := s.record.CapturedAt.UnixMicro() / (24 * 60 * 60 * 1_000_000)
	s.SQL("INSERT INTO opened (contractor, site, modality, day, purpose, linkage, last_at) VALUES ('beta', 'north', 'face', ?, 'faces', 0, ?)", day, house.Start.UnixMicro())
	s.Refused(s.asked(s.acme, plates), vault.Denied, vault.ReasonConflictRule)
	s.NoError(s.asked(s.acme, plates, func(r *grants.Request) { r.Scope.Sites = []string{"south"} }))
	s.Clock.Advance(10 * 24 * time.Hour)
	s.Refused(s.asked(s.acme, plates), vault.Denied, vault.ReasonConflictRule)
	s.Grants.ConflictMemory = 10*24*time.Hour + time.Second
	s.Refused(s.asked(s.acme, plates), vault.Denied, vault.ReasonConflictRule)
	s.Grants.ConflictMemory = 10*24*time.Hour - time.Second
	s.NoError(s.asked(s.acme, plates))
}

// TestConflictBelievesNoRow: linkage is what admins signed. A version that somebody wrote into
// the database, or another one than the terms name, has none.
func TestConflictBelievesNoRow(t *testing.T) {
	one, two := house.Tuning(), house.Tuning()
	s := open(t)
	s.NoError(s.asked(s.acme))
	s.Approved(s.acme)
	s.NoError(s.asked(s.acme)) // of one purpose with linkage
	two.Name = "matching"
	s.sanction(two)
	s.Refused(s.asked(s.acme, func(r *grants.Request) { r.Purpose = two.Name }), vault.Denied, vault.ReasonConflictRule)
	s.SQL("UPDATE grants SET purpose_digest = zeroblob(32) WHERE state = 'approved'")
	s.Refused(s.asked(s.acme), vault.Denied, vault.ReasonConflictRule)
	s.SQL("UPDATE grants SET purpose_digest = ? WHERE state = 'approved'", digestOf(one))
	s.NoError(s.asked(s.acme))
	s.SQL("UPDATE grants SET purpose_version = 9 WHERE state = 'approved'")
	s.Refused(s.asked(s.acme), vault.Denied, vault.ReasonConflictRule)
}

// TestConflictBelievesNoGroup: groups are what admins signed. Who writes another into a contractor's
// row, for a moment or for good, or takes its admission away, makes it everybody's affiliate.
func TestConflictBelievesNoGroup(t *testing.T) {
	for _, tampered := range []string{
		"UPDATE contractors SET conflict_group = 'never-signed' WHERE name = ?", "UPDATE contractors SET title = 'another' WHERE name = ?",
		"UPDATE contractors SET decision_id = 'none' WHERE name = ?",
		"DELETE FROM signatures WHERE decision_id = (SELECT decision_id FROM contractors WHERE name = ?)",
		"UPDATE decisions SET body = body || ' ' WHERE id = (SELECT decision_id FROM contractors WHERE name = ?)",
	} {
		s := divided(t)
		beta := s.Caller("contractor/beta/tuning")
		s.Active(s.acme, faces)
		s.NoError(s.asked(beta, plates)) // no affiliate
		g := s.Approved(beta, plates)
		if s.SQL(tampered, "acme") == 0 {
			t.Fatalf("%s: no row", tampered)
		}
		s.Refused(s.asked(beta, plates), vault.Denied, vault.ReasonConflictRule)
		_, _, err := s.Grants.Activate(t.Context(), beta, g.Grant)
		s.Refused(err, vault.Denied, vault.ReasonConflictRule)
	}
	// Affiliates stay so.
	s := divided(t)
	s.affiliates()
	s.Active(s.acme, faces)
	for _, name := range []string{"acme", "beta"} {
		s.SQL("UPDATE contractors SET conflict_group = name WHERE name = ?", name)
		if s.asked(s.Caller("contractor/beta/tuning"), plates) == nil {
			t.Errorf("with the group of %s changed, its affiliate may ask for the other half", name)
		}
		s.SQL("UPDATE contractors SET conflict_group = 'holding'")
	}
	// A suspended contractor's admission is as good as before.
	s = divided(t)
	s.Active(s.acme, faces)
	_, err := s.Breach.Suspend(t.Context(), s.Alice().Caller, "acme", "")
	s.NoError(err)
	s.NoError(s.asked(s.Caller("contractor/beta/tuning"), plates))
}

func digestOf(p vault.Purpose) []byte {
	p.Version = 1
	d := p.Digest()
	return d[:]
}

// TestConflictRaced: of two grants that conflict, approved or activated at once, one wins.
func TestConflictRaced(t *testing.T) {
	for range 8 {
		s := divided(t)
		one, other := s.Requested(s.acme, faces), s.Requested(s.acme, plates)
		for _, g := range []vault.Grant{one, other} {
			_, err := s.sign(s.Alice(), g)
			s.NoError(err)
		}
		s.oneWins(func(g vault.Grant) error { _, err := s.sign(s.Bob(), g); return err }, one, other)
		if n := len(s.Events(vault.EventGrantApproved)); n != 1 {
			t.Errorf("%d were approved", n)
		}
	}
	for range 8 {
		s := divided(t)
		beta := s.Caller("contractor/beta/tuning")
		one, other := s.Approved(s.acme, faces), s.Approved(beta, plates)
		s.affiliates()
		s.oneWins(func(g vault.Grant) error {
			who := map[string]vault.Caller{"acme": s.acme, "beta": beta}[g.Contractor]
			_, token, err := s.Grants.Activate(context.Background(), who, g.Grant)
			if (err == nil) == token.IsZero() {
				return fmt.Errorf("token %v, %w", !token.IsZero(), err)
			}
			return err
		}, one, other)
		if n := len(s.Events(vault.EventGrantActivated)); n != 1 {
			t.Errorf("%d were activated", n)
		}
	}
}

// oneWins does something with both at once: one succeeds, the other meets the conflict rule.
func (s *scene) oneWins(do func(vault.Grant) error, both ...vault.Grant) {
	s.Helper()
	errs := make([]error, len(both))
	var at sync.WaitGroup
	for i, g := range both {
		at.Go(func() { errs[i] = do(g) })
	}
	at.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if vault.ReasonOf(err) != vault.ReasonConflictRule {
			s.Errorf("the loser hears %v", err)
		}
	}
	if won != 1 {
		s.Errorf("%d of two that conflict won: %v", won, errs)
	}
}
