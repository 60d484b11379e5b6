package server

import (
	"context"
	"fmt"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

type auditAPI struct {
	pb.UnimplementedAuditServiceServer
	*api
}

// Limits of a filter: how many event types it names, and the bytes of one.
const (
	maxTypes = 64
	maxType  = 64
)

// ListEvents gives a page of the log.
func (s *auditAPI) ListEvents(ctx context.Context, req *pb.ListEventsRequest) (*pb.ListEventsResponse, error) {
	n, err := pageSize(req.PageSize, 100, 1000)
	if err != nil {
		return nil, err
	}
	if req.StartIndex < 0 {
		return nil, vault.InvalidField("start_index", "must not be negative")
	}
	if len(req.Types) > maxTypes {
		return nil, vault.InvalidField("types", "names %d; at most %d are allowed", len(req.Types), maxTypes)
	}
	for i, t := range req.Types {
		if err := vault.CheckText(fmt.Sprintf("types[%d]", i), t, maxType, false); err != nil {
			return nil, err
		}
	}
	indexes, bodies, size, err := s.Facts.Events(ctx, req.StartIndex, n+1, req.Types)
	if err != nil {
		return nil, err
	}
	out := &pb.ListEventsResponse{NextIndex: max(size, req.StartIndex), More: len(indexes) > n}
	if out.More {
		out.NextIndex = indexes[n]
		indexes = indexes[:n]
	}
	for i, index := range indexes {
		out.Events = append(out.Events, &pb.AuditEvent{Index: index, Event: bodies[i]})
	}
	return out, nil
}
