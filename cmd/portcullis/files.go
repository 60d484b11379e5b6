package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
)

// writeFile makes path hold exactly b, readable by its owner alone, or leaves it as it was.
// It is durable on return.
func writeFile(path string, b []byte) (err error) {
	// CreateTemp makes it with mode 0600.
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
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
