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
	"github.com/portcullis/portcullis/vault/grants"
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
	case *pb.ProposeDecisionRequest_WithdrawPurpose:
		a.Withdraw, err = wire.ParseSlug("withdraw_purpose", wire.Purposes, in.WithdrawPurpose)
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
	p, done, err := s.Breach.Sign(ctx, c, id, sig)
	if err != nil {
		return nil, err
	}
	out := &pb.SignDecisionResponse{Decision: wire.Proposal(p, s.Clock()), KeyWork: keyWork(done.Keys)}
	if e := done.Ended; e != nil {
		out.Barrier, out.GrantsEnded = wire.Barrier(e.Barrier), int32(e.Grants)
	}
	return out, nil
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
			RetentionClass: r.Class,
		})
	}
	if more {
		out.NextPageToken = records[len(records)-1].ID.String()
	}
	return out, nil
}

// CreateRecordList makes a list of records for a contractor.
func (s *adminAPI) CreateRecordList(ctx context.Context, req *pb.CreateRecordListRequest) (*pb.CreateRecordListResponse, error) {
	c, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	r, err := parseList(req)
	if err != nil {
		return nil, err
	}
	l, err := s.Grants.CreateList(ctx, c, r)
	if err != nil {
		return nil, err
	}
	return &pb.CreateRecordListResponse{RecordList: wire.RecordList(l)}, nil
}

func parseList(req *pb.CreateRecordListRequest) (r grants.ListRequest, err error) {
	if r.ID, err = vault.ParseID("request_id", req.RequestId); err != nil {
		return r, err
	}
	in := req.RecordList
	if in.GetName() != "" || in.GetCreatedBy() != "" || in.GetCreateTime() != nil {
		return r, vault.InvalidField("record_list", "may say nothing of name, created_by and create_time: the service does")
	}
	l, err := wire.ParseRecordList(in)
	r.Contractor, r.Records = l.Contractor, l.Records
	return r, err
}

// GetRecordList gives a list.
func (s *adminAPI) GetRecordList(ctx context.Context, req *pb.GetRecordListRequest) (*pb.GetRecordListResponse, error) {
	c, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	id, err := wire.ParseName("name", wire.Lists, req.Name)
	if err != nil {
		return nil, err
	}
	l, err := s.Grants.List(ctx, c, id)
	if err != nil {
		return nil, err
	}
	return &pb.GetRecordListResponse{RecordList: wire.RecordList(l)}, nil
}
