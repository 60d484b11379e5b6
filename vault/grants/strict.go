package grants

import (
	"context"
	"errors"

	"github.com/portcullis/portcullis/vault"
)

// Of a strict purpose Vault counts how often a grant's tokens are shown. What may still be used
// stands in one place only: in the newest token or, while there is none, in the grant's row. So
// a crash loses nothing of it, but for one between the end of a token at Vault and the commit that
// forgets it: that token then looks used up, and so is the grant. Nothing but the terms, which
// are signed, and a look at Vault makes it grow. A token that was minted but not recorded
// was given to nobody.

// carry ends the newest token of a strict grant and gives how many uses the next one may have. The
// look at Vault and the end of the token there follow one another at once: what is used between
// them comes on top.
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

// used lowers what a strict grant may still use to what a token has left that is about to end. Of
// others it does nothing.
func (s *Service) used(ctx context.Context, g vault.Grant, accessor string) error {
	var n int64
	if err := s.Ledger.View(ctx, func(tx Tx) (err error) {
		n, err = tx.UsesLeft(g.Grant)
		return err
	}); err != nil || n <= 0 {
		return err
	}
	left, err := s.Tokens.Uses(ctx, accessor)
	if err != nil || left >= n {
		return err
	}
	_, err = s.Ledger.Update(ctx, func(tx Tx) error {
		n, err := tx.UsesLeft(g.Grant)
		if err != nil || left >= n {
			return err
		}
		return tx.SetUsesLeft(g.Grant, left)
	})
	return err
}
