package breach

import (
	"context"
	"slices"

	"github.com/portcullis/portcullis/vault"
)

// standBack sets rows back that let in whom the log says is suspended, or bring a grant to life that
// has ended: with the same events as when it was decided, by the service.
func (r *Reconciler) standBack(ctx context.Context, log *verdict, out *Shut) error {
	var orgs []string
	var who []string
	var grants []vault.ID
	purposes, err := r.otherPurposes(ctx, log, out)
	if err != nil {
		return err
	}
	// At first without the writer, which all others wait for.
	for name, o := range log.orgs {
		if o.suspended {
			orgs = append(orgs, name)
		}
	}
	for id := range log.callers {
		who = append(who, id)
	}
	for id, g := range log.grants {
		if g.end == "" || g.end == vault.GrantActive {
			continue
		}
		err := r.Ledger.View(ctx, func(tx StockTx) error {
			g, err := tx.Grant(id)
			if err == nil && !g.Ended(tx.Now()) {
				grants = append(grants, id)
			}
			return err
		})
		if k := vault.KindOf(err); err != nil && k != vault.NotFound && k != vault.DataLoss {
			return err
		}
	}
	if len(orgs)+len(who)+len(grants)+len(purposes) == 0 {
		return nil
	}
	return r.settled(ctx, log, out, func(k vault.EventType) bool { return standEvents[k] }, func(tx StockTx) error {
		for _, name := range orgs {
			if o := log.orgs[name]; !o.suspended {
				continue
			}
			if err := suspendAgain(tx, name); err != nil {
				return err
			}
		}
		for _, id := range who {
			known, still := log.callers[id]
			if !still {
				continue
			}
			if err := r.cutOffAgain(tx, known); err != nil {
				return err
			}
		}
		for _, id := range grants {
			if err := endAgain(tx, id, log.grants[id].end); err != nil {
				return err
			}
		}
		for _, name := range purposes {
			if err := r.withdrawAgain(tx, name, log.purposes[name]); err != nil {
				return err
			}
		}
		return nil
	})
}

// readable says whether a row is there to be set back: of one that is not, or is damaged, nothing
// is allowed anyway.
func readable(err error) (bool, error) {
	switch {
	case err == nil:
		return true, nil
	case vault.KindOf(err) == vault.NotFound || vault.KindOf(err) == vault.DataLoss:
		return false, nil
	}
	return false, err
}

func suspendAgain(tx StockTx, name string) error {
	c, err := tx.Contractor(name)
	if ok, err := readable(err); !ok || c.Suspended {
		return err
	}
	n, err := tx.SuspendContractor(name)
	if err != nil {
		return err
	}
	e := vault.NewEvent(vault.EventContractorSuspended, vault.Caller{}, tx.Now())
	e.Contractor, e.Epoch, e.Count = name, c.Epoch, n
	return tx.Append(e)
}

func (r *Reconciler) cutOffAgain(tx StockTx, known vault.Suspension) error {
	if _, err := tx.Suspension(known.Caller); vault.KindOf(err) != vault.NotFound {
		return err
	}
	who, err := r.Service.named(known.Caller)
	if err != nil {
		return nil // of another trust domain: nobody is admitted by it
	}
	if err := tx.SuspendCaller(known); err != nil {
		return err
	}
	e := vault.NewEvent(vault.EventCallerSuspended, vault.Caller{}, tx.Now())
	e.Caller, e.Contractor = who.ID, who.Org
	switch who.Role {
	case vault.RoleContractor:
		e.Count, err = tx.EndGrantsOf(who.ID)
	case vault.RoleAdmin:
		e.Void, err = tx.VoidSignatures(who.ID)
	}
	if err != nil {
		return err
	}
	return tx.Append(e)
}

func endAgain(tx StockTx, id vault.ID, end vault.GrantState) error {
	g, err := tx.Grant(id)
	if ok, err := readable(err); !ok || g.Ended(tx.Now()) {
		return err
	}
	if err := tx.SetGrantState(id, end); err != nil {
		return err
	}
	e := vault.NewEvent(endedAs(end), vault.Caller{}, tx.Now())
	e.Grant, e.Contractor = g.Grant.String(), g.Contractor
	return tx.Append(e)
}

func endedAs(end vault.GrantState) vault.EventType {
	for as, state := range endings {
		if state == end {
			return as
		}
	}
	return vault.EventGrantRevoked
}

// otherPurposes gives the purposes whose newest row is not the version that the log tells of.
func (r *Reconciler) otherPurposes(ctx context.Context, log *verdict, out *Shut) (names []string, err error) {
	for name, told := range log.purposes {
		err := r.Ledger.View(ctx, func(tx StockTx) error {
			_, other, err := r.another(tx, name, told)
			if ok, err := readable(err); !ok {
				out.skip("purpose %s has no row that can be read", name)
				return err
			}
			if other {
				names = append(names, name)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(names)
	return names, nil
}

// another says whether something might be granted for the newest row of a purpose that is not for
// the version that the log tells of. Of one that nobody signed nothing is granted as it is; so are
// the rows of an earlier version of this program.
func (r *Reconciler) another(tx StockTx, name string, told purposeTold) (vault.Sanction, bool, error) {
	known, err := tx.Purpose(name)
	if err != nil || known.Purpose.Withdrawn || vault.DigestOf([]byte(known.Purpose.Text())) == told.body {
		return known, false, err
	}
	if told.withdrawn {
		return known, true, nil
	}
	err = r.Service.proved.Sanctioned(r.Service.Authority(), known, func(v int) (vault.Sanction, error) { return tx.PurposeVersion(name, v) })
	if vault.KindOf(err) == vault.Denied {
		return known, false, nil
	}
	return known, true, err
}

// withdrawAgain puts a withdrawn version above rows of a purpose that are not what the log says: the
// row of a withdrawal, or of a version that allowed less, was deleted, or another was written. Where
// that gives back what admins signed, their decision proves it; where not, nothing proves it, and
// nothing is granted for the purpose until two admins apply it anew.
func (r *Reconciler) withdrawAgain(tx StockTx, name string, told purposeTold) error {
	known, other, err := r.another(tx, name, told)
	if ok, err := readable(err); !ok || !other {
		return err
	}
	p := known.Purpose.Normal()
	p.Replaces, p.Version, p.Withdrawn = p.Digest(), p.Version+1, true
	if err := tx.AddPurpose(p, told.decision); err != nil {
		return err
	}
	ended, err := tx.EndGrantsFor(name)
	if err != nil {
		return err
	}
	e := vault.NewEvent(vault.EventPurposeWithdrawn, vault.Caller{}, tx.Now())
	e.Count = int64(len(ended))
	e.Decision = vault.Decision{ID: told.decision, Kind: vault.ApplyPurpose, Body: p.Text()}.Facts()
	return tx.Append(e)
}
