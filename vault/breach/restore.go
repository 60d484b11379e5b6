package breach

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/portcullis/portcullis/vault"
)

const (
	// goodFor is how long releases may rest on one check. It bounds how long they go on once no
	// process with the admin role looks any more.
	goodFor = 30 * time.Second
	// renewBelow is when a check that found nothing new is written down again.
	renewBelow = goodFor * 2 / 3
	// claimFor is how long a process may take to write Vault's mark: longer than a call takes.
	claimFor = 20 * time.Second
)

// StockVault is what Vault tells of restores, and how what one brought back is shut.
type StockVault interface {
	// ReadMark gives the mark that WriteMark last wrote, the zero Mark if none stands there.
	ReadMark(ctx context.Context) (vault.Mark, error)
	// WriteMark is durable on return.
	WriteMark(ctx context.Context, m vault.Mark) error
	// EndTokens ends all grant tokens. When it returns nil none of those made before opens
	// anything.
	EndTokens(ctx context.Context) error
	// Fences gives the grants of which Vault has a policy.
	Fences(ctx context.Context) ([]vault.ID, error)
}

// StockFences closes fences.
type StockFences interface {
	// Refence makes Vault follow the rows of those grants that ended, whatever the rows say
	// that Vault was told, and closes fences of grants that there are not. Idempotent.
	Refence(ctx context.Context, grants []vault.ID) error
}

// Depth is how much a look checks.
type Depth int

// The depths of a look. Whatever the depth, all is checked when Vault turns out to be older
// than it was.
const (
	// LookMark compares the marks alone: one small call of Vault.
	LookMark Depth = iota
	// LookSince checks as well what Vault did since its mark was written, which an equally
	// marked copy may lack, and moves the mark.
	LookSince
	// LookAll checks all that is revoked, destroyed, suspended or ended.
	LookAll
)

// Shut is what a look found and did.
type Shut struct {
	Restored bool  // Vault was older than it was
	Tokens   int64 // grants whose tokens ended with that
	Keys     int   // revoked or destroyed again
}

// Look finds out whether Vault or the database were restored from a copy, and shuts again what
// that opened. Releases may go on for half a minute after a look that returned nil; after
// one that failed they stop. State LOG_ROLLED_BACK: the database is older than it was, and
// nothing was changed at Vault.
//
// The marks tell. Vault and database hold the same one, and it moves on every quarter of a
// minute. If Vault's is older, Vault was restored: all grant tokens end, since ended ones may be
// among them, and everything that must be shut is looked at. If Vault's is newer, the database
// was restored. If they are equal, Vault did at least what it had done when the mark was
// written, and only what it did since is looked at.
func (r *Reconciler) Look(ctx context.Context, how Depth) (out Shut, err error) {
	out, err = r.look(ctx, how)
	if err == nil || ctx.Err() != nil {
		return out, err // who gave up waiting has found nothing out
	}
	return out, errors.Join(err, r.withdraw(context.WithoutCancel(ctx), vault.ReasonOf(err)))
}

func (r *Reconciler) look(ctx context.Context, how Depth) (out Shut, err error) {
	end, err := r.compareLog(ctx)
	if err != nil {
		return out, err
	}
	known, at, err := r.compareMarks(ctx)
	if err != nil {
		return out, err
	}
	first := known.Mark == (vault.Mark{}) && at == (vault.Mark{})
	same := !first && fits(known, at)
	switch {
	case same && how == LookMark:
		return out, r.good(ctx)
	case same && how == LookSince:
		from := known.Log
		if at == known.Next {
			from = known.NextLog
		}
		out.Keys, err = r.shutSince(ctx, from)
	case same, first:
		out.Keys, err = r.shutAll(ctx)
	default:
		if at.Number > max(known.Mark.Number, known.Next.Number) && end.known > 0 {
			return out, vault.E(vault.State, vault.ReasonLogRolledBack,
				"Vault's mark is number %d and the database knows of %d: "+rolledBack, at.Number, max(known.Mark.Number, known.Next.Number))
		}
		out, err = r.restored(ctx)
	}
	if err != nil {
		return out, err
	}
	if err := r.advance(ctx, at, same); err != nil {
		return out, err
	}
	if err := r.saveLog(end); err != nil {
		return out, err
	}
	return out, r.good(ctx)
}

// fits says whether Vault's mark is one that the database knows of.
func fits(known vault.Marked, at vault.Mark) bool {
	return at == known.Mark || (at == known.Next && at != (vault.Mark{}))
}

// compareMarks gives Vault's mark, and what the database knows of marks: if they fit, as it was
// when they did. Another process may be moving the mark, so the database is asked before and
// after, and all of it twice before anybody believes that something was restored.
func (r *Reconciler) compareMarks(ctx context.Context) (known vault.Marked, at vault.Mark, err error) {
	for range 2 {
		if known, _, err = r.marked(ctx); err != nil {
			return known, at, err
		}
		if at, err = r.Vault.ReadMark(ctx); err != nil || fits(known, at) {
			return known, at, err
		}
		if known, _, err = r.marked(ctx); err != nil || fits(known, at) {
			return known, at, err
		}
	}
	return known, at, nil
}

// restored shuts what a restore of Vault brought back.
func (r *Reconciler) restored(ctx context.Context) (out Shut, err error) {
	out.Restored = true
	if err := r.withdraw(ctx, vault.ReasonVaultUnchecked); err != nil {
		return out, err
	}
	// Tokens first, by one call; then nobody has one that opens what the rest still shuts.
	if err := r.Vault.EndTokens(ctx); err != nil {
		return out, fmt.Errorf("end the tokens that a restored vault brought back (an older set-up may forbid it: run portcullisd setup again): %w", err)
	}
	if out.Keys, err = r.shutAll(ctx); err != nil {
		return out, err
	}
	_, err = r.Ledger.Update(ctx, func(tx StockTx) (err error) {
		if out.Tokens, err = tx.ForgetTokens(); err != nil {
			return err
		}
		e := vault.NewEvent(vault.EventVaultRestored, vault.Caller{}, tx.Now())
		e.Count = out.Tokens
		return tx.Append(e)
	})
	return out, err
}

func (r *Reconciler) marked(ctx context.Context) (m vault.Marked, now time.Time, err error) {
	err = r.Ledger.View(ctx, func(tx StockTx) (err error) {
		now = tx.Now()
		m, err = tx.Marked()
		return err
	})
	return m, now, err
}

// good lets releases go on.
func (r *Reconciler) good(ctx context.Context) error {
	known, now, err := r.marked(ctx)
	if err != nil {
		return err
	}
	if known.Reason == "" && known.Good.Sub(now) > renewBelow {
		return nil
	}
	_, err = r.Ledger.Update(ctx, func(tx StockTx) error {
		m, err := tx.Marked()
		if err != nil {
			return err
		}
		m.Good, m.Reason = tx.Now().Add(goodFor), ""
		return tx.SetMarked(m)
	})
	return err
}

// withdraw stops releases until a look succeeds.
func (r *Reconciler) withdraw(ctx context.Context, why vault.Reason) error {
	if known, now, err := r.marked(ctx); err != nil || (known.Reason == why && !known.Good.After(now)) {
		return err
	}
	_, err := r.Ledger.Update(ctx, func(tx StockTx) error {
		m, err := tx.Marked()
		if err != nil {
			return err
		}
		m.Good, m.Reason = tx.Now(), why
		return tx.SetMarked(m)
	})
	return err
}

// advance moves the mark. at is what Vault has. One process at a time does it: when another is
// at it that is as good, if only the mark was good already.
func (r *Reconciler) advance(ctx context.Context, at vault.Mark, same bool) error {
	var next vault.Mark
	busy := false
	_, err := r.Ledger.Update(ctx, func(tx StockTx) error {
		m, err := tx.Marked()
		if err != nil {
			return err
		}
		if busy = m.Claimed.After(tx.Now()); busy {
			return nil
		}
		if at == m.Next && at != (vault.Mark{}) { // its writer died before it could say so
			m.Mark, m.Log = m.Next, m.NextLog
		}
		next = m.Mark.After(m.Next, at)
		m.Next, m.Claimed = next, tx.Now().Add(claimFor)
		// Whatever an event below this index says that Vault did, Vault did before this mark.
		if m.NextLog, err = tx.EachEvent(0, 0, nil, nil); err != nil {
			return err
		}
		return tx.SetMarked(m)
	})
	switch {
	case err != nil:
		return err
	case busy && same:
		return nil
	case busy:
		return vault.E(vault.Unavailable, vault.ReasonVaultUnchecked, "another process moves Vault's mark; it is looked at again")
	}
	// Within the claim: a write that landed later could undo another process's.
	within, cancel := context.WithTimeout(ctx, claimFor/2)
	defer cancel()
	if err := r.Vault.WriteMark(within, next); err != nil {
		return err
	}
	_, err = r.Ledger.Update(ctx, func(tx StockTx) error {
		m, err := tx.Marked()
		if err != nil || m.Next != next {
			return err
		}
		m.Mark, m.Log, m.Next, m.NextLog, m.Claimed = next, m.NextLog, vault.Mark{}, 0, tx.Now()
		return tx.SetMarked(m)
	})
	return err
}

// toShut is what a look has to check, or to do again.
type toShut struct {
	records []vault.Record
	epochs  []vault.Contractor // each with an epoch that has ended
	grants  []vault.ID
}

// shutAll looks at all that must be shut: one list of keys, and one call for each revoked one
// that is in it. Measured on two cores that were busy with other work: 460 to 1,080 keys a
// second, with no gain from more than 8 at once.
func (r *Reconciler) shutAll(ctx context.Context) (int, error) {
	grants, err := r.Vault.Fences(ctx)
	if err != nil {
		return 0, err
	}
	todo := toShut{grants: grants}
	var orgs []vault.Contractor
	err = r.Ledger.View(ctx, func(tx StockTx) (err error) {
		orgs, err = tx.Contractors()
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, c := range orgs {
		for epoch := 1; epoch <= c.Epoch; epoch++ {
			if epoch < c.Epoch || c.Suspended {
				todo.epochs = append(todo.epochs, vault.Contractor{Name: c.Name, Epoch: epoch})
			}
		}
	}
	names, err := r.Keys.Keys(ctx)
	if err != nil {
		return 0, err
	}
	there := make(map[string]struct{}, len(names))
	for _, name := range names {
		there[name] = struct{}{}
	}
	for after := (vault.ID{}); ; {
		var page []vault.Record
		err := r.Ledger.View(ctx, func(tx StockTx) (err error) {
			page, err = tx.RecordsIn(after, dueBatch, vault.KeyRevoked, vault.KeyDestroyed)
			return err
		})
		if err != nil {
			return 0, err
		}
		if len(page) == 0 {
			return r.shutAgain(ctx, todo)
		}
		for _, rec := range page {
			if _, ok := there[rec.KeyName()]; ok {
				todo.records = append(todo.records, rec)
			}
		}
		after = page[len(page)-1].ID
	}
}

// vaultDid are the events that tell that Vault followed a decision.
var vaultDid = []string{string(vault.EventVaultCaughtUp), string(vault.EventKeyDestroyed), string(vault.EventGrantExpired)}

// shutSince looks at what Vault did according to the log, from an index on.
func (r *Reconciler) shutSince(ctx context.Context, from int64) (int, error) {
	var todo toShut
	seen := map[string]bool{}
	fresh := func(what string) bool {
		ok := what != "" && !seen[what]
		seen[what] = true
		return ok
	}
	for next := from; ; {
		first := next
		err := r.Ledger.View(ctx, func(tx StockTx) error {
			next = first
			_, err := tx.EachEvent(first, page, vaultDid, func(index int64, body []byte) error {
				next = index + 1
				e, err := vault.DecodeEvent(body)
				if err != nil {
					return nil // a damaged entry is for the check of the log to find
				}
				if fresh(e.Record) {
					id, err := vault.ParseID("record", e.Record)
					if err != nil {
						return nil
					}
					rec, err := tx.Record(id)
					if err != nil {
						return err
					}
					todo.records = append(todo.records, rec)
				}
				if fresh(e.Grant) {
					if id, err := vault.ParseID("grant", e.Grant); err == nil {
						todo.grants = append(todo.grants, id)
					}
				}
				if e.Epoch > 0 && fresh(fmt.Sprint(e.Contractor, " ", e.Epoch)) {
					todo.epochs = append(todo.epochs, vault.Contractor{Name: e.Contractor, Epoch: e.Epoch})
				}
				return nil
			})
			return err
		})
		if err != nil {
			return 0, err
		}
		if next == first {
			return r.shutAgain(ctx, todo)
		}
	}
}

// shutAgain makes sure at Vault, and gives how many keys were not as they must be.
func (r *Reconciler) shutAgain(ctx context.Context, todo toShut) (int, error) {
	// Entities and fences are few, and end the most.
	for _, c := range todo.epochs {
		if err := r.Service.Keys.DisableContractor(ctx, c.Name, c.Epoch); err != nil {
			return 0, err
		}
	}
	if err := r.Fences.Refence(ctx, todo.grants); err != nil {
		return 0, err
	}
	wrong := make([]bool, len(todo.records))
	all, working := errgroup.WithContext(ctx)
	all.SetLimit(workers)
	for i, rec := range todo.records {
		if rec.Key != vault.KeyRevoked && rec.Key != vault.KeyDestroyed {
			continue
		}
		all.Go(func() error {
			found, shut, _, err := r.Keys.InspectKey(working, rec.KeyName())
			wrong[i] = found && (rec.Key == vault.KeyDestroyed || !shut)
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return 0, err
	}
	var revoked, destroyed []vault.ID
	for i, rec := range todo.records {
		switch {
		case wrong[i] && rec.Key == vault.KeyRevoked:
			revoked = append(revoked, rec.ID)
		case wrong[i]:
			destroyed = append(destroyed, rec.ID)
		}
	}
	return r.undo(ctx, revoked, destroyed)
}
