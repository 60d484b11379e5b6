package grants_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/grants"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

func TestRequestTwice(t *testing.T) {
	s := open(t)
	r := house.Ask()
	first, err := s.Grants.Request(t.Context(), s.acme, r)
	s.NoError(err)
	again, err := s.Grants.Request(t.Context(), s.acme, r)
	s.NoError(err)
	if again.Grant != first.Grant || again.Text() != first.Text() || s.count(first, vault.EventGrantRequested) != 1 {
		t.Errorf("%s and %s, %d events", first.Grant, again.Grant, s.count(first, vault.EventGrantRequested))
	}
	// A request ID is its workload's own.
	other, err := s.Grants.Request(t.Context(), s.Caller("contractor/acme/other"), r)
	s.NoError(err)
	if other.Grant == first.Grant {
		t.Error("another workload was given the grant")
	}
	for name, change := range map[string]func(*grants.Request){
		"quota": func(r *grants.Request) { r.MaxRecords++ }, "ttl": func(r *grants.Request) { r.TTL += time.Second },
		"bytes": func(r *grants.Request) { r.MaxBytes = 5 }, "live": func(r *grants.Request) { r.Scope = live() },
		"scope": func(r *grants.Request) { r.Scope.Sites = []string{"north"} }, "work order": func(r *grants.Request) { r.Justification = "WO-2" },
	} {
		other := r
		change(&other)
		_, err := s.Grants.Request(t.Context(), s.acme, other)
		if vault.KindOf(err) != vault.Exists || vault.ReasonOf(err) != vault.ReasonRequestIDReused {
			t.Errorf("reused with another %s: %v", name, err)
		}
	}
	if e := s.Events(vault.EventGrantRequested)[0]; e.Terms != first.Text() || e.Actor != s.acme.ID || e.Contractor != "acme" {
		t.Errorf("the event says %+v", e)
	}
}

func TestRequestRefused(t *testing.T) {
	s := open(t)
	for name, c := range map[string]struct {
		caller string
		kind   vault.Kind
		reason vault.Reason
		change func(*grants.Request)
	}{
		"unknown purpose":   {"acme", vault.NotFound, vault.ReasonPurposeUnknown, func(r *grants.Request) { r.Purpose = "matching" }},
		"site":              {"acme", vault.Denied, vault.ReasonPurposeSite, func(r *grants.Request) { r.Scope.Sites = []string{"east"} }},
		"quota":             {"acme", vault.Denied, vault.ReasonPurposeQuota, func(r *grants.Request) { r.MaxRecords = house.Tuning().MaxRecords + 1 }},
		"duration":          {"acme", vault.Denied, vault.ReasonPurposeDuration, func(r *grants.Request) { r.TTL = house.Tuning().MaxTTL + time.Second }},
		"unknown applicant": {"nobody", vault.Denied, vault.ReasonContractorUnknown, func(*grants.Request) {}},
	} {
		t.Run(name, func(t *testing.T) {
			r := house.Ask()
			c.change(&r)
			who := s.Caller("contractor/" + c.caller + "/tuning")
			_, err := s.Grants.Request(t.Context(), who, r)
			s.Refused(err, c.kind, c.reason)
			if e := s.Last(); e.Type != vault.EventGrantRefused || e.Reason != c.reason || e.Actor != who.ID {
				t.Errorf("the log ends in %+v", e)
			}
			terms := s.Last().Terms
			for _, line := range []string{
				"purpose: " + r.Purpose, "sites: " + strings.Join(r.Scope.Sites, ","), "captured_from: " + vault.FormatTime(r.Scope.From),
				fmt.Sprint("max_records: ", r.MaxRecords), "ends: " + vault.FormatTime(s.Clock.Now().Add(r.TTL)), "grantee: " + who.ID,
			} {
				if !strings.Contains(terms, line+"\n") {
					t.Errorf("the log does not tell %q of what was asked:\n%s", line, terms)
				}
			}
		})
	}
	if n := s.Ask("SELECT COUNT(*) FROM grants"); n != "0" {
		t.Errorf("%s grants", n)
	}
}

func TestOthersGrants(t *testing.T) {
	s := open(t)
	g, _ := s.Active(s.acme)
	for _, path := range []string{"contractor/beta/tuning", "contractor/acme/other"} {
		other := s.Caller(path)
		_, _, err := s.Grants.Activate(t.Context(), other, g.Grant)
		s.Refused(err, vault.NotFound, vault.ReasonGrantUnknown)
		_, _, err = s.Grants.Retire(t.Context(), other, g.Grant)
		s.Refused(err, vault.NotFound, vault.ReasonGrantUnknown)
		_, _, unknown := s.Grants.Activate(t.Context(), other, vault.NewID())
		s.Refused(unknown, vault.NotFound, vault.ReasonGrantUnknown)
	}
	_, err := s.Grants.Get(t.Context(), s.Caller("contractor/beta/tuning"), g.Grant)
	s.Refused(err, vault.NotFound, vault.ReasonGrantUnknown)
	got, err := s.Grants.Get(t.Context(), s.Caller("contractor/acme/other"), g.Grant)
	s.NoError(err)
	if got.Grant.Grant != g.Grant || got.Preview.Records != 0 {
		t.Errorf("got %+v", got)
	}
	s.state(g, vault.GrantActive, vault.FenceWritten)
	v, err := s.Grants.Get(t.Context(), s.Alice().Caller, g.Grant)
	p := v.Preview
	if s.NoError(err); p.Records != 1 || p.Crossings != 1 || p.Days != 1 {
		t.Errorf("preview %+v", p)
	}
}

func TestPurposeChanged(t *testing.T) {
	s := open(t)
	pending, approved := s.Requested(s.acme), s.Approved(s.acme)
	p := house.Tuning()
	p.MaxRecords--
	s.Decide(breach.Action{Purpose: &p})
	_, err := s.sign(s.Alice(), pending)
	s.Refused(err, vault.Denied, vault.ReasonPurposeChanged)
	_, _, err = s.Grants.Activate(t.Context(), s.acme, approved.Grant)
	s.Refused(err, vault.Denied, vault.ReasonPurposeChanged)
	if e := s.Last(); e.Type != vault.EventGrantRefused || e.Reason != vault.ReasonPurposeChanged || e.Grant != approved.Grant.String() {
		t.Errorf("the log ends in %+v", e)
	}
	if s.Vault.Calls("Mint") != 0 {
		t.Error("a token was minted")
	}
	s.state(pending, vault.GrantPending, vault.FenceNone)
}

// TestPurposeChangesMeanwhile: the purpose's new version commits between Mint and commit.
func TestPurposeChangesMeanwhile(t *testing.T) {
	s := open(t)
	g := s.Approved(s.acme)
	s.Grants.Tokens = afterMint{s.Grants.Tokens, func() {
		p := house.Tuning()
		p.MaxRecords--
		s.Decide(breach.Action{Purpose: &p})
	}}
	_, token, err := s.Grants.Activate(t.Context(), s.acme, g.Grant)
	s.Refused(err, vault.Denied, vault.ReasonPurposeChanged)
	if !token.IsZero() || len(s.minted) != 1 {
		t.Errorf("%d tokens minted, one given: %v", len(s.minted), !token.IsZero())
	}
	s.shut()
}

func TestSignaturesOfApprovals(t *testing.T) {
	s := open(t)
	g := s.Requested(s.acme)
	other := s.Requested(s.acme)
	alice, bob := s.Alice(), s.Bob()
	refused := func(name string, err error, r vault.Reason) {
		t.Run(name, func(t *testing.T) {
			s.Refused(err, vault.Denied, r)
			if e := s.Last(); e.Type != vault.EventGrantRefused || e.Reason != r {
				t.Errorf("the log ends in %+v", e)
			}
		})
	}
	_, err := s.Grants.Approve(t.Context(), alice.Caller, g.Grant, alice.Sign(other.Decision()))
	refused("of another grant", err, vault.ReasonSignatureInvalid)
	_, err = s.Grants.Approve(t.Context(), alice.Caller, g.Grant, bob.Sign(g.Decision()))
	refused("somebody else's", err, vault.ReasonSignatureInvalid)
	wider := g.Terms
	wider.MaxRecords++
	_, err = s.Grants.Approve(t.Context(), alice.Caller, g.Grant, alice.Sign(wider.Decision()))
	refused("of other terms", err, vault.ReasonSignatureInvalid)
	stale := alice.Sign(g.Decision())
	s.Clock.Advance(vault.SignatureSkew + time.Second)
	_, err = s.Grants.Approve(t.Context(), alice.Caller, g.Grant, stale)
	refused("stale", err, vault.ReasonSignatureStale)
	_, err = s.sign(alice, g)
	s.NoError(err)
	_, err = s.sign(alice, g)
	refused("the same admin's again", err, vault.ReasonAlreadySigned)
	s.state(g, vault.GrantPending, vault.FenceNone)
	if _, err = s.sign(bob, g); err != nil {
		t.Fatal(err)
	}
	s.state(g, vault.GrantApproved, vault.FenceWritten)
	if s.count(g, vault.EventGrantSigned) != 2 || s.count(g, vault.EventGrantApproved) != 1 {
		t.Error("the log does not have two signatures and one approval")
	}
	_, err = s.sign(s.Person("admin/carol"), g)
	s.Refused(err, vault.State, vault.ReasonGrantDecided)
}

// TestTamperedGrant: whoever writes to the database makes no grant wider, and has Vault told
// nothing.
func TestTamperedGrant(t *testing.T) {
	other := map[string]vault.Reason{ // what is seen first
		"captured_from": vault.ReasonPurposeAge, "max_bytes": vault.ReasonPurposeBytes,
		"epoch": vault.ReasonContractorSuspended, "approvals": vault.ReasonApprovalsMissing, "purpose_version": vault.ReasonPurposeChanged,
	}
	for column, value := range map[string]any{
		"max_records": 2000, "max_bytes": int64(1) << 42, "live": 1, "sites": "north", "modalities": "face", "ends": house.Start.Add(6 * time.Hour).UnixMicro(),
		"captured_from": 0, "captured_until": house.Start.AddDate(0, 0, 10).UnixMicro(), "approvals": 1, "epoch": 2,
		"grantee": "spiffe://vault.test/contractor/acme/other", "justification": "WO-2", "purpose_version": 7,
	} {
		t.Run(column, func(t *testing.T) {
			s := open(t)
			s.Vault.Fail("WriteFence", 1, vaultAway())
			g := s.Approved(s.acme)
			s.SQL("UPDATE grants SET "+column+" = ? WHERE id = ?", value, g.Grant.String())
			calls := s.Vault.Calls("WriteFence")
			reason := vault.ReasonGrantTampered
			if r, ok := other[column]; ok {
				reason = r
			}
			s.Refused(s.Grants.Sweep(t.Context()), vault.Denied, reason)
			who := s.acme
			who.ID = s.Ask("SELECT grantee FROM grants")
			_, token, err := s.Grants.Activate(t.Context(), who, g.Grant)
			if vault.KindOf(err) != vault.Denied || !token.IsZero() {
				t.Errorf("activated: %v", err)
			}
			if s.Vault.Calls("WriteFence") != calls || s.Vault.Calls("Mint") != 0 {
				t.Error("Vault was told")
			}
		})
	}
	t.Run("pending made approved", func(t *testing.T) {
		s := open(t)
		g := s.Requested(s.acme)
		_, err := s.sign(s.Alice(), g)
		s.NoError(err)
		s.SQL("UPDATE grants SET state = 'approved', fence = 'due'")
		s.Refused(s.Grants.Sweep(t.Context()), vault.Denied, vault.ReasonGrantTampered)
		_, _, err = s.Grants.Activate(t.Context(), s.acme, g.Grant)
		s.Refused(err, vault.Denied, vault.ReasonGrantTampered)
		if s.Vault.Calls("WriteFence") != 0 || s.Vault.Calls("Mint") != 0 {
			t.Error("Vault was told")
		}
	})
	t.Run("purpose", func(t *testing.T) {
		s := open(t)
		s.SQL("UPDATE purposes SET body = replace(body, '\"MaxRecords\":100000', '\"MaxRecords\":999999')")
		_, err := s.Grants.Request(t.Context(), s.acme, house.Ask())
		s.Refused(err, vault.Denied, vault.ReasonDecisionTampered)
		if s.Last().Reason != vault.ReasonDecisionTampered {
			t.Error("nothing in the log")
		}
	})
}
