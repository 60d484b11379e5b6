package vaulttest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// HCVaultUnderTest is HashiCorp Vault, or its stand-in, through each of our credentials.
type HCVaultUnderTest struct {
	Capture Capture
	Release Release
	Grants  Grants
	Admin   Admin
	// Wait returns when the time by which tokens end has moved on by d.
	Wait func(d time.Duration)
	// Down makes it answer nobody any more (seal it, for one), and serve again.
	Down func(t *testing.T, down bool)
}

// AsUnderTest puts the fake into the suite. advance moves its clock.
func (v *HCVault) AsUnderTest(advance func(time.Duration)) HCVaultUnderTest {
	return HCVaultUnderTest{
		Capture: v, Release: v, Grants: v, Admin: v, Wait: advance,
		Down: func(_ *testing.T, down bool) { v.Down(down) },
	}
}

// TestHCVault shows that what open gives does as [Capture], [Release], [Grants] and [Admin]
// say. open is called for each case; all may go to one Vault, which may hold other things.
func TestHCVault(t *testing.T, open func(t *testing.T) HCVaultUnderTest) {
	for name, test := range map[string]func(*testing.T, bench){
		"a data key comes back":                testUnwrap,
		"a name that exists is refused":        testWrapTwice,
		"names that are none":                  testBadNames,
		"tokens that are none":                 testBadTokens,
		"an altered wrapped key":               testAltered,
		"wrapped keys swapped":                 testSwapped,
		"the fence holds":                      testFence,
		"the fence is replaced":                testFenceReplaced,
		"the fence is gone":                    testFenceGone,
		"a fence of other characters":          testBadFence,
		"grants are apart":                     testGrantsApart,
		"a token ends":                         testTokenEnds,
		"a token is revoked":                   testTokenRevoked,
		"a ttl that is none":                   testBadTTL,
		"a contractor is disabled":             testDisable,
		"a key is revoked":                     testRevokeKey,
		"a key is restored":                    testRestoreKey,
		"a key is destroyed":                   testDestroyKey,
		"a key made anew":                      testAnew,
		"keys are listed":                      testKeys,
		"a context that is done":               testContext,
		"sealed or away, then back":            testDown,
		"what cuts off holds over an outage":   testDownHolds,
		"a token gives no more than it opens ": testSecret,
	} {
		t.Run(strings.TrimSpace(name), func(t *testing.T) { test(t, bench{t, open(t)}) })
	}
}

func testUnwrap(t *testing.T, b bench) {
	one, two := b.wrap(keyName("20190501")), b.wrap(keyName("20190502"))
	token := b.grant("site.face.20190501.", "site.face.20190502.")
	b.opens(token, one)
	b.opens(token, two)
	b.opens(token, one)
}

func testWrapTwice(t *testing.T, b bench) {
	w := b.wrap(keyName("20190501"))
	for range 2 {
		text, err := b.Capture.Wrap(t.Context(), w.name, w.dek)
		if k := vault.KindOf(err); err == nil || (k != vault.Exists && k != vault.Denied) || text != "" {
			t.Fatalf("wrapped again: %q, %v; want kind Exists or Denied", text, err)
		}
	}
	b.opens(b.grant(w.name), w)
}

// badNames are not made of the characters of key names, or could lead elsewhere.
var badNames = []string{"", "*", "+", "site.face.2019*", "a/b", "a/../b", "../a", "sys/policies/acl/root", `a"b`, "a\nb", "a b", "a?b", "a#b", "a%2fb", "A", "ä", "a\x00"}

func testBadNames(t *testing.T, b bench) {
	w := b.wrap(keyName("20190501"))
	token := b.grant("site.")
	for _, name := range badNames {
		if _, err := b.Capture.Wrap(t.Context(), name, w.dek); err == nil {
			t.Errorf("wrapped by %q", name)
		}
		if dek, err := b.Release.Unwrap(t.Context(), token, name, w.text); err == nil || len(dek) > 0 {
			t.Errorf("unwrapped by %q", name)
		}
	}
	b.opens(token, w)
}

func testBadTokens(t *testing.T, b bench) {
	w := b.wrap(keyName("20190501"))
	token := b.grant(w.name)
	for name, bad := range map[string]vault.Token{
		"no token":        "",
		"a made-up token": "hvs.CAESIJlU02LQZq",
		"nonsense":        "x",
		"a cut token":     token[:len(token)-1],
		"a longer token":  token + "A",
		"a changed token": token[:len(token)-5] + "AAAAA",
	} {
		b.refused(name, bad, w)
	}
	b.opens(token, w)
}

func testAltered(t *testing.T, b bench) {
	w := b.wrap(keyName("20190501"))
	token := b.grant(w.name)
	middle, last := len(w.text)/2, len(w.text)-2
	swap := func(at int) string {
		c := byte('A')
		if w.text[at] == c {
			c = 'B'
		}
		return w.text[:at] + string(c) + w.text[at+1:]
	}
	for name, text := range map[string]string{
		"one letter":           swap(middle),
		"a letter at the end":  swap(last - 2),
		"a letter of nonce":    swap(len("vault:v1:") + 1),
		"cut by four":          w.text[:len(w.text)-4],
		"cut to the prefix":    "vault:v1:",
		"nothing":              "",
		"no prefix":            strings.TrimPrefix(w.text, "vault:v1:"),
		"a version that isn't": strings.Replace(w.text, ":v1:", ":v2:", 1),
		"version 0":            strings.Replace(w.text, ":v1:", ":v0:", 1),
		"a negative version":   strings.Replace(w.text, ":v1:", ":v-1:", 1),
		"no version":           strings.Replace(w.text, ":v1:", ":vx:", 1),
		"not base64":           w.text[:middle] + "!" + w.text[middle+1:],
		"too short to be one":  "vault:v1:AAAA",
		"many bytes":           "vault:v1:" + strings.Repeat("A", 4096),
	} {
		b.refuses(name, token, wrapped{w.name, text, nil}, vault.DataLoss, vault.ReasonDataLoss)
	}
	b.opens(token, w)
}

func testSwapped(t *testing.T, b bench) {
	one, two := b.wrap(keyName("20190501")), b.wrap(keyName("20190501"))
	token := b.grant("site.face.20190501.")
	b.refuses("the text of another key", token, wrapped{one.name, two.text, nil}, vault.DataLoss, vault.ReasonDataLoss)
	b.opens(token, one)
	b.opens(token, two)
}

func testFence(t *testing.T, b bench) {
	id := vault.NewID().String()
	inside := []wrapped{b.wrap("site.face.20190510." + id), b.wrap("site.face.20190519." + id), b.wrap("site.face.20190601." + id)}
	outside := map[string]wrapped{
		"another day":       b.wrap("site.face.20190520." + id),
		"the day before":    b.wrap("site.face.20190509." + id),
		"another month":     b.wrap("site.face.20190710." + id),
		"the next day":      b.wrap("site.face.20190602." + id),
		"another modality":  b.wrap("site.plate.20190510." + id),
		"another site":      b.wrap("site-2.face.20190510." + id),
		"a site before it":  b.wrap("a-site.face.20190510." + id),
		"a site's own part": b.wrap("sit.face.20190510." + id),
	}
	token := b.grant("site.face.2019051", "site.face.20190601.")
	for _, w := range inside {
		b.opens(token, w)
	}
	for name, w := range outside {
		b.refused(name, token, w)
	}
	exact := b.grant(inside[0].name)
	b.opens(exact, inside[0])
	b.refused("not the one named", exact, inside[1])
	b.refused("a name that is nowhere, outside", exact, wrapped{name: keyName("20190510"), text: inside[0].text})
}

func testFenceReplaced(t *testing.T, b bench) {
	old, now := b.wrap(keyName("20190501")), b.wrap(keyName("20190502"))
	id := vault.NewID()
	b.ok("write the fence", b.Admin.WriteFence(t.Context(), id, []string{old.name}))
	token, _ := b.mint(id, org(), 1, longTTL)
	b.opens(token, old)
	for range 2 {
		b.ok("write it anew", b.Admin.WriteFence(t.Context(), id, []string{now.name}))
		b.refused("no longer inside", token, old)
		b.opens(token, now)
	}
}

func testFenceGone(t *testing.T, b bench) {
	w, id, who := b.wrap(keyName("20190501")), vault.NewID(), org()
	early, _ := b.mint(id, who, 1, longTTL)
	b.refused("before there is a fence", early, w)
	b.ok("write the fence", b.Admin.WriteFence(t.Context(), id, []string{"site.face."}))
	b.opens(early, w) // the fence is the grant's, not the token's
	other := b.grant("site.face.")
	for range 2 {
		b.ok("delete the fence", b.Admin.DeleteFence(t.Context(), id))
		b.refused("behind a deleted fence", early, w)
	}
	late, _ := b.mint(id, who, 1, longTTL)
	b.refused("minted after that", late, w)
	b.opens(other, w)
	b.ok("delete a fence that never was", b.Admin.DeleteFence(t.Context(), vault.NewID()))
}

func testBadFence(t *testing.T, b bench) {
	w, id := b.wrap(keyName("20190501")), vault.NewID()
	token, _ := b.mint(id, org(), 1, longTTL)
	for _, prefix := range append(badNames, `x*" { capabilities = ["update"] } path "`) {
		if err := b.Admin.WriteFence(t.Context(), id, []string{"other.face.", prefix}); err == nil {
			t.Errorf("the prefix %q was taken", prefix)
		}
		b.refused("behind no fence", token, w)
	}
}

func testGrantsApart(t *testing.T, b bench) {
	one, two := b.wrap(keyName("20190501")), b.wrap(keyName("20190501"))
	first, second := b.grant(one.name), b.grant(two.name)
	b.opens(first, one)
	b.opens(second, two)
	b.refused("another grant's key", first, two)
	b.refused("another grant's key", second, one)
}

func testTokenEnds(t *testing.T, b bench) {
	w, id, who := b.wrap(keyName("20190501")), vault.NewID(), org()
	b.ok("write the fence", b.Admin.WriteFence(t.Context(), id, []string{w.name}))
	short, accessor := b.mint(id, who, 1, 2*time.Second+300*time.Millisecond)
	long, _ := b.mint(id, who, 1, longTTL)
	b.opens(short, w)
	b.Wait(2*time.Second + 300*time.Millisecond)
	b.refused("after its end", short, w)
	b.opens(long, w)
	b.ok("revoke a token that has ended", b.Grants.RevokeToken(t.Context(), accessor))
}

func testTokenRevoked(t *testing.T, b bench) {
	w, id, who := b.wrap(keyName("20190501")), vault.NewID(), org()
	b.ok("write the fence", b.Admin.WriteFence(t.Context(), id, []string{w.name}))
	first, accessor := b.mint(id, who, 1, longTTL)
	second, _ := b.mint(id, who, 1, longTTL)
	if first == second {
		t.Fatal("two tokens are the same")
	}
	b.opens(first, w)
	for range 2 {
		b.ok("revoke", b.Grants.RevokeToken(t.Context(), accessor))
		b.refused("revoked", first, w)
	}
	b.opens(second, w)
	b.ok("revoke one that never was", b.Grants.RevokeToken(t.Context(), "q8TfMQ4bnR0kbEJSlhCr2tPd"))
}

func testBadTTL(t *testing.T, b bench) {
	for _, ttl := range []time.Duration{0, -time.Second, time.Nanosecond, 999 * time.Millisecond} {
		// Less than a second would be none to Vault, and none is without end.
		if _, _, err := b.Grants.Mint(t.Context(), vault.NewID(), org(), 1, ttl); err == nil {
			t.Errorf("a token of %v was minted", ttl)
		}
	}
}

func testDisable(t *testing.T, b bench) {
	w, id, who := b.wrap(keyName("20190501")), vault.NewID(), org()
	b.ok("write the fence", b.Admin.WriteFence(t.Context(), id, []string{w.name}))
	first, accessor := b.mint(id, who, 1, longTTL)
	second, _ := b.mint(id, who, 1, longTTL)
	next, _ := b.mint(id, who, 2, longTTL)
	other, _ := b.mint(id, org(), 1, longTTL)
	b.opens(first, w)
	for range 2 {
		b.ok("disable", b.Admin.DisableContractor(t.Context(), who, 1))
		b.refused("of the epoch", first, w)
		b.refused("of the epoch, too", second, w)
		b.opens(next, w)
		b.opens(other, w)
	}
	if late, _, err := b.Grants.Mint(t.Context(), id, who, 1, longTTL); err == nil {
		b.refused("minted after that", late, w)
	}
	b.refused("of the epoch, still", first, w)
	b.ok("revoke a token of the epoch", b.Grants.RevokeToken(t.Context(), accessor))
	b.ok("disable one that never had a token", b.Admin.DisableContractor(t.Context(), org(), 1))
}

func testRevokeKey(t *testing.T, b bench) {
	w, beside := b.wrap(keyName("20190501")), b.wrap(keyName("20190501"))
	token := b.grant("site.face.")
	b.opens(token, w)
	for range 3 {
		b.ok("revoke the key", b.Admin.RevokeKey(t.Context(), w.name))
		b.refuses("a revoked key", token, w, vault.Denied, vault.ReasonKeyRevoked)
	}
	b.refuses("a revoked key, by a new token", b.grant(w.name), w, vault.Denied, vault.ReasonKeyRevoked)
	b.refused("outside its fence it is no token's to know", b.grant(beside.name), w)
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
	token := b.grant("site.face.")
	b.ok("revoke", b.Admin.RevokeKey(t.Context(), revoked.name))
	for _, w := range []wrapped{plain, revoked} {
		for range 2 {
			b.ok("destroy", b.Admin.DestroyKey(t.Context(), w.name))
			if exists, err := b.Admin.KeyExists(t.Context(), w.name); err != nil || exists {
				t.Fatalf("a destroyed key exists: %v, %v", exists, err)
			}
			b.refuses("a destroyed key", token, w, vault.Denied, vault.ReasonKeyDestroyed, vault.ReasonKeyRefused)
		}
		// Whatever these answer, they must not bring it back.
		_ = b.Admin.RestoreKey(t.Context(), w.name)
		_ = b.Admin.RevokeKey(t.Context(), w.name)
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

func testContext(t *testing.T, b bench) {
	w := b.wrap(keyName("20190501"))
	token := b.grant(w.name)
	done, cancel := context.WithCancel(t.Context())
	cancel()
	for op, err := range b.all(done, token, w) {
		b.away(op, err)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v does not tell that the context was done", op, err)
		}
	}
	b.opens(token, w)
}

func testDown(t *testing.T, b bench) {
	w := b.wrap(keyName("20190501"))
	token := b.grant(w.name)
	b.opens(token, w)
	b.Down(t, true)
	for op, err := range b.all(t.Context(), token, w) {
		b.away(op, err)
	}
	b.Down(t, false)
	b.opens(token, w)
	b.opens(token, w)
	for op, err := range b.all(t.Context(), token, w) {
		if err != nil {
			t.Errorf("%s, once it serves again: %v", op, err)
		}
	}
}

func testDownHolds(t *testing.T, b bench) {
	w, id, who := b.wrap(keyName("20190501")), vault.NewID(), org()
	revoked := b.wrap(keyName("20190501"))
	b.ok("write the fence", b.Admin.WriteFence(t.Context(), id, []string{"site.face."}))
	disabled, _ := b.mint(id, who, 1, longTTL)
	ended, accessor := b.mint(id, org(), 1, longTTL)
	unfenced := b.grant(w.name)
	lives, _ := b.mint(id, org(), 1, longTTL)
	b.ok("disable", b.Admin.DisableContractor(t.Context(), who, 1))
	b.ok("revoke the token", b.Grants.RevokeToken(t.Context(), accessor))
	b.ok("revoke the key", b.Admin.RevokeKey(t.Context(), revoked.name))
	b.Down(t, true)
	b.Down(t, false)
	b.opens(lives, w)
	b.opens(unfenced, w)
	b.refused("a disabled contractor", disabled, w)
	b.refused("a revoked token", ended, w)
	b.refuses("a revoked key", lives, revoked, vault.Denied, vault.ReasonKeyRevoked)
}

// testSecret: no error tells the token or the data key.
func testSecret(t *testing.T, b bench) {
	w := b.wrap(keyName("20190501"))
	token := b.grant("other.face.")
	var all []error
	_, err := b.Release.Unwrap(t.Context(), token, w.name, w.text)
	all = append(all, err)
	_, err = b.Release.Unwrap(t.Context(), token, "a/b", w.text)
	all = append(all, err)
	_, err = b.Capture.Wrap(t.Context(), w.name, w.dek)
	all = append(all, err)
	for _, err := range all {
		if err == nil || strings.Contains(err.Error(), token.Reveal()) || strings.Contains(err.Error(), string(w.dek)) {
			t.Errorf("%v", err)
		}
	}
}
