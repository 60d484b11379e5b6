package hcvault_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portcullis/portcullis/internal/hcvault"
	"github.com/portcullis/portcullis/vault"
)

func TestFenceIsExact(t *testing.T) {
	h := newHouse(t)
	in := []sealed{
		h.store("fence-a.plate.20190104"), h.store("fence-a.plate.20190109"), // ten days
		h.store("fence-a.face.20190211"), // a day
	}
	one := h.store("fence-a.face.20190301") // a record
	out := []sealed{
		h.store("fence-a.plate.20190110"), h.store("fence-a.plate.20181231"), // neighbouring days
		h.store("fence-a.face.20190210"), h.store("fence-a.face.20190212"),
		h.store("fence-a.face.20190104"), h.store("fence-a.plate.20190211"), // the other modality
		h.store("fence-b.plate.20190104"), h.store("fence-a-2.plate.20190104"), h.store("fence.plate.20190104"), // other sites
		h.store("fence-a.face.20190301"), // beside the record
	}
	_, tok, _ := h.fenced("fence-co", 1, vault.Fence{
		Prefixes: []string{"fence-a.plate.2019010", "fence-a.face.20190211."}, Names: []string{one.name}})
	for _, k := range append(in, one) {
		h.opens(tok, k)
	}
	for _, k := range out {
		h.refused(vault.ReasonKeyRefused, tok, k)
	}
}

func TestFenceOfALongScope(t *testing.T) {
	h := newHouse(t)
	s := vault.Scope{
		Sites: []string{"long-1", "long-2"}, Modalities: []vault.Modality{vault.Face, vault.Plate},
		From: time.Date(2019, 1, 2, 0, 0, 0, 0, time.UTC), Until: time.Date(2019, 12, 31, 0, 0, 0, 0, time.UTC),
	}
	p := s.KeyPrefixes()
	if len(p) < 50 {
		t.Fatalf("%d prefixes are no test of a long policy", len(p))
	}
	_, tok, _ := h.grant("long-co", 1, p...)
	h.opens(tok, h.store("long-2.face.20191230"))
	h.refused(vault.ReasonKeyRefused, tok, h.store("long-2.face.20191231"))
	h.refused(vault.ReasonKeyRefused, tok, h.store("long-1.plate.20190101"))
}

func TestFenceRefusesBadPrefixes(t *testing.T) {
	h := newHouse(t)
	for _, p := range []string{
		"", "*", "a", "a.plate", "a.plate.", "a.plate.*", "a.plate.2019*", "a.ear.2019", "a.plate.20190101", "A.plate.2019",
		"a.plate.2019\"] } path \"sys/*\" {", "../sys/a.plate.2019", "a/b.plate.2019", "a.plate.2019\n", "a--b.plate.2019",
		strings.Repeat("a", 33) + ".plate.2019", "a.plate.20190101.x",
	} {
		if err := h.admin.WriteFence(t.Context(), vault.NewID(), vault.Fence{Prefixes: []string{p}}); vault.KindOf(err) != vault.Invalid {
			t.Errorf("prefix %q: %v", p, err)
		}
	}
	var many []string
	for i := range vault.MaxPrefixes {
		many = append(many, fmt.Sprintf("many-%d.plate.2019", i))
	}
	id := vault.NewID()
	if err := h.admin.WriteFence(t.Context(), id, vault.Fence{Prefixes: many}); err != nil {
		t.Errorf("%d prefixes: %v", len(many), err)
	}
	for _, p := range [][]string{nil, append(many, "more.plate.2019")} {
		if err := h.admin.WriteFence(t.Context(), id, vault.Fence{Prefixes: p}); vault.KindOf(err) != vault.Invalid {
			t.Errorf("%d prefixes: %v", len(p), err)
		}
	}
}

func TestWrapRefusesAKeyThatExists(t *testing.T) {
	h := newHouse(t)
	k := h.store("wrap.face.20190101")
	if w, err := h.capture.Wrap(t.Context(), k.name, k.dek); err == nil {
		t.Errorf("wrapped again: %s", w)
	}
	_, tok, _ := h.grant("wrap-co", 1, "wrap.face.2019")
	h.opens(tok, k)
	for _, name := range []string{"", "x", "../keys/wrap.face.20190101." + vault.NewID().String(), k.name + "/rotate", k.name + "?a", k.name + "%2f"} {
		if _, err := h.capture.Wrap(t.Context(), name, k.dek); vault.KindOf(err) != vault.Invalid {
			t.Errorf("name %q: %v", name, err)
		}
	}
	if _, err := h.capture.Wrap(t.Context(), "wrap.face.20190101."+vault.NewID().String(), k.dek[:31]); err == nil {
		t.Error("a data key of 31 bytes was wrapped")
	}
}

func TestEndingAGrant(t *testing.T) {
	h := newHouse(t)
	k := h.store("end.plate.20190101")
	const p = "end.plate.2019"

	id, tok, _ := h.grant("end-co", 1, p)
	_, other, _ := h.grant("end-co", 1, p)
	h.opens(tok, k)
	for range 2 {
		h.must(h.admin.DeleteFence(t.Context(), id))
		h.refused(vault.ReasonKeyRefused, tok, k)
	}
	h.must(h.admin.DeleteFence(t.Context(), vault.NewID()))
	h.opens(other, k)

	_, tok, accessor := h.grant("end-co", 1, p)
	h.opens(tok, k)
	for range 2 {
		h.must(h.grants.RevokeToken(t.Context(), accessor))
		h.refused(vault.ReasonKeyRefused, tok, k)
	}
	h.must(h.grants.RevokeToken(t.Context(), "no-such-accessor"))
	h.opens(other, k)
	if err := h.grants.RevokeToken(t.Context(), ""); vault.KindOf(err) != vault.Invalid {
		t.Errorf("no accessor: %v", err)
	}

	// A token ends by itself, too.
	short := vault.NewID()
	h.must(h.admin.WriteFence(t.Context(), short, vault.Fence{Prefixes: []string{p}}))
	tok, _, err := h.grants.Mint(t.Context(), short, "end-co", 1, 1900*time.Millisecond, 0)
	h.must(err)
	h.opens(tok, k)
	time.Sleep(2 * time.Second)
	h.refused(vault.ReasonKeyRefused, tok, k)
}

func TestDisableContractor(t *testing.T) {
	h := newHouse(t)
	k := h.store("dis.plate.20190101")
	const p = "dis.plate.2019"
	_, one, _ := h.grant("dis-co", 1, p)
	id, two, _ := h.grant("dis-co", 1, p)
	_, next, _ := h.grant("dis-co", 2, p)
	_, neighbour, _ := h.grant("dis", 1, p)
	for _, tok := range []vault.Token{one, two, next, neighbour} {
		h.opens(tok, k)
	}
	for range 2 {
		h.must(h.admin.DisableContractor(t.Context(), "dis-co", 1))
	}
	check := func() {
		t.Helper()
		h.refused(vault.ReasonKeyRefused, one, k)
		h.refused(vault.ReasonKeyRefused, two, k)
		h.opens(next, k)
		h.opens(neighbour, k)
		if _, _, err := h.grants.Mint(t.Context(), id, "dis-co", 1, time.Minute, 0); vault.ReasonOf(err) != vault.ReasonContractorSuspended {
			t.Errorf("mint for a disabled contractor: %v", err)
		}
	}
	check()
	h.must(h.admin.DisableContractor(t.Context(), "dis-never", 1)) // nothing was minted: nothing to end
	for _, bad := range []struct {
		name  string
		epoch int
	}{{"Dis", 1}, {"", 1}, {"dis-co", 0}} {
		if err := h.admin.DisableContractor(t.Context(), bad.name, bad.epoch); vault.KindOf(err) != vault.Invalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	h.must(dev.Restart(t.Context()))
	check()
}

func TestKeys(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	k, other := h.store("keys.face.20190101"), h.store("keys.face.20190101")
	_, tok, _ := h.grant("keys-co", 1, "keys.face.2019")

	versions := func() (got struct {
		Data struct{ Latest_version, Min_decryption_version int }
	}) {
		t.Helper()
		h.must(root(t, "GET", "portcullis/keys/"+k.name, nil, &got))
		return got
	}
	for range 2 { // twice round: a restored key can be revoked again
		for range 2 {
			h.must(h.admin.RevokeKey(ctx, k.name))
			h.refused(vault.ReasonKeyRevoked, tok, k)
		}
		for range 2 {
			h.must(h.admin.RestoreKey(ctx, k.name))
			h.opens(tok, k)
		}
	}
	if v := versions(); v.Data.Latest_version != 2 {
		t.Errorf("version %d: it was rotated more often than needed", v.Data.Latest_version)
	}
	// A revocation that broke off after rotating.
	half := h.store("keys.face.20190101")
	h.must(root(t, "POST", "portcullis/keys/"+half.name+"/rotate", nil, nil))
	h.opens(tok, half)
	h.must(h.admin.RevokeKey(ctx, half.name))
	h.refused(vault.ReasonKeyRevoked, tok, half)
	h.opens(tok, other)

	names, err := h.admin.Keys(ctx)
	h.must(err)
	if !slices.Contains(names, k.name) || !slices.Contains(names, other.name) {
		t.Error("keys are missing in the list")
	}

	h.must(h.admin.RevokeKey(ctx, k.name)) // a revoked key is destroyed as well
	exists := func(name string, want bool) {
		t.Helper()
		if got, err := h.admin.KeyExists(ctx, name); err != nil || got != want {
			t.Errorf("exists %s: %v, %v", name, got, err)
		}
	}
	exists(k.name, true)
	for range 2 {
		h.must(h.admin.DestroyKey(ctx, k.name))
		exists(k.name, false)
		h.refused(vault.ReasonKeyDestroyed, tok, k)
	}
	exists(other.name, true)
	h.opens(tok, other)
	h.must(h.admin.RevokeKey(ctx, k.name)) // nothing opens: that is what was asked for
	if err := h.admin.RestoreKey(ctx, k.name); vault.ReasonOf(err) != vault.ReasonKeyDestroyed || vault.KindOf(err) != vault.State {
		t.Errorf("restore a destroyed key: %v", err)
	}
	// Without rights Vault does not tell that the key is gone.
	_, blind, _ := h.grant("keys-co", 1, "elsewhere.face.2019")
	h.refused(vault.ReasonKeyRefused, blind, k)
	// Another key under the same name opens nothing of the old.
	again := k
	again.wrapped, err = h.capture.Wrap(ctx, k.name, k.dek)
	h.must(err)
	h.opens(tok, again)
	h.refused(vault.ReasonDataLoss, tok, k)
}

// A missing mount is answered by 404 as a missing key is. It must not pass for a proof that a key is destroyed.
func TestMissingMountIsNoProofOfAbsence(t *testing.T) {
	h := newHouse(t)
	k := h.store("mount.face.20190101")
	h.must(root(t, "POST", "sys/remount", map[string]string{"from": "portcullis", "to": "moved"}, nil))
	await := func(path string) {
		t.Helper()
		for range 200 {
			if root(t, "GET", path, nil, nil) == nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatal("the mount does not come")
	}
	await("moved/keys/" + k.name)
	_, err := h.admin.KeyExists(t.Context(), k.name)
	names, lerr := h.admin.Keys(t.Context())
	derr := h.admin.DestroyKey(t.Context(), k.name)
	rerr := h.admin.RevokeKey(t.Context(), k.name)
	h.must(root(t, "POST", "sys/remount", map[string]string{"from": "moved", "to": "portcullis"}, nil))
	await("portcullis/keys/" + k.name)
	for i, err := range []error{err, lerr, derr, rerr} {
		if err == nil {
			t.Errorf("call %d succeeded without a mount (%d names)", i, len(names))
		}
	}
	if ok, err := h.admin.KeyExists(t.Context(), k.name); err != nil || !ok {
		t.Errorf("back again: %v, %v", ok, err)
	}
}

func TestNoKeys(t *testing.T) {
	h := newHouse(t)
	h.must(root(t, "POST", "sys/mounts/nothing", map[string]string{"type": "transit"}, nil))
	h.must(root(t, "PUT", "sys/policies/acl/nothing", map[string]string{"policy": `path "nothing/keys" { capabilities = ["list"] }`}, nil))
	h.must(root(t, "POST", "auth/approle/role/nothing", map[string]any{"token_policies": "nothing"}, nil))
	var id struct {
		Data struct {
			RoleID   string `json:"role_id"`
			SecretID string `json:"secret_id"`
		}
	}
	h.must(root(t, "GET", "auth/approle/role/nothing/role-id", nil, &id))
	h.must(root(t, "POST", "auth/approle/role/nothing/secret-id", nil, &id))
	s := dialTo(t, hcvault.Config{Addr: dev.Addr(), CAFile: dev.CACert(), Mount: "nothing"})
	if got, err := s.Admin(hcvault.AppRole(id.Data)).Keys(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("keys: %q, %v", got, err)
	}
}

func TestUnwrapOfDamage(t *testing.T) {
	h := newHouse(t)
	k, other := h.store("damage.face.20190101"), h.store("damage.face.20190101")
	_, tok, _ := h.grant("damage-co", 1, "damage.face.2019")
	flip := []byte(k.wrapped)
	flip[40] ^= 1 // stays within base64's letters
	if flip[40] == k.wrapped[40] {
		t.Fatal("nothing was altered")
	}
	var short struct{ Data struct{ Ciphertext string } }
	h.must(root(t, "POST", "portcullis/encrypt/"+other.name, map[string]string{
		"plaintext": base64.StdEncoding.EncodeToString(make([]byte, 16))}, &short))
	for what, wrapped := range map[string]string{
		"another record's": other.wrapped, "a flipped bit": string(flip), "cut": k.wrapped[:len(k.wrapped)-8],
		"cut to nothing": "vault:v1:", "three bytes": "vault:v1:AAAA", "a version that is not": "vault:v9:" + k.wrapped[9:],
		"no version": "vault:vx:" + k.wrapped[9:], "no base64": "vault:v1:!!!", "empty": "", "junk": "junk",
		"very long": "vault:v1:" + strings.Repeat("A", 4096),
	} {
		got, err := h.release.Unwrap(t.Context(), tok, k.name, wrapped)
		if vault.KindOf(err) != vault.DataLoss || vault.ReasonOf(err) != vault.ReasonDataLoss || got != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	// A data key of another length, wrapped by the right key.
	if _, err := h.release.Unwrap(t.Context(), tok, other.name, short.Data.Ciphertext); vault.KindOf(err) != vault.DataLoss {
		t.Errorf("a data key of 16 bytes: %v", err)
	}
	h.opens(tok, k)
	for _, secret := range []string{"", "junk", "hvs.junk", "a\nb", strings.Repeat("a", vault.MaxToken+1), "ä"} {
		h.refused(vault.ReasonKeyRefused, vault.TokenOf(secret), k)
	}
}

func TestVaultAway(t *testing.T) {
	h := newHouse(t)
	k := h.store("away.face.20190101")
	id, tok, accessor := h.grant("away-co", 1, "away.face.2019")

	// every call, at a Vault that is away in some way
	calls := func(ctx context.Context, s *hcvault.Server) map[string]error {
		out := map[string]error{}
		capture, grants, admin := s.Capture(load(t, "capture")), s.Grants(load(t, "grants")), s.Admin(load(t, "admin"))
		_, out["Wrap"] = capture.Wrap(ctx, "away.face.20190101."+vault.NewID().String(), k.dek)
		_, out["Unwrap"] = s.Release().Unwrap(ctx, tok, k.name, k.wrapped)
		_, _, out["Mint"] = grants.Mint(ctx, id, "away-co", 1, time.Minute, 0)
		_, out["Uses"] = grants.Uses(ctx, accessor)
		out["RevokeToken"] = grants.RevokeToken(ctx, accessor)
		out["WriteFence"] = admin.WriteFence(ctx, id, vault.Fence{Prefixes: []string{"away.face.2019"}})
		out["DeleteFence"] = admin.DeleteFence(ctx, id)
		out["DisableContractor"] = admin.DisableContractor(ctx, "away-co", 1)
		out["RevokeKey"] = admin.RevokeKey(ctx, k.name)
		out["RestoreKey"] = admin.RestoreKey(ctx, k.name)
		out["DestroyKey"] = admin.DestroyKey(ctx, k.name)
		_, out["KeyExists"] = admin.KeyExists(ctx, k.name)
		_, out["Keys"] = admin.Keys(ctx)
		return out
	}
	unavailable := func(what string, errs map[string]error) {
		t.Helper()
		for name, err := range errs {
			if vault.KindOf(err) != vault.Unavailable || vault.ReasonOf(err) != vault.ReasonVaultUnavailable {
				t.Errorf("%s, %s: %v", what, name, err)
			}
			if err != nil && strings.Contains(err.Error(), tok.Reveal()) {
				t.Errorf("%s, %s: the token is in the error", what, name)
			}
		}
	}

	h.must(dev.Seal(t.Context()))
	unavailable("sealed", calls(t.Context(), dial(t)))
	_, err := h.release.Unwrap(t.Context(), tok, k.name, k.wrapped)
	unavailable("sealed, logged in before", map[string]error{"Unwrap": err})
	h.must(dev.Unseal(t.Context()))
	h.opens(tok, k)
	h.store("away.face.20190101")

	// Nothing listens.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	h.must(err)
	addr := "https://" + l.Addr().String()
	h.must(l.Close())
	unavailable("nobody there", calls(t.Context(), dialTo(t, hcvault.Config{Addr: addr, CAFile: dev.CACert()})))

	// Somebody listens and never answers.
	l, err = net.Listen("tcp", "127.0.0.1:0")
	h.must(err)
	defer l.Close()
	mute := dialTo(t, hcvault.Config{Addr: "https://" + l.Addr().String(), CAFile: dev.CACert(), Timeout: 50 * time.Millisecond})
	began := time.Now()
	errs := calls(t.Context(), mute)
	unavailable("mute", errs)
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("the timeout was not kept: %s", d)
	}

	// A caller that leaves is told apart.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, err := range calls(ctx, dial(t)) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled, %s: %v", name, err)
		}
	}
	h.opens(tok, k) // none of all that was done
}

// Each call carries its own token: at no time does one caller's token open for another.
func TestManyTokensAtOnce(t *testing.T) {
	h := newHouse(t)
	const n = 8
	var keys [n]sealed
	var toks [n]vault.Token
	for i := range n {
		keys[i] = h.store(fmt.Sprintf("many-%d.face.20190101", i))
		_, toks[i], _ = h.grant("many-co", 1, fmt.Sprintf("many-%d.face.2019", i))
	}
	var all sync.WaitGroup
	for i := range n {
		for range 4 {
			all.Go(func() {
				for j := range n {
					if i == j {
						h.opens(toks[i], keys[i])
					} else {
						h.refused(vault.ReasonKeyRefused, toks[i], keys[j])
					}
				}
			})
		}
	}
	all.Wait()
}
