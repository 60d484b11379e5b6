package hcvault_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis/portcullis/internal/hcvault"
	"github.com/portcullis/portcullis/vault"
)

// fake answers as a test wants: for faults that a real Vault will not give.
func fake(t *testing.T, h http.HandlerFunc) hcvault.Config {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = nil
	srv.StartTLS()
	t.Cleanup(srv.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return hcvault.Config{Addr: srv.URL, CAFile: ca}
}

const loginPath = "/v1/auth/approle/login"

var someRole = hcvault.AppRole{RoleID: "role-id-in-clear", SecretID: "secret-id-in-clear"}

// clock is a time that a test turns.
type clock struct{ ns atomic.Int64 }

func newClock() *clock                   { c := new(clock); c.ns.Store(time.Now().UnixNano()); return c }
func (c *clock) now() time.Time          { return time.Unix(0, c.ns.Load()) }
func (c *clock) forward(d time.Duration) { c.ns.Add(int64(d)) }

// TestOneCallWaitsOnce: the login that a call needs, the call, and the one after a refusal share
// the time of one call.
func TestOneCallWaitsOnce(t *testing.T) {
	const timeout = time.Second
	for name, stall := range map[string]func(r *http.Request, login bool, n int64) time.Duration{
		"a slow login, then a call that hangs": func(_ *http.Request, login bool, _ int64) time.Duration {
			if login {
				return timeout * 8 / 10
			}
			return 3 * timeout
		},
		"a slow refusal, then a call that hangs": func(_ *http.Request, login bool, n int64) time.Duration {
			switch {
			case login:
				return timeout / 10
			case n == 1:
				return timeout * 7 / 10
			}
			return 3 * timeout
		},
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int64
			cfg := fake(t, func(w http.ResponseWriter, r *http.Request) {
				login := r.URL.Path == loginPath
				n := int64(0)
				if !login {
					n = calls.Add(1)
				}
				select {
				case <-time.After(stall(r, login, n)):
				case <-r.Context().Done():
				}
				if login {
					fmt.Fprint(w, `{"auth":{"client_token":"hvs.some","lease_duration":90}}`)
					return
				}
				w.WriteHeader(http.StatusForbidden)
				fmt.Fprint(w, `{"errors":["invalid token"]}`)
			})
			cfg.Timeout = timeout
			began := time.Now()
			_, err := dialTo(t, cfg).Capture(someRole).Wrap(t.Context(), "north.plate.20261123."+vault.NewID().String(), make([]byte, 32))
			if took := time.Since(began); vault.ReasonOf(err) != vault.ReasonVaultUnavailable || took > timeout*13/10 {
				t.Errorf("%v after %s", err, took)
			}
		})
	}
}

func TestLoginLifeAndSingleFlight(t *testing.T) {
	var logins atomic.Int64
	var mu sync.Mutex
	var seen []string // tokens of calls
	hold := make(chan struct{})
	close(hold)
	gate := &hold
	cfg := fake(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == loginPath {
			n := logins.Add(1)
			mu.Lock()
			g := *gate
			mu.Unlock()
			<-g
			fmt.Fprintf(w, `{"auth":{"client_token":"tok-%d","lease_duration":90}}`, n)
			return
		}
		mu.Lock()
		seen = append(seen, r.Header.Get("X-Vault-Token"))
		mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	})
	s := dialTo(t, cfg)
	clk := newClock()
	s.SetClock(clk.now)
	admin := s.Admin(someRole)
	call := func() string {
		t.Helper()
		if err := admin.DeleteFence(t.Context(), vault.NewID()); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		return seen[len(seen)-1]
	}
	if logins.Load() != 0 {
		t.Error("logged in before the first call")
	}
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() { call() })
	}
	all.Wait()
	if n := logins.Load(); n != 1 {
		t.Fatalf("%d logins for 32 calls at once", n)
	}
	clk.forward(59 * time.Second)
	if got := call(); got != "tok-1" || logins.Load() != 1 {
		t.Errorf("before two thirds: %s, %d logins", got, logins.Load())
	}
	// After two thirds one login starts, and nobody waits for it.
	block := make(chan struct{})
	mu.Lock()
	gate = &block
	mu.Unlock()
	clk.forward(2 * time.Second)
	for range 3 {
		if got := call(); got != "tok-1" {
			t.Errorf("while logging in: %s", got)
		}
	}
	// When the token has ended, a call waits, and may stop waiting.
	clk.forward(30 * time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := admin.DeleteFence(ctx, vault.NewID()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waited on: %v", err)
	}
	close(block)
	// That login began when the clock stood 30 s earlier, so its token has 60 s to go.
	if got := call(); got != "tok-2" || logins.Load() != 2 {
		t.Errorf("after the login: %s, %d logins", got, logins.Load())
	}
}

func TestRefusedTokenIsReplacedOnce(t *testing.T) {
	for _, c := range []struct {
		name, text string
		age        time.Duration
		calls      int64 // of DELETE, for one call of ours
	}{
		{"invalid", `2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n`, 0, 2},
		{"refused, old", `permission denied`, 6 * time.Second, 2},
		{"refused, young", `permission denied`, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var logins, calls atomic.Int64
			cfg := fake(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == loginPath {
					fmt.Fprintf(w, `{"auth":{"client_token":"tok-%d","lease_duration":3600}}`, logins.Add(1))
					return
				}
				if r.Method == http.MethodDelete {
					calls.Add(1)
					w.WriteHeader(http.StatusForbidden)
					fmt.Fprintf(w, `{"errors":["%s"]}`, c.text)
					return
				}
				w.WriteHeader(http.StatusNoContent)
			})
			s := dialTo(t, cfg)
			clk := newClock()
			s.SetClock(clk.now)
			admin := s.Admin(someRole)
			if err := admin.WriteFence(t.Context(), vault.NewID(), vault.Fence{Prefixes: []string{"a.face.2019"}}); err != nil {
				t.Fatal(err)
			}
			clk.forward(c.age)
			if err := admin.DeleteFence(t.Context(), vault.NewID()); vault.KindOf(err) != vault.Internal {
				t.Errorf("refused for good: %v", err)
			}
			if calls.Load() != c.calls || logins.Load() != c.calls {
				t.Errorf("%d calls and %d logins, want %d", calls.Load(), logins.Load(), c.calls)
			}
		})
	}
}

// What may have been done is never repeated by itself.
func TestNothingIsRepeated(t *testing.T) {
	for _, status := range []int{412, 429, 500, 502, 503, 400, 404, 0} {
		var calls atomic.Int64
		cfg := fake(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == loginPath {
				fmt.Fprint(w, `{"auth":{"client_token":"tok","lease_duration":3600}}`)
				return
			}
			calls.Add(1)
			if status == 0 {
				panic(http.ErrAbortHandler) // the connection ends without an answer
			}
			w.WriteHeader(status)
			fmt.Fprint(w, `{"errors":["the token is tok-in-clear"]}`)
		})
		s := dialTo(t, cfg)
		c := s.Capture(someRole)
		for range 2 { // the second time on a connection that is kept
			calls.Store(0)
			_, err := c.Wrap(t.Context(), "a.face.20190101."+vault.NewID().String(), make([]byte, 32))
			want := vault.Unavailable
			if status == 400 || status == 404 {
				want = vault.Internal
			}
			if vault.KindOf(err) != want || calls.Load() != 1 {
				t.Errorf("status %d: %d calls, %v", status, calls.Load(), err)
			}
		}
		// An error that quotes the token is cleaned.
		_, err := s.Release().Unwrap(t.Context(), vault.TokenOf("tok-in-clear"), "a.face.20190101."+vault.NewID().String(), "vault:v1:AAAA")
		if err == nil || strings.Contains(err.Error(), "tok-in-clear") {
			t.Errorf("status %d: %v", status, err)
		}
	}
}

func TestEnvironmentIsNotRead(t *testing.T) {
	for k, v := range map[string]string{
		"VAULT_ADDR": "https://127.0.0.1:1", "VAULT_AGENT_ADDR": "https://127.0.0.1:1", "VAULT_TOKEN": "from-environment",
		"VAULT_NAMESPACE": "from-environment", "VAULT_HEADERS": `{"From-Environment":"yes"}`, "VAULT_CACERT": dev.CACert(),
		"VAULT_SKIP_VERIFY": "true", "VAULT_CLIENT_TIMEOUT": "1", "VAULT_MAX_RETRIES": "9",
		"VAULT_WRAP_TTL": "60s", "VAULT_RATE_LIMIT": "1:1", "VAULT_PROXY_ADDR": "http://127.0.0.1:1",
		"VAULT_TLS_SERVER_NAME": "elsewhere", "HTTPS_PROXY": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1",
		"SSL_CERT_FILE": "/nonexistent",
	} {
		t.Setenv(k, v)
	}
	h := newHouse(t)
	k := h.store("env.face.20190101")
	_, tok, _ := h.grant("env-co", 1, "env.face.2019")
	h.opens(tok, k)

	var got http.Header
	cfg := fake(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		w.WriteHeader(http.StatusForbidden)
	})
	_, err := dialTo(t, cfg).Release().Unwrap(t.Context(), vault.TokenOf("grant-token"), k.name, k.wrapped)
	if vault.ReasonOf(err) != vault.ReasonKeyRefused {
		t.Error(err)
	}
	if got.Get("X-Vault-Token") != "grant-token" {
		t.Errorf("token %q", got.Get("X-Vault-Token"))
	}
	for name := range got {
		switch name {
		case "X-Vault-Token", "X-Vault-Request", "Accept-Encoding", "User-Agent", "Content-Length":
		default:
			t.Errorf("header %s: %q", name, got[name])
		}
	}
	// Only the CA that was given is trusted, whatever VAULT_SKIP_VERIFY says.
	cfg.CAFile = dev.CACert()
	_, err = dialTo(t, cfg).Release().Unwrap(t.Context(), vault.TokenOf("grant-token"), k.name, k.wrapped)
	if vault.KindOf(err) != vault.Unavailable || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("another CA: %v", err)
	}
}

// HashiCorp's client reads the whole environment in its constructor; what it can not read must not be guessed at.
func TestMalformedEnvironmentIsNamed(t *testing.T) {
	cfg := fake(t, func(http.ResponseWriter, *http.Request) {})
	t.Setenv("VAULT_RATE_LIMIT", "junk")
	if _, err := hcvault.Dial(cfg); err == nil || !strings.Contains(err.Error(), "VAULT_") {
		t.Error(err)
	}
}

func TestRolesComeBack(t *testing.T) {
	h := newHouse(t)
	k := h.store("back.face.20190101")
	_, tok, _ := h.grant("back-co", 1, "back.face.2019")
	all := func(what string) {
		t.Helper()
		h.opens(tok, h.store("back.face.20190101"))
		_, tok, _ := h.grant("back-co", 1, "back.face.2019")
		h.opens(tok, k)
	}
	all("before")
	// All role tokens end at once, as after a restore of Vault.
	h.must(root(t, "POST", "sys/leases/revoke-prefix/auth/approle/login", nil, nil))
	all("after revoking the role tokens")
	h.must(dev.Kill())
	if _, err := h.capture.Wrap(t.Context(), "back.face.20190101."+vault.NewID().String(), k.dek); vault.KindOf(err) != vault.Unavailable {
		t.Errorf("killed: %v", err)
	}
	h.must(dev.Restart(t.Context()))
	all("after a kill")
	h.must(dev.Seal(t.Context()))
	h.must(dev.Unseal(t.Context()))
	all("after a seal")
}

func TestAppRole(t *testing.T) {
	for _, s := range []string{fmt.Sprint(someRole), fmt.Sprintf("%+v", someRole), fmt.Sprintf("%#v", someRole), fmt.Sprintf("%s %q", someRole, &someRole)} {
		if strings.Contains(s, "in-clear") {
			t.Errorf("printed: %s", s)
		}
	}
	dir := t.TempDir()
	put := func(content string, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(dir, "capture.json")
		if err := errors.Join(os.RemoveAll(path), os.WriteFile(path, []byte(content), mode)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := hcvault.LoadAppRole(dir, "capture"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	put(string(someRole.Encode()), 0o600)
	if got, err := hcvault.LoadAppRole(dir, "capture"); err != nil || got != someRole {
		t.Errorf("round trip: %v", err)
	}
	put(string(someRole.Encode()), 0o644)
	if _, err := hcvault.LoadAppRole(dir, "capture"); err == nil || strings.Contains(err.Error(), "in-clear") {
		t.Errorf("readable by others: %v", err)
	}
	for _, bad := range []string{"", "{}", `{"role_id":"in-clear"}`, `{"role_id":"in-clear","secret_id":1}`,
		`{"role_id":"in-clear","secret_id":"` + strings.Repeat("x", 5000) + `"}`} {
		put(bad, 0o600)
		if _, err := hcvault.LoadAppRole(dir, "capture"); !errors.Is(err, hcvault.ErrAppRoleForm) || strings.Contains(err.Error(), "in-clear") {
			t.Errorf("%.40s: %v", bad, err)
		}
	}
	// A login that fails tells nothing of the credential.
	_, err := dial(t).Capture(someRole).Wrap(t.Context(), "a.face.20190101."+vault.NewID().String(), make([]byte, 32))
	if vault.KindOf(err) != vault.Internal || strings.Contains(err.Error(), "in-clear") {
		t.Errorf("wrong credential: %v", err)
	}
}

func TestDialRefuses(t *testing.T) {
	good := hcvault.Config{Addr: dev.Addr(), CAFile: dev.CACert()}
	for what, change := range map[string]func(*hcvault.Config){
		"no TLS":        func(c *hcvault.Config) { c.Addr = "http://127.0.0.1:8200" },
		"no address":    func(c *hcvault.Config) { c.Addr = "" },
		"a path":        func(c *hcvault.Config) { c.Addr += "/v1/sys" },
		"no CA":         func(c *hcvault.Config) { c.CAFile = "" },
		"an empty CA":   func(c *hcvault.Config) { c.CAFile = os.DevNull },
		"a bad mount":   func(c *hcvault.Config) { c.Mount = "../sys" },
		"no timeout":    func(c *hcvault.Config) { c.Timeout = -1 },
		"no connection": func(c *hcvault.Config) { c.Conns = -1 },
	} {
		cfg := good
		change(&cfg)
		if s, err := hcvault.Dial(cfg); err == nil {
			s.Close()
			t.Errorf("%s was taken", what)
		}
	}
}

// A standby answers 307; the call goes to its leader, once, and never without TLS.
func TestRedirect(t *testing.T) {
	var calls atomic.Int64
	var target string
	cfg := fake(t, func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		if r.Header.Get("X-Vault-Token") != "tok" {
			t.Error("no token")
		}
		http.Redirect(w, r, target+r.URL.Path, http.StatusTemporaryRedirect)
	})
	unwrap := func() error {
		_, err := dialTo(t, cfg).Release().Unwrap(t.Context(), vault.TokenOf("tok"), "a.face.20190101."+vault.NewID().String(), "vault:v1:AAAA")
		return err
	}
	target = cfg.Addr // points to itself for ever
	if err := unwrap(); vault.KindOf(err) != vault.Unavailable || calls.Load() != 2 {
		t.Errorf("%d calls, %v", calls.Load(), err)
	}
	calls.Store(0)
	target = strings.Replace(cfg.Addr, "https:", "http:", 1)
	if err := unwrap(); vault.KindOf(err) != vault.Unavailable || calls.Load() != 1 {
		t.Errorf("%d calls, %v", calls.Load(), err)
	}
}
