package release

import (
	"crypto/x509"
	"sync"

	"github.com/portcullis/portcullis/vault"
)

// maxProofs bounds the memory of proofs: 32 bytes each, and the map's.
const maxProofs = 10_000

// proofs remembers what was proved, as long as the authorities stay the same.
type proofs struct {
	mu    sync.Mutex
	roots *x509.CertPool
	known map[vault.Digest]struct{}
}

func (p *proofs) has(roots *x509.CertPool, d vault.Digest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.known[d]
	return ok && p.roots == roots
}

func (p *proofs) add(roots *x509.CertPool, d vault.Digest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.roots != roots || len(p.known) >= maxProofs {
		p.roots, p.known = roots, map[vault.Digest]struct{}{}
	}
	p.known[d] = struct{}{}
}
