package breach

import (
	"context"
	"errors"
	"time"

	"github.com/portcullis/portcullis/vault"
)

const (
	// goodFor is how long releases may rest on one check. It bounds how long they go on once no
	// process with the admin role looks any more.
	goodFor = 30 * time.Second
	// renewBelow is when a check that found nothing new is written down again.
	renewBelow = goodFor * 2 / 3
	// claimFor is how long the claim on Vault's mark of a process that died keeps others from it;
	// one that lives renews it. Longer than a call takes.
	claimFor = 20 * time.Second
	// holdEvery is how often a look asks whether its claim still holds.
	holdEvery = time.Second
)

// errYield is behind the errors of a look that another one has overtaken, or keeps from its work.
// Such a look has found nothing out, and withdraws nothing.
var errYield = errors.New("another look goes on with it")

// errMoved says that another look moved the mark before this one could: it begins anew.
var errMoved = errors.New("the mark was moved")

func yield(why string) error {
	return vault.E(vault.Unavailable, vault.ReasonVaultUnchecked, "%s; it is looked at again", why).Because(errYield)
}

func surpassed() error {
	return yield("something was found while Vault and the database were looked at")
}

// sight is what a look begins with.
type sight struct {
	known          vault.Marked // its generation is that from before anything was looked at
	now            time.Time
	end            logEnd
	newest, before vault.Mark // at Vault
}

// first says whether no look has ever succeeded.
func (s sight) first() bool {
	return s.known.Mark == (vault.Mark{}) && (s.newest == (vault.Mark{}) || s.fits())
}

// fits says whether Vault is no older than it was when the database's mark was written: it has
// that, or what a look wrote that was cut short and beside it what that found.
func (s sight) fits() bool {
	if s.newest == (vault.Mark{}) {
		return false
	}
	return s.newest == s.known.Mark ||
		(s.newest == s.known.Begun && s.before == s.known.Mark) ||
		(s.newest == s.known.Next && s.before == s.known.Begun)
}

// foreign says whether Vault belongs to another database.
func (s sight) foreign() error {
	unmarked := s.known.Mark == (vault.Mark{}) && s.known.Begun == (vault.Mark{})
	for _, at := range []vault.Mark{s.newest, s.before} {
		switch {
		case at == (vault.Mark{}), at == vault.Unreadable:
		case at.Database != s.known.Database && at.Database != (vault.ID{}), unmarked:
			ours := s.known.Database.String()
			if s.known.Database == (vault.ID{}) {
				ours = "a new one, which has no ID yet"
			}
			return vault.E(vault.State, vault.ReasonOtherDatabase, "Vault's mark is of database %s, and this is %s: "+
				"nothing was changed at Vault; is store.path right? docs/operations.md says how to adopt another database", at.Database, ours)
		}
	}
	return nil
}

// begin compares the log with what is remembered of it, and reads the marks. Another process may
// be moving the mark, so the database is asked before and after, and all of it twice before
// anybody believes that something was restored.
func (r *Reconciler) begin(ctx context.Context) (s sight, err error) {
	if s.known, s.now, err = r.marked(ctx); err != nil {
		return s, err
	}
	generation := s.known.Generation
	defer func() { s.known.Generation = generation }()
	if s.end, err = r.compareLog(ctx); err != nil {
		if at := s; vault.ReasonOf(err) == vault.ReasonLogRolledBack {
			// Perhaps it is another one altogether, which says more.
			if at.newest, at.before, _ = r.Vault.ReadMarks(ctx); at.foreign() != nil {
				return s, at.foreign()
			}
		}
		return s, err
	}
	for range 2 {
		if s.known, s.now, err = r.marked(ctx); err != nil {
			return s, err
		}
		if s.newest, s.before, err = r.Vault.ReadMarks(ctx); err != nil || s.fits() {
			return s, err
		}
		if s.known, s.now, err = r.marked(ctx); err != nil || s.fits() {
			return s, err
		}
	}
	return s, s.foreign()
}

func (r *Reconciler) marked(ctx context.Context) (m vault.Marked, now time.Time, err error) {
	err = r.Ledger.View(ctx, func(tx StockTx) (err error) {
		now = tx.Now()
		m, err = tx.Marked()
		return err
	})
	return m, now, err
}

// mark changes what is known of marks, if no other look has withdrawn since the generation.
func (r *Reconciler) mark(ctx context.Context, generation int64, change func(StockTx, *vault.Marked) error) error {
	_, err := r.Ledger.Update(ctx, func(tx StockTx) error {
		m, err := tx.Marked()
		if err != nil {
			return err
		}
		if m.Generation != generation {
			return surpassed()
		}
		if err := change(tx, &m); err != nil {
			return err
		}
		return tx.SetMarked(m)
	})
	return err
}

// good lets releases go on, if nobody has withdrawn since the generation.
func (r *Reconciler) good(ctx context.Context, generation int64) error {
	known, now, err := r.marked(ctx)
	if err != nil {
		return err
	}
	if known.Generation == generation && known.Reason == "" && known.Good.Sub(now) > renewBelow {
		return nil
	}
	return r.mark(ctx, generation, func(tx StockTx, m *vault.Marked) error {
		m.Good, m.Reason = tx.Now().Add(goodFor), ""
		return nil
	})
}

// Withdraw stops releases until a look that begins after it succeeds. It is durable on return.
func (r *Reconciler) Withdraw(ctx context.Context) error {
	_, err := r.Ledger.Update(ctx, func(tx StockTx) error {
		m, err := tx.Marked()
		if err != nil {
			return err
		}
		withdraw(&m, tx.Now(), vault.ReasonVaultUnchecked)
		return tx.SetMarked(m)
	})
	return err
}

// withdraw stops releases, and every look under way: none of them holds the mark any more.
func withdraw(m *vault.Marked, now time.Time, why vault.Reason) {
	m.Generation++
	m.Good, m.Reason, m.Claimed = now, why, now
}

// failed stops releases since a look failed. One that fails again for the same reason need not
// say so again.
func (r *Reconciler) failed(ctx context.Context, why vault.Reason) error {
	if known, now, err := r.marked(ctx); err != nil || (known.Reason == why && !known.Good.After(now)) {
		return err
	}
	_, err := r.Ledger.Update(ctx, func(tx StockTx) error {
		m, err := tx.Marked()
		if err != nil {
			return err
		}
		withdraw(&m, tx.Now(), why)
		return tx.SetMarked(m)
	})
	return err
}

// alarm stops releases since Vault's mark does not fit, unless whoever shuts that is at it.
func (r *Reconciler) alarm(ctx context.Context) error {
	_, err := r.Ledger.Update(ctx, func(tx StockTx) error {
		m, err := tx.Marked()
		if err != nil {
			return err
		}
		if m.Claimed.After(tx.Now()) && !m.Good.After(tx.Now()) {
			return yield("another look shuts what a restore brought back")
		}
		withdraw(&m, tx.Now(), vault.ReasonVaultUnchecked)
		return tx.SetMarked(m)
	})
	return err
}

// claim is the right to write Vault's mark.
type claim struct {
	generation int64
	begun      vault.Mark
	was        vault.Mark // the newest at Vault before; zero after a restore, when it is of no account
	restored   bool
	busy       bool // somebody else has it
}

// claim takes it for a look. After a restore it stops releases in the same transaction.
func (r *Reconciler) claim(ctx context.Context, s sight, restored bool) (c claim, err error) {
	err = r.mark(ctx, s.known.Generation, func(tx StockTx, m *vault.Marked) error {
		c = claim{generation: m.Generation, restored: restored, busy: m.Claimed.After(tx.Now())}
		switch {
		case m.Mark != s.known.Mark || m.Begun != s.known.Begun || m.Next != s.known.Next:
			return errMoved
		case restored && c.busy && !m.Good.After(tx.Now()):
			return yield("another look shuts what a restore brought back")
		case restored:
			c.busy = false // whoever has it looks for less; that look ends by the generation
			withdraw(m, tx.Now(), vault.ReasonVaultUnchecked)
			c.generation = m.Generation
		case c.busy:
			return nil
		default:
			// A copy that has it is no older than one that has the mark before.
			m.Mark, c.was = s.newest, s.newest
		}
		if m.Database == (vault.ID{}) {
			m.Database = vault.NewID()
		}
		c.begun = m.Mark.After(m.Begun, m.Next, s.newest)
		c.begun.Database = m.Database
		m.Begun, m.Next, m.Claimed = c.begun, vault.Mark{}, tx.Now().Add(claimFor)
		// Whatever an event below this index says that Vault did, Vault did before it has this look's
		// last mark.
		m.NextLog, err = tx.EachEvent(0, 0, nil, nil)
		return err
	})
	return c, err
}

// write writes a mark to Vault, and says whether it stands there beside the one that must be there,
// unless whatever does: if not, another Vault took its place meanwhile.
func (r *Reconciler) write(ctx context.Context, m, beside vault.Mark, whatever bool) (stands bool, err error) {
	within, cancel := context.WithTimeout(ctx, claimFor/2)
	defer cancel()
	if err := r.Vault.WriteMark(within, m); err != nil {
		return false, err
	}
	newest, before, err := r.Vault.ReadMarks(ctx)
	return newest == m && (whatever || before == beside), err
}

// start writes the mark of a look that begins.
func (r *Reconciler) start(ctx context.Context, c claim) (stands bool, err error) {
	return r.write(ctx, c.begun, c.was, c.restored)
}

// finish moves the mark, and lets releases go on. Not if Vault has anything but what the look wrote
// to it when it began: then it was restored since.
func (r *Reconciler) finish(ctx context.Context, c claim) (stands bool, err error) {
	ours := func(m *vault.Marked) error {
		if m.Begun != c.begun {
			return surpassed()
		}
		return nil
	}
	var next vault.Mark
	err = r.mark(ctx, c.generation, func(_ StockTx, m *vault.Marked) error {
		next = m.Begun.After(m.Mark)
		m.Next = next
		return ours(m)
	})
	if err != nil {
		return false, err
	}
	if stands, err := r.write(ctx, next, c.begun, false); err != nil || !stands {
		return false, err
	}
	return true, r.mark(ctx, c.generation, func(tx StockTx, m *vault.Marked) error {
		err := ours(m)
		m.Mark, m.Log, m.Begun, m.Next, m.NextLog, m.Claimed = next, m.NextLog, vault.Mark{}, vault.Mark{}, 0, tx.Now()
		m.Good, m.Reason = tx.Now().Add(goodFor), ""
		return err
	})
}

// hold renews a claim. The context that it gives ends once another look has overtaken this one.
// done ends the claim, if it is still held.
func (r *Reconciler) hold(ctx context.Context, c claim) (work context.Context, done func()) {
	work, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(holdEvery)
		defer tick.Stop()
		for {
			select {
			case <-work.Done():
				return
			case <-tick.C:
			}
			m, now, err := r.marked(work)
			switch {
			case err != nil: // the look itself will find that out
			case m.Generation != c.generation || m.Begun != c.begun:
				cancel(errYield)
			case m.Claimed.Sub(now) < claimFor/2:
				_ = r.mark(work, c.generation, func(tx StockTx, m *vault.Marked) error { // or it is tried again
					if m.Begun == c.begun {
						m.Claimed = tx.Now().Add(claimFor)
					}
					return nil
				})
			}
		}
	}()
	return work, func() {
		cancel(nil)
		<-ended
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), claimFor/4)
		defer cancel()
		if m, _, err := r.marked(within); err != nil || m.Begun != c.begun {
			return // it is over
		}
		_, _ = r.Ledger.Update(within, func(tx StockTx) error { // or the claim ends by itself
			m, err := tx.Marked()
			if err != nil || m.Begun != c.begun {
				return err
			}
			m.Claimed = tx.Now()
			return tx.SetMarked(m)
		})
	}
}
