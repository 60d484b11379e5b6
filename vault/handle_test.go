package vault_test

import (
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/portcullis/portcullis/vault"
)

func someKey() (k vault.HandleKey) {
	for i := range k {
		k[i] = byte(i)
	}
	return k
}

// TestDerivedVectors pins what docs/formats.md says of crossing handles and page tokens. The values
// come from another implementation (Python's cryptography and hmac).
func TestDerivedVectors(t *testing.T) {
	k := someKey()
	id := vault.ID{0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}
	crossings := k.Crossings()
	if got := hex.EncodeToString(crossings[:]); got != "71d88fa5a469b9af64a21430df45bb08" {
		t.Errorf("key for crossings: %s", got)
	}
	if got := crossings.Handle(id).String(); got != "5eae76a679f47354932501e975a6ed0d" {
		t.Errorf("crossing: %s", got)
	}
	if k.Record(k.Handle(id)) != id || crossings.Record(crossings.Handle(id)) != id {
		t.Error("not what was named")
	}
	grant := vault.ID{15: 1}
	after, err := k.OpenPage("page_token", grant, "AAECAwQFBgcICQoLJnueG4ojo4AmS-6HrtFNTMFHP6_qi2rvspe_C7tjUkk")
	if err != nil || after != vault.Handle(id) {
		t.Errorf("page: %s, %v", after, err)
	}
}

// TestPagesAreSealed: a page token is another each time, tells nothing, and opens for its grant
// under its key alone, whole and unaltered.
func TestPagesAreSealed(t *testing.T) {
	k, grant, after := someKey(), vault.NewID(), vault.Handle{1, 2, 3}
	token := k.SealPage(grant, after)
	if token == k.SealPage(grant, after) || len(token) != 59 {
		t.Errorf("%q", token)
	}
	if got, err := k.OpenPage("page_token", grant, token); err != nil || got != after {
		t.Fatalf("%s, %v", got, err)
	}
	if got, err := k.OpenPage("page_token", grant, ""); err != nil || got != (vault.Handle{}) || vault.CheckPage("page_token", "") != nil {
		t.Errorf("none: %s, %v", got, err)
	}
	refused := func(what string, k vault.HandleKey, grant vault.ID, token string) {
		t.Helper()
		got, err := k.OpenPage("page_token", grant, token)
		if vault.ReasonOf(err) != vault.ReasonInvalidField || got != (vault.Handle{}) {
			t.Errorf("%s: %s, %v", what, got, err)
		}
	}
	refused("another grant", k, vault.NewID(), token)
	refused("another key", k.Crossings(), grant, token)
	sealed, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	for i := range sealed {
		sealed[i] ^= 1
		refused("a bit turned", k, grant, base64.RawURLEncoding.EncodeToString(sealed))
		sealed[i] ^= 1
	}
	for what, bad := range map[string]string{
		"a handle": after.String(), "cut": token[:58], "longer": token + "A", "padded": token + "=", "a line": token[:58] + "\n",
		"other bits behind the last": token[:58] + string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[strings.IndexByte(
			"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", token[58])|3]),
		"standard base64": strings.Repeat("+", 59), "very long": strings.Repeat("A", 1<<20),
	} {
		refused(what, k, grant, bad)
		if vault.CheckPage("page_token", bad) == nil {
			t.Errorf("%s has the form of a token", what)
		}
	}
}
