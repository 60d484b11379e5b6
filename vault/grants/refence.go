package grants

import (
	"context"
	"errors"

	"github.com/portcullis/portcullis/vault"
)

// Refence makes Vault follow the rows of those grants that have ended, whatever the rows say
// that Vault was told: it may have been restored since. Grants that there are not are taken for
// ended, and so are those in told, whatever their rows say. It leaves alone those that go on, and
// those whose rows can not be read: it gives these. Idempotent. A failure keeps none of the others,
// unless Vault or the database is away.
func (s *Service) Refence(ctx context.Context, grants []vault.ID, told map[vault.ID]bool) (damaged []vault.ID, failed error) {
	for _, id := range grants {
		bad, err := s.refence(ctx, id, told[id])
		if bad {
			damaged = append(damaged, id)
		}
		if failed = errors.Join(failed, err); vault.KindOf(err) == vault.Unavailable || ctx.Err() != nil {
			return damaged, failed
		}
	}
	return damaged, failed
}

func (s *Service) refence(ctx context.Context, id vault.ID, told bool) (damaged bool, err error) {
	unlock, err := s.fencing.lock(ctx, id)
	if err != nil {
		return false, err
	}
	defer unlock()
	ended, forget := true, false
	err = s.Ledger.View(ctx, func(tx Tx) error {
		g, err := tx.Grant(id)
		if vault.KindOf(err) == vault.NotFound {
			return nil
		}
		if damaged = vault.KindOf(err) == vault.DataLoss; damaged {
			ended = told
			return nil
		}
		if err != nil {
			return err
		}
		now := tx.Now()
		ended = told || g.Ended(now)
		// Only an end that was signed lets Vault forget the grant.
		forget = !now.Before(g.Ends) && s.prove(tx, g) == nil
		return nil
	})
	switch {
	case err != nil || !ended:
		return damaged, err
	case forget:
		return damaged, s.Fences.DeleteFence(ctx, id)
	}
	return damaged, s.Fences.CloseFence(ctx, id)
}
