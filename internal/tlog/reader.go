package tlog

import (
	"context"
	"errors"
	"fmt"
)

// ErrRange is in the chain of errors that say that the log has no such entry, size or tile.
var ErrRange = errors.New("the log does not have it")

// Reader answers questions about the tree in a ledger. It vouches for nothing: whoever asks
// checks the signature of the checkpoint, and the proofs. What does not fit the checkpoint is
// ErrDamaged all the same, so that an honest service does not give it.
type Reader struct{ Ledger Ledger }

// Checkpoint gives the newest signed checkpoint, nil when there is none yet.
func (r Reader) Checkpoint(ctx context.Context) (signed []byte, err error) {
	err = r.Ledger.View(ctx, func(tx Tx) error {
		signed, err = tx.SignedCheckpoint()
		return err
	})
	return signed, err
}

// ProveEntry proves that an entry is in the tree of a size: see [ProveEntry].
func (r Reader) ProveEntry(ctx context.Context, size, index int64) (proof []Hash, err error) {
	err = r.view(ctx, func(c Checkpoint, tiles Tiles) error {
		proof, err = ProveEntry(c, size, index, tiles)
		return err
	})
	return proof, err
}

// ProveConsistency proves that the tree of size to begins with that of size from: see
// [ProveConsistency].
func (r Reader) ProveConsistency(ctx context.Context, from, to int64) (proof []Hash, err error) {
	err = r.view(ctx, func(c Checkpoint, tiles Tiles) error {
		proof, err = ProveConsistency(c, from, to, tiles)
		return err
	})
	return proof, err
}

// Tile gives the first width hashes of a tile: see [ReadTile].
func (r Reader) Tile(ctx context.Context, level int, index int64, width int) (hashes []byte, err error) {
	err = r.view(ctx, func(c Checkpoint, tiles Tiles) error {
		hashes, err = ReadTile(c, level, index, width, tiles)
		return err
	})
	return hashes, err
}

// view runs fn on the newest checkpoint and the tiles of one state.
func (r Reader) view(ctx context.Context, fn func(Checkpoint, Tiles) error) error {
	return r.Ledger.View(ctx, func(tx Tx) error {
		signed, err := tx.SignedCheckpoint()
		if err != nil {
			return err
		}
		c, err := unverified(signed)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return fn(c, tx)
	})
}
