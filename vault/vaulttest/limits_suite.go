package vaulttest

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

func testBadFence(t *testing.T, b bench) {
	w, id := b.wrap(keyName("20190501")), vault.NewID()
	token, _ := b.mint(id, org(), 1, longTTL)
	write := func(f vault.Fence) error { return b.Admin.WriteFence(t.Context(), id, f) }
	for _, bad := range badNames {
		b.invalid("a fence of "+bad, write(vault.Fence{Prefixes: []string{"other.face.2", bad}}))
		b.refused("behind no fence", token, w)
	}
	// A name is none that ends early or late, has a star, or leads out of the policy's text.
	names := append([]string{
		"site.face.2", "site.face.20190501.", w.name[:len(w.name)-1], w.name + "0", w.name + "*", w.name + "\n", w.name + "/x",
		w.name + `" { capabilities = ["sudo"] } path "sys/x`, "+." + w.name, "x/" + w.name,
	}, badNames...)
	for _, bad := range names {
		b.invalid("a fence of the name "+bad, write(vault.Fence{Names: []string{keyName("20190501"), bad}}))
		b.refused("behind no fence", token, w)
	}
	b.invalid("a name for a prefix", write(vault.Fence{Prefixes: []string{w.name}}))
	b.invalid("an empty fence", write(vault.Fence{}))
	prefixes, many := slices.Repeat([]string{"site.face.2"}, vault.MaxPrefixes/2), make([]string, vault.MaxPrefixes/2)
	for i := range many {
		many[i] = keyName("20190502")
	}
	b.invalid("a fence too long", write(vault.Fence{Prefixes: prefixes, Names: append(many, w.name)}))
	b.invalid("too many names", write(vault.Fence{Names: append(slices.Repeat(many, 2), w.name)}))
	b.invalid("too many prefixes", write(vault.Fence{Prefixes: append(slices.Repeat(prefixes, 2), "site.face.2")}))
	b.refused("behind no fence", token, w)
	b.ok("the longest fence", write(vault.Fence{Prefixes: prefixes, Names: many}))
	b.opens(token, w)
}

// testFenceOfNames: exactly the keys that are named open.
func testFenceOfNames(t *testing.T, b bench) {
	one, two, beside := b.wrap(keyName("20190501")), b.wrap(keyName("20190501")), b.wrap(keyName("20190501"))
	ranged := b.wrap("site.plate.20190501." + vault.NewID().String())
	id := vault.NewID()
	b.ok("write the fence", b.Admin.WriteFence(t.Context(), id, vault.Fence{Names: []string{one.name, two.name}}))
	token, _ := b.mint(id, org(), 1, longTTL)
	b.opens(token, one)
	b.opens(token, two)
	b.refused("a key that is not named", token, beside)
	b.refused("another modality", token, ranged)
	b.ok("write it anew", b.Admin.WriteFence(t.Context(), id, vault.Fence{Names: []string{two.name}, Prefixes: []string{"site.plate.2019"}}))
	b.opens(token, two)
	b.opens(token, ranged)
	b.refused("no longer named", token, one)
}

func testUses(t *testing.T, b bench) {
	w, id := b.wrap(keyName("20190501")), vault.NewID()
	b.ok("write the fence", b.Admin.WriteFence(t.Context(), id, fence(w.name)))
	free, loose := b.mint(id, org(), 1, longTTL)
	token, accessor := b.counted(id, 3)
	for left := int64(3); left > 0; left-- {
		for range 2 {
			b.left("asking is no use", accessor, left)
		}
		b.opens(token, w)
	}
	b.left("used up", accessor, 0)
	for range 2 {
		b.refused("used up", token, w)
	}
	b.left("used up, still", accessor, 0)
	b.ok("revoke a token that is used up", b.Grants.RevokeToken(t.Context(), accessor))

	// Vault says 0 of a token that it does not count. That must not pass for none left.
	for range 5 {
		b.opens(free, w)
	}
	if left, err := b.Grants.Uses(t.Context(), loose); err == nil || vault.KindOf(err) != vault.Internal || left != 0 {
		t.Fatalf("a token that is not counted has %d uses left, %v; want kind Internal", left, err)
	}
	one, accessor := b.counted(id, 1)
	b.left("a single use", accessor, 1)
	b.opens(one, w)
	b.refused("used up", one, w)
	b.left("a single use", accessor, 0)
	_, accessor = b.counted(id, vault.MaxQuota)
	b.left("many", accessor, vault.MaxQuota)

	for _, uses := range []int64{-1, -1 << 62} {
		none, accessor, err := b.Grants.Mint(t.Context(), id, org(), 1, longTTL, uses)
		b.invalid(fmt.Sprintf("a token of %d uses", uses), err)
		if !none.IsZero() || accessor != "" {
			t.Errorf("a token of %d uses was minted", uses)
		}
	}
	_, err := b.Grants.Uses(t.Context(), "")
	b.invalid("no accessor", err)
}

// testUsesOfRefusals: what Vault refuses, or can not do, is a use as well.
func testUsesOfRefusals(t *testing.T, b bench) {
	w, outside, revoked, id, who := b.wrap(keyName("20190501")), b.wrap(keyName("20190601")), b.wrap(keyName("20190501")), vault.NewID(), org()
	b.ok("write the fence", b.Admin.WriteFence(t.Context(), id, fence("site.face.20190501.")))
	b.ok("revoke the key", b.Admin.RevokeKey(t.Context(), revoked.name))
	token, accessor, err := b.Grants.Mint(t.Context(), id, who, 1, longTTL, 8)
	b.ok("mint", err)
	b.refused("outside", token, outside)
	b.left("refused", accessor, 7)
	b.refuses("damaged", token, wrapped{w.name, "vault:v1:AAAA", nil}, vault.DataLoss, vault.ReasonDataLoss)
	b.left("damaged", accessor, 6)
	b.refuses("a revoked key", token, revoked, vault.Denied, vault.ReasonKeyRevoked)
	b.left("a revoked key", accessor, 5)
	b.refuses("a key that is nowhere", token, wrapped{keyName("20190501"), w.text, nil}, vault.Denied, vault.ReasonKeyDestroyed)
	b.left("a key that is nowhere", accessor, 4)
	b.ok("close the fence", b.Admin.CloseFence(t.Context(), id))
	b.refused("behind a closed fence", token, w)
	b.left("behind a closed fence", accessor, 3)
	b.ok("disable", b.Admin.DisableContractor(t.Context(), who, 1))
	b.refused("a disabled contractor", token, w)
	b.left("a disabled contractor", accessor, 2)

	// What never reaches Vault is none.
	b.refuses("nonsense", token, wrapped{w.name, "nonsense", nil}, vault.DataLoss, vault.ReasonDataLoss)
	_, err = b.Release.Unwrap(t.Context(), token, "nonsense", w.text)
	b.invalid("no key's name", err)
	b.left("what did not reach Vault", accessor, 2)
	b.refused("the last but one", token, w)
	b.refused("the last", token, w)
	b.left("all refused", accessor, 0)
}

func testUsesGone(t *testing.T, b bench) {
	w, id := b.wrap(keyName("20190501")), vault.NewID()
	b.ok("write the fence", b.Admin.WriteFence(t.Context(), id, fence(w.name)))
	token, accessor := b.counted(id, 5)
	b.opens(token, w)
	b.ok("revoke", b.Grants.RevokeToken(t.Context(), accessor))
	b.left("revoked", accessor, 0)
	short, accessor, err := b.Grants.Mint(t.Context(), id, org(), 1, 2*time.Second, 5)
	b.ok("mint", err)
	b.opens(short, w)
	b.left("while it lives", accessor, 4)
	b.Wait(2*time.Second + 300*time.Millisecond)
	b.left("after its end", accessor, 0)
	b.left("one that never was", "q8TfMQ4bnR0kbEJSlhCr2tPd", 0)
}

// testLastUse: of many at once no more open than there are uses, and who asks meanwhile gets an
// answer that never grows. Vault ends the token some milliseconds after its last use; until then
// its answer to others is that it is out of order (500), which is no verdict.
func testLastUse(t *testing.T, b bench) {
	w, id := b.wrap(keyName("20190501")), vault.NewID()
	b.ok("write the fence", b.Admin.WriteFence(t.Context(), id, fence(w.name)))
	const uses, callers, rounds = 4, 8, 5
	for range rounds {
		token, accessor := b.counted(id, uses)
		var opened atomic.Int64
		var used, asked sync.WaitGroup
		done := make(chan struct{})
		for range 2 {
			asked.Go(func() {
				for last := int64(uses); ; {
					left, err := b.Grants.Uses(t.Context(), accessor)
					if err != nil || left > last || left < 0 {
						t.Errorf("%d uses are left after %d: %v", left, last, err)
					}
					last = left
					select {
					case <-done:
						return
					default:
					}
				}
			})
		}
		for range callers {
			used.Go(func() {
				dek, err := b.Release.Unwrap(t.Context(), token, w.name, w.text)
				if err == nil && bytes.Equal(dek, w.dek) {
					opened.Add(1)
				} else if r := vault.ReasonOf(err); r != vault.ReasonKeyRefused && r != vault.ReasonVaultUnavailable {
					t.Errorf("used up: %v", err)
				}
			})
		}
		used.Wait()
		close(done)
		asked.Wait()
		if n := opened.Load(); n != uses {
			t.Errorf("a token of %d uses opened %d times", uses, n)
		}
		b.left("used up", accessor, 0)
		b.refused("used up", token, w)
	}
}
