package vault_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portcullis/portcullis/vault"
)

// unsigned are the fields that are no part of what a version changes.
var unsigned = []string{"Name", "Version", "Replaces"}

// fieldChange turns one field from a to b, the looser.
type fieldChange struct {
	field   string // of the struct
	name    string // of the canonical form
	a, b    func(*vault.Purpose)
	twoWays bool // to go back loosens, too
}

var fieldChanges = []fieldChange{
	{"Withdrawn", "withdrawn", func(p *vault.Purpose) { p.Withdrawn = true }, func(p *vault.Purpose) { p.Withdrawn = false }, false},
	{"Title", "title", func(p *vault.Purpose) { p.Title = "one" }, func(p *vault.Purpose) { p.Title = "another" }, true},
	{"LegalBasis", "legal_basis", func(p *vault.Purpose) { p.LegalBasis = "one" }, func(p *vault.Purpose) { p.LegalBasis = "another" }, true},
	{"Modalities", "modalities", func(p *vault.Purpose) { p.Modalities = []vault.Modality{"face"} }, func(p *vault.Purpose) { p.Modalities = []vault.Modality{"plate", "face"} }, false},
	{"Modalities", "modalities", func(p *vault.Purpose) { p.Modalities = []vault.Modality{"face"} }, func(p *vault.Purpose) { p.Modalities = []vault.Modality{"plate"} }, true},
	{"Linkage", "linkage", func(p *vault.Purpose) { p.Linkage = false }, func(p *vault.Purpose) { p.Linkage = true }, false},
	{"Sites", "sites", func(p *vault.Purpose) { p.Sites = []string{"a", "c"} }, func(p *vault.Purpose) { p.Sites = []string{"a", "b", "c"} }, false},
	{"Sites", "sites", func(p *vault.Purpose) { p.Sites = []string{"a"} }, func(p *vault.Purpose) { p.Sites = []string{"b"} }, true},
	{"Contractors", "contractors", func(p *vault.Purpose) { p.Contractors = []string{"a"} }, func(p *vault.Purpose) { p.Contractors = []string{"b", "a"} }, false},
	{"MaxTTL", "max_ttl_seconds", func(p *vault.Purpose) { p.MaxTTL = time.Hour }, func(p *vault.Purpose) { p.MaxTTL = time.Hour + time.Second }, false},
	{"MaxRecords", "max_records", func(p *vault.Purpose) { p.MaxRecords = 1 }, func(p *vault.Purpose) { p.MaxRecords = 2 }, false},
	{"MaxBytes", "max_bytes", func(p *vault.Purpose) { p.MaxBytes = 1 }, func(p *vault.Purpose) { p.MaxBytes = 2 }, false},
	{"MaxRate", "max_rate", func(p *vault.Purpose) { p.MaxRate = 1 }, func(p *vault.Purpose) { p.MaxRate = 2 }, false},
	{"MaxRecordAge", "max_record_age_seconds", func(p *vault.Purpose) { p.MaxRecordAge = time.Hour }, func(p *vault.Purpose) { p.MaxRecordAge = time.Hour + time.Second }, false},
	{"Precision", "time_precision", func(p *vault.Purpose) { p.Precision = vault.PrecisionHour }, func(p *vault.Purpose) { p.Precision = vault.PrecisionExact }, true},
	{"Precision", "time_precision", func(p *vault.Purpose) { p.Precision = vault.PrecisionDay }, func(p *vault.Purpose) { p.Precision = vault.PrecisionHour }, true},
	{"Precision", "time_precision", func(p *vault.Purpose) { p.Precision = vault.PrecisionNone }, func(p *vault.Purpose) { p.Precision = vault.PrecisionDay }, false},
	{"Precision", "time_precision", func(p *vault.Purpose) { p.Precision = vault.PrecisionDay }, func(p *vault.Purpose) { p.Precision = "second" }, false},
	{"MinBucket", "min_bucket", func(p *vault.Purpose) { p.MinBucket = 3 }, func(p *vault.Purpose) { p.MinBucket = 2 }, false},
	{"Approvals", "approvals", func(p *vault.Purpose) { p.Approvals = 2 }, func(p *vault.Purpose) { p.Approvals = 1 }, false},
	{"Approvers", "approvers", func(p *vault.Purpose) { p.Approvers = []string{"ann"} }, func(p *vault.Purpose) { p.Approvers = []string{"bob", "ann"} }, false},
	{"Approvers", "approvers", func(p *vault.Purpose) { p.Approvers = []string{"ann"} }, func(p *vault.Purpose) { p.Approvers = nil }, false},
	{"Strict", "strict", func(p *vault.Purpose) { p.Strict = true }, func(p *vault.Purpose) { p.Strict = false }, false},
	{"Live", "live", func(p *vault.Purpose) { p.Live = false }, func(p *vault.Purpose) { p.Live = true }, false},
	{"Retention", "retention_classes", func(p *vault.Purpose) { p.Retention = []string{"standard"} }, func(p *vault.Purpose) { p.Retention = []string{"standard", "evidence"} }, false},
}

// TestEveryFieldLoosensOneWay: field by field, both ways.
func TestEveryFieldLoosensOneWay(t *testing.T) {
	for _, c := range fieldChanges {
		tight, loose := somePurpose(), somePurpose()
		c.a(&tight)
		c.b(&loose)
		for _, way := range []struct {
			old, now vault.Purpose
			loosens  bool
		}{{tight, loose, true}, {loose, tight, c.twoWays}} {
			got := way.now.Changes(way.old)
			if len(got) != 1 || got[0].Field != c.name || got[0].Loosens != way.loosens || got[0].Before == got[0].After {
				t.Errorf("%s: changes %+v, want that it loosens: %t", c.name, got, way.loosens)
			}
			if way.now.Tightens(way.old) == way.loosens {
				t.Errorf("%s: tightens: %t", c.name, !way.loosens)
			}
		}
		same := tight
		if got := same.Changes(tight); len(got) > 0 || !same.Tightens(tight) {
			t.Errorf("%s: nothing differs, and it changes %+v", c.name, got)
		}
	}
}

// TestNoFieldIsForgotten: a field of the struct that is neither signed nor compared would be law
// that nobody signed.
func TestNoFieldIsForgotten(t *testing.T) {
	typ := reflect.TypeFor[vault.Purpose]()
	for i := range typ.NumField() {
		name := typ.Field(i).Name
		told := slices.ContainsFunc(fieldChanges, func(c fieldChange) bool { return c.field == name })
		if told == slices.Contains(unsigned, name) {
			t.Errorf("field %s: in the table of changes: %t", name, told)
		}
	}
	for _, c := range fieldChanges {
		for _, change := range []func(*vault.Purpose){c.a, c.b} {
			p, was := somePurpose(), somePurpose()
			change(&p)
			for i := range typ.NumField() {
				if n := typ.Field(i).Name; n != c.field && !reflect.DeepEqual(reflect.ValueOf(p).Field(i).Interface(), reflect.ValueOf(was).Field(i).Interface()) {
					t.Errorf("the change of %s changes %s", c.field, n)
				}
			}
		}
	}
	// The name, the version and what it replaces are signed besides.
	for _, change := range []func(*vault.Purpose){
		func(p *vault.Purpose) { p.Name = "x" }, func(p *vault.Purpose) { p.Version++ }, func(p *vault.Purpose) { p.Replaces = vault.Digest{} },
	} {
		p := somePurpose()
		if change(&p); p.Digest() == somePurpose().Digest() {
			t.Errorf("unsigned: %+v", p)
		}
	}
}

// TestTighteningAllowsNothingNew: what a tightened purpose allows, the one before allowed.
func TestTighteningAllowsNothingNew(t *testing.T) {
	sites, orgs := []string{"n", "s", "w"}, []string{"acme", "beta"}
	some := func(t *rapid.T, label string, of []string) []string {
		return rapid.SliceOfNDistinct(rapid.SampledFrom(of), 1, len(of), rapid.ID[string]).Draw(t, label)
	}
	draw := rapid.Custom(func(t *rapid.T) vault.Purpose {
		return vault.Purpose{
			Name: "p", Title: "t", LegalBasis: "b", Withdrawn: rapid.IntRange(0, 5).Draw(t, "withdrawn") == 0,
			Modalities: drawModalities(t), Linkage: rapid.Bool().Draw(t, "linkage"), Sites: some(t, "sites", sites), Contractors: some(t, "orgs", orgs),
			MaxTTL:     time.Duration(rapid.IntRange(1, 3).Draw(t, "ttl")) * time.Hour,
			MaxRecords: rapid.Int64Range(1, 3).Draw(t, "records"), MaxBytes: rapid.Int64Range(1, 3).Draw(t, "bytes"), MaxRate: 1,
			MaxRecordAge: time.Duration(rapid.IntRange(1, 60).Draw(t, "age")) * time.Hour,
			Precision:    rapid.SampledFrom(vault.Precisions).Draw(t, "precision"), MinBucket: rapid.IntRange(0, 2).Draw(t, "bucket"),
			Approvals: rapid.IntRange(1, 2).Draw(t, "approvals"), Live: rapid.Bool().Draw(t, "live"),
			Approvers: rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"ann", "bob"}), 0, 2, rapid.ID[string]).Draw(t, "approvers"),
			Retention: some(t, "classes", []string{"standard", "evidence"}),
		}
	})
	allowed := 0
	rapid.Check(t, func(t *rapid.T) {
		old, other := draw.Draw(t, "old"), draw.Draw(t, "other")
		// The fields of other that loosen nothing: so it tightens more often than never.
		now := old
		into, from := reflect.ValueOf(&now).Elem(), reflect.ValueOf(other)
		for i := range into.NumField() {
			if was := now; slices.Contains(unsigned, into.Type().Field(i).Name) {
				continue
			} else if into.Field(i).Set(from.Field(i)); !now.Tightens(old) {
				now = was
			}
		}
		now.Version, now.Replaces = old.Version+1, old.Digest()
		if !now.Tightens(old) {
			t.Fatal("it loosens after all")
		}
		at := date(2026, 3, 4).Add(time.Duration(rapid.IntRange(0, 2*24*60).Draw(t, "minutes")) * time.Minute)
		// Terms at the very limits of the tightened one.
		begins := now.Precision.Ceil(at.Add(-now.MaxRecordAge))
		beyond := rapid.IntRange(0, 3).Draw(t, "beyond") == 0 && now.Precision.Floor(at.Add(-now.MaxRecordAge)).Before(begins)
		if beyond {
			begins = now.Precision.Floor(at.Add(-now.MaxRecordAge))
		}
		ends := now.Precision.Ceil(at)
		if now.Live {
			ends = ends.Add(24 * time.Hour)
		}
		terms := vault.Terms{
			Scope: vault.Scope{
				Sites: some(t, "asked sites", now.Sites), Modalities: now.Modalities[:1], Live: now.Live && rapid.Bool().Draw(t, "asked live"), From: begins, Until: ends,
			},
			MaxRecords: now.MaxRecords, MaxBytes: now.MaxBytes, Ends: at.Add(now.MaxTTL), Approvals: now.Approvals,
		}
		if now.Linkage {
			terms.Scope.Modalities = now.Modalities
		}
		org := rapid.SampledFrom(now.Contractors).Draw(t, "org")
		ref := func(p vault.Purpose) vault.Terms {
			terms.Purpose = vault.PurposeRef{Name: p.Name, Version: p.Version, Digest: p.Digest()}
			return terms
		}
		if err := now.Allows(org, ref(now), at); (err == nil) == (now.Withdrawn || beyond) {
			t.Fatalf("at its limits: %v", err)
		} else if err == nil {
			allowed++
			if err := old.Allows(org, ref(old), at); err != nil {
				t.Fatalf("%v\nold %+v\nnow %+v\nterms %+v at %s", err, old, now, terms, at)
			}
		}
		r := vault.Record{Class: rapid.SampledFrom([]string{"standard", "evidence"}).Draw(t, "class")}
		if now.AllowsRecord(r) == nil && old.AllowsRecord(r) != nil {
			t.Fatal("a retention class")
		}
		who := vault.Caller{Name: rapid.SampledFrom([]string{"ann", "bob", "eve"}).Draw(t, "approver")}
		if now.AllowsApprover(who) == nil && old.AllowsApprover(who) != nil {
			t.Fatal("an approver")
		}
	})
	if allowed == 0 {
		t.Error("nothing was ever allowed: it tested nothing")
	}
}
