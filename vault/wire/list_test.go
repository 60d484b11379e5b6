package wire_test

import (
	"reflect"
	"testing"
	"time"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

// TestRecordLists: what an admin may say of a list is read back; what names more than a list may
// have, or another thing than a record, is refused.
func TestRecordLists(t *testing.T) {
	l := vault.RecordList{ID: vault.NewID(), Contractor: "acme", Records: []vault.ID{vault.NewID(), vault.NewID()}, By: "spiffe://example.org/admin/ann", At: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)}
	out := wire.RecordList(l)
	if out.Name != "lists/"+l.ID.String() || out.CreatedBy != l.By || !out.CreateTime.AsTime().Equal(l.At) {
		t.Errorf("written as %v", out)
	}
	got, err := wire.ParseRecordList(out)
	if err != nil || got.Contractor != l.Contractor || !reflect.DeepEqual(got.Records, l.Records) || got.ID != (vault.ID{}) || got.By != "" {
		t.Errorf("%+v, %v", got, err)
	}
	many := &pb.RecordList{Contractor: "contractors/acme"}
	for range vault.MaxRecordList + 1 {
		many.Records = append(many.Records, out.Records[0])
	}
	for name, in := range map[string]*pb.RecordList{
		"none": nil, "no contractor": {Records: out.Records}, "too many": many,
		"a grant": {Contractor: "contractors/acme", Records: []string{"grants/" + l.ID.String()}},
	} {
		if _, err := wire.ParseRecordList(in); vault.KindOf(err) != vault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
