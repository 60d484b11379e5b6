package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

// maxImage is the largest image taken from a fetch, in bytes. The service's own limit is 8
// MiB unless configured otherwise.
const maxImage = maxMessage - 64<<10

// wrong says that what the service sent can not be right.
func wrong(format string, args ...any) error {
	return vault.E(vault.DataLoss, vault.ReasonDataLoss, "the service sent %s", fmt.Sprintf(format, args...))
}

// Records gives each record that a grant covers, page by page. A record that is given twice
// or is malformed ends it with DataLoss. Listing is repeatable, and recorded.
func (c *Client) Records(ctx context.Context, grant string, t vault.Token, each func(*pb.RecordView) error) error {
	seen := map[string]bool{}
	for page := ""; ; {
		got, err := c.Release.ListRecords(ctx, &pb.ListRecordsRequest{Grant: grant, GrantToken: t.Reveal(), PageToken: page})
		if err != nil {
			return err
		}
		if c.log != nil && len(got.Checkpoint) == 0 {
			return wrong("records without a checkpoint of its log")
		}
		if err := c.seen(ctx, got.Checkpoint); err != nil {
			return err
		}
		for _, r := range got.Records {
			if _, err := vault.ParseHandle("handle", r.GetHandle()); err != nil {
				return wrong("a record without a handle: %v", err)
			}
			if r.Crossing != "" {
				if _, err := vault.ParseHandle("crossing", r.Crossing); err != nil {
					return wrong("record %s of a crossing without a handle: %v", r.Handle, err)
				}
			}
			if seen[r.Handle] {
				return wrong("record %s twice", r.Handle)
			}
			seen[r.Handle] = true
			if err := each(r); err != nil {
				return err
			}
		}
		if got.NextPageToken != "" && len(got.Records) == 0 {
			return wrong("a page without records that is not the last")
		}
		if page = got.NextPageToken; page == "" {
			return nil
		}
	}
}

// Expect is what a grantee knows of images before they come. What it does not know, it
// leaves empty.
type Expect struct {
	Scope *vault.Scope              // of the grant
	Views map[string]*pb.RecordView // by handle, as [Client.Records] gave them

	// Waiting, if it is set, is called when a fetch begins to wait for the rate of the purpose,
	// with how long the service says.
	Waiting func(time.Duration)
}

// CheckView says whether a record may be of the grant: modality, site and day of capture lie
// in its scope. An error is of the kind DataLoss.
func (e Expect) CheckView(r *pb.RecordView) error {
	m, err := wire.ParseModality("modality", r.GetModality())
	if err != nil {
		return wrong("record %s: %v", r.GetHandle(), err)
	}
	p, err := wire.ParsePrecision("time_precision", r.GetTimePrecision())
	if err != nil {
		return wrong("record %s: %v", r.GetHandle(), err)
	}
	s := e.Scope
	if s == nil {
		return nil
	}
	if !slices.Contains(s.Modalities, m) || !slices.Contains(s.Sites, r.GetSite()) {
		return wrong("record %s (%s, site %q), which lies outside the grant's scope", r.GetHandle(), m, r.GetSite())
	}
	if p == vault.PrecisionNone {
		return nil
	}
	at, err := wire.ParseTime("capture_time", r.GetCaptureTime())
	if err != nil {
		return wrong("record %s without a time of capture", r.GetHandle())
	}
	if at.Before(p.Floor(s.From)) || !at.Before(s.Until) {
		return wrong("record %s, captured at %s, outside the grant's scope", r.GetHandle(), vault.FormatTime(at))
	}
	return nil
}

// check says whether an image is what was asked for.
func (e Expect) check(img *pb.Image, want string) error {
	if img.GetHandle() != want {
		return wrong("image %.64q where %s was asked for", img.GetHandle(), want)
	}
	m, err := wire.ParseModality("modality", img.GetModality())
	if err != nil {
		return wrong("image %s: %v", want, err)
	}
	if e.Scope != nil && !slices.Contains(e.Scope.Modalities, m) {
		return wrong("image %s, a %s, which the grant does not cover", want, m)
	}
	if v := e.Views[want]; v != nil && v.Modality != img.Modality {
		return wrong("image %s as a %s, which was listed otherwise", want, m)
	}
	if n := len(img.GetData()); n > maxImage {
		return wrong("image %s of %d bytes; %d are taken", want, n, maxImage)
	}
	switch is := http.DetectContentType(img.GetData()); {
	case img.GetContentType() != "image/jpeg" && img.GetContentType() != "image/png":
		return wrong("image %s of content type %.64q; JPEG and PNG are taken", want, img.GetContentType())
	case is != img.GetContentType():
		return wrong("image %s as %s, but its bytes are %s", want, img.GetContentType(), is)
	}
	if o := img.GetOrientation(); o < 0 || o > 8 {
		return wrong("image %s of orientation %d", want, o)
	}
	return nil
}

// fetchBatch is how many images one call asks for.
const fetchBatch = 500

// Fetch is [Client.FetchExpected] without expectations.
func (c *Client) Fetch(ctx context.Context, grant string, t vault.Token, handles []string, each func(*pb.Image) error) error {
	return c.FetchExpected(ctx, grant, t, handles, Expect{}, each)
}

// FetchExpected opens the images named, in order, and gives each to each, once. It stops at
// the first error of each, of the service, or of a check: an image must have the handle
// asked for, be the JPEG or PNG that it says it is, of a size that is taken, of the modality
// that was listed and that the grant covers. What fails a check is DataLoss, and is not
// given to each.
//
// With [Config].LogKey the newest checkpoint of the audit log that came is checked once for
// each call for up to 500 images; ErrLogRewritten then ends the fetch.
//
// When the connection is lost, the service is busy or away, or no image comes for
// [Config].Timeout, it asks again for the images that have not come, until [Config].Patience
// ends. An image that was on its way then leaves twice: it costs no quota, and both are
// recorded. When more records a minute are asked for than the purpose allows, it waits as long
// as the service says, within the context's deadline, and goes on.
func (c *Client) FetchExpected(ctx context.Context, grant string, t vault.Token, handles []string, e Expect, each func(*pb.Image) error) error {
	asked := make(map[string]bool, len(handles))
	for _, h := range handles {
		if asked[h] {
			return vault.InvalidField("handles", "must not name %.64q twice", h)
		}
		asked[h] = true
	}
	w := newWaits(c.cfg.Patience)
	w.told = e.Waiting
	for len(handles) > 0 {
		ask := handles[:min(fetchBatch, len(handles))]
		var checkpoint []byte
		got, local, err := c.fetchBatch(ctx, grant, t, ask, e, func(img *pb.Image) error {
			if img.Checkpoint != nil {
				checkpoint = img.Checkpoint
			}
			if err := each(img); err != nil {
				return err
			}
			w.progress()
			return nil
		})
		// Also after an error: a service that has rewritten its log must not hide it so.
		if bad := c.seen(ctx, checkpoint); bad != nil && (ctx.Err() == nil || errors.Is(bad, ErrLogRewritten)) {
			return errors.Join(bad, err)
		}
		if c.log != nil && got > 0 && checkpoint == nil {
			return wrong("images without a checkpoint of its log")
		}
		handles = handles[got:]
		if err != nil && (local || !w.again(ctx, err)) {
			if !local && errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err() // and not what it was waiting for
			}
			return err
		}
	}
	return nil
}

// fetchBatch gives how many images came. local says that the error is not of the call.
func (c *Client) fetchBatch(ctx context.Context, grant string, t vault.Token, handles []string, e Expect, each func(*pb.Image) error) (got int, local bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stalled := time.AfterFunc(c.cfg.Timeout, cancel)
	defer stalled.Stop()
	// late makes the end of a stream that stood still an error that may pass.
	late := func(err error) error {
		if !stalled.Stop() && status.Code(err) == codes.Canceled {
			return fromStatus(status.Errorf(codes.DeadlineExceeded, "no image came for %s", c.cfg.Timeout))
		}
		return err
	}
	s, err := c.Release.FetchImages(ctx, &pb.FetchImagesRequest{Grant: grant, GrantToken: t.Reveal(), Handles: handles})
	if err != nil {
		return 0, false, late(err)
	}
	for _, want := range handles {
		stalled.Reset(c.cfg.Timeout)
		m, err := s.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return got, true, wrong("%d images of %d that were asked for", got, len(handles))
		case vault.KindOf(err) == vault.Exhausted && vault.ReasonOf(err) == "":
			return got, true, wrong("more than is taken for one image: %v", err) // grpc's own limit
		case err != nil:
			return got, false, late(err)
		}
		stalled.Stop() // what each takes is not the service's
		if err := e.check(m.GetImage(), want); err != nil {
			return got, true, err
		}
		if err := each(m.Image); err != nil {
			return got, true, err
		}
		got++
	}
	stalled.Reset(c.cfg.Timeout)
	switch _, err := s.Recv(); {
	case err == nil:
		return got, true, wrong("more images than the %d that were asked for", len(handles))
	case !errors.Is(err, io.EOF) && vault.KindOf(err) != vault.Unavailable && !errors.Is(err, context.Canceled):
		return got, true, err
	}
	return got, false, nil // a connection that is lost now has taken nothing away
}
