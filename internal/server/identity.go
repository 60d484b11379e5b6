package server

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

// Part is something that the service stands on, as it was when the service last looked.
type Part struct {
	Name    string
	State   PartState
	Checked time.Time
	Reason  vault.Reason // what calls that need it give, while it is not up
}

// PartState is how a part is.
type PartState string

// The states of parts. The zero value says that nobody has looked yet.
const (
	PartUp     PartState = "up"
	PartDown   PartState = "down"
	PartSealed PartState = "sealed" // HashiCorp Vault answers, and is sealed
)

var partStates = map[PartState]pb.Part_State{
	PartUp: pb.Part_STATE_UP, PartDown: pb.Part_STATE_DOWN, PartSealed: pb.Part_STATE_SEALED,
}

// maxOpen is how many open decisions one answer names.
const maxOpen = 20

type identityAPI struct {
	pb.UnimplementedIdentityServiceServer
	*api
}

// WhoAmI tells callers who they are.
func (s *identityAPI) WhoAmI(ctx context.Context, _ *pb.WhoAmIRequest) (*pb.WhoAmIResponse, error) {
	c, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.WhoAmIResponse{Id: c.ID, Role: string(c.Role), CertificateDigest: c.Cert.String(), Version: s.Version}, nil
}

// GetStatus tells a caller of its standing and of what the service stands on. Who is refused
// everywhere else learns that, and the time and version that any answer could carry; the
// rest is for those in good standing, and for everybody while the database is away, since
// then nothing else says so.
func (s *identityAPI) GetStatus(ctx context.Context, _ *pb.GetStatusRequest) (*pb.GetStatusResponse, error) {
	c, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	out := &pb.GetStatusResponse{Id: c.ID, Role: string(c.Role), Version: s.Version}
	within, cancel := context.WithTimeout(ctx, factsTime)
	defer cancel()
	facts := s.Facts.Standing(within, c)
	switch {
	case facts == nil:
		out.Standing = pb.Standing_STANDING_ACTIVE
		facts = s.waiting(within, c, out)
	case vault.KindOf(facts) == vault.Denied:
		out.Standing, out.StandingReason = pb.Standing_STANDING_REFUSED, string(vault.ReasonOf(facts))
		out.ServerTime = timestamppb.New(s.Clock())
		return out, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if facts != nil {
		s.Log.WarnContext(ctx, "the database did not answer for a status", "error", facts)
	}
	if s.Parts != nil {
		for _, p := range s.Parts() {
			if p.Name == PartDatabase && facts != nil {
				// This call knows better than the last look.
				p.State, p.Checked, p.Reason = PartDown, s.Clock(), vault.ReasonStoreUnavailable
			}
			out.Parts = append(out.Parts, writePart(p))
		}
	}
	// The last thing read: the caller holds its own clock against it.
	out.ServerTime = timestamppb.New(s.Clock())
	return out, nil
}

// PartDatabase is the name of the part that holds the facts.
const PartDatabase = "database"

// factsTime is how long a status waits for the database.
const factsTime = 3 * time.Second

// waiting adds what the caller's role should know.
func (s *identityAPI) waiting(ctx context.Context, c vault.Caller, out *pb.GetStatusResponse) error {
	switch c.Role {
	case vault.RoleAdmin:
		w, err := s.Facts.Work(ctx, maxOpen)
		if err != nil {
			return err
		}
		out.Work = &pb.Work{
			OpenDecisionCount: w.OpenCount, KeysRevoking: w.Keys[vault.KeyRevoking],
			KeysRestoring: w.Keys[vault.KeyRestoring], KeysDestroying: w.Keys[vault.KeyDestroying],
		}
		for _, p := range w.Open {
			out.Work.OpenDecisions = append(out.Work.OpenDecisions, wire.Proposal(p, s.Clock()))
		}
	case vault.RoleAuditor:
		_, _, _, size, err := s.Facts.Events(ctx, 0, 1, nil)
		if err != nil {
			return err
		}
		out.LogSize = size
	}
	return nil
}

func writePart(p Part) *pb.Part {
	out := &pb.Part{Name: p.Name, State: partStates[p.State], Reason: string(p.Reason)}
	if !p.Checked.IsZero() {
		out.CheckTime = timestamppb.New(p.Checked)
	}
	return out
}
