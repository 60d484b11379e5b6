package vault

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// DecisionKind says what a decision does once enough people signed it.
type DecisionKind string

// The kinds of decisions.
const (
	ApproveGrant    DecisionKind = "grant.approve"
	ApplyPurpose    DecisionKind = "purpose.apply"
	ApplyContractor DecisionKind = "contractor.apply"
	ReinstateCaller DecisionKind = "caller.reinstate"
	RestoreKeys     DecisionKind = "key.restore"
	DestroyKeys     DecisionKind = "key.destroy"
)

// DecisionTTL is how long a proposed decision waits for its signatures.
const DecisionTTL = 24 * time.Hour

// LooseningSigners is how many admins must sign a decision that loosens or destroys.
const LooseningSigners = 2

// SignatureSkew is how far a signature's time may lie from the server's when it arrives.
const SignatureSkew = 5 * time.Minute

// Limits of a signature.
const (
	MaxSignature   = 1024     // bytes
	MaxChain       = 3        // certificates
	MaxCertificate = 8 * 1024 // bytes of DER; the whole must fit into one event
)

// Decision is what admins sign. Its ID is random and used once, so that an old signature
// is of no use for a new decision.
type Decision struct {
	ID      ID
	Kind    DecisionKind
	Body    string // what is decided, in canonical lines
	Expires time.Time
}

// Text is the decision in its one canonical form.
func (d Decision) Text() string {
	return "portcullis decision v1\n" + lines(
		"decision", string(d.Kind),
		"id", d.ID.String(),
		"expires", FormatTime(d.Expires),
	) + d.Body
}

// Digest hashes [Decision.Text].
func (d Decision) Digest() Digest { return DigestOf([]byte(d.Text())) }

// Proposal is a decision and how far it has come.
type Proposal struct {
	Decision
	Payload    []byte // what to carry out; it must give the very body that was signed
	Effective  bool
	Need       int // signatures
	Signatures []Signature
}

// Signature is one admin's signature over a decision.
type Signature struct {
	Signer   string // SPIFFE ID
	SignedAt time.Time
	Bytes    []byte
	Chain    [][]byte // certificates in DER, the signer's first
}

// message is what is signed: the decision, then who signs and when.
func message(d Decision, signer string, at time.Time) []byte {
	return []byte(d.Text() + lines("signer", signer, "signed_at", FormatTime(at)))
}

// Sign signs d with an admin's certificate key. chain is the certificate and its
// intermediates in DER, the signer's own first. Keys are ECDSA, Ed25519 or RSA.
func Sign(d Decision, key crypto.Signer, chain [][]byte, at time.Time) (Signature, error) {
	if len(chain) == 0 {
		return Signature{}, errors.New("sign: no certificate")
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return Signature{}, fmt.Errorf("sign: certificate: %w", err)
	}
	id, err := spiffeID(leaf)
	if err != nil {
		return Signature{}, fmt.Errorf("sign: %w", err)
	}
	at = Micro(at)
	sig, err := signMessage(key, message(d, id, at), rand.Reader)
	if err != nil {
		return Signature{}, fmt.Errorf("sign: %w", err)
	}
	return Signature{Signer: id, SignedAt: at, Bytes: sig, Chain: chain}, nil
}

// Attest gives the text with the name, certificate and signature of whoever attests it
// below. The text begins with a line that says what it is, and ends in a line break.
func Attest(text string, key crypto.Signer, chain [][]byte) (string, error) {
	if len(chain) == 0 {
		return "", errors.New("attest: no certificate")
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return "", fmt.Errorf("attest: certificate: %w", err)
	}
	id, err := spiffeID(leaf)
	if err != nil {
		return "", fmt.Errorf("attest: %w", err)
	}
	text += lines("attested_by", id, "certificate", base64.StdEncoding.EncodeToString(chain[0]))
	sig, err := signMessage(key, []byte(text), rand.Reader)
	if err != nil {
		return "", fmt.Errorf("attest: %w", err)
	}
	return text + lines("signature", base64.StdEncoding.EncodeToString(sig)), nil
}

func signMessage(key crypto.Signer, msg []byte, random io.Reader) ([]byte, error) {
	switch key.Public().(type) {
	case ed25519.PublicKey:
		return key.Sign(random, msg, crypto.Hash(0))
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(msg)
		return key.Sign(random, sum[:], crypto.SHA256)
	case *rsa.PublicKey:
		sum := sha256.Sum256(msg)
		return key.Sign(random, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256})
	default:
		return nil, fmt.Errorf("a %T can not sign decisions; use ECDSA, Ed25519 or RSA", key.Public())
	}
}

func signatureAlgorithm(leaf *x509.Certificate) x509.SignatureAlgorithm {
	switch leaf.PublicKeyAlgorithm {
	case x509.Ed25519:
		return x509.PureEd25519
	case x509.ECDSA:
		return x509.ECDSAWithSHA256
	case x509.RSA:
		return x509.SHA256WithRSAPSS
	default:
		return x509.UnknownSignatureAlgorithm
	}
}

// Authority is whom the signatures of decisions must go back to.
type Authority struct {
	TrustDomain string
	Roots       *x509.CertPool
}

// Verify proves that an admin of the authority signed exactly d, with a certificate that
// was valid at the time the signature names, and before d expired. It gives the admin and
// the digest of the public key. The error is Denied.
func (a Authority) Verify(d Decision, s Signature) (Caller, Digest, error) {
	refuse := func(format string, args ...any) (Caller, Digest, error) {
		return Caller{}, Digest{}, E(Denied, ReasonSignatureInvalid, "signature on decision %s: %s", d.ID, fmt.Sprintf(format, args...))
	}
	if len(s.Chain) == 0 || len(s.Chain) > MaxChain || len(s.Bytes) > MaxSignature {
		return refuse("must come with 1 to %d certificates and at most %d bytes", MaxChain, MaxSignature)
	}
	certs := make([]*x509.Certificate, len(s.Chain))
	between := x509.NewCertPool()
	for i, der := range s.Chain {
		if len(der) > MaxCertificate {
			return refuse("certificate %d is longer than %d bytes", i, MaxCertificate)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return refuse("certificate %d does not parse", i)
		}
		certs[i] = c
		if i > 0 {
			between.AddCert(c)
		}
	}
	leaf := certs[0]
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: a.Roots, Intermediates: between, CurrentTime: s.SignedAt,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return refuse("its certificate is not of this authority, or was not valid at %s", FormatTime(s.SignedAt))
	}
	id, err := spiffeID(leaf)
	if err != nil {
		return refuse("%v", err)
	}
	c, err := ParseCaller(a.TrustDomain, id)
	if err != nil {
		return refuse("%v", err)
	}
	if c.Role != RoleAdmin || id != s.Signer {
		return refuse("its certificate is %s, not an admin's or not the signer's", id)
	}
	if leaf.CheckSignature(signatureAlgorithm(leaf), message(d, s.Signer, s.SignedAt), s.Bytes) != nil {
		return refuse("it is not over these terms")
	}
	// Nothing waits longer for its signatures, so an earlier time is made up: it would let
	// the key of a certificate that expired long ago sign today.
	life := DecisionTTL
	if d.Kind == ApproveGrant {
		life = MaxTTL
	}
	if !s.SignedAt.Before(d.Expires) || s.SignedAt.Before(d.Expires.Add(-life-SignatureSkew)) {
		return refuse("it was not made while the decision was open")
	}
	c.Cert = DigestOf(s.Chain[0])
	return c, DigestOf(leaf.RawSubjectPublicKeyInfo), nil
}

// Fresh proves a signature that has just come from c: it is c's own, and made now.
func (a Authority) Fresh(d Decision, s Signature, c Caller, now time.Time) error {
	if s.Signer != c.ID {
		return E(Denied, ReasonSignatureInvalid, "the signature is %s's; whoever signs must also send it", s.Signer)
	}
	if skew := now.Sub(s.SignedAt).Abs(); skew > SignatureSkew {
		return E(Denied, ReasonSignatureStale, "the signature's time is %s off the server's; at most %s are allowed", skew.Round(time.Second), SignatureSkew)
	}
	if !now.Before(d.Expires) {
		return E(State, ReasonDecisionExpired, "decision %s expired at %s", d.ID, FormatTime(d.Expires))
	}
	_, _, err := a.Verify(d, s)
	return err
}

// Decided proves that at least need different admins, with different keys, signed exactly
// d, none of them among not. Any signature that does not verify fails the whole: a stored
// one was verified when it came, so it was altered since.
func (a Authority) Decided(d Decision, sigs []Signature, need int, not ...string) error {
	var signers []string
	var keys []Digest
	for _, s := range sigs {
		c, key, err := a.Verify(d, s)
		if err != nil {
			return err
		}
		switch {
		case slices.Contains(not, c.ID):
			return E(Denied, ReasonSelfApproval, "%s asked for it, so may not approve it", c.ID)
		case slices.Contains(signers, c.ID), slices.Contains(keys, key):
			return E(Denied, ReasonAlreadySigned, "%s, or the same key, signed twice", c.ID)
		}
		signers, keys = append(signers, c.ID), append(keys, key)
	}
	if len(signers) < max(need, 1) {
		return E(Denied, ReasonApprovalsMissing, "decision %s has %d valid signatures; it wants %d", d.ID, len(signers), max(need, 1))
	}
	return nil
}

// spiffeID gives the one URI of a certificate.
func spiffeID(leaf *x509.Certificate) (string, error) {
	if len(leaf.URIs) != 1 || leaf.URIs[0].Scheme != "spiffe" {
		return "", errors.New("the certificate must name exactly one SPIFFE ID")
	}
	return leaf.URIs[0].String(), nil
}
