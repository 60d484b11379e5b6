package wire

import (
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

// Preview writes what approvers should know of a grant. It is for admins: it names records.
func Preview(p vault.Preview) *pb.Preview {
	out := &pb.Preview{
		Records: p.Records, Crossings: p.Crossings, Days: p.Days, RecordsWaiting: p.Waiting, RecordsHidden: p.Hidden,
		Refusals: Refusals(p.Refusals), Truncated: p.Truncated,
	}
	for _, c := range p.Sites {
		out.Sites = append(out.Sites, &pb.SitePreview{
			Site: c.Site, Modality: Modality(c.Modality), Records: c.Records, Crossings: c.Crossings, Days: c.Days,
		})
	}
	for _, g := range p.Held {
		out.Held = append(out.Held, &pb.HeldGrant{
			Grant: Name(Grants, g.Grant), Contractor: Contractors + "/" + g.Contractor, Purpose: Purposes + "/" + g.Purpose.Name,
			Scope: Scope(g.Scope), RecordsReleased: g.Released, MaxRecords: g.MaxRecords, EndTime: timestamppb.New(g.Ends),
		})
	}
	for _, o := range p.Opened {
		out.Opened = append(out.Opened, &pb.Opened{
			Contractor: Contractors + "/" + o.Contractor, Purpose: Purposes + "/" + o.Purpose, Site: o.Site, Modality: Modality(o.Modality),
			Days: o.Days, FirstDay: o.First.UTC().Format(time.DateOnly), LastDay: o.Last.UTC().Format(time.DateOnly),
		})
	}
	if p.Earlier.Grant != (vault.ID{}) {
		out.EarlierGrant = Name(Grants, p.Earlier.Grant)
	}
	for _, c := range p.Changes {
		out.Changes = append(out.Changes, &pb.Change{Field: c.Field, Before: c.Before, After: c.After})
	}
	return out
}

// Refusals writes what speaks against a request. Of each there is what a caller may know: not
// its cause.
func Refusals(in []error) (out []*pb.Refusal) {
	for _, err := range in {
		r := &pb.Refusal{Reason: string(vault.ReasonInternal), Message: "internal error"}
		var e *vault.Error
		if errors.As(err, &e) && e.Kind != vault.Internal {
			r.Reason, r.Message = string(e.Reason), e.Message
		}
		out = append(out, r)
	}
	return out
}
