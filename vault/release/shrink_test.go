package release_test

import (
	"errors"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/grants"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

// TestBucketsShrink: what is left of a bucket whose keys were revoked is not seen alone, under a
// running grant and under a new one; once the keys are back, all of it is. Whatever was known of the
// bucket before.
func TestBucketsShrink(t *testing.T) {
	for name, list := range map[string]bool{"window": false, "list": true} {
		t.Run(name, func(t *testing.T) {
			s := apart(t)
			records := s.shots(4, house.Start.Add(-time.Minute))
			s.Clock.Advance(6 * time.Minute)
			scope := func(*grants.Request) {}
			if list {
				var ids []vault.ID
				for _, r := range records {
					ids = append(ids, r.ID)
				}
				l, err := s.Grants.CreateList(t.Context(), s.Alice().Caller, grants.ListRequest{ID: vault.NewID(), Contractor: "acme", Records: ids})
				s.NoError(err)
				scope = func(r *grants.Request) { r.Scope = vault.Scope{List: l.ID} }
			}
			s.granted(scope)
			s.shows("of four", records, "")
			revoke := func(r vault.Record) {
				t.Helper()
				_, err := s.Breach.Revoke(t.Context(), s.Alice().Caller, house.One(r), "")
				s.NoError(err)
			}
			revoke(records[3])
			s.shows("of three", records[:3], "")
			revoke(records[2])
			s.shows("of two", records[:2], vault.ReasonBucketSmall)
			s.shows("revoked", records[2:], vault.ReasonKeyRevoked)
			if !list {
				s.granted()
				s.shows("of two, to a new grant", records[:2], vault.ReasonBucketSmall)
			} else {
				ask := house.Ask()
				scope(&ask)
				_, err := s.Grants.Request(t.Context(), s.acme, ask)
				s.Refused(err, vault.Denied, vault.ReasonBucketSmall)
			}
			// While Vault has still to follow, nothing that is found out then is kept.
			s.Vault.Fail("RestoreKey", 1, errors.New("away"))
			s.Clock.Advance(time.Second)
			sel := house.One(records[2])
			s.Decide(breach.Action{Restore: &sel})
			s.shows("of two, while the third is restored", records[:2], vault.ReasonBucketSmall)
			s.NoError(s.Breach.Sweep(t.Context()))
			s.shows("of three again", records[:3], "")
		})
	}
}
