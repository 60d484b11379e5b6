package release

import (
	"crypto/x509"
	"sync"

	"github.com/portcullis/portcullis/vault"
)

// maxProofs bounds the memory of proofs: a purpose each, of a few KB at most.
const maxProofs = 10_000

// proofs remembers what was proved, and the purpose behind it, as long as the authorities stay
// the same.
type proofs struct {
	mu    sync.Mutex
	roots *x509.CertPool
	known map[vault.Digest]vault.Purpose
}

func (p *proofs) has(roots *x509.CertPool, d vault.Digest) (vault.Purpose, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	purpose, ok := p.known[d]
	return purpose, ok && p.roots == roots
}

func (p *proofs) add(roots *x509.CertPool, d vault.Digest, purpose vault.Purpose) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.roots != roots || len(p.known) >= maxProofs {
		p.roots, p.known = roots, map[vault.Digest]vault.Purpose{}
	}
	p.known[d] = purpose
}
