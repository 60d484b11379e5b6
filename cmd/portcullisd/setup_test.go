package main

import (
	"context"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis/portcullis/internal/devvault"
)

// TestSetupBindsGrantTokens: each --release-cidr comes to the token role, which binds all grant
// tokens. What is no address changes nothing.
func TestSetupBindsGrantTokens(t *testing.T) {
	dir := t.TempDir()
	v, err := devvault.Start(t.Context(), filepath.Join(dir, "vault"), devvault.Options{})
	noError(t, err)
	t.Cleanup(func() { noError(t, v.Stop(context.Background())) })
	s := &service{t: t, dir: dir, vault: v}
	bound := func() (out []string) {
		t.Helper()
		status, got := s.atVault("GET", "auth/token/roles/portcullis-grant", v.RootToken(), nil)
		if status != 200 {
			t.Fatal(status, got)
		}
		list, _ := got["data"].(map[string]any)["token_bound_cidrs"].([]any)
		for _, c := range list {
			out = append(out, c.(string))
		}
		slices.Sort(out)
		return out
	}
	run := func(args ...string) error {
		cmd := setupCommand(io.Discard)
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.SetIn(strings.NewReader(v.RootToken() + "\n"))
		cmd.SetArgs(append([]string{
			"--address", v.Addr(), "--ca", v.CACert(), "--audit-file", v.AuditLog(), "--out", filepath.Join(dir, "credentials"),
		}, args...))
		return cmd.ExecuteContext(t.Context())
	}
	noError(t, run("--release-cidr", "10.1.2.0/24", "--release-cidr", "10.9.9.7,fd00::/8"))
	want := []string{"10.1.2.0/24", "10.9.9.7", "fd00::/8"}
	if got := bound(); !slices.Equal(got, want) {
		t.Errorf("bound to %q, want %q", got, want)
	}
	for _, bad := range []string{"release-1", "10.1.2.0/33", "10.1.2", "0.0.0.0/0x"} {
		if run("--release-cidr", bad) == nil {
			t.Errorf("--release-cidr %q was taken", bad)
		}
	}
	noError(t, run("--release-cidr", "10.1.2.0/24"))
	if got := bound(); !slices.Equal(got, want[:1]) {
		t.Errorf("bound to %q, want %q", got, want[:1])
	}
	noError(t, run())
	if got := bound(); len(got) != 0 {
		t.Errorf("bound to %q, want nothing", got)
	}
}
