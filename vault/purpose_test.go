package vault_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portcullis/portcullis/vault"
)

func somePurpose() vault.Purpose {
	return vault.Purpose{
		Name: "plate-reader-upkeep", Version: 3, Title: `Upkeep of "lane" plate readers: 50 % of lanes`,
		Modalities: []vault.Modality{vault.Plate}, Sites: []string{"anzalduas", "bridge-2"}, Contractors: []string{"acme", "agency-lab"},
		MaxTTL: 8 * time.Hour, MaxRecords: 500, Approvals: 2,
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
			From: date(2026, 2, 1), Until: date(2026, 3, 1),
		},
		MaxRecords: 500, Ends: asked.Add(8 * time.Hour), Approvals: 2, Justification: vault.DigestOf([]byte("work order 17")),
	}
}

func TestPurposeAllows(t *testing.T) {
	for _, c := range []struct {
		name   string
		org    string
		change func(*vault.Purpose, *vault.Terms)
		want   vault.Reason // "" when allowed
	}{
		{"all at their limit", "acme", func(*vault.Purpose, *vault.Terms) {}, ""},
		{"less of everything", "agency-lab", func(_ *vault.Purpose, t *vault.Terms) {
			t.Scope.Sites, t.MaxRecords, t.Approvals, t.Ends = []string{"bridge-2"}, 1, 5, asked.Add(time.Minute)
		}, ""},
		{"lists in another order", "acme", func(p *vault.Purpose, _ *vault.Terms) {
			slices.Reverse(p.Sites)
			p.Contractors = []string{"agency-lab", "acme", "acme"}
		}, ""},
		{"another version", "acme", func(_ *vault.Purpose, t *vault.Terms) { t.Purpose.Version++ }, vault.ReasonPurposeChanged},
		{"another digest", "acme", func(_ *vault.Purpose, t *vault.Terms) { t.Purpose.Digest[0] ^= 1 }, vault.ReasonPurposeChanged},
		{"the purpose was widened since", "acme", func(p *vault.Purpose, _ *vault.Terms) { p.MaxRecords++ }, vault.ReasonPurposeChanged},
		{"another contractor", "acme-2", func(*vault.Purpose, *vault.Terms) {}, vault.ReasonPurposeContractor},
		{"no contractor", "", func(*vault.Purpose, *vault.Terms) {}, vault.ReasonPurposeContractor},
		{"one modality more", "acme", func(_ *vault.Purpose, t *vault.Terms) {
			t.Scope.Modalities = append(t.Scope.Modalities, vault.Face)
		}, vault.ReasonPurposeModality},
		{"another modality", "acme", func(_ *vault.Purpose, t *vault.Terms) { t.Scope.Modalities = []vault.Modality{vault.Face} }, vault.ReasonPurposeModality},
		{"one site more", "acme", func(_ *vault.Purpose, t *vault.Terms) { t.Scope.Sites = append(t.Scope.Sites, "bridge") }, vault.ReasonPurposeSite},
		{"a microsecond more", "acme", func(_ *vault.Purpose, t *vault.Terms) { t.Ends = t.Ends.Add(time.Microsecond) }, vault.ReasonPurposeDuration},
		{"one record more", "acme", func(_ *vault.Purpose, t *vault.Terms) { t.MaxRecords++ }, vault.ReasonPurposeQuota},
		{"one approval less", "acme", func(_ *vault.Purpose, t *vault.Terms) { t.Approvals-- }, vault.ReasonApprovalsMissing},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, terms := somePurpose(), someTerms()
			c.change(&p, &terms)
			err := p.Allows(c.org, terms, asked)
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantReason(t, err, vault.Denied, c.want)
		})
	}
}

func TestPurposeCheck(t *testing.T) {
	good := somePurpose()
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for field, change := range map[string]func(*vault.Purpose){
		"purpose.name":           func(p *vault.Purpose) { p.Name = "Not a name" },
		"purpose.title":          func(p *vault.Purpose) { p.Title = "" },
		"purpose.title ":         func(p *vault.Purpose) { p.Title = "one\napprovals: 1" },
		"purpose.title  ":        func(p *vault.Purpose) { p.Title = strings.Repeat("x", vault.MaxTitle+1) },
		"purpose.modalities":     func(p *vault.Purpose) { p.Modalities = nil },
		"purpose.sites":          func(p *vault.Purpose) { p.Sites = nil },
		"purpose.sites[0]":       func(p *vault.Purpose) { p.Sites = []string{"a,b"} },
		"purpose.contractors":    func(p *vault.Purpose) { p.Contractors = []string{} },
		"purpose.contractors[1]": func(p *vault.Purpose) { p.Contractors = []string{"a", ""} },
		"purpose.max_ttl":        func(p *vault.Purpose) { p.MaxTTL = vault.MinTTL - time.Second },
		"purpose.max_ttl ":       func(p *vault.Purpose) { p.MaxTTL = vault.MaxTTL + time.Second },
		"purpose.max_ttl  ":      func(p *vault.Purpose) { p.MaxTTL = time.Hour + time.Millisecond },
		"purpose.max_records":    func(p *vault.Purpose) { p.MaxRecords = 0 },
		"purpose.max_records ":   func(p *vault.Purpose) { p.MaxRecords = vault.MaxQuota + 1 },
		"purpose.approvals":      func(p *vault.Purpose) { p.Approvals = 0 },
		"purpose.approvals ":     func(p *vault.Purpose) { p.Approvals = vault.MaxApprovals + 1 },
	} {
		p := good
		change(&p)
		wantInvalid(t, p.Check(), strings.TrimSpace(field))
	}
	for _, ttl := range []time.Duration{vault.MinTTL, vault.MaxTTL} {
		good.MaxTTL = ttl
		if err := good.Check(); err != nil {
			t.Errorf("max_ttl %s: %v", ttl, err)
		}
	}
}

func TestContractorCheck(t *testing.T) {
	if err := (vault.Contractor{Name: "acme", Title: "Acme Ltd."}).Check(); err != nil {
		t.Error(err)
	}
	wantInvalid(t, vault.Contractor{Name: "acme_", Title: "Acme"}.Check(), "contractor.name")
	wantInvalid(t, vault.Contractor{Name: "acme", Title: "Acme\nepoch: 9"}.Check(), "contractor.title")
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
		} {
			if rapid.IntRange(0, 9).Draw(t, "take") > 0 {
				take()
			}
		}
		an, bn := a.Normal(), b.Normal()
		same := an.Grant == bn.Grant && an.Purpose == bn.Purpose && an.Grantee == bn.Grantee && an.Epoch == bn.Epoch &&
			slices.Equal(an.Scope.Sites, bn.Scope.Sites) && slices.Equal(an.Scope.Modalities, bn.Scope.Modalities) &&
			an.Scope.From.Equal(bn.Scope.From) && an.Scope.Until.Equal(bn.Scope.Until) && an.MaxRecords == bn.MaxRecords &&
			an.Ends.Equal(bn.Ends) && an.Approvals == bn.Approvals && an.Justification == bn.Justification
		if same != (a.Text() == b.Text()) {
			t.Fatalf("same terms: %t, same text: %t\n%s\n%s", same, !same, a.Text(), b.Text())
		}
	})
}

func drawPurpose(t *rapid.T) vault.Purpose {
	names := func(label string) []string {
		return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string { return drawName(t, label) }), 1, 3).Draw(t, label+"s")
	}
	return vault.Purpose{
		Name: drawName(t, "name"), Version: rapid.IntRange(1, 12).Draw(t, "version"),
		Title:      rapid.StringMatching(`[a-z :,=]{1,12}`).Draw(t, "title"),
		Modalities: drawModalities(t), Sites: names("site"), Contractors: names("contractor"),
		MaxTTL:     time.Duration(rapid.IntRange(60, 604800).Draw(t, "ttl")) * time.Second,
		MaxRecords: rapid.Int64Range(1, vault.MaxQuota).Draw(t, "max"), Approvals: rapid.IntRange(1, 5).Draw(t, "approvals"),
	}
}

func TestPurposeTextIsCanonicalAndInjective(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawPurpose(t)
		if err := a.Check(); err != nil {
			t.Fatalf("drawn purpose: %v", err)
		}
		b := a
		b.Sites, b.Contractors, b.Modalities = shuffled(t, a.Sites), shuffled(t, a.Contractors), shuffled(t, a.Modalities)
		if a.Text() != b.Text() || a.Digest() != b.Digest() {
			t.Fatalf("the same purpose in two forms:\n%s\n%s", a.Text(), b.Text())
		}
		other := drawPurpose(t)
		switch rapid.IntRange(0, 8).Draw(t, "field") {
		case 0:
			b.Name = other.Name
		case 1:
			b.Version = other.Version
		case 2:
			b.Title = other.Title
		case 3:
			b.Modalities = other.Modalities
		case 4:
			b.Sites = other.Sites
		case 5:
			b.Contractors = other.Contractors
		case 6:
			b.MaxTTL = other.MaxTTL
		case 7:
			b.MaxRecords = other.MaxRecords
		case 8:
			b.Approvals = other.Approvals
		}
		an, bn := a.Normal(), b.Normal()
		same := an.Name == bn.Name && an.Version == bn.Version && an.Title == bn.Title && slices.Equal(an.Modalities, bn.Modalities) &&
			slices.Equal(an.Sites, bn.Sites) && slices.Equal(an.Contractors, bn.Contractors) && an.MaxTTL == bn.MaxTTL &&
			an.MaxRecords == bn.MaxRecords && an.Approvals == bn.Approvals
		if same != (a.Text() == b.Text()) {
			t.Fatalf("same purpose: %t, same text: %t\n%s\n%s", same, !same, a.Text(), b.Text())
		}
	})
}

func TestTextsArePinned(t *testing.T) {
	terms := someTerms()
	golden(t, "purpose.txt", somePurpose().Text())
	golden(t, "terms.txt", terms.Text())
	golden(t, "contractor.txt", vault.Contractor{Name: "acme", Title: "Acme Ltd.", Suspended: true, Epoch: 4}.Text())
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
