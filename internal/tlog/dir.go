package tlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"
)

// Dir is an export: a directory with checkpoint, tiles and bundles of entries.
type Dir string

const (
	checkpointFile = "checkpoint"
	conflictFile   = "checkpoint.conflict" // one that the checkpoint does not fit
	// maxBundle is the longest bundle, in bytes: 256 entries of 65,535, and their lengths.
	maxBundle = TileWidth * (2 + 65_535)
)

// Checkpoint gives the signed checkpoint, nil when there is none.
func (d Dir) Checkpoint() ([]byte, error) { return d.read(checkpointFile, MaxCheckpoint) }

// Tile gives the widest of what the directory has of a tile, nil when it has none.
func (d Dir) Tile(level int, index int64) ([]byte, error) {
	return d.widest(TilePath(level, index, 0), TileWidth*tlog.HashSize)
}

// Bundle gives the widest of what the directory has of a bundle, nil when it has none.
func (d Dir) Bundle(index int64) ([]byte, error) { return d.widest(BundlePath(index, 0), maxBundle) }

// widest reads a full tile or bundle, or the widest partial one.
func (d Dir) widest(full string, most int64) ([]byte, error) {
	b, err := d.read(full, most)
	if b != nil || err != nil {
		return b, err
	}
	widths, err := d.widths(full)
	if err != nil || len(widths) == 0 {
		return nil, err
	}
	width := 0
	for _, w := range widths {
		width = max(width, w)
	}
	return d.read(full+".p/"+strconv.Itoa(width), most)
}

// widths gives the widths of the partial ones of a tile or bundle.
func (d Dir) widths(full string) (out []int, err error) {
	entries, err := os.ReadDir(d.path(full + ".p"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if w, err := strconv.Atoi(e.Name()); err == nil && w > 0 && w < TileWidth {
			out = append(out, w)
		}
	}
	return out, err
}

func (d Dir) path(name string) string { return filepath.Join(string(d), filepath.FromSlash(name)) }

// read gives a file of at most so many bytes, nil when there is none.
func (d Dir) read(name string, most int64) ([]byte, error) {
	f, err := os.Open(d.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() // it was open for reading: there is nothing to lose
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if int64(len(b)) > most {
		return nil, fmt.Errorf("%w: %s is longer than %d bytes", ErrDamaged, name, most)
	}
	if b == nil {
		b = []byte{}
	}
	return b, nil
}

// write makes a file hold exactly b, or leaves it as it was. Its bytes are durable on return;
// its name is once the directory is synced. There is one writer: what a killed one left of a
// new file is overwritten by the next.
func (d Dir) write(name string, b []byte) (err error) {
	if had, err := d.read(name, int64(len(b))); err == nil && had != nil && bytes.Equal(had, b) {
		return nil
	}
	to := d.path(name)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	fresh := filepath.Join(filepath.Dir(to), ".new")
	f, err := os.OpenFile(fresh, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644) // an export is to be handed on
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	return os.Rename(fresh, to)
}

// sync makes the names in the directory of a file durable.
func (d Dir) sync(name string) error {
	f, err := os.Open(filepath.Dir(d.path(name)))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// dropPartial removes the partial forms of a tile or bundle that are narrower than width.
func (d Dir) dropPartial(full string, width int) error {
	widths, err := d.widths(full)
	if err != nil {
		return err
	}
	for _, w := range widths {
		if w < width {
			if err := os.Remove(d.path(full + ".p/" + strconv.Itoa(w))); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	if width == TileWidth && len(widths) > 0 {
		// What a killed writer, or a file system, left there does no harm.
		_ = os.Remove(d.path(full + ".p/.new"))
		_ = os.Remove(d.path(full + ".p"))
	}
	return nil
}

// parent is the directory of a name in an export.
func parent(name string) string { return path.Dir(name) }
