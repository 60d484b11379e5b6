package main

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/portcullis/portcullis/internal/hcvault"
	"github.com/portcullis/portcullis/internal/identity"
	"github.com/portcullis/portcullis/internal/store"
	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/grants"
)

// A grant's policy at Vault, as Vault itself tells it.
const (
	policyStands = "stands"
	policyClosed = "closed: allows nothing, and is never written again"
	policyGone   = "gone"
)

func (s *service) policyOf(grant string) string {
	s.t.Helper()
	status, got := s.atVault("GET", "sys/policies/acl/"+hcvault.FencePrefix+id(grant), s.vault.RootToken(), nil)
	if status == 404 {
		return policyGone
	}
	data, _ := got["data"].(map[string]any)
	text, _ := data["policy"].(string)
	switch {
	case status == 200 && text == "# ended\n":
		return policyClosed
	case status == 200 && strings.Contains(text, "portcullis/decrypt/"):
		return policyStands
	}
	s.t.Fatalf("the policy of %s: %d, %v", grant, status, got)
	return ""
}

// unrecorded mints a token of the grant that no row knows of, as a crash between the two leaves it.
func (s *service) unrecorded(grant string) vault.Token {
	s.t.Helper()
	role, err := hcvault.LoadAppRole(s.cfg.Vault.Credentials, roleGrants)
	noError(s.t, err)
	n, err := vault.ParseID("grant", id(grant))
	noError(s.t, err)
	t, _, err := s.atHC().Grants(role).Mint(s.t.Context(), n, devOrg, 1, time.Hour, 0)
	noError(s.t, err)
	return t
}

func (s *service) atHC() *hcvault.Server {
	s.t.Helper()
	hc, err := hcvault.Dial(hcvault.Config{Addr: s.cfg.Vault.Address, CAFile: s.cfg.Vault.CA, Mount: s.cfg.Vault.Mount})
	noError(s.t, err)
	s.t.Cleanup(hc.Close)
	return hc
}

// TestFencesOfEndedGrants: when the call that ends a grant returns, its policy allows nothing at
// Vault, for tokens that nobody recorded too; other grants go on. What a crash left is swept by
// the next start, and once the end that was signed has passed the policies are removed.
func TestFencesOfEndedGrants(t *testing.T) {
	s := begin(t)
	p := purpose()
	s.admit(p, devOrg)
	s.store(s.as(lane), vault.Plate, 1, 2000)
	c := s.as(matcher)
	type life struct {
		name        string
		token, lost vault.Token
	}
	lives := map[string]life{}
	for _, what := range []string{"revoked", "retired", "left", "expired"} {
		name, token := s.granted(c, p, 10)
		lives[what] = life{name, token, s.unrecorded(name)}
	}
	is := func(what, want string) {
		t.Helper()
		l, opens := lives[what], 403
		if want == policyStands {
			opens = 200
		}
		if got := s.policyOf(l.name); got != want {
			t.Errorf("%s: the policy is %s, want %s", what, got, want)
		}
		if got, lost := s.past(l.token), s.past(l.lost); got != opens || lost != opens {
			t.Errorf("%s: Vault answers %d to the token and %d to one that nobody recorded, want %d", what, got, lost, opens)
		}
	}
	for what := range lives {
		is(what, policyStands)
	}
	revoked, err := s.as(alice).Grants.RevokeGrant(t.Context(), &pb.RevokeGrantRequest{Name: lives["revoked"].name})
	noError(t, err)
	is("revoked", policyClosed)
	retired, err := c.Grants.RetireGrant(t.Context(), &pb.RetireGrantRequest{Name: lives["retired"].name})
	noError(t, err)
	is("retired", policyClosed)
	if !revoked.Barrier.VaultDone || !retired.Barrier.VaultDone {
		t.Error("Vault is done, and the answers do not say so")
	}
	is("left", policyStands)

	// The daemon dies after it has committed an end, and before Vault has heard of it.
	noError(t, s.vault.Kill())
	left, err := s.as(alice).Grants.RevokeGrant(t.Context(), &pb.RevokeGrantRequest{Name: lives["left"].name})
	noError(t, err)
	if left.Barrier.VaultDone {
		t.Error("Vault is down and done")
	}
	noError(t, s.Close())
	noError(t, s.vault.Restart(t.Context()))
	is("left", policyStands) // that is what is to be swept
	s.serve()
	wait(t, "the start has closed what was left", func() bool { return s.policyOf(lives["left"].name) == policyClosed })
	is("left", policyClosed)
	is("expired", policyStands)

	// Nobody is there when the ends that were signed pass. The next sweep removes all policies.
	noError(t, s.Close())
	later, err := store.Open(t.Context(), s.cfg.Store.Path, func() time.Time { return time.Now().Add(2 * time.Hour) })
	noError(t, err)
	files, err := identity.LoadFiles(s.cfg.TLS.Certificate, s.cfg.TLS.Key, s.cfg.TLS.Bundle)
	noError(t, err)
	role, err := hcvault.LoadAppRole(s.cfg.Vault.Credentials, roleAdmin)
	noError(t, err)
	sweeper := &grants.Service{
		Ledger: grantsLedger{later}, Fences: s.atHC().Admin(role), Log: slog.New(slog.DiscardHandler),
		Authority: func() vault.Authority { return vault.Authority{TrustDomain: s.cfg.TrustDomain, Roots: files.Roots()} },
	}
	noError(t, sweeper.Sweep(t.Context()))
	noError(t, later.Close())
	for what := range lives {
		is(what, policyGone)
	}
}
