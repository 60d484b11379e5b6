package main

import (
	"bufio"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

// proposal is an open decision on p, signed by alice.
func proposal(p vault.Purpose) *pb.Decision {
	return &pb.Decision{
		Kind: string(vault.ApplyPurpose), Body: p.Text(),
		Signatures: []*pb.Signature{{Signer: "spiffe://agency.example/admin/alice", SignTime: timestamppb.New(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))}},
	}
}

func samplePurpose(t *testing.T) vault.Purpose {
	t.Helper()
	got, err := parsePurposes("p.yaml", []byte(leastPurpose))
	if err != nil {
		t.Fatal(err)
	}
	return got[0]
}

// TestAnotherTextWaits: the second admin learns that it is not what the first one signed.
func TestAnotherTextWaits(t *testing.T) {
	mine := samplePurpose(t)
	same, other := mine, mine
	same.Version, other.Version = 1, 1
	other.MaxTTL, other.MaxBytes, other.Approvers, other.Sites = 48*time.Hour, 1<<30, []string{"ann", "bob"}, []string{"a", "b"}
	want := []string{
		"warning: differs from what alice proposed at 2026-03-01T12:00:00Z, and would be a decision of its own:",
		"  sites: a, b there, anzalduas here", "  max_ttl: 2d there, 4h here", "  max_bytes: 1GiB there, 1 here", "  approvers: ann, bob there, any here",
	}
	if got := otherProposal(mine, []*pb.Decision{proposal(other)}); !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	elsewhere, overtaken, kind := other, other, proposal(other)
	elsewhere.Name, overtaken.Replaces, kind.Kind = "another", vault.DigestOf([]byte("x")), "contractor.apply"
	for name, open := range map[string][]*pb.Decision{
		"it waits itself": {proposal(other), proposal(same)}, "none": nil, "another purpose": {proposal(elsewhere)},
		"an overtaken one": {proposal(overtaken)}, "another kind": {kind},
	} {
		if got := otherProposal(mine, open); got != nil {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestOvertakenProposalsAreNoWork: but what may still come is.
func TestOvertakenProposalsAreNoWork(t *testing.T) {
	inForce := samplePurpose(t)
	inForce.Version = 2
	next, late, first := inForce, inForce, inForce
	next.Version, next.Replaces = 3, inForce.Digest()
	late.Version, late.Replaces = 2, vault.DigestOf([]byte("version 1"))
	first.Name, first.Version = "new", 1
	contractor := &pb.Decision{Kind: string(vault.ApplyContractor), Body: "contractor: x\n"}
	open := []*pb.Decision{proposal(next), proposal(late), proposal(first), contractor}
	got := stillPossible(open, map[string]*pb.Purpose{inForce.Name: wire.Purpose(inForce)})
	if want := []*pb.Decision{open[0], open[2], open[3]}; !slices.Equal(got, want) {
		t.Errorf("%d are left", len(got))
	}
}

// TestPurposeApplyAsks at a terminal, where it takes two.
func TestPurposeApplyAsks(t *testing.T) {
	for _, c := range []struct {
		admins    int
		asks, yes bool
		answer    string
		signs     bool
	}{
		{2, true, false, "y\n", true}, {2, true, false, "n\n", false}, {2, true, false, "", false},
		{2, true, true, "", true}, {2, false, false, "", true}, {1, true, false, "", true}, {0, true, false, "", true},
	} {
		a := &app{stdin: bufio.NewReader(strings.NewReader(c.answer)), stderr: io.Discard, asks: c.asks, yes: c.yes}
		if err := a.agree(t.Context(), purposeDiff{Admins: c.admins}); (err == nil) != c.signs || (err != nil && !errors.Is(err, errNotConfirmed)) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
