package server

import (
	"context"

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
	g, err := s.Grants.Request(ctx, c, r)
	if err != nil {
		return nil, err
	}
	return &pb.RequestGrantResponse{Grant: wire.Grant(g, s.Clock())}, nil
}

func parseRequest(req *pb.RequestGrantRequest) (r grants.Request, err error) {
	r = grants.Request{MaxRecords: req.MaxRecords, Justification: req.Justification}
	if r.ID, err = vault.ParseID("request_id", req.RequestId); err != nil {
		return r, err
	}
	if r.Purpose, err = wire.ParseSlug("purpose", wire.Purposes, req.Purpose); err != nil {
		return r, err
	}
	if r.Scope, err = wire.ParseScope(req.Scope); err != nil {
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
	g, p, now, err := s.Grants.Get(ctx, c, id)
	if err != nil {
		return nil, err
	}
	out := &pb.GetGrantResponse{Grant: wire.Grant(g, now)}
	if c.Role == vault.RoleAdmin {
		out.Preview = &pb.Preview{Records: p.Records, Crossings: p.Crossings, Days: p.Days}
	}
	return out, nil
}

// maxStates is the most states that a filter names: there are seven.
const maxStates = 8

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
	var states []vault.GrantState
	for _, st := range req.States {
		d, err := wire.ParseGrantState("states", st)
		if err != nil {
			return nil, err
		}
		states = append(states, d)
	}
	found, err := s.Facts.Grants(ctx, c.Org, states, before, n+1)
	if err != nil {
		return nil, err
	}
	out := &pb.ListGrantsResponse{}
	if len(found) > n {
		found = found[:n]
		out.NextPageToken = found[n-1].Grant.String()
	}
	now := s.Clock() // one time for the whole page
	for _, g := range found {
		out.Grants = append(out.Grants, wire.Grant(g, now))
	}
	return out, nil
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
	return &pb.ApproveGrantResponse{Grant: wire.Grant(g, s.Clock())}, nil
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
	return &pb.DenyGrantResponse{Grant: wire.Grant(g, s.Clock())}, nil
}

// ActivateGrant gives the grantee its token.
func (s *grantAPI) ActivateGrant(ctx context.Context, req *pb.ActivateGrantRequest) (*pb.ActivateGrantResponse, error) {
	c, id, err := s.named(ctx, req.Name)
	if err != nil {
		return nil, err
	}
	g, t, err := s.Grants.Activate(ctx, c, id)
	if err != nil {
		return nil, err
	}
	return &pb.ActivateGrantResponse{Grant: wire.Grant(g, s.Clock()), GrantToken: t.Reveal()}, nil
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
	return &pb.RevokeGrantResponse{Grant: wire.Grant(g, s.Clock()), Barrier: wire.Barrier(b)}, nil
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
	return &pb.RetireGrantResponse{Grant: wire.Grant(g, s.Clock()), Barrier: wire.Barrier(b)}, nil
}
