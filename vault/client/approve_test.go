package client

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

// oneGrant is a service that shows one grant.
type oneGrant struct {
	pb.GrantServiceClient
	shown *pb.GetGrantResponse
}

func (o oneGrant) GetGrant(context.Context, *pb.GetGrantRequest, ...grpc.CallOption) (*pb.GetGrantResponse, error) {
	return o.shown, nil
}

// TestApproveShowsWhatIsSigned: an admin confirms the purpose that the text names by its digest,
// and no other one.
func TestApproveShowsWhatIsSigned(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	p := vault.Purpose{
		Name: "tuning", Version: 2, Title: "Tune the matcher", LegalBasis: "Order 12", Modalities: []vault.Modality{vault.Plate}, Linkage: true,
		Sites: []string{"north"}, Contractors: []string{"acme"}, MaxTTL: time.Hour, MaxRecords: 10, MaxBytes: 1 << 20, MaxRate: 60,
		MaxRecordAge: 24 * time.Hour, Precision: vault.PrecisionExact, Approvals: 2, Retention: []string{vault.DefaultClass},
	}.Normal()
	g := vault.Grant{State: vault.GrantPending, Contractor: "acme", RequestedAt: at, Justification: "WO-1"}
	g.Grant, g.Grantee, g.Epoch, g.Approvals, g.MaxRecords, g.MaxBytes, g.Ends = vault.NewID(), "spiffe://vault.test/contractor/acme/x", 1, 2, 5, 1<<20, at.Add(time.Hour)
	g.Purpose, g.Justification = vault.PurposeRef{Name: p.Name, Version: p.Version, Digest: p.Digest()}, "WO-1"
	g.Terms.Justification = vault.DigestOf([]byte(g.Justification))
	g.Scope = vault.Scope{Sites: p.Sites, Modalities: p.Modalities, From: at.Add(-time.Hour), Until: at}
	shown := &pb.GetGrantResponse{Grant: wire.GrantFor(vault.Caller{Role: vault.RoleAdmin}, g, at), PurposeTerms: wire.Purpose(p), Preview: &pb.Preview{}}
	name, stop := wire.Name(wire.Grants, g.Grant), errors.New("not confirmed")
	approve := func() (got *pb.GetGrantResponse, text string, err error) {
		c := &Client{Grants: oneGrant{shown: shown}}
		_, err = c.Approve(t.Context(), name, func(in *pb.GetGrantResponse, signed string) error {
			got, text = in, signed
			return stop
		})
		return got, text, err
	}
	if got, text, err := approve(); !errors.Is(err, stop) || got.GetPurposeTerms().GetLegalBasis() != p.LegalBasis || text != g.Decision().Text() {
		t.Errorf("shown are %v and %q: %v", got, text, err)
	}
	shown.PurposeTerms.Title = "Look at faces"
	if got, _, err := approve(); got != nil || vault.KindOf(err) != vault.DataLoss {
		t.Errorf("a purpose that is not the one of the terms is shown: %v", err)
	}
}
