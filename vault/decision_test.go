package vault_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

const domain = "example.org"

var signedAt = time.Date(2026, 3, 4, 6, 0, 0, 0, time.UTC)

// authority is a root that mints certificates of any shape.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  crypto.Signer
}

func ecKey(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func edKey(t testing.TB) crypto.Signer {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func rsaKey(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// newAuthority makes a root, or an authority below one.
func newAuthority(t testing.TB, above *authority) *authority {
	t.Helper()
	a := &authority{t: t, key: ecKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority " + vault.NewID().String()},
		NotBefore: signedAt.Add(-24 * time.Hour), NotAfter: signedAt.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	parent, key := template, a.key
	if above != nil {
		parent, key = above.cert, above.key
	}
	a.cert = a.create(template, parent, a.key, key)
	return a
}

func (a *authority) create(template, parent *x509.Certificate, of, by crypto.Signer) *x509.Certificate {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, of.Public(), by)
	if err != nil {
		a.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

// person is somebody with a certificate.
type person struct {
	key   crypto.Signer
	chain [][]byte
}

// mint gives a certificate for the SPIFFE IDs; change may turn it into anything.
func (a *authority) mint(key crypto.Signer, change func(*x509.Certificate), ids ...string) person {
	a.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: signedAt.Add(-time.Hour), NotAfter: signedAt.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, id := range ids {
		u, err := url.Parse(id)
		if err != nil {
			a.t.Fatal(err)
		}
		template.URIs = append(template.URIs, u)
	}
	if change != nil {
		change(template)
	}
	return person{key, [][]byte{a.create(template, a.cert, key, a.key).Raw}}
}

func (a *authority) admin(name string) person {
	return a.mint(ecKey(a.t), nil, adminID(name))
}

func adminID(name string) string { return "spiffe://" + domain + "/admin/" + name }

func (a *authority) trust() vault.Authority {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return vault.Authority{TrustDomain: domain, Roots: pool}
}

func someDecision() vault.Decision {
	d := someTerms().Decision()
	d.Expires = signedAt.Add(30 * time.Minute)
	return d
}

func (p person) sign(t testing.TB, d vault.Decision, at time.Time) vault.Signature {
	t.Helper()
	s, err := vault.Sign(d, p.key, p.chain, at)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSignedDecisionsVerify(t *testing.T) {
	ca := newAuthority(t, nil)
	between := newAuthority(t, ca)
	for name, key := range map[string]crypto.Signer{"ecdsa": ecKey(t), "ed25519": edKey(t), "rsa": rsaKey(t)} {
		t.Run(name, func(t *testing.T) {
			direct := ca.mint(key, nil, adminID("ann"))
			below := between.mint(key, nil, adminID("ann"))
			below.chain = append(below.chain, between.cert.Raw)
			for _, p := range []person{direct, below} {
				s := p.sign(t, someDecision(), signedAt.Add(123*time.Nanosecond))
				c, pub, err := ca.trust().Verify(someDecision(), s)
				if err != nil {
					t.Fatal(err)
				}
				leaf, err := x509.ParseCertificate(p.chain[0])
				if err != nil {
					t.Fatal(err)
				}
				if c.ID != adminID("ann") || c.Role != vault.RoleAdmin || c.Name != "ann" || c.Cert != vault.DigestOf(p.chain[0]) ||
					pub != vault.DigestOf(leaf.RawSubjectPublicKeyInfo) || !s.SignedAt.Equal(signedAt) {
					t.Errorf("caller %+v, key %s, signed at %s", c, pub, s.SignedAt)
				}
			}
		})
	}
}

func TestVerifyRefusesWhatWasAltered(t *testing.T) {
	ca := newAuthority(t, nil)
	ann, bob := ca.admin("ann"), ca.admin("bob")
	for name, key := range map[string]crypto.Signer{"ecdsa": ecKey(t), "ed25519": edKey(t), "rsa": rsaKey(t)} {
		signer := ca.mint(key, nil, adminID("ann"))
		for what, change := range map[string]func(*vault.Decision, *vault.Signature){
			"body":                 func(d *vault.Decision, _ *vault.Signature) { d.Body += "more: yes\n" },
			"body cut":             func(d *vault.Decision, _ *vault.Signature) { d.Body = d.Body[:len(d.Body)-1] },
			"id":                   func(d *vault.Decision, _ *vault.Signature) { d.ID[15] ^= 1 },
			"kind":                 func(d *vault.Decision, _ *vault.Signature) { d.Kind = vault.DestroyKeys },
			"expires":              func(d *vault.Decision, _ *vault.Signature) { d.Expires = d.Expires.Add(time.Microsecond) },
			"signer":               func(_ *vault.Decision, s *vault.Signature) { s.Signer = adminID("bob") },
			"no signer":            func(_ *vault.Decision, s *vault.Signature) { s.Signer = "" },
			"time":                 func(_ *vault.Decision, s *vault.Signature) { s.SignedAt = s.SignedAt.Add(time.Microsecond) },
			"signature":            func(_ *vault.Decision, s *vault.Signature) { s.Bytes[len(s.Bytes)/2] ^= 1 },
			"no signature":         func(_ *vault.Decision, s *vault.Signature) { s.Bytes = nil },
			"long signature":       func(_ *vault.Decision, s *vault.Signature) { s.Bytes = make([]byte, vault.MaxSignature+1) },
			"no chain":             func(_ *vault.Decision, s *vault.Signature) { s.Chain = nil },
			"another's chain":      func(_ *vault.Decision, s *vault.Signature) { s.Chain = bob.chain },
			"another of the same":  func(_ *vault.Decision, s *vault.Signature) { s.Chain = ann.chain },
			"another's and signer": func(_ *vault.Decision, s *vault.Signature) { s.Chain, s.Signer = bob.chain, adminID("bob") },
			"chain in other order": func(_ *vault.Decision, s *vault.Signature) { s.Chain = [][]byte{ca.cert.Raw, s.Chain[0]} },
			"long chain":           func(_ *vault.Decision, s *vault.Signature) { s.Chain = slices.Repeat(s.Chain, vault.MaxChain+1) },
			"long certificate": func(_ *vault.Decision, s *vault.Signature) {
				s.Chain = append(s.Chain, make([]byte, vault.MaxCertificate+1))
			},
			"garbled certificate": func(_ *vault.Decision, s *vault.Signature) { s.Chain = [][]byte{s.Chain[0][1:]} },
		} {
			d := someDecision()
			s := signer.sign(t, d, signedAt)
			s.Bytes = bytes.Clone(s.Bytes)
			change(&d, &s)
			if _, _, err := ca.trust().Verify(d, s); err == nil {
				t.Errorf("%s: %s altered, and it verifies", name, what)
			} else {
				wantReason(t, err, vault.Denied, vault.ReasonSignatureInvalid)
			}
		}
	}
}

func TestVerifyRefusesCertificates(t *testing.T) {
	ca, stranger := newAuthority(t, nil), newAuthority(t, nil)
	lost := newAuthority(t, ca)
	for name, p := range map[string]person{
		"another authority's":       stranger.admin("ann"),
		"intermediate not shown":    lost.admin("ann"),
		"server only":               ca.mint(ecKey(t), func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, adminID("ann")),
		"a contractor's":            ca.mint(ecKey(t), nil, "spiffe://"+domain+"/contractor/acme/ann"),
		"an auditor's":              ca.mint(ecKey(t), nil, "spiffe://"+domain+"/auditor/ann"),
		"a capture system's":        ca.mint(ecKey(t), nil, "spiffe://"+domain+"/capture/north/1"),
		"of another domain":         ca.mint(ecKey(t), nil, "spiffe://example.com/admin/ann"),
		"of two people":             ca.mint(ecKey(t), nil, adminID("ann"), adminID("bob")),
		"of no person":              ca.mint(ecKey(t), nil),
		"of a web address":          ca.mint(ecKey(t), nil, "https://"+domain+"/admin/ann"),
		"of an odd name":            ca.mint(ecKey(t), nil, adminID("Ann")),
		"with a query":              ca.mint(ecKey(t), nil, adminID("ann")+"?x=1"),
		"expired when signed":       ca.mint(ecKey(t), func(c *x509.Certificate) { c.NotAfter = signedAt.Add(-time.Minute) }, adminID("ann")),
		"not yet valid when signed": ca.mint(ecKey(t), func(c *x509.Certificate) { c.NotBefore = signedAt.Add(time.Minute) }, adminID("ann")),
		"with a critical, odd field": ca.mint(ecKey(t), func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}, adminID("ann")),
	} {
		t.Run(name, func(t *testing.T) {
			s := forge(t, someDecision(), p, signedAt)
			_, _, err := ca.trust().Verify(someDecision(), s)
			wantReason(t, err, vault.Denied, vault.ReasonSignatureInvalid)
		})
	}
}

// forge signs whatever the certificate is: Sign itself refuses some of them.
func forge(t testing.TB, d vault.Decision, p person, at time.Time) vault.Signature {
	t.Helper()
	leaf, err := x509.ParseCertificate(p.chain[0])
	if err != nil {
		t.Fatal(err)
	}
	id := ""
	if len(leaf.URIs) > 0 {
		id = leaf.URIs[0].String()
	}
	return forgeAs(t, d, p, id, at)
}

// forgeAs signs in the name of id, whoever the certificate names.
func forgeAs(t testing.TB, d vault.Decision, p person, id string, at time.Time) vault.Signature {
	t.Helper()
	msg := d.Text() + "signer: " + id + "\nsigned_at: " + vault.FormatTime(at) + "\n"
	sum := vault.DigestOf([]byte(msg))
	sig, err := p.key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return vault.Signature{Signer: id, SignedAt: at, Bytes: sig, Chain: p.chain}
}

// An admin who signs in another's name has signed nothing.
func TestVerifyRefusesAnothersName(t *testing.T) {
	ca := newAuthority(t, nil)
	ann := ca.admin("ann")
	s := forgeAs(t, someDecision(), ann, adminID("bob"), signedAt)
	_, _, err := ca.trust().Verify(someDecision(), s)
	wantReason(t, err, vault.Denied, vault.ReasonSignatureInvalid)
	wantReason(t, ca.trust().Fresh(someDecision(), s, vault.Caller{ID: adminID("bob")}, signedAt), vault.Denied, vault.ReasonSignatureInvalid)
}

// The forger's own way of signing is right, so what TestVerifyRefusesCertificates sees
// refused is refused for the certificate.
func TestForgeSignsAsSignDoes(t *testing.T) {
	ca := newAuthority(t, nil)
	if _, _, err := ca.trust().Verify(someDecision(), forge(t, someDecision(), ca.admin("ann"), signedAt)); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyTakesTheTimeOfSigning(t *testing.T) {
	ca := newAuthority(t, nil)
	ann := ca.admin("ann")
	d := someDecision()
	last := ann.sign(t, d, d.Expires.Add(-time.Microsecond))
	if _, _, err := ca.trust().Verify(d, last); err != nil {
		t.Errorf("signed just before the end: %v", err)
	}
	_, _, err := ca.trust().Verify(d, ann.sign(t, d, d.Expires))
	wantReason(t, err, vault.Denied, vault.ReasonSignatureInvalid)
	d.Expires = signedAt.Add(100 * time.Hour)
	_, _, err = ca.trust().Verify(d, ann.sign(t, d, signedAt.Add(2*time.Hour)))
	wantReason(t, err, vault.Denied, vault.ReasonSignatureInvalid)
}

func TestFresh(t *testing.T) {
	ca := newAuthority(t, nil)
	ann := ca.admin("ann")
	d := someDecision()
	s := ann.sign(t, d, signedAt)
	sender := vault.Caller{ID: adminID("ann")}
	for _, off := range []time.Duration{0, vault.SignatureSkew, -vault.SignatureSkew} {
		if err := ca.trust().Fresh(d, s, sender, signedAt.Add(off)); err != nil {
			t.Errorf("%s off: %v", off, err)
		}
	}
	for _, off := range []time.Duration{vault.SignatureSkew + time.Microsecond, -vault.SignatureSkew - time.Microsecond, 1 << 62, -1 << 62} {
		wantReason(t, ca.trust().Fresh(d, s, sender, signedAt.Add(off)), vault.Denied, vault.ReasonSignatureStale)
	}
	wantReason(t, ca.trust().Fresh(d, s, vault.Caller{ID: adminID("bob")}, signedAt), vault.Denied, vault.ReasonSignatureInvalid)
	soon := d
	soon.Expires = signedAt.Add(time.Minute)
	wantReason(t, ca.trust().Fresh(soon, ann.sign(t, soon, signedAt), sender, soon.Expires), vault.State, vault.ReasonDecisionExpired)
	s.Bytes = bytes.Clone(s.Bytes)
	s.Bytes[9] ^= 1
	wantReason(t, ca.trust().Fresh(d, s, sender, signedAt), vault.Denied, vault.ReasonSignatureInvalid)
}

func TestDecided(t *testing.T) {
	ca := newAuthority(t, nil)
	ann, bob, eve := ca.admin("ann"), ca.admin("bob"), ca.admin("eve")
	annAgain := ca.admin("ann")
	annAsDan := ca.mint(ann.key, nil, adminID("dan"))
	d := someDecision()
	a, b, e := ann.sign(t, d, signedAt), bob.sign(t, d, signedAt), eve.sign(t, d, signedAt)
	other := d
	other.ID = vault.NewID()
	bad := e
	bad.Bytes = bytes.Clone(e.Bytes)
	bad.Bytes[9] ^= 1
	for _, c := range []struct {
		name string
		sigs []vault.Signature
		need int
		not  []string
		want vault.Reason // "" when decided
	}{
		{"one of one", []vault.Signature{a}, 1, nil, ""},
		{"two of two", []vault.Signature{a, b}, 2, []string{adminID("eve"), ""}, ""},
		{"more than it takes", []vault.Signature{a, b, e}, 2, nil, ""},
		{"one of two", []vault.Signature{a}, 2, nil, vault.ReasonApprovalsMissing},
		{"none of one", nil, 1, nil, vault.ReasonApprovalsMissing},
		{"none of none", nil, 0, nil, vault.ReasonApprovalsMissing},
		{"none of fewer", nil, -1, nil, vault.ReasonApprovalsMissing},
		{"the same twice", []vault.Signature{a, a}, 2, nil, vault.ReasonAlreadySigned},
		{"the same person with another key", []vault.Signature{a, annAgain.sign(t, d, signedAt)}, 2, nil, vault.ReasonAlreadySigned},
		{"the same key under another name", []vault.Signature{a, annAsDan.sign(t, d, signedAt)}, 2, nil, vault.ReasonAlreadySigned},
		{"a third time, though two would do", []vault.Signature{a, b, a}, 2, nil, vault.ReasonAlreadySigned},
		{"the requester", []vault.Signature{b, a}, 2, []string{adminID("ann")}, vault.ReasonSelfApproval},
		{"the requester, though two others would do", []vault.Signature{b, e, a}, 2, []string{adminID("eve"), adminID("ann")}, vault.ReasonSelfApproval},
		{"a bad one, though two would do", []vault.Signature{a, b, bad}, 2, nil, vault.ReasonSignatureInvalid},
		{"one for another decision", []vault.Signature{a, bob.sign(t, other, signedAt)}, 2, nil, vault.ReasonSignatureInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := ca.trust().Decided(d, c.sigs, c.need, c.not...)
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantReason(t, err, vault.Denied, c.want)
		})
	}
}

func TestSignRefuses(t *testing.T) {
	ca := newAuthority(t, nil)
	ann := ca.admin("ann")
	for name, chain := range map[string][][]byte{
		"no certificate": nil, "garbage": {[]byte("x")}, "two IDs": ca.mint(ann.key, nil, adminID("a"), adminID("b")).chain,
	} {
		if _, err := vault.Sign(someDecision(), ann.key, chain, signedAt); err == nil {
			t.Errorf("%s: signed", name)
		}
		if _, err := vault.Attest("x\n", ann.key, chain); err == nil {
			t.Errorf("%s: attested", name)
		}
	}
	if _, err := vault.Sign(someDecision(), oddKey{ann.key}, ann.chain, signedAt); err == nil {
		t.Error("a key of an odd kind signed")
	}
}

// oddKey has a public key of a kind that nobody knows.
type oddKey struct{ crypto.Signer }

func (oddKey) Public() crypto.PublicKey { return "odd" }
