package vault_test

import (
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// known proves the newest version by what is remembered, and says how many earlier ones that read.
func (c *chain) known(p *vault.Proofs, trust vault.Authority) (read int, err error) {
	err = p.Sanctioned(trust, c.versions[len(c.versions)-1], func(v int) (vault.Sanction, error) {
		read++
		return c.versions[v-1], nil
	})
	return read, err
}

// TestProofsEndTheWalk: a chain of 400 versions that one admin signed each is walked once; a version
// on top of it costs one more.
func TestProofsEndTheWalk(t *testing.T) {
	ch := newChain(t)
	ch.versions[0].Purpose.MaxRecords = 1000
	ch.sign(0, ch.ann, ch.bob)
	for range 399 {
		ch.add(fewer, ch.ann)
	}
	var p vault.Proofs
	for _, want := range []int{399, 0, 0} {
		began := time.Now()
		read, err := ch.known(&p, ch.trust)
		if err != nil || read != want {
			t.Fatalf("%d versions were read: %v; want %d", read, err, want)
		}
		t.Logf("%d earlier versions read in %s", read, time.Since(began))
	}
	ch.add(fewer, ch.bob)
	if read, err := ch.known(&p, ch.trust); err != nil || read != 1 {
		t.Errorf("%d versions were read for one more: %v", read, err)
	}
	// Under other roots nothing is known.
	other := newAuthority(t, nil).trust()
	if _, err := ch.known(&p, other); err == nil {
		t.Error("what one authority proved, another believes")
	}
	p.Keep(other, vault.Digest{}, vault.Purpose{})
	if read, err := ch.known(&p, ch.trust); err != nil || read != 400 {
		t.Errorf("%d versions were read after the roots changed: %v", read, err)
	}
}

// TestProofsBelieveNoRow: whatever of a proved row is changed, it is proved anew, and fails; what
// failed is not remembered.
func TestProofsBelieveNoRow(t *testing.T) {
	for name, change := range map[string]func(*vault.Sanction){
		"purpose":     func(s *vault.Sanction) { s.Purpose.MaxRecords++ },
		"body":        func(s *vault.Sanction) { s.Decision.Body += " " },
		"kind":        func(s *vault.Sanction) { s.Decision.Kind = vault.ApplyContractor },
		"decision":    func(s *vault.Sanction) { s.Decision.ID = vault.NewID() },
		"expiry":      func(s *vault.Sanction) { s.Decision.Expires = s.Decision.Expires.Add(time.Hour) },
		"signer":      func(s *vault.Sanction) { s.Signatures[0].Signer += "x" },
		"time":        func(s *vault.Sanction) { s.Signatures[0].SignedAt = signedAt.Add(time.Second) },
		"signature":   func(s *vault.Sanction) { s.Signatures[0].Bytes = slices.Repeat([]byte{1}, 70) },
		"certificate": func(s *vault.Sanction) { s.Signatures[0].Chain = s.Signatures[1].Chain },
		"one less":    func(s *vault.Sanction) { s.Signatures = s.Signatures[:1] },
		"twice":       func(s *vault.Sanction) { s.Signatures = append(s.Signatures, s.Signatures[0]) },
	} {
		ch := newChain(t)
		var p vault.Proofs
		if _, err := ch.known(&p, ch.trust); err != nil {
			t.Fatal(err)
		}
		good := ch.versions[0]
		ch.versions[0].Signatures = slices.Clone(good.Signatures)
		change(&ch.versions[0])
		for range 2 {
			if _, err := ch.known(&p, ch.trust); vault.ReasonOf(err) != vault.ReasonDecisionTampered {
				t.Errorf("with another %s: %v", name, err)
			}
		}
		ch.versions[0] = good
		if _, err := ch.known(&p, ch.trust); err != nil {
			t.Errorf("as it was before its %s changed: %v", name, err)
		}
	}
}

// TestProofsAdmit: a contractor is known as it was admitted, and as no other, nor as a purpose.
func TestProofsAdmit(t *testing.T) {
	ca := newAuthority(t, nil)
	org := vault.Contractor{Name: "acme", Title: "Acme", Group: "holding", Epoch: 1}
	d := vault.Decision{ID: vault.NewID(), Kind: vault.ApplyContractor, Body: org.Text(), Expires: signedAt.Add(time.Hour)}
	sigs := []vault.Signature{ca.admin("ann").sign(t, d, signedAt), ca.admin("bob").sign(t, d, signedAt)}
	var p vault.Proofs
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := p.Admitted(ca.trust(), org, d, sigs); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	other := org
	other.Group = "acme"
	wantReason(t, p.Admitted(ca.trust(), other, d, sigs), vault.Denied, vault.ReasonDecisionTampered)
	wantReason(t, p.Admitted(vault.Authority{TrustDomain: "other.test", Roots: ca.trust().Roots}, org, d, sigs), vault.Denied, vault.ReasonDecisionTampered)
}

// TestProofsAreBounded: beyond 10,000 all are forgotten, and proved anew.
func TestProofsAreBounded(t *testing.T) {
	var p vault.Proofs
	a := vault.Authority{Roots: x509.NewCertPool()}
	key := func(i int) vault.Digest { return vault.DigestOf(fmt.Append(nil, i)) }
	for i := range 10_001 {
		p.Keep(a, key(i), vault.Purpose{Version: i})
	}
	if _, ok := p.Known(a, key(0)); ok {
		t.Error("the first is known still")
	}
	if last, ok := p.Known(a, key(10_000)); !ok || last.Version != 10_000 {
		t.Errorf("of the last it knows %v, %v", last.Version, ok)
	}
}
