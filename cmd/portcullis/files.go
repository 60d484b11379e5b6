package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/portcullis/portcullis/vault"
)

// writeFile makes path hold exactly b, readable by its owner alone, or leaves it as it was.
// It is durable on return, but for the name in its directory.
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
	return os.Rename(f.Name(), path)
}

// tokens is the folder of one profile's grant tokens, beside the configuration file.
type tokens string

func (p profile) tokens() tokens {
	return tokens(filepath.Join(filepath.Dir(p.file), "tokens", p.name))
}

func (t tokens) path(grant vault.ID) string { return filepath.Join(string(t), grant.String()) }

// prepare makes the folder, and proves that a file can be written there.
func (t tokens) prepare() error {
	if err := os.MkdirAll(string(t), 0o700); err != nil {
		return fmt.Errorf("folder of grant tokens: %w", err)
	}
	info, err := os.Stat(string(t))
	if err != nil {
		return fmt.Errorf("folder of grant tokens: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return &hinted{fmt.Errorf("folder of grant tokens %s has mode %04o, so others can read it", t, info.Mode().Perm()), "chmod 700 " + string(t)}
	}
	f, err := os.CreateTemp(string(t), ".new-*")
	if err != nil {
		return fmt.Errorf("folder of grant tokens: %w", err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// keep keeps the newest token of a grant.
func (t tokens) keep(grant vault.ID, token vault.Token) error {
	if err := writeFile(t.path(grant), []byte(token.Reveal()+"\n")); err != nil {
		return &hinted{fmt.Errorf("keep the grant token: %w", err), "the grant is active; run \"grant activate\" again for a new token"}
	}
	return nil
}

// load gives the token that was kept for a grant.
func (t tokens) load(grant vault.ID) (vault.Token, error) {
	path := t.path(grant)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", &hinted{
			vault.E(vault.State, vault.ReasonGrantNotActive, "no token of grant %s is kept for this profile", grant),
			"run \"grant activate " + grant.String() + "\" first",
		}
	}
	if err != nil {
		return "", fmt.Errorf("grant token: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", &hinted{fmt.Errorf("grant token %s has mode %04o, so others can read it", path, info.Mode().Perm()), "run \"grant activate\" again for a new token"}
	}
	b, err := readLimited(path, vault.MaxToken+1)
	if err != nil {
		return "", fmt.Errorf("grant token: %w", err)
	}
	return vault.Token(bytes.TrimSpace(b)), nil
}

// forget removes the token of a grant that has ended.
func (t tokens) forget(grant vault.ID) error {
	if err := os.Remove(t.path(grant)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the grant token: %w", err)
	}
	return nil
}
