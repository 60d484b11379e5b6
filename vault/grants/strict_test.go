package grants_test

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/grants"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

// quota is how many records the grant of [counted] has.
const quota = 2000

// counted is a house with a strict purpose, and an approved grant under it.
func counted(t *testing.T) (*scene, vault.Grant) {
	s := open(t)
	p := house.Tuning()
	p.Name, p.Strict = "counted", true
	s.sanction(p)
	return s, s.Approved(s.acme, of(p), func(r *request) { r.MaxRecords = quota })
}

// use opens at Vault directly until it refuses or that many times, and says how often it opened.
func (s *scene) use(t vault.Token, most int) (n int) {
	for n < most && s.Opens(t, s.record) == nil {
		n++
	}
	return n
}

func (s *scene) usesLeft(g vault.Grant) int {
	s.Helper()
	n, err := strconv.Atoi(s.Ask("SELECT uses_left FROM grants WHERE id = ?", g.Grant.String()))
	s.NoError(err)
	return n
}

// most is how many uses somebody may have lost since a time by activating so often again.
func most(since time.Time, times int64) int {
	return int(times + grants.Forfeit(time.Since(since)))
}

// TestStrict: however often a strict grant is activated, Vault opens for it as often as it has
// records. What an earlier token has left goes to the next one, but for what may have been used
// while it ended; with nothing left there is none.
func TestStrict(t *testing.T) {
	s, g := counted(t)
	_, one, err := s.Grants.Activate(t.Context(), s.acme, g.Grant)
	s.NoError(err)
	if n := s.use(one, 2); n != 2 {
		t.Fatalf("it opened %d times", n)
	}
	began := time.Now()
	_, two, err := s.Grants.Activate(t.Context(), s.acme, g.Grant)
	s.NoError(err)
	least := quota - 2 - most(began, 0)
	if s.use(one, 1) != 0 {
		t.Error("the earlier token opens")
	}
	s.restart()
	if n := s.use(two, 2*quota); n > quota-2-2 || n < least {
		t.Errorf("of %d that were left it opened %d, want at least %d", quota-2, n, least)
	}
	minted := s.Vault.Calls("Mint")
	for range 2 {
		_, token, err := s.Grants.Activate(t.Context(), s.acme, g.Grant)
		s.Refused(err, vault.State, vault.ReasonUsesSpent)
		if e := s.Last(); e.Type != vault.EventGrantRefused || e.Reason != vault.ReasonUsesSpent || e.Grant != g.Grant.String() {
			t.Errorf("the log ends in %+v", e)
		}
		if !token.IsZero() || s.Vault.Calls("Mint") != minted {
			t.Error("a token was minted for no uses")
		}
	}
	// A grant of a purpose that is not strict is not counted.
	loose, token := s.Active(s.Caller("contractor/beta/tuning"))
	if n := s.use(token, 50); n != 50 || s.usesLeft(loose) != -1 {
		t.Errorf("it opened %d times", n)
	}
}

// TestStrictCrash drops the service after each step of an activation. In all, Vault opens no more
// often than the grant has records; and nothing of them is lost but what is forfeited, unless the
// service fell between the end of the earlier token at Vault and the commit that forgets it.
func TestStrictCrash(t *testing.T) {
	for name, used := range map[string]int{"first": -1, "again": 2, "when all is used": quota} {
		t.Run(name, func(t *testing.T) {
			lost := 0
			for n := 0; ; n++ {
				s, g := counted(t)
				opened, began := 0, time.Now()
				if used >= 0 {
					_, token, err := s.Grants.Activate(t.Context(), s.acme, g.Grant)
					s.NoError(err)
					opened = s.use(token, used)
				}
				s.CrashAfter(n)
				_, token, _ := s.Grants.Activate(t.Context(), s.acme, g.Grant)
				crashed := s.Crashed()
				s.restart()
				opened += s.use(token, 3)
				s.NoError(s.Grants.Sweep(t.Context()))
				for range 3 {
					_, token, err := s.Grants.Activate(t.Context(), s.acme, g.Grant)
					if vault.ReasonOf(err) != vault.ReasonUsesSpent {
						s.NoError(err)
					}
					opened += s.use(token, 1)
				}
				if _, _, err := s.Grants.Activate(t.Context(), s.acme, g.Grant); err == nil {
					opened += s.left(g) // as many as it may yet open
				}
				gone := most(began, 7) // tokens ended, at most
				switch {
				case opened > quota:
					t.Errorf("dropped after %d steps, it opened %d times of %d", n, opened, quota)
				case opened < quota-gone:
					lost++
				}
				if !crashed {
					break
				}
			}
			if lost > 1 {
				t.Errorf("after %d of the steps uses were lost; want one at most", lost)
			}
		})
	}
}

// TestStrictMeetsUse: what is used of the earlier token after its end at Vault failed counts.
func TestStrictMeetsUse(t *testing.T) {
	s, g := counted(t)
	_, one, err := s.Grants.Activate(t.Context(), s.acme, g.Grant)
	s.NoError(err)
	s.Vault.Fail("RevokeToken", 1, vaultAway())
	_, two, err := s.Grants.Activate(t.Context(), s.acme, g.Grant)
	s.Refused(err, vault.Unavailable, vault.ReasonVaultUnavailable)
	if !two.IsZero() || s.usesLeft(g) != quota {
		t.Errorf("%d uses left", s.usesLeft(g))
	}
	if s.use(one, 3) != 3 { // the earlier one lives on
		t.Fatal("the earlier token does not open")
	}
	began := time.Now()
	_, two, err = s.Grants.Activate(t.Context(), s.acme, g.Grant)
	s.NoError(err)
	least := quota - 3 - most(began, 0)
	if n := s.use(two, 2*quota); n > quota-3-2 || n < least {
		t.Errorf("of %d that were left it opened %d, want at least %d", quota-3, n, least)
	}
	// While Vault does not answer, nothing changes.
	s, g = counted(t)
	_, one, err = s.Grants.Activate(t.Context(), s.acme, g.Grant)
	s.NoError(err)
	s.Vault.Fail("Uses", 1, vaultAway())
	_, _, err = s.Grants.Activate(t.Context(), s.acme, g.Grant)
	s.Refused(err, vault.Unavailable, vault.ReasonVaultUnavailable)
	if n := s.use(one, 2*quota); n != quota {
		t.Errorf("the token in use opened %d times of %d", n, quota)
	}
}

// TestStrictTwice: of activations at once one gives a token, or each a token in its turn; in all
// Vault opens no more often than the grant has records. So it is with two processes.
func TestStrictTwice(t *testing.T) {
	for range 10 {
		s, g := counted(t)
		other := grants.Service{ // knows nothing of the locks of the first
			Ledger: s.Grants.Ledger, Tokens: s.Grants.Tokens, Fences: s.Grants.Fences, Gate: s.Grants.Gate, Authority: s.Grants.Authority, Log: s.Grants.Log,
		}
		var mu sync.Mutex
		var all sync.WaitGroup
		opened := 0
		for i := range 4 {
			service := s.Grants
			if i%2 == 1 {
				service = &other
			}
			all.Go(func() {
				_, token, err := service.Activate(context.Background(), s.acme, g.Grant)
				if r := vault.ReasonOf(err); err != nil && r != vault.ReasonGrantToken && r != vault.ReasonUsesSpent {
					t.Error(err)
				}
				n := s.use(token, 2)
				mu.Lock()
				opened += n
				mu.Unlock()
			})
		}
		all.Wait()
		_, token, _ := s.Grants.Activate(t.Context(), s.acme, g.Grant)
		if opened += s.use(token, 2*quota); opened > quota {
			t.Errorf("it opened %d times of %d", opened, quota)
		}
	}
}

// TestStrictAfterRestoreOfVault: who knows what a restored Vault has forgotten? Nothing is given
// for a token that was ended without a look.
func TestStrictAfterRestoreOfVault(t *testing.T) {
	s, g := counted(t)
	_, _, err := s.Grants.Activate(t.Context(), s.acme, g.Grant)
	s.NoError(err)
	s.SQL("UPDATE grants SET token_digest = x'', accessor = ''") // as the service does then
	_, _, err = s.Grants.Activate(t.Context(), s.acme, g.Grant)
	s.Refused(err, vault.State, vault.ReasonUsesSpent)
}
