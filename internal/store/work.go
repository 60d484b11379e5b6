package store

import (
	"context"

	"github.com/google/uuid"

	"github.com/portcullis/portcullis/vault"
)

// Work gives what waits for admins or for HashiCorp Vault, as of one moment, naming at most
// so many decisions.
func (s *Store) Work(ctx context.Context, most int) (w vault.Work, err error) {
	err = s.View(ctx, func(t *Tx) (err error) {
		w, err = t.work(most)
		return err
	})
	return w, err
}

func (t *Tx) work(most int) (w vault.Work, err error) {
	const open = "FROM decisions WHERE effective = 0 AND expires > $1"
	if _, err := t.get("SELECT count(*) "+open, []any{micros(t.now)}, &w.OpenCount); err != nil {
		return w, err
	}
	var ids []vault.ID
	err = t.each("SELECT id "+open+" ORDER BY created_at DESC, id LIMIT $2", []any{micros(t.now), most}, func(scan func(...any) error) error {
		var text string
		if err := scan(&text); err != nil {
			return err
		}
		id, err := uuid.Parse(text)
		if err != nil {
			return vault.E(vault.DataLoss, vault.ReasonDataLoss, "the decision's row is damaged").Because(err)
		}
		ids = append(ids, id)
		return nil
	})
	if err != nil {
		return w, err
	}
	for _, id := range ids {
		p, err := t.Decision(id)
		if err != nil {
			return w, err
		}
		w.Open = append(w.Open, p)
	}
	w.Keys = map[vault.KeyState]int64{}
	err = t.each("SELECT key_state, count(*) FROM records WHERE key_state IN ('revoking', 'restoring', 'destroying') GROUP BY key_state", nil,
		func(scan func(...any) error) error {
			var state vault.KeyState
			var n int64
			if err := scan(&state, &n); err != nil {
				return err
			}
			w.Keys[state] = n
			return nil
		})
	return w, err
}
