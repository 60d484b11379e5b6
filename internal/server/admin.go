package server

import (
	"context"
	"errors"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/wire"
)

type adminAPI struct {
	pb.UnimplementedAdminServiceServer
	*api
}

// ProposeDecision opens a decision.
func (s *adminAPI) ProposeDecision(ctx context.Context, req *pb.ProposeDecisionRequest) (*pb.ProposeDecisionResponse, error) {
	c, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	a, err := parseAction(req)
	if err != nil {
		return nil, inAction(req, err)
	}
	p, err := s.Breach.Propose(ctx, c, a)
	if err != nil {
		return nil, inAction(req, err)
	}
	return &pb.ProposeDecisionResponse{Decision: wire.Proposal(p, s.Clock())}, nil
}

func parseAction(req *pb.ProposeDecisionRequest) (a breach.Action, err error) {
	switch in := req.Action.(type) {
	case *pb.ProposeDecisionRequest_ApplyPurpose:
		var p vault.Purpose
		p, err = wire.ParsePurpose(in.ApplyPurpose)
		a.Purpose = &p
	case *pb.ProposeDecisionRequest_ApplyContractor:
		var c vault.Contractor
		c, err = wire.ParseContractor(in.ApplyContractor)
		a.Contractor = &c
	case *pb.ProposeDecisionRequest_ReinstateCaller:
		a.Reinstate = in.ReinstateCaller
	case *pb.ProposeDecisionRequest_RestoreKeys:
		var sel vault.Selection
		sel, err = wire.ParseSelection(in.RestoreKeys)
		a.Restore = &sel
	case *pb.ProposeDecisionRequest_DestroyKeys:
		var sel vault.Selection
		sel, err = wire.ParseSelection(in.DestroyKeys)
		a.Destroy = &sel
	}
	return a, err
}

// inAction names fields as the request has them: below the action that was chosen.
func inAction(req *pb.ProposeDecisionRequest, err error) error {
	m := req.ProtoReflect()
	chosen := m.WhichOneof(m.Descriptor().Oneofs().ByName("action"))
	var e *vault.Error
	if chosen == nil || !errors.As(err, &e) || e.Kind != vault.Invalid {
		return err
	}
	named := *e
	named.Fields = slices.Clone(e.Fields)
	for i, f := range named.Fields {
		_, below, inside := strings.Cut(f.Name, ".")
		named.Fields[i].Name = string(chosen.Name())
		if inside {
			named.Fields[i].Name += "." + below
		}
	}
	return &named
}

// SignDecision adds an admin's signature to a decision.
func (s *adminAPI) SignDecision(ctx context.Context, req *pb.SignDecisionRequest) (*pb.SignDecisionResponse, error) {
	c, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	id, err := wire.ParseName("name", wire.Decisions, req.Name)
	if err != nil {
		return nil, err
	}
	sig, err := wire.ParseSignature(req.Signature)
	if err != nil {
		return nil, err
	}
	p, work, err := s.Breach.Sign(ctx, c, id, sig)
	if err != nil {
		return nil, err
	}
	return &pb.SignDecisionResponse{Decision: wire.Proposal(p, s.Clock()), KeyWork: keyWork(work)}, nil
}

func keyWork(w *breach.KeyWork) *pb.KeyWork {
	if w == nil {
		return nil
	}
	return &pb.KeyWork{Records: int64(len(w.Records)), Barrier: wire.Barrier(w.Barrier), Certificate: w.Certificate, Missing: int64(len(w.Missing))}
}

// ListPurposes lists the newest version of each purpose.
func (s *adminAPI) ListPurposes(ctx context.Context, _ *pb.ListPurposesRequest) (*pb.ListPurposesResponse, error) {
	found, err := s.Facts.Purposes(ctx)
	if err != nil {
		return nil, err
	}
	out := &pb.ListPurposesResponse{}
	for _, p := range found {
		out.Purposes = append(out.Purposes, wire.Purpose(p))
	}
	return out, nil
}

// ListContractors lists all contractors.
func (s *adminAPI) ListContractors(ctx context.Context, _ *pb.ListContractorsRequest) (*pb.ListContractorsResponse, error) {
	found, err := s.Facts.Contractors(ctx)
	if err != nil {
		return nil, err
	}
	out := &pb.ListContractorsResponse{}
	for _, c := range found {
		out.Contractors = append(out.Contractors, wire.Contractor(c))
	}
	return out, nil
}

// SuspendContractor stops a contractor.
func (s *adminAPI) SuspendContractor(ctx context.Context, req *pb.SuspendContractorRequest) (*pb.SuspendContractorResponse, error) {
	c, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	name, err := wire.ParseSlug("name", wire.Contractors, req.Name)
	if err != nil {
		return nil, err
	}
	done, err := s.Breach.Suspend(ctx, c, name, req.Note)
	if err != nil {
		return nil, err
	}
	return &pb.SuspendContractorResponse{
		Contractor: wire.Contractor(done.Contractor), GrantsEnded: int32(done.Grants), Barrier: wire.Barrier(done.Barrier),
	}, nil
}

// RevokeKeys makes records' keys unusable.
func (s *adminAPI) RevokeKeys(ctx context.Context, req *pb.RevokeKeysRequest) (*pb.RevokeKeysResponse, error) {
	c, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	sel, err := wire.ParseSelection(req.Selection)
	if err != nil {
		return nil, err
	}
	work, err := s.Breach.Revoke(ctx, c, sel, req.Note)
	if err != nil {
		return nil, err
	}
	return &pb.RevokeKeysResponse{KeyWork: keyWork(work)}, nil
}

// ListRecordKeys lists records and the state of their keys.
func (s *adminAPI) ListRecordKeys(ctx context.Context, req *pb.ListRecordKeysRequest) (*pb.ListRecordKeysResponse, error) {
	c, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	sel, err := wire.ParseSelection(req.Selection)
	if err != nil {
		return nil, err
	}
	n, err := pageSize(req.PageSize, 1000, 1000)
	if err != nil {
		return nil, err
	}
	var after vault.ID
	if req.PageToken != "" {
		if after, err = vault.ParseID("page_token", req.PageToken); err != nil {
			return nil, err
		}
	}
	records, more, err := s.Breach.List(ctx, c, sel, after, n)
	if err != nil {
		return nil, err
	}
	out := &pb.ListRecordKeysResponse{}
	for _, r := range records {
		out.Records = append(out.Records, &pb.RecordKey{
			Record: wire.Name(wire.Records, r.ID), KeyName: r.KeyName(), KeyState: string(r.Key), StoreTime: timestamppb.New(r.StoredAt),
		})
	}
	if more {
		out.NextPageToken = records[len(records)-1].ID.String()
	}
	return out, nil
}
