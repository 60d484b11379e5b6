package grants

import (
	"context"
	"errors"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// Activate gives the grantee a token. An earlier token of the grant ends, and the end of
// the grant does not move. Of a strict purpose the token has as many uses as the grant has
// records, and a later one as many as the one before had left when it was ended.
func (s *Service) Activate(ctx context.Context, c vault.Caller, id vault.ID) (g vault.Grant, t vault.Token, err error) {
	g, strict, err := s.check(ctx, c, id)
	if err != nil {
		return g, vault.Token{}, err
	}
	if err := s.fenced(ctx, id); err != nil {
		return g, vault.Token{}, err
	}
	var uses int64 // 0: Vault does not count
	if strict {
		if uses, err = s.carry(ctx, c, g); err != nil {
			return g, vault.Token{}, err
		}
	}
	var now time.Time
	if err := s.Ledger.View(ctx, func(tx Tx) error { now = tx.Now(); return nil }); err != nil {
		return g, vault.Token{}, err
	}
	ttl := g.Ends.Sub(now).Truncate(time.Second)
	if ttl < time.Second {
		return g, vault.Token{}, vault.E(vault.State, vault.ReasonGrantExpired, "grant %s ended at %s", id, vault.FormatTime(g.Ends))
	}
	t, accessor, err := s.Tokens.Mint(ctx, id, g.Contractor, g.Epoch, ttl, uses)
	if err != nil {
		return g, vault.Token{}, err
	}
	var refused error
	_, err = s.Ledger.Update(ctx, func(tx Tx) error {
		if g, _, refused = s.activation(tx, c, id); refused == nil && strict {
			refused = s.settle(tx, g, uses)
		}
		if refused != nil {
			return errors.Join(tx.OweToken(id, accessor), refuse(tx, c, vault.Grant{Terms: vault.Terms{Grant: id}}, refused))
		}
		if g.Accessor != "" {
			if err := tx.OweToken(id, g.Accessor); err != nil {
				return err
			}
		}
		g.State = vault.GrantActive
		return errors.Join(
			tx.SetGrantState(id, g.State), tx.SetGrantToken(id, t.Digest(), accessor),
			tx.Append(event(tx, vault.EventGrantActivated, c, g)))
	})
	if err != nil {
		// The token was given to nobody. Should this fail too, the fence's removal ends it.
		return g, vault.Token{}, errors.Join(err, s.Tokens.RevokeToken(context.WithoutCancel(ctx), accessor))
	}
	// An earlier token is not honoured here any more. Until Vault has ended it too, nothing
	// is given out; the grantee activates again.
	err = s.endTokens(context.WithoutCancel(ctx), id)
	if err := errors.Join(refused, err); err != nil {
		return g, vault.Token{}, err
	}
	return g, t, nil
}

func (s *Service) check(ctx context.Context, c vault.Caller, id vault.ID) (g vault.Grant, strict bool, err error) {
	var refused error
	_, err = s.Ledger.Update(ctx, func(tx Tx) error {
		if g, strict, refused = s.activation(tx, c, id); refused != nil {
			return refuse(tx, c, vault.Grant{Terms: vault.Terms{Grant: id}}, refused)
		}
		return nil
	})
	return g, strict, errors.Join(err, refused)
}

// activation says whether the caller may activate the grant now, and whether its purpose is strict.
func (s *Service) activation(tx Tx, c vault.Caller, id vault.ID) (g vault.Grant, strict bool, err error) {
	if g, err = own(tx, c, id); err != nil {
		return g, false, err
	}
	if err := g.Usable(tx.Now()); err != nil {
		return g, false, err
	}
	p, err := s.lawful(tx, g)
	if err != nil {
		return g, false, err
	}
	if err := s.prove(tx, g); err != nil {
		return g, false, err
	}
	return g, p.Strict, s.apart(tx, p, g, activated)
}

// own gives the grant if the caller is its grantee, in good standing.
func own(tx Tx, c vault.Caller, id vault.ID) (vault.Grant, error) {
	g, err := tx.Grant(id)
	if vault.KindOf(err) == vault.NotFound || (err == nil && g.Grantee != c.ID) {
		return g, unknown(id)
	}
	if err != nil {
		return g, err
	}
	return g, tx.Standing(c)
}

// unknown is what strangers hear of a grant.
func unknown(id vault.ID) error {
	return vault.E(vault.NotFound, vault.ReasonGrantUnknown, "grant %s is unknown, or not yours", id)
}
