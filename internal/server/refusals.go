package server

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
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

// alarming are the reasons, besides those of purposes, of which somebody should hear: whoever meets
// them tries what policy forbids, or finds that stored facts were altered.
var alarming = map[vault.Reason]bool{
	vault.ReasonConflictRule: true, vault.ReasonQuotaExceeded: true, vault.ReasonBytesExceeded: true, vault.ReasonRateExceeded: true,
	vault.ReasonUsesSpent: true, vault.ReasonBucketSmall: true, vault.ReasonGrantSuspended: true, vault.ReasonSelfApproval: true, vault.ReasonSignatureInvalid: true,
	vault.ReasonApprovalsMissing: true, vault.ReasonGrantTampered: true, vault.ReasonDecisionTampered: true, vault.ReasonDataLoss: true,
}

// isAlarming says whether a call that ended for this reason is worth an alert.
func isAlarming(r vault.Reason) bool { return alarming[r] || strings.HasPrefix(string(r), "PURPOSE_") }

// alert tells whoever watches the service's own log that policy refused a call, or said that it would: one line, at most
// once a minute for a caller and reason, without a word of the caller's. Each refusal is counted
// besides, in the metric of refusals, and stands in the audit log. grant is empty when the call
// names none.
func (a *api) alert(ctx context.Context, method, grant string, err error) {
	reason := vault.ReasonOf(err)
	if !isAlarming(reason) {
		return
	}
	c, failed := a.Config.Caller(ctx)
	if failed != nil || !a.alerts.due(refusal{caller: c.ID, reason: reason}, a.Clock()) {
		return
	}
	if id, err := wire.ParseName("grant", wire.Grants, grant); err == nil {
		grant = id.String()
	} else {
		grant = "" // what it wrote there
	}
	a.Log.WarnContext(ctx, "refused", "alert", true, "reason", reason, "contractor", c.Org, "caller", c.ID, "grant", grant, "method", method)
}

// grantOf gives the grant that a request names, empty if none.
func grantOf(m any) string {
	if of, ok := m.(interface{ GetGrant() string }); ok {
		return of.GetGrant()
	}
	if named, ok := m.(interface{ GetName() string }); ok && strings.HasPrefix(named.GetName(), wire.Grants+"/") {
		return named.GetName()
	}
	return ""
}
