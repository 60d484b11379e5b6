package hcvault_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/portcullis/portcullis/internal/devvault"
	"github.com/portcullis/portcullis/internal/hcvault"
	"github.com/portcullis/portcullis/internal/hcvault/setup"
	"github.com/portcullis/portcullis/internal/hcvault/transport"
	"github.com/portcullis/portcullis/vault"
)

// One Vault serves all tests of this package; each makes keys, grants and contractors of its own.
var (
	dev   *devvault.Server
	creds string
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	fail := func(err error) int { fmt.Fprintln(os.Stderr, err); return 1 }
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "hcvault-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	if dev, err = devvault.Start(ctx, filepath.Join(dir, "vault"), devvault.Options{}); err != nil {
		return fail(err)
	}
	defer func() {
		if err := errors.Join(dev.Stop(ctx), goleak.Find()); err != nil && code == 0 {
			code = fail(err)
		}
	}()
	creds = filepath.Join(dir, "credentials")
	err = setup.Run(ctx, setup.Options{
		Addr: dev.Addr(), CAFile: dev.CACert(), Token: dev.RootToken(),
		TokenCIDRs: []string{"127.0.0.1/32"}, AuditFile: dev.AuditLog(), OutDir: creds,
	})
	if err != nil {
		return fail(err)
	}
	return m.Run()
}

func dial(t *testing.T) *hcvault.Server {
	t.Helper()
	return dialTo(t, hcvault.Config{Addr: dev.Addr(), CAFile: dev.CACert()})
}

func dialTo(t *testing.T, cfg hcvault.Config) *hcvault.Server {
	t.Helper()
	s, err := hcvault.Dial(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func load(t *testing.T, name string) hcvault.AppRole {
	t.Helper()
	a, err := hcvault.LoadAppRole(creds, name)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// house is all four roles at the real Vault.
type house struct {
	t       *testing.T
	capture *hcvault.Capture
	release *hcvault.Release
	grants  *hcvault.Grants
	admin   *hcvault.Admin
}

func newHouse(t *testing.T) *house {
	t.Helper()
	s := dial(t)
	return &house{t, s.Capture(load(t, "capture")), s.Release(), s.Grants(load(t, "grants")), s.Admin(load(t, "admin"))}
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// sealed is a record's key, its data key, and that one wrapped.
type sealed struct {
	name, wrapped string
	dek           []byte
}

func (h *house) store(prefix string) sealed {
	h.t.Helper()
	k := sealed{name: prefix + "." + vault.NewID().String(), dek: make([]byte, 32)}
	rand.Read(k.dek)
	var err error
	k.wrapped, err = h.capture.Wrap(h.t.Context(), k.name, k.dek)
	h.must(err)
	return k
}

// grant makes a grant with a fence of prefixes and a token.
func (h *house) grant(contractor string, epoch int, prefixes ...string) (vault.ID, vault.Token, string) {
	h.t.Helper()
	return h.fenced(contractor, epoch, vault.Fence{Prefixes: prefixes})
}

func (h *house) fenced(contractor string, epoch int, f vault.Fence) (vault.ID, vault.Token, string) {
	h.t.Helper()
	id := vault.NewID()
	h.must(h.admin.WriteFence(h.t.Context(), id, f))
	tok, accessor, err := h.grants.Mint(h.t.Context(), id, contractor, epoch, time.Minute, 0)
	h.must(err)
	return id, tok, accessor
}

func (h *house) opens(tok vault.Token, k sealed) {
	h.t.Helper()
	got, err := h.release.Unwrap(h.t.Context(), tok, k.name, k.wrapped)
	if err != nil || !bytes.Equal(got, k.dek) {
		h.t.Errorf("open %s: %v, same key %v", k.name, err, bytes.Equal(got, k.dek))
	}
}

func (h *house) refused(want vault.Reason, tok vault.Token, k sealed) {
	h.t.Helper()
	got, err := h.release.Unwrap(h.t.Context(), tok, k.name, k.wrapped)
	if vault.ReasonOf(err) != want || got != nil {
		h.t.Errorf("open %s: reason %q, want %q (%v)", k.name, vault.ReasonOf(err), want, err)
	}
}

// root makes a plain call as root.
func root(t *testing.T, method, path string, in, out any) error {
	t.Helper()
	c, err := transport.New(transport.Config{Addr: dev.Addr(), CAFile: dev.CACert()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.Do(t.Context(), dev.RootToken(), method, path, in, out)
}
