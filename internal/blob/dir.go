// Package blob keeps sealed images: ciphertext by record ID, in a directory.
package blob

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// MaxBlob is the most bytes of one blob: well above an image of 8 MiB, the default limit,
// and small enough to be read into memory whole.
const MaxBlob = 64 << 20

// tempDir is the folder, in the store's directory, of blobs that are being written.
const tempDir = "tmp"

// Dir is a store in a directory of one's own on a local disk. A blob is the file
// <dir>/<first byte of the ID, as two hexadecimal digits>/<ID>. Folders are made with mode
// 0700 and files with 0600.
//
// All methods may be called at once. Only one process may use a directory at a time: a
// second [OpenDir] fails the Puts that are under way in the first, though it loses no blob.
//
// When the disk fails, is full or read-only, the error is a [vault.Error] of kind
// Unavailable and reason BLOB_UNAVAILABLE; the same holds for a context that is done before
// the work begins.
type Dir struct {
	path   string
	fs     fileSystem
	folder [256]sync.Mutex // by the ID's first byte: held while an entry of that folder changes
}

// OpenDir opens the store in the directory path, and makes the directory if it is absent.
// It removes what Puts left behind that a crash cut short. On return everything that it
// made is durable.
func OpenDir(path string) (*Dir, error) { return open(path, disk{}) }

func open(path string, fsys fileSystem) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, unavailable("open", err)
	}
	d := &Dir{path: path, fs: fsys}
	if err := d.makePath(); err != nil {
		return nil, unavailable("open", err)
	}
	if err := d.makeFolders(); err != nil {
		return nil, unavailable("open", err)
	}
	if err := d.removeLeftovers(); err != nil {
		return nil, unavailable("open", err)
	}
	return d, nil
}

// makePath makes the store's directory and the missing ones above it, each durable before
// the next.
func (d *Dir) makePath() error {
	var missing []string
	at := d.path
	for ; ; at = filepath.Dir(at) {
		info, err := d.fs.Stat(at)
		if err == nil {
			if !info.IsDir() {
				return fmt.Errorf("%s is not a directory", at)
			}
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			return err
		}
		missing = append(missing, at)
	}
	// The last of those that exist may have been made a moment before a crash, by an OpenDir
	// that never came to sync it. If it lies in a directory that we may not read, then no
	// OpenDir of ours made it.
	if err := d.syncDir(filepath.Dir(at)); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := d.fs.Mkdir(missing[i]); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := d.syncDir(filepath.Dir(missing[i])); err != nil {
			return err
		}
	}
	return nil
}

// makeFolders makes all the folders at once: if Put made them, then another Put could find
// one that is not durable yet, and say of its blob that it is.
func (d *Dir) makeFolders() error {
	for i := range len(d.folder) {
		if err := d.fs.Mkdir(d.folderOf(byte(i))); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := d.fs.Mkdir(filepath.Join(d.path, tempDir)); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.syncDir(d.path)
}

func (d *Dir) removeLeftovers() error {
	temp := filepath.Join(d.path, tempDir)
	entries, err := d.fs.ReadDir(temp)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := d.fs.Remove(filepath.Join(temp, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Put keeps data, at most [MaxBlob] bytes, under the ID. On return it is durable. Putting
// the same bytes again is no error; other bytes under an ID that is taken are refused, by an
// error of kind Exists that is also [fs.ErrExist]. After an error nothing of this Put can be
// read, and it may be tried again.
func (d *Dir) Put(ctx context.Context, id vault.ID, data []byte) (err error) {
	if err := ctx.Err(); err != nil {
		return unavailable("put", err)
	}
	if len(data) > MaxBlob {
		return vault.E(vault.Invalid, vault.ReasonInvalidField, "a blob of %d bytes is over the limit of %d", len(data), MaxBlob)
	}
	temp := filepath.Join(d.path, tempDir, vault.NewID().String())
	if err := d.write(temp, data); err != nil {
		return unavailable("put", errors.Join(err, d.removeIfThere(temp)))
	}
	if err := d.publish(id, temp, data); err != nil {
		return err
	}
	return nil
}

// write makes a file with that content, durable but for its entry in the directory.
func (d *Dir) write(path string, data []byte) error {
	f, err := d.fs.Create(path)
	if err != nil {
		return err
	}
	n, err := f.Write(data)
	if err == nil && n < len(data) {
		err = io.ErrShortWrite
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// publish gives the file its final name.
func (d *Dir) publish(id vault.ID, temp string, data []byte) error {
	lock := &d.folder[id[0]]
	lock.Lock()
	defer lock.Unlock()
	taken, err := d.read(id)
	switch {
	case err == nil && !bytes.Equal(taken, data):
		return errors.Join(
			vault.E(vault.Exists, vault.ReasonInternal, "another blob has this ID").Because(fs.ErrExist),
			d.removeIfThere(temp))
	case err == nil:
		// The earlier Put of these bytes may have been cut short before its last sync.
		if err := errors.Join(d.removeIfThere(temp), d.syncDir(d.folderOf(id[0]))); err != nil {
			return unavailable("put", err)
		}
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return unavailable("put", errors.Join(err, d.removeIfThere(temp)))
	}
	if err := d.fs.Rename(temp, d.fileOf(id)); err != nil {
		return unavailable("put", errors.Join(err, d.removeIfThere(temp)))
	}
	if err := d.syncDir(d.folderOf(id[0])); err != nil {
		// It may vanish at the next crash, so it must not be found before.
		return unavailable("put", errors.Join(err, d.removeIfThere(d.fileOf(id))))
	}
	return nil
}

// Get gives the blob of an ID. One that is missing is an error of kind NotFound with reason
// DATA_LOSS, one over [MaxBlob] bytes of kind DataLoss: no Put wrote it.
func (d *Dir) Get(ctx context.Context, id vault.ID) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, unavailable("get", err)
	}
	data, err := d.read(id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, vault.E(vault.NotFound, vault.ReasonDataLoss, "no blob has this ID").Because(err)
	case errors.Is(err, errTooLarge):
		return nil, vault.E(vault.DataLoss, vault.ReasonDataLoss, "the blob is longer than any that is kept").Because(err)
	case err != nil:
		return nil, unavailable("get", err)
	}
	return data, nil
}

var errTooLarge = fmt.Errorf("longer than %d bytes", MaxBlob)

func (d *Dir) read(id vault.ID) (data []byte, err error) {
	f, err := d.fs.Open(d.fileOf(id))
	if err != nil {
		return nil, err
	}
	defer f.Close() // it was open for reading: there is nothing to lose
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > MaxBlob {
		return nil, errTooLarge
	}
	var b bytes.Buffer
	b.Grow(int(info.Size()) + bytes.MinRead) // so that it reads to the end without growing
	n, err := b.ReadFrom(io.LimitReader(f, MaxBlob+1))
	if err != nil {
		return nil, err
	}
	if n > MaxBlob {
		return nil, errTooLarge
	}
	return b.Bytes(), nil
}

// Delete removes the blob of an ID. On return that is durable. Deleting one that is missing
// is no error.
func (d *Dir) Delete(ctx context.Context, id vault.ID) error {
	if err := ctx.Err(); err != nil {
		return unavailable("delete", err)
	}
	lock := &d.folder[id[0]]
	lock.Lock()
	defer lock.Unlock()
	if err := d.removeIfThere(d.fileOf(id)); err != nil {
		return unavailable("delete", err)
	}
	// Also when it was missing: an earlier Delete may have been cut short before its sync.
	if err := d.syncDir(d.folderOf(id[0])); err != nil {
		return unavailable("delete", err)
	}
	return nil
}

// List calls fn for each blob, in the order of IDs, with its size in bytes and the time of
// its Put. It leaves out files that Put did not name. Blobs that are put or deleted
// meanwhile may or may not be among them. An error of fn ends the list and is returned.
func (d *Dir) List(ctx context.Context, fn func(id vault.ID, size int64, modified time.Time) error) error {
	for i := range len(d.folder) {
		if err := ctx.Err(); err != nil {
			return unavailable("list", err)
		}
		entries, err := d.fs.ReadDir(d.folderOf(byte(i)))
		if err != nil {
			return unavailable("list", err)
		}
		for _, e := range entries {
			id, err := vault.ParseID("blob", e.Name())
			if err != nil || id[0] != byte(i) || !e.Type().IsRegular() {
				continue
			}
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return unavailable("list", err)
			}
			if err := fn(id, info.Size(), info.ModTime()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *Dir) folderOf(first byte) string {
	return filepath.Join(d.path, hex.EncodeToString([]byte{first}))
}

func (d *Dir) fileOf(id vault.ID) string { return filepath.Join(d.folderOf(id[0]), id.String()) }

func (d *Dir) syncDir(path string) error {
	f, err := d.fs.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (d *Dir) removeIfThere(path string) error {
	if err := d.fs.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// unavailable hides the cause, which names paths, from callers over the network.
func unavailable(op string, cause error) error {
	return vault.E(vault.Unavailable, vault.ReasonBlobUnavailable, "the ciphertext store failed; try again").
		Because(fmt.Errorf("%s: %w", op, cause))
}
