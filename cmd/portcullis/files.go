package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"syscall"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
)

// newFile is the pattern of the names that files have while they are written.
const newFile = ".new-*"

var newFileName = regexp.MustCompile(`^\.new-[0-9]+$`)

// removeUnfinished removes what writeFile left in a folder when it was killed. Nobody else may
// write there.
func removeUnfinished(dir string) (removed int, err error) {
	all, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range all {
		if !e.Type().IsRegular() || !newFileName.MatchString(e.Name()) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return removed, err
		}
		removed++
	}
	if removed == 0 {
		return 0, nil
	}
	return removed, syncDir(dir)
}

// openRegular opens a file for reading. It waits for no pipe and follows no link: what else the
// name may be is errNotRegular.
func openRegular(path string) (*os.File, error) {
	named, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	odd := &fs.PathError{Op: "read", Path: path, Err: errNotRegular}
	if !named.Mode().IsRegular() {
		return nil, odd
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	// Another file may have come in its place.
	if opened, err := f.Stat(); err != nil || !os.SameFile(named, opened) {
		_ = f.Close()
		return nil, errors.Join(err, errChanging)
	}
	return f, nil
}

// writable proves that writeFile could make path.
func writable(path string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return fmt.Errorf("%s: %w", path, errNotRegular)
	}
	f, err := os.CreateTemp(filepath.Dir(path), newFile)
	if err != nil {
		var p *fs.PathError
		if errors.As(err, &p) {
			p.Path = path // that of the trial tells nobody anything
		}
		return ownWords(err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// writeFile makes path hold exactly b, readable by its owner alone, or leaves it as it was.
// It is durable on return.
func writeFile(path string, b []byte) (err error) {
	// CreateTemp makes it with mode 0600.
	f, err := os.CreateTemp(filepath.Dir(path), newFile)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(b); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// tokens is the folder of one profile's grant tokens, beside the configuration file. It adds
// to the SDK's errors what to try next.
type tokens string

func (p profile) tokens() tokens {
	return tokens(filepath.Join(filepath.Dir(p.file), "tokens", p.name))
}

func (t tokens) path(grant vault.ID) string { return client.TokenDir(t).Path(grant) }

// prepare makes the folder, and proves that a file can be written there.
func (t tokens) prepare() error { return t.exposed(client.TokenDir(t).Prepare()) }

func (t tokens) exposed(err error) error {
	if errors.Is(err, client.ErrExposed) {
		return &hinted{err, "chmod 700 " + string(t) + ", then run \"grant activate\" again for a new token"}
	}
	return err
}

// keep keeps the newest token of a grant.
func (t tokens) keep(grant vault.ID, token vault.Token) error {
	if err := client.TokenDir(t).Keep(grant, token); err != nil {
		return &hinted{err, "the grant is active; run \"grant activate\" again for a new token"}
	}
	return nil
}

// load gives the token that was kept for a grant.
func (t tokens) load(grant vault.ID) (vault.Token, error) {
	token, err := client.TokenDir(t).Load(grant)
	if errors.Is(err, fs.ErrNotExist) {
		return vault.Token{}, &hinted{
			vault.E(vault.State, vault.ReasonGrantNotActive, "no token of grant %s is kept for this profile", grant),
			"run \"grant activate " + grant.String() + "\" first",
		}
	}
	return token, t.exposed(err)
}

// forget removes the token of a grant that has ended.
func (t tokens) forget(grant vault.ID) error { return client.TokenDir(t).Forget(grant) }
