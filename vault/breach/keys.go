package breach

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/portcullis/portcullis/vault"
)

const (
	// eventIDs is how many record IDs one event lists: 1,000 take 39 KB of its 64.
	eventIDs = 1000
	// workers is how many keys are changed at Vault at once.
	workers = 8
	// dueBatch is how many records one step of a sweep takes.
	dueBatch = 1000
)

// KeyWork is what came of a work on keys.
type KeyWork struct {
	Records     []vault.ID
	Barrier     vault.Barrier
	Certificate string // of a destruction, signed by the service
}

// Revoke makes the keys of a selection unusable: at once here, then in Vault, so that a
// grant token used past us opens nothing either. When it returns, no release of these
// records commits any more and no send is under way.
func (s *Service) Revoke(ctx context.Context, c vault.Caller, sel vault.Selection, note string) (*KeyWork, error) {
	if err := vault.CheckText("note", note, maxNote, true); err != nil {
		return nil, err
	}
	var ids []vault.ID
	var size int64
	index, err := s.Ledger.Update(ctx, func(tx Tx) (err error) {
		size = -1
		if err := tx.Standing(c); err != nil {
			return err
		}
		// Those that are revoked already, too: asking again runs the barrier again.
		if ids, err = choose(tx, sel, vault.KeyActive, vault.KeyRestoring, vault.KeyRevoking, vault.KeyRevoked); err != nil {
			return err
		}
		moved, err := move(tx, ids, vault.KeyRevoking, vault.KeyActive, vault.KeyRestoring)
		if err != nil {
			return err
		}
		if len(moved) == 0 {
			size, err = tx.Size()
			return err
		}
		e := vault.NewEvent(vault.EventKeysRevoked, c, tx.Now())
		e.Note = noteDigest(note)
		return appendLong(tx, e, moved)
	})
	if err != nil {
		return nil, err
	}
	return s.carryOut(context.WithoutCancel(ctx), vault.Proposal{}, max(index, size), ids)
}

// move sets the state of keys and gives the records whose state it set.
func move(tx Tx, ids []vault.ID, to vault.KeyState, from ...vault.KeyState) (moved []vault.ID, err error) {
	for _, id := range ids {
		ok, err := tx.SetKeyState(id, to, from...)
		if err != nil {
			return nil, err
		}
		if ok {
			moved = append(moved, id)
		}
	}
	return moved, nil
}

// appendLong appends an event that lists records, in as many parts as it takes.
func appendLong(tx interface{ Append(vault.Event) error }, e vault.Event, ids []vault.ID) error {
	e.Count, e.Digest = int64(len(ids)), vault.DigestOfIDs(ids).String()
	e.Parts = max(1, (len(ids)+eventIDs-1)/eventIDs)
	for e.Part = 1; e.Part <= e.Parts; e.Part++ {
		part := ids[(e.Part-1)*eventIDs : min(len(ids), e.Part*eventIDs)]
		e.Records = make([]string, len(part))
		for i, id := range part {
			e.Records[i] = id.String()
		}
		if err := tx.Append(e); err != nil {
			return err
		}
	}
	return nil
}

// carryOut waits until nothing of the records is under way, then makes Vault enforce what
// is decided. If Vault is away, the sweep goes on with it.
func (s *Service) carryOut(ctx context.Context, d vault.Proposal, index int64, ids []vault.ID) (*KeyWork, error) {
	work := &KeyWork{Records: ids}
	var records []vault.Record
	var grantees []string
	err := s.Ledger.View(ctx, func(tx Tx) (err error) {
		// Whoever opened one of them may still have it waiting on its connection.
		if grantees, err = tx.Grantees(ids); err != nil {
			return err
		}
		for _, id := range ids {
			r, err := tx.Record(id)
			if err != nil {
				return err
			}
			records = append(records, r)
		}
		return nil
	})
	if err != nil {
		return work, err
	}
	if d.Kind != vault.RestoreKeys {
		if work.Barrier, err = s.Gate.End(ctx, vault.Ending{Index: index, Records: ids, Grantees: grantees}); err != nil {
			return work, err
		}
	}
	if err := s.apply(ctx, records); err != nil {
		s.Log.WarnContext(ctx, "vault has still to change keys", "keys", len(ids), "error", err)
		return work, nil
	}
	work.Barrier.VaultDone = true
	if d.Kind == vault.DestroyKeys {
		work.Certificate, err = s.certify(ctx, d, records)
	}
	return work, err
}

// apply makes Vault enforce what the records' rows say.
func (s *Service) apply(ctx context.Context, records []vault.Record) error {
	s.work.Lock()
	defer s.work.Unlock()
	signed := &signedKeys{service: s, of: map[vault.ID]keysDecision{}}
	var mu sync.Mutex
	var failed error
	var all errgroup.Group
	all.SetLimit(workers)
	for _, r := range records {
		all.Go(func() error {
			if err := s.applyOne(ctx, r.ID, signed); err != nil {
				mu.Lock()
				failed = errors.Join(failed, err)
				mu.Unlock()
			}
			return nil
		})
	}
	_ = all.Wait()
	return failed
}

func (s *Service) applyOne(ctx context.Context, id vault.ID, signed *signedKeys) error {
	var r vault.Record
	err := s.Ledger.View(ctx, func(tx Tx) (err error) {
		r, err = tx.Record(id) // anew, under the lock: what is decided now counts
		switch {
		case err != nil:
		case r.Key == vault.KeyRestoring:
			err = signed.prove(tx, r, vault.RestoreKeys)
		case r.Key == vault.KeyDestroying:
			err = signed.prove(tx, r, vault.DestroyKeys)
		}
		return err
	})
	if err != nil {
		return err
	}
	switch r.Key {
	case vault.KeyRevoking:
		if err := s.Keys.RevokeKey(ctx, r.KeyName()); err != nil {
			return err
		}
		return s.settle(ctx, r, vault.KeyRevoked)
	case vault.KeyRestoring:
		if err := s.Keys.RestoreKey(ctx, r.KeyName()); err != nil {
			return err
		}
		return s.settle(ctx, r, vault.KeyActive)
	case vault.KeyDestroying:
		// Key first: once it is gone, what is left of the record is noise.
		if err := s.Keys.DestroyKey(ctx, r.KeyName()); err != nil {
			return err
		}
		if err := s.Blobs.Delete(ctx, r.ID); err != nil {
			return err
		}
		return s.settle(ctx, r, vault.KeyDestroyed)
	}
	return nil
}

// settle records that Vault has followed.
func (s *Service) settle(ctx context.Context, r vault.Record, to vault.KeyState) error {
	_, err := s.Ledger.Update(ctx, func(tx Tx) error {
		moved, err := tx.SetKeyState(r.ID, to, r.Key)
		if err != nil || !moved {
			return err // another decision came meanwhile; its own work follows
		}
		e := vault.NewEvent(vault.EventVaultCaughtUp, vault.Caller{}, tx.Now())
		e.Record = r.ID.String()
		if to == vault.KeyDestroyed {
			e.Type = vault.EventKeyDestroyed
			if err := tx.DestroyRecord(r.ID); err != nil {
				return err
			}
		}
		return tx.Append(e)
	})
	return err
}

// Sweep does what Vault is still owed: contractors to disable, keys to revoke, restore and
// destroy. It is called at start and then regularly.
func (s *Service) Sweep(ctx context.Context) error {
	var orgs []vault.Contractor
	var failed error
	err := s.Ledger.View(ctx, func(tx Tx) (err error) {
		orgs, err = tx.ContractorsDue()
		return err
	})
	for _, c := range orgs {
		failed = errors.Join(failed, s.disable(ctx, c))
	}
	var after vault.ID
	for err == nil {
		var due []vault.Record
		err = s.Ledger.View(ctx, func(tx Tx) (err error) {
			due, err = tx.KeysDue(after, dueBatch)
			return err
		})
		if len(due) == 0 {
			break
		}
		failed = errors.Join(failed, s.apply(ctx, due))
		after = due[len(due)-1].ID
	}
	return errors.Join(err, failed)
}

// List gives records and the state of their keys, to admins.
func (s *Service) List(ctx context.Context, c vault.Caller, sel vault.Selection, after vault.ID, most int) (records []vault.Record, more bool, err error) {
	if err := sel.Check(); err != nil {
		return nil, false, err
	}
	err = s.Ledger.View(ctx, func(tx Tx) error {
		if err := tx.Standing(c); err != nil {
			return err
		}
		ids, err := tx.Select(sel, vault.MaxSelection+1)
		if err != nil {
			return err
		}
		records = nil
		for _, id := range ids {
			if strings.Compare(id.String(), after.String()) <= 0 && after != (vault.ID{}) {
				continue
			}
			if more = len(records) == most; more {
				return nil
			}
			r, err := tx.Record(id)
			if err != nil {
				return err
			}
			records = append(records, r)
		}
		return nil
	})
	return records, more, err
}

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
