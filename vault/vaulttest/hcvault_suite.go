package vaulttest

import (
	"bytes"
	"context"
	"errors"
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
		"a data key comes back":              testUnwrap,
		"a name that exists is refused":      testWrapTwice,
		"names that are none":                testBadNames,
		"tokens that are none":               testBadTokens,
		"an altered wrapped key":             testAltered,
		"wrapped keys swapped":               testSwapped,
		"the fence holds":                    testFence,
		"the fence is replaced":              testFenceReplaced,
		"the fence is gone":                  testFenceGone,
		"a fence of other characters":        testBadFence,
		"a fence of names":                   testFenceOfNames,
		"grants are apart":                   testGrantsApart,
		"a token ends":                       testTokenEnds,
		"a token is revoked":                 testTokenRevoked,
		"what cannot be minted":              testBadMint,
		"uses are counted":                   testUses,
		"refused uses are counted, too":      testUsesOfRefusals,
		"uses of a token that is gone":       testUsesGone,
		"a last use that is raced for":       testLastUse,
		"an epoch without tokens":            testDisableFirst,
		"a contractor is disabled":           testDisable,
		"a key is revoked":                   testRevokeKey,
		"a key is restored":                  testRestoreKey,
		"a key is destroyed":                 testDestroyKey,
		"a key made anew":                    testAnew,
		"keys are listed":                    testKeys,
		"a context that is done":             testContext,
		"sealed or away, then back":          testDown,
		"what cuts off holds over an outage": testDownHolds,
		"errors tell no secret":              testSecret,
	} {
		t.Run(name, func(t *testing.T) { test(t, bench{t, open(t)}) })
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
		if err == nil || vault.KindOf(err) != vault.Internal || text != "" {
			t.Fatalf("wrapped again: %q, %v; want kind Internal", text, err)
		}
	}
	b.opens(b.grant(w.name), w)
}

// badNames are neither names of keys nor the beginning of one, or could lead elsewhere.
var badNames = []string{
	"", "*", "+", "a", "site.face.", "site.face.2019*", "site.ear.2019", "Site.face.2019", "si--te.face.2019", "site.face.20190501",
	"site.face.2019\n", "a/site.face.2019", "../site.face.2019", "sys/policies/acl/root", "site.face.2019?x", "site.face.2019#x",
	"site.face.2019%2f", "säte.face.2019", "site.face.2019\x00", `site.face.2019*" { capabilities = ["update"] } path "`,
}

func testBadNames(t *testing.T, b bench) {
	w := b.wrap(keyName("20190501"))
	token := b.grant("site.face.2")
	names := append([]string{w.name + "/rotate", w.name + "x", "../keys/" + w.name, strings.ToUpper(w.name), w.name[:len(w.name)-1]}, badNames...)
	for _, name := range names {
		text, err := b.Capture.Wrap(t.Context(), name, w.dek)
		b.invalid("wrap by "+name, err)
		dek, err := b.Release.Unwrap(t.Context(), token, name, w.text)
		b.invalid("unwrap by "+name, err)
		exists, err := b.Admin.KeyExists(t.Context(), name)
		b.invalid("look for "+name, err)
		if text != "" || len(dek) > 0 || exists {
			t.Errorf("%q: something came with the error", name)
		}
		b.invalid("revoke "+name, b.Admin.RevokeKey(t.Context(), name))
		b.invalid("restore "+name, b.Admin.RestoreKey(t.Context(), name))
		b.invalid("destroy "+name, b.Admin.DestroyKey(t.Context(), name))
	}
	b.opens(token, w)
	for _, n := range []int{0, 16, 31, 33} {
		if _, err := b.Capture.Wrap(t.Context(), keyName("20190501"), make([]byte, n)); err == nil {
			t.Errorf("a data key of %d bytes was wrapped", n)
		}
	}
}

func testBadTokens(t *testing.T, b bench) {
	w := b.wrap(keyName("20190501"))
	token := b.grant(w.name)
	secret := token.Reveal()
	for name, bad := range map[string]string{
		"no token":        "",
		"a made-up token": "hvs.CAESIJlU02LQZq",
		"nonsense":        "x",
		"a cut token":     secret[:len(secret)-1],
		"a longer token":  secret + "A",
		"a changed token": secret[:len(secret)-5] + "AAAAA",
	} {
		b.refused(name, vault.TokenOf(bad), w)
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
		"no version":           strings.Replace(w.text, ":v1:", ":vx:", 1),
		"not base64":           w.text[:middle] + "!" + w.text[middle+1:],
		"too short to be one":  "vault:v1:AAAA",
		"many bytes":           "vault:v1:" + strings.Repeat("A", 4096),
	} {
		b.refuses(name, token, wrapped{w.name, text, nil}, vault.DataLoss, vault.ReasonDataLoss)
	}
	b.opens(token, w)
	// Vault counted from 0 once and takes it for 1, and calls what is less too old. Either may
	// be refused before it comes to Vault; neither may give other bytes.
	for _, version := range []string{":v0:", ":v-1:"} {
		dek, err := b.Release.Unwrap(t.Context(), token, w.name, strings.Replace(w.text, ":v1:", version, 1))
		if k := vault.KindOf(err); err != nil && (k != vault.DataLoss && k != vault.Denied || len(dek) > 0) {
			t.Errorf("version %s: %d bytes, %v; want kind DataLoss or Denied", version, len(dek), err)
		}
		if err == nil && (version != ":v0:" || !bytes.Equal(dek, w.dek)) {
			t.Errorf("version %s opened", version)
		}
	}
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
	b.ok("write the fence", b.Admin.WriteFence(t.Context(), id, fence(old.name)))
	token, _ := b.mint(id, org(), 1, longTTL)
	b.opens(token, old)
	for range 2 {
		b.ok("write it anew", b.Admin.WriteFence(t.Context(), id, fence(now.name)))
		b.refused("no longer inside", token, old)
		b.opens(token, now)
	}
}

func testFenceGone(t *testing.T, b bench) {
	w, id, who := b.wrap(keyName("20190501")), vault.NewID(), org()
	early, _ := b.mint(id, who, 1, longTTL)
	b.refused("before there is a fence", early, w)
	b.ok("write the fence", b.Admin.WriteFence(t.Context(), id, fence("site.face.2")))
	b.opens(early, w) // the fence is the grant's, not the token's
	other := b.grant("site.face.2")
	for range 2 {
		b.ok("delete the fence", b.Admin.DeleteFence(t.Context(), id))
		b.refused("behind a deleted fence", early, w)
	}
	late, _ := b.mint(id, who, 1, longTTL)
	b.refused("minted after that", late, w)
	b.ok("write it again", b.Admin.WriteFence(t.Context(), id, fence("site.face.2")))
	b.opens(late, w)
	for range 2 {
		b.ok("close the fence", b.Admin.CloseFence(t.Context(), id))
		b.refused("behind a closed fence", late, w)
		err := b.Admin.WriteFence(t.Context(), id, fence("site.face.2"))
		if vault.KindOf(err) != vault.State || vault.ReasonOf(err) != vault.ReasonGrantRevoked {
			t.Errorf("a closed fence was written again: %v", err)
		}
		b.refused("behind a fence that stayed closed", late, w)
	}
	b.ok("delete a closed fence", b.Admin.DeleteFence(t.Context(), id))
	b.opens(other, w)
	b.ok("delete a fence that never was", b.Admin.DeleteFence(t.Context(), vault.NewID()))
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
	b.ok("write the fence", b.Admin.WriteFence(t.Context(), id, fence(w.name)))
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
	b.ok("write the fence", b.Admin.WriteFence(t.Context(), id, fence(w.name)))
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

func testBadMint(t *testing.T, b bench) {
	for _, ttl := range []time.Duration{0, -time.Second, time.Nanosecond, 999 * time.Millisecond, vault.MaxTTL + 1} {
		// Less than a second would be none to Vault, and none is without end.
		_, _, err := b.Grants.Mint(t.Context(), vault.NewID(), org(), 1, ttl, 0)
		b.invalid("a token of "+ttl.String(), err)
	}
	for _, c := range []struct {
		contractor string
		epoch      int
	}{{"", 1}, {"Org", 1}, {"a/b", 1}, {"org", 0}, {"org", -1}} {
		_, _, err := b.Grants.Mint(t.Context(), vault.NewID(), c.contractor, c.epoch, longTTL, 0)
		b.invalid("a token of "+c.contractor, err)
		b.invalid("disable "+c.contractor, b.Admin.DisableContractor(t.Context(), c.contractor, c.epoch))
	}
	b.invalid("revoke nothing", b.Grants.RevokeToken(t.Context(), ""))
}

func testDisable(t *testing.T, b bench) {
	w, id, who := b.wrap(keyName("20190501")), vault.NewID(), org()
	b.ok("write the fence", b.Admin.WriteFence(t.Context(), id, fence(w.name)))
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
	late, _, err := b.Grants.Mint(t.Context(), id, who, 1, longTTL, 0)
	if vault.KindOf(err) != vault.Denied || vault.ReasonOf(err) != vault.ReasonContractorSuspended || !late.IsZero() {
		t.Fatalf("minted after that: %v; want Denied, CONTRACTOR_SUSPENDED", err)
	}
	b.refused("of the epoch, still", first, w)
	b.ok("revoke a token of the epoch", b.Grants.RevokeToken(t.Context(), accessor))
}

// testDisableFirst pins a gap that our own rules must close: Vault makes the entity with the
// first token, so there is nothing to disable before.
func testDisableFirst(t *testing.T, b bench) {
	w, id, who := b.wrap(keyName("20190501")), vault.NewID(), org()
	b.ok("write the fence", b.Admin.WriteFence(t.Context(), id, fence(w.name)))
	b.ok("disable one that never had a token", b.Admin.DisableContractor(t.Context(), who, 1))
	token, _ := b.mint(id, who, 1, longTTL)
	b.opens(token, w)
	b.ok("disable", b.Admin.DisableContractor(t.Context(), who, 1))
	b.refused("of the epoch", token, w)
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
	b.ok("write the fence", b.Admin.WriteFence(t.Context(), id, fence("site.face.2")))
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
	token := b.grant("other.face.2")
	var all []error
	_, err := b.Release.Unwrap(t.Context(), token, w.name, w.text)
	all = append(all, err)
	_, err = b.Release.Unwrap(t.Context(), b.grant(w.name), w.name, w.text[:len(w.text)-4])
	all = append(all, err)
	_, err = b.Capture.Wrap(t.Context(), w.name, w.dek)
	all = append(all, err)
	for _, err := range all {
		if err == nil || strings.Contains(err.Error(), token.Reveal()) || strings.Contains(err.Error(), string(w.dek)) {
			t.Errorf("%v", err)
		}
	}
}
