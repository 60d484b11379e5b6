package release_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

// TestEndings: while workers fetch, access ends. After the answer no send is under way and
// none begins, and in the log no release comes after the ending.
func TestEndings(t *testing.T) {
	endings := map[string]struct {
		event vault.EventType
		end   func(s *scene) (int64, error)
	}{
		"revoke": {vault.EventGrantRevoked, func(s *scene) (int64, error) {
			_, b, err := s.Grants.Revoke(context.Background(), s.Alice().Caller, s.grant.Grant, "")
			return b.Index, err
		}},
		"retire": {vault.EventGrantRetired, func(s *scene) (int64, error) {
			_, b, err := s.Grants.Retire(context.Background(), s.acme, s.grant.Grant)
			return b.Index, err
		}},
		"suspend": {vault.EventContractorSuspended, func(s *scene) (int64, error) {
			out, err := s.Breach.Suspend(context.Background(), s.Alice().Caller, "acme", "")
			return out.Barrier.Index, err
		}},
		"withdraw": {vault.EventPurposeWithdrawn, func(s *scene) (int64, error) {
			d := s.Propose(breach.Action{Withdraw: "tuning"})
			_, out, err := s.Breach.Sign(context.Background(), s.Alice().Caller, d.ID, s.Alice().Sign(d.Decision))
			if err != nil {
				return 0, err
			}
			return out.Ended.Barrier.Index, nil
		}},
		"revoke keys": {vault.EventKeysRevoked, func(s *scene) (int64, error) {
			work, err := s.Breach.Revoke(context.Background(), s.Alice().Caller, house.All(), "")
			if err != nil {
				return 0, err
			}
			return work.Barrier.Index, nil
		}},
		"breaker": {vault.EventGrantSuspended, func(s *scene) (int64, error) {
			for {
				_, err := s.fetch(s.records[len(s.records)-1]) // more than the grant has bytes
				switch vault.ReasonOf(err) {
				case vault.ReasonBytesExceeded:
				case vault.ReasonGrantSuspended:
					return s.Events(vault.EventGrantSuspended)[0].Index, nil
				default:
					return 0, fmt.Errorf("the breaker does not end the grant: %w", err)
				}
			}
		}},
		"destroy keys": {vault.EventKeysDestroying, func(s *scene) (int64, error) {
			sel := house.All()
			d := s.Propose(breach.Action{Destroy: &sel})
			if _, _, err := s.Breach.Sign(context.Background(), s.Alice().Caller, d.ID, s.Alice().Sign(d.Decision)); err != nil {
				return 0, err
			}
			_, out, err := s.Breach.Sign(context.Background(), s.Bob().Caller, d.ID, s.Bob().Sign(d.Decision))
			if err != nil {
				return 0, err
			}
			return out.Keys.Barrier.Index, nil
		}},
	}
	const seeds = 8
	sent, cut := map[string]int64{}, map[string]int64{}
	for name, e := range endings {
		for seed := range uint64(seeds) {
			t.Run(fmt.Sprintf("%s %d", name, seed), func(t *testing.T) {
				n, c := raced(t, seed, e.event, e.end)
				sent[name] += n
				cut[name] += c
			})
		}
		if sent[name] == 0 || cut[name] == 0 {
			t.Errorf("%s: %d images were sent and %d kept back in all: there was no race", name, sent[name], cut[name])
		}
	}
}

func raced(t *testing.T, seed uint64, event vault.EventType, end func(*scene) (int64, error)) (sent, keptBack int64) {
	s := open(t, 7)
	// The last one is never asked for but to be refused.
	s.SQL("UPDATE records SET size = $1 WHERE id = $2", int64(1)<<50, s.records[6].ID.String())
	var reset atomic.Bool
	broken := errors.New("connection reset")
	s.OnReset(func() { reset.Store(true) })
	var rmu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 1))
	pause := func(most time.Duration) {
		rmu.Lock()
		d := time.Duration(rng.Int64N(int64(most)))
		rmu.Unlock()
		time.Sleep(d)
	}
	s.Before(func(_ context.Context, op string) {
		if op == "Unwrap" || op == "Get" {
			pause(2 * time.Millisecond)
		}
	})
	var answered atomic.Bool
	var under, sends, kept atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := i; ctx.Err() == nil; j++ {
				err := s.Release.Fetch(t.Context(), s.acme, s.token, s.grant.Grant, s.handle(s.records[j%6]), func(vault.Image) error {
					under.Add(1)
					defer under.Add(-1)
					if answered.Load() {
						t.Error("a send begins after the answer")
					}
					sends.Add(1)
					for range 10 { // an image in pieces
						if reset.Load() {
							return broken
						}
						pause(4 * time.Millisecond)
					}
					return nil
				})
				if vault.ReasonOf(err) == vault.ReasonAccessEnded || vault.ReasonOf(err) == vault.ReasonKeyRefused || errors.Is(err, broken) {
					kept.Add(1)
				}
			}
		})
	}
	time.Sleep(5 * time.Millisecond)
	pause(5 * time.Millisecond)
	index, err := end(s)
	if n := under.Load(); n != 0 {
		t.Errorf("%d sends are under way at the answer", n)
	}
	answered.Store(true)
	time.Sleep(10 * time.Millisecond)
	cancel()
	all.Wait()
	s.NoError(err)
	ending := s.Events(event)
	if len(ending) != 1 || ending[0].Index != index {
		t.Fatalf("%d endings in the log; the answer says index %d", len(ending), index)
	}
	unsent := map[int64]bool{}
	for _, e := range s.Events(vault.EventReleaseUnsent) {
		unsent[e.Release] = true
	}
	counted := int64(0)
	for _, e := range s.Events(vault.EventRecordReleased) {
		if e.Index > index {
			t.Errorf("release %d is behind the ending %d", e.Index, index)
		}
		if !unsent[e.Index] {
			counted++
		}
	}
	if counted != sends.Load() {
		t.Errorf("by the log %d left, %d were sent", counted, sends.Load())
	}
	return sends.Load(), kept.Load()
}

// slowGate lets the first ending wait before it reaches the gate.
type slowGate struct {
	gate interface {
		End(context.Context, vault.Ending) (vault.Barrier, error)
	}
	met     atomic.Bool
	waiting chan struct{}
	goOn    chan struct{}
}

func (g *slowGate) End(ctx context.Context, e vault.Ending) (vault.Barrier, error) {
	if g.met.CompareAndSwap(false, true) {
		close(g.waiting)
		<-g.goOn
	}
	return g.gate.End(ctx, e)
}

// TestSecondAnswer: who ends what another is just ending has an answer that holds, too.
func TestSecondAnswer(t *testing.T) {
	for name, end := range map[string]func(s *scene, by house.Person) error{
		"revoke": func(s *scene, by house.Person) error {
			_, _, err := s.Grants.Revoke(context.Background(), by.Caller, s.grant.Grant, "")
			return err
		},
		"suspend": func(s *scene, by house.Person) error {
			_, err := s.Breach.Suspend(context.Background(), by.Caller, "acme", "")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, 1)
			slow := &slowGate{gate: s.Gate, waiting: make(chan struct{}), goOn: make(chan struct{})}
			s.Grants.Gate, s.Breach.Gate = slow, slow
			s.Grants.Fences, s.Grants.Tokens = deaf{s.Vault}, nil // Vault is not what holds it back here
			s.Vault.Fail("DisableContractor", -1, errors.New("away"))
			alice, bob := s.Alice(), s.Bob()
			var first sync.WaitGroup
			s.Once("Unwrap", func() {
				first.Go(func() {
					if err := end(s, alice); err != nil {
						t.Error(err)
					}
				})
				<-slow.waiting
				s.Check(end(s, bob))
			})
			sent, err := s.fetch(s.records[0])
			if len(sent) != 0 {
				t.Error("sent after an answer that access has ended")
			}
			s.Refused(err, vault.State, vault.ReasonAccessEnded)
			close(slow.goOn)
			first.Wait()
		})
	}
}
