package store

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

func TestUsesLeft(t *testing.T) {
	s, _, g := granting(t)
	left := func() int64 {
		return view(t, s, func(tx *Tx) (int64, error) { return tx.UsesLeft(g.Grant) })
	}
	if n := left(); n != -1 {
		t.Errorf("at first %d", n)
	}
	other := someGrant(vault.GrantActive)
	addGrant(t, s, other)
	must(t, s, func(tx *Tx) error { return errors.Join(tx.SetUsesLeft(g.Grant, 3), tx.SetUsesLeft(other.Grant, 0)) })
	if n := left(); n != 3 {
		t.Errorf("%d uses left", n)
	}
}

// TestBytesAndRate: a release counts its bytes once and its rate each time, in minutes that
// begin with a release; what is refused costs nothing.
func TestBytesAndRate(t *testing.T) {
	s, c, g := granting(t)
	must(t, s, func(tx *Tx) error { return tx.exec("UPDATE grants SET max_bytes = 100") })
	p := ample()
	p.MaxRate = 3
	record := func(size int64) vault.Record {
		r := someRecord()
		r.Size = size
		return r
	}
	release := func(r vault.Record, want vault.Reason) (after time.Duration) {
		t.Helper()
		must(t, s, func(tx *Tx) error {
			_, err := tx.CountRelease(g, p, r)
			if vault.ReasonOf(err) != want || (err != nil && vault.KindOf(err) != vault.Exhausted) {
				t.Errorf("%v, want %q", err, want)
			}
			var e *vault.Error
			if errors.As(err, &e) {
				after = e.After
			}
			return nil // as who commits the refusal does
		})
		return after
	}
	first := record(60)
	release(first, "")
	release(first, "")
	release(record(41), vault.ReasonBytesExceeded)
	release(record(40), "")
	c.add(20 * time.Second)
	if after := release(first, vault.ReasonRateExceeded); after != 40*time.Second {
		t.Errorf("wait %s, want 40s", after)
	}
	c.add(40*time.Second - time.Microsecond)
	release(first, vault.ReasonRateExceeded)
	c.add(time.Microsecond)
	release(first, "")
	got := grantOf(t, s, g.Grant)
	if rows, _ := released(t, s, g.Grant); got.Released != 2 || got.ReleasedBytes != 100 || rows != 2 {
		t.Errorf("%d records, %d bytes, %d rows", got.Released, got.ReleasedBytes, rows)
	}
}

// TestExcess: after so many refusals in a row a grant ends by itself; a release begins anew.
func TestExcess(t *testing.T) {
	s, _, g := granting(t)
	excess := func(want bool) {
		t.Helper()
		must(t, s, func(tx *Tx) error {
			if got, err := tx.CountExcess(g.Grant, 2); got != want || err != nil {
				t.Errorf("suspended: %t, %v", got, err)
			}
			return nil
		})
	}
	excess(false)
	excess(false)
	must(t, s, func(tx *Tx) error { _, err := tx.CountRelease(g, ample(), someRecord()); return err })
	excess(false)
	excess(false)
	excess(true)
	excess(false)
	if got := grantOf(t, s, g.Grant).State; got != vault.GrantSuspended {
		t.Errorf("the grant is %s", got)
	}
}

// TestOpened: what left is kept by day, for the conflict rule, and outlives its grant. A fetch
// again makes it fresh.
func TestOpened(t *testing.T) {
	s, c, g := granting(t)
	p := ample()
	r := someRecord()
	r.CapturedAt = time.Date(2026, 2, 3, 23, 59, 0, 0, time.UTC)
	next := someRecord()
	next.CapturedAt = r.CapturedAt.Add(time.Minute)
	must(t, s, func(tx *Tx) error {
		for _, x := range []vault.Record{r, next, r} {
			if _, err := tx.CountRelease(g, p, x); err != nil {
				return err
			}
		}
		return tx.SetGrantState(g.Grant, vault.GrantRevoked)
	})
	day := time.Date(2026, 2, 3, 0, 0, 0, 0, time.UTC)
	within := func(org string, change func(*vault.Scope), since time.Time) []vault.Claim {
		scope := vault.Scope{Sites: []string{"east", "north"}, From: day.Add(23 * time.Hour), Until: day.Add(24 * time.Hour)}
		change(&scope)
		return view(t, s, func(tx *Tx) ([]vault.Claim, error) { return tx.OpenedWithin([]string{"none", org}, scope, since) })
	}
	same := func(*vault.Scope) {}
	now := vault.Micro(c.now())
	want := vault.Claim{Contractor: "acme", Purpose: "upkeep", Linkage: true, Sites: []string{"north"}, Modalities: []vault.Modality{vault.Face}, From: day, Until: day.AddDate(0, 0, 1)}
	if got := within("acme", same, now); !reflect.DeepEqual(got, []vault.Claim{want}) {
		t.Errorf("%+v", got)
	}
	if got := within("acme", same, time.Time{}); len(got) != 1 {
		t.Errorf("since ever: %+v", got)
	}
	if got := within("acme", func(s *vault.Scope) { s.Until = s.Until.Add(time.Microsecond) }, now); len(got) != 2 {
		t.Errorf("of two days: %+v", got)
	}
	for name, got := range map[string][]vault.Claim{
		"another contractor": within("acme-2", same, now), "later": within("acme", same, now.Add(time.Microsecond)),
		"another site": within("acme", func(s *vault.Scope) { s.Sites = []string{"south"} }, now),
		"another day":  within("acme", func(s *vault.Scope) { s.From, s.Until = day.Add(-time.Hour), day }, now),
	} {
		if len(got) != 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
	sums := view(t, s, func(tx *Tx) ([]vault.Opened, error) { return tx.Opened([]string{"acme"}) })
	if w := (vault.Opened{Contractor: "acme", Purpose: "upkeep", Site: "north", Modality: vault.Face, Days: 2, First: day, Last: day.AddDate(0, 0, 1)}); len(sums) != 1 || sums[0] != w {
		t.Errorf("%+v", sums)
	}
	// Of a fetch that is refused nothing is kept; one again counts as of now.
	must(t, s, func(tx *Tx) error { return tx.SetGrantState(g.Grant, vault.GrantActive) })
	c.add(time.Hour)
	must(t, s, func(tx *Tx) error { _, err := tx.CountRelease(g, p, r); return err })
	must(t, s, func(tx *Tx) error { return tx.exec("UPDATE grants SET max_records = 2") })
	over := someRecord()
	over.Site = "east"
	must(t, s, func(tx *Tx) error { tx.CountRelease(g, p, over); return nil })
	if got := within("acme", same, now.Add(time.Hour)); len(got) != 1 || got[0].Sites[0] != "north" {
		t.Errorf("after a fetch again: %+v", got)
	}
}

// TestHeld: who belongs together, what they hold now, and what a grantee held before.
func TestHeld(t *testing.T) {
	c := newClock()
	s := openWith(t, c)
	now := vault.Micro(c.now())
	must(t, s, func(tx *Tx) error {
		return errors.Join(
			tx.PutContractor(vault.Contractor{Name: "beta", Group: "holding", Epoch: 1}, vault.NewID()),
			tx.PutContractor(vault.Contractor{Name: "acme", Group: "holding", Epoch: 1}, vault.NewID()),
			tx.PutContractor(vault.Contractor{Name: "holding", Group: "other", Epoch: 1}, vault.NewID()),
			tx.PutContractor(vault.Contractor{Name: "gamma", Epoch: 1}, vault.NewID()))
	})
	var groups []string
	for _, a := range view(t, s, (*Tx).Admissions) {
		groups = append(groups, a.Contractor.Name+" of "+a.Contractor.Group)
		if a.Decision.ID != (vault.ID{}) || len(a.Signatures) > 0 {
			t.Errorf("a decision that there is not: %+v", a)
		}
	}
	if want := []string{"acme of holding", "beta of holding", "gamma of gamma", "holding of other"}; !slices.Equal(groups, want) {
		t.Errorf("admitted are %q", groups)
	}
	var want []vault.ID
	for i, state := range []vault.GrantState{
		vault.GrantPending, vault.GrantApproved, vault.GrantActive, vault.GrantDenied, vault.GrantRetired, vault.GrantRevoked, vault.GrantLapsed, vault.GrantSuspended,
	} {
		for _, org := range []string{"acme", "beta", "gamma"} {
			for _, ends := range []time.Time{now.Add(time.Microsecond), now} {
				g := someGrant(state)
				g.Contractor, g.Ends, g.RequestedAt = org, ends, now.Add(time.Duration(-i)*time.Minute)
				addGrant(t, s, g)
				if org != "gamma" && ends.After(now) && (state == vault.GrantApproved || state == vault.GrantActive) {
					want = append(want, g.Grant)
				}
			}
		}
	}
	live := view(t, s, func(tx *Tx) ([]vault.Grant, error) { return tx.LiveGrants([]string{"acme", "beta"}) })
	if !slices.Equal(sortedIDs(ids(live, func(g vault.Grant) vault.ID { return g.Grant })), sortedIDs(want)) {
		t.Errorf("%d live grants, want %d", len(live), len(want))
	}
	if !slices.IsSortedFunc(live, func(a, b vault.Grant) int { return b.RequestedAt.Compare(a.RequestedAt) }) {
		t.Error("not the newest first")
	}

	earlier := func(grantee, purpose string, before time.Time) (vault.ID, error) {
		var g vault.Grant
		err := s.View(t.Context(), func(tx *Tx) (err error) {
			g, err = tx.EarlierGrant(grantee, purpose, before)
			return err
		})
		return g.Grant, err
	}
	var all []vault.Grant
	for i := range 4 {
		g := someGrant(vault.GrantRevoked)
		g.Grantee, g.RequestedAt = "w2", now.Add(time.Duration(i)*time.Minute)
		addGrant(t, s, g)
		if i != 2 { // never approved
			must(t, s, func(tx *Tx) error { return tx.SetFenceState(g.Grant, vault.FenceRemoved) })
		}
		all = append(all, g)
	}
	if got, err := earlier("w2", "upkeep", all[3].RequestedAt); err != nil || got != all[1].Grant {
		t.Errorf("earlier: %s, %v", got, err)
	}
	for _, c := range []struct {
		grantee, purpose string
		before           time.Time
	}{{"w2", "upkeep", all[0].RequestedAt}, {"w3", "upkeep", ended}, {"w2", "study", ended}} {
		_, err := earlier(c.grantee, c.purpose, c.before)
		wantReason(t, err, vault.NotFound, vault.ReasonGrantUnknown)
	}
}

func TestLapseDueAndEndings(t *testing.T) {
	c := newClock()
	s := openWith(t, c)
	now := vault.Micro(c.now())
	at := map[vault.ID]vault.GrantState{}
	var due, live []vault.ID
	for _, state := range []vault.GrantState{vault.GrantPending, vault.GrantApproved, vault.GrantActive, vault.GrantDenied, vault.GrantLapsed, vault.GrantSuspended} {
		for _, purpose := range []string{"upkeep", "study"} {
			for _, asked := range []time.Time{now, now.Add(time.Microsecond)} {
				g := someGrant(state)
				g.Purpose.Name, g.RequestedAt = purpose, asked
				addGrant(t, s, g)
				if state == vault.GrantPending && asked.Equal(now) {
					due = append(due, g.Grant)
				}
				if purpose == "study" && !g.Ended(now) {
					live, at[g.Grant] = append(live, g.Grant), vault.GrantRevoked
				} else {
					at[g.Grant] = state
				}
			}
		}
	}
	if got := view(t, s, func(tx *Tx) ([]vault.ID, error) { return tx.LapseDue(now, 100) }); !slices.Equal(sortedIDs(got), sortedIDs(due)) {
		t.Errorf("%d lapse, want %d", len(got), len(due))
	}
	if got := view(t, s, func(tx *Tx) ([]vault.ID, error) { return tx.LapseDue(now, 1) }); len(got) != 1 {
		t.Errorf("%d of at most one", len(got))
	}
	must(t, s, func(tx *Tx) error {
		got, err := tx.EndGrantsFor("study")
		if !slices.Equal(sortedIDs(got), sortedIDs(live)) {
			t.Errorf("%d ended, want %d", len(got), len(live))
		}
		return err
	})
	for id, want := range at {
		if got := grantOf(t, s, id).State; got != want {
			t.Errorf("a grant is %s, want %s", got, want)
		}
	}
}
