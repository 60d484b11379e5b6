package setup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	"github.com/portcullis/portcullis/internal/hcvault"
)

// credential writes the role's file, unless the one that is there still works. An earlier secret ID stays good: it
// may be in use on another node. An operator ends it at Vault.
func (op *operator) credential(ctx context.Context, dir string, r role) error {
	path := "auth/approle/role/" + r.name
	var id struct {
		Data struct {
			RoleID string `json:"role_id"`
		} `json:"data"`
	}
	if err := op.do(ctx, http.MethodGet, path+"/role-id", nil, &id); err != nil {
		return err
	}
	kept, err := hcvault.LoadAppRole(dir, r.file)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, hcvault.ErrAppRoleForm):
	case err != nil:
		return err
	case kept.RoleID == id.Data.RoleID:
		var known struct {
			Data struct {
				Accessor string `json:"secret_id_accessor"`
			} `json:"data"`
		}
		// Vault answers without content for a secret ID that it does not know. No login, so no token is left behind.
		in := map[string]string{"secret_id": kept.SecretID}
		if err := op.do(ctx, http.MethodPost, path+"/secret-id/lookup", in, &known); err != nil {
			return err
		}
		if known.Data.Accessor != "" {
			return nil
		}
	}
	var secret struct {
		Data struct {
			SecretID string `json:"secret_id"`
		} `json:"data"`
	}
	if err := op.do(ctx, http.MethodPost, path+"/secret-id", map[string]any{}, &secret); err != nil {
		return err
	}
	if id.Data.RoleID == "" || secret.Data.SecretID == "" {
		return fmt.Errorf("vault gave no credential for %s", r.name)
	}
	a := hcvault.AppRole{RoleID: id.Data.RoleID, SecretID: secret.Data.SecretID}
	return writeFile(dir, r.file+".json", a.Encode())
}

// makeDir makes dir for its owner alone. One that others may enter is refused.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("directory for credentials: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("directory for credentials: %w", err)
	}
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("directory for credentials: %s has mode %04o; 0700 is needed", dir, info.Mode().Perm())
	}
	return nil
}

// writeFile puts a file of mode 0600 in place, whole or not at all.
func writeFile(dir, name string, content []byte) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write credential: %w", err)
		}
	}()
	f, err := os.CreateTemp(dir, "."+name+"-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
