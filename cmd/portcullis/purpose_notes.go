package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

// notes says what an admin should know of a file before it is signed: contractors of it that are
// not admitted, and that another text of the same purpose waits for a second admin.
func (s *session) notes(ctx context.Context, diffs []purposeDiff) error {
	orgs, err := s.Admin.ListContractors(ctx, &pb.ListContractorsRequest{})
	if err != nil {
		return err
	}
	status, err := s.Identity.GetStatus(ctx, &pb.GetStatusRequest{})
	if err != nil {
		return err
	}
	admitted := map[string]bool{}
	for _, c := range orgs.Contractors {
		admitted[bare(c.Name)] = true
	}
	for i := range diffs {
		d := &diffs[i]
		for _, c := range d.purpose.Contractors {
			if !admitted[c] {
				d.Notes = append(d.Notes, fmt.Sprintf("warning: contractor %s is not admitted", c))
			}
		}
		if d.Admins > 0 {
			d.Notes = append(d.Notes, otherProposal(d.purpose, status.GetWork().GetOpenDecisions())...)
		}
	}
	return nil
}

// otherProposal says how p differs from the newest proposal in place of the same version, unless
// one that waits is p itself: then the next signature is for that.
func otherProposal(p vault.Purpose, open []*pb.Decision) (out []string) {
	mine := bodyLines(p.Text())
	for _, d := range open {
		theirs := bodyLines(d.GetBody())
		if d.GetKind() != string(vault.ApplyPurpose) || theirs["purpose"] != p.Name || theirs["replaces"] != mine["replaces"] {
			continue
		}
		var fields []string
		for line := range strings.Lines(p.Text()) {
			key, _, _ := strings.Cut(line, ": ")
			if key != "version" && theirs[key] != mine[key] {
				field, before := fieldText(key, theirs[key])
				_, after := fieldText(key, mine[key])
				fields = append(fields, fmt.Sprintf("  %s: %s there, %s here", field, before, after))
			}
		}
		if len(fields) == 0 {
			return nil
		}
		if out == nil {
			out = append([]string{"warning: differs from what " + proposer(d) + ", and would be a decision of its own:"}, fields...)
		}
	}
	return out
}

// proposer says who signed an open decision first, and when.
func proposer(d *pb.Decision) string {
	if len(d.GetSignatures()) == 0 {
		return "an admin proposed, and did not sign"
	}
	first := d.Signatures[0]
	return fmt.Sprintf("%s proposed at %s", person(first.Signer), when(first.SignTime))
}

// bodyLines gives the lines of a decision's body, by key.
func bodyLines(body string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(body) {
		if key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": "); ok {
			out[key] = value
		}
	}
	return out
}

// fieldText writes a line of a purpose's canonical form as its file would have it.
func fieldText(key, value string) (field, text string) {
	n, err := strconv.ParseInt(value, 10, 64)
	field, seconds := strings.CutSuffix(key, "_seconds")
	switch {
	case err == nil && seconds:
		return field, durationText(time.Duration(n) * time.Second)
	case err == nil && key == "max_bytes":
		return field, sizeText(n)
	case value == "" && key == "approvers":
		return field, anybody
	case key == "title" || key == "legal_basis":
		return field, value
	}
	return field, strings.ReplaceAll(value, ",", ", ") // as purposeLines writes lists
}

// showNotes writes the notes to standard error, for a person.
func (a *app) showNotes(d purposeDiff) {
	for _, n := range d.Notes {
		fmt.Fprintln(a.stderr, printable(n))
	}
}

// agree asks a person at a terminal before a purpose is signed that may come to allow more. A
// script has agreed by running the command.
func (a *app) agree(ctx context.Context, d purposeDiff) error {
	if d.Admins < vault.LooseningSigners || !a.asks {
		return nil
	}
	return a.confirm(ctx, "Sign?")
}

// leaveOvertaken leaves out of an admin's work what nobody can put in force any more.
func (s *session) leaveOvertaken(ctx context.Context, w *pb.Work) error {
	if !slices.ContainsFunc(w.GetOpenDecisions(), func(d *pb.Decision) bool { return d.GetKind() == string(vault.ApplyPurpose) }) {
		return nil
	}
	purposes, err := s.purposes(ctx)
	if vault.KindOf(err) == vault.NotOffered {
		return nil // a process without the admin role does not tell of purposes
	}
	if err != nil {
		return err
	}
	left := stillPossible(w.OpenDecisions, purposes)
	w.OpenDecisionCount -= int64(len(w.OpenDecisions) - len(left))
	w.OpenDecisions = left
	return nil
}

// stillPossible leaves out the open decisions on purposes whose version in force is not any more
// the one that they replace: no signature can put them in force.
func stillPossible(open []*pb.Decision, purposes map[string]*pb.Purpose) []*pb.Decision {
	return slices.DeleteFunc(slices.Clone(open), func(d *pb.Decision) bool {
		if d.GetKind() != string(vault.ApplyPurpose) {
			return false
		}
		known := purposes[bodyField(d.Body, "purpose")]
		if known == nil {
			return false
		}
		p, err := wire.ParsePurpose(known)
		return err == nil && bodyField(d.Body, "replaces") != p.Normal().Digest().String()
	})
}
