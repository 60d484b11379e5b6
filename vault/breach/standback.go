package breach

import (
	"context"

	"github.com/portcullis/portcullis/vault"
)

// standBack sets rows back that let in whom the log says is suspended, or bring a grant to life that
// has ended: with the same events as when it was decided, by the service.
func (r *Reconciler) standBack(ctx context.Context, log *verdict, out *Shut) error {
	var orgs []string
	var who []string
	var grants []vault.ID
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
	if len(orgs)+len(who)+len(grants) == 0 {
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
	as := map[vault.GrantState]vault.EventType{
		vault.GrantDenied: vault.EventGrantDenied, vault.GrantRetired: vault.EventGrantRetired, vault.GrantRevoked: vault.EventGrantRevoked,
	}[end]
	if err := tx.SetGrantState(id, end); err != nil {
		return err
	}
	e := vault.NewEvent(as, vault.Caller{}, tx.Now())
	e.Grant, e.Contractor = g.Grant.String(), g.Contractor
	return tx.Append(e)
}
