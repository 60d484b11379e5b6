package hcvault_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portcullis/portcullis/internal/hcvault"
	"github.com/portcullis/portcullis/internal/hcvault/setup"
	"github.com/portcullis/portcullis/vault"
)

// logHouse gives a log's key at a mount of the test's own.
func logHouse(t *testing.T, mount string) *hcvault.LogKey {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "credentials")
	prepare := func(mount, dir string) {
		t.Helper()
		err := setup.Run(context.WithoutCancel(t.Context()), setup.Options{
			Addr: dev.Addr(), CAFile: dev.CACert(), Token: dev.RootToken(), Mount: mount,
			TokenCIDRs: []string{"127.0.0.1/32"}, AuditFile: dev.AuditLog(), OutDir: dir,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	prepare(mount, dir)
	t.Cleanup(func() { prepare(hcvault.DefaultMount, creds) }) // the policies are of the mount that came last
	role, err := hcvault.LoadAppRole(dir, "log")
	if err != nil {
		t.Fatal(err)
	}
	return dialTo(t, hcvault.Config{Addr: dev.Addr(), CAFile: dev.CACert(), Mount: mount}).LogKey(role)
}

const logKeys = "/keys/" + hcvault.LogKeyName

func mustRoot(t *testing.T, method, path string, in any) {
	t.Helper()
	if err := root(t, method, path, in, nil); err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
}

// signs says that the key signs, by the public key given.
func signs(t *testing.T, k *hcvault.LogKey, public ed25519.PublicKey) {
	t.Helper()
	for _, message := range []string{"a.example/log\n1\nAAAA\n", strings.Repeat("x", 4096)} {
		sig, err := k.Sign(t.Context(), []byte(message))
		if err != nil || !ed25519.Verify(public, []byte(message), sig) {
			t.Errorf("signing %d bytes gives %d, %v", len(message), len(sig), err)
		}
	}
}

func TestLogKeySigns(t *testing.T) {
	k := dial(t).LogKey(load(t, "log"))
	public, err := k.Public(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	signs(t, k, public)
}

// Whoever rotates the key at Vault does not make the log another one.
func TestLogKeyStaysVersion1(t *testing.T) {
	const mount = "rotated"
	k := logHouse(t, mount)
	public, err := k.Public(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mustRoot(t, "POST", hcvault.LogMount(mount)+logKeys+"/rotate", nil)
	mustRoot(t, "POST", hcvault.LogMount(mount)+logKeys+"/rotate", nil)
	if again, err := k.Public(t.Context()); err != nil || !again.Equal(public) {
		t.Errorf("after rotating, the public key is %x, was %x, %v", again, public, err)
	}
	signs(t, k, public)
	// Version 1 put out of use: an error, and no signature by another version. Vault answers 500, as if it were unwell.
	mustRoot(t, "POST", hcvault.LogMount(mount)+logKeys+"/config", map[string]any{"min_encryption_version": 2})
	if sig, err := k.Sign(t.Context(), []byte("x")); err == nil || sig != nil {
		t.Errorf("without version 1: %x, %v", sig, err)
	}
	mustRoot(t, "POST", hcvault.LogMount(mount)+logKeys+"/config", map[string]any{"min_decryption_version": 2})
	if got, err := k.Public(t.Context()); vault.KindOf(err) != vault.Internal || got != nil {
		t.Errorf("without version 1: %x, %v", got, err)
	}
}

func TestLogKeyOfAnotherType(t *testing.T) {
	const mount = "odd"
	k := logHouse(t, mount)
	path := hcvault.LogMount(mount) + logKeys
	replace := func(in map[string]any) {
		t.Helper()
		mustRoot(t, "POST", path+"/config", map[string]any{"deletion_allowed": true})
		mustRoot(t, "DELETE", path, nil)
		if in != nil {
			mustRoot(t, "POST", path, in)
		}
	}
	for _, kind := range []string{"aes256-gcm96", "ecdsa-p256", "rsa-2048", "hmac"} {
		in := map[string]any{"type": kind}
		if kind == "hmac" {
			in["key_size"] = 32
		}
		replace(in)
		if got, err := k.Public(t.Context()); vault.KindOf(err) != vault.Internal || got != nil || !strings.Contains(fmt.Sprint(err), kind) {
			t.Errorf("%s: %x, %v", kind, got, err)
		}
		if sig, err := k.Sign(t.Context(), []byte("x")); vault.KindOf(err) != vault.Internal || sig != nil {
			t.Errorf("%s signs: %x, %v", kind, sig, err)
		}
	}
	// Of an ed25519 key that derives, each context has a public key of its own.
	replace(map[string]any{"type": "ed25519", "derived": true})
	if got, err := k.Public(t.Context()); vault.KindOf(err) != vault.Internal || got != nil {
		t.Errorf("derived: %x, %v", got, err)
	}
	replace(nil)
	if got, err := k.Public(t.Context()); vault.KindOf(err) != vault.Internal || got != nil {
		t.Errorf("no key: %x, %v", got, err)
	}
	if sig, err := k.Sign(t.Context(), []byte("x")); vault.KindOf(err) != vault.Internal || sig != nil {
		t.Errorf("no key signs: %x, %v", sig, err)
	}
}

func TestLogKeyWhileVaultIsAway(t *testing.T) {
	k := dial(t).LogKey(load(t, "log"))
	public, err := k.Public(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	away := func(what string, k *hcvault.LogKey) {
		t.Helper()
		for name, call := range map[string]func() ([]byte, error){
			"Public": func() ([]byte, error) { p, err := k.Public(t.Context()); return p, err },
			"Sign":   func() ([]byte, error) { return k.Sign(t.Context(), []byte("x")) },
		} {
			got, err := call()
			if vault.KindOf(err) != vault.Unavailable || vault.ReasonOf(err) != vault.ReasonVaultUnavailable || got != nil {
				t.Errorf("%s, %s: %x, %v", what, name, got, err)
			}
		}
	}
	for what, gone := range map[string]struct{ away, back func() error }{
		"sealed": {func() error { return dev.Seal(t.Context()) }, func() error { return dev.Unseal(t.Context()) }},
		"killed": {dev.Kill, func() error { return dev.Restart(t.Context()) }},
	} {
		if err := gone.away(); err != nil {
			t.Fatal(err)
		}
		away(what, k)
		away(what+", not logged in before", dial(t).LogKey(load(t, "log")))
		if err := gone.back(); err != nil {
			t.Fatal(err)
		}
		signs(t, k, public)
	}
}

// A credential of another role signs nothing.
func TestLogKeyNeedsItsCredential(t *testing.T) {
	for _, role := range []string{"capture", "grants", "admin"} {
		k := dial(t).LogKey(load(t, role))
		if sig, err := k.Sign(t.Context(), []byte("x")); vault.KindOf(err) != vault.Internal || sig != nil {
			t.Errorf("%s signs: %x, %v", role, sig, err)
		}
	}
}
