package vault_test

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portcullis/portcullis/vault"
)

// somePurpose is a purpose in whose fields nothing is as in another.
func somePurpose() vault.Purpose {
	return vault.Purpose{
		Name: "plate-reader-upkeep", Version: 3, Replaces: vault.DigestOf([]byte("version 2")), Title: `Upkeep of "lane" plate readers: 50 % of lanes`,
		LegalBasis: "Privacy impact assessment 2026-4, section 3", Modalities: []vault.Modality{vault.Plate},
		Sites: []string{"anzalduas", "bridge-2"}, Contractors: []string{"acme", "agency-lab"},
		MaxTTL: 8 * time.Hour, MaxRecords: 500, MaxBytes: 2 << 30, MaxRate: 60, MaxRecordAge: 32 * 24 * time.Hour,
		Precision: vault.PrecisionHour, MinBucket: 10, Approvals: 2, Approvers: []string{"ann", "bob", "eve"}, Strict: true,
		Retention: []string{"standard", "upkeep"},
	}
}

var asked = time.Date(2026, 3, 4, 5, 6, 7, 891_234_000, time.UTC)

// someTerms are terms that somePurpose just allows.
func someTerms() vault.Terms {
	p := somePurpose()
	return vault.Terms{
		Grant:   vault.ID{0x12, 0x3e, 0x45, 0x67, 0xe8, 0x9b, 0x42, 0xd3, 0xa4, 0x56, 0x42, 0x66, 0x14, 0x17, 0x40, 0x00},
		Purpose: vault.PurposeRef{Name: p.Name, Version: p.Version, Digest: p.Digest()},
		Grantee: "spiffe://example.org/contractor/acme/tuning-1", Epoch: 2,
		Scope: vault.Scope{
			Sites: []string{"bridge-2", "anzalduas"}, Modalities: []vault.Modality{vault.Plate},
			From: time.Date(2026, 1, 31, 6, 0, 0, 0, time.UTC), Until: time.Date(2026, 3, 4, 6, 0, 0, 0, time.UTC),
		},
		MaxRecords: 500, MaxBytes: 2 << 30, Ends: asked.Add(8 * time.Hour), Approvals: 2, Justification: vault.DigestOf([]byte("work order 17")),
	}
}

func TestPurposeCheck(t *testing.T) {
	good := somePurpose()
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for field, change := range map[string]func(*vault.Purpose){
		"purpose.name":                 func(p *vault.Purpose) { p.Name = "Not a name" },
		"purpose.title":                func(p *vault.Purpose) { p.Title = "" },
		"purpose.title ":               func(p *vault.Purpose) { p.Title = "one\napprovals: 1" },
		"purpose.title  ":              func(p *vault.Purpose) { p.Title = strings.Repeat("x", vault.MaxTitle+1) },
		"purpose.modalities":           func(p *vault.Purpose) { p.Modalities = nil },
		"purpose.sites":                func(p *vault.Purpose) { p.Sites = nil },
		"purpose.sites[0]":             func(p *vault.Purpose) { p.Sites = []string{"a,b"} },
		"purpose.contractors":          func(p *vault.Purpose) { p.Contractors = []string{} },
		"purpose.contractors[1]":       func(p *vault.Purpose) { p.Contractors = []string{"a", ""} },
		"purpose.max_ttl":              func(p *vault.Purpose) { p.MaxTTL = vault.MinTTL - time.Second },
		"purpose.max_ttl ":             func(p *vault.Purpose) { p.MaxTTL = vault.MaxTTL + time.Second },
		"purpose.max_ttl  ":            func(p *vault.Purpose) { p.MaxTTL = time.Hour + time.Millisecond },
		"purpose.max_records":          func(p *vault.Purpose) { p.MaxRecords = 0 },
		"purpose.max_records ":         func(p *vault.Purpose) { p.MaxRecords = vault.MaxQuota + 1 },
		"purpose.legal_basis":          func(p *vault.Purpose) { p.LegalBasis = "" },
		"purpose.legal_basis ":         func(p *vault.Purpose) { p.LegalBasis = strings.Repeat("x", vault.MaxTitle+1) },
		"purpose.max_bytes":            func(p *vault.Purpose) { p.MaxBytes = 0 },
		"purpose.max_bytes ":           func(p *vault.Purpose) { p.MaxBytes = vault.MaxBytes + 1 },
		"purpose.max_rate":             func(p *vault.Purpose) { p.MaxRate = 0 },
		"purpose.max_rate ":            func(p *vault.Purpose) { p.MaxRate = vault.MaxRate + 1 },
		"purpose.max_record_age":       func(p *vault.Purpose) { p.MaxRecordAge = vault.MinRecordAge - time.Second },
		"purpose.max_record_age ":      func(p *vault.Purpose) { p.MaxRecordAge = vault.MaxRecordAge + time.Second },
		"purpose.max_record_age  ":     func(p *vault.Purpose) { p.MaxRecordAge = 24*time.Hour + time.Microsecond },
		"purpose.time_precision":       func(p *vault.Purpose) { p.Precision = "" },
		"purpose.time_precision ":      func(p *vault.Purpose) { p.Precision = "minute" },
		"purpose.time_precision  ":     func(p *vault.Purpose) { p.Precision = vault.PrecisionExact }, // without linkage
		"purpose.min_bucket":           func(p *vault.Purpose) { p.MinBucket = 1 },
		"purpose.min_bucket ":          func(p *vault.Purpose) { p.MinBucket = 0 },
		"purpose.min_bucket  ":         func(p *vault.Purpose) { p.MinBucket = vault.MaxBucket + 1 },
		"purpose.min_bucket   ":        func(p *vault.Purpose) { p.Linkage = true },
		"purpose.approvers":            func(p *vault.Purpose) { p.Approvers = []string{"ann", "ann"} }, // two must approve
		"purpose.approvers[0]":         func(p *vault.Purpose) { p.Approvers = []string{"Ann", "bob"} },
		"purpose.retention_classes":    func(p *vault.Purpose) { p.Retention = nil },
		"purpose.retention_classes[1]": func(p *vault.Purpose) { p.Retention = []string{"standard", "a b"} },
		"purpose.approvals":            func(p *vault.Purpose) { p.Approvals = 0 },
		"purpose.approvals ":           func(p *vault.Purpose) { p.Approvals = vault.MaxApprovals + 1 },
	} {
		p := good
		change(&p)
		wantInvalid(t, p.Check(), strings.TrimSpace(field))
	}
	for name, change := range map[string]func(*vault.Purpose){
		"the least": func(p *vault.Purpose) {
			p.MaxTTL, p.MaxRecords, p.MaxBytes, p.MaxRate, p.MaxRecordAge, p.MinBucket, p.Approvals, p.Approvers = vault.MinTTL, 1, 1, 1, vault.MinRecordAge, 2, 1, nil
		},
		"the most": func(p *vault.Purpose) {
			p.MaxTTL, p.MaxRecords, p.MaxBytes, p.MaxRate, p.MaxRecordAge, p.MinBucket = vault.MaxTTL, vault.MaxQuota, vault.MaxBytes, vault.MaxRate, vault.MaxRecordAge, vault.MaxBucket
		},
		"linkage, exact": func(p *vault.Purpose) { p.Linkage, p.MinBucket, p.Precision = true, 0, vault.PrecisionExact },
		"linkage, none":  func(p *vault.Purpose) { p.Linkage, p.MinBucket, p.Precision = true, 0, vault.PrecisionNone },
	} {
		p := good
		change(&p)
		if err := p.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestContractorCheck(t *testing.T) {
	if err := (vault.Contractor{Name: "acme", Title: "Acme Ltd."}).Check(); err != nil {
		t.Error(err)
	}
	wantInvalid(t, vault.Contractor{Name: "acme_", Title: "Acme"}.Check(), "contractor.name")
	wantInvalid(t, vault.Contractor{Name: "acme", Title: "Acme\nepoch: 9"}.Check(), "contractor.title")
	wantInvalid(t, vault.Contractor{Name: "acme", Title: "Acme", Group: "a\nepoch: 9"}.Check(), "contractor.conflict_group")
	own := vault.Contractor{Name: "acme", Title: "Acme", Group: "acme"}
	if none := (vault.Contractor{Name: "acme", Title: "Acme"}); none.Text() != own.Text() {
		t.Error("whoever names no group is not in its own")
	}
	if other := (vault.Contractor{Name: "acme", Title: "Acme", Group: "holding"}); other.Text() == own.Text() {
		t.Error("no signature covers the group")
	}
}

// shuffled gives the same set as in, in another order and with doubles.
func shuffled[T comparable](t *rapid.T, in []T) []T {
	out := rapid.Permutation(in).Draw(t, "order")
	return append(slices.Clone(out), rapid.SliceOfN(rapid.SampledFrom(in), 0, 2).Draw(t, "doubles")...)
}

func TestTermsTextIsCanonical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawTerms(t)
		b := a
		b.Scope.Sites, b.Scope.Modalities = shuffled(t, a.Scope.Sites), shuffled(t, a.Scope.Modalities)
		b.Ends = a.Ends.Add(time.Duration(rapid.IntRange(0, 999).Draw(t, "ns"))).In(time.FixedZone("", 3600))
		before := slices.Clone(b.Scope.Sites)
		if a.Text() != b.Text() || a.Decision().Digest() != b.Decision().Digest() {
			t.Fatalf("the same terms in two forms:\n%s\n%s", a.Text(), b.Text())
		}
		if !slices.Equal(before, b.Scope.Sites) {
			t.Fatal("Text changed its receiver's list")
		}
	})
}

// Two different valid terms never share a text: whoever signs one has not signed another.
func TestTermsTextIsInjective(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawTerms(t), drawTerms(t)
		// Take most of the fields over, so that the two differ in few places.
		for _, take := range []func(){
			func() { b.Grant = a.Grant }, func() { b.Purpose.Name = a.Purpose.Name }, func() { b.Purpose.Version = a.Purpose.Version },
			func() { b.Purpose.Digest = a.Purpose.Digest }, func() { b.Grantee = a.Grantee }, func() { b.Epoch = a.Epoch },
			func() { b.Scope.Sites = a.Scope.Sites }, func() { b.Scope.Modalities = a.Scope.Modalities },
			func() { b.Scope.From = a.Scope.From }, func() { b.Scope.Until = a.Scope.Until }, func() { b.MaxRecords = a.MaxRecords },
			func() { b.Ends = a.Ends }, func() { b.Approvals = a.Approvals }, func() { b.Justification = a.Justification },
			func() { b.Scope.Live = a.Scope.Live }, func() { b.Scope.List, b.Scope.Records = a.Scope.List, a.Scope.Records },
			func() { b.MaxBytes = a.MaxBytes },
		} {
			if rapid.IntRange(0, 9).Draw(t, "take") > 0 {
				take()
			}
		}
		an, bn := a.Normal(), b.Normal()
		same := an.Grant == bn.Grant && an.Purpose == bn.Purpose && an.Grantee == bn.Grantee && an.Epoch == bn.Epoch &&
			slices.Equal(an.Scope.Sites, bn.Scope.Sites) && slices.Equal(an.Scope.Modalities, bn.Scope.Modalities) &&
			an.Scope.From.Equal(bn.Scope.From) && an.Scope.Until.Equal(bn.Scope.Until) && an.MaxRecords == bn.MaxRecords &&
			an.Ends.Equal(bn.Ends) && an.Approvals == bn.Approvals && an.Justification == bn.Justification &&
			an.Scope.Live == bn.Scope.Live && an.Scope.List == bn.Scope.List && slices.Equal(an.Scope.Records, bn.Scope.Records) && an.MaxBytes == bn.MaxBytes
		if same != (a.Text() == b.Text()) {
			t.Fatalf("same terms: %t, same text: %t\n%s\n%s", same, !same, a.Text(), b.Text())
		}
	})
}

func drawPurpose(t *rapid.T) vault.Purpose {
	names := func(label string, few int) []string {
		return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string { return drawName(t, label) }), few, 3).Draw(t, label+"s")
	}
	p := vault.Purpose{
		Name: drawName(t, "name"), Version: rapid.IntRange(1, 12).Draw(t, "version"), Withdrawn: rapid.Bool().Draw(t, "withdrawn"),
		Title: rapid.StringMatching(`[a-z :,=]{1,12}`).Draw(t, "title"), LegalBasis: rapid.StringMatching(`[a-z :,=]{1,12}`).Draw(t, "basis"),
		Modalities: drawModalities(t), Linkage: rapid.Bool().Draw(t, "linkage"), Sites: names("site", 1), Contractors: names("contractor", 1),
		MaxTTL:     time.Duration(rapid.IntRange(60, 604800).Draw(t, "ttl")) * time.Second,
		MaxRecords: rapid.Int64Range(1, vault.MaxQuota).Draw(t, "max"), MaxBytes: rapid.Int64Range(1, vault.MaxBytes).Draw(t, "bytes"),
		MaxRate: rapid.Int64Range(1, vault.MaxRate).Draw(t, "rate"), MaxRecordAge: time.Duration(rapid.IntRange(1, 800).Draw(t, "age")) * time.Hour,
		Approvals: rapid.IntRange(1, 3).Draw(t, "approvals"), Strict: rapid.Bool().Draw(t, "strict"), Live: rapid.Bool().Draw(t, "live"),
		Retention: names("class", 1),
	}
	if rapid.Bool().Draw(t, "some approvers") {
		p.Approvers = []string{"ann", "bob", "eve", drawName(t, "approver")}
	}
	if rapid.Bool().Draw(t, "not the first") {
		p.Replaces = drawDigest(t, "replaces")
	}
	if p.Linkage {
		p.Precision = rapid.SampledFrom(vault.Precisions).Draw(t, "precision")
	} else {
		p.Precision, p.MinBucket = rapid.SampledFrom(vault.Precisions[1:]).Draw(t, "precision"), rapid.IntRange(2, 50).Draw(t, "bucket")
	}
	return p
}

// sameField says whether two fields hold the same, lists as sets.
func sameField(a, b any) bool {
	switch a := a.(type) {
	case []string:
		return slices.Equal(set(a), set(b.([]string)))
	case []vault.Modality:
		return slices.Equal(set(a), set(b.([]vault.Modality)))
	}
	return a == b
}

func set[T cmp.Ordered](in []T) []T { return slices.Compact(slices.Sorted(slices.Values(in))) }

// TestPurposeTextIsCanonicalAndInjective: for every field that the struct has.
func TestPurposeTextIsCanonicalAndInjective(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawPurpose(t)
		if err := a.Check(); err != nil {
			t.Fatalf("drawn purpose: %v", err)
		}
		b := a
		b.Sites, b.Contractors, b.Modalities = shuffled(t, a.Sites), shuffled(t, a.Contractors), shuffled(t, a.Modalities)
		b.Retention = shuffled(t, a.Retention)
		if a.Text() != b.Text() || a.Digest() != b.Digest() {
			t.Fatalf("the same purpose in two forms:\n%s\n%s", a.Text(), b.Text())
		}
		other := drawPurpose(t)
		into, from, was := reflect.ValueOf(&b).Elem(), reflect.ValueOf(other), reflect.ValueOf(a)
		i := rapid.IntRange(0, into.NumField()-1).Draw(t, "field")
		into.Field(i).Set(from.Field(i))
		if same := sameField(was.Field(i).Interface(), from.Field(i).Interface()); same != (a.Text() == b.Text()) {
			t.Fatalf("%s the same: %t, same text: %t\n%s\n%s", into.Type().Field(i).Name, same, !same, a.Text(), b.Text())
		}
	})
}

func TestTextsArePinned(t *testing.T) {
	terms := someTerms()
	golden(t, "purpose.txt", somePurpose().Text())
	golden(t, "terms.txt", terms.Text())
	golden(t, "contractor.txt", vault.Contractor{Name: "acme", Title: "Acme Ltd.", Group: "acme-holding", Suspended: true, Epoch: 4}.Text())
	listed := terms
	listed.Scope = vault.PrecisionHour.ListScope(vault.ID{9}, []vault.Record{{ID: vault.ID{2}, Site: "north", Modality: vault.Face, CapturedAt: asked.Add(time.Hour)}, {ID: vault.ID{1}, Site: "anzalduas", Modality: vault.Plate, CapturedAt: asked}})
	golden(t, "terms-list.txt", listed.Text())
	golden(t, "decision.txt", terms.Decision().Text())
	golden(t, "decision-digest.txt", terms.Decision().Digest().String()+"\n")
	golden(t, "selection-record.txt", vault.Selection{Record: terms.Grant}.Text())
	window := vault.Selection{Site: "bridge-2", From: date(2026, 2, 1), Until: asked}
	golden(t, "selection-any.txt", window.Text())
	window.Modality = vault.Face
	golden(t, "selection-face.txt", window.Text())
	golden(t, "ids-digest.txt", vault.DigestOfIDs([]vault.ID{terms.Grant, {1}}).String()+"\n")
}

func TestSelectionCheck(t *testing.T) {
	good := vault.Selection{Site: "north", From: date(2026, 1, 1), Until: date(2026, 1, 2)}
	for _, s := range []vault.Selection{good, {Record: vault.NewID()}} {
		if err := s.Check(); err != nil {
			t.Error(err)
		}
	}
	for field, s := range map[string]vault.Selection{
		"selection":            {Record: vault.NewID(), Site: "north"},
		"selection ":           {Record: vault.NewID(), Modality: vault.Face},
		"selection  ":          {Record: vault.NewID(), Until: good.Until},
		"selection.site":       {},
		"selection.modality":   {Site: "north", Modality: "any", From: good.From, Until: good.Until},
		"selection.start_time": {Site: "north", Until: good.Until},
		"selection.end_time":   {Site: "north", From: good.Until, Until: good.From},
	} {
		wantInvalid(t, s.Check(), strings.TrimSpace(field))
	}
}
