package server

import (
	"context"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

// SuspendCaller cuts off one caller.
func (s *adminAPI) SuspendCaller(ctx context.Context, req *pb.SuspendCallerRequest) (*pb.SuspendCallerResponse, error) {
	c, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	done, err := s.Breach.SuspendCaller(ctx, c, req.Caller, req.Note)
	if err != nil {
		return nil, err
	}
	return &pb.SuspendCallerResponse{
		SuspendedCaller: wire.Suspension(done.Suspension), GrantsEnded: int32(done.Grants), SignaturesVoid: int32(done.Void),
		Review: wire.Review(done.Review), ReviewTruncated: done.Review.More, Barrier: wire.Barrier(done.Barrier),
	}, nil
}

// maxPageToken is the longest page token of suspended callers: a SPIFFE ID, in bytes.
const maxPageToken = 2048

// ListSuspendedCallers lists callers that are suspended one by one.
func (s *adminAPI) ListSuspendedCallers(ctx context.Context, req *pb.ListSuspendedCallersRequest) (*pb.ListSuspendedCallersResponse, error) {
	n, err := pageSize(req.PageSize, 100, 1000)
	if err != nil {
		return nil, err
	}
	if err := vault.CheckText("page_token", req.PageToken, maxPageToken, true); err != nil {
		return nil, err
	}
	found, err := s.Facts.Suspensions(ctx, req.PageToken, n+1)
	if err != nil {
		return nil, err
	}
	out := &pb.ListSuspendedCallersResponse{}
	if len(found) > n {
		found = found[:n]
		out.NextPageToken = found[n-1].Caller
	}
	for _, f := range found {
		out.SuspendedCallers = append(out.SuspendedCallers, wire.Suspension(f))
	}
	return out, nil
}
