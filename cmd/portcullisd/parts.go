package main

import (
	"sync"
	"time"

	"github.com/portcullis/portcullis/internal/hcvault"
	"github.com/portcullis/portcullis/internal/server"
	"github.com/portcullis/portcullis/vault"
)

// parts remembers how what the daemon stands on was at the last look, for callers who ask
// why something is not served.
type parts struct {
	mu   sync.Mutex
	last []server.Part // vault, database, log, restores
}

// looked takes what a look at Vault, the database and the log found, and what the database says
// of the last look for restores. While the database is away nobody knows of those.
func (p *parts) looked(vaultErr, storeErr, logErr, restoresErr error, at time.Time) {
	part := func(name string, err error, why vault.Reason) server.Part {
		out := server.Part{Name: name, State: server.PartUp, Checked: at}
		if err != nil {
			out.State, out.Reason = server.PartDown, why
		}
		if hcvault.Sealed(err) {
			out.State = server.PartSealed
		}
		return out
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = []server.Part{
		part("vault", vaultErr, vault.ReasonVaultUnavailable),
		part(server.PartDatabase, storeErr, vault.ReasonStoreUnavailable),
	}
	if storeErr == nil {
		p.last = append(p.last, part("log", logErr, vault.ReasonLogBehind), part("restores", restoresErr, vault.ReasonOf(restoresErr)))
	}
}

// partsNow gives the last look, and the lease of this node as it is now.
func (d *daemon) partsNow() []server.Part {
	d.parts.mu.Lock()
	out := append([]server.Part(nil), d.parts.last...)
	d.parts.mu.Unlock()
	if d.node == nil {
		return out
	}
	lease := server.Part{Name: "lease", State: server.PartDown, Checked: time.Now(), Reason: vault.ReasonNoLease}
	if d.node.Leased() {
		lease.State, lease.Reason = server.PartUp, ""
	}
	return append(out, lease)
}
