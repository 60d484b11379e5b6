package setup_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/portcullis/portcullis/internal/devvault"
	"github.com/portcullis/portcullis/internal/hcvault"
	"github.com/portcullis/portcullis/internal/hcvault/setup"
	"github.com/portcullis/portcullis/internal/hcvault/transport"
)

// One Vault, set up once, serves all tests of this package.
var (
	dev  *devvault.Server
	opts setup.Options
	api  *transport.Client
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	fail := func(err error) int { fmt.Fprintln(os.Stderr, err); return 1 }
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "hcvault-setup-")
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
	opts = setup.Options{
		Addr: dev.Addr(), CAFile: dev.CACert(), Token: dev.RootToken(),
		TokenCIDRs: []string{"127.0.0.1/32"}, AuditFile: dev.AuditLog(), OutDir: filepath.Join(dir, "credentials"),
	}
	if api, err = transport.New(transport.Config{Addr: dev.Addr(), CAFile: dev.CACert()}); err != nil {
		return fail(err)
	}
	defer api.Close()
	// Without a file to audit to, nothing is set up.
	o := opts
	o.AuditFile = ""
	if err := setup.Run(ctx, o); err == nil {
		return fail(errors.New("a Vault without an audit device was taken"))
	}
	if err := setup.Run(ctx, opts); err != nil {
		return fail(err)
	}
	return m.Run()
}

// call makes a plain call with any token.
func call(t *testing.T, token, method, path string, in, out any) error {
	t.Helper()
	return api.Do(t.Context(), token, method, path, in, out)
}

func root(t *testing.T, method, path string, in, out any) {
	t.Helper()
	if err := call(t, dev.RootToken(), method, path, in, out); err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
}

// login gives a token of a role, as whoever stole its file would have.
func login(t *testing.T, name string) string {
	t.Helper()
	a, err := hcvault.LoadAppRole(opts.OutDir, name)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		} `json:"auth"`
	}
	in := map[string]string{"role_id": a.RoleID, "secret_id": a.SecretID}
	if err := call(t, "", "POST", "auth/approle/login", in, &got); err != nil {
		t.Fatal(err)
	}
	return got.Auth.ClientToken
}
