package breach_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

func TestRevokeAndRestore(t *testing.T) {
	s := open(t, 3)
	work := s.revoke(house.All())
	if len(work.Records) != 3 || !work.Barrier.VaultDone {
		t.Errorf("%+v", work)
	}
	s.keys(vault.KeyRevoked)
	s.refused(s.records[0], vault.ReasonKeyRevoked)
	e := s.Events(vault.EventKeysRevoked)
	if len(e) != 1 || e[0].Count != 3 || e[0].Index != work.Barrier.Index || len(e[0].Records) != 3 {
		t.Errorf("%+v", e)
	}
	if work = s.restore(house.All()); !work.Barrier.VaultDone || len(work.Records) != 3 {
		t.Errorf("%+v", work)
	}
	s.keys(vault.KeyActive)
	if n := len(s.Events(vault.EventVaultCaughtUp)); n != 6 {
		t.Errorf("Vault caught up %d times, want 6", n)
	}
	_, err := s.Breach.Propose(t.Context(), s.Alice().Caller, breach.Action{Restore: new(house.All())})
	s.Refused(err, vault.NotFound, vault.ReasonSelectionEmpty)
}

func TestRevokeResetsWhoOpenedIt(t *testing.T) {
	s := open(t, 2)
	s.Caller("contractor/beta/tuning")
	err := s.Release.Fetch(t.Context(), s.acme, s.token, s.grant.Grant, s.grant.HandleKey.Handle(s.records[0].ID), func(vault.Image) error { return nil })
	s.NoError(err)
	s.revoke(house.One(s.records[1]))
	if len(s.Cut()) != 0 {
		t.Errorf("nobody opened it, and %+v was cut", s.Cut())
	}
	s.revoke(house.One(s.records[0]))
	if cut := s.Cut(); len(cut) != 1 || cut[0].ID != s.acme.ID {
		t.Errorf("cut %+v", cut)
	}
}

func TestRevokeFailsForSome(t *testing.T) {
	s := open(t, 5)
	s.Vault.Fail("RevokeKey", 2, vaultRefused())
	work := s.revoke(house.All())
	if work.Barrier.VaultDone || len(work.Records) != 5 {
		t.Errorf("%+v", work)
	}
	count := func(state vault.KeyState) (n int) {
		for _, r := range s.records {
			if s.KeyState(r.ID) == state {
				n++
			}
		}
		return n
	}
	if count(vault.KeyRevoking) != 2 || count(vault.KeyRevoked) != 3 {
		t.Errorf("%d revoking, %d revoked", count(vault.KeyRevoking), count(vault.KeyRevoked))
	}
	for _, r := range s.records {
		s.refused(r, vault.ReasonKeyRevoked)
	}
	s.Vault.Fail("RevokeKey", 1, vaultRefused())
	s.Refused(s.Breach.Sweep(t.Context()), vault.Internal, vault.ReasonInternal)
	if count(vault.KeyRevoking) != 1 {
		t.Error("the sweep stopped at a failure")
	}
	s.Restart()
	s.NoError(s.Breach.Sweep(t.Context()))
	s.keys(vault.KeyRevoked)
	if n := len(s.Events(vault.EventVaultCaughtUp)); n != 5 {
		t.Errorf("Vault caught up %d times", n)
	}
}

// TestLastDecisionWins: while Vault works on one decision, another is made. Whatever Vault
// answers and when, rows and Vault end as the last one says.
func TestLastDecisionWins(t *testing.T) {
	type step struct {
		op   string
		do   func(s *scene) error
		want vault.KeyState
	}
	revoke := step{"RevokeKey", func(s *scene) error {
		_, err := s.Breach.Revoke(ctx(), s.Alice().Caller, house.All(), "")
		return err
	}, vault.KeyRevoked}
	decide := func(a breach.Action) func(s *scene) error {
		return func(s *scene) error {
			d, err := s.Breach.Propose(ctx(), s.Alice().Caller, a)
			if err != nil {
				return err
			}
			if _, _, err := s.sign(s.Alice(), d); err != nil {
				return err
			}
			_, _, err = s.sign(s.Bob(), d)
			return err
		}
	}
	restore := step{"RestoreKey", decide(breach.Action{Restore: new(house.All())}), vault.KeyActive}
	destroy := step{"DestroyKey", decide(breach.Action{Destroy: new(house.All())}), vault.KeyDestroyed}
	for name, c := range map[string]struct {
		before      bool // revoked at first
		first, then step
	}{
		"revoke, restore":  {false, revoke, restore},
		"restore, revoke":  {true, restore, revoke},
		"revoke, destroy":  {false, revoke, destroy},
		"restore, destroy": {true, restore, destroy},
	} {
		for _, fault := range []string{"none", "first fails", "first's answer lost", "second fails", "second's answer lost"} {
			t.Run(name+", "+fault, func(t *testing.T) {
				s := open(t, 2)
				if c.before {
					s.revoke(house.All())
				}
				s.Clock.Advance(time.Second)
				switch fault {
				case "first fails":
					s.Vault.Fail(c.first.op, 1, vaultAway())
				case "first's answer lost":
					s.Vault.FailAfter(c.first.op, 1, vaultAway())
				case "second fails":
					s.Vault.Fail(c.then.op, 1, vaultAway())
				case "second's answer lost":
					s.Vault.FailAfter(c.then.op, 1, vaultAway())
				}
				var other sync.WaitGroup
				s.Once(c.first.op, func() {
					// The second decision commits while Vault works on the first.
					s.Clock.Advance(time.Second)
					other.Go(func() { s.Check(c.then.do(s)) })
					for len(s.Events(vault.EventKeysRevoked, vault.EventKeysRestored, vault.EventKeysDestroying)) < map[bool]int{false: 2, true: 3}[c.before] {
						time.Sleep(time.Millisecond)
						if t.Failed() {
							return
						}
					}
				})
				s.Check(c.first.do(s))
				other.Wait()
				s.Before(nil)
				s.NoError(s.Breach.Sweep(t.Context()))
				s.keys(c.then.want)
			})
		}
	}
}

func TestDestroy(t *testing.T) {
	s := open(t, 3)
	kept := s.Record("south", vault.Face, 0)
	sel := house.All()
	d, work := s.Decide(breach.Action{Destroy: &sel})
	s.keys(vault.KeyDestroyed)
	for _, r := range s.records {
		if exists, err := s.Vault.KeyExists(t.Context(), r.KeyName()); err != nil || exists {
			t.Errorf("its key exists: %v, %v", exists, err)
		}
		if _, err := s.Blobs.Get(t.Context(), r.ID); vault.KindOf(err) != vault.NotFound {
			t.Errorf("its ciphertext: %v", err)
		}
		if w := s.Ask("SELECT wrapped_key FROM records WHERE id = ?", r.ID.String()); w != "" {
			t.Errorf("its wrapped key: %q", w)
		}
		s.refused(r, vault.ReasonKeyDestroyed)
		if !strings.Contains(work.Certificate, "destroyed: "+r.KeyName()+"\n") {
			t.Errorf("the certificate lacks %s", r.KeyName())
		}
	}
	for _, want := range []string{
		"records: 3\n", "decision: " + d.ID.String() + "\n", "decision_digest: " + d.Digest().String() + "\n",
		"signed_by: " + s.Alice().ID + " at ", "signed_by: " + s.Bob().ID + " at ", "attested_by: ", "signature: ",
	} {
		if !strings.Contains(work.Certificate, want) {
			t.Errorf("the certificate lacks %q:\n%s", want, work.Certificate)
		}
	}
	if strings.Contains(work.Certificate, kept.ID.String()) || s.KeyState(kept.ID) != vault.KeyActive || s.Opens(s.token, kept) != nil {
		t.Error("another record was destroyed as well")
	}
	if n := len(s.Events(vault.EventKeyDestroyed)); n != 3 {
		t.Errorf("%d events", n)
	}
	_, err := s.Breach.Revoke(t.Context(), s.Alice().Caller, house.All(), "")
	s.Refused(err, vault.NotFound, vault.ReasonSelectionEmpty)
	_, err = s.Breach.Propose(t.Context(), s.Alice().Caller, breach.Action{Restore: new(house.All())})
	s.Refused(err, vault.NotFound, vault.ReasonSelectionEmpty)
}

// TestDestroyCrash drops the service after each step of a destruction. Nothing opens from
// the decision on, the sweep finishes it, and there is a certificate only if all are gone.
func TestDestroyCrash(t *testing.T) {
	for n := 0; ; n++ {
		s := open(t, 3)
		d := s.Propose(breach.Action{Destroy: new(house.All())})
		_, _, err := s.sign(s.Alice(), d)
		s.NoError(err)
		s.CrashAfter(n)
		_, work, _ := s.sign(s.Bob(), d)
		crashed := s.Crashed()
		s.Restart()
		if work != nil && work.Certificate != "" {
			s.keys(vault.KeyDestroyed)
		}
		if crashed == (work != nil && work.Certificate != "") {
			t.Errorf("after %d steps: crashed %v, certificate %q", n, crashed, work.Certificate)
		}
		if n > 0 {
			for _, r := range s.records {
				s.refused(r, vault.ReasonKeyDestroyed)
			}
		}
		s.NoError(s.Breach.Sweep(t.Context()))
		if n == 0 {
			s.keys(vault.KeyActive)
		} else {
			s.keys(vault.KeyDestroyed)
			if got := len(s.Events(vault.EventKeyDestroyed)); got != 3 {
				t.Errorf("after %d steps: %d events of destroyed keys", n, got)
			}
			for _, r := range s.records {
				if _, err := s.Blobs.Get(t.Context(), r.ID); vault.KindOf(err) != vault.NotFound {
					t.Errorf("its ciphertext: %v", err)
				}
			}
		}
		if !crashed {
			if n < 1+3*3 {
				t.Errorf("it took %d steps", n)
			}
			return
		}
	}
}

// TestRevokeCrash drops the service after each step of a revocation.
func TestRevokeCrash(t *testing.T) {
	for n := 0; ; n++ {
		s := open(t, 2)
		s.CrashAfter(n)
		_, err := s.Breach.Revoke(t.Context(), s.Alice().Caller, house.All(), "")
		crashed := s.Crashed()
		s.Restart()
		if (err != nil) != (n == 0) {
			t.Errorf("after %d steps: %v", n, err)
		}
		if n > 0 {
			s.refused(s.records[0], vault.ReasonKeyRevoked)
		}
		s.NoError(s.Breach.Sweep(t.Context()))
		s.keys(map[bool]vault.KeyState{true: vault.KeyActive, false: vault.KeyRevoked}[n == 0])
		if !crashed {
			return
		}
	}
}

func TestSelections(t *testing.T) {
	s := open(t, 1)
	elsewhere := vault.Selection{Site: "east", From: house.Scope().From, Until: house.Scope().Until}
	_, err := s.Breach.Revoke(t.Context(), s.Alice().Caller, elsewhere, "")
	s.Refused(err, vault.NotFound, vault.ReasonSelectionEmpty)
	_, err = s.Breach.Propose(t.Context(), s.Alice().Caller, breach.Action{Destroy: &elsewhere})
	s.Refused(err, vault.NotFound, vault.ReasonSelectionEmpty)
	_, err = s.Breach.Revoke(t.Context(), s.Alice().Caller, vault.Selection{}, "")
	s.Refused(err, vault.Invalid, vault.ReasonInvalidField)
	_, err = s.Breach.Propose(t.Context(), s.Alice().Caller, breach.Action{})
	s.Refused(err, vault.Invalid, vault.ReasonInvalidField)
	s.many(vault.MaxSelection + 1)
	before := len(s.Events())
	_, err = s.Breach.Revoke(t.Context(), s.Alice().Caller, house.All(), "")
	s.Refused(err, vault.State, vault.ReasonSelectionTooLarge)
	if len(s.Events()) != before || s.Ask("SELECT COUNT(*) FROM records WHERE key_state <> 'active'") != "0" {
		t.Error("a refusal changed something")
	}
	// Listing changes nothing and has no such limit.
	last, err := vault.ParseID("record", fmt.Sprintf("00000000-0000-4000-8000-%012x", vault.MaxSelection+1))
	s.NoError(err)
	page, more, err := s.Breach.List(t.Context(), s.Alice().Caller, house.All(), last, 9)
	s.NoError(err)
	if more || len(page) != 1 || page[0].ID != s.records[0].ID {
		t.Errorf("the end of a list of %d: %d records", vault.MaxSelection+2, len(page))
	}
}

func TestLongList(t *testing.T) {
	s := open(t, 1)
	s.many(2500)
	s.Vault.Down(true) // what Vault does is not the matter here
	work := s.revoke(house.All())
	events := s.Events(vault.EventKeysRevoked)
	if len(events) != 3 || work.Barrier.Index != events[2].Index {
		t.Fatalf("%d parts, answer %d", len(events), work.Barrier.Index)
	}
	var ids []vault.ID
	for i, e := range events {
		if e.Part != i+1 || e.Parts != 3 || e.Count != 2501 || len(e.Records) > 1000 || e.Index != events[0].Index+int64(i) {
			t.Errorf("part %d of %d, %d of %d records, at %d", e.Part, e.Parts, len(e.Records), e.Count, e.Index)
		}
		for _, text := range e.Records {
			id, err := vault.ParseID("record", text)
			s.NoError(err)
			ids = append(ids, id)
		}
	}
	if len(ids) != 2501 || !slices.Equal(ids, work.Records) {
		t.Errorf("%d records in the log, %d in the answer", len(ids), len(work.Records))
	}
	for _, e := range events {
		if e.Digest != vault.DigestOfIDs(ids).String() {
			t.Errorf("digest %s of part %d is not that of the list", e.Digest, e.Part)
		}
	}
}

// failing is a ledger whose nth transaction from now on fails after all was written, or
// whose nth view does.
type failing struct {
	breach.Ledger
	updates, views int
}

var errDown = vault.E(vault.Unavailable, vault.ReasonStoreUnavailable, "down")

func (f *failing) Update(ctx context.Context, fn func(breach.Tx) error) (int64, error) {
	f.updates--
	return f.Ledger.Update(ctx, func(tx breach.Tx) error {
		if err := fn(tx); err != nil || f.updates != 0 {
			return err
		}
		return errDown
	})
}

func (f *failing) View(ctx context.Context, fn func(breach.Tx) error) error {
	f.views--
	if f.views == 0 {
		return errDown
	}
	return f.Ledger.View(ctx, fn)
}

// TestStoreFails: the database fails at each step in turn. What was not committed did not
// happen; what was is finished by the sweep.
func TestStoreFails(t *testing.T) {
	operations := map[string]struct {
		do  func(s *scene) error
		end vault.KeyState
	}{
		"revoke": {func(s *scene) error {
			_, err := s.Breach.Revoke(ctx(), s.Alice().Caller, house.All(), "")
			return err
		}, vault.KeyRevoked},
		"destroy": {func(s *scene) error {
			d, err := s.Breach.Propose(ctx(), s.Alice().Caller, breach.Action{Destroy: new(house.All())})
			for _, p := range []house.Person{s.Alice(), s.Bob()} {
				if err == nil {
					_, _, err = s.sign(p, d)
				}
			}
			return err
		}, vault.KeyDestroyed},
	}
	for name, op := range operations {
		for _, kind := range []string{"update", "view"} {
			for n := 1; n <= 5; n++ {
				t.Run(fmt.Sprintf("%s, %s %d", name, kind, n), func(t *testing.T) {
					s := open(t, 1)
					f := &failing{Ledger: s.Breach.Ledger}
					if kind == "update" {
						f.updates = n
					} else {
						f.views = n
					}
					s.Breach.Ledger = f
					err := op.do(s)
					s.Breach.Ledger = f.Ledger
					decided := len(s.Events(vault.EventKeysRevoked, vault.EventKeysDestroying)) == 1
					if err != nil && !errors.Is(err, errDown) {
						t.Errorf("%v", err)
					}
					if err == nil && !decided {
						t.Error("no error, and no event")
					}
					if decided {
						s.NoError(s.Breach.Sweep(t.Context()))
						s.keys(op.end)
					} else {
						s.keys(vault.KeyActive)
					}
				})
			}
		}
	}
}

func TestListIsWhole(t *testing.T) {
	s := open(t, 7)
	var got []vault.ID
	var after vault.ID
	for more := true; more; {
		var page []vault.Record
		var err error
		page, more, err = s.Breach.List(t.Context(), s.Alice().Caller, house.All(), after, 3)
		s.NoError(err)
		for _, r := range page {
			got = append(got, r.ID)
		}
		after = page[len(page)-1].ID
	}
	var want []vault.ID
	for _, r := range s.records {
		want = append(want, r.ID)
	}
	slices.SortFunc(want, func(a, b vault.ID) int { return strings.Compare(a.String(), b.String()) })
	if !slices.Equal(got, want) {
		t.Errorf("listed %d of %d", len(got), len(want))
	}
}
