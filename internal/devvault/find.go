package devvault

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// version is that of the kept build; a test compares it with tools/vault/go.mod.
const version = "1.21.0"

// Find returns the path of the Vault program to run: the one that $PORTCULLIS_VAULT_BIN names, or `vault` or `bao` on
// PATH, or the build that tools/vault/build.sh keeps, in this order. It runs nothing.
func Find() (string, error) {
	if name := os.Getenv("PORTCULLIS_VAULT_BIN"); name != "" {
		bin, err := exec.LookPath(name)
		if err != nil {
			return "", fmt.Errorf("PORTCULLIS_VAULT_BIN: %w", err)
		}
		return bin, nil
	}
	for _, name := range []string{"vault", "bao"} {
		if bin, err := exec.LookPath(name); err == nil {
			return bin, nil
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no vault or bao on PATH, and no cache folder with a kept build: %w", err)
	}
	kept, err := exec.LookPath(filepath.Join(cache, "portcullis", "vault-"+version, "vault"))
	if err != nil {
		return "", fmt.Errorf("no vault or bao on PATH, and no kept build: run `make vault`: %w", err)
	}
	return kept, nil
}
