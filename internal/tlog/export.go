package tlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Source is the log that an export is made of. Nothing that it gives is trusted.
type Source interface {
	// Checkpoint gives the newest signed checkpoint.
	Checkpoint(ctx context.Context) ([]byte, error)
	// Entries gives the entries from one index up to before another, in their order.
	Entries(ctx context.Context, from, to int64, each func(entry []byte) error) error
	// Tile gives the first width hashes of a tile of the tree of the size.
	Tile(ctx context.Context, size int64, level int, index int64, width int) ([]byte, error)
}

// Export brings a directory up to the newest checkpoint of a log, and gives that checkpoint.
// What the directory has is not asked for again: after an interruption, or some days later,
// the export goes on where it was. The new checkpoint is written last, so that whoever reads
// the directory meanwhile finds a whole log. step hears how many entries are done, of all.
//
// Every entry has proved to belong to the signed checkpoint before that is written. If they
// do not fit, the error is ErrDamaged and names what differs, the directory keeps the checkpoint
// that it had. ErrRewritten says that this and the newest one contradict each other; both are
// then in the directory, as the evidence. Two exports must not write one directory at once.
func (d Dir) Export(ctx context.Context, src Source, key note.Verifier, step func(done, all int64)) (Checkpoint, error) {
	signed, err := src.Checkpoint(ctx)
	if err != nil {
		return Checkpoint{}, err
	}
	newest, err := Open(signed, key)
	if err != nil {
		return Checkpoint{}, err
	}
	had, err := d.opened(key)
	if err != nil {
		return Checkpoint{}, err
	}
	if had.Size > newest.Size {
		return Checkpoint{}, fmt.Errorf("%w: it was rolled back: this export has %d entries, the service says that there are %d", ErrDamaged, had.Size, newest.Size)
	}
	w := &writer{dir: d, edge: &Edge{}, had: had, all: newest.Size, step: step, touched: map[string]bool{}}
	if err := w.local(ctx); err != nil {
		return Checkpoint{}, fmt.Errorf("export to %s: %w", d, err)
	}
	if err := w.fetch(ctx, src, newest); errors.Is(err, ErrRewritten) {
		return Checkpoint{}, errors.Join(err, d.write(conflictFile, signed))
	} else if err != nil {
		return Checkpoint{}, err
	}
	if err := w.finish(signed); err != nil {
		return Checkpoint{}, fmt.Errorf("export to %s: %w", d, err)
	}
	return newest, nil
}

// opened gives the directory's checkpoint, the empty log's if it has none.
func (d Dir) opened(key note.Verifier) (Checkpoint, error) {
	signed, err := d.Checkpoint()
	if err != nil {
		return Checkpoint{}, err
	}
	if signed == nil {
		return Checkpoint{Origin: key.Name(), Root: emptyRoot}, nil
	}
	c, err := Open(signed, key)
	if err != nil {
		return c, fmt.Errorf("%s: %w", d.path(checkpointFile), err)
	}
	return c, nil
}

// writer writes what an export lacks.
type writer struct {
	dir     Dir
	edge    *Edge
	had     Checkpoint // of the directory before
	all     int64      // entries in the end
	step    func(done, all int64)
	bundle  []byte
	touched map[string]bool // a file in each directory that has new names
}

// local takes up what the directory has: first the tree of its checkpoint, then full bundles
// that an interrupted export left.
func (w *writer) local(ctx context.Context) (err error) {
	if w.edge, err = LoadEdge(w.had, w.dir); err != nil {
		return err
	}
	if at := w.edge.Size() % TileWidth; at != 0 { // the entries of the last, partial bundle
		entries, err := w.entries(w.edge.Size() / TileWidth)
		if err != nil {
			return err
		}
		if int64(len(entries)) < at {
			return fmt.Errorf("%w: %s has %d entries, the checkpoint says %d", ErrDamaged, BundlePath(w.edge.Size()/TileWidth, int(at)), len(entries), at)
		}
		// They go on into a wider bundle, so a change of theirs would go with them.
		if found := compare(w.edge.Size()/TileWidth, entries[:at], w.edge.levels[0]); len(found) > 0 {
			return fmt.Errorf("%w: %s: %s", ErrDamaged, BundlePath(w.edge.Size()/TileWidth, int(at)), strings.Join(found, "; "))
		}
		for _, e := range entries[:at] {
			if w.bundle, err = AppendEntry(w.bundle, e); err != nil {
				return err
			}
		}
	}
	for w.edge.Size()+TileWidth-w.edge.Size()%TileWidth <= w.all {
		entries, err := w.entries(w.edge.Size() / TileWidth)
		if err != nil || len(entries) != TileWidth {
			return err
		}
		for _, e := range entries[w.edge.Size()%TileWidth:] {
			if err := w.add(e); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) entries(index int64) ([][]byte, error) {
	b, err := w.dir.Bundle(index)
	if err != nil {
		return nil, err
	}
	entries, err := SplitBundle(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, BundlePath(index, 0), err)
	}
	return entries, nil
}

// fetch asks for the entries that are missing and adds them.
func (w *writer) fetch(ctx context.Context, src Source, c Checkpoint) error {
	if w.edge.Size() < c.Size {
		if err := src.Entries(ctx, w.edge.Size(), c.Size, w.add); err != nil {
			return err
		}
	}
	if w.edge.Size() == c.Size && w.edge.Root() == c.Root {
		return nil
	}
	// What does not fit must not be taken up by the next export.
	return errors.Join(w.differs(ctx, src, c), w.discard())
}

// differs says which entries are not those of the checkpoint.
func (w *writer) differs(ctx context.Context, src Source, c Checkpoint) error {
	theirs := sourceTiles{ctx, src, c.Size}
	if proof, err := ProveConsistency(c, w.had.Size, c.Size, theirs); err == nil && CheckConsistency(w.had, c, proof) != nil {
		return fmt.Errorf("%w: the export of %d entries that is here is not the beginning of the %d that there are now; the checkpoints of both are kept: %s and %s",
			ErrRewritten, w.had.Size, c.Size, w.dir.path(checkpointFile), w.dir.path(conflictFile))
	}
	for index := w.had.Size / TileWidth; index*TileWidth < c.Size; index++ {
		width := int(min(TileWidth, c.Size-index*TileWidth))
		bundle := w.bundle
		if (index+1)*TileWidth <= w.edge.Size() {
			var err error
			if bundle, err = w.dir.Bundle(index); err != nil {
				return err
			}
		}
		entries, err := SplitBundle(bundle)
		if err != nil {
			return err
		}
		want, err := ReadTile(c, 0, index, width, theirs)
		if err != nil {
			return fmt.Errorf("entries do not fit the checkpoint, nor do the service's tiles: %w", err)
		}
		if found := compare(index, entries, want); len(found) > 0 {
			return fmt.Errorf("%w: %s", ErrDamaged, strings.Join(found, "; "))
		}
	}
	return fmt.Errorf("%w: the export of %d entries that is here does not fit the service's log", ErrDamaged, w.had.Size)
}

// discard removes the full bundles and tiles that are beyond the directory's checkpoint.
func (w *writer) discard() (failed error) {
	remove := func(name string) {
		if err := os.Remove(w.dir.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
	}
	for level := 0; w.edge.Size()>>(TileHeight*(level+1)) > 0; level++ {
		span := TileHeight * (level + 1) // log2 of the entries below a tile
		for index := w.had.Size >> span; index < w.edge.Size()>>span; index++ {
			remove(TilePath(level, index, 0))
			if level == 0 {
				remove(BundlePath(index, 0))
			}
		}
	}
	return failed
}

// sourceTiles reads the tiles of a source's tree.
type sourceTiles struct {
	ctx  context.Context // lives as long as the export
	src  Source
	size int64
}

func (t sourceTiles) Tile(level int, index int64) ([]byte, error) {
	width := min(TileWidth, t.size>>(TileHeight*level)-index*TileWidth)
	return t.src.Tile(t.ctx, t.size, level, index, int(width))
}

// add adds an entry, and writes the bundle and the tiles that it fills.
func (w *writer) add(entry []byte) (err error) {
	if w.bundle, err = AppendEntry(w.bundle, entry); err != nil {
		return err
	}
	full := w.edge.Append(LeafHash(entry))
	if len(full) > 0 {
		if err := w.write(BundlePath(full[0].Index, 0), w.bundle); err != nil {
			return err
		}
		w.bundle = w.bundle[:0]
	}
	for _, t := range full {
		if err := w.write(TilePath(t.Level, t.Index, 0), t.Data); err != nil {
			return err
		}
	}
	if len(full) > 0 || w.edge.Size() == w.all {
		w.step(w.edge.Size(), w.all)
	}
	return nil
}

func (w *writer) write(name string, b []byte) error {
	w.touched[parent(name)] = true
	return w.dir.write(name, b)
}

// partial writes what is not full: the last bundle and the last tile of each level.
func (w *writer) partial() error {
	if at := int(w.edge.Size() % TileWidth); at != 0 {
		if err := w.write(BundlePath(w.edge.Size()/TileWidth, at), w.bundle); err != nil {
			return err
		}
	}
	for _, t := range w.edge.Partial() {
		if err := w.write(TilePath(t.Level, t.Index, t.Width()), t.Data); err != nil {
			return err
		}
	}
	return nil
}

// finish writes the checkpoint, after all that it stands for is durable, and removes what it
// made superfluous.
func (w *writer) finish(signed []byte) error {
	if err := w.partial(); err != nil {
		return err
	}
	for dir := range w.touched {
		for ; dir != "."; dir = parent(dir) {
			if err := w.dir.sync(dir + "/x"); err != nil {
				return err
			}
		}
	}
	if err := w.dir.write(checkpointFile, signed); err != nil {
		return err
	}
	if err := w.dir.sync(checkpointFile); err != nil {
		return err
	}
	return w.tidy()
}

// tidy removes partial tiles and bundles that newer, wider ones replace: those of the edge
// that the directory had, and of the new one.
func (w *writer) tidy() error {
	for _, size := range []int64{w.had.Size, w.edge.Size()} {
		for level := -1; level <= 0 || size>>(TileHeight*level) > 0; level++ {
			now := w.edge.Size() >> (TileHeight * max(level, 0)) // hashes of the level now
			index := size >> (TileHeight * max(level, 0)) / TileWidth
			width := int(min(TileWidth, now-index*TileWidth))
			name := TilePath(level, index, 0)
			if level < 0 {
				name = BundlePath(index, 0)
			}
			if err := w.dir.dropPartial(name, width); err != nil {
				return err
			}
		}
	}
	return nil
}
