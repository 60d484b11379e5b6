package breach

import (
	"context"
	"errors"
	"fmt"

	"github.com/portcullis/portcullis/vault"
)

// StockVault is what Vault tells of restores, and how what one brought back is shut.
type StockVault interface {
	// ReadMarks gives the two marks that WriteMark wrote last, the newer one first: the zero Mark
	// where there is none, and [vault.Unreadable], as the newest, for what is no mark.
	ReadMarks(ctx context.Context) (newest, before vault.Mark, err error)
	// WriteMark replaces the older of the two. It is durable on return.
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
	// that Vault was told, and closes fences of grants that there are not, and of those in ended
	// whatever their rows say. damaged are those whose rows can not be read; they are left out
	// unless they are in ended. Idempotent.
	Refence(ctx context.Context, grants []vault.ID, ended map[vault.ID]bool) (damaged []vault.ID, err error)
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
	// Skipped tells of rows and entries of the log that can not be read, and of what nobody signed:
	// they were left out, and kept nothing else from being shut.
	Skipped []string
	// Unsaved is why what is remembered of the log beside the ciphertext could not be written.
	Unsaved error
}

func (s *Shut) skip(format string, args ...any) {
	s.Skipped = append(s.Skipped, fmt.Sprintf(format, args...))
}

// Look finds out whether Vault or the database were restored from a copy, and shuts again what
// that opened. Releases may go on for half a minute after a look that returned nil; after
// one that failed they stop. State LOG_ROLLED_BACK: the database is older than it was, and
// nothing was changed at Vault. It may be called at once, also by several processes; within one
// a single look does more than compare.
//
// The marks tell. Vault and database hold the same one, and it moves on every quarter of a
// minute. If Vault's is older, Vault was restored: all grant tokens end, since ended ones may be
// among them, and everything that must be shut is looked at. If Vault's is newer, the database
// was restored. If they are equal, Vault did at least what it had done when the mark was
// written, and only what it did since is looked at. A look writes one mark before it checks and
// one after, and what it found counts only if Vault then has both and nobody withdrew meanwhile:
// a restore beneath it does not escape it.
func (r *Reconciler) Look(ctx context.Context, how Depth) (out Shut, err error) {
	err = r.look(ctx, how, &out)
	if err == nil || ctx.Err() != nil || errors.Is(err, errYield) {
		return out, err // who gave up waiting has found nothing out
	}
	return out, errors.Join(err, r.failed(context.WithoutCancel(ctx), vault.ReasonOf(err)))
}

func (r *Reconciler) look(ctx context.Context, how Depth, out *Shut) error {
	locked := false
	if how == LookSince && r.whole.Load() {
		if locked = r.looking.TryLock(); !locked {
			how = LookMark // the look under way does the rest
		}
	}
	if how == LookMark {
		done, err := r.glance(ctx, out)
		if done || err != nil {
			return err
		}
		how = LookSince
	}
	if !locked {
		r.looking.Lock()
	}
	defer r.looking.Unlock()
	restored := false
	for range 3 {
		stands, err := r.pass(ctx, how, restored, out)
		switch {
		case errors.Is(err, errMoved):
		case err != nil:
			return err
		case stands:
			r.whole.Store(true)
			return nil
		default:
			restored = true // while it was looked at
		}
	}
	if !restored {
		return yield("another look moves the mark")
	}
	return vault.E(vault.Unavailable, vault.ReasonVaultUnchecked, "Vault's mark changes whenever it is looked at; does another database use this Vault?")
}

// glance compares, and is done if nothing was restored and the last look that did more has not
// been withdrawn. It waits for no other look.
func (r *Reconciler) glance(ctx context.Context, out *Shut) (done bool, err error) {
	s, err := r.begin(ctx)
	if err != nil || s.first() {
		return false, err
	}
	if !s.fits() {
		if err := r.rolledBack(s); err != nil {
			return false, err
		}
		return false, r.alarm(ctx)
	}
	if !s.known.Good.After(s.now) {
		return false, nil
	}
	return true, r.good(ctx, s.known.Generation)
}

// rolledBack says whether the database is the older of the two.
func (r *Reconciler) rolledBack(s sight) error {
	known := max(s.known.Mark.Number, s.known.Begun.Number, s.known.Next.Number)
	if s.newest.Number <= known || s.end.known == 0 {
		return nil
	}
	return vault.E(vault.State, vault.ReasonLogRolledBack, "Vault's mark is number %d and the database knows of %d: "+rolledBack, s.newest.Number, known)
}

// pass looks once. stands says whether Vault was the same all the time; if not, nothing that was
// found counts.
func (r *Reconciler) pass(ctx context.Context, how Depth, restored bool, out *Shut) (stands bool, err error) {
	s, err := r.begin(ctx)
	if err != nil {
		return false, err
	}
	first := s.first()
	if restored = restored || !(first || s.fits()); restored {
		if err := r.rolledBack(s); err != nil {
			return false, err
		}
	}
	c, err := r.claim(ctx, s, restored)
	if err != nil {
		return false, err
	}
	if c.busy { // another process moves the mark
		if err := r.check(ctx, how, s, out); err != nil {
			return false, err
		}
		again, err := r.begin(ctx)
		if err != nil || !again.fits() {
			return false, err
		}
		return true, r.good(ctx, s.known.Generation)
	}
	work, done := r.hold(ctx, c)
	defer done()
	stands, err = r.start(work, c)
	if err == nil && stands {
		switch {
		case restored:
			err = r.restored(work, out)
		case first:
			err = r.check(work, LookAll, s, out)
		default:
			err = r.check(work, how, s, out)
		}
		if err == nil {
			stands, err = r.finish(work, c)
		}
	}
	switch {
	case err != nil && errors.Is(context.Cause(work), errYield):
		return false, surpassed()
	case err != nil || !stands:
		return false, err
	}
	out.Unsaved = r.saveLog(s.end) // nothing that was found is less true for it
	return true, nil
}

func (r *Reconciler) check(ctx context.Context, how Depth, s sight, out *Shut) error {
	if how == LookAll {
		return r.shutAll(ctx, out)
	}
	return r.shutSince(ctx, s.known.Log, out)
}

// restored shuts what a restore of Vault brought back.
func (r *Reconciler) restored(ctx context.Context, out *Shut) error {
	out.Restored = true
	// Tokens first, by one call; then nobody has one that opens what the rest still shuts.
	if err := r.Vault.EndTokens(ctx); err != nil {
		return fmt.Errorf("end the tokens that a restored vault brought back (an older set-up may forbid it: run portcullisd setup again): %w", err)
	}
	if err := r.shutAll(ctx, out); err != nil {
		return err
	}
	var tokens int64
	_, err := r.Ledger.Update(ctx, func(tx StockTx) (err error) {
		if tokens, err = tx.ForgetTokens(); err != nil {
			return err
		}
		e := vault.NewEvent(vault.EventVaultRestored, vault.Caller{}, tx.Now())
		e.Count = tokens
		return tx.Append(e)
	})
	out.Tokens += tokens
	return err
}
