package store

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

var ended = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func someGrant(state vault.GrantState) vault.Grant {
	id := vault.NewID()
	g := vault.Grant{
		Terms: vault.Terms{
			Grant: id, Purpose: vault.PurposeRef{Name: "upkeep", Version: 3, Digest: vault.DigestOf(id[:])},
			Grantee: "spiffe://example.org/contractor/acme/w1", Epoch: 1,
			Scope:      vault.Scope{Sites: []string{"north", "south"}, Modalities: []vault.Modality{vault.Face, vault.Plate}, From: ended.Add(-99 * time.Hour), Until: ended},
			MaxRecords: 20, MaxBytes: 1 << 40, Ends: ended, Approvals: 2,
		},
		State: state, Contractor: "acme", Justification: "work order\nof two lines", RequestedAt: ended.Add(-9 * time.Hour),
		HandleKey: vault.HandleKey(vault.NewID()),
	}
	g.Terms.Justification = vault.DigestOf([]byte(g.Justification))
	return g
}

func addGrant(t *testing.T, s *Store, g vault.Grant) {
	t.Helper()
	must(t, s, func(tx *Tx) error { return tx.AddGrant(g, vault.NewID()) })
}

// ample is a purpose that hinders no release.
func ample() vault.Purpose {
	return vault.Purpose{Name: "upkeep", Linkage: true, MaxRate: vault.MaxRate}
}

// rec is a record of an ID, for counting: it is in no table.
func rec(id vault.ID) vault.Record {
	r := someRecord()
	r.ID = id
	return r
}

// granting opens a store with the contractor acme and an active grant.
func granting(t *testing.T) (*Store, *clock, vault.Grant) {
	t.Helper()
	c := newClock()
	s := openWith(t, c)
	must(t, s, func(tx *Tx) error { return tx.PutContractor(vault.Contractor{Name: "acme", Epoch: 1}, vault.NewID()) })
	g := someGrant(vault.GrantActive)
	addGrant(t, s, g)
	return s, c, g
}

func grantOf(t *testing.T, s *Store, id vault.ID) vault.Grant {
	t.Helper()
	return view(t, s, func(tx *Tx) (vault.Grant, error) { return tx.Grant(id) })
}

func TestGrantsReadBack(t *testing.T) {
	s := open(t)
	g, request := someGrant(vault.GrantPending), vault.NewID()
	must(t, s, func(tx *Tx) error { return tx.AddGrant(g, request) })
	if got := grantOf(t, s, g.Grant); !reflect.DeepEqual(got, g) || got.Text() != g.Text() {
		t.Errorf("%+v\nreads back as\n%+v", g, got)
	}
	sig := vault.Signature{Signer: "a", SignedAt: ended, Bytes: []byte{1}, Chain: [][]byte{{2}}}
	digest := vault.DigestOf([]byte("token"))
	must(t, s, func(tx *Tx) error {
		return errors.Join(tx.AddSignature(g.Grant, sig), tx.SetGrantState(g.Grant, vault.GrantActive), tx.SetGrantToken(g.Grant, digest, "accessor"))
	})
	g.Signatures, g.State, g.TokenDigest, g.Accessor = []vault.Signature{sig}, vault.GrantActive, digest, "accessor"
	byRequest := view(t, s, func(tx *Tx) (vault.Grant, error) { return tx.GrantByRequest(g.Grantee, request) })
	if !reflect.DeepEqual(byRequest, g) {
		t.Errorf("%+v\nreads back as\n%+v", g, byRequest)
	}
	for _, read := range []func(*Tx) (vault.Grant, error){
		func(tx *Tx) (vault.Grant, error) { return tx.Grant(request) },
		func(tx *Tx) (vault.Grant, error) { return tx.GrantByRequest(g.Grantee+"x", request) },
	} {
		err := s.View(t.Context(), func(tx *Tx) error { _, err := read(tx); return err })
		wantReason(t, err, vault.NotFound, vault.ReasonGrantUnknown)
	}
	if _, err := s.Update(t.Context(), func(tx *Tx) error { return tx.AddGrant(someGrant(vault.GrantPending), request) }); err == nil {
		t.Error("a request was granted twice")
	}
}

func TestGrantsPageNewestFirst(t *testing.T) {
	s := open(t)
	var all []vault.Grant
	for i := range 40 {
		g := someGrant([]vault.GrantState{vault.GrantPending, vault.GrantActive, vault.GrantRevoked}[i%3])
		g.Contractor = []string{"acme", "other"}[i%2]
		g.RequestedAt = ended.Add(time.Duration(i/7) * time.Second) // many at one time
		all = append(all, g)
		addGrant(t, s, g)
	}
	slices.SortFunc(all, func(a, b vault.Grant) int {
		if n := b.RequestedAt.Compare(a.RequestedAt); n != 0 {
			return n
		}
		return slices.Compare(b.Grant[:], a.Grant[:])
	})
	for _, c := range []struct {
		contractor string
		states     []vault.GrantState
	}{{}, {contractor: "acme"}, {states: []vault.GrantState{vault.GrantActive, vault.GrantRevoked}}, {"other", []vault.GrantState{vault.GrantPending}}, {contractor: "none"}} {
		var want []vault.ID
		for _, g := range all {
			if (c.contractor == "" || c.contractor == g.Contractor) && (c.states == nil || slices.Contains(c.states, g.State)) {
				want = append(want, g.Grant)
			}
		}
		for _, most := range []int{1, 3, 100} {
			var got []vault.ID
			var before vault.ID
			for {
				page, err := s.Grants(t.Context(), c.contractor, c.states, before, most)
				if err != nil {
					t.Fatal(err)
				}
				if len(page) == 0 {
					break
				}
				if len(page) > most {
					t.Fatalf("%d grants of at most %d", len(page), most)
				}
				got = append(got, ids(page, func(g vault.Grant) vault.ID { return g.Grant })...)
				if before = got[len(got)-1]; len(got) > len(want) {
					break // the same ones again
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%+v by %d: %d grants, want %d in order", c, most, len(got), len(want))
			}
		}
	}
}

func TestFencesDue(t *testing.T) {
	c := newClock()
	s := openWith(t, c)
	now := vault.Micro(c.now())
	want := map[vault.ID]bool{}
	for _, state := range []vault.GrantState{vault.GrantPending, vault.GrantApproved, vault.GrantActive, vault.GrantDenied, vault.GrantRetired, vault.GrantRevoked, vault.GrantLapsed, vault.GrantSuspended} {
		for _, fence := range []vault.FenceState{vault.FenceNone, vault.FenceDue, vault.FenceWritten, vault.FenceRemoved} {
			for _, ends := range []time.Time{now.Add(time.Microsecond), now} {
				g := someGrant(state)
				g.Ends = ends
				addGrant(t, s, g)
				must(t, s, func(tx *Tx) error { return tx.SetFenceState(g.Grant, fence) })
				if got := view(t, s, func(tx *Tx) (vault.FenceState, error) { return tx.FenceState(g.Grant) }); got != fence {
					t.Errorf("fence %s, want %s", got, fence)
				}
				if fence == vault.FenceDue || (fence == vault.FenceWritten && g.Ended(now)) {
					want[g.Grant] = true
				}
			}
		}
	}
	got := view(t, s, func(tx *Tx) ([]vault.ID, error) { return tx.FencesDue(now, 1000) })
	for _, id := range got {
		if !want[id] {
			t.Errorf("grant %+v is due", grantOf(t, s, id))
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d due, want %d", len(got), len(want))
	}
	if got := view(t, s, func(tx *Tx) ([]vault.ID, error) { return tx.FencesDue(now, 5) }); len(got) != 5 {
		t.Errorf("%d due of at most 5", len(got))
	}
}

func TestTokensDue(t *testing.T) {
	c := newClock()
	s := openWith(t, c)
	now := vault.Micro(c.now())
	want := map[vault.ID]bool{}
	for _, state := range []vault.GrantState{vault.GrantPending, vault.GrantActive, vault.GrantRetired, vault.GrantRevoked, vault.GrantDenied, vault.GrantLapsed, vault.GrantSuspended} {
		for _, ends := range []time.Time{now.Add(time.Microsecond), now} {
			for _, accessor := range []string{"", "newest"} {
				g := someGrant(state)
				g.Ends = ends
				addGrant(t, s, g)
				must(t, s, func(tx *Tx) error { return tx.SetGrantToken(g.Grant, vault.DigestOf(nil), accessor) })
				if accessor != "" && g.Ended(now) {
					want[g.Grant] = true
				}
			}
		}
	}
	due := func() []vault.ID {
		return view(t, s, func(tx *Tx) ([]vault.ID, error) { return tx.TokensDue(now, 1000) })
	}
	got := due()
	for _, id := range got {
		if !want[id] {
			t.Errorf("grant %+v is due", grantOf(t, s, id))
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d due, want %d", len(got), len(want))
	}
	must(t, s, func(tx *Tx) error {
		return errors.Join(tx.DropAccessor(got[0], "newest"), tx.DropAccessor(got[1], "an older one"))
	})
	if after := due(); len(after) != len(got)-1 || slices.Contains(after, got[0]) {
		t.Errorf("%d due once one token ended, want %d", len(after), len(got)-1)
	}
	// Earlier tokens are due whatever their grant is.
	g := someGrant(vault.GrantActive)
	addGrant(t, s, g)
	must(t, s, func(tx *Tx) error {
		return errors.Join(tx.OweToken(g.Grant, "first"), tx.OweToken(g.Grant, "second"), tx.OweToken(g.Grant, "first"))
	})
	owed := func() []string {
		return view(t, s, func(tx *Tx) ([]string, error) { return tx.OwedTokens(g.Grant) })
	}
	if accessors := owed(); !slices.Equal(accessors, []string{"first", "second"}) || !slices.Contains(due(), g.Grant) {
		t.Errorf("owed: %q", accessors)
	}
	must(t, s, func(tx *Tx) error { return tx.DropAccessor(g.Grant, "first") })
	if accessors := owed(); !slices.Equal(accessors, []string{"second"}) || !slices.Contains(due(), g.Grant) {
		t.Errorf("still owed: %q", accessors)
	}
	must(t, s, func(tx *Tx) error { return tx.DropAccessor(g.Grant, "second") })
	if slices.Contains(due(), g.Grant) {
		t.Error("due with nothing owed")
	}
}

// released counts what is kept of releases: rows, and the grant's own count.
func released(t *testing.T, s *Store, grant vault.ID) (rows, counted int64) {
	t.Helper()
	return count(t, s, "SELECT COUNT(*) FROM released WHERE grant_id = $1", grant.String()), count(t, s, "SELECT released FROM grants WHERE id = $1", grant.String())
}

func TestQuotaIsExact(t *testing.T) {
	s, _, g := granting(t)
	const callers, each = 64, 4 // 128 records, each wanted by two callers; the quota is 20
	records := make([]vault.ID, callers*each/2)
	for i := range records {
		records[i] = vault.NewID()
	}
	var fresh, refetched, over atomic.Int64
	var all sync.WaitGroup
	for n := range callers {
		all.Go(func() {
			for m := range each {
				id := records[(n*each+m)%len(records)]
				var refetch bool
				_, err := s.Update(t.Context(), func(tx *Tx) (err error) {
					if refetch, err = tx.CountRelease(g, ample(), rec(id)); err != nil && n%2 == 0 {
						return nil // as one that commits the event of its refusal
					}
					return err
				})
				switch {
				case err == nil && refetch:
					refetched.Add(1)
				case err == nil && n%2 == 1:
					fresh.Add(1)
				case err != nil:
					over.Add(1)
					wantReason(t, err, vault.Exhausted, vault.ReasonQuotaExceeded)
				}
			}
		})
	}
	all.Wait()
	if rows, counted := released(t, s, g.Grant); rows != 20 || counted != 20 {
		t.Errorf("%d rows, %d counted, want 20", rows, counted)
	}
	if over.Load() == 0 {
		t.Error("nobody met the quota")
	}
	// What left before may leave again, and costs nothing, though the quota is used up.
	var again vault.ID
	for _, id := range records {
		if count(t, s, "SELECT COUNT(*) FROM released WHERE record_id = $1", id.String()) == 1 {
			again = id
		}
	}
	must(t, s, func(tx *Tx) error {
		if refetch, err := tx.CountRelease(g, ample(), rec(again)); err != nil || !refetch {
			t.Errorf("again: refetch %t, %v", refetch, err)
		}
		return nil
	})
	if _, counted := released(t, s, g.Grant); counted != 20 {
		t.Errorf("%d counted", counted)
	}
}

func TestReleasesAreRefusedOnceAccessEnded(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*testing.T, *Store, *clock, vault.Grant)
		kind vault.Kind
		want vault.Reason
	}{
		"retired": {func(t *testing.T, s *Store, _ *clock, g vault.Grant) {
			must(t, s, func(tx *Tx) error { return tx.SetGrantState(g.Grant, vault.GrantRetired) })
		}, vault.State, vault.ReasonGrantRetired},
		"revoked": {func(t *testing.T, s *Store, _ *clock, g vault.Grant) {
			must(t, s, func(tx *Tx) error { return tx.SetGrantState(g.Grant, vault.GrantRevoked) })
		}, vault.State, vault.ReasonGrantRevoked},
		"not active": {func(t *testing.T, s *Store, _ *clock, g vault.Grant) {
			must(t, s, func(tx *Tx) error { return tx.SetGrantState(g.Grant, vault.GrantApproved) })
		}, vault.State, vault.ReasonGrantNotActive},
		"expired": {func(_ *testing.T, _ *Store, c *clock, g vault.Grant) {
			c.add(g.Ends.Sub(c.now()))
		}, vault.State, vault.ReasonGrantExpired},
		"suspended": {func(t *testing.T, s *Store, _ *clock, _ vault.Grant) {
			must(t, s, func(tx *Tx) error {
				n, err := tx.SuspendContractor("acme")
				if n != 1 {
					t.Errorf("%d grants ended", n)
				}
				return err
			})
		}, vault.State, vault.ReasonGrantRevoked},
		"contractor suspended, grant as it was": {func(t *testing.T, s *Store, _ *clock, _ vault.Grant) {
			must(t, s, func(tx *Tx) error {
				return tx.PutContractor(vault.Contractor{Name: "acme", Epoch: 1, Suspended: true}, vault.NewID())
			})
		}, vault.State, vault.ReasonGrantRevoked},
		"another epoch": {func(t *testing.T, s *Store, _ *clock, _ vault.Grant) {
			must(t, s, func(tx *Tx) error {
				return tx.PutContractor(vault.Contractor{Name: "acme", Epoch: 2}, vault.NewID())
			})
		}, vault.State, vault.ReasonGrantRevoked},
		"no contractor": {func(t *testing.T, s *Store, _ *clock, _ vault.Grant) {
			must(t, s, func(tx *Tx) error { return tx.exec("DELETE FROM contractors") })
		}, vault.State, vault.ReasonGrantRevoked},
		"no grant": {func(t *testing.T, s *Store, _ *clock, g vault.Grant) {
			must(t, s, func(tx *Tx) error {
				return tx.exec("UPDATE grants SET id = $1 WHERE id = $2", vault.NewID().String(), g.Grant.String())
			})
		}, vault.NotFound, vault.ReasonGrantUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			s, clock, g := granting(t)
			before := vault.NewID()
			must(t, s, func(tx *Tx) error { _, err := tx.CountRelease(g, ample(), rec(before)); return err })
			c.end(t, s, clock, g)
			for _, id := range []vault.ID{before, vault.NewID()} { // a refetch is refused as well
				must(t, s, func(tx *Tx) error { // commits, as the event of a refusal does
					_, err := tx.CountRelease(g, ample(), rec(id))
					wantReason(t, err, c.kind, c.want)
					return nil
				})
			}
			if rows := count(t, s, "SELECT COUNT(*) FROM released"); rows != 1 {
				t.Errorf("%d rows of releases, want 1", rows)
			}
			if n := count(t, s, "SELECT released FROM grants"); n != 1 {
				t.Errorf("%d counted, want 1", n)
			}
		})
	}
}

func TestSuspensionEndsTheContractorsGrantsOnly(t *testing.T) {
	s, c, active := granting(t)
	states := map[vault.ID]vault.GrantState{active.Grant: vault.GrantRevoked}
	for _, g := range []vault.Grant{someGrant(vault.GrantPending), someGrant(vault.GrantApproved), someGrant(vault.GrantDenied), someGrant(vault.GrantRetired)} {
		addGrant(t, s, g)
		states[g.Grant] = g.State
		if g.State == vault.GrantPending || g.State == vault.GrantApproved {
			states[g.Grant] = vault.GrantRevoked
		}
	}
	other, over := someGrant(vault.GrantActive), someGrant(vault.GrantActive)
	other.Contractor = "acme-2"
	over.Ends = vault.Micro(c.now())
	for _, g := range []vault.Grant{other, over} {
		addGrant(t, s, g)
		states[g.Grant] = vault.GrantActive
	}
	must(t, s, func(tx *Tx) error {
		n, err := tx.SuspendContractor("acme")
		if n != 3 {
			t.Errorf("%d grants ended, want 3", n)
		}
		return err
	})
	for id, want := range states {
		if got := grantOf(t, s, id).State; got != want {
			t.Errorf("grant %s is %s, want %s", id, got, want)
		}
	}
}

func TestGrantees(t *testing.T) {
	s, _, _ := granting(t)
	var records []vault.ID
	must(t, s, func(tx *Tx) error {
		for i := range 3 {
			g := someGrant(vault.GrantActive)
			g.MaxRecords, g.Grantee = 2000, fmt.Sprintf("spiffe://example.org/contractor/acme/w%d", i%2)
			if err := tx.AddGrant(g, vault.NewID()); err != nil {
				return err
			}
			for range 400 {
				id := vault.NewID()
				if _, err := tx.CountRelease(g, ample(), rec(id)); err != nil {
					return err
				}
				records = append(records, id)
			}
		}
		return nil
	})
	for name, c := range map[string]struct {
		records []vault.ID
		want    []string
	}{
		"all":     {records, []string{"spiffe://example.org/contractor/acme/w0", "spiffe://example.org/contractor/acme/w1"}},
		"one":     {records[500:501], []string{"spiffe://example.org/contractor/acme/w1"}},
		"unknown": {[]vault.ID{vault.NewID()}, nil},
		"none":    {nil, nil},
	} {
		got := view(t, s, func(tx *Tx) ([]string, error) { return tx.Grantees(c.records) })
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// Of a grant token the database keeps the digest alone.
func TestTheFilesHoldNoToken(t *testing.T) {
	path := t.TempDir() + "/p.db"
	s := openFile(t, path, newClock())
	g := someGrant(vault.GrantApproved)
	addGrant(t, s, g)
	token := vault.TokenOf("hvs.CAESIH-a-token-of-a-grant")
	must(t, s, func(tx *Tx) error { return tx.SetGrantToken(g.Grant, token.Digest(), "accessor-of-the-token") })
	if !token.Matches(grantOf(t, s, g.Grant).TokenDigest) {
		t.Error("the digest kept is another's")
	}
	for range 2 { // open, and closed
		if inFiles(t, path, token.Reveal()) {
			t.Error("the token stands in the files")
		}
		if !inFiles(t, path, "accessor-of-the-token") {
			t.Error("the accessor does not: the test looks at the wrong files")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
