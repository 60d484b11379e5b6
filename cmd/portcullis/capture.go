package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
)

// Limits of a capture.
const (
	maxParallel = 64       // images on their way; the service takes 256 calls at once on a connection
	maxPicture  = 64 << 20 // bytes of a file; the service's own limit is lower
)

// The words for --captured-at besides a time.
const (
	capturedNow  = "now"
	capturedFile = "file"
)

func (a *app) captureCommand() *cobra.Command {
	var (
		mod      modalityFlag
		captured string
		crossing idFlag
		parallel int
	)
	c := &cobra.Command{
		Use:   "capture FILE… | DIR",
		Short: "store images (capture system)",
		Long: `Capture stores pictures, each under a key of its own. From a folder, and those below it, it takes
the files that end in .jpg, .jpeg or .png. --modality says what they show; a folder that has the
folders face and plate needs none. A bad file does not stop the others.

--captured-at is when the pictures were taken: now (the time of this command), file (each file's
time of change), or a time such as 2026-11-23T14:30:00Z. The service refuses times that lie too
far from its own, by default more than 5 minutes ahead or 31 days behind.

Running it again is harmless, also after a crash: each picture has a request ID that is made of
its bytes, modality, crossing and capture time (but not of now), under a secret that comes from
the profile's key. What was stored before is told as "repeated", or as "known" when it was stored
at an earlier now, whose time then stays. With another key the request IDs are others, so finish
a run before you renew the key. With --captured-at file a changed file time makes another record.`,
		Example: `  portcullis --profile lane capture ./pictures
  portcullis --profile lane capture --modality plate --captured-at file plates/*.jpg`,
		Args: cobra.MinimumNArgs(1),
	}
	f := c.Flags()
	f.Var(&mod, "modality", "what the pictures show")
	f.StringVar(&captured, "captured-at", capturedNow, "when they were taken: now, file or a `TIME`")
	f.Var(&crossing, "crossing", "they are all of this vehicle's or traveller's passing")
	f.IntVar(&parallel, "parallel", 8, "how many are on their way at once: `N`")
	complete(c, "modality", "face", "plate")
	complete(c, "captured-at", capturedNow, capturedFile)
	c.RunE = a.call(func(ctx context.Context, s *session, args []string) error {
		if parallel < 1 || parallel > maxParallel {
			return usagef("--parallel must be from 1 to %d", maxParallel)
		}
		run := &capture{session: s, now: vault.Micro(a.now()), crossing: vault.ID(crossing)}
		switch captured {
		case capturedNow:
		case capturedFile:
			run.byFile = true
		default:
			t, err := parseTime(captured)
			if err != nil {
				return usagef("--captured-at: %w; or now, or file", err)
			}
			run.fixed = t
		}
		found, err := gather(args, vault.Modality(mod))
		if err != nil {
			return err
		}
		if run.requestID, err = s.RequestIDs(); err != nil {
			return err
		}
		return a.capture(ctx, run, found, parallel)
	})
	return c
}

// capture stores pictures in one way.
type capture struct {
	session   *session
	requestID func(client.Image) vault.ID
	now       time.Time // when the command began
	byFile    bool      // capture times are the files'
	fixed     time.Time // capture time, if not zero
	crossing  vault.ID

	stopped atomic.Bool // an error came that every other picture would meet, too
}

// stored is what came of one file, in JSON.
type stored struct {
	File     string         `json:"file"`
	Modality vault.Modality `json:"modality"`
	Status   string         `json:"status"` // stored, repeated, known, refused, failed or not_tried
	Image    *storedImage   `json:"image,omitempty"`
	Error    *errorBody     `json:"error,omitempty"`
	err      error          // the same
}

// storedImage is what the service said of an image it has.
type storedImage struct {
	Record      string `json:"record"`
	KeyName     string `json:"key_name"`
	StoreTime   string `json:"store_time"`
	ContentType string `json:"content_type"`
	Size        int64  `json:"size"`
}

// capture stores pictures, some at once, and tells of each in their order.
func (a *app) capture(ctx context.Context, run *capture, found gathered, parallel int) error {
	results := make([]chan stored, len(found.pictures))
	for i := range results {
		results[i] = make(chan stored, 1)
	}
	next := atomic.Int64{}
	for range min(parallel, len(results)) {
		// Each ends when the pictures do, and all results are waited for below.
		go func() {
			for i := next.Add(1) - 1; i < int64(len(results)); i = next.Add(1) - 1 {
				results[i] <- run.store(ctx, found.pictures[i])
			}
		}()
	}
	var all []stored
	bar := a.bar("storing", len(results))
	var writeErr error
	for _, r := range results {
		s := <-r
		all = append(all, s)
		bar.add()
		if a.output == jsonOutput && writeErr == nil {
			writeErr = a.lineJSON(s)
		}
	}
	bar.done()
	if a.output != jsonOutput {
		writeErr = a.showTable(func(t *grid) { captureTable(t, all, found.passed) })
	}
	if err := captureError(all); err != nil {
		return err
	}
	return writeErr
}

func captureTable(t *grid, all []stored, passed int) {
	t.row("FILE", "SHOWS", "STATUS", "SIZE", "RECORD")
	n := map[string]int{}
	var bytes int64
	for _, s := range all {
		n[s.Status]++
		switch {
		case s.Image != nil:
			bytes += s.Image.Size
			t.row(s.File, s.Modality, s.Status, humanize.IBytes(uint64(s.Image.Size)), bare(s.Image.Record))
		case s.Error != nil:
			t.row(s.File, s.Modality, s.Status, "-", s.Error.Message)
		default:
			t.row(s.File, s.Modality, s.Status, "-", "-")
		}
	}
	t.line("%d stored, %d repeated, %d known, %d refused, %d failed, %d not tried (%s)",
		n["stored"], n["repeated"], n["known"], n["refused"], n["failed"], n["not_tried"], humanize.IBytes(uint64(bytes)))
	if passed > 0 {
		t.line("%s in folders passed over: not .jpg, .jpeg or .png", count(passed, "other file"))
	}
}

// captureError is nil when every picture is in the vault.
func captureError(all []stored) error {
	bad := 0
	var first error
	for _, s := range all {
		if s.err == nil && s.Status != "not_tried" {
			continue
		}
		bad++
		if s.err != nil && stops(s.err) && (first == nil || errors.Is(first, context.Canceled)) {
			first = s.err
		}
	}
	switch {
	case bad == 0:
		return nil
	case first != nil:
		return fmt.Errorf("%d of %s not stored: %w", bad, count(len(all), "picture"), first)
	}
	return &hinted{&incomplete{fmt.Sprintf("%d of %s not stored", bad, count(len(all), "picture"))}, "the list says why; running the command again stores only what is missing"}
}

// store stores one picture and says what came of it.
func (c *capture) store(ctx context.Context, p picture) stored {
	out := stored{File: p.path, Modality: p.modality}
	if c.stopped.Load() {
		out.Status = "not_tried"
		return out
	}
	got, err := c.send(ctx, p)
	if c.moving() && vault.ReasonOf(err) == vault.ReasonRequestIDReused {
		// The ID is made of all that the service compares, but the time.
		out.Status = "known"
		return out
	}
	if err != nil {
		body, code := describe(err)
		out.Status, out.Error, out.err = "failed", &body, err
		if code == exitRefused || vault.KindOf(err) == vault.Invalid {
			out.Status = "refused"
		}
		if stops(err) {
			c.stopped.Store(true)
		}
		return out
	}
	out.Status = "stored"
	if got.Repeated {
		out.Status = "repeated"
	}
	out.Image = &storedImage{
		Record: got.Record, KeyName: got.KeyName, StoreTime: when(got.StoreTime), ContentType: got.ContentType, Size: got.Size,
	}
	return out
}

// moving says whether the capture time is another one in every run.
func (c *capture) moving() bool { return !c.byFile && c.fixed.IsZero() }

// stops says whether an error would meet every other picture as well.
func stops(err error) bool {
	switch vault.KindOf(err) {
	case vault.Denied, vault.Unavailable:
		return true
	}
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

func (c *capture) send(ctx context.Context, p picture) (*pb.StoreImageResponse, error) {
	b, err := readLimited(p.path, maxPicture)
	if err != nil {
		return nil, err
	}
	in := client.Image{Modality: p.modality, CrossingID: c.crossing, Bytes: b, CapturedAt: c.fixed}
	if c.byFile {
		info, err := os.Stat(p.path)
		if err != nil {
			return nil, err
		}
		in.CapturedAt = vault.Micro(info.ModTime())
	}
	in.RequestID = c.requestID(in)
	if c.moving() {
		in.CapturedAt = c.now
	}
	return c.session.Store(ctx, in)
}
