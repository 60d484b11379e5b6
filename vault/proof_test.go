package vault_test

import (
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// chain is a purpose's versions, each with its decision.
type chain struct {
	t        *testing.T
	trust    vault.Authority
	ann, bob person
	versions []vault.Sanction
}

func newChain(t *testing.T) *chain {
	ca := newAuthority(t, nil)
	c := &chain{t: t, trust: ca.trust(), ann: ca.admin("ann"), bob: ca.admin("bob")}
	c.add(func(*vault.Purpose) {}, c.ann, c.bob)
	return c
}

// add puts a version on top.
func (c *chain) add(change func(*vault.Purpose), signers ...person) {
	p := somePurpose()
	p.Version, p.Replaces = 1, vault.Digest{}
	if n := len(c.versions); n > 0 {
		p = c.versions[n-1].Purpose
		p.Version, p.Replaces = p.Version+1, c.versions[n-1].Purpose.Digest()
	}
	change(&p)
	s := vault.Sanction{Purpose: p}
	c.versions = append(c.versions, s)
	c.sign(len(c.versions)-1, signers...)
}

// sign has a version signed as it stands.
func (c *chain) sign(i int, signers ...person) {
	s := &c.versions[i]
	s.Decision = vault.Decision{ID: vault.NewID(), Kind: vault.ApplyPurpose, Body: s.Purpose.Text(), Expires: signedAt.Add(time.Hour)}
	s.Signatures = nil
	for _, p := range signers {
		s.Signatures = append(s.Signatures, p.sign(c.t, s.Decision, signedAt))
	}
}

func (c *chain) newest() error {
	return c.trust.Sanctioned(c.versions[len(c.versions)-1], func(v int) (vault.Sanction, error) {
		if v < 1 || v > len(c.versions) || c.versions[v-1].Purpose.Name == "" {
			return vault.Sanction{}, vault.E(vault.NotFound, vault.ReasonPurposeUnknown, "none")
		}
		return c.versions[v-1], nil
	})
}

func fewer(p *vault.Purpose) { p.MaxRecords-- }
func more(p *vault.Purpose)  { p.MaxRecords++ }

func TestSanctioned(t *testing.T) {
	none := vault.Sanction{}
	for _, c := range []struct {
		name string
		make func(c *chain)
		good bool
	}{
		{"two signed it", func(*chain) {}, true},
		{"one signed the first", func(c *chain) { c.sign(0, c.ann) }, false},
		{"nobody signed it", func(c *chain) { c.sign(0) }, false},
		{"one signed twice", func(c *chain) { c.sign(0, c.ann, c.ann) }, false},
		{"one tightens", func(c *chain) { c.add(fewer, c.ann) }, true},
		{"one tightens, again and again", func(c *chain) {
			for range 5 {
				c.add(fewer, c.bob)
			}
		}, true},
		{"one withdraws", func(c *chain) { c.add(func(p *vault.Purpose) { p.Withdrawn = true }, c.bob) }, true},
		{"nobody tightens", func(c *chain) { c.add(fewer) }, false},
		{"two loosen", func(c *chain) { c.add(more, c.ann, c.bob) }, true},
		{"one loosens", func(c *chain) { c.add(more, c.ann) }, false},
		{"one loosens one field and tightens another", func(c *chain) { c.add(func(p *vault.Purpose) { more(p); p.MaxTTL /= 2 }, c.ann) }, false},
		{"one brings a withdrawn one back", func(c *chain) {
			c.add(func(p *vault.Purpose) { p.Withdrawn = true }, c.bob)
			c.add(func(p *vault.Purpose) { p.Withdrawn = false }, c.bob)
		}, false},
		{"loosened by one in between", func(c *chain) { c.add(more, c.ann); c.add(fewer, c.bob) }, false},
		{"loosened by two in between", func(c *chain) { c.add(more, c.ann, c.bob); c.add(fewer, c.bob) }, true},
		{"two sign above one that nobody signed", func(c *chain) { c.add(more); c.add(fewer, c.ann, c.bob) }, true},
		{"what it tightens was forged", func(c *chain) {
			c.add(fewer, c.ann)
			c.add(fewer, c.ann)
			more(&c.versions[1].Purpose) // the row, not what was signed
		}, false},
		{"what it tightens was forged, and its digest fits", func(c *chain) {
			c.add(fewer, c.ann)
			c.versions[1].Purpose.MaxRecords = 1_000
			c.add(fewer, c.ann)
		}, false},
		{"the first was forged", func(c *chain) { c.add(fewer, c.ann); c.versions[0].Purpose.MaxTTL += time.Hour }, false},
		{"the version before is gone", func(c *chain) { c.add(fewer, c.ann); c.versions[0] = none }, false},
		{"an older one in its place", func(c *chain) {
			c.add(more, c.ann, c.bob)
			c.add(func(p *vault.Purpose) { p.MaxTTL /= 2 }, c.ann)
			c.versions[1] = c.versions[0]
		}, false},
		{"an older one in its place, numbered anew", func(c *chain) {
			c.add(fewer, c.ann, c.bob)
			c.add(fewer, c.ann)
			c.versions[1] = c.versions[0]
			c.versions[1].Purpose.Version = 2
		}, false},
		{"it replaces another", func(c *chain) { c.add(func(p *vault.Purpose) { fewer(p); p.Replaces[0] ^= 1 }, c.ann) }, false},
		{"it replaces nothing", func(c *chain) { c.add(func(p *vault.Purpose) { fewer(p); p.Replaces = vault.Digest{} }, c.ann) }, false},
		{"it skips a version", func(c *chain) { c.add(func(p *vault.Purpose) { fewer(p); p.Version++ }, c.ann) }, false},
		{"it tightens another purpose", func(c *chain) {
			c.add(func(p *vault.Purpose) { p.Name = "another" }, c.ann)
		}, false},
		{"another body was signed", func(c *chain) { c.versions[0].Purpose.MaxRecords++ }, false},
		{"as another kind", func(c *chain) { c.versions[0].Decision.Kind = vault.ApplyContractor }, false},
		{"a damaged signature beside a good one", func(c *chain) {
			c.add(fewer, c.ann, c.bob)
			c.versions[1].Signatures[1].Bytes[9] ^= 1
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			ch := newChain(t)
			c.make(ch)
			err := ch.newest()
			if c.good {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantReason(t, err, vault.Denied, vault.ReasonDecisionTampered)
		})
	}
	t.Run("the database is away", func(t *testing.T) {
		ch := newChain(t)
		ch.add(fewer, ch.ann)
		away := vault.E(vault.Unavailable, vault.ReasonStoreUnavailable, "away")
		err := ch.trust.Sanctioned(ch.versions[1], func(int) (vault.Sanction, error) { return vault.Sanction{}, away })
		wantReason(t, err, vault.Unavailable, vault.ReasonStoreUnavailable)
	})
}

func TestAdmitted(t *testing.T) {
	ca := newAuthority(t, nil)
	ann, bob := ca.admin("ann"), ca.admin("bob")
	org := vault.Contractor{Name: "acme", Title: "Acme Ltd.", Epoch: 2}
	d := vault.Decision{ID: vault.NewID(), Kind: vault.ApplyContractor, Body: org.Text(), Expires: signedAt.Add(time.Hour)}
	both := []vault.Signature{ann.sign(t, d, signedAt), bob.sign(t, d, signedAt)}
	if err := ca.trust().Admitted(org, d, both); err != nil {
		t.Fatal(err)
	}
	wantReason(t, ca.trust().Admitted(org, d, both[:1]), vault.Denied, vault.ReasonDecisionTampered)
	for _, change := range []func(*vault.Contractor){
		func(c *vault.Contractor) { c.Group = "holding" }, func(c *vault.Contractor) { c.Epoch++ }, func(c *vault.Contractor) { c.Title += "x" },
	} {
		other := org
		change(&other)
		wantReason(t, ca.trust().Admitted(other, d, both), vault.Denied, vault.ReasonDecisionTampered)
	}
}

// TestApproved: the purpose says how many must approve and who may; the row of the grant does not.
func TestApproved(t *testing.T) {
	ca := newAuthority(t, nil)
	ann, bob, mallory := ca.admin("ann"), ca.admin("bob"), ca.admin("mallory")
	grant := func(change func(*vault.Grant), signers ...person) vault.Grant {
		g := vault.Grant{Terms: someTerms(), Contractor: "acme", RequestedAt: asked}
		g.Grantee = "spiffe://" + domain + "/contractor/acme/tuning-1"
		g.Ends = signedAt.Add(30 * time.Minute)
		g.RequestedAt = signedAt
		g.Scope.From, g.Scope.Until = signedAt.Truncate(time.Hour).Add(-time.Hour), signedAt.Truncate(time.Hour)
		change(&g)
		for _, p := range signers {
			g.Signatures = append(g.Signatures, p.sign(t, g.Decision(), signedAt))
		}
		return g
	}
	same := func(*vault.Grant) {}
	if err := ca.trust().Approved(grant(same, ann, bob), somePurpose()); err != nil {
		t.Fatal(err)
	}
	for name, g := range map[string]vault.Grant{
		"one signed":                       grant(same, ann),
		"one signed, as the terms want":    grant(func(g *vault.Grant) { g.Approvals = 1 }, ann),
		"somebody else signed":             grant(same, ann, mallory),
		"three signed, one of them no one": grant(same, ann, bob, mallory),
		"more than the purpose allows":     grant(func(g *vault.Grant) { g.MaxRecords = 501 }, ann, bob),
		"another contractor's row": func() vault.Grant {
			g := grant(same, ann, bob)
			g.Contractor = "agency-lab"
			return g
		}(),
		"of another version": grant(func(g *vault.Grant) { g.Purpose.Digest[0] ^= 1 }, ann, bob),
	} {
		t.Run(name, func(t *testing.T) {
			wantReason(t, ca.trust().Approved(g, somePurpose()), vault.Denied, vault.ReasonGrantTampered)
		})
	}
}
