package hcvault

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// AppRole is a Vault credential. It never prints itself.
type AppRole struct {
	RoleID, SecretID string
}

// String hides the secret.
func (AppRole) String() string { return "[AppRole]" }

// GoString hides the secret.
func (a AppRole) GoString() string { return a.String() }

// Format hides the secret from every verb.
func (a AppRole) Format(f fmt.State, _ rune) { io.WriteString(f, a.String()) }

// MarshalText hides the secret from encoders.
func (a AppRole) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// maxAppRole is the most bytes of a credential's file; both parts are UUIDs by default.
const maxAppRole = 4096

type appRoleFile struct {
	RoleID   string `json:"role_id"`
	SecretID string `json:"secret_id"`
}

// LoadAppRole reads the credential <dir>/<name>.json, an object of role_id and secret_id. A file that others than its
// owner may read is refused. What is absent is found by errors.Is(err, fs.ErrNotExist).
func LoadAppRole(dir, name string) (AppRole, error) {
	f, err := os.Open(filepath.Join(dir, name+".json"))
	if err != nil {
		return AppRole{}, fmt.Errorf("credential for Vault: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return AppRole{}, fmt.Errorf("credential for Vault: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return AppRole{}, fmt.Errorf("credential for Vault: %s has mode %04o; others may not read it, so 0600 is needed", f.Name(), info.Mode().Perm())
	}
	content, err := io.ReadAll(io.LimitReader(f, maxAppRole+1))
	if err != nil {
		return AppRole{}, fmt.Errorf("credential for Vault: %w", err)
	}
	var got appRoleFile
	if len(content) > maxAppRole || json.Unmarshal(content, &got) != nil || got.RoleID == "" || got.SecretID == "" {
		return AppRole{}, fmt.Errorf("%w: %s must be a JSON object of role_id and secret_id", ErrAppRoleForm, f.Name())
	}
	return AppRole(got), nil
}

// ErrAppRoleForm says that a file is there but holds no credential.
var ErrAppRoleForm = errors.New("credential for Vault is damaged")

// Encode gives the content of a credential's file. It holds the secret.
func (a AppRole) Encode() []byte {
	b, err := json.MarshalIndent(appRoleFile(a), "", "  ")
	if err != nil {
		panic(err) // two strings always encode
	}
	return append(b, '\n')
}
