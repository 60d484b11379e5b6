package hcvault_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis/portcullis/internal/hcvault"
	"github.com/portcullis/portcullis/internal/hcvault/transport"
	"github.com/portcullis/portcullis/vault"
)

// A name in a fence is no prefix: keys that Portcullis never makes, whose names begin with it, stay shut at Vault.
func TestFenceOfANameIsNoPrefix(t *testing.T) {
	h := newHouse(t)
	one := h.store("exact.face.20190101")
	_, exact, _ := h.fenced("exact-co", 1, vault.Fence{Names: []string{one.name}})
	_, wide, _ := h.grant("exact-co", 1, "exact.face.20190101.")
	c, err := transport.New(transport.Config{Addr: dev.Addr(), CAFile: dev.CACert()})
	h.must(err)
	defer c.Close()
	h.opens(exact, one)
	for _, name := range []string{one.name + "0", one.name + "-0", one.name + ".x", one.name[:len(one.name)-1]} {
		var made struct{ Data struct{ Ciphertext string } }
		h.must(root(t, "POST", "portcullis/encrypt/"+name, map[string]string{"plaintext": base64.StdEncoding.EncodeToString(one.dek)}, &made))
		open := func(tok vault.Token) error {
			return c.Do(t.Context(), tok.Reveal(), "POST", "portcullis/decrypt/"+name, map[string]string{"ciphertext": made.Data.Ciphertext}, nil)
		}
		h.must(open(wide)) // so it is the fence that holds, not the name
		if err := open(exact); transport.Status(err) != 403 {
			t.Errorf("a fence of the name %s, at %s: %v", one.name, name, err)
		}
	}
}

// A token of other uses than were asked for is given to nobody, and ended.
func TestMintOfOtherUses(t *testing.T) {
	h := newHouse(t)
	id := vault.NewID()
	h.must(h.admin.WriteFence(t.Context(), id, vault.Fence{Prefixes: []string{"uses.face.2019"}}))
	role := func(uses int) {
		t.Helper()
		h.must(root(t, "POST", "auth/token/roles/"+hcvault.TokenRole, map[string]int{"token_num_uses": uses}, nil))
	}
	accessors := func() int {
		t.Helper()
		var got struct{ Data struct{ Keys []string } }
		h.must(root(t, "LIST", "auth/token/accessors", nil, &got))
		return len(got.Data.Keys)
	}
	mint := func(uses int64) error {
		_, _, err := h.grants.Mint(t.Context(), id, "uses-co", 1, time.Minute, uses)
		return err
	}
	h.must(mint(3)) // logs in, too
	before := accessors()
	role(2) // somebody wrote to the role: Vault now cuts what is asked for
	for _, uses := range []int64{0, 3} {
		if err := mint(uses); err == nil || vault.KindOf(err) != vault.Internal {
			t.Errorf("a token of %d uses, which Vault cut to 2: %v", uses, err)
		}
	}
	if after := accessors(); after != before {
		t.Errorf("%d tokens, %d before: the refused ones live", after, before)
	}
	h.must(mint(2))
	role(0)
	h.must(mint(3))
	h.must(mint(0))
}

// While a token ends Vault answers 403 for some milliseconds (17 times in 300 endings that were watched). That is no verdict on our
// credential; a refusal that stays is.
func TestUsesOfATokenThatEnds(t *testing.T) {
	const gone, forbidden = `{"errors":["1 error occurred:\n\t* invalid accessor\n\n"]}`, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`
	for name, c := range map[string]struct {
		refusals int64
		status   int
		answer   string
		left     int64
		good     bool
	}{
		"it has ended":          {0, 400, gone, 0, true},
		"it ends":               {1, 400, gone, 0, true},
		"it takes its time":     {3, 400, gone, 0, true},
		"a credential too weak": {100, 400, gone, 0, false},
		"its last use":          {0, 200, `{"data":{"num_uses":-1}}`, 0, true},
		"it lives":              {0, 200, `{"data":{"num_uses":7}}`, 7, true},
		"it is not counted":     {0, 200, `{"data":{"num_uses":0}}`, 0, false},
		"no number":             {0, 200, `{"data":{}}`, 0, false},
		"another refusal":       {0, 400, `{"errors":["missing accessor"]}`, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int64
			cfg := fake(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == loginPath:
					fmt.Fprint(w, `{"auth":{"client_token":"hvs.some","lease_duration":90}}`)
				case calls.Add(1) <= c.refusals:
					w.WriteHeader(http.StatusForbidden)
					fmt.Fprint(w, forbidden)
				default:
					w.WriteHeader(c.status)
					fmt.Fprint(w, c.answer)
				}
			})
			left, err := dialTo(t, cfg).Grants(someRole).Uses(t.Context(), "an-accessor")
			if left != c.left || (err == nil) != c.good || (err != nil && vault.KindOf(err) != vault.Internal) {
				t.Errorf("%d uses left, %v; want %d, good: %t", left, err, c.left, c.good)
			}
			if n := calls.Load(); n > 4 {
				t.Errorf("asked %d times", n)
			}
		})
	}
}
