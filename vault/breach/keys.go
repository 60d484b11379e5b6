package breach

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/portcullis/portcullis/vault"
)

const (
	// eventIDs is how many record IDs one event lists: 1,000 take 39 KB of its 64.
	eventIDs = 1000
	// workers is how many keys are changed at Vault at once.
	workers = 8
	// dueBatch is how many records one step of a sweep takes. After each, revocations that
	// came meanwhile go first.
	dueBatch = 200
	// keyTime is how long Vault may take to change one key: up to five calls.
	keyTime = 15 * time.Second
)

// KeyWork is what came of a work on keys.
type KeyWork struct {
	Records     []vault.ID
	Barrier     vault.Barrier
	Certificate string // of a destruction, signed by the service
	// Missing are keys that were to be restored and that Vault does not have. They stay revoked.
	Missing []vault.ID
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
	err = s.apply(ctx, ids)
	if d.Kind == vault.RestoreKeys {
		var lost error
		if work.Missing, lost = s.stillRevoked(ctx, d.ID, ids); lost != nil {
			return work, lost
		}
	}
	if err != nil {
		s.Log.WarnContext(ctx, "vault has still to change keys", "keys", len(ids), "error", err)
		return work, nil
	}
	work.Barrier.VaultDone = true
	if d.Kind == vault.DestroyKeys {
		work.Certificate, err = s.certify(ctx, d, records)
	}
	return work, err
}

// stillRevoked gives those of the records that a restoration left revoked: their keys are
// missing.
func (s *Service) stillRevoked(ctx context.Context, decision vault.ID, ids []vault.ID) (out []vault.ID, err error) {
	err = s.Ledger.View(ctx, func(tx Tx) error {
		out = nil
		for _, id := range ids {
			r, err := tx.Record(id)
			if err != nil {
				return err
			}
			by, _, err := tx.KeyDecision(id)
			if err != nil {
				return err
			}
			if r.Key == vault.KeyRevoked && by == decision {
				out = append(out, id)
			}
		}
		return nil
	})
	return out, err
}

// apply makes Vault enforce what the records' rows say. Once Vault is away it begins no more.
func (s *Service) apply(ctx context.Context, ids []vault.ID) (failed error) {
	for _, err := range s.applyEach(ctx, ids, true) {
		failed = errors.Join(failed, err)
	}
	return failed
}

// applyEach does so and gives what failed, by record. checked says that a key is restored or
// destroyed only if Vault and the database are known to be no older than they were; a look knows.
func (s *Service) applyEach(ctx context.Context, ids []vault.ID, checked bool) map[vault.ID]error {
	signed := &signedKeys{service: s, of: map[vault.ID]keysDecision{}}
	var mu sync.Mutex
	failed := map[vault.ID]error{}
	var away atomic.Bool
	var all errgroup.Group
	all.SetLimit(workers)
	for _, id := range ids {
		if away.Load() {
			break
		}
		all.Go(func() error {
			if away.Load() {
				return nil
			}
			if err := s.applyOne(ctx, id, signed, checked); err != nil {
				if vault.KindOf(err) == vault.Unavailable {
					away.Store(true)
				}
				mu.Lock()
				failed[id] = err
				mu.Unlock()
			}
			return nil
		})
	}
	_ = all.Wait()
	return failed
}

func (s *Service) applyOne(ctx context.Context, id vault.ID, signed *signedKeys, checked bool) error {
	defer s.work.lock(id)()
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
	if checked && s.Checked != nil && (r.Key == vault.KeyRestoring || r.Key == vault.KeyDestroying) {
		// What a database that was rolled back says of it may be long out of force.
		if err := s.Checked(ctx); err != nil {
			return err
		}
	}
	within, cancel := context.WithTimeout(ctx, keyTime)
	defer cancel()
	switch r.Key {
	case vault.KeyRevoking:
		if err := s.Keys.RevokeKey(within, r.KeyName()); err != nil {
			return err
		}
		return s.settle(ctx, r, vault.KeyRevoked, vault.EventVaultCaughtUp)
	case vault.KeyRestoring:
		err := s.Keys.RestoreKey(within, r.KeyName())
		if vault.ReasonOf(err) == vault.ReasonKeyDestroyed {
			// Nothing opens it: that is what revoked says. Its ciphertext stays, for a Vault that
			// has the key may yet be restored, and admins may then restore the key.
			s.Log.ErrorContext(ctx, "a key that is to be restored is missing at Vault; its record stays revoked", "record", r.ID)
			return s.settle(ctx, r, vault.KeyRevoked, vault.EventKeyMissing)
		}
		if err != nil {
			return err
		}
		return s.settle(ctx, r, vault.KeyActive, vault.EventVaultCaughtUp)
	case vault.KeyDestroying:
		// Key first: once it is gone, what is left of the record is noise.
		if err := s.Keys.DestroyKey(within, r.KeyName()); err != nil {
			return err
		}
		if err := s.Blobs.Delete(ctx, r.ID); err != nil {
			return err
		}
		return s.settle(ctx, r, vault.KeyDestroyed, vault.EventKeyDestroyed)
	}
	return nil
}

// settle records that Vault has followed.
func (s *Service) settle(ctx context.Context, r vault.Record, to vault.KeyState, as vault.EventType) error {
	_, err := s.Ledger.Update(ctx, func(tx Tx) error {
		moved, err := tx.SetKeyState(r.ID, to, r.Key)
		if err != nil || !moved {
			return err // another decision came meanwhile; its own work follows
		}
		e := vault.NewEvent(as, vault.Caller{}, tx.Now())
		e.Record = r.ID.String()
		if to == vault.KeyDestroyed {
			if err := tx.DestroyRecord(r.ID); err != nil {
				return err
			}
		}
		return tx.Append(e)
	})
	return err
}

// Sweep does what Vault is still owed: contractors to disable, keys to revoke, then keys to
// restore and destroy. Revocations that come meanwhile do not wait for the rest. It ends at
// the first sign that Vault is away. It is called at start and then regularly.
func (s *Service) Sweep(ctx context.Context) error {
	var orgs []vault.Contractor
	err := s.Ledger.View(ctx, func(tx Tx) (err error) {
		orgs, err = tx.ContractorsDue()
		return err
	})
	if err != nil {
		return err
	}
	var failed error
	for _, c := range orgs {
		within, cancel := context.WithTimeout(ctx, keyTime)
		err := s.disable(within, c)
		cancel()
		failed = errors.Join(failed, err)
		if vault.KindOf(err) == vault.Unavailable {
			return failed
		}
	}
	for after := (vault.ID{}); ; {
		for first := (vault.ID{}); ; {
			more, err := s.sweepKeys(ctx, &first, vault.KeyRevoking)
			failed = errors.Join(failed, err)
			if vault.KindOf(err) == vault.Unavailable {
				return failed
			}
			if !more {
				break
			}
		}
		more, err := s.sweepKeys(ctx, &after, vault.KeyRestoring, vault.KeyDestroying)
		failed = errors.Join(failed, err)
		if !more || vault.KindOf(err) == vault.Unavailable {
			return failed
		}
	}
}

// sweepKeys takes one step through the keys of some states, and says whether there were any.
func (s *Service) sweepKeys(ctx context.Context, after *vault.ID, states ...vault.KeyState) (more bool, err error) {
	var due []vault.Record
	err = s.Ledger.View(ctx, func(tx Tx) (err error) {
		due, err = tx.RecordsIn(*after, dueBatch, states...)
		return err
	})
	if err != nil || len(due) == 0 {
		return false, err
	}
	*after = due[len(due)-1].ID
	ids := make([]vault.ID, len(due))
	for i, r := range due {
		ids[i] = r.ID
	}
	return true, s.apply(ctx, ids)
}

// List gives records and the state of their keys, to admins: in the order of their IDs, from the
// first after the one given.
func (s *Service) List(ctx context.Context, c vault.Caller, sel vault.Selection, after vault.ID, most int) (records []vault.Record, more bool, err error) {
	if err := sel.Check(); err != nil {
		return nil, false, err
	}
	err = s.Ledger.View(ctx, func(tx Tx) (err error) {
		if err := tx.Standing(c); err != nil {
			return err
		}
		records, err = tx.Selected(sel, after, most+1)
		return err
	})
	if more = len(records) > most; more {
		records = records[:most]
	}
	return records, more, err
}
