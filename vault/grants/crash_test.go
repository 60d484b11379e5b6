package grants_test

import (
	"testing"

	"github.com/portcullis/portcullis/vault"
)

// TestCrash drops the service after each step of each operation. A sweep of the next one
// brings Vault to where the rows are, and operations go on from there.
func TestCrash(t *testing.T) {
	operations := map[string]struct {
		steps   int // that it takes at least, without a crash
		prepare func(s *scene) vault.Grant
		run     func(t *testing.T, s *scene, g vault.Grant)
	}{
		"approve": {3, func(s *scene) vault.Grant {
			g := s.Requested(s.acme)
			_, err := s.sign(s.Alice(), g)
			s.NoError(err)
			return g
		}, func(_ *testing.T, s *scene, g vault.Grant) { s.sign(s.Bob(), g) }},
		"activate": {3, func(s *scene) vault.Grant { return s.Approved(s.acme) },
			func(t *testing.T, s *scene, g vault.Grant) { s.Grants.Activate(t.Context(), s.acme, g.Grant) }},
		"activate again": {4, func(s *scene) vault.Grant { g, _ := s.Active(s.acme); return g },
			func(t *testing.T, s *scene, g vault.Grant) { s.Grants.Activate(t.Context(), s.acme, g.Grant) }},
		"revoke": {5, func(s *scene) vault.Grant { g, _ := s.Active(s.acme); return g },
			func(t *testing.T, s *scene, g vault.Grant) {
				s.Grants.Revoke(t.Context(), s.Alice().Caller, g.Grant, "")
			}},
		"retire": {5, func(s *scene) vault.Grant { g, _ := s.Active(s.acme); return g },
			func(t *testing.T, s *scene, g vault.Grant) { s.Grants.Retire(t.Context(), s.acme, g.Grant) }},
	}
	for name, op := range operations {
		t.Run(name, func(t *testing.T) {
			for n := 0; ; n++ {
				s := open(t)
				g := op.prepare(s)
				s.CrashAfter(n)
				op.run(t, s, g)
				crashed := s.Crashed()
				s.restart()
				s.NoError(s.Grants.Sweep(t.Context()))
				s.right(t, g)
				if !crashed {
					if n < op.steps {
						t.Errorf("it took %d steps, not %d or more", n, op.steps)
					}
					return
				}
			}
		})
	}
}

// right shows that the grant is where its row says, and that its life goes on from there to
// an end after which nothing opens.
func (s *scene) right(t *testing.T, g vault.Grant) {
	t.Helper()
	switch now := s.Grant(g.Grant); now.State {
	case vault.GrantPending:
		_, err := s.sign(s.Bob(), g)
		s.NoError(err)
		fallthrough
	case vault.GrantApproved, vault.GrantActive:
		if !s.fenced(g) {
			t.Error("an approved grant has no fence")
		}
		_, token, err := s.Grants.Activate(t.Context(), s.acme, g.Grant)
		s.NoError(err)
		s.opens(token)
		_, b, err := s.Grants.Revoke(t.Context(), s.Alice().Caller, g.Grant, "")
		s.NoError(err)
		if !b.VaultDone {
			t.Error("Vault is behind")
		}
	}
	if s.fenced(g) {
		t.Error("Vault keeps the fence of an ended grant")
	}
	s.shut()
	for _, once := range []vault.EventType{vault.EventGrantApproved, vault.EventGrantRevoked, vault.EventGrantRetired, vault.EventVaultCaughtUp} {
		if n := s.count(g, once); n > 1 {
			t.Errorf("%d events %s", n, once)
		}
	}
}
