package breach

import (
	"context"
	"fmt"
	"strings"

	"github.com/portcullis/portcullis/vault"
)

// Attester signs what the service itself attests, with the key of its certificate.
type Attester interface {
	// Attest gives the text with the service's name and signature below it.
	Attest(text string) (string, error)
}

// certify writes the certificate of a destruction: what was destroyed, by whose decision,
// and which other copies of keys can exist.
func (s *Service) certify(ctx context.Context, d vault.Proposal, records []vault.Record) (string, error) {
	var b strings.Builder
	b.WriteString("portcullis certificate of destruction v1\n")
	err := s.Ledger.View(ctx, func(tx Tx) error {
		fmt.Fprintf(&b, "at: %s\n", vault.FormatTime(tx.Now()))
		return nil
	})
	if err != nil {
		return "", err
	}
	fmt.Fprintf(&b, "decision: %s\ndecision_digest: %s\n", d.ID, d.Digest())
	for _, sig := range d.Signatures {
		fmt.Fprintf(&b, "signed_by: %s at %s\n", sig.Signer, vault.FormatTime(sig.SignedAt))
	}
	fmt.Fprintf(&b, "records: %d\n", len(records))
	for _, r := range records {
		fmt.Fprintf(&b, "destroyed: %s\n", r.KeyName())
	}
	b.WriteString("shown: each key's name answers 404 at HashiCorp Vault; wrapped key and ciphertext are deleted here\n" +
		"not covered: snapshots and backups of HashiCorp Vault made before, until they are deleted\n" +
		"not covered: raft logs and free pages of Vault's storage, until compaction overwrites them\n" +
		"not covered: images and data keys that a grantee opened before; the log names them\n")
	return s.Attest.Attest(b.String())
}

// destroyedEvents are the events that tell that a key is shown to be gone.
var destroyedEvents = []string{string(vault.EventKeyDestroyed)}

// Certificate gives the certificate of a destruction that is done, to admins and auditors, as
// often as they ask: from the decision that was signed, the rows and the log, which must be of
// one mind. State DESTRUCTION_PENDING while keys are still to be destroyed.
func (s *Service) Certificate(ctx context.Context, c vault.Caller, decision vault.ID) (string, error) {
	var d vault.Proposal
	var records []vault.Record
	err := s.Ledger.View(ctx, func(tx Tx) (err error) {
		if err := tx.Standing(c); err != nil {
			return err
		}
		if d, err = tx.Decision(decision); err != nil {
			return err
		}
		if d.Kind != vault.DestroyKeys {
			return vault.E(vault.NotFound, vault.ReasonDecisionUnknown, "decision %s destroys no keys", decision)
		}
		if !d.Effective {
			return vault.E(vault.State, vault.ReasonDestructionPending, "decision %s is not in force: it lacks signatures", decision)
		}
		if err := s.Authority().Decided(d.Decision, d.Signatures, vault.LooseningSigners); err != nil {
			return tampered(d, err)
		}
		ids, err := decidedKeys(d)
		if err != nil {
			return tampered(d, err)
		}
		records, err = destroyedBy(tx, d, ids)
		return err
	})
	if err != nil {
		return "", err
	}
	return s.certify(ctx, d, records)
}

// destroyedBy gives those of the records that were destroyed by the decision, and not before.
func destroyedBy(tx Tx, d vault.Proposal, ids []vault.ID) (records []vault.Record, err error) {
	untold := map[string]bool{}
	pending := 0
	for _, id := range ids {
		r, err := tx.Record(id)
		if err != nil {
			return nil, err
		}
		by, _, err := tx.KeyDecision(id)
		if err != nil {
			return nil, err
		}
		switch {
		case by != d.ID:
		case r.Key == vault.KeyDestroyed:
			records = append(records, r)
			untold[id.String()] = true
		default:
			pending++
		}
	}
	if pending > 0 {
		return nil, vault.E(vault.State, vault.ReasonDestructionPending, "%d of the %d keys of decision %s are still to be destroyed at Vault; try again later",
			pending, pending+len(records), d.ID)
	}
	for next := int64(0); len(untold) > 0; {
		first := next
		_, err := tx.EachEvent(first, page, destroyedEvents, func(index int64, body []byte) error {
			next = index + 1
			e, err := vault.DecodeEvent(body)
			if err == nil {
				delete(untold, e.Record)
			}
			return nil // an entry that can not be read tells of nothing
		})
		if err != nil {
			return nil, err
		}
		if next == first {
			return nil, vault.E(vault.DataLoss, vault.ReasonDataLoss, "the log does not tell of %d of the keys that decision %s destroyed", len(untold), d.ID)
		}
	}
	return records, nil
}
