package vault_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portcullis/portcullis/vault"
)

// TestPurposeIsLaw: each field that is judged by terms alone, violated alone, has a reason of its
// own and nothing else speaks against the terms.
func TestPurposeIsLaw(t *testing.T) {
	again := func(p *vault.Purpose, t *vault.Terms) { t.Purpose.Digest = p.Digest() }
	for _, c := range []struct {
		name   string
		org    string
		change func(*vault.Purpose, *vault.Terms)
		want   vault.Reason // "" when allowed
	}{
		{"all at their limit", "acme", func(*vault.Purpose, *vault.Terms) {}, ""},
		{"less of everything", "agency-lab", func(_ *vault.Purpose, t *vault.Terms) {
			t.Scope.Sites, t.MaxRecords, t.MaxBytes, t.Approvals, t.Ends = []string{"bridge-2"}, 1, 1, 5, asked.Add(time.Minute)
			t.Scope.From, t.Scope.Until = asked.Truncate(time.Hour), asked.Truncate(time.Hour).Add(time.Hour)
		}, ""},
		{"lists in another order", "acme", func(p *vault.Purpose, _ *vault.Terms) {
			slices.Reverse(p.Sites)
			p.Contractors = []string{"agency-lab", "acme", "acme"}
		}, ""},
		{"live, where it is allowed", "acme", func(p *vault.Purpose, t *vault.Terms) {
			p.Live = true
			again(p, t)
			t.Scope = vault.PrecisionHour.LiveScope(t.Scope, asked, t.Ends)
		}, ""},
		{"tomorrow, where live is allowed", "acme", func(p *vault.Purpose, t *vault.Terms) {
			p.Live, t.Scope.Until = true, date(2026, 3, 6)
			again(p, t)
		}, ""},
		{"both modalities, with linkage", "acme", func(p *vault.Purpose, t *vault.Terms) {
			p.Linkage, p.MinBucket, p.Modalities = true, 0, []vault.Modality{vault.Face, vault.Plate}
			t.Scope.Modalities = p.Modalities
			again(p, t)
		}, ""},

		{"withdrawn", "acme", func(p *vault.Purpose, t *vault.Terms) { p.Withdrawn = true; again(p, t) }, vault.ReasonPurposeWithdrawn},
		{"another version", "acme", func(_ *vault.Purpose, t *vault.Terms) { t.Purpose.Version++ }, vault.ReasonPurposeChanged},
		{"another digest", "acme", func(_ *vault.Purpose, t *vault.Terms) { t.Purpose.Digest[0] ^= 1 }, vault.ReasonPurposeChanged},
		{"the purpose was widened since", "acme", func(p *vault.Purpose, _ *vault.Terms) { p.MaxRecords++ }, vault.ReasonPurposeChanged},
		{"another title", "acme", func(p *vault.Purpose, _ *vault.Terms) { p.Title += "." }, vault.ReasonPurposeChanged},
		{"another legal basis", "acme", func(p *vault.Purpose, _ *vault.Terms) { p.LegalBasis += "." }, vault.ReasonPurposeChanged},
		{"another contractor", "acme-2", func(*vault.Purpose, *vault.Terms) {}, vault.ReasonPurposeContractor},
		{"no contractor", "", func(*vault.Purpose, *vault.Terms) {}, vault.ReasonPurposeContractor},
		{"another modality", "acme", func(_ *vault.Purpose, t *vault.Terms) { t.Scope.Modalities = []vault.Modality{vault.Face} }, vault.ReasonPurposeModality},
		{"both modalities, without linkage", "acme", func(p *vault.Purpose, t *vault.Terms) {
			p.Modalities = []vault.Modality{vault.Face, vault.Plate}
			t.Scope.Modalities = p.Modalities
			again(p, t)
		}, vault.ReasonPurposeLinkage},
		{"one site more", "acme", func(_ *vault.Purpose, t *vault.Terms) { t.Scope.Sites = append(t.Scope.Sites, "bridge") }, vault.ReasonPurposeSite},
		{"a microsecond more", "acme", func(_ *vault.Purpose, t *vault.Terms) { t.Ends = t.Ends.Add(time.Microsecond) }, vault.ReasonPurposeDuration},
		{"one record more", "acme", func(_ *vault.Purpose, t *vault.Terms) { t.MaxRecords++ }, vault.ReasonPurposeQuota},
		{"one byte more", "acme", func(_ *vault.Purpose, t *vault.Terms) { t.MaxBytes++ }, vault.ReasonPurposeBytes},
		{"an hour older", "acme", func(_ *vault.Purpose, t *vault.Terms) { t.Scope.From = t.Scope.From.Add(-time.Hour) }, vault.ReasonPurposeAge},
		{"from within an hour", "acme", func(_ *vault.Purpose, t *vault.Terms) { t.Scope.From = t.Scope.From.Add(time.Microsecond) }, vault.ReasonPurposeWindow},
		{"until within an hour", "acme", func(_ *vault.Purpose, t *vault.Terms) { t.Scope.Until = t.Scope.Until.Add(-time.Minute) }, vault.ReasonPurposeWindow},
		{"an hour to come", "acme", func(_ *vault.Purpose, t *vault.Terms) { t.Scope.Until = t.Scope.Until.Add(time.Hour) }, vault.ReasonPurposeLive},
		{"live", "acme", func(_ *vault.Purpose, t *vault.Terms) {
			t.Scope = vault.PrecisionHour.LiveScope(t.Scope, asked, t.Ends)
		}, vault.ReasonPurposeLive},
		{"one approval less", "acme", func(_ *vault.Purpose, t *vault.Terms) { t.Approvals-- }, vault.ReasonApprovalsMissing},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, terms := somePurpose(), someTerms()
			c.change(&p, &terms)
			refused := p.Refusals(c.org, terms, asked)
			if c.want == "" {
				if len(refused) > 0 {
					t.Error(refused)
				}
				return
			}
			wantReason(t, p.Allows(c.org, terms, asked), vault.Denied, c.want)
			if len(refused) != 1 {
				t.Errorf("that is not all: %v", refused)
			}
		})
	}
}

func TestRefusalsAreAllThatSpeaksAgainst(t *testing.T) {
	p, terms := somePurpose(), someTerms()
	terms.MaxRecords++
	terms.MaxBytes++
	terms.Scope.Sites = []string{"south", "west"}
	var got []vault.Reason
	for _, err := range p.Refusals("nobody", terms, asked) {
		got = append(got, vault.ReasonOf(err))
	}
	want := []vault.Reason{
		vault.ReasonPurposeContractor, vault.ReasonPurposeSite, vault.ReasonPurposeSite, vault.ReasonPurposeQuota, vault.ReasonPurposeBytes,
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestAllowsRecordAndApprover(t *testing.T) {
	p := somePurpose()
	r := vault.Record{Class: "upkeep"}
	if err := p.AllowsRecord(r); err != nil || !p.Sees(r) {
		t.Error(err)
	}
	r.Class = "evidence"
	wantReason(t, p.AllowsRecord(r), vault.Denied, vault.ReasonPurposeClass)
	if p.Sees(r) {
		t.Error("it sees records of another class")
	}
	if err := p.AllowsApprover(vault.Caller{Name: "eve"}); err != nil {
		t.Error(err)
	}
	wantReason(t, p.AllowsApprover(vault.Caller{Name: "mallory"}), vault.Denied, vault.ReasonPurposeApprover)
	p.Approvers = nil
	if err := p.AllowsApprover(vault.Caller{Name: "mallory"}); err != nil {
		t.Error("where none are named, not any may:", err)
	}
}

func TestConflictRule(t *testing.T) {
	day := func(d int) time.Time { return date(2026, 3, d) }
	faces, plates, both := []vault.Modality{vault.Face}, []vault.Modality{vault.Plate}, []vault.Modality{vault.Face, vault.Plate}
	held := vault.Claim{Contractor: "acme", Grant: vault.ID{1}, Purpose: "upkeep", Sites: []string{"north", "south"}, Modalities: plates, From: day(2), Until: day(4)}
	for _, c := range []struct {
		name   string
		want   vault.Claim
		change func(*vault.Claim)
		free   bool
	}{
		{"the other half", vault.Claim{Purpose: "faces", Sites: []string{"south"}, Modalities: faces, From: day(3), Until: day(5)}, nil, false},
		{"the same half", vault.Claim{Purpose: "faces", Sites: []string{"south"}, Modalities: plates, From: day(3), Until: day(5)}, nil, true},
		{"another site", vault.Claim{Purpose: "faces", Sites: []string{"west"}, Modalities: faces, From: day(3), Until: day(5)}, nil, true},
		{"the day before", vault.Claim{Purpose: "faces", Sites: []string{"south"}, Modalities: faces, From: day(1), Until: day(2)}, nil, true},
		{"the day after", vault.Claim{Purpose: "faces", Sites: []string{"south"}, Modalities: faces, From: day(4), Until: day(5)}, nil, true},
		{"another hour of a day", vault.Claim{Purpose: "faces", Sites: []string{"south"}, Modalities: faces, From: day(3).Add(23 * time.Hour), Until: day(5)}, func(h *vault.Claim) { h.Until = day(3).Add(time.Hour) }, false},
		{"a zone in which it is another day", vault.Claim{Purpose: "faces", Sites: []string{"south"}, Modalities: faces, From: day(4).In(time.FixedZone("", -7200)), Until: day(5)}, nil, true},
		{"one purpose without linkage", vault.Claim{Purpose: "upkeep", Sites: []string{"south"}, Modalities: faces, From: day(3), Until: day(5)}, nil, false},
		{"one purpose with linkage", vault.Claim{Purpose: "upkeep", Linkage: true, Sites: []string{"south"}, Modalities: both, From: day(3), Until: day(5)}, func(h *vault.Claim) { h.Linkage = true }, true},
		{"linkage by now, not when it was held", vault.Claim{Purpose: "upkeep", Linkage: true, Sites: []string{"south"}, Modalities: both, From: day(3), Until: day(5)}, nil, false},
		{"linkage then, not by now", vault.Claim{Purpose: "upkeep", Sites: []string{"south"}, Modalities: faces, From: day(3), Until: day(5)}, func(h *vault.Claim) { h.Linkage = true }, false},
		{"two purposes with linkage", vault.Claim{Purpose: "faces", Linkage: true, Sites: []string{"south"}, Modalities: faces, From: day(3), Until: day(5)}, func(h *vault.Claim) { h.Linkage = true }, false},
		{"itself", vault.Claim{Grant: vault.ID{1}, Purpose: "upkeep", Sites: []string{"south"}, Modalities: both, From: day(3), Until: day(5)}, nil, true},
		{"what was opened before, not of a grant", vault.Claim{Purpose: "faces", Sites: []string{"south"}, Modalities: faces, From: day(3), Until: day(5)}, func(h *vault.Claim) { h.Grant = vault.ID{} }, false},
		{"an affiliate's", vault.Claim{Purpose: "faces", Sites: []string{"south"}, Modalities: faces, From: day(3), Until: day(5)}, func(h *vault.Claim) { h.Contractor = "acme-europe" }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := held
			if c.change != nil {
				c.change(&h)
			}
			harmless := vault.Claim{Purpose: "x", Sites: []string{"east"}, Modalities: both, From: day(1), Until: day(9)}
			err := vault.ConflictRule(c.want, []vault.Claim{harmless, h})
			if c.free {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantReason(t, err, vault.Denied, vault.ReasonConflictRule)
		})
	}
}

// TestConflictRuleByEachDay: the rule says what one finds who walks through all sites, days and
// modalities.
func TestConflictRuleByEachDay(t *testing.T) {
	start := date(2026, 3, 1)
	claim := rapid.Custom(func(t *rapid.T) vault.Claim {
		c := vault.Claim{
			Contractor: "acme", Purpose: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "purpose"), Linkage: rapid.Bool().Draw(t, "linkage"),
			Sites:      rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"n", "s", "w"}), 1, 3, rapid.ID[string]).Draw(t, "sites"),
			Modalities: drawModalities(t),
			From:       start.Add(time.Duration(rapid.IntRange(0, 5*24).Draw(t, "from")) * time.Hour),
		}
		c.Until = c.From.Add(time.Duration(rapid.IntRange(1, 60).Draw(t, "hours")) * time.Hour)
		if rapid.Bool().Draw(t, "held") {
			c.Grant = vault.ID{byte(rapid.IntRange(1, 3).Draw(t, "grant"))}
		}
		return c
	})
	type cell struct {
		site string
		day  int
		m    vault.Modality
	}
	cells := func(c vault.Claim) map[cell]bool {
		out := map[cell]bool{}
		for h := c.From; h.Before(c.Until); h = h.Add(time.Hour) {
			for _, s := range c.Sites {
				for _, m := range c.Modalities {
					out[cell{s, int(h.Sub(start) / (24 * time.Hour)), m}] = true
				}
			}
		}
		return out
	}
	rapid.Check(t, func(t *rapid.T) {
		want, held := claim.Draw(t, "want"), rapid.SliceOfN(claim, 0, 4).Draw(t, "held")
		forbidden := false
		for _, h := range held {
			joined := h.Purpose == want.Purpose && h.Linkage && want.Linkage
			if joined || (h.Grant != (vault.ID{}) && h.Grant == want.Grant) {
				continue
			}
			there := cells(h)
			for c := range cells(want) {
				if c.m == vault.Face {
					c.m = vault.Plate
				} else {
					c.m = vault.Face
				}
				forbidden = forbidden || there[c]
			}
		}
		if err := vault.ConflictRule(want, held); (err != nil) != forbidden {
			t.Fatalf("%v; forbidden: %t", err, forbidden)
		}
	})
}
