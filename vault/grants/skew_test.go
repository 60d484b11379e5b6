package grants_test

import (
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/grants"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

// TestSlowClocksApprove: a signature of a clock that is as slow as is allowed counts, also for a
// grant that is at its purpose's limits; so does the next admin's.
func TestSlowClocksApprove(t *testing.T) {
	s := open(t)
	g := s.Requested(s.acme, func(r *grants.Request) { r.TTL = house.Tuning().MaxTTL })
	s.Clock.Advance(time.Minute)
	slow := vault.SignatureSkew - time.Second
	for _, p := range []house.Person{s.Alice(), s.Bob()} {
		s.Clock.Advance(-slow)
		sig := p.Sign(g.Decision())
		s.Clock.Advance(slow)
		_, err := s.Grants.Approve(t.Context(), p.Caller, g.Grant, sig)
		s.NoError(err)
	}
	if got := s.Grant(g.Grant).State; got != vault.GrantApproved {
		t.Errorf("the grant is %s", got)
	}
}
