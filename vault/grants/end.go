package grants

import (
	"context"
	"errors"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// sweepBatch is how many fences one step of a sweep takes.
const sweepBatch = 100

// Revoke ends a grant, by an admin. When it returns, no release of it commits any more and
// no send is under way.
func (s *Service) Revoke(ctx context.Context, c vault.Caller, id vault.ID, note string) (vault.Grant, vault.Barrier, error) {
	end := ending{to: vault.GrantRevoked, as: vault.EventGrantRevoked, note: note, cut: true}
	return s.end(ctx, c, id, end, func(tx Tx) (vault.Grant, error) {
		if err := tx.Standing(c); err != nil {
			return vault.Grant{}, err
		}
		return tx.Grant(id)
	})
}

// Retire ends a grant, by its grantee. Sends under way are cut, idle connections are not: the
// answer comes over one of them.
func (s *Service) Retire(ctx context.Context, c vault.Caller, id vault.ID) (vault.Grant, vault.Barrier, error) {
	return s.end(ctx, c, id, ending{to: vault.GrantRetired, as: vault.EventGrantRetired}, func(tx Tx) (vault.Grant, error) {
		return own(tx, c, id)
	})
}

// ending is one way of ending a grant.
type ending struct {
	to   vault.GrantState
	as   vault.EventType
	note string
	cut  bool // all connections of the grantee, sending or not
}

func (s *Service) end(ctx context.Context, c vault.Caller, id vault.ID, how ending, find func(Tx) (vault.Grant, error)) (g vault.Grant, b vault.Barrier, err error) {
	if err := vault.CheckText("note", how.note, MaxJustification, true); err != nil {
		return g, b, err
	}
	index, err := s.Ledger.Update(ctx, func(tx Tx) (err error) {
		if g, err = find(tx); err != nil {
			return err
		}
		if g.Ended(tx.Now()) {
			return nil // ended already; the barrier below still holds for what is under way
		}
		g.State = how.to
		e := event(tx, how.as, c, g)
		e.Note = noteDigest(how.note)
		return errors.Join(tx.SetGrantState(id, how.to), tx.Append(e))
	})
	if err != nil {
		return g, b, err
	}
	// The ending is durable: from here on nothing may hinder it, not even the caller leaving.
	ctx = context.WithoutCancel(ctx)
	end := vault.Ending{Index: index, Grants: []vault.ID{id}}
	if how.cut {
		end.Grantees = []string{g.Grantee}
	}
	if b, err = s.Gate.End(ctx, end); err != nil {
		return g, b, err
	}
	if err := s.fence(ctx, id); err != nil {
		s.Log.WarnContext(ctx, "vault's fence of an ended grant is still to be removed", "grant", id, "error", err)
		return g, b, nil
	}
	b.VaultDone = true
	return g, b, nil
}

// fence makes Vault enforce what the grant's row says: it writes the policy of an approved
// grant, whose signatures it checks first, and removes that of an ended one, then its token.
func (s *Service) fence(ctx context.Context, id vault.ID) error {
	var g vault.Grant
	var state vault.FenceState
	var ended bool
	err := s.Ledger.View(ctx, func(tx Tx) (err error) {
		if g, err = tx.Grant(id); err != nil {
			return err
		}
		ended = g.Ended(tx.Now())
		state, err = tx.FenceState(id)
		return err
	})
	if err != nil {
		return err
	}
	to := state
	switch {
	case ended && (state == vault.FenceDue || state == vault.FenceWritten):
		to = vault.FenceRemoved
		if err := s.Fences.DeleteFence(ctx, id); err != nil {
			return err
		}
		if g.Accessor != "" {
			if err := s.Tokens.RevokeToken(ctx, g.Accessor); err != nil {
				return err
			}
		}
	case !ended && state == vault.FenceDue:
		to = vault.FenceWritten
		if err := s.prove(g); err != nil {
			return err
		}
		if err := s.Fences.WriteFence(ctx, id, g.Scope.KeyPrefixes()); err != nil {
			return err
		}
	case !ended && state != vault.FenceWritten:
		return vault.E(vault.Denied, vault.ReasonGrantTampered, "grant %s is %s, but was never approved here", id, g.State)
	}
	if to == state {
		return nil
	}
	overtaken := false
	_, err = s.Ledger.Update(ctx, func(tx Tx) error {
		now, err := tx.Grant(id)
		if err != nil {
			return err
		}
		if overtaken = now.Ended(tx.Now()) && to == vault.FenceWritten; overtaken {
			return nil // the state stays due: whoever ended the grant, or the sweep, removes the policy
		}
		if err := tx.SetFenceState(id, to); err != nil {
			return err
		}
		if to != vault.FenceRemoved {
			return nil
		}
		e := event(tx, vault.EventVaultCaughtUp, vault.Caller{}, g)
		if now.State == vault.GrantActive || now.State == vault.GrantApproved {
			e.Type = vault.EventGrantExpired
		}
		return tx.Append(e)
	})
	if err == nil && overtaken {
		return s.fence(ctx, id)
	}
	return err
}

// Sweep does what Vault is still owed: fences of approved grants, removal of those of ended
// and expired ones. It is called at start and then regularly.
func (s *Service) Sweep(ctx context.Context) error {
	var due []vault.ID
	err := s.Ledger.View(ctx, func(tx Tx) (err error) {
		due, err = tx.FencesDue(tx.Now(), sweepBatch)
		return err
	})
	for _, id := range due {
		err = errors.Join(err, s.fence(ctx, id))
	}
	return err
}

// Get gives a grant, and what it would open: to admins and auditors any, to a contractor
// its own.
func (s *Service) Get(ctx context.Context, c vault.Caller, id vault.ID) (g vault.Grant, p vault.Preview, now time.Time, err error) {
	err = s.Ledger.View(ctx, func(tx Tx) (err error) {
		if err := tx.Standing(c); err != nil {
			return err
		}
		now = tx.Now()
		g, err = tx.Grant(id)
		if vault.KindOf(err) == vault.NotFound || (err == nil && c.Role == vault.RoleContractor && g.Contractor != c.Org) {
			return Unknown(id)
		}
		if err != nil || c.Role != vault.RoleAdmin {
			return err
		}
		p, err = tx.Preview(g.Scope)
		return err
	})
	return g, p, now, err
}
