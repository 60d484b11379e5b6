// Package tlog is the transparency log: a Merkle tree over the bytes of the events, so that
// rewriting them shows.
//
// The tree is RFC 6962's, as golang.org/x/mod/sumdb/tlog has it. Its size and root are signed
// as a checkpoint (C2SP tlog-checkpoint). An export is a directory in the C2SP tlog-tiles
// layout, which tools that know nothing of us can check. What was rewritten and signed anew
// shows in checkpoints that somebody else keeps: see [Kept].
//
// Whoever reads tiles from anywhere, our own database included, checks them against a root
// before it believes them.
package tlog

import (
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	// TileHeight is the number of tree levels in a tile, given by C2SP tlog-tiles.
	TileHeight = 8
	// TileWidth is the number of hashes in a full tile, and of entries in a full bundle.
	TileWidth = 1 << TileHeight
)

// Hash is the hash of a leaf, a node or a whole tree: SHA-256, as in RFC 6962.
type Hash = tlog.Hash

// LeafHash gives the hash of an entry.
func LeafHash(entry []byte) Hash { return tlog.RecordHash(entry) }

// ErrDamaged is in the chain of errors that say that stored tiles, entries and checkpoint do
// not fit each other.
var ErrDamaged = errors.New("the log is damaged")

// Tile is one tile: up to 256 hashes of one level. Level 0 holds the leaves' hashes, level 1
// the roots of level 0's full tiles, and so on.
type Tile struct {
	Level int
	Index int64
	Data  []byte // 32 bytes for each hash
}

// Width is the number of hashes in the tile.
func (t Tile) Width() int { return len(t.Data) / tlog.HashSize }

// Tiles reads stored tiles. Tile gives the hashes that are stored for a tile, as many as
// there are, nil when there is none. What it gives is not trusted.
type Tiles interface {
	Tile(level int, index int64) ([]byte, error)
}

// Edge is the right edge of a tree: the last tile of each level. It is all that growing the
// tree needs. The zero value is the empty tree's.
type Edge struct {
	size   int64
	levels [][]byte // at each tile level the hashes of the last, not yet full tile
}

// LoadEdge reads the edge of the tree of a checkpoint. Every hash of it has proved to belong
// to the checkpoint's root when it returns without error (ErrDamaged if not).
func LoadEdge(c Checkpoint, tiles Tiles) (*Edge, error) {
	e := &Edge{size: c.Size}
	for level := 0; c.Size>>(TileHeight*level) > 0; level++ {
		n := c.Size >> (TileHeight * level)
		width := int(n % TileWidth)
		if width == 0 {
			e.levels = append(e.levels, nil)
			continue
		}
		data, err := tiles.Tile(level, n/TileWidth)
		if err != nil {
			return nil, err
		}
		if len(data) < width*tlog.HashSize {
			return nil, fmt.Errorf("%w: %s has %d bytes, the checkpoint of size %d needs %d hashes in it",
				ErrDamaged, TilePath(level, n/TileWidth, 0), len(data), c.Size, width)
		}
		e.levels = append(e.levels, append([]byte(nil), data[:width*tlog.HashSize]...))
	}
	if root := e.Root(); root != c.Root {
		return nil, fmt.Errorf("%w: the last tiles do not add up to the root of the checkpoint of size %d", ErrDamaged, c.Size)
	}
	return e, nil
}

// Size is the number of leaves.
func (e *Edge) Size() int64 { return e.size }

// Append adds a leaf and gives the tiles that it filled, none for most leaves.
func (e *Edge) Append(leaf Hash) (full []Tile) {
	e.size++
	h := leaf
	for level := 0; ; level++ {
		if level == len(e.levels) {
			e.levels = append(e.levels, nil)
		}
		e.levels[level] = append(e.levels[level], h[:]...)
		if len(e.levels[level]) < TileWidth*tlog.HashSize {
			return full
		}
		t := Tile{Level: level, Index: e.size>>(TileHeight*(level+1)) - 1, Data: e.levels[level]}
		full = append(full, t)
		e.levels[level] = nil
		h = rootOf(t.Data)
	}
}

// Partial gives the tiles that are not full, lowest level first. Their data is a copy.
func (e *Edge) Partial() (out []Tile) {
	for level, data := range e.levels {
		if len(data) > 0 {
			out = append(out, Tile{Level: level, Index: e.size >> (TileHeight * (level + 1)), Data: append([]byte(nil), data...)})
		}
	}
	return out
}

// Root is the root of the tree.
func (e *Edge) Root() Hash {
	h, err := tlog.TreeHash(e.size, tlog.HashReaderFunc(e.read))
	if err != nil {
		panic("tlog: an edge lacks its own frontier: " + err.Error()) // wrong arithmetic above
	}
	return h
}

// read gives the hashes of the tree's frontier, out of the last tiles.
func (e *Edge) read(indexes []int64) ([]Hash, error) {
	out := make([]Hash, len(indexes))
	for i, index := range indexes {
		level, _ := tlog.SplitStoredHashIndex(index)
		k := level / TileHeight
		if k >= len(e.levels) {
			return nil, fmt.Errorf("no level %d", k)
		}
		data := e.levels[k]
		n := e.size >> (TileHeight * (k + 1))
		h, err := tlog.HashFromTile(tlog.Tile{H: TileHeight, L: k, N: n, W: len(data) / tlog.HashSize}, data, index)
		if err != nil {
			return nil, err
		}
		out[i] = h
	}
	return out, nil
}

// rootOf gives the root over the hashes of a full tile.
func rootOf(data []byte) Hash {
	if len(data) == tlog.HashSize {
		return Hash(data)
	}
	half := len(data) / 2
	return tlog.NodeHash(rootOf(data[:half]), rootOf(data[half:]))
}

// clone gives an edge of its own.
func (e *Edge) clone() *Edge {
	out := &Edge{size: e.size, levels: make([][]byte, len(e.levels))}
	for i, data := range e.levels {
		out.levels[i] = append([]byte(nil), data...)
	}
	return out
}
