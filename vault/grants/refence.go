package grants

import (
	"context"

	"github.com/portcullis/portcullis/vault"
)

// Refence makes Vault follow the rows of those grants that have ended, whatever the rows say
// that Vault was told: it may have been restored since. Grants that there are not are taken for
// ended. It leaves alone those that go on. Idempotent; it ends at the first failure.
func (s *Service) Refence(ctx context.Context, grants []vault.ID) error {
	for _, id := range grants {
		if err := s.refence(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) refence(ctx context.Context, id vault.ID) error {
	s.fencing.Lock()
	defer s.fencing.Unlock()
	ended, forget := true, false
	err := s.Ledger.View(ctx, func(tx Tx) error {
		g, err := tx.Grant(id)
		if vault.KindOf(err) == vault.NotFound {
			return nil
		}
		if err != nil {
			return err
		}
		now := tx.Now()
		ended = g.Ended(now)
		// Only an end that was signed lets Vault forget the grant.
		forget = !now.Before(g.Ends) && s.prove(tx, g) == nil
		return nil
	})
	switch {
	case err != nil || !ended:
		return err
	case forget:
		return s.Fences.DeleteFence(ctx, id)
	}
	return s.Fences.CloseFence(ctx, id)
}
