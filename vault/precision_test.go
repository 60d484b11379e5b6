package vault_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portcullis/portcullis/vault"
)

func TestPrecisionCuts(t *testing.T) {
	at := time.Date(2026, 3, 4, 23, 6, 7, 891_234_000, time.FixedZone("", 3*3600)) // 20:06 in UTC
	hour, day := time.Date(2026, 3, 4, 20, 0, 0, 0, time.UTC), date(2026, 3, 4)
	for p, want := range map[vault.Precision]struct{ floor, ceil, cut time.Time }{
		vault.PrecisionExact: {at, at, at},
		vault.PrecisionHour:  {hour, hour.Add(time.Hour), hour},
		vault.PrecisionDay:   {day, date(2026, 3, 5), day},
		vault.PrecisionNone:  {day, date(2026, 3, 5), time.Time{}},
	} {
		if !p.Floor(at).Equal(want.floor) || !p.Ceil(at).Equal(want.ceil) || !p.Cut(at).Equal(want.cut) {
			t.Errorf("%s: %s, %s, %s", p, p.Floor(at), p.Ceil(at), p.Cut(at))
		}
		if !p.Ceil(p.Floor(at)).Equal(p.Floor(at)) {
			t.Errorf("%s: a bound is not its own", p)
		}
		if err := p.Check("x"); err != nil {
			t.Error(err)
		}
	}
	wantInvalid(t, vault.Precision("second").Check("x"), "x")
}

// TestAppears: a bucket is shown when it is closed and has enough crossings, and not before.
func TestAppears(t *testing.T) {
	p := somePurpose()
	r := someRecord()
	r.StoredAt = r.CapturedAt.Add(time.Second)
	b, ok := p.Bucket(r)
	if hour := vault.PrecisionHour.Floor(r.CapturedAt); !ok || b.Site != r.Site || b.Modality != r.Modality || !b.From.Equal(hour) || !b.Until.Equal(hour.Add(time.Hour)) ||
		!b.After.IsZero() || !b.Opens.Equal(hour.Add(time.Hour+vault.BucketLate+vault.BucketSettle)) {
		t.Errorf("bucket %+v", b)
	}
	wantReason(t, p.Appears(b, 100, b.Opens.Add(-time.Microsecond)), vault.State, vault.ReasonBucketOpen)
	if err := p.Appears(b, 10, b.Opens); err != nil {
		t.Error(err)
	}
	wantReason(t, p.Appears(b, 9, b.Opens.Add(1000*time.Hour)), vault.Denied, vault.ReasonBucketSmall)
	// What comes late waits for the next wave, and is told by when it came, not by when it was taken.
	for late, wave := range map[time.Duration]time.Duration{
		0: 0, time.Hour - time.Microsecond: 0, time.Hour: time.Hour, 49 * time.Hour: 49 * time.Hour,
	} {
		r.StoredAt = b.Until.Add(vault.BucketLate + late)
		l, _ := p.Bucket(r)
		if !l.From.Equal(b.From) || !l.After.Equal(b.Below.Add(wave)) || !l.Opens.Equal(b.Below.Add(wave+time.Hour+vault.BucketSettle)) {
			t.Errorf("%s late: %+v", late, l)
		}
	}
	p.Linkage, p.MinBucket = true, 0
	if _, ok := p.Bucket(r); ok {
		t.Error("a bucket where crossings are told")
	}
}

// TestBucketsHoldTheirRecords: whatever the record, it is in its own bucket, no other bucket of its
// kind overlaps it, and it appears after whatever belongs to it has come in.
func TestBucketsHoldTheirRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := vault.Purpose{Precision: rapid.SampledFrom(vault.Precisions[1:]).Draw(t, "precision"), MinBucket: 2}
		base := date(2026, 3, 1)
		record := func(label string) vault.Record {
			r := vault.Record{Site: "north", Modality: vault.Face, CapturedAt: base.Add(time.Duration(rapid.Int64Range(0, int64(10*24*time.Hour)-1).Draw(t, label+" captured")))}
			r.StoredAt = r.CapturedAt.Add(time.Duration(rapid.Int64Range(0, int64(15*24*time.Hour)).Draw(t, label+" late")))
			return r
		}
		in := func(b vault.Bucket, r vault.Record) bool {
			return !r.CapturedAt.Before(b.From) && r.CapturedAt.Before(b.Until) && !r.StoredAt.Before(b.After) && r.StoredAt.Before(b.Below)
		}
		one, other := record("one"), record("other")
		b, _ := p.Bucket(one)
		o, _ := p.Bucket(other)
		if !in(b, one) {
			t.Fatalf("%+v is not in its bucket %+v", one, b)
		}
		if (b == o) != in(b, other) {
			t.Fatalf("%+v\nof bucket %+v\nis in bucket: %t\n%+v", other, o, in(b, other), b)
		}
		if !b.Opens.After(b.Below) || b.Opens.Sub(b.Below) != vault.BucketSettle || b.Below.Before(b.Until) {
			t.Fatalf("it appears before it is whole: %+v", b)
		}
		// The rule sees nothing of when it is asked: a bucket that appeared stays as it was.
		if now := base.Add(time.Duration(rapid.Int64Range(0, int64(60*24*time.Hour)).Draw(t, "now"))); p.Appears(b, 2, now) == nil {
			late := record("late")
			late.StoredAt = now.Add(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "after")))
			if in(b, late) {
				t.Fatalf("%+v came into %+v after it had appeared at %s", late, b, now)
			}
			if p.Appears(b, 2, now.Add(time.Hour)) != nil {
				t.Fatal("it appeared, and disappeared")
			}
		}
	})
}

func TestScopesCover(t *testing.T) {
	r := someRecord()
	day := vault.PrecisionDay.Floor(r.CapturedAt)
	whole := vault.Scope{Sites: []string{r.Site}, Modalities: []vault.Modality{r.Modality}, From: day, Until: day.Add(24 * time.Hour)}
	for name, c := range map[string]struct {
		change func(*vault.Scope)
		covers bool
	}{
		"the day":          {func(*vault.Scope) {}, true},
		"from its moment":  {func(s *vault.Scope) { s.From = r.CapturedAt }, true},
		"until its moment": {func(s *vault.Scope) { s.Until = r.CapturedAt }, false},
		"after it":         {func(s *vault.Scope) { s.From = r.CapturedAt.Add(time.Microsecond) }, false},
		"another site":     {func(s *vault.Scope) { s.Sites = []string{"elsewhere"} }, false},
		"another modality": {func(s *vault.Scope) { s.Modalities = []vault.Modality{"other"} }, false},
		"a list with it":   {func(s *vault.Scope) { s.List, s.Records = vault.ID{1}, []vault.ID{{9}, r.ID} }, true},
		"a list without":   {func(s *vault.Scope) { s.List, s.Records = vault.ID{1}, []vault.ID{{9}} }, false},
	} {
		s := whole
		if c.change(&s); s.Covers(r) != c.covers {
			t.Errorf("%s: covers %t", name, s.Covers(r))
		}
	}
	p := vault.Purpose{Retention: []string{r.Class}, Precision: vault.PrecisionExact}
	g := vault.Grant{Terms: vault.Terms{Scope: whole}, Signatures: []vault.Signature{{SignedAt: r.CapturedAt.Add(-time.Hour)}, {SignedAt: r.CapturedAt}}}
	if !g.Covers(p, r) || g.Covers(vault.Purpose{Retention: []string{"other"}}, r) {
		t.Error("a grant covers a class that its purpose may not see, or not one that it may")
	}
	g.Scope.Live = true
	if !g.Covers(p, r) {
		t.Error("captured when the last approver signed")
	}
	g.Signatures[0].SignedAt = r.CapturedAt.Add(time.Microsecond)
	if g.Covers(p, r) {
		t.Error("a live grant covers what was captured before its approval")
	}
}

// TestScopesAreNoWiderThanNeeded: of a list, and of what is to come.
func TestScopesAreNoWiderThanNeeded(t *testing.T) {
	a := vault.Record{ID: vault.ID{2}, Site: "south", Modality: vault.Plate, CapturedAt: time.Date(2026, 3, 4, 10, 30, 0, 0, time.UTC)}
	b := vault.Record{ID: vault.ID{1}, Site: "north", Modality: vault.Plate, CapturedAt: time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)}
	s := vault.PrecisionHour.ListScope(vault.ID{7}, []vault.Record{a, b})
	if err := s.Check(); err != nil || !s.Covers(a) || !s.Covers(b) {
		t.Errorf("%+v, %v", s, err)
	}
	if !s.From.Equal(a.CapturedAt.Truncate(time.Hour)) || !s.Until.Equal(b.CapturedAt.Add(time.Hour)) || len(s.Modalities) != 1 || len(s.Sites) != 2 || s.Records[0] != b.ID {
		t.Errorf("%+v", s)
	}
	now := time.Date(2026, 3, 4, 10, 30, 0, 0, time.UTC)
	l := vault.PrecisionHour.LiveScope(vault.Scope{Sites: []string{"north"}, Modalities: []vault.Modality{vault.Face}}, now, now.Add(4*time.Hour))
	if !l.Live || !l.From.Equal(now.Add(30*time.Minute)) || !l.Until.Equal(now.Add(3*time.Hour+30*time.Minute)) {
		t.Errorf("%+v", l)
	}
	for field, change := range map[string]func(*vault.Scope){
		"scope":           func(s *vault.Scope) { s.Live = true },
		"scope.records":   func(s *vault.Scope) { s.Records = nil },
		"scope.records ":  func(s *vault.Scope) { s.List = vault.ID{} },
		"scope.records  ": func(s *vault.Scope) { s.Records = make([]vault.ID, vault.MaxRecordList+1) },
	} {
		bad := s
		change(&bad)
		wantInvalid(t, bad.Check(), trim(field))
	}
}

func trim(s string) string {
	for len(s) > 0 && s[len(s)-1] == ' ' {
		s = s[:len(s)-1]
	}
	return s
}
