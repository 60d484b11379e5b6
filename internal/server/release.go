package server

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/release"
	"github.com/portcullis/portcullis/vault/wire"
)

type releaseAPI struct {
	pb.UnimplementedReleaseServiceServer
	*api
}

// shown reads the caller, the grant, and the token shown for it.
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
	return c, id, vault.Token(token), nil
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
	var after vault.Handle
	if req.PageToken != "" {
		if after, err = vault.ParseHandle("page_token", req.PageToken); err != nil {
			return nil, err
		}
	}
	views, more, err := s.Release.List(ctx, c, t, id, after, n)
	if err != nil {
		return nil, err
	}
	out := &pb.ListRecordsResponse{}
	for _, v := range views {
		out.Records = append(out.Records, &pb.RecordView{
			Handle: v.Handle.String(), Modality: wire.Modality(v.Modality), Site: v.Site,
			CaptureDate: v.Day.Format("2006-01-02"),
		})
	}
	if more {
		out.NextPageToken = views[len(views)-1].Handle.String()
	}
	return out, nil
}

// FetchImage opens one image. It streams inside, so that the image has been given to the
// connection when the release counts as sent.
func (s *releaseAPI) FetchImage(ctx context.Context, req *pb.FetchImageRequest) (*pb.FetchImageResponse, error) {
	c, id, t, err := s.shown(ctx, req.Grant, req.GrantToken)
	if err != nil {
		return nil, err
	}
	handles, err := parseHandles("handle", []string{req.Handle})
	if err != nil {
		return nil, err
	}
	out := &pb.FetchImageResponse{}
	err = s.Release.Fetch(ctx, c, t, id, handles, func(img vault.Image) error {
		out.Image = image(img)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// FetchImages opens images in the order asked for.
func (s *releaseAPI) FetchImages(req *pb.FetchImagesRequest, stream grpc.ServerStreamingServer[pb.FetchImagesResponse]) error {
	c, id, t, err := s.shown(stream.Context(), req.Grant, req.GrantToken)
	if err != nil {
		return err
	}
	if len(req.Handles) > release.MaxHandles {
		return vault.InvalidField("handles", "names %d; at most %d are allowed", len(req.Handles), release.MaxHandles)
	}
	handles, err := parseHandles("handles", req.Handles)
	if err != nil {
		return err
	}
	return s.Release.Fetch(stream.Context(), c, t, id, handles, func(img vault.Image) error {
		return stream.Send(&pb.FetchImagesResponse{Image: image(img)})
	})
}

func parseHandles(field string, in []string) ([]vault.Handle, error) {
	out := make([]vault.Handle, len(in))
	for i, text := range in {
		name := field
		if len(in) > 1 {
			name = fmt.Sprintf("%s[%d]", field, i)
		}
		h, err := vault.ParseHandle(name, text)
		if err != nil {
			return nil, err
		}
		out[i] = h
	}
	return out, nil
}

func image(img vault.Image) *pb.Image {
	return &pb.Image{
		Handle: img.Handle.String(), Modality: wire.Modality(img.Modality), ContentType: img.ContentType,
		Orientation: int32(img.Orientation), Data: img.Bytes,
	}
}
