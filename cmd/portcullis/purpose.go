package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

func (a *app) purposeCommand() *cobra.Command {
	return noun("purpose", "sanctioned uses: diff, apply, list, show, withdraw",
		a.purposeDiffCommand(), a.purposeApplyCommand(), a.purposeListCommand(), a.purposeShowCommand(), a.purposeWithdrawCommand())
}

// purposeKeys documents the file of a purpose.
const purposeKeys = `The file is YAML, one purpose in each document; "-" reads standard input. Several documents are
divided by ---. A key that is not here is refused. These must be given:

  name: lane-audit                # lower-case letters, digits and single hyphens
  title: Check that lane cameras read plates right
  legal_basis: PIA 2026-4, section 3   # the law or order that allows the use
  modalities: [plate]             # face, plate or both
  sites: [anzalduas]              # no other site's records
  contractors: [acme-vision]      # no other contractor
  max_ttl: 4h                     # longest life of a grant: 1m to 7d
  max_records: 500                # different records that a grant may open
  max_bytes: 2GiB                 # of their images: 2GiB, 500MiB, 10GB or bytes
  max_rate: 60                    # images in each minute, also those opened before; a minute begins
                                  # with an image, and where two meet twice as many may leave at once
  max_record_age: 30d             # older records are out of reach, counted from the request

These may be left out; what then holds allows the least:

  linkage: false                  # true tells which face and plate are of one crossing
  time_precision: day             # exact, hour, day or none: how exactly a grantee learns times;
                                  # exact takes linkage, none keeps records together by days
  min_bucket: 10                  # so many crossings must share a site and hour, or day, for any of
                                  # them to appear; 2 and up, and 0 with linkage
  approvals: 2                    # admins who must approve a grant: 1 to 5
  approvers: any                  # or a list of names: [alice, bob, carol]
  strict: false                   # true: HashiCorp Vault counts, too. It costs speed (700 images a
                                  # second in all), so this one is not on by itself
  live: false                     # true allows grants of records that are still to be captured; false
                                  # cuts each window at the time of the request
  retention_classes: [standard]   # records of other classes are out of sight

Without linkage a record appears when its hour or day has closed, and faces and plates of one site
and day never come to one contractor, whatever its purposes. With linkage both may.`

func (a *app) purposeApplyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "apply FILE.yaml",
		Short: "sanction a purpose, or change one (two admins run it; one, if it only tightens)",
		Long: `Apply signs that the purposes in a file be sanctioned as they stand there. It shows what would
change, and how many admins that takes; where it takes two it asks on a terminal, but with --yes. A
new purpose, or one that allows more in any field, is in force when a second admin runs the same; one
that allows nothing new is in force at once. Of the version before, active grants go on, but can not be
activated again, nor can approved ones; pending requests are to be made anew.

` + purposeKeys,
		Example: "  portcullis --profile alice purpose apply lane-audit.yaml\n  portcullis --profile bob purpose apply lane-audit.yaml",
		Args:    exactly(1),
	}
	c.RunE = a.call(func(ctx context.Context, s *session, args []string) error {
		diffs, err := a.purposeDiffs(ctx, s, args[0])
		if err != nil {
			return err
		}
		return applyAll(ctx, a, diffs, func(d purposeDiff) string { return d.Name },
			func(ctx context.Context, d purposeDiff) (*pb.SignDecisionResponse, error) {
				if !a.quiet() {
					fmt.Fprint(a.stderr, d.text())
					a.showNotes(d)
				}
				if err := a.agree(ctx, d); err != nil {
					return nil, err
				}
				return s.ApplyPurpose(ctx, d.purpose)
			})
	})
	return c
}

func (a *app) purposeDiffCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "diff FILE.yaml",
		Short: "show what a file would change, field by field, and how many admins that takes",
		Long: `Diff compares the purposes in a file with those in force: each field that differs, before and
after, and whether that loosens, which takes two admins, or tightens, which takes one. It signs
nothing. "purpose apply --help" explains the file.`,
		Example: "  portcullis --profile alice purpose diff lane-audit.yaml",
		Args:    exactly(1),
	}
	c.RunE = a.call(func(ctx context.Context, s *session, args []string) error {
		diffs, err := a.purposeDiffs(ctx, s, args[0])
		if err != nil {
			return err
		}
		if a.output == jsonOutput {
			return a.showJSON(map[string]any{"results": diffs})
		}
		for _, d := range diffs {
			a.showNotes(d)
		}
		return a.showTable(func(t *grid) {
			for _, d := range diffs {
				d.show(t)
			}
		})
	})
	return c
}

// purposeDiff is how a purpose differs from the version in force.
type purposeDiff struct {
	Name    string          `json:"name"`
	InForce int             `json:"version_in_force"` // 0 when there is none
	Changes []purposeChange `json:"changes"`
	// Admins is how many must sign; 0 when nothing differs.
	Admins int `json:"admins"`
	// Notes are lines for whoever is about to sign.
	Notes []string `json:"notes"`

	purpose vault.Purpose
}

// purposeChange is one field that differs.
type purposeChange struct {
	Field   string `json:"field"`
	Before  string `json:"before"` // empty when there is no version in force
	After   string `json:"after"`
	Loosens bool   `json:"loosens"`
}

func (c purposeChange) what() string {
	if c.Loosens {
		return "loosens: two admins"
	}
	return "tightens: one"
}

// purposeDiffs reads a file and compares it with what is in force.
func (a *app) purposeDiffs(ctx context.Context, s *session, file string) ([]purposeDiff, error) {
	b, err := a.readInput(file)
	if err != nil {
		return nil, err
	}
	purposes, err := parsePurposes(file, b)
	if err != nil {
		return nil, err
	}
	inForce, err := s.purposes(ctx)
	if err != nil {
		return nil, err
	}
	out := []purposeDiff{}
	for i, p := range purposes {
		if slices.ContainsFunc(purposes[:i], func(q vault.Purpose) bool { return q.Name == p.Name }) {
			return nil, inDocument(file, i, fmt.Errorf("purpose %s stands in an earlier document, too", p.Name))
		}
		d, err := diffPurpose(p, inForce[p.Name])
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, s.notes(ctx, out)
}

// purposes gives the newest version of each purpose, by name.
func (s *session) purposes(ctx context.Context) (map[string]*pb.Purpose, error) {
	got, err := s.Admin.ListPurposes(ctx, &pb.ListPurposesRequest{})
	if err != nil {
		return nil, err
	}
	out := map[string]*pb.Purpose{}
	for _, p := range got.Purposes {
		out[bare(p.Name)] = p
	}
	return out, nil
}

// diffPurpose compares a purpose with the version in force, nil if there is none.
func diffPurpose(p vault.Purpose, known *pb.Purpose) (d purposeDiff, err error) {
	d = purposeDiff{Name: wire.Purposes + "/" + p.Name, Changes: []purposeChange{}, Notes: []string{}, purpose: p}
	if known == nil {
		d.Admins = vault.LooseningSigners
		for _, l := range purposeLines(p)[1:] { // the first, whether it is withdrawn, is none of the file's
			d.Changes = append(d.Changes, purposeChange{Field: l.key, After: l.value, Loosens: true})
		}
		return d, nil
	}
	old, err := wire.ParsePurpose(known)
	if err != nil {
		// A version of before purposes had all these fields: nobody can tell what is more.
		d.InForce, d.Admins = int(known.Version), vault.LooseningSigners
		d.Changes = append(d.Changes, purposeChange{Field: "all", Before: "of an older form", After: "as in the file", Loosens: true})
		return d, nil
	}
	old = old.Normal()
	d.InForce = old.Version
	before, after := purposeLines(old), purposeLines(p)
	for _, c := range p.Changes(old) {
		key := strings.TrimSuffix(c.Field, "_seconds")
		out := purposeChange{Field: key, Before: c.Before, After: c.After, Loosens: c.Loosens}
		for i, l := range before {
			if l.key == key {
				out.Before, out.After = l.value, after[i].value
			}
		}
		d.Changes = append(d.Changes, out)
	}
	if len(d.Changes) > 0 {
		d.Admins = 1
		if !p.Tightens(old) {
			d.Admins = vault.LooseningSigners
		}
		// What was compared is what it must replace.
		d.purpose.Replaces = old.Digest()
	}
	return d, nil
}

// show writes the difference for a person.
func (d purposeDiff) show(t *grid) {
	if d.Admins == 0 {
		t.line("%s: nothing differs from version %d, which is in force", d.Name, d.InForce)
		return
	}
	how := fmt.Sprintf("version %d would be in force", d.InForce+1)
	if d.Admins == 1 {
		t.line("%s: %s at once, by one admin: it only tightens", d.Name, how)
	} else {
		t.line("%s: %s with two admins", d.Name, how)
	}
	if d.InForce == 0 {
		t.row("  FIELD", "VALUE")
		for _, c := range d.Changes {
			t.row("  "+c.Field, c.After)
		}
		return
	}
	t.row("  FIELD", "BEFORE", "AFTER", "")
	for _, c := range d.Changes {
		t.row("  "+c.Field, c.Before, c.After, c.what())
	}
}

func (d purposeDiff) text() string {
	var b strings.Builder
	own := app{stdout: &b}
	_ = own.showTable(d.show) // into memory it can not fail
	return b.String()
}

func (a *app) purposeListCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "list the newest version of each purpose", Args: exactly(0),
		Example: "  portcullis --profile alice purpose list",
	}
	c.RunE = a.call(func(ctx context.Context, s *session, _ []string) error {
		got, err := s.Admin.ListPurposes(ctx, &pb.ListPurposesRequest{})
		if err != nil {
			return err
		}
		return a.show(got, func(t *grid) {
			t.row("PURPOSE", "VERSION", "STATE", "MODALITIES", "LINKAGE", "SITES", "CONTRACTORS", "MAX TTL", "MAX RECORDS", "APPROVALS", "TITLE")
			for _, p := range got.Purposes {
				var orgs []string
				for _, c := range p.Contractors {
					orgs = append(orgs, bare(c))
				}
				state, linkage := "in force", "no"
				if p.Withdrawn {
					state = "withdrawn"
				}
				if p.Linkage {
					linkage = "yes"
				}
				t.row(bare(p.Name), p.Version, state, modalities(p.Modalities), linkage, strings.Join(p.Sites, ","), strings.Join(orgs, ","),
					durationText(p.MaxTtl.AsDuration()), p.MaxRecords, p.Approvals, p.Title)
			}
		})
	})
	return c
}

func (a *app) purposeShowCommand() *cobra.Command {
	c := a.ofPurposes(&cobra.Command{
		Use: "show NAME", Short: "show all that a purpose allows", Args: exactly(1),
		Long:    `Show gives each field of a purpose's newest version. "purpose apply --help" explains them.`,
		Example: "  portcullis --profile alice purpose show lane-audit",
	})
	c.RunE = a.call(func(ctx context.Context, s *session, args []string) error {
		m, err := s.purpose(ctx, args[0])
		if err != nil {
			return err
		}
		return a.show(m, func(t *grid) {
			t.row("purpose", bare(m.Name))
			t.row("version", m.Version)
			p, err := wire.ParsePurpose(m)
			if err != nil {
				t.line("it is of an older form: nothing is granted for it until two admins apply it anew")
				return
			}
			for _, l := range purposeLines(p) {
				t.row(l.key, l.value)
			}
		})
	})
	return c
}

// purpose gives the newest version of one purpose, named with or without its collection.
func (s *session) purpose(ctx context.Context, name string) (*pb.Purpose, error) {
	full, err := slugName(wire.Purposes, "purpose", name)
	if err != nil {
		return nil, err
	}
	all, err := s.purposes(ctx)
	if err != nil {
		return nil, err
	}
	if p := all[bare(full)]; p != nil {
		return p, nil
	}
	return nil, vault.E(vault.NotFound, vault.ReasonPurposeUnknown, "no purpose %q is sanctioned", bare(full))
}

func (a *app) purposeWithdrawCommand() *cobra.Command {
	c := a.ofPurposes(&cobra.Command{
		Use:   "withdraw NAME",
		Short: "withdraw a purpose: all its grants end, at once (one admin)",
		Long: `Withdraw signs that a purpose be withdrawn. One admin is enough, no question is asked, and it is in
force at once: nothing is granted for it any more, its grants end, and when the answer comes nothing
of them is under way. The grants never come back. "purpose apply" by two admins sanctions the
purpose anew.`,
		Example: "  portcullis --profile alice purpose withdraw lane-audit",
		Args:    exactly(1),
	})
	c.RunE = a.call(func(ctx context.Context, s *session, args []string) error {
		m, err := s.purpose(ctx, args[0])
		if err != nil {
			return err
		}
		p, err := wire.ParsePurpose(m)
		if err != nil {
			return err
		}
		got, err := s.WithdrawPurpose(ctx, p)
		if vault.ReasonOf(err) == vault.ReasonUnchanged {
			if a.output == jsonOutput {
				return a.showJSON(applied{Name: m.Name, Unchanged: true})
			}
			return a.showTable(func(t *grid) { t.line("purpose %s: nothing to do: withdrawn already, version %d", p.Name, m.Version) })
		}
		if err != nil {
			return err
		}
		return a.show(got, func(t *grid) {
			if got.Decision.GetState() != pb.Decision_STATE_EFFECTIVE {
				t.line("purpose %s: %s", p.Name, howFar(got.Decision))
				return
			}
			t.line("purpose %s is withdrawn, version %s; %s ended", p.Name, bodyField(got.Decision.Body, "version"), count(got.GrantsEnded, "grant"))
			t.line("%s", barrier(got.Barrier))
		})
	})
	return c
}
