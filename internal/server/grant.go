package server

import (
	"context"
	"slices"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/grants"
	"github.com/portcullis/portcullis/vault/wire"
)

type grantAPI struct {
	pb.UnimplementedGrantServiceServer
	*api
}

// named reads the caller and the grant that a call names.
func (s *grantAPI) named(ctx context.Context, name string) (c vault.Caller, id vault.ID, err error) {
	if c, err = s.caller(ctx); err != nil {
		return c, id, err
	}
	id, err = wire.ParseName("name", wire.Grants, name)
	return c, id, err
}

// RequestGrant asks for a grant.
func (s *grantAPI) RequestGrant(ctx context.Context, req *pb.RequestGrantRequest) (*pb.RequestGrantResponse, error) {
	c, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	r, err := parseRequest(req)
	if err != nil {
		return nil, err
	}
	if req.ValidateOnly {
		against, err := s.Grants.Explain(ctx, c, r)
		if err != nil {
			return nil, err
		}
		// Whoever watches hears of it as if it had been asked for.
		for _, why := range against {
			s.alert(ctx, pb.GrantService_RequestGrant_FullMethodName, "", why)
		}
		return &pb.RequestGrantResponse{Refusals: wire.Refusals(against)}, nil
	}
	g, err := s.Grants.Request(ctx, c, r)
	if err != nil {
		return nil, err
	}
	return &pb.RequestGrantResponse{Grant: wire.GrantFor(c, g, s.Clock())}, nil
}

func parseRequest(req *pb.RequestGrantRequest) (r grants.Request, err error) {
	r = grants.Request{MaxRecords: req.MaxRecords, MaxBytes: req.MaxBytes, Justification: req.Justification}
	if req.RequestId != "" || !req.ValidateOnly {
		if r.ID, err = vault.ParseID("request_id", req.RequestId); err != nil {
			return r, err
		}
	}
	if r.Purpose, err = wire.ParseSlug("purpose", wire.Purposes, req.Purpose); err != nil {
		return r, err
	}
	if r.Scope, err = wire.ParseWanted(req.Scope); err != nil {
		return r, err
	}
	r.TTL, err = wire.ParseDuration("ttl", req.Ttl)
	return r, err
}

// GetGrant gives one grant.
func (s *grantAPI) GetGrant(ctx context.Context, req *pb.GetGrantRequest) (*pb.GetGrantResponse, error) {
	c, id, err := s.named(ctx, req.Name)
	if err != nil {
		return nil, err
	}
	v, err := s.Grants.Get(ctx, c, id)
	if err != nil {
		return nil, err
	}
	out := &pb.GetGrantResponse{Grant: wire.GrantFor(c, v.Grant, v.At)}
	if v.Purpose != nil {
		out.PurposeTerms = wire.Purpose(*v.Purpose)
	}
	if c.Role == vault.RoleAdmin {
		out.Preview = wire.Preview(v.Preview)
	}
	return out, nil
}

// maxStates is the most states that a filter names: there are nine.
const maxStates = 9

// ListGrants lists grants; a contractor sees its own.
func (s *grantAPI) ListGrants(ctx context.Context, req *pb.ListGrantsRequest) (*pb.ListGrantsResponse, error) {
	c, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	n, err := pageSize(req.PageSize, 100, 1000)
	if err != nil {
		return nil, err
	}
	var before vault.ID
	if req.PageToken != "" {
		if before, err = vault.ParseID("page_token", req.PageToken); err != nil {
			return nil, err
		}
	}
	if len(req.States) > maxStates {
		return nil, vault.InvalidField("states", "names %d; at most %d are allowed", len(req.States), maxStates)
	}
	stored, err := storedStates(req.States)
	if err != nil {
		return nil, err
	}
	if req.Live {
		stored = liveStates(stored)
		if len(stored) == 0 {
			return &pb.ListGrantsResponse{}, nil
		}
	}
	now := s.Clock() // one time for the whole page
	out := &pb.ListGrantsResponse{}
	// That a grant expired shows from its terms and not from what is stored, so what the store
	// gives is sifted. A page is short rather than the outcome of a long search.
	for range maxSifted {
		found, err := s.Facts.Grants(ctx, c.Org, stored, before, n+1)
		if err != nil {
			return nil, err
		}
		more := len(found) > n
		for _, g := range found[:min(n, len(found))] {
			if len(out.Grants) == n {
				more = true
				break
			}
			before = g.Grant
			shown := wire.GrantFor(c, g, now)
			if (len(req.States) == 0 || slices.Contains(req.States, shown.State)) && (!req.Live || !g.Ended(now)) {
				out.Grants = append(out.Grants, shown)
			}
		}
		if out.NextPageToken = before.String(); !more {
			out.NextPageToken = ""
			return out, nil
		}
		if len(out.Grants) == n {
			return out, nil
		}
	}
	return out, nil
}

// maxSifted is how many pages of the store are looked through for one page of an answer.
const maxSifted = 10

// storedStates are the states in the store of grants that may show as one of shown.
func storedStates(shown []pb.Grant_State) (out []vault.GrantState, err error) {
	for _, st := range shown {
		switch st {
		case pb.Grant_STATE_EXPIRED:
			out = append(out, vault.GrantPending, vault.GrantApproved, vault.GrantActive)
			continue
		case pb.Grant_STATE_LAPSED:
			out = append(out, vault.GrantPending) // until the next sweep says so
		}
		d, err := wire.ParseGrantState("states", st)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// liveStates keeps of states in the store, all if there are none, those of which something may
// still come.
func liveStates(stored []vault.GrantState) (out []vault.GrantState) {
	for _, st := range []vault.GrantState{vault.GrantPending, vault.GrantApproved, vault.GrantActive} {
		if len(stored) == 0 || slices.Contains(stored, st) {
			out = append(out, st)
		}
	}
	return out
}

// ApproveGrant adds an admin's signature.
func (s *grantAPI) ApproveGrant(ctx context.Context, req *pb.ApproveGrantRequest) (*pb.ApproveGrantResponse, error) {
	c, id, err := s.named(ctx, req.Name)
	if err != nil {
		return nil, err
	}
	sig, err := wire.ParseSignature(req.Signature)
	if err != nil {
		return nil, err
	}
	g, err := s.Grants.Approve(ctx, c, id, sig)
	if err != nil {
		return nil, err
	}
	return &pb.ApproveGrantResponse{Grant: wire.GrantFor(c, g, s.Clock())}, nil
}

// DenyGrant refuses a pending request.
func (s *grantAPI) DenyGrant(ctx context.Context, req *pb.DenyGrantRequest) (*pb.DenyGrantResponse, error) {
	c, id, err := s.named(ctx, req.Name)
	if err != nil {
		return nil, err
	}
	g, err := s.Grants.Deny(ctx, c, id, req.Note)
	if err != nil {
		return nil, err
	}
	return &pb.DenyGrantResponse{Grant: wire.GrantFor(c, g, s.Clock())}, nil
}

// ActivateGrant gives the grantee its token.
func (s *grantAPI) ActivateGrant(ctx context.Context, req *pb.ActivateGrantRequest) (*pb.ActivateGrantResponse, error) {
	c, id, err := s.named(ctx, req.Name)
	if err != nil {
		return nil, err
	}
	if err := s.checked(ctx); err != nil { // again: the request took its time
		return nil, err
	}
	g, t, err := s.Grants.Activate(ctx, c, id)
	if err != nil {
		return nil, err
	}
	return &pb.ActivateGrantResponse{Grant: wire.GrantFor(c, g, s.Clock()), GrantToken: t.Reveal()}, nil
}

// RevokeGrant ends a grant, by an admin.
func (s *grantAPI) RevokeGrant(ctx context.Context, req *pb.RevokeGrantRequest) (*pb.RevokeGrantResponse, error) {
	c, id, err := s.named(ctx, req.Name)
	if err != nil {
		return nil, err
	}
	g, b, err := s.Grants.Revoke(ctx, c, id, req.Note)
	if err != nil {
		return nil, err
	}
	return &pb.RevokeGrantResponse{Grant: wire.GrantFor(c, g, s.Clock()), Barrier: wire.Barrier(b)}, nil
}

// RetireGrant ends a grant, by its grantee.
func (s *grantAPI) RetireGrant(ctx context.Context, req *pb.RetireGrantRequest) (*pb.RetireGrantResponse, error) {
	c, id, err := s.named(ctx, req.Name)
	if err != nil {
		return nil, err
	}
	g, b, err := s.Grants.Retire(ctx, c, id)
	if err != nil {
		return nil, err
	}
	return &pb.RetireGrantResponse{Grant: wire.GrantFor(c, g, s.Clock()), Barrier: wire.Barrier(b)}, nil
}
