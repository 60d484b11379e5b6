package client

import (
	"context"
	"iter"
	"math"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

// Image is one image to store.
type Image struct {
	RequestID  vault.ID // names the image at its device: keep it until the image is stored
	Modality   vault.Modality
	CapturedAt time.Time
	CrossingID vault.ID // zero if none is known
	Class      string   // retention class; empty for [vault.DefaultClass]
	Bytes      []byte
}

// Store stores one image. When it returns without error, the image is durable. After an
// error nobody knows: storing again under the same request ID is safe at any later time, and
// gives the same record. Store does so itself for as long as [Config].Patience says.
func (c *Client) Store(ctx context.Context, in Image) (*pb.StoreImageResponse, error) {
	return c.store(ctx, in, c.cfg.Patience)
}

func (c *Client) store(ctx context.Context, in Image, d time.Duration) (*pb.StoreImageResponse, error) {
	req := &pb.StoreImageRequest{
		RequestId: in.RequestID.String(), Modality: wire.Modality(in.Modality),
		CaptureTime: timestamppb.New(in.CapturedAt), RetentionClass: in.Class, Image: in.Bytes,
	}
	if in.CrossingID != (vault.ID{}) {
		req.CrossingId = in.CrossingID.String()
	}
	got, err := c.Capture.StoreImage(ctx, req, patience{d: d})
	if err != nil {
		return nil, err
	}
	if _, err := wire.ParseName("record", wire.Records, got.Record); err != nil {
		return nil, wrong("an answer without a record: %v", err)
	}
	return got, nil
}

// Limits of a Storer that does not say.
const (
	defaultInFlight = 16
	defaultBytes    = 32 << 20
)

// StorerOptions bound what a [Storer] has under way.
type StorerOptions struct {
	InFlight int   // images at once: 16 when 0. The service takes 256 calls on a connection
	Bytes    int64 // of all images in flight: 32 MiB when 0. A larger image goes alone
	// Patience is how long an image is tried again while the service is away, in the place of
	// [Config].Patience.
	Patience time.Duration
}

// Storer stores images, many in flight on one connection. Its methods may be called at once
// from many goroutines.
type Storer struct {
	client *Client
	opt    StorerOptions
	slots  *semaphore.Weighted
	bytes  *semaphore.Weighted
	work   sync.WaitGroup
}

// NewStorer makes a Storer. It needs no closing, but [Storer.Wait] before the client is closed.
func (c *Client) NewStorer(o StorerOptions) *Storer {
	if o.InFlight <= 0 {
		o.InFlight = defaultInFlight
	}
	if o.Bytes <= 0 {
		o.Bytes = defaultBytes
	}
	if o.Patience == 0 {
		o.Patience = c.cfg.Patience
	}
	return &Storer{client: c, opt: o, slots: semaphore.NewWeighted(int64(o.InFlight)), bytes: semaphore.NewWeighted(o.Bytes)}
}

// Result is what came of one image.
type Result struct {
	Image  Image // as it was read, without its bytes
	Stored *pb.StoreImageResponse
	Err    error // of reading or storing; nil means that the image is durable
}

// Submit waits until there is room for an image of size bytes, then reads and stores it in a
// goroutine of its own, and gives the result to done, once, in that goroutine. The image's
// room is given back when done returns. An error of Submit is that of the context, and then neither read nor done is called. What read gives
// must have a RequestID that is the same whenever this image is submitted, now or after a
// restart. The context is that of the whole work.
func (s *Storer) Submit(ctx context.Context, size int64, read func() (Image, error), done func(Result)) error {
	if err := s.slots.Acquire(ctx, 1); err != nil {
		return err
	}
	size = min(max(size, 0), s.opt.Bytes)
	if err := s.bytes.Acquire(ctx, size); err != nil {
		s.slots.Release(1)
		return err
	}
	s.work.Go(func() {
		defer s.slots.Release(1)
		defer s.bytes.Release(size)
		var r Result
		if r.Image, r.Err = read(); r.Err == nil {
			r.Stored, r.Err = s.client.store(ctx, r.Image, s.opt.Patience)
		}
		r.Image.Bytes = nil
		done(r)
	})
	return nil
}

// Wait returns once nothing that was submitted is under way any more. Nothing may be
// submitted meanwhile.
func (s *Storer) Wait() { s.work.Wait() }

// StoreAll stores the images that a sequence yields and gives each result to each, in the
// order in which they end and never two at once. The sequence is asked for the next image
// when there is room for it, also while each runs, so that at most one image waits besides those in flight. It
// returns when all have ended: nil also when some failed, for which see their results; the
// context's error when that ended it, after the results of all that was begun.
func (c *Client) StoreAll(ctx context.Context, images iter.Seq[Image], o StorerOptions, each func(Result)) error {
	s := c.NewStorer(o)
	defer s.Wait()
	var one sync.Mutex
	for in := range images {
		err := s.Submit(ctx, int64(len(in.Bytes)), func() (Image, error) { return in, nil }, func(r Result) {
			one.Lock()
			defer one.Unlock()
			each(r)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Forever is the patience of those who wait until their context ends.
const Forever time.Duration = math.MaxInt64
