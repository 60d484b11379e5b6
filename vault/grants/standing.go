package grants

import (
	"context"

	"github.com/portcullis/portcullis/vault"
)

// suspended says whether the caller of a SPIFFE ID is suspended, one by one: not whether its
// contractor is.
func suspended(tx Tx, id string) (bool, error) {
	err := tx.Standing(vault.Caller{ID: id})
	if vault.ReasonOf(err) == vault.ReasonCallerSuspended {
		return true, nil
	}
	return false, err
}

// counted leaves out the signatures of admins that are suspended by now. It is for what still
// waits for signatures: what was approved stays so.
func counted(tx Tx, sigs []vault.Signature) (out []vault.Signature, err error) {
	for _, sig := range sigs {
		gone, err := suspended(tx, sig.Signer)
		if err != nil {
			return nil, err
		}
		if !gone {
			out = append(out, sig)
		}
	}
	return out, nil
}

// Disarm ends at Vault what it still allows of a grant that has ended: its policy at the next
// call, and where this process may, its token. Idempotent; of a grant that has not ended it
// changes nothing but what is owed.
func (s *Service) Disarm(ctx context.Context, id vault.ID) error { return s.disarm(ctx, id) }
