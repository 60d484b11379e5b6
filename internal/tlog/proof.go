package tlog

import (
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// ProveEntry gives the audit path of an entry in the tree of a size, from the leaf up
// (RFC 6962, 2.1.1). c is the newest checkpoint; what the path is made of has proved to
// belong to it (ErrDamaged if not).
func ProveEntry(c Checkpoint, size, index int64, tiles Tiles) ([]Hash, error) {
	if size > c.Size || index < 0 || index >= size {
		return nil, fmt.Errorf("%w: entry %d of %d; there are %d", ErrRange, index, size, c.Size)
	}
	proof, err := tlog.ProveRecord(size, index, hashes(c, tiles))
	if err != nil {
		return nil, fmt.Errorf("prove entry %d of %d: %w", index, size, err)
	}
	return proof, nil
}

// CheckEntry says whether the proof shows that the tree of a checkpoint has an entry at index.
func CheckEntry(c Checkpoint, index int64, entry []byte, proof []Hash) error {
	if err := tlog.CheckRecord(proof, c.Size, c.Root, index, LeafHash(entry)); err != nil {
		return fmt.Errorf("%w: entry %d is not proved to be in the log of size %d", ErrDamaged, index, c.Size)
	}
	return nil
}

// ProveConsistency proves that the tree of size to begins with the leaves of the tree of size
// from (RFC 6962, 2.1.2). The proof is empty when from is 0 or the same as to. c is the newest
// checkpoint; what the proof is made of has proved to belong to it (ErrDamaged if not).
func ProveConsistency(c Checkpoint, from, to int64, tiles Tiles) ([]Hash, error) {
	if from < 0 || from > to || to > c.Size {
		return nil, fmt.Errorf("%w: %d entries, the first of %d; there are %d", ErrRange, from, to, c.Size)
	}
	if from == 0 || from == to {
		return nil, nil
	}
	proof, err := tlog.ProveTree(to, from, hashes(c, tiles))
	if err != nil {
		return nil, fmt.Errorf("prove that a log of %d entries begins with %d: %w", to, from, err)
	}
	return proof, nil
}

// CheckConsistency says whether the proof shows that the newer checkpoint's tree begins with
// the older one's. An error means that the log was rewritten, or that the proof is of others.
func CheckConsistency(older, newer Checkpoint, proof []Hash) error {
	if older.Size > newer.Size {
		return fmt.Errorf("the checkpoint of size %d is the older one", newer.Size)
	}
	switch {
	case older.Size == 0 && older.Root == emptyRoot && len(proof) == 0:
		return nil
	case older.Size == newer.Size && older.Root == newer.Root && len(proof) == 0:
		return nil
	case older.Size > 0 && older.Size < newer.Size && tlog.CheckTree(proof, newer.Size, newer.Root, older.Size, older.Root) == nil:
		return nil
	}
	return fmt.Errorf("%w: the log of size %d does not begin with the one of size %d", ErrDamaged, newer.Size, older.Size)
}

var emptyRoot = new(Edge).Root()

// ReadTile gives the first width hashes of a tile, after they proved to be in the tree of a
// checkpoint.
func ReadTile(c Checkpoint, level int, index int64, width int, tiles Tiles) ([]byte, error) {
	t := tlog.Tile{H: TileHeight, L: level, N: index, W: width}
	leaves := c.Size >> (TileHeight * min(max(level, 0), 7)) // hashes of that level
	if level < 0 || level > 7 || index < 0 || index > leaves/TileWidth || width < 1 || width > TileWidth || index*TileWidth+int64(width) > leaves {
		return nil, fmt.Errorf("%w: tile %d of level %d with %d hashes; there are %d entries", ErrRange, index, level, width, c.Size)
	}
	data, err := tlog.ReadTileData(t, hashes(c, tiles))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", TilePath(level, index, width), err)
	}
	return data, nil
}

// hashes reads hashes that have proved to be in the tree of a checkpoint.
func hashes(c Checkpoint, tiles Tiles) tlog.HashReader {
	r := &reader{tiles: tiles}
	proved := tlog.TileHashReader(tlog.Tree{N: c.Size, Hash: c.Root}, r)
	return tlog.HashReaderFunc(func(indexes []int64) ([]Hash, error) {
		out, err := proved.ReadHashes(indexes)
		if err != nil && r.failed == nil {
			err = fmt.Errorf("%w: %w", ErrDamaged, err) // not the reading failed, but the proof
		}
		return out, err
	})
}

// reader gives tiles in the width that is asked for.
type reader struct {
	tiles  Tiles
	failed error // the error of reading, if there was one
}

func (r *reader) Height() int { return TileHeight }

func (r *reader) ReadTiles(want []tlog.Tile) ([][]byte, error) {
	out := make([][]byte, len(want))
	for i, t := range want {
		data, err := r.tiles.Tile(t.L, t.N)
		if err != nil {
			r.failed = err
			return nil, err
		}
		if len(data) < t.W*tlog.HashSize {
			return nil, fmt.Errorf("%s has %d bytes", TilePath(t.L, t.N, t.W), len(data))
		}
		out[i] = data[:t.W*tlog.HashSize]
	}
	return out, nil
}

func (r *reader) SaveTiles([]tlog.Tile, [][]byte) {}
