package vaulttest

import (
	"slices"
	"strings"
	"testing"

	"github.com/portcullis/portcullis/vault"
)

func testRevokeKey(t *testing.T, b bench) {
	w, beside := b.wrap(keyName("20190501")), b.wrap(keyName("20190501"))
	token := b.grant("site.face.2")
	b.opens(token, w)
	for range 3 {
		b.ok("revoke the key", b.Admin.RevokeKey(t.Context(), w.name))
		b.refuses("a revoked key", token, w, vault.Denied, vault.ReasonKeyRevoked)
	}
	b.refuses("a revoked key, by a new token", b.grant(w.name), w, vault.Denied, vault.ReasonKeyRevoked)
	b.refused("outside its fence it is no token's to know", b.grant(beside.name), w)
	zero := w // Vault takes version 0 for 1, as its first release counted: that must be no way round
	zero.text = strings.Replace(w.text, ":v1:", ":v0:", 1)
	if dek, err := b.Release.Unwrap(t.Context(), token, zero.name, zero.text); err == nil || len(dek) > 0 {
		t.Fatal("said to be of version 0, it opens by a revoked key")
	}
	newer := w
	newer.text = strings.Replace(w.text, ":v1:", ":v2:", 1)
	b.refuses("said to be of the newer version", token, newer, vault.DataLoss, vault.ReasonDataLoss)
	if exists, err := b.Admin.KeyExists(t.Context(), w.name); err != nil || !exists {
		t.Errorf("a revoked key exists: %v, %v", exists, err)
	}
	if _, err := b.Capture.Wrap(t.Context(), w.name, w.dek); err == nil {
		t.Error("wrapped by a revoked key")
	}
	b.opens(token, beside)
}

func testRestoreKey(t *testing.T, b bench) {
	w := b.wrap(keyName("20190501"))
	token := b.grant(w.name)
	b.ok("restore a key that was not revoked", b.Admin.RestoreKey(t.Context(), w.name))
	b.opens(token, w)
	for range 2 {
		b.ok("revoke", b.Admin.RevokeKey(t.Context(), w.name))
		b.refuses("a revoked key", token, w, vault.Denied, vault.ReasonKeyRevoked)
		for range 2 {
			b.ok("restore", b.Admin.RestoreKey(t.Context(), w.name))
			b.opens(token, w)
		}
	}
}

func testDestroyKey(t *testing.T, b bench) {
	plain, revoked, beside := b.wrap(keyName("20190501")), b.wrap(keyName("20190501")), b.wrap(keyName("20190501"))
	token := b.grant("site.face.2")
	b.ok("revoke", b.Admin.RevokeKey(t.Context(), revoked.name))
	for _, w := range []wrapped{plain, revoked} {
		for range 2 {
			b.ok("destroy", b.Admin.DestroyKey(t.Context(), w.name))
			if exists, err := b.Admin.KeyExists(t.Context(), w.name); err != nil || exists {
				t.Fatalf("a destroyed key exists: %v, %v", exists, err)
			}
			b.refuses("a destroyed key", token, w, vault.Denied, vault.ReasonKeyDestroyed)
		}
		b.refused("outside its fence it is no token's to know", b.grant(beside.name), w)
		if err := b.Admin.RestoreKey(t.Context(), w.name); vault.KindOf(err) != vault.State || vault.ReasonOf(err) != vault.ReasonKeyDestroyed {
			t.Errorf("restore a destroyed key: %v; want State, KEY_DESTROYED", err)
		}
		b.ok("revoke a destroyed key", b.Admin.RevokeKey(t.Context(), w.name))
		if exists, err := b.Admin.KeyExists(t.Context(), w.name); err != nil || exists {
			t.Fatalf("a destroyed key came back: %v, %v", exists, err)
		}
	}
	b.ok("destroy a key that never was", b.Admin.DestroyKey(t.Context(), keyName("20190501")))
	b.opens(token, beside)
}

// testAnew: a late Wrap makes a deleted name anew, with another key.
func testAnew(t *testing.T, b bench) {
	old := b.wrap(keyName("20190501"))
	token := b.grant(old.name)
	b.ok("destroy", b.Admin.DestroyKey(t.Context(), old.name))
	now := b.wrap(old.name)
	b.opens(token, now)
	b.refuses("what the destroyed key wrapped", token, old, vault.DataLoss, vault.ReasonDataLoss)
}

func testKeys(t *testing.T, b bench) {
	one, two := b.wrap(keyName("20190501")), b.wrap(keyName("20190502"))
	never := keyName("20190501")
	listed := func() []string {
		t.Helper()
		names, err := b.Admin.Keys(t.Context())
		b.ok("list", err)
		return names
	}
	if names := listed(); !slices.Contains(names, one.name) || !slices.Contains(names, two.name) || slices.Contains(names, never) {
		t.Fatalf("of %s and %s, not %s, the list has %q", one.name, two.name, never, names)
	}
	if exists, err := b.Admin.KeyExists(t.Context(), never); err != nil || exists {
		t.Fatalf("a key that never was exists: %v, %v", exists, err)
	}
	b.ok("destroy", b.Admin.DestroyKey(t.Context(), one.name))
	b.ok("destroy", b.Admin.DestroyKey(t.Context(), two.name))
	if names := listed(); slices.Contains(names, one.name) || slices.Contains(names, two.name) {
		t.Fatalf("destroyed keys are listed: %q", names)
	}
}
