package blob

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/portcullis/portcullis/vault"
)

// quarantineDir is the folder, in the store's directory, of blobs that no record names.
const quarantineDir = "quarantine"

// OpenInUse opens the store in a directory that another process may be using: it makes
// nothing and removes nothing there. A directory that is absent is an error.
func OpenInUse(path string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, unavailable("open", err)
	}
	d := &Dir{path: path, fs: disk{}}
	if _, err := d.fs.ReadDir(d.folderOf(0)); err != nil {
		return nil, unavailable("open", err)
	}
	return d, nil
}

// Quarantine puts the blob of an ID aside, where Get and List do not find it. On return that
// is durable. One that is missing is no error.
func (d *Dir) Quarantine(ctx context.Context, id vault.ID) error {
	if err := ctx.Err(); err != nil {
		return unavailable("quarantine", err)
	}
	lock := &d.folder[id[0]]
	lock.Lock()
	defer lock.Unlock()
	if err := d.makeQuarantine(); err != nil {
		return unavailable("quarantine", err)
	}
	return d.move(id, "quarantine", d.fileOf(id), d.asideOf(id))
}

func (d *Dir) makeQuarantine() error {
	if err := d.fs.Mkdir(filepath.Join(d.path, quarantineDir)); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// Also when it was there: who made it may have been cut short before this sync.
	return d.syncDir(d.path)
}

// NoteKey notes beside the quarantine that the key of an ID is shut by it. On return that is
// durable. The note stands here and not in the database, so that nobody who can only write
// to the database has a key opened. Return and Discard end it.
func (d *Dir) NoteKey(ctx context.Context, id vault.ID) error {
	if err := ctx.Err(); err != nil {
		return unavailable("note key", err)
	}
	lock := &d.folder[id[0]]
	lock.Lock()
	defer lock.Unlock()
	if err := d.makeQuarantine(); err != nil {
		return unavailable("note key", err)
	}
	f, err := d.fs.Create(d.noteOf(id))
	if err == nil {
		err = f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return unavailable("note key", err)
	}
	if err := d.syncDir(filepath.Join(d.path, quarantineDir)); err != nil {
		return unavailable("note key", err)
	}
	return nil
}

// KeyNoted says whether NoteKey was called for an ID.
func (d *Dir) KeyNoted(ctx context.Context, id vault.ID) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, unavailable("note key", err)
	}
	_, err := d.fs.Stat(d.noteOf(id))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, unavailable("note key", err)
	}
	return err == nil, nil
}

// Return undoes Quarantine. On return that is durable. One that is not in quarantine is no
// error.
func (d *Dir) Return(ctx context.Context, id vault.ID) error {
	if err := ctx.Err(); err != nil {
		return unavailable("return", err)
	}
	lock := &d.folder[id[0]]
	lock.Lock()
	defer lock.Unlock()
	if err := d.move(id, "return", d.asideOf(id), d.fileOf(id)); err != nil {
		return err
	}
	return d.forget(id, "return")
}

// move renames, and makes both folders' entries durable, the new one first: a crash between
// the two may show the blob in both places, never in none.
func (d *Dir) move(id vault.ID, op, from, to string) error {
	err := d.fs.Rename(from, to)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return unavailable(op, err)
	}
	// Also when it was missing: an earlier move may have been cut short before its syncs.
	for _, dir := range []string{filepath.Dir(to), filepath.Dir(from)} {
		if err := d.syncDir(dir); err != nil && !(missing && errors.Is(err, fs.ErrNotExist)) {
			return unavailable(op, err)
		}
	}
	return nil
}

// Discard removes the blob of an ID from quarantine. On return that is durable. One that is
// not there is no error.
func (d *Dir) Discard(ctx context.Context, id vault.ID) error {
	if err := ctx.Err(); err != nil {
		return unavailable("discard", err)
	}
	if err := d.removeIfThere(d.asideOf(id)); err != nil {
		return unavailable("discard", err)
	}
	return d.forget(id, "discard")
}

// forget ends the note of a key, and makes what left the quarantine durable.
func (d *Dir) forget(id vault.ID, op string) error {
	if err := d.removeIfThere(d.noteOf(id)); err != nil {
		return unavailable(op, err)
	}
	if err := d.syncDir(filepath.Join(d.path, quarantineDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unavailable(op, err)
	}
	return nil
}

// Quarantined calls fn for each blob in quarantine, in the order of IDs. An error of fn ends
// the list and is returned.
func (d *Dir) Quarantined(ctx context.Context, fn func(id vault.ID) error) error {
	if err := ctx.Err(); err != nil {
		return unavailable("list quarantine", err)
	}
	entries, err := d.fs.ReadDir(filepath.Join(d.path, quarantineDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return unavailable("list quarantine", err)
	}
	for _, e := range entries {
		id, err := vault.ParseID("blob", e.Name())
		if err != nil || !e.Type().IsRegular() {
			continue
		}
		if err := fn(id); err != nil {
			return err
		}
	}
	return nil
}

func (d *Dir) asideOf(id vault.ID) string { return filepath.Join(d.path, quarantineDir, id.String()) }

func (d *Dir) noteOf(id vault.ID) string { return d.asideOf(id) + ".key" }
