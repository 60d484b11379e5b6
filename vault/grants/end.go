package grants

import (
	"context"
	"errors"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// sweepBatch is how many fences one step of a sweep takes.
const sweepBatch = 100

// vaultTime is how long Vault may take over one grant that has ended: a policy, and a few tokens.
const vaultTime = 15 * time.Second

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
	var size int64
	index, err := s.Ledger.Update(ctx, func(tx Tx) (err error) {
		size = -1
		if g, err = find(tx); err != nil {
			return err
		}
		if g.Ended(tx.Now()) {
			// Ended already: the barrier below holds for whatever was authorized till now.
			size, err = tx.Size()
			return err
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
	index = max(index, size)
	end := vault.Ending{Index: index, Grants: []vault.ID{id}}
	if how.cut {
		end.Grantees = []string{g.Grantee}
	}
	if b, err = s.Gate.End(ctx, end); err != nil {
		return g, b, err
	}
	if err := s.disarm(ctx, id); err != nil {
		s.Log.WarnContext(ctx, "vault has still to follow the end of a grant", "grant", id, "error", err)
		return g, b, nil
	}
	b.VaultDone = true
	return g, b, nil
}

// disarm ends at Vault what this process can: the policy first, which is in force at the
// next call and also for a token that nobody recorded, then the tokens. Either is enough to
// make them open nothing.
func (s *Service) disarm(ctx context.Context, id vault.ID) error {
	ctx, cancel := context.WithTimeout(ctx, vaultTime)
	defer cancel()
	if s.Fences != nil {
		if err := s.fence(ctx, id); err != nil {
			return err
		}
	}
	if s.Tokens != nil {
		return s.endTokens(ctx, id)
	}
	return nil
}

// endTokens ends the tokens of a grant that are owed to Vault, and the newest of one that has
// ended. What fails stays owed, and keeps none of the others, unless it shows that Vault is away.
func (s *Service) endTokens(ctx context.Context, id vault.ID) error {
	unlock, err := s.ending.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	return s.endOwed(ctx, id)
}

func (s *Service) endOwed(ctx context.Context, id vault.ID) error {
	var accessors []string
	var counts bool // what is left counts on
	err := s.Ledger.View(ctx, func(tx Tx) (err error) {
		if accessors, err = tx.OwedTokens(id); err != nil {
			return err
		}
		g, err := tx.Grant(id)
		if err != nil {
			return err
		}
		if g.Ended(tx.Now()) {
			if g.Accessor != "" {
				accessors = append(accessors, g.Accessor)
			}
			return nil
		}
		n, err := tx.UsesLeft(id)
		counts = n > 0
		return err
	})
	for _, accessor := range accessors {
		failed := s.revoke(ctx, id, accessor, counts)
		if err = errors.Join(err, failed); away(ctx, failed) {
			break
		}
	}
	return err
}

// away says whether there is no use in asking Vault for more.
func away(ctx context.Context, err error) bool {
	return err != nil && (ctx.Err() != nil || vault.KindOf(err) == vault.Unavailable)
}

// fenced returns once the policy of an approved grant stands at Vault.
func (s *Service) fenced(ctx context.Context, id vault.ID) error {
	if s.Fences != nil {
		return s.fence(ctx, id)
	}
	var state vault.FenceState
	err := s.Ledger.View(ctx, func(tx Tx) (err error) {
		state, err = tx.FenceState(id)
		return err
	})
	if err == nil && state != vault.FenceWritten {
		err = vault.E(vault.Unavailable, vault.ReasonVaultUnavailable, "grant %s is approved, but Vault does not know of it yet; try again", id)
	}
	return err
}

// fence makes Vault enforce what the grant's row says: it writes the policy of an approved
// grant, whose signatures it checks first, closes that of an ended one, and removes it once
// the end that was signed has passed. Until then the closed policy stands, so that no row
// revives the grant.
func (s *Service) fence(ctx context.Context, id vault.ID) error {
	unlock, err := s.fencing.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	var g vault.Grant
	var state vault.FenceState
	var now time.Time
	var past, forged bool
	var limits vault.Fence
	err = s.Ledger.View(ctx, func(tx Tx) (err error) {
		if g, err = tx.Grant(id); err != nil {
			return err
		}
		now = tx.Now()
		if past = !now.Before(g.Ends); past {
			// Only an end that was signed lets Vault forget the grant.
			forged = s.prove(tx, g) != nil
		}
		if state, err = tx.FenceState(id); err == nil && state == vault.FenceDue && !g.Ended(now) {
			_, err = s.lawful(tx, g)
			if err = errors.Join(err, s.prove(tx, g)); err == nil {
				limits, err = limitsOf(tx, g)
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	switch {
	case past && forged:
		// The closed policy stays for good. Nothing more is due.
		if err := s.Fences.CloseFence(ctx, id); err != nil || state == vault.FenceNone {
			return err
		}
		return s.fenceIs(ctx, g, state, vault.FenceNone)
	case past && state != vault.FenceNone && state != vault.FenceRemoved:
		if err := s.Fences.DeleteFence(ctx, id); err != nil {
			return err
		}
		return s.fenceIs(ctx, g, state, vault.FenceRemoved)
	case g.Ended(now) && !past:
		// Whatever the row says Vault was told: somebody may have written to it.
		if err := s.Fences.CloseFence(ctx, id); err != nil || state == vault.FenceClosed {
			return err
		}
		return s.fenceIs(ctx, g, state, vault.FenceClosed)
	case !g.Ended(now) && state == vault.FenceDue:
		if err := s.Fences.WriteFence(ctx, id, limits); err != nil {
			return err
		}
		return s.fenceIs(ctx, g, state, vault.FenceWritten)
	case !g.Ended(now) && state != vault.FenceWritten:
		return vault.E(vault.Denied, vault.ReasonGrantTampered, "grant %s is %s, but was never approved here", id, g.State)
	}
	return nil
}

// limitsOf gives what Vault enforces of a grant: of a list, the keys of its records alone. Their
// names end in the IDs that were signed, so that no row leads to another key.
func limitsOf(tx Tx, g vault.Grant) (f vault.Fence, err error) {
	if g.Scope.List == (vault.ID{}) {
		return g.Scope.Fence(), nil
	}
	records, err := tx.RecordsOf(g.Scope.Records)
	for _, r := range records {
		f.Names = append(f.Names, r.KeyName())
	}
	return f, err
}

// fenceIs records what Vault was told. A grant that ended while its policy was being written
// stays due: the next look closes it.
func (s *Service) fenceIs(ctx context.Context, g vault.Grant, from, to vault.FenceState) error {
	_, err := s.Ledger.Update(ctx, func(tx Tx) error {
		now, err := tx.Grant(g.Grant)
		if err != nil || (to == vault.FenceWritten && now.Ended(tx.Now())) {
			return err
		}
		if err := tx.SetFenceState(g.Grant, to); err != nil || to == vault.FenceWritten || from == vault.FenceClosed {
			return err
		}
		e := event(tx, vault.EventVaultCaughtUp, vault.Caller{}, g)
		if now.State == vault.GrantActive || now.State == vault.GrantApproved {
			e.Type = vault.EventGrantExpired
		}
		return tx.Append(e)
	})
	return err
}

// Sweep does what Vault is still owed and this process can do: fences of approved grants,
// removal of those of ended and expired ones, and of their tokens. At the first sign that Vault is
// away it ends; but the two are done with credentials of their own, so one sign does not end
// both. Requests that were not approved in time lapse. It is called at start and then regularly.
func (s *Service) Sweep(ctx context.Context) error {
	var lapsed, fences, tokens []vault.ID
	err := s.Ledger.View(ctx, func(tx Tx) (err error) {
		if s.Fences != nil {
			if lapsed, err = tx.LapseDue(tx.Now().Add(-vault.PendingTTL), sweepBatch); err != nil {
				return err
			}
			if fences, err = tx.FencesDue(tx.Now(), sweepBatch); err != nil {
				return err
			}
		}
		if s.Tokens != nil {
			tokens, err = tx.TokensDue(tx.Now(), sweepBatch)
		}
		return err
	})
	return errors.Join(err, each(ctx, lapsed, s.lapse), each(ctx, fences, s.fence), each(ctx, tokens, s.endTokens))
}

// lapse ends a request that was not approved in time.
func (s *Service) lapse(ctx context.Context, id vault.ID) error {
	_, err := s.Ledger.Update(ctx, func(tx Tx) error {
		g, err := tx.Grant(id)
		if err != nil || g.State != vault.GrantPending || !g.Lapsed(tx.Now()) {
			return err
		}
		return errors.Join(tx.SetGrantState(id, vault.GrantLapsed), tx.Append(event(tx, vault.EventGrantLapsed, vault.Caller{}, g)))
	})
	return err
}

// each does something at Vault for grants until Vault is away. Each has some time.
func each(ctx context.Context, grants []vault.ID, do func(context.Context, vault.ID) error) (failed error) {
	for _, id := range grants {
		within, cancel := context.WithTimeout(ctx, vaultTime)
		err := do(within, id)
		gone := away(within, err)
		cancel()
		if failed = errors.Join(failed, err); gone {
			break
		}
	}
	return failed
}
