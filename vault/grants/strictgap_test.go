package grants_test

import (
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/grants"
)

// left gives how many uses the grant's newest token has at Vault.
func (s *scene) left(g vault.Grant) int {
	s.Helper()
	n, err := s.Vault.Uses(s.Context(), s.Ask("SELECT accessor FROM grants WHERE id = ?", g.Grant.String()))
	s.NoError(err)
	return int(n)
}

// TestStrictInTheGap: what may be used of the earlier token between the last look at Vault and the
// token's end is forfeited. However often somebody activates again and uses the gap, in all Vault
// opens no more often than the grant has records.
func TestStrictInTheGap(t *testing.T) {
	s, g := counted(t)
	_, token, err := s.Grants.Activate(t.Context(), s.acme, g.Grant)
	s.NoError(err)
	total, left, rounds := 0, quota, 0
	for ; rounds < 100; rounds++ {
		old, used := token, 0
		s.Once("RevokeToken", func() { used = s.use(old, 2) }) // as many are forfeited at the least
		_, token, err = s.Grants.Activate(t.Context(), s.acme, g.Grant)
		if total += used; err != nil {
			s.Refused(err, vault.State, vault.ReasonUsesSpent)
			break
		}
		now := s.left(g)
		if now > left-2 {
			t.Fatalf("after %d uses of %d that were left the next token has %d", used, left, now)
		}
		left = now
	}
	if total += s.use(token, 2*quota); total > quota || rounds == 0 {
		t.Errorf("in %d rounds Vault opened %d times of %d", rounds, total, quota)
	}
}

// TestForfeit: one use, and 2,000 for each second that went by, rounded up.
func TestForfeit(t *testing.T) {
	for d, want := range map[time.Duration]int64{
		-time.Second: 1, 0: 1, 1: 2, 500 * time.Microsecond: 2, 500*time.Microsecond + 1: 3, time.Second: 2001, 15 * time.Second: 30_001,
	} {
		if got := grants.Forfeit(d); got != want {
			t.Errorf("in %s %d, want %d", d, got, want)
		}
	}
}
