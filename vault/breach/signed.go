package breach

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// signedKeys proves, before Vault is told to restore or destroy a key, that two admins
// signed it: the state of a record's row alone is no reason. It remembers the decisions
// that it has proved, for the work at hand.
type signedKeys struct {
	service *Service
	mu      sync.Mutex
	of      map[vault.ID]keysDecision
}

// keysDecision is what counts of a decision that was proved.
type keysDecision struct {
	proposed time.Time
	records  map[vault.ID]bool
}

func (s *signedKeys) prove(tx Tx, r vault.Record, k vault.DecisionKind) error {
	refuse := func(err error) error {
		return vault.E(vault.Denied, vault.ReasonDecisionTampered, "no decision that was signed says %s of record %s", k, r.ID).Because(err)
	}
	id, revoked, err := tx.KeyDecision(r.ID)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	one, known := s.of[id]
	if !known {
		d, err := tx.Decision(id)
		if vault.KindOf(err) == vault.NotFound {
			return refuse(err)
		}
		if err != nil {
			return err
		}
		if err := s.service.Authority().Decided(d.Decision, d.Signatures, vault.LooseningSigners); err != nil || d.Kind != k {
			return refuse(err)
		}
		ids, err := decidedKeys(d)
		if err != nil {
			return refuse(err)
		}
		one = keysDecision{proposed: d.Expires.Add(-vault.DecisionTTL), records: make(map[vault.ID]bool, len(ids))}
		for _, r := range ids {
			one.records[r] = true
		}
		s.of[id] = one
	}
	if !one.records[r.ID] || (k == vault.RestoreKeys && revoked.After(one.proposed)) {
		return refuse(nil)
	}
	return nil
}

// decidedKeys gives the records of a key decision: its payload, if that is what the body
// says.
func decidedKeys(d vault.Proposal) (ids []vault.ID, err error) {
	if err := json.Unmarshal(d.Payload, &ids); err != nil {
		return nil, err
	}
	if !strings.HasSuffix(d.Body, keysLines(ids)) {
		return nil, fmt.Errorf("the records of decision %s are not those that were signed", d.ID)
	}
	return ids, nil
}

// keysLines are the last lines of a key decision's body.
func keysLines(ids []vault.ID) string {
	return fmt.Sprintf("records: %d\nrecords_digest: %s\n", len(ids), vault.DigestOfIDs(ids))
}
