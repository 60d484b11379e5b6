package vault

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"hash"
	"sync"
)

// maxProofs bounds the memory of proofs: at most a purpose each, of up to 15 KB of names and texts,
// and so 30 MB in all.
const maxProofs = 2_000

// Proofs remembers what was proved, as long as the authority's roots stay the same, so that nothing
// is verified twice: what admins signed once they have signed. A proof is known by a digest
// over all that it rests on, so that a row which somebody wrote to is proved anew. What fails is not
// remembered. At most 10,000 proofs are; beyond that all are forgotten. The zero value is good, and
// its methods may be called at once.
type Proofs struct {
	mu    sync.Mutex
	roots *x509.CertPool
	known map[Digest]Purpose
}

// Known gives what [Proofs.Keep] kept under a digest, for the same roots.
func (p *Proofs) Known(a Authority, d Digest) (Purpose, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	purpose, ok := p.known[d]
	return purpose, ok && p.roots == a.Roots
}

// Keep remembers that something was proved, by a digest over all that the proof rests on, and the
// purpose behind it, if that is of use.
func (p *Proofs) Keep(a Authority, d Digest, behind Purpose) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.roots != a.Roots || len(p.known) >= maxProofs {
		p.roots, p.known = a.Roots, map[Digest]Purpose{}
	}
	p.known[d] = behind
}

// Sanctioned is [Authority.Sanctioned]. A version that was proved before needs none before it.
func (p *Proofs) Sanctioned(a Authority, s Sanction, earlier func(version int) (Sanction, error)) error {
	var met []Digest
	err := a.sanctioned(s, earlier, func(s Sanction) bool {
		d := evidence(a, "sanctioned", s.Purpose.Text(), s.Decision, s.Signatures)
		if _, ok := p.Known(a, d); ok {
			return true
		}
		met = append(met, d)
		return false
	})
	if err != nil {
		return err
	}
	for _, d := range met { // each of them holds, or the newest would not
		p.Keep(a, d, Purpose{})
	}
	return nil
}

// Admitted is [Authority.Admitted].
func (p *Proofs) Admitted(a Authority, c Contractor, d Decision, sigs []Signature) error {
	key := evidence(a, "admitted", c.Text(), d, sigs)
	if _, ok := p.Known(a, key); ok {
		return nil
	}
	if err := a.Admitted(c, d, sigs); err != nil {
		return err
	}
	p.Keep(a, key, Purpose{})
	return nil
}

// evidence hashes all that a proof by signatures rests on.
func evidence(a Authority, what, text string, d Decision, sigs []Signature) Digest {
	h := sha256.New()
	for _, s := range []string{what, a.TrustDomain, text, string(d.Kind), d.Text(), d.Body} {
		hashField(h, []byte(s))
	}
	hashSignatures(h, sigs)
	return Digest(h.Sum(nil))
}

func hashSignatures(h hash.Hash, sigs []Signature) {
	for _, s := range sigs {
		hashField(h, []byte(s.Signer))
		hashField(h, []byte(FormatTime(s.SignedAt)))
		hashField(h, s.Bytes)
		hashField(h, binary.BigEndian.AppendUint64(nil, uint64(len(s.Chain))))
		for _, c := range s.Chain {
			hashField(h, c)
		}
	}
}

// hashField hashes a field with its length, so that no two sequences of fields are one.
func hashField(h hash.Hash, b []byte) {
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
	h.Write(b)
}
