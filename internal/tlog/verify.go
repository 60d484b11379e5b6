package tlog

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Verified is what a verification found.
type Verified struct {
	Checkpoint Checkpoint
	Kept       int      // checkpoints kept elsewhere that the log fits
	Findings   []string // what is wrong, at most 100; none when the log is sound
}

const maxFindings = 100

// Verify checks an export, offline and without believing any of it but what the key signed:
// the checkpoint's signature, each entry and each tile against the checkpoint's root, and the
// checkpoints that somebody kept. The error is for what could not be read; what is wrong with
// the log is in the findings. step hears how many entries are done, of all.
func (d Dir) Verify(ctx context.Context, key note.Verifier, kept []Kept, step func(done, all int64)) (Verified, error) {
	signed, err := d.Checkpoint()
	if err != nil {
		return Verified{}, err
	}
	if signed == nil {
		return Verified{}, fmt.Errorf("%s is no export: it has no file checkpoint", d)
	}
	return verify(ctx, d, signed, key, kept, step)
}

// stored is a log whose parts are to be verified. What there is none of is nil.
type stored interface {
	Tiles
	// bundle gives the bytes of a bundle of the width.
	bundle(index int64, width int) ([]byte, error)
	// tile gives a tile of the width.
	tile(level int, index int64, width int) ([]byte, error)
}

func (d Dir) bundle(index int64, width int) ([]byte, error) {
	return d.read(BundlePath(index, width), maxBundle)
}

func (d Dir) tile(level int, index int64, width int) ([]byte, error) {
	return d.read(TilePath(level, index, width), TileWidth*tlog.HashSize)
}

func verify(ctx context.Context, log stored, signed []byte, key note.Verifier, kept []Kept, step func(done, all int64)) (out Verified, err error) {
	kept = slices.SortedFunc(slices.Values(kept), func(a, b Kept) int { return cmp.Compare(a.Size, b.Size) })
	v := &verifier{log: log, kept: kept, edge: &Edge{}}
	if v.out.Checkpoint, err = Open(signed, key); err != nil {
		v.found("checkpoint: %v", err)
		return v.out, nil
	}
	size := v.out.Checkpoint.Size
	v.compareKept()
	for index := int64(0); index*TileWidth < size; index++ {
		if err := ctx.Err(); err != nil {
			return v.out, err
		}
		if err := v.bundle(index, int(min(TileWidth, size-index*TileWidth))); err != nil {
			return v.out, err
		}
		step(v.edge.Size(), size)
	}
	for _, t := range v.edge.Partial() {
		if err := v.tile(t); err != nil {
			return v.out, err
		}
	}
	v.conclude()
	return v.out, nil
}

// verifier goes through an export once, from the first entry to the last.
type verifier struct {
	log  stored
	kept []Kept
	edge *Edge // of the entries, or of what stands in for damaged ones
	out  Verified
	// unlike are tiles that differ from what the entries add up to. Which of the two is wrong
	// is known at the end.
	unlike []string
	next   int // of the kept ones, which stand in the order of their sizes
}

func (v *verifier) found(format string, args ...any) {
	if len(v.out.Findings) < maxFindings {
		v.out.Findings = append(v.out.Findings, fmt.Sprintf(format, args...))
	}
}

// bundle adds the entries of a bundle to the tree.
func (v *verifier) bundle(index int64, width int) error {
	name := BundlePath(index, width)
	b, err := v.log.bundle(index, width)
	if err != nil {
		return err
	}
	entries, err := SplitBundle(b)
	switch {
	case b == nil:
		v.found("%s is missing", name)
	case err != nil:
		v.found("%s is damaged: %v", name, err)
	case len(entries) != width:
		v.found("%s has %d entries; the checkpoint says %d", name, len(entries), width)
	}
	leaves := make([]Hash, width)
	for i := range min(width, len(entries)) {
		leaves[i] = LeafHash(entries[i])
	}
	stored, err := v.log.tile(0, index, width)
	if err != nil {
		return err
	}
	if !bytes.Equal(stored, join(leaves)) {
		// If the tile is proved, the entries are wrong, and the tile can stand in for them.
		if proved, err := ReadTile(v.out.Checkpoint, 0, index, width, v.log); err == nil {
			found := compare(index, entries, proved)
			if len(found) == 0 { // whatever the words for it would be
				found = []string{"its entries are not those that were logged, in their order"}
			}
			for _, f := range found {
				v.found("%s: %s", name, f)
			}
			for i := range leaves {
				leaves[i] = Hash(proved[i*tlog.HashSize : (i+1)*tlog.HashSize])
			}
		}
	}
	for _, leaf := range leaves {
		for _, t := range v.edge.Append(leaf) {
			if err := v.tile(t); err != nil {
				return err
			}
		}
		v.compareKept()
	}
	return nil
}

// tile compares a tile that the entries add up to with the one that is stored.
func (v *verifier) tile(t Tile) error {
	name := TilePath(t.Level, t.Index, t.Width())
	stored, err := v.log.tile(t.Level, t.Index, t.Width())
	if err != nil {
		return err
	}
	switch {
	case stored == nil:
		v.found("%s is missing", name)
	case !bytes.Equal(stored, t.Data):
		v.unlike = append(v.unlike, name)
	}
	return nil
}

// compareKept compares the tree with the checkpoints of its size that somebody kept.
func (v *verifier) compareKept() {
	for ; v.next < len(v.kept) && v.kept[v.next].Size == v.edge.Size(); v.next++ {
		if k := v.kept[v.next]; k.Root == v.edge.Root() {
			v.out.Kept++
		} else {
			v.found("the log was rewritten: its first %d entries are not those of the checkpoint kept in %s. Both are signed with the log's key: keep both, they prove it", k.Size, k.Where)
		}
	}
}

// conclude compares the whole with the checkpoint, and says which tiles are wrong.
func (v *verifier) conclude() {
	c := v.out.Checkpoint
	for _, k := range v.kept {
		if k.Size > c.Size {
			v.found("the log was rolled back: it has %d entries here, the checkpoint kept in %s has %d", c.Size, k.Where, k.Size)
		}
	}
	if v.edge.Root() == c.Root {
		for _, name := range v.unlike {
			v.found("%s is damaged: it does not hold the hashes that the entries add up to", name)
		}
		return
	}
	if len(v.unlike) > 0 {
		v.found("the entries do not add up to the checkpoint's root; those below %s differ", v.unlike[0])
		return
	}
	v.found("the entries and the tiles fit each other, but do not add up to the root that the log's key signed: they were rewritten")
}

func join(hashes []Hash) []byte {
	out := make([]byte, 0, len(hashes)*tlog.HashSize)
	for _, h := range hashes {
		out = append(out, h[:]...)
	}
	return out
}
