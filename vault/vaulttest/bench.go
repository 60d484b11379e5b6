package vaulttest

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// bench is one case's tools.
type bench struct {
	t *testing.T
	HCVaultUnderTest
}

// wrapped is a data key under a key of its own.
type wrapped struct {
	name, text string
	dek        []byte
}

// longTTL outlasts a case.
const longTTL = 10 * time.Minute

// keyName makes the name of a key that is nowhere yet, of the day.
func keyName(day string) string { return "site.face." + day + "." + vault.NewID().String() }

func (b bench) wrap(name string) wrapped {
	b.t.Helper()
	dek := random(32)
	text, err := b.Capture.Wrap(b.t.Context(), name, dek)
	if err != nil {
		b.t.Fatalf("wrap: %v", err)
	}
	if text == "" || strings.Contains(text, string(dek)) {
		b.t.Fatalf("wrapped: %q", text)
	}
	return wrapped{name, text, dek}
}

// org makes a contractor of its own, so that cases may share a Vault.
func org() string { return "org-" + vault.NewID().String()[:8] }

func (b bench) mint(grant vault.ID, contractor string, epoch int, ttl time.Duration) (vault.Token, string) {
	b.t.Helper()
	token, accessor, err := b.Grants.Mint(b.t.Context(), grant, contractor, epoch, ttl, 0)
	if err != nil {
		b.t.Fatalf("mint: %v", err)
	}
	if secret := token.Reveal(); secret == "" || len(secret) > vault.MaxToken || accessor == "" || accessor == secret {
		b.t.Fatalf("a token of %d bytes, an accessor of %d", len(secret), len(accessor))
	}
	return token, accessor
}

// counted mints a token of so many uses.
func (b bench) counted(grant vault.ID, uses int64) (vault.Token, string) {
	b.t.Helper()
	token, accessor, err := b.Grants.Mint(b.t.Context(), grant, org(), 1, longTTL, uses)
	b.ok("mint a counted token", err)
	return token, accessor
}

func (b bench) left(what, accessor string, want int64) {
	b.t.Helper()
	if got, err := b.Grants.Uses(b.t.Context(), accessor); err != nil || got != want {
		b.t.Fatalf("%s: %d uses are left, %v; want %d", what, got, err, want)
	}
}

// fence tells prefixes from names: a name is as long as one.
func fence(keys ...string) (f vault.Fence) {
	for _, k := range keys {
		if len(k) > len(vault.ID{}.String()) {
			f.Names = append(f.Names, k)
		} else {
			f.Prefixes = append(f.Prefixes, k)
		}
	}
	return f
}

// grant writes a fence and mints a token behind it.
func (b bench) grant(keys ...string) vault.Token {
	b.t.Helper()
	id := vault.NewID()
	b.ok("write the fence", b.Admin.WriteFence(b.t.Context(), id, fence(keys...)))
	token, _ := b.mint(id, org(), 1, longTTL)
	return token
}

func (b bench) ok(what string, err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

func (b bench) opens(t vault.Token, w wrapped) {
	b.t.Helper()
	dek, err := b.Release.Unwrap(b.t.Context(), t, w.name, w.text)
	if err != nil || !bytes.Equal(dek, w.dek) {
		b.t.Fatalf("unwrapped %d bytes, %v; want the data key", len(dek), err)
	}
}

// refuses shows that the data key does not come back, for that reason.
func (b bench) refuses(what string, t vault.Token, w wrapped, k vault.Kind, r vault.Reason) {
	b.t.Helper()
	dek, err := b.Release.Unwrap(b.t.Context(), t, w.name, w.text)
	if err == nil || vault.KindOf(err) != k || vault.ReasonOf(err) != r || len(dek) > 0 {
		b.t.Fatalf("%s: unwrapped %d bytes, kind %v, reason %q, %v; want kind %v and reason %q",
			what, len(dek), vault.KindOf(err), vault.ReasonOf(err), err, k, r)
	}
}

func (b bench) refused(what string, t vault.Token, w wrapped) {
	b.t.Helper()
	b.refuses(what, t, w, vault.Denied, vault.ReasonKeyRefused)
}

func (b bench) invalid(what string, err error) {
	b.t.Helper()
	if err == nil || vault.KindOf(err) != vault.Invalid {
		b.t.Errorf("%s: kind %v, %v; want kind Invalid", what, vault.KindOf(err), err)
	}
}

// away shows that an error says to try again, and is no verdict.
func (b bench) away(what string, err error) {
	b.t.Helper()
	if vault.KindOf(err) != vault.Unavailable || vault.ReasonOf(err) != vault.ReasonVaultUnavailable {
		b.t.Errorf("%s: kind %v, reason %q, %v; want Unavailable, VAULT_UNAVAILABLE", what, vault.KindOf(err), vault.ReasonOf(err), err)
	}
}

// all calls every op with names that are nowhere, but for w and the token.
func (b bench) all(ctx context.Context, token vault.Token, w wrapped) map[string]error {
	got := map[string]error{}
	_, got["Wrap"] = b.Capture.Wrap(ctx, keyName("20190501"), w.dek)
	_, got["Unwrap"] = b.Release.Unwrap(ctx, token, w.name, w.text)
	_, _, got["Mint"] = b.Grants.Mint(ctx, vault.NewID(), org(), 1, longTTL, 0)
	_, got["Uses"] = b.Grants.Uses(ctx, "q8TfMQ4bnR0kbEJSlhCr2tPd")
	got["RevokeToken"] = b.Grants.RevokeToken(ctx, "q8TfMQ4bnR0kbEJSlhCr2tPd")
	got["WriteFence"] = b.Admin.WriteFence(ctx, vault.NewID(), fence("site.face.2"))
	got["CloseFence"] = b.Admin.CloseFence(ctx, vault.NewID())
	got["DeleteFence"] = b.Admin.DeleteFence(ctx, vault.NewID())
	got["DisableContractor"] = b.Admin.DisableContractor(ctx, org(), 1)
	got["RevokeKey"] = b.Admin.RevokeKey(ctx, w.name)
	got["RestoreKey"] = b.Admin.RestoreKey(ctx, w.name)
	got["DestroyKey"] = b.Admin.DestroyKey(ctx, w.name)
	_, got["KeyExists"] = b.Admin.KeyExists(ctx, w.name)
	_, got["Keys"] = b.Admin.Keys(ctx)
	return got
}
