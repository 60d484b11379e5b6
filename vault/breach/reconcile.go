package breach

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/portcullis/portcullis/vault"
)

const (
	// DefaultGrace is how old a key or blob without a record must be to count as an orphan:
	// far longer than any store takes.
	DefaultGrace = time.Hour
	// DefaultKeep is how long orphans stay in quarantine before they are destroyed.
	DefaultKeep = 7 * 24 * time.Hour
)

// Reconciler compares records, ciphertext and Vault's keys. Its methods may be called at
// once, also while the service stores and releases, and from several processes.
type Reconciler struct {
	Service *Service
	Ledger  StockLedger
	Keys    StockKeys
	Vault   StockVault
	Fences  StockFences
	Blobs   StockBlobs
	Mark    LogMark
	// Tree says why the log's tree is not signed any more: it was rewritten. It may be nil.
	Tree  func() error
	Grace time.Duration
	Keep  time.Duration

	running sync.Mutex  // held by a reconcile
	looking sync.Mutex  // held by a look that does more than compare
	whole   atomic.Bool // such a look has succeeded
}

// Reconciled is what a reconcile found and did, counted in records, or in IDs that would be
// records'.
type Reconciled struct {
	Records     int `json:"records"`
	Young       int `json:"young"`       // without a record, but perhaps being stored
	Quarantined int `json:"quarantined"` // put aside now
	Waiting     int `json:"waiting"`     // put aside, now or before
	Returned    int `json:"returned"`    // a record names them again
	Destroyed   int `json:"destroyed"`   // after the days of quarantine
	Undone      int `json:"undone"`      // brought back by a restore, and revoked or destroyed again
	Foreign     int `json:"foreign"`     // keys whose names are none of ours; left alone

	Restored bool  `json:"restored"` // Vault was older than it was
	Tokens   int64 `json:"tokens"`   // grants whose tokens ended with that

	Skipped []string `json:"skipped,omitempty"` // what the look left out ([Shut])
}

// Reconcile has keys, contractors and grants that a restore brought back shut again ([LookAll]),
// puts aside what no record names and is older than the grace, takes back what a record names
// again, and destroys what was aside for long enough. It changes nothing when the log was
// rolled back (LOG_ROLLED_BACK). After an error it may be called again and goes on. One runs at
// a time in a process: Conflict RECONCILING.
func (r *Reconciler) Reconcile(ctx context.Context) (out Reconciled, err error) {
	if !r.running.TryLock() {
		return out, vault.E(vault.Conflict, vault.ReasonReconciling, "a reconcile is under way already; try again once it is done")
	}
	defer r.running.Unlock()
	// What shuts goes first: nothing below may stand in its way.
	shut, err := r.Look(ctx, LookAll)
	out.Undone, out.Restored, out.Tokens, out.Skipped = shut.Keys, shut.Restored, shut.Tokens, shut.Skipped
	if shut.Unsaved != nil {
		out.Skipped = append(out.Skipped, shut.Unsaved.Error())
	}
	if err != nil {
		return out, err
	}
	var back, spent, left []vault.ID
	st, err := r.scan(ctx, func(rec vault.Record, s seen) error {
		if rec.Key == vault.KeyDestroyed {
			if s.blob {
				left = append(left, rec.ID)
			}
			if s.aside || s.noted {
				spent = append(spent, rec.ID)
			}
		} else if (s.aside || s.noted) && rec.Key != vault.KeyDestroying {
			back = append(back, rec.ID)
		}
		return nil
	})
	if err != nil {
		return out, err
	}
	out.Records, out.Foreign = st.records, len(st.foreign)
	var failed []error
	note := func(count *int, n int, err error) {
		*count += n
		failed = append(failed, err)
	}
	again := Shut{}
	n, _, err := r.undo(ctx, nil, vault.KeyDestroyed, left, &again)
	note(&out.Undone, n, err)
	out.Skipped = append(out.Skipped, again.Skipped...)
	n, err = r.takeBack(ctx, back)
	note(&out.Returned, n, err)
	n, err = r.destroy(ctx, spent)
	note(&out.Destroyed, n, err)
	due, err := r.putAside(ctx, st, &out)
	failed = append(failed, err)
	n, err = r.destroy(ctx, due)
	note(&out.Destroyed, n, err)
	out.Waiting -= n
	return out, errors.Join(failed...)
}

// update runs fn in one transaction, with an event about the IDs that it gives, if any.
func (r *Reconciler) update(ctx context.Context, t vault.EventType, out *[]vault.ID, fn func(StockTx) ([]vault.ID, error)) error {
	_, err := r.Ledger.Update(ctx, func(tx StockTx) (err error) {
		if *out, err = fn(tx); err != nil || len(*out) == 0 {
			return err
		}
		return appendLong(tx, vault.NewEvent(t, vault.Caller{}, tx.Now()), *out)
	})
	return err
}

// takeBack ends the quarantine of records that are there again.
func (r *Reconciler) takeBack(ctx context.Context, ids []vault.ID) (n int, err error) {
	var failed error
	for part := range slices.Chunk(ids, eventIDs) {
		done, err := r.each(ctx, part, r.takeBackOne)
		failed = errors.Join(failed, err)
		err = r.update(ctx, vault.EventOrphansReturned, new([]vault.ID), func(tx StockTx) ([]vault.ID, error) {
			return done, endQuarantine(tx, done)
		})
		if err != nil {
			return n, errors.Join(failed, err)
		}
		n += len(done)
	}
	return n, failed
}

func endQuarantine(tx StockTx, ids []vault.ID) error {
	for _, id := range ids {
		if err := tx.EndQuarantine(id); err != nil {
			return err
		}
	}
	return nil
}

func (r *Reconciler) takeBackOne(ctx context.Context, id vault.ID) error {
	rec, err := r.record(ctx, id)
	if err != nil {
		return err
	}
	// A key that was shut already when it was put aside is not opened: admins revoked it, or
	// somebody who can write to the database only says that it is active. Key first: Return
	// ends the note.
	noted, err := r.Blobs.KeyNoted(ctx, id)
	if err != nil {
		return err
	}
	if noted && rec.Key == vault.KeyActive {
		if err := r.Service.Keys.RestoreKey(ctx, rec.KeyName()); err != nil && vault.ReasonOf(err) != vault.ReasonKeyDestroyed {
			return err
		}
	}
	return r.Blobs.Return(ctx, id)
}

func (r *Reconciler) record(ctx context.Context, id vault.ID) (rec vault.Record, err error) {
	err = r.Ledger.View(ctx, func(tx StockTx) (err error) {
		rec, err = tx.Record(id)
		return err
	})
	return rec, err
}

// each runs fn for the IDs, several at a time, and gives those for which it succeeded.
// Nobody else of this process changes a record's key meanwhile.
func (r *Reconciler) each(ctx context.Context, ids []vault.ID, fn func(context.Context, vault.ID) error) (done []vault.ID, failed error) {
	var mu sync.Mutex
	var all errgroup.Group
	all.SetLimit(workers)
	for _, id := range ids {
		all.Go(func() error {
			unlock := r.Service.work.lock(id)
			err := fn(ctx, id)
			unlock()
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("record %s: %w", id, err))
			} else {
				done = append(done, id)
			}
			return nil
		})
	}
	_ = all.Wait()
	sortIDs(done)
	return done, failed
}

func sortIDs(ids []vault.ID) {
	slices.SortFunc(ids, func(a, b vault.ID) int { return bytes.Compare(a[:], b[:]) })
}

// putAside puts orphans into quarantine, and gives the IDs of those that were there for
// long enough. The note comes first: from its commit on, no record of that ID is stored.
func (r *Reconciler) putAside(ctx context.Context, st *stock, out *Reconciled) (due []vault.ID, failed error) {
	orphans, young, err := r.orphans(ctx, st)
	if err != nil {
		return nil, err
	}
	out.Young = young
	var fresh, enact []vault.ID
	for id := range orphans {
		fresh = append(fresh, id)
	}
	sortIDs(fresh)
	for part := range slices.Chunk(fresh, eventIDs) {
		var noted []vault.ID
		err := r.update(ctx, vault.EventOrphansQuarantined, &noted, func(tx StockTx) (done []vault.ID, err error) {
			for _, id := range part {
				if _, err := tx.Record(id); err == nil {
					continue // it was stored meanwhile
				} else if vault.KindOf(err) != vault.NotFound {
					return nil, err
				}
				for _, o := range orphans[id] {
					o.Since = tx.Now()
					if err := tx.Quarantine(o); err != nil {
						return nil, err
					}
				}
				done = append(done, id)
			}
			return done, nil
		})
		if err != nil {
			return nil, err
		}
		enact = append(enact, noted...)
		out.Quarantined += len(noted)
	}
	for id, rows := range st.noted {
		out.Waiting++
		since := slices.MaxFunc(rows, func(a, b vault.Orphan) int { return a.Since.Compare(b.Since) }).Since
		if _, more := orphans[id]; !more && !since.Add(r.Keep).After(st.now) {
			due = append(due, id)
		}
		if orphans[id] == nil {
			enact = append(enact, id) // an earlier run may have been cut short
		} else {
			out.Waiting-- // counted among the fresh
		}
		orphans[id] = append(orphans[id], rows...)
	}
	out.Waiting += out.Quarantined
	sortIDs(due)
	_, failed = r.each(ctx, enact, func(ctx context.Context, id vault.ID) error {
		for _, o := range orphans[id] {
			if o.Kind == vault.OrphanBlob {
				if err := r.Blobs.Quarantine(ctx, id); err != nil {
					return err
				}
			} else if err := r.shut(ctx, o); err != nil {
				return err
			}
		}
		return nil
	})
	return due, failed
}

// shut revokes an orphan's key, and notes before that it was the quarantine which did.
func (r *Reconciler) shut(ctx context.Context, o vault.Orphan) error {
	found, shut, _, err := r.Keys.InspectKey(ctx, o.Name)
	if err != nil || !found || shut {
		return err
	}
	if err := r.Blobs.NoteKey(ctx, o.Record); err != nil {
		return err
	}
	return r.Service.Keys.RevokeKey(ctx, o.Name)
}

// orphans gives what no record names, is old enough and is not noted yet, by the ID that it
// bears, and how many are too young.
func (r *Reconciler) orphans(ctx context.Context, st *stock) (out map[vault.ID][]vault.Orphan, young int, err error) {
	out = map[vault.ID][]vault.Orphan{}
	noted := func(k vault.OrphanKind, name string, id vault.ID) bool {
		return slices.ContainsFunc(st.noted[id], func(o vault.Orphan) bool { return o.Kind == k && o.Name == name })
	}
	add := func(k vault.OrphanKind, name string, id vault.ID) {
		out[id] = append(out[id], vault.Orphan{Kind: k, Name: name, Record: id})
	}
	tooYoung := map[vault.ID]bool{}
	for id, modified := range st.blobs {
		switch {
		case noted(vault.OrphanBlob, id.String(), id):
		case modified.Add(r.Grace).After(st.now):
			tooYoung[id] = true
		default:
			add(vault.OrphanBlob, id.String(), id)
		}
	}
	for id := range st.aside { // by a note that the database lost
		if _, both := st.blobs[id]; !both && !noted(vault.OrphanBlob, id.String(), id) {
			add(vault.OrphanBlob, id.String(), id)
		}
	}
	for name, id := range st.keys {
		if noted(vault.OrphanKey, name, id) {
			continue
		}
		found, _, made, err := r.Keys.InspectKey(ctx, name)
		switch {
		case err != nil:
			return nil, 0, err
		case !found:
		case made.Add(r.Grace).After(st.now):
			tooYoung[id] = true
		default:
			add(vault.OrphanKey, name, id)
		}
	}
	return out, len(tooYoung), nil
}

// destroy ends what was in quarantine for long enough, or belongs to destroyed records.
func (r *Reconciler) destroy(ctx context.Context, ids []vault.ID) (n int, failed error) {
	for part := range slices.Chunk(ids, eventIDs) {
		names := map[vault.ID][]string{}
		err := r.Ledger.View(ctx, func(tx StockTx) error {
			rows, err := tx.Quarantined()
			for _, o := range rows {
				if o.Kind == vault.OrphanKey {
					names[o.Record] = append(names[o.Record], o.Name)
				}
			}
			return err
		})
		if err != nil {
			return n, err
		}
		done, err := r.each(ctx, part, func(ctx context.Context, id vault.ID) error {
			if rec, err := r.record(ctx, id); err == nil && rec.Key != vault.KeyDestroyed {
				return errors.New("it is there again; the next reconcile takes it back")
			} else if err != nil && vault.KindOf(err) != vault.NotFound {
				return err
			}
			for _, name := range names[id] {
				if err := r.Service.Keys.DestroyKey(ctx, name); err != nil {
					return err
				}
			}
			return r.Blobs.Discard(ctx, id)
		})
		failed = errors.Join(failed, err)
		err = r.update(ctx, vault.EventOrphansDestroyed, new([]vault.ID), func(tx StockTx) ([]vault.ID, error) {
			for _, id := range done {
				if err := tx.Destroyed(id); err != nil {
					return nil, err
				}
			}
			return done, nil
		})
		if err != nil {
			return n, errors.Join(failed, err)
		}
		n += len(done)
	}
	return n, failed
}
