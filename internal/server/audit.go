package server

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/portcullis/portcullis/internal/tlog"
	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

type auditAPI struct {
	pb.UnimplementedAuditServiceServer
	*api
}

// maxTypes is how many event types a filter names.
const maxTypes = 64

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
		if !slices.Contains(vault.EventTypes, vault.EventType(t)) {
			return nil, vault.InvalidField(fmt.Sprintf("types[%d]", i), "is no type of event")
		}
	}
	indexes, bodies, next, size, err := s.Facts.Events(ctx, req.StartIndex, n, req.Types)
	if err != nil {
		return nil, err
	}
	out := &pb.ListEventsResponse{NextIndex: next, More: next < size}
	for i, index := range indexes {
		out.Events = append(out.Events, &pb.AuditEvent{Index: index, Event: bodies[i]})
	}
	return out, nil
}

// GetCheckpoint gives the newest signed checkpoint.
func (s *auditAPI) GetCheckpoint(ctx context.Context, _ *pb.GetCheckpointRequest) (*pb.GetCheckpointResponse, error) {
	signed, err := s.Tree.Checkpoint(ctx)
	if err != nil {
		return nil, err
	}
	if signed == nil {
		return nil, vault.E(vault.Unavailable, vault.ReasonLogBehind, "the log has no checkpoint yet")
	}
	return &pb.GetCheckpointResponse{Checkpoint: signed}, nil
}

// GetConsistencyProof proves that the log of one size begins with the log of another.
func (s *auditAPI) GetConsistencyProof(ctx context.Context, req *pb.GetConsistencyProofRequest) (*pb.GetConsistencyProofResponse, error) {
	if req.FirstSize < 0 || req.FirstSize > req.SecondSize {
		return nil, vault.InvalidField("first_size", "must be from 0 to second_size")
	}
	proof, err := s.Tree.ProveConsistency(ctx, req.FirstSize, req.SecondSize)
	if err != nil {
		return nil, treeError("second_size", err)
	}
	return &pb.GetConsistencyProofResponse{Hashes: hashBytes(proof)}, nil
}

// GetInclusionProof proves that the log of a size has an event at an index.
func (s *auditAPI) GetInclusionProof(ctx context.Context, req *pb.GetInclusionProofRequest) (*pb.GetInclusionProofResponse, error) {
	if req.Index < 0 || req.Index >= req.Size {
		return nil, vault.InvalidField("index", "must be from 0 to below size")
	}
	proof, err := s.Tree.ProveEntry(ctx, req.Size, req.Index)
	if err != nil {
		return nil, treeError("size", err)
	}
	return &pb.GetInclusionProofResponse{Hashes: hashBytes(proof)}, nil
}

// GetTile gives hashes of the tree.
func (s *auditAPI) GetTile(ctx context.Context, req *pb.GetTileRequest) (*pb.GetTileResponse, error) {
	for _, f := range []struct {
		name     string
		is, most int64
	}{{"level", int64(req.Level), 7}, {"index", req.Index, math.MaxInt64}, {"width", int64(req.Width), tlog.TileWidth}} {
		if f.is < 0 || f.is > f.most || f.is == 0 && f.name == "width" {
			return nil, vault.InvalidField(f.name, "is out of range")
		}
	}
	hashes, err := s.Tree.Tile(ctx, int(req.Level), req.Index, int(req.Width))
	if err != nil {
		return nil, treeError("index", err)
	}
	return &pb.GetTileResponse{Hashes: hashes}, nil
}

// treeError gives an error of the log's tree its kind. field is what asked for more than
// there is.
func treeError(field string, err error) error {
	switch {
	case errors.Is(err, tlog.ErrRange):
		return vault.InvalidField(field, "is beyond the newest checkpoint")
	case errors.Is(err, tlog.ErrDamaged):
		return vault.E(vault.DataLoss, vault.ReasonDataLoss, "the log's tree does not fit its checkpoint").Because(err)
	}
	return err
}

func hashBytes(in []tlog.Hash) (out [][]byte) {
	for _, h := range in {
		out = append(out, h[:])
	}
	return out
}
