package grants

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// Of a strict purpose Vault counts how often a grant's tokens are shown. What may still be used
// stands in one place only: in the newest token or, while there is none, in the grant's row. So
// a crash loses nothing of it, but for one between the end of a token at Vault and the commit that
// forgets it: that token then looks used up, and so is the grant. Nothing but the terms, which
// are signed, and a look at Vault makes it grow. A token that was minted but not recorded
// was given to nobody. What may have been used between the last look at a token and its end is
// forfeited, for nothing tells of it.

// carry ends the newest token of a strict grant and gives how many uses the next one may have: what
// the last look at Vault showed, less what the token may have had of uses until it had ended.
func (s *Service) carry(ctx context.Context, c vault.Caller, g vault.Grant) (uses int64, err error) {
	unlock, err := s.ending.lock(ctx, g.Grant)
	if err != nil {
		return 0, err
	}
	defer unlock()
	if g.Accessor != "" {
		left, err := s.Tokens.Uses(ctx, g.Accessor)
		if err != nil {
			return 0, err
		}
		if _, err := s.Ledger.Update(ctx, func(tx Tx) error {
			now, err := tx.Grant(g.Grant)
			if err == nil && now.Accessor != g.Accessor {
				err = overtaken(g.Grant)
			}
			if err != nil {
				return err
			}
			return errors.Join(tx.OweToken(g.Grant, g.Accessor), tx.SetGrantToken(g.Grant, vault.Digest{}, ""),
				tx.SetUsesLeft(g.Grant, min(max(left, 0), g.MaxRecords)))
		}); err != nil {
			return 0, err
		}
	}
	if err := s.endOwed(context.WithoutCancel(ctx), g.Grant); err != nil {
		return 0, err
	}
	var refused error
	_, err = s.Ledger.Update(ctx, func(tx Tx) error {
		refused = nil
		if uses, err = left(tx, g); err != nil || uses > 0 {
			return err
		}
		refused = vault.E(vault.State, vault.ReasonUsesSpent, "grant %s has no uses left of the %d that Vault counts; request another", g.Grant, g.MaxRecords)
		return refuse(tx, c, vault.Grant{Terms: vault.Terms{Grant: g.Grant}}, refused)
	})
	return uses, errors.Join(err, refused)
}

// left gives how many uses a new token of a strict grant may have.
func left(tx Tx, g vault.Grant) (int64, error) {
	n, err := tx.UsesLeft(g.Grant)
	if n < 0 { // none was counted yet
		n = g.MaxRecords
	}
	return min(n, g.MaxRecords), err
}

// settle moves what may still be used into the token that was just minted, if nothing else did.
func (s *Service) settle(tx Tx, g vault.Grant, uses int64) error {
	n, err := left(tx, g)
	if err != nil {
		return err
	}
	if g.Accessor != "" || n != uses {
		return overtaken(g.Grant)
	}
	return tx.SetUsesLeft(g.Grant, 0)
}

func overtaken(id vault.ID) error {
	return vault.E(vault.State, vault.ReasonGrantToken, "grant %s was activated by another call at the same time; activate again", id)
}

// maxUsesPerSecond is how often one token can be used at Vault in a second, at most: one that counts
// its uses writes each down, and was measured at 700 a second on two cores.
const maxUsesPerSecond = 2000

// forfeit is how many uses a token may have had while that long went by: Vault does not tell how
// often one was used that has ended.
func forfeit(d time.Duration) int64 {
	return 1 + (max(int64(d), 0)*maxUsesPerSecond+int64(time.Second)-1)/int64(time.Second)
}

// revoke ends a token of a grant at Vault, and forgets it. If Vault counts the grant's uses, what
// may still be used is lowered, in the same commit, to what the token had left at a look just
// before, less what it may have had of uses since.
func (s *Service) revoke(ctx context.Context, id vault.ID, accessor string, counts bool) error {
	var rest int64 = math.MaxInt64
	began := time.Now() // what goes by is real, whatever the clock of the service shows
	if counts {
		seen, err := s.Tokens.Uses(ctx, accessor)
		if err != nil {
			return err
		}
		rest = seen
	}
	if err := s.Tokens.RevokeToken(ctx, accessor); err != nil {
		return err
	}
	if counts {
		rest = max(rest-forfeit(time.Since(began)), 0)
	}
	_, err := s.Ledger.Update(ctx, func(tx Tx) error {
		n, err := tx.UsesLeft(id)
		if err == nil && rest < n {
			err = tx.SetUsesLeft(id, rest)
		}
		if err != nil {
			return err
		}
		return tx.DropAccessor(id, accessor)
	})
	return err
}
