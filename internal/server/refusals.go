package server

import (
	"context"
	"sync"
	"time"

	"github.com/portcullis/portcullis/vault"
)

const (
	// refusalEvery is how often the same refusal of the same caller is written: a caller
	// that is turned away a thousand times a second must not fill the log.
	refusalEvery = time.Minute
	// maxRefusals bounds what is remembered; beyond it, all is forgotten and written anew.
	maxRefusals = 10_000
)

// refusals remembers which refusals were written lately.
type refusals struct {
	mu   sync.Mutex
	last map[refusal]time.Time
}

type refusal struct {
	caller string
	method string
	reason vault.Reason
}

// due says whether a refusal is to be written now.
func (r *refusals) due(k refusal, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, ok := r.last[k]; ok && now.Sub(at) < refusalEvery {
		return false
	}
	if len(r.last) >= maxRefusals || r.last == nil {
		r.last = map[refusal]time.Time{}
	}
	r.last[k] = now
	return true
}

// refused records that a caller was turned away by role or standing. The refusal holds
// whether or not that succeeds.
func (a *api) refused(ctx context.Context, c vault.Caller, method string, why error) {
	k := refusal{c.ID, method, vault.ReasonOf(why)}
	now := a.Clock()
	if vault.KindOf(why) != vault.Denied || !a.refusals.due(k, now) {
		return
	}
	e := vault.NewEvent(vault.EventCallRefused, c, now)
	e.Contractor, e.Reason, e.Method = c.Org, k.reason, method
	if err := a.Facts.Record(context.WithoutCancel(ctx), e); err != nil {
		a.Log.ErrorContext(ctx, "a refusal is not in the log", "caller", c.ID, "method", method, "error", err)
	}
}
