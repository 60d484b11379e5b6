package server

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/capture"
	"github.com/portcullis/portcullis/vault/wire"
)

type captureAPI struct {
	pb.UnimplementedCaptureServiceServer
	*api
}

// StoreImage stores one image.
func (s *captureAPI) StoreImage(ctx context.Context, req *pb.StoreImageRequest) (*pb.StoreImageResponse, error) {
	c, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	in, err := parseImage(req)
	if err != nil {
		return nil, err
	}
	r, repeated, err := s.Capture.Store(ctx, c, in)
	if err != nil {
		return nil, err
	}
	return &pb.StoreImageResponse{
		Record: wire.Name(wire.Records, r.ID), KeyName: r.KeyName(), StoreTime: timestamppb.New(r.StoredAt),
		ContentType: r.ContentType, Size: r.Size, Repeated: repeated,
	}, nil
}

func parseImage(req *pb.StoreImageRequest) (in capture.Image, err error) {
	in = capture.Image{Site: req.Site, Lane: req.Lane, Class: req.RetentionClass, Bytes: req.Image}
	if in.RequestID, err = vault.ParseID("request_id", req.RequestId); err != nil {
		return in, err
	}
	if in.Modality, err = wire.ParseModality("modality", req.Modality); err != nil {
		return in, err
	}
	if in.CapturedAt, err = wire.ParseTime("capture_time", req.CaptureTime); err != nil {
		return in, err
	}
	if req.CrossingId != "" {
		in.CrossingID, err = vault.ParseID("crossing_id", req.CrossingId)
	}
	return in, err
}
