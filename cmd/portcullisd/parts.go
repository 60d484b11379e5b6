package main

import (
	"sync"
	"time"

	"github.com/portcullis/portcullis/internal/hcvault"
	"github.com/portcullis/portcullis/internal/server"
)

// parts remembers how what the daemon stands on was at the last look, for callers who ask
// why something is not served.
type parts struct {
	mu   sync.Mutex
	last []server.Part // vault, database, log
}

// looked takes what a look at Vault, the database and the log found.
func (p *parts) looked(vaultErr, storeErr, logErr error, at time.Time) {
	state := func(err error) server.PartState {
		switch {
		case err == nil:
			return server.PartUp
		case hcvault.Sealed(err):
			return server.PartSealed
		}
		return server.PartDown
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = []server.Part{
		{Name: "vault", State: state(vaultErr), Checked: at},
		{Name: server.PartDatabase, State: state(storeErr), Checked: at},
		{Name: "log", State: state(logErr), Checked: at},
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
	lease := server.Part{Name: "lease", State: server.PartDown, Checked: time.Now()}
	if d.node.Leased() {
		lease.State = server.PartUp
	}
	return append(out, lease)
}
