package grants_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/grants"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scene is a house with a contractor's workload, one record, and all tokens that were ever
// minted, whether anybody was given them or not.
type scene struct {
	*house.House
	acme   vault.Caller
	record vault.Record

	mu     sync.Mutex
	minted []vault.Token
}

func open(t *testing.T) *scene {
	h := house.New(t)
	h.Open()
	s := &scene{House: h, record: h.Record("north", vault.Face, time.Minute), acme: h.Caller("contractor/acme/tuning")}
	h.Grants.Tokens = spyTokens{h.Grants.Tokens, s}
	h.Trace()
	return s
}

// spyTokens keeps the tokens that Vault minted.
type spyTokens struct {
	grants.Tokens
	s *scene
}

func (y spyTokens) Mint(ctx context.Context, grant vault.ID, contractor string, epoch int, ttl time.Duration, uses int64) (vault.Token, string, error) {
	t, accessor, err := y.Tokens.Mint(ctx, grant, contractor, epoch, ttl, uses)
	if err == nil {
		y.s.mu.Lock()
		y.s.minted = append(y.s.minted, t)
		y.s.mu.Unlock()
	}
	return t, accessor, err
}

// restart drops the services; what was minted is remembered.
func (s *scene) restart() {
	s.Helper()
	s.Restart()
	s.Grants.Tokens = spyTokens{s.Grants.Tokens, s}
}

// shut shows that no token that was ever minted opens anything at Vault.
func (s *scene) shut() {
	s.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, t := range s.minted {
		if err := s.Opens(t, s.record); vault.ReasonOf(err) != vault.ReasonKeyRefused {
			s.Errorf("token %d of %d at Vault: %v; want KEY_REFUSED", i, len(s.minted), err)
		}
	}
}

// opens shows that the token opens at Vault.
func (s *scene) opens(t vault.Token) {
	s.Helper()
	if err := s.Opens(t, s.record); err != nil {
		s.Errorf("the token opens nothing at Vault: %v", err)
	}
}

// fenced says whether Vault has the grant's fence: by a token minted for it.
func (s *scene) fenced(g vault.Grant) bool {
	s.Helper()
	t, accessor, err := s.Vault.Mint(context.Background(), g.Grant, "prober", 1, time.Minute, 0)
	s.NoError(err)
	defer s.Vault.RevokeToken(context.Background(), accessor)
	return s.Opens(t, s.record) == nil
}

// sign has the person approve the grant.
func (s *scene) sign(p house.Person, g vault.Grant) (vault.Grant, error) {
	return s.Grants.Approve(context.Background(), p.Caller, g.Grant, p.Sign(g.Decision()))
}

func (s *scene) state(g vault.Grant, want vault.GrantState, fence vault.FenceState) {
	s.Helper()
	if got := s.Grant(g.Grant).State; got != want {
		s.Errorf("the grant is %s, want %s", got, want)
	}
	if got := s.Ask("SELECT fence FROM grants WHERE id = ?", g.Grant.String()); got != string(fence) {
		s.Errorf("the fence is %s, want %s", got, fence)
	}
}

// count says how many events of a type tell of the grant.
func (s *scene) count(g vault.Grant, types ...vault.EventType) (n int) {
	s.Helper()
	for _, e := range s.Events(types...) {
		if e.Grant == g.Grant.String() {
			n++
		}
	}
	return n
}

type request = grants.Request

func vaultAway() error { return vault.E(vault.Unavailable, vault.ReasonVaultUnavailable, "away") }
