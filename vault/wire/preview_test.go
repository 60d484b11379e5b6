package wire_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

// TestPreview: each fact of a preview stands where the API has it.
func TestPreview(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	held, earlier := vault.Grant{Contractor: "beta", Released: 4}, vault.Grant{}
	held.Grant, held.Purpose.Name, held.MaxRecords, held.Ends = vault.NewID(), "faces", 9, at
	held.Scope = vault.Scope{Sites: []string{"north"}, Modalities: []vault.Modality{vault.Face}, From: at.Add(-time.Hour), Until: at}
	earlier.Grant = vault.NewID()
	got := wire.Preview(vault.Preview{
		Covered: vault.Covered{Records: 1, Crossings: 2, Days: 3}, Waiting: 4, Hidden: 5, Truncated: true,
		Sites:   []vault.Covered{{Site: "north", Modality: vault.Plate, Records: 6, Crossings: 7, Days: 8}},
		Held:    []vault.Grant{held},
		Opened:  []vault.Opened{{Contractor: "beta", Purpose: "faces", Site: "south", Modality: vault.Face, Days: 2, First: at.AddDate(0, 0, -1), Last: at}},
		Earlier: earlier, Changes: []vault.Change{{Field: "sites", Before: "north", After: "south"}},
		Refusals: []error{vault.E(vault.Denied, vault.ReasonPurposeSite, "no").Because(errors.New("a secret")), errors.New("another secret")},
	})
	want := &pb.Preview{
		Records: 1, Crossings: 2, Days: 3, RecordsWaiting: 4, RecordsHidden: 5, Truncated: true,
		Sites: []*pb.SitePreview{{Site: "north", Modality: pb.Modality_MODALITY_PLATE, Records: 6, Crossings: 7, Days: 8}},
		Held: []*pb.HeldGrant{{
			Grant: "grants/" + held.Grant.String(), Contractor: "contractors/beta", Purpose: "purposes/faces", RecordsReleased: 4, MaxRecords: 9, EndTime: timestamppb.New(at),
			Scope: &pb.Scope{Sites: []string{"north"}, Modalities: []pb.Modality{pb.Modality_MODALITY_FACE}, StartTime: timestamppb.New(at.Add(-time.Hour)), EndTime: timestamppb.New(at)},
		}},
		Opened: []*pb.Opened{{
			Contractor: "contractors/beta", Purpose: "purposes/faces", Site: "south", Modality: pb.Modality_MODALITY_FACE, Days: 2, FirstDay: "2026-03-03", LastDay: "2026-03-04",
		}},
		EarlierGrant: "grants/" + earlier.Grant.String(), Changes: []*pb.Change{{Field: "sites", Before: "north", After: "south"}},
		Refusals: []*pb.Refusal{{Reason: "PURPOSE_SITE", Message: "no"}, {Reason: "INTERNAL", Message: "internal error"}},
	}
	if !proto.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if strings.Contains(got.String(), "secret") {
		t.Error("a cause stands in it")
	}
	if none := wire.Preview(vault.Preview{}); !proto.Equal(none, &pb.Preview{}) {
		t.Errorf("of nothing: %v", none)
	}
}

// TestWanted: what a request names is read back as it was, of each kind of scope.
func TestWanted(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for name, s := range map[string]vault.Scope{
		"window": {Sites: []string{"north"}, Modalities: []vault.Modality{vault.Face}, From: at, Until: at.Add(time.Hour)},
		"live":   {Sites: []string{"north"}, Modalities: []vault.Modality{vault.Face}, Live: true},
		"list":   {List: vault.NewID()},
	} {
		got, err := wire.ParseWanted(wire.Wanted(s))
		if err != nil || !proto.Equal(wire.Scope(got), wire.Scope(s)) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}
