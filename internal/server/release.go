package server

import (
	"bytes"
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/release"
	"github.com/portcullis/portcullis/vault/wire"
)

type releaseAPI struct {
	pb.UnimplementedReleaseServiceServer
	*api
}

// shown reads the caller, the grant, and the token shown for it, and asks whether anything may be
// released now: since the call was admitted its request took its time, or images left.
func (s *releaseAPI) shown(ctx context.Context, grant, token string) (c vault.Caller, id vault.ID, t vault.Token, err error) {
	if c, err = s.caller(ctx); err != nil {
		return c, id, t, err
	}
	if id, err = wire.ParseName("grant", wire.Grants, grant); err != nil {
		return c, id, t, err
	}
	if token == "" || len(token) > vault.MaxToken {
		return c, id, t, vault.InvalidField("grant_token", "must have 1 to %d bytes", vault.MaxToken)
	}
	return c, id, vault.TokenOf(token), s.checked(ctx)
}

// ListRecords gives a page of handles.
func (s *releaseAPI) ListRecords(ctx context.Context, req *pb.ListRecordsRequest) (*pb.ListRecordsResponse, error) {
	c, id, t, err := s.shown(ctx, req.Grant, req.GrantToken)
	if err != nil {
		return nil, err
	}
	n, err := pageSize(req.PageSize, release.MaxPage, release.MaxPage)
	if err != nil {
		return nil, err
	}
	page, err := s.Release.List(ctx, c, t, id, req.PageToken, n)
	if err != nil {
		return nil, err
	}
	out := &pb.ListRecordsResponse{Checkpoint: page.Checkpoint, NextPageToken: page.Next}
	for _, v := range page.Views {
		view := &pb.RecordView{
			Handle: v.Handle.String(), Modality: wire.Modality(v.Modality), Site: v.Site, TimePrecision: wire.Precision(v.Precision),
		}
		if !v.Captured.IsZero() {
			view.CaptureTime = timestamppb.New(v.Captured)
		}
		if v.Crossing != (vault.Handle{}) {
			view.Crossing = v.Crossing.String()
		}
		out.Records = append(out.Records, view)
	}
	return out, nil
}

// FetchImage opens one image.
func (s *releaseAPI) FetchImage(ctx context.Context, req *pb.FetchImageRequest) (*pb.FetchImageResponse, error) {
	c, id, t, err := s.shown(ctx, req.Grant, req.GrantToken)
	if err != nil {
		return nil, err
	}
	h, err := vault.ParseHandle("handle", req.Handle)
	if err != nil {
		return nil, err
	}
	out := &pb.FetchImageResponse{}
	err = s.Release.Fetch(ctx, c, t, id, h, func(img vault.Image) error {
		out.Image = image(img)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// maxHandles is the most handles of one call.
const maxHandles = 1000

// FetchImages opens images in the order asked for, and stops at the first error.
func (s *releaseAPI) FetchImages(req *pb.FetchImagesRequest, stream grpc.ServerStreamingServer[pb.FetchImagesResponse]) error {
	ctx := stream.Context()
	if _, _, _, err := s.shown(ctx, req.Grant, req.GrantToken); err != nil {
		return err
	}
	if n := len(req.Handles); n == 0 || n > maxHandles {
		return vault.InvalidField("handles", "must name 1 to %d handles, not %d", maxHandles, n)
	}
	handles := make([]vault.Handle, len(req.Handles))
	for i, text := range req.Handles {
		var err error
		if handles[i], err = vault.ParseHandle(fmt.Sprintf("handles[%d]", i), text); err != nil {
			return err
		}
	}
	var told []byte // the checkpoint that was sent last
	for _, h := range handles {
		// Anew for each image: while the stream runs the caller's certificate may expire, or what
		// releases stand on be restored from a copy.
		c, id, t, err := s.shown(ctx, req.Grant, req.GrantToken)
		if err != nil {
			return err
		}
		err = s.Release.Fetch(ctx, c, t, id, h, func(img vault.Image) error {
			out := image(img)
			if bytes.Equal(out.Checkpoint, told) {
				out.Checkpoint = nil
			} else {
				told = out.Checkpoint
			}
			return stream.Send(&pb.FetchImagesResponse{Image: out})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func image(img vault.Image) *pb.Image {
	return &pb.Image{
		Handle: img.Handle.String(), Modality: wire.Modality(img.Modality), ContentType: img.ContentType,
		Orientation: int32(img.Orientation), Data: img.Bytes, Checkpoint: img.Checkpoint,
	}
}
