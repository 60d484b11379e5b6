package breach_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scene is a house with some records and a grant token on them.
type scene struct {
	*house.House
	acme    vault.Caller
	grant   vault.Grant
	token   vault.Token
	records []vault.Record
}

func open(t *testing.T, records int) *scene {
	h := house.New(t)
	h.Open()
	s := &scene{House: h, records: h.Records(records), acme: h.Caller("contractor/acme/tuning")}
	s.grant, s.token = h.Active(s.acme)
	h.Trace()
	return s
}

func ctx() context.Context { return context.Background() }

func vaultAway() error { return vault.E(vault.Unavailable, vault.ReasonVaultUnavailable, "away") }

func vaultRefused() error { return vault.E(vault.Internal, vault.ReasonInternal, "refused") }

// keys shows in which state each record's key is here, and that Vault is of one mind with
// it: an active one opens, a revoked or destroyed one does not.
func (s *scene) keys(want ...vault.KeyState) {
	s.Helper()
	for i, r := range s.records {
		state := want[min(i, len(want)-1)]
		if got := s.KeyState(r.ID); got != state {
			s.Errorf("the key of record %d is %s, want %s", i, got, state)
		}
		err := s.Opens(s.token, r)
		switch state {
		case vault.KeyActive:
			if err != nil {
				s.Errorf("record %d does not open at Vault: %v", i, err)
			}
		case vault.KeyRevoked:
			if vault.ReasonOf(err) != vault.ReasonKeyRevoked {
				s.Errorf("record %d at Vault: %v; want KEY_REVOKED", i, err)
			}
		case vault.KeyDestroyed:
			if vault.ReasonOf(err) != vault.ReasonKeyDestroyed {
				s.Errorf("record %d at Vault: %v; want KEY_DESTROYED", i, err)
			}
		}
	}
}

// refused shows that a fetch of the record is refused here.
func (s *scene) refused(r vault.Record, reason vault.Reason) {
	s.Helper()
	err := s.Release.Fetch(ctx(), s.acme, s.token, s.grant.Grant, s.grant.HandleKey.Handle(r.ID), func(vault.Image) error {
		s.Error("it was sent")
		return nil
	})
	if vault.ReasonOf(err) != reason {
		s.Errorf("a fetch: %v; want %s", err, reason)
	}
}

// sign has the person sign a decision.
func (s *scene) sign(p house.Person, d vault.Proposal) (vault.Proposal, *breach.KeyWork, error) {
	d, out, err := s.Breach.Sign(ctx(), p.Caller, d.ID, p.Sign(d.Decision))
	return d, out.Keys, err
}

func (s *scene) revoke(sel vault.Selection) *breach.KeyWork {
	s.Helper()
	work, err := s.Breach.Revoke(ctx(), s.Alice().Caller, sel, "")
	s.NoError(err)
	return work
}

// restore proposes and signs a restoration; the clock goes on, as it must for a later
// revocation to be told from an earlier one.
func (s *scene) restore(sel vault.Selection) *breach.KeyWork {
	s.Helper()
	s.Clock.Advance(time.Second)
	_, work := s.Decide(breach.Action{Restore: &sel})
	s.Clock.Advance(time.Second)
	return work
}

// many adds n rows of north, in February, for which there is nothing in Vault.
func (s *scene) many(n int) {
	s.Helper()
	s.SQL(fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
		INSERT INTO records (id, site, lane, modality, captured_at, crossing_id, content_type, orientation, size, device, request_id,
			stored_at, wrapped_key, sealed_hash, key_state)
		SELECT printf('00000000-0000-4000-8000-%%012x', i), site, lane, modality, captured_at, crossing_id, content_type, orientation, size,
			device, printf('00000000-0000-4000-8000-%%012x', i), stored_at, wrapped_key, sealed_hash, key_state
		FROM n, (SELECT * FROM records LIMIT 1)`, n))
}
