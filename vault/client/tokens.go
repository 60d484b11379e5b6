package client

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/portcullis/portcullis/vault"
)

// TokenDir is a folder of grant tokens, one file of mode 0600 for each grant, named by its
// ID. Give each identity a folder of its own. Its methods may be called at once from many
// goroutines and processes: a reader finds the token before or the one after, whole.
type TokenDir string

// ErrExposed says that others than its owner can read, or could have set, a folder or file of
// tokens.
var ErrExposed = errors.New("others can read it")

// Path is where the token of a grant is kept.
func (d TokenDir) Path(grant vault.ID) string { return filepath.Join(string(d), grant.String()) }

// Prepare makes the folder with mode 0700, and proves that a file can be written there. Call
// it before activating a grant: the service gives a token once. The error is [ErrExposed]
// when the folder was there with a wider mode.
func (d TokenDir) Prepare() error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return fmt.Errorf("folder of grant tokens: %w", err)
	}
	if err := d.private(); err != nil {
		return err
	}
	f, err := os.CreateTemp(string(d), ".new-*")
	if err != nil {
		return fmt.Errorf("folder of grant tokens: %w", err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

func (d TokenDir) private() error {
	info, err := os.Stat(string(d))
	if err != nil {
		return fmt.Errorf("folder of grant tokens: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("folder of grant tokens %s has mode %04o: %w", d, info.Mode().Perm(), ErrExposed)
	}
	return nil
}

// Keep keeps the newest token of a grant. It is durable on return; after an error, and after
// a crash at any instant, the one before is there whole.
func (d TokenDir) Keep(grant vault.ID, t vault.Token) error {
	if err := replaceFile(d.Path(grant), []byte(t.Reveal()+"\n")); err != nil {
		return fmt.Errorf("keep the grant token: %w", err)
	}
	return nil
}

// Load gives the token that is kept for a grant. The error is fs.ErrNotExist when there is
// none, and [ErrExposed] when its file is no regular one of mode 0600 or less, in a folder of
// mode 0700 or less: what others could have read or set is not used.
func (d TokenDir) Load(grant vault.ID) (vault.Token, error) {
	path := d.Path(grant)
	named, err := os.Lstat(path)
	if err != nil {
		return vault.Token{}, fmt.Errorf("grant token: %w", err)
	}
	if err := d.private(); err != nil {
		return vault.Token{}, err
	}
	if !named.Mode().IsRegular() || named.Mode().Perm()&0o077 != 0 {
		return vault.Token{}, fmt.Errorf("grant token %s has mode %s: %w", path, named.Mode(), ErrExposed)
	}
	f, err := os.Open(path)
	if err != nil {
		return vault.Token{}, fmt.Errorf("grant token: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, vault.MaxToken+2))
	if err != nil {
		return vault.Token{}, fmt.Errorf("grant token: %w", err)
	}
	t := bytes.TrimSpace(b)
	if len(t) == 0 || len(t) > vault.MaxToken {
		return vault.Token{}, fmt.Errorf("grant token %s holds no token of 1 to %d bytes", path, vault.MaxToken)
	}
	return vault.TokenOf(string(t)), nil
}

// Forget removes the token of a grant that has ended. It is no error if there is none.
func (d TokenDir) Forget(grant vault.ID) error {
	if err := os.Remove(d.Path(grant)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the grant token: %w", err)
	}
	return nil
}

// replaceFile makes path hold exactly b, readable by its owner alone, or leaves it as it was.
// It is durable on return.
func replaceFile(path string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // of mode 0600
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
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
