package tlog

import (
	"context"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Verify checks the tree in a ledger against the events beside it, as [Dir.Verify] does with
// an export. A log without a checkpoint is sound as long as it has no tiles.
func (r Reader) Verify(ctx context.Context, key note.Verifier, kept []Kept, step func(done, all int64)) (Verified, error) {
	signed, err := r.Checkpoint(ctx)
	if err != nil {
		return Verified{}, err
	}
	if signed == nil {
		v := &verifier{kept: kept, edge: &Edge{}}
		v.out.Checkpoint = Checkpoint{Origin: key.Name(), Root: emptyRoot}
		for level := range 3 {
			if hashes, err := (inLedger{ctx, r.Ledger}).Tile(level, 0); err != nil {
				return Verified{}, err
			} else if hashes != nil {
				v.found("%s is there, and no checkpoint: it was removed", TilePath(level, 0, 0))
			}
		}
		v.conclude()
		return v.out, nil
	}
	return verify(ctx, inLedger{ctx, r.Ledger}, signed, key, kept, step)
}

// inLedger reads the parts of a log out of a ledger: the tree only grows, so that parts read
// one after the other fit the checkpoint that was read first.
type inLedger struct {
	ctx    context.Context // lives as long as the verification
	ledger Ledger
}

func (l inLedger) Tile(level int, index int64) (hashes []byte, err error) {
	err = l.ledger.View(l.ctx, func(tx Tx) error {
		hashes, err = tx.Tile(level, index)
		return err
	})
	return hashes, err
}

func (l inLedger) tile(level int, index int64, width int) ([]byte, error) {
	hashes, err := l.Tile(level, index)
	return hashes[:min(len(hashes), width*tlog.HashSize)], err
}

func (l inLedger) bundle(index int64, width int) (bundle []byte, err error) {
	err = l.ledger.View(l.ctx, func(tx Tx) error {
		end := index*TileWidth + int64(width)
		for at := index * TileWidth; at < end; {
			entries, err := tx.Leaves(at, int(end-at), maxBundle)
			if err != nil {
				return err
			}
			for _, e := range entries {
				if bundle, err = AppendEntry(bundle, e); err != nil {
					return err
				}
			}
			at += max(1, int64(len(entries))) // behind one that is missing, others may be there
		}
		return nil
	})
	return bundle, err
}
