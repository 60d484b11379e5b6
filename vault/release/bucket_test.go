package release_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/capture"
	"github.com/portcullis/portcullis/vault/grants"
	"github.com/portcullis/portcullis/vault/release"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

// apart gives a house whose purpose has no linkage: hours, three crossings, faces, for two days.
func apart(t *testing.T, change ...func(*vault.Purpose)) *scene {
	h := house.New(t)
	h.Admit("acme", "beta")
	p := house.Tuning()
	p.Linkage, p.Precision, p.MinBucket, p.MaxTTL = false, vault.PrecisionHour, 3, 48*time.Hour
	for _, f := range change {
		f(&p)
	}
	h.Decide(breach.Action{Purpose: &p})
	return &scene{House: h, acme: h.Caller("contractor/acme/tuning")}
}

// granted gives the scene an active grant for its purpose: on faces, and ending in 48 hours.
func (s *scene) granted(change ...func(*grants.Request)) {
	s.Helper()
	s.grant, s.token = s.Active(s.acme, append([]func(*grants.Request){func(r *grants.Request) {
		r.Scope.Modalities, r.Scope.Until, r.TTL = []vault.Modality{vault.Face}, r.Scope.Until.AddDate(0, 0, 1), 48*time.Hour
	}}, change...)...)
}

// shots stores n faces of north, of one crossing each, captured at a time.
func (s *scene) shots(n int, at time.Time, change ...func(*capture.Image)) (out []vault.Record) {
	s.Helper()
	for range n {
		in := s.Shot(vault.Face, s.Clock.Now().Sub(at))
		site := "north"
		for _, f := range change {
			f(&in)
		}
		if in.Site != "" {
			site = in.Site
		}
		r, _, err := s.Capture.Store(context.Background(), s.Caller("capture/"+site+"/lane-1"), in)
		s.NoError(err)
		out = append(out, r)
	}
	return out
}

// until turns the clock to a time.
func (s *scene) until(at time.Time) { s.Clock.Advance(at.Sub(s.Clock.Now())) }

// shows says that records are fetched and listed, or why none of them is.
func (s *scene) shows(what string, records []vault.Record, want vault.Reason) {
	s.Helper()
	listed := map[vault.Handle]bool{}
	for _, v := range s.list(0, func() {}) {
		listed[v.Handle] = true
	}
	for _, r := range records {
		sent, err := s.fetch(r)
		if got := vault.ReasonOf(err); got != want || (err == nil) != (len(sent) == 1) || (err != nil) != (want != "") {
			s.Errorf("%s, %s: %v (%d sent), want %q", s.Clock.Now().Format(time.TimeOnly), what, err, len(sent), want)
		}
		if listed[s.handle(r)] != (want == "") {
			s.Errorf("%s, %s: listed: %v, want %q", s.Clock.Now().Format(time.TimeOnly), what, listed[s.handle(r)], want)
		}
	}
}

// TestBucketsOpen: nothing appears before its bucket closes, and all of it at once then; what
// comes late appears with what came as late.
func TestBucketsOpen(t *testing.T) {
	midnight := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		precision vault.Precision
		opens     time.Time // the bucket of what was captured within the hour before the start
		late      time.Time // what of it comes ten minutes after its end
	}{
		"hour": {vault.PrecisionHour, house.Start.Add(6 * time.Minute), house.Start.Add(66 * time.Minute)},
		"day":  {vault.PrecisionDay, midnight.Add(6 * time.Minute), midnight.Add(24*time.Hour + 6*time.Minute)},
		// Not when the window ends, a day later: two windows would tell what lies between their ends.
		"none": {vault.PrecisionNone, midnight.Add(6 * time.Minute), midnight.Add(24*time.Hour + 6*time.Minute)},
	} {
		t.Run(name, func(t *testing.T) {
			s := apart(t, func(p *vault.Purpose) { p.Precision = c.precision })
			s.granted()
			at := house.Start.Add(-20 * time.Minute)
			first := s.shots(2, at)
			s.shows("at the start", first, vault.ReasonBucketOpen)
			s.Clock.Advance(4 * time.Minute)
			first = append(first, s.shots(1, at)...) // with it they are enough
			s.shows("later", first, vault.ReasonBucketOpen)
			s.until(c.opens.Add(-6 * time.Minute).Add(10 * time.Minute))
			late := s.shots(3, at)
			s.Clock.Advance(-4 * time.Minute) // back to the opening
			s.Clock.Advance(-time.Microsecond)
			s.shows("just before", first, vault.ReasonBucketOpen)
			s.Clock.Advance(time.Microsecond)
			s.shows("at the opening", first, "")
			s.shows("late at the opening", late, vault.ReasonBucketOpen)
			s.Restart()
			s.shows("after a restart", first, "")
			if s.until(c.late.Add(-time.Microsecond)); s.Clock.Now().Before(s.grant.Ends) {
				s.shows("late, just before", late, vault.ReasonBucketOpen)
				s.Clock.Advance(time.Microsecond)
				s.shows("late, at its opening", late, "")
				s.shows("on time, then", first, "")
			}
			s.until(c.opens.Add(-time.Second))
			s.shows("with the clock set back", first, vault.ReasonBucketOpen)
		})
	}
}

// TestSmallBuckets: what counts is crossings of the whole store whose keys are active, of classes
// that the purpose sees.
func TestSmallBuckets(t *testing.T) {
	crossing := vault.NewID()
	for name, c := range map[string]struct {
		store func(s *scene, at time.Time) []vault.Record
		want  vault.Reason
	}{
		"two":   {func(s *scene, at time.Time) []vault.Record { return s.shots(2, at) }, vault.ReasonBucketSmall},
		"three": {func(s *scene, at time.Time) []vault.Record { return s.shots(3, at) }, ""},
		"three of two crossings": {func(s *scene, at time.Time) []vault.Record {
			return append(s.shots(1, at), s.shots(2, at, func(in *capture.Image) { in.CrossingID = crossing })...)
		}, vault.ReasonBucketSmall},
		"three without a crossing": {func(s *scene, at time.Time) []vault.Record {
			return s.shots(3, at, func(in *capture.Image) { in.CrossingID = vault.ID{} })
		}, ""},
		"the third of another class": {func(s *scene, at time.Time) []vault.Record {
			s.shots(1, at, func(in *capture.Image) { in.Class = "incident" })
			return s.shots(2, at)
		}, vault.ReasonBucketSmall},
		"the third of another site": {func(s *scene, at time.Time) []vault.Record {
			s.shots(1, at, func(in *capture.Image) { in.Site = "south" })
			return s.shots(2, at)
		}, vault.ReasonBucketSmall},
		"the third is a plate": {func(s *scene, at time.Time) []vault.Record {
			s.shots(1, at, func(in *capture.Image) { in.Modality = vault.Plate })
			return s.shots(2, at)
		}, vault.ReasonBucketSmall},
		"the third of the hour before": {func(s *scene, at time.Time) []vault.Record {
			s.shots(1, at.Add(-time.Hour))
			return s.shots(2, at)
		}, vault.ReasonBucketSmall},
		"the third comes late": {func(s *scene, at time.Time) []vault.Record {
			out := s.shots(2, at)
			s.until(at.Truncate(time.Hour).Add(time.Hour + vault.BucketLate))
			s.shots(1, at)
			return out
		}, vault.ReasonBucketSmall},
		"the third's key is revoked": {func(s *scene, at time.Time) []vault.Record {
			third := s.shots(1, at)[0]
			_, err := s.Breach.Revoke(context.Background(), s.Alice().Caller, house.One(third), "")
			s.NoError(err)
			return s.shots(2, at)
		}, vault.ReasonBucketSmall},
		"one key of four is revoked": {func(s *scene, at time.Time) []vault.Record {
			fourth := s.shots(1, at)[0]
			_, err := s.Breach.Revoke(context.Background(), s.Alice().Caller, house.One(fourth), "")
			s.NoError(err)
			return s.shots(3, at)
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := apart(t)
			s.granted()
			records := c.store(s, house.Start.Add(-time.Minute))
			s.Clock.Advance(66 * time.Minute)
			s.shows(name, records, c.want)
			if c.want == "" {
				return
			}
			s.refused(records[0], vault.Denied, c.want)
			if s.Grant(s.grant.Grant).Released != 0 {
				t.Error("it was counted")
			}
		})
	}
}

// TestBucketsOfLists: of a list only what stands in it counts, and nothing else makes it appear.
func TestBucketsOfLists(t *testing.T) {
	s := apart(t)
	at := house.Start.Add(-time.Minute)
	crossing := vault.NewID()
	records := slices.Concat(s.shots(4, at), s.shots(2, at, func(in *capture.Image) { in.CrossingID = crossing }))
	s.Clock.Advance(6 * time.Minute)
	for name, c := range map[string]struct {
		records []vault.Record
		want    vault.Reason
	}{
		"two":                    {records[:2], vault.ReasonBucketSmall},
		"three of two crossings": {records[3:], vault.ReasonBucketSmall},
		"three":                  {records[:3], ""},
		"four of three":          {records[2:], ""},
	} {
		t.Run(name, func(t *testing.T) {
			var ids []vault.ID
			for _, r := range c.records {
				ids = append(ids, r.ID)
			}
			purposes, err := s.Store.Purposes(t.Context())
			s.NoError(err)
			p := purposes[0]
			g := vault.Grant{Terms: vault.Terms{Scope: p.Precision.ListScope(vault.NewID(), c.records)}}
			s.NoError(s.Release.Ledger.View(t.Context(), func(tx release.Tx) error {
				for _, r := range c.records {
					hidden, err := s.Release.Sees(tx, g, p, r)
					if err != nil || vault.ReasonOf(hidden) != c.want || (hidden == nil) != (c.want == "") {
						t.Errorf("%v, %v; want %q", hidden, err, c.want)
					}
				}
				return nil
			}))
			if c.want != "" {
				return // no grant of it is ever made
			}
			l, err := s.Grants.CreateList(t.Context(), s.Alice().Caller, grants.ListRequest{ID: vault.NewID(), Contractor: "acme", Records: ids})
			s.NoError(err)
			s.granted(func(r *grants.Request) { r.Scope = vault.Scope{List: l.ID} })
			s.shows("of the list", c.records, c.want)
			for _, r := range records {
				if !slices.Contains(ids, r.ID) {
					s.refused(r, vault.NotFound, vault.ReasonHandleUnknown)
				}
			}
		})
	}
	s.granted()
	s.shows("without a list", records, "")
}

// TestBucketsLinked: with linkage records appear as they come, however few.
func TestBucketsLinked(t *testing.T) {
	s := open(t, 1)
	s.shows("with linkage", s.records, "")
}

// counted counts counts of crossings.
type counted struct {
	release.Ledger
	n int
}

type countedTx struct {
	release.Tx
	c *counted
}

func (c *counted) Update(ctx context.Context, fn func(release.Tx) error) (int64, error) {
	return c.Ledger.Update(ctx, func(tx release.Tx) error { return fn(countedTx{tx, c}) })
}

func (c *counted) View(ctx context.Context, fn func(release.Tx) error) error {
	return c.Ledger.View(ctx, func(tx release.Tx) error { return fn(countedTx{tx, c}) })
}

func (c *counted) Scan(ctx context.Context, fn func(release.Tx) error) error {
	return c.Ledger.Scan(ctx, func(tx release.Tx) error { return fn(countedTx{tx, c}) })
}

func (x countedTx) Crossings(b vault.Bucket, classes []string, most int) (int64, error) {
	x.c.n++
	return x.Tx.Crossings(b, classes, most)
}

// TestBucketsAreCountedOnce: whatever is fetched and listed of a closed bucket, in any number of
// windows of a listing; an open one is not counted at all. The memory of it is bounded.
func TestBucketsAreCountedOnce(t *testing.T) {
	s := apart(t)
	s.granted()
	var shown, small []vault.Record
	for i := range 10 {
		shown = append(shown, s.shots(3+i%3, house.Start.Add(time.Duration(-i)*time.Hour-time.Second))...)
		small = append(small, s.shots(i%3, house.Start.Add(time.Duration(-i)*time.Hour-time.Second), func(in *capture.Image) { in.Site = "south" })...)
	}
	c := &counted{Ledger: s.Release.Ledger}
	s.Release.Ledger = c
	s.shows("open", slices.Concat(shown, small), vault.ReasonBucketOpen)
	if c.n != 0 {
		t.Errorf("%d counts of open buckets", c.n)
	}
	s.Clock.Advance(66 * time.Minute)
	for range 2 {
		s.shows("closed", shown, "")
		s.shows("small", small, vault.ReasonBucketSmall)
	}
	if c.n != 16 { // ten of north; of south six, in the others there is nothing
		t.Errorf("%d counts of 16 buckets", c.n)
	}
	s.Restart()
	s.Release.Remember(2)
	s.Release.Keep(7, 0)
	if got := s.list(5, func() {}); len(got) != len(shown) || !slices.IsSortedFunc(got, byHandle) {
		t.Errorf("listed %d, want %d", len(got), len(shown))
	}
	s.shows("closed", shown, "")
	s.shows("small", small, vault.ReasonBucketSmall)
	if n := s.Release.Remembered(); n > 4 {
		t.Errorf("%d buckets are remembered", n)
	}
}

// TestLargeListingOpens: what is kept of a large listing makes nothing appear before its time, and
// keeps nothing back for longer than some seconds.
func TestLargeListingOpens(t *testing.T) {
	s := apart(t, func(p *vault.Purpose) { p.MinBucket = 2 })
	s.granted()
	s.shots(1, house.Start.Add(-2*time.Hour))
	s.many(10_000) // all of one crossing: they make it large, and never appear
	s.shots(2, house.Start.Add(-4*time.Hour))
	s.SQL("UPDATE records SET stored_at = captured_at")
	waits := s.shots(2, house.Start.Add(-time.Minute))
	all := func(want int) {
		t.Helper()
		if got := len(s.list(release.MaxPage, func() {})); got != want {
			t.Errorf("%s: %d are listed, want %d", s.Clock.Now().Format(time.TimeOnly), got, want)
		}
	}
	c := &counting{Ledger: s.Release.Ledger, t: t}
	s.Release.Ledger = c
	s.until(house.Start.Add(6*time.Minute - 2*time.Second))
	all(2)
	s.Clock.Advance(2*time.Second - time.Microsecond)
	all(2)
	if c.orders != 2 { // the first looked twice, for it had to count
		t.Errorf("%d scans", c.orders)
	}
	s.Clock.Advance(3*time.Second + time.Microsecond)
	all(4)
	s.shows("then", waits, "")
	before := c.orders
	s.Clock.Advance(time.Minute)
	if all(4); c.orders != before+1 {
		t.Errorf("%d scans with all buckets known", c.orders-before)
	}
}

// TestPagesAreLookedAtAgain: a page shows what appears when it is asked for, whatever order was
// made of it before.
func TestPagesAreLookedAtAgain(t *testing.T) {
	s := apart(t)
	s.granted()
	s.shots(6, house.Start.Add(-time.Minute))
	s.Clock.Advance(6 * time.Minute)
	if got := s.list(2, func() { s.Clock.Advance(-time.Second) }); len(got) != 2 {
		t.Errorf("%d are listed, of which two had appeared when they were asked for", len(got))
	}
}

// TestLiveBucketsAreWhole: of the hour in which a live grant was approved nothing is covered:
// what was captured after the approval alone may be of too few crossings.
func TestLiveBucketsAreWhole(t *testing.T) {
	p := house.Tuning()
	p.Linkage, p.Precision = false, vault.PrecisionHour
	g := vault.Grant{Terms: vault.Terms{Scope: house.Scope()}, Signatures: []vault.Signature{{SignedAt: house.Start.Add(20 * time.Minute)}}}
	g.Scope.Live, g.Scope.Until = true, house.Start.Add(8*time.Hour)
	for after, want := range map[time.Duration]bool{30 * time.Minute: false, time.Hour - time.Microsecond: false, time.Hour: true} {
		r := vault.Record{Site: "north", Modality: vault.Face, Class: vault.DefaultClass, CapturedAt: house.Start.Add(after)}
		if got := g.Covers(p, r); got != want {
			t.Errorf("captured %s after the hour began, approved after 20m: covered: %v", after, got)
		}
	}
	if s := g.Effective(p); !s.From.Equal(house.Start.Add(time.Hour)) {
		t.Errorf("it begins at %s", s.From)
	}
}

// TestCrossingHandles: with linkage all records of a crossing have one handle, which is another
// in each grant; without, none.
func TestCrossingHandles(t *testing.T) {
	s := open(t, 0)
	of := map[vault.ID]vault.ID{}
	for i := range 12 {
		crossing := vault.NewID()
		for _, m := range []vault.Modality{vault.Face, vault.Plate, vault.Plate}[:1+i%3] {
			in := s.Shot(m, time.Duration(i)*time.Minute)
			in.CrossingID = crossing
			r, _, err := s.Capture.Store(t.Context(), s.Caller("capture/north/lane-1"), in)
			s.NoError(err)
			of[r.ID] = crossing
		}
	}
	in := s.Shot(vault.Face, time.Minute)
	in.CrossingID = vault.ID{}
	alone, _, err := s.Capture.Store(t.Context(), s.Caller("capture/north/lane-1"), in)
	s.NoError(err)
	joined := func() (handles []vault.Handle) {
		known := map[vault.Handle]vault.ID{}
		views := s.list(5, func() {})
		for _, v := range views {
			id := s.grant.HandleKey.Record(v.Handle)
			if v.Crossing == (vault.Handle{}) != (id == alone.ID) {
				t.Errorf("record %s has crossing %s", id, v.Crossing)
			}
			if id == alone.ID {
				continue
			}
			if was, met := known[v.Crossing]; met && was != of[id] {
				t.Error("two crossings have one handle")
			}
			if v.Crossing == vault.Handle(of[id]) || v.Crossing == s.grant.HandleKey.Handle(of[id]) {
				t.Error("a crossing is named as a record would be")
			}
			known[v.Crossing] = of[id]
			handles = append(handles, v.Crossing)
		}
		if len(known) != 12 || len(views) != len(of)+1 {
			t.Errorf("%d records of %d crossings", len(views), len(known))
		}
		return handles
	}
	one := joined()
	s.grant, s.token = s.Active(s.acme)
	for _, h := range joined() {
		if slices.Contains(one, h) {
			t.Error("two grants name a crossing alike")
		}
	}

	s = apart(t)
	s.granted()
	s.shots(4, house.Start.Add(-time.Minute))
	s.Clock.Advance(6 * time.Minute)
	views := s.list(0, func() {})
	for _, v := range views {
		if v.Crossing != (vault.Handle{}) || v.Precision != vault.PrecisionHour || !v.Captured.Equal(house.Start.Add(-time.Hour)) {
			t.Errorf("without linkage: %+v", v)
		}
	}
	if len(views) != 4 {
		t.Errorf("%d are listed", len(views))
	}
}

// TestPageTokens: a token goes on with the listing of its grant, and is good for nothing else.
func TestPageTokens(t *testing.T) {
	s := open(t, 9)
	list := func(token string) (release.Page, error) {
		return s.Release.List(t.Context(), s.acme, s.token, s.grant.Grant, token, 4)
	}
	first, err := list("")
	s.NoError(err)
	again, err := list("")
	s.NoError(err)
	if first.Next == again.Next {
		t.Error("the same page has the same token twice")
	}
	for _, v := range first.Views {
		if _, err := list(v.Handle.String()); vault.ReasonOf(err) != vault.ReasonInvalidField {
			t.Errorf("a handle as a token: %v", err)
		}
	}
	second, err := list(first.Next)
	s.NoError(err)
	if other, err := list(again.Next); err != nil || fmt.Sprint(other.Views) != fmt.Sprint(second.Views) {
		t.Errorf("%v", err)
	}
	last, err := list(second.Next)
	s.NoError(err)
	if len(last.Views) != 1 || last.Next != "" {
		t.Errorf("%d in the last page, which is followed by %q", len(last.Views), last.Next)
	}
	mine := first.Next
	s.grant, s.token = s.Active(s.acme)
	for name, token := range map[string]string{
		"another grant's": mine, "a byte": "A", "of another length": mine + "AAAA", "made up": string(slices.Repeat([]byte("A"), len(mine))),
		"very long": string(make([]byte, 1<<20)),
	} {
		page, err := list(token)
		s.Refused(err, vault.Invalid, vault.ReasonInvalidField)
		if len(page.Views) != 0 || len(err.(*vault.Error).Fields) != 1 || err.(*vault.Error).Fields[0].Name != "page_token" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
