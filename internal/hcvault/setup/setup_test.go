package setup_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portcullis/portcullis/internal/hcvault"
	"github.com/portcullis/portcullis/internal/hcvault/setup"
	"github.com/portcullis/portcullis/internal/hcvault/transport"
	"github.com/portcullis/portcullis/vault"
)

func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		info, ierr := e.Info()
		if err := errors.Join(err, ierr); err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %04o", e.Name(), info.Mode().Perm())
		}
		got[e.Name()] = string(b)
	}
	return got
}

func secretIDs(t *testing.T, role string) int {
	t.Helper()
	var got struct{ Data struct{ Keys []string } }
	root(t, "LIST", "auth/approle/role/"+role+"/secret-id", nil, &got)
	return len(got.Data.Keys)
}

func TestRunAgain(t *testing.T) {
	before := files(t, opts.OutDir)
	if len(before) != 4 || before["capture.json"] == "" || before["grants.json"] == "" || before["admin.json"] == "" || before["log.json"] == "" {
		t.Fatalf("files: %d", len(before))
	}
	all := []string{hcvault.CaptureRole, hcvault.GrantsRole, hcvault.AdminRole, hcvault.LogRole}
	had := map[string]int{}
	for _, r := range all {
		had[r] = secretIDs(t, r)
	}
	if info, err := os.Stat(opts.OutDir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
	for range 3 {
		if err := setup.Run(t.Context(), opts); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range files(t, opts.OutDir) {
		if content != before[name] {
			t.Errorf("%s was made anew though it works", name)
		}
	}
	for _, r := range all {
		if n := secretIDs(t, r); n != had[r] || n == 0 {
			t.Errorf("%s has %d secret IDs, had %d", r, n, had[r])
		}
	}
	var devices struct {
		Data map[string]struct {
			Type    string
			Options map[string]string
		}
	}
	root(t, "GET", "sys/audit", nil, &devices)
	if len(devices.Data) != 1 {
		t.Errorf("%d audit devices", len(devices.Data))
	}
	var cache struct{ Data struct{ Size int } }
	root(t, "GET", "portcullis/cache-config", nil, &cache)
	if cache.Data.Size != 20_000 {
		t.Errorf("cache of %d keys", cache.Data.Size)
	}
}

// A credential that no longer works is replaced, and only that one.
func TestRunReplacesWhatFails(t *testing.T) {
	before := files(t, opts.OutDir)
	a, err := hcvault.LoadAppRole(opts.OutDir, "grants")
	if err != nil {
		t.Fatal(err)
	}
	root(t, "POST", "auth/approle/role/"+hcvault.GrantsRole+"/secret-id/destroy", map[string]string{"secret_id": a.SecretID}, nil)
	damaged := filepath.Join(opts.OutDir, "capture.json")
	if err := os.WriteFile(damaged, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := setup.Run(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	after := files(t, opts.OutDir)
	for name, same := range map[string]bool{"capture.json": false, "grants.json": false, "admin.json": true, "log.json": true} {
		if (after[name] == before[name]) != same {
			t.Errorf("%s: the same %v, want %v", name, !same, same)
		}
		login(t, strings.TrimSuffix(name, ".json"))
	}
}

// Whoever knows a role's ID does not keep the service from logging in with wrong secrets.
func TestWrongSecretsLockNobodyOut(t *testing.T) {
	a, err := hcvault.LoadAppRole(opts.OutDir, "capture")
	if err != nil {
		t.Fatal(err)
	}
	for range 8 { // Vault's default is five
		if err := call(t, "", "POST", "auth/approle/login", map[string]string{"role_id": a.RoleID, "secret_id": "wrong"}, nil); err == nil {
			t.Fatal("a wrong secret logs in")
		}
	}
	login(t, "capture")
}

// What somebody loosened by hand is tight again.
func TestRunTightens(t *testing.T) {
	root(t, "PUT", "sys/policies/acl/"+hcvault.CaptureRole, map[string]string{"policy": `path "*" { capabilities = ["sudo", "read", "update"] }`}, nil)
	root(t, "POST", "auth/token/roles/"+hcvault.TokenRole, map[string]any{"allowed_policies_glob": []string{"*"}, "token_bound_cidrs": []string{"10.0.0.0/8"}, "token_explicit_max_ttl": 0}, nil)
	if err := setup.Run(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	if err := call(t, login(t, "capture"), "GET", "sys/mounts", nil, nil); err == nil {
		t.Error("capture still reads everything")
	}
	var got struct {
		Data struct {
			Glob   []string `json:"allowed_policies_glob"`
			CIDRs  []string `json:"token_bound_cidrs"`
			MaxTTL int64    `json:"token_explicit_max_ttl"`
			Orphan bool     `json:"orphan"`
		}
	}
	root(t, "GET", "auth/token/roles/"+hcvault.TokenRole, nil, &got)
	if !slices.Equal(got.Data.Glob, []string{"portcullis-grant-*"}) || !slices.Equal(got.Data.CIDRs, []string{"127.0.0.1"}) ||
		got.Data.MaxTTL != 7*24*3600 || !got.Data.Orphan {
		t.Errorf("token role: %+v", got.Data)
	}
}

func TestRunRefuses(t *testing.T) {
	root(t, "POST", "sys/mounts/taken", map[string]string{"type": "kv"}, nil)
	open := t.TempDir()
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*setup.Options){
		"another engine at the mount": func(o *setup.Options) { o.Mount = "taken" },
		"a mount that is a path":      func(o *setup.Options) { o.Mount = "a/b" },
		"no token":                    func(o *setup.Options) { o.Token = "" },
		"a wrong token":               func(o *setup.Options) { o.Token = "wrong-in-clear" },
		"no directory":                func(o *setup.Options) { o.OutDir = "" },
		"a directory open to others":  func(o *setup.Options) { o.OutDir = open },
		"bad addresses":               func(o *setup.Options) { o.TokenCIDRs = []string{"release-1"} },
		"too small a cache":           func(o *setup.Options) { o.CacheKeys = 9 },
		"no TLS":                      func(o *setup.Options) { o.Addr = strings.Replace(o.Addr, "https", "http", 1) },
	} {
		o := opts
		change(&o)
		if err := setup.Run(t.Context(), o); err == nil || strings.Contains(err.Error(), "in-clear") {
			t.Errorf("%s: %v", what, err)
		}
	}
	// An audit device that writes secrets in the clear.
	raw := filepath.Join(t.TempDir(), "raw.log")
	root(t, "PUT", "sys/audit/raw", map[string]any{"type": "file", "options": map[string]string{"file_path": raw, "log_raw": "true"}}, nil)
	err := setup.Run(t.Context(), opts)
	root(t, "DELETE", "sys/audit/raw", nil, nil)
	if err == nil || !strings.Contains(err.Error(), "log_raw") {
		t.Errorf("raw audit device: %v", err)
	}
}

// A grant token is refused from an address that is not a release node's.
func TestTokenIsBoundToAddresses(t *testing.T) {
	o := opts
	o.TokenCIDRs = []string{"10.9.9.0/24"}
	if err := setup.Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := setup.Run(t.Context(), opts); err != nil {
			t.Error(err)
		}
	}()
	h := newThief(t)
	key, wrapped := h.store("cidr.face.20190101")
	open := func(tok string) error {
		t.Helper()
		return call(t, tok, "POST", "portcullis/decrypt/"+key, map[string]string{"ciphertext": wrapped}, nil)
	}
	outside := h.grantToken("cidr-co", "cidr.face.2019")
	if err := open(outside); transport.Status(err) != 403 {
		t.Errorf("a token that is bound to 10.9.9.0/24, from 127.0.0.1: %v", err)
	}
	// Among several ranges and plain addresses, ours is found. A token keeps what it was minted with.
	o.TokenCIDRs = []string{"10.9.9.0/24", "127.0.0.1"}
	if err := setup.Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if err := open(h.grantToken("cidr-co", "cidr.face.2019")); err != nil {
		t.Errorf("a token that is bound to our address: %v", err)
	}
	if err := open(outside); transport.Status(err) != 403 {
		t.Errorf("a token of before, that is bound to 10.9.9.0/24: %v", err)
	}
	// Without addresses a token is good from anywhere, also after a run that had bound it.
	o.TokenCIDRs = nil
	if err := setup.Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if err := open(h.grantToken("cidr-co", "cidr.face.2019")); err != nil {
		t.Errorf("a token that is not bound: %v", err)
	}
}

// The audit log names key and entity of a decrypt, so that one past us shows, and no secret.
func TestAuditLog(t *testing.T) {
	h := newThief(t)
	key, wrapped := h.store("audit.face.20190101")
	tok := h.grantToken("audit-co", "audit.face.2019")
	var got struct{ Data struct{ Plaintext []byte } }
	if err := call(t, tok, "POST", "portcullis/decrypt/"+key, map[string]string{"ciphertext": wrapped}, &got); err != nil {
		t.Fatal(err)
	}
	var log []byte
	for range 100 {
		var err error
		if log, err = os.ReadFile(dev.AuditLog()); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(log, []byte("portcullis/decrypt/"+key)) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	line := ""
	for l := range strings.Lines(string(log)) {
		if strings.Contains(l, "portcullis/decrypt/"+key) {
			line = l
		}
	}
	if !strings.Contains(line, `"entity_id":"`) {
		t.Errorf("no decrypt with its entity: %.300s", line)
	}
	a, err := hcvault.LoadAppRole(opts.OutDir, "grants")
	if err != nil {
		t.Fatal(err)
	}
	for what, secret := range map[string]string{"grant token": tok, "wrapped key": wrapped,
		"data key": base64.StdEncoding.EncodeToString(got.Data.Plaintext), "secret ID": a.SecretID} {
		if secret == "" || bytes.Contains(log, []byte(secret)) {
			t.Errorf("the %s is in the audit log", what)
		}
	}
}

// thief uses the roles as they are meant, to have something to attack.
type thief struct {
	t *testing.T
	s *hcvault.Server
}

func newThief(t *testing.T) *thief {
	t.Helper()
	s, err := hcvault.Dial(hcvault.Config{Addr: dev.Addr(), CAFile: dev.CACert()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return &thief{t, s}
}

func (h *thief) role(name string) hcvault.AppRole {
	h.t.Helper()
	a, err := hcvault.LoadAppRole(opts.OutDir, name)
	if err != nil {
		h.t.Fatal(err)
	}
	return a
}

func (h *thief) store(prefix string) (key, wrapped string) {
	h.t.Helper()
	key = prefix + "." + vault.NewID().String()
	wrapped, err := h.s.Capture(h.role("capture")).Wrap(h.t.Context(), key, bytes.Repeat([]byte{7}, 32))
	if err != nil {
		h.t.Fatal(err)
	}
	return key, wrapped
}

func (h *thief) grantToken(contractor, prefix string) string {
	h.t.Helper()
	id := vault.NewID()
	if err := h.s.Admin(h.role("admin")).WriteFence(h.t.Context(), id, vault.Fence{Prefixes: []string{prefix}}); err != nil {
		h.t.Fatal(err)
	}
	tok, _, err := h.s.Grants(h.role("grants")).Mint(h.t.Context(), id, contractor, 1, time.Minute, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	return tok.Reveal()
}
