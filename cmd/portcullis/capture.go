package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
)

// Limits of a capture.
const (
	maxParallel = 64       // images on their way; the service takes 256 calls at once on a connection
	maxPicture  = 64 << 20 // bytes of a file; the service's own limit is lower

	// capturePatience is how long pictures wait for a service that is away: its restart. It is no
	// longer than the service waits for a Vault that hangs: then it is not tried again.
	capturePatience = 10 * time.Second
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
		class    = classFlag(vault.DefaultClass)
		parallel int
		results  string
		watching bool
		remove   bool
		retry    bool
		settle   time.Duration
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

--class is their retention class. A picture keeps the class in which it was stored; the same
picture in another class is another record.

Running it again is harmless, also after a crash: each picture has a request ID that is made of
its bytes, modality, crossing, class and capture time (but not of now), under a secret that comes
from the profile's key. What was stored before is told as "repeated", or as "known" when it was stored
at an earlier now, whose time then stays. With another key the request IDs are others, so finish
a run before you renew the key. With --captured-at file a changed file time makes another record.

--results FILE also appends what came of each file to FILE (mode 0600), one JSON object a line.

--watch keeps up with one folder until it is interrupted: it stores each picture once its file
has not changed for --settle, and keeps what came of each in DIR/.portcullis/results.jsonl, or in
--results FILE. Killed at any instant and started again, it goes on where it was, and stores
nothing twice. What the service refuses is tried again when the file changes, or in a later run
with --retry-refused. While the service is away, it waits and says so. The capture time is the
file's, unless --captured-at gives one. Names that begin with a dot are passed over, so write to
such a name and rename; a file stands for one picture, so give each a name of its own.

--remove deletes each file once the service has acknowledged it and its result is on the disk.
What then lies in DIR is what is not stored: still waiting, or refused. Deleting does not wipe
the disk.`,
		Example: `  portcullis --profile lane capture ./pictures
  portcullis --profile lane capture --modality plate --captured-at file plates/*.jpg
  portcullis --profile lane capture --class us-citizen ./lane-of-citizens
  portcullis --profile lane capture /var/spool/lane --watch --remove`,
		Args: atLeastOne,
	}
	f := c.Flags()
	f.Var(&mod, "modality", "what the pictures show")
	f.StringVar(&captured, "captured-at", capturedNow, "when they were taken: now, file or a `TIME`")
	f.Var(&crossing, "crossing", "they are all of this vehicle's or traveller's passing")
	f.Var(&class, "class", "their retention class")
	f.IntVar(&parallel, "parallel", 8, "how many are on their way at once: `N`")
	f.StringVar(&results, "results", "", "append what came of each file to `FILE`")
	f.BoolVar(&watching, "watch", false, "keep up with a folder until interrupted")
	f.BoolVar(&remove, "remove", false, "with --watch: delete each file that is stored")
	f.BoolVar(&retry, "retry-refused", false, "with --watch: try again what an earlier run was refused")
	f.DurationVar(&settle, "settle", 2*time.Second, "with --watch: a file is whole when it has not changed for so `LONG`")
	complete(c, "modality", "face", "plate")
	complete(c, "captured-at", capturedNow, capturedFile)
	c.RunE = a.call(func(ctx context.Context, s *session, args []string) error {
		if parallel < 1 || parallel > maxParallel {
			return usagef("--parallel must be from 1 to %d", maxParallel)
		}
		if !watching && (remove || retry || c.Flags().Changed("settle")) {
			return usagef("--remove, --retry-refused and --settle are for --watch")
		}
		if settle < minSettle || settle > maxSettle {
			return usagef("--settle must be from %s to %s", minSettle, maxSettle)
		}
		run := &capture{now: vault.Micro(a.now()), crossing: vault.ID(crossing), class: string(class)}
		switch {
		case captured == capturedFile, watching && !c.Flags().Changed("captured-at"):
			run.byFile = true
		case watching && captured == capturedNow:
			return usagef("--captured-at now would change with each run of --watch: leave it out for the files' times")
		case captured != capturedNow:
			t, err := parseTime(captured)
			if err != nil {
				return usagef("--captured-at: %w; or now, or file", err)
			}
			run.fixed = t
		}
		var err error
		if run.requestID, err = s.RequestIDs(); err != nil {
			return err
		}
		if watching {
			if len(args) != 1 {
				return usagef("--watch keeps up with one folder; run it once for each")
			}
			return a.watch(ctx, s.Client, &watch{
				app: a, run: run, dir: args[0], only: vault.Modality(mod), settle: settle, rescan: rescanEvery,
				remove: remove, retry: retry, parallel: parallel,
			}, results)
		}
		found, err := gather(args, vault.Modality(mod))
		if err != nil {
			return err
		}
		return a.capture(ctx, s.Client, run, found, parallel, results)
	})
	return c
}

// capture is how pictures are stored.
type capture struct {
	requestID func(client.Image) vault.ID
	now       time.Time // when the command began
	byFile    bool      // capture times are the files'
	fixed     time.Time // capture time, if not zero
	crossing  vault.ID
	class     string // retention class

	stopped atomic.Bool // an error came that every other picture would meet, too
}

// stored is what came of one file, in JSON.
type stored struct {
	File     fileName       `json:"file"`
	Modality vault.Modality `json:"modality"`
	Status   string         `json:"status"` // stored, repeated, known, refused, failed or not_tried
	Image    *storedImage   `json:"image,omitempty"`
	Error    *errorBody     `json:"error,omitempty"`
	err      error          // the same
	in       client.Image   // as it was read, without its bytes
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
func (a *app) capture(ctx context.Context, c *client.Client, run *capture, found gathered, parallel int, file string) error {
	var kept *lines
	if file != "" {
		var err error
		if kept, err = openLines(file, func([]byte) error { return nil }); err != nil {
			return fmt.Errorf("file of results: %w", err)
		}
		defer kept.close()
	}
	sizes, total := found.sizes()
	results := make([]chan stored, len(found.pictures))
	for i := range results {
		results[i] = make(chan stored, 1)
	}
	storer := c.NewStorer(client.StorerOptions{InFlight: parallel, Patience: capturePatience})
	defer storer.Wait()
	go func() {
		// It ends when every picture has a result, and all are waited for below.
		for i, p := range found.pictures {
			err := storer.Submit(ctx, sizes[i], func() (client.Image, error) { return run.image(p) }, func(r client.Result) {
				results[i] <- run.judge(p, r)
			})
			if err != nil {
				results[i] <- run.judge(p, client.Result{Err: err})
			}
		}
	}()
	var all []stored
	bar := a.bytesBar("storing", total)
	var writeErr error
	for i, r := range results {
		s := <-r
		all = append(all, s)
		bar.addAll(sizes[i])
		if a.output == jsonOutput && writeErr == nil {
			writeErr = a.lineJSON(s)
		}
		if kept != nil && s.Status != "not_tried" && writeErr == nil {
			writeErr = kept.append(s.outcome(a.now()))
		}
	}
	bar.done()
	if kept != nil {
		writeErr = errors.Join(writeErr, kept.sync())
	}
	if a.output != jsonOutput {
		writeErr = errors.Join(writeErr, a.showTable(func(t *grid) { captureTable(t, all, found) }))
	}
	if err := captureError(all); err != nil {
		return err
	}
	return writeErr
}

func captureTable(t *grid, all []stored, found gathered) {
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
	if found.passed > 0 {
		t.line("%s in folders passed over: not .jpg, .jpeg or .png", count(found.passed, "other file"))
	}
	for _, path := range found.odd {
		t.line("%s passed over: %v", path, errNotRegular)
	}
}

// captureError is nil when every picture is in the vault.
func captureError(all []stored) error {
	bad, refused := 0, 0
	var first error
	for _, s := range all {
		if s.err == nil && s.Status != "not_tried" {
			continue
		}
		bad++
		if s.Status == "refused" {
			refused++
		}
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
	next := "the list says why; running the command again stores only what is missing"
	switch {
	case refused == bad:
		next = "the list says why; the service will not take them as they are: mend them or leave them out"
	case refused > 0:
		next = "the list says why; running the command again stores what failed, but not what is refused"
	}
	return &hinted{&incomplete{fmt.Sprintf("%d of %s not stored", bad, count(len(all), "picture"))}, next}
}

// errStopped says that a picture was not tried, because of what another one met.
var errStopped = errors.New("not tried")

// image reads one picture for storing.
func (c *capture) image(p picture) (client.Image, error) {
	if c.stopped.Load() {
		return client.Image{}, errStopped
	}
	in, v, err := c.read(p)
	if err != nil {
		return client.Image{}, err
	}
	in.CapturedAt = c.fixed
	if c.byFile {
		in.CapturedAt = vault.Micro(v.modified)
	}
	in.RequestID = c.requestID(in)
	if c.moving() {
		in.CapturedAt = c.now
	}
	return in, nil
}

// judge says what came of one picture.
func (c *capture) judge(p picture, r client.Result) stored {
	out := stored{File: fileName(p.path), Modality: p.modality, in: r.Image}
	switch {
	case errors.Is(r.Err, errStopped):
		out.Status = "not_tried"
	case c.moving() && vault.ReasonOf(r.Err) == vault.ReasonRequestIDReused:
		// The ID is made of all that the service compares, but the time.
		out.Status = "known"
	case r.Err != nil:
		body, code := describe(r.Err)
		out.Status, out.Error, out.err = "failed", &body, r.Err
		if code == exitRefused || vault.KindOf(r.Err) == vault.Invalid {
			out.Status = "refused"
		}
		if stops(r.Err) {
			c.stopped.Store(true)
		}
	default:
		out.Status = "stored"
		if r.Stored.Repeated {
			out.Status = "repeated"
		}
		out.Image = &storedImage{
			Record: r.Stored.Record, KeyName: r.Stored.KeyName, StoreTime: when(r.Stored.StoreTime),
			ContentType: r.Stored.ContentType, Size: r.Stored.Size,
		}
	}
	return out
}

// moving says whether the capture time is another one in every run.
func (c *capture) moving() bool { return !c.byFile && c.fixed.IsZero() }

// stops says whether an error would meet every other picture as well.
func stops(err error) bool {
	switch vault.KindOf(err) {
	case vault.Denied, vault.Unavailable, vault.NotOffered:
		return true
	}
	return vault.ReasonOf(err) == vault.ReasonServerBusy ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// fileVersion is what tells one writing of a file from the next.
type fileVersion struct {
	size     int64
	modified time.Time
}

func versionOf(info fs.FileInfo) fileVersion { return fileVersion{info.Size(), info.ModTime()} }

func (v fileVersion) is(o fileVersion) bool { return v.size == o.size && v.modified.Equal(o.modified) }

// errChanging says that a file was written to while it was read.
var errChanging = errors.New("the file changed while it was read; store it once it is whole")

// read reads one picture, and which version of its file that was.
func (c *capture) read(p picture) (client.Image, fileVersion, error) {
	in := client.Image{Modality: p.modality, CrossingID: c.crossing, Class: c.class}
	f, err := openRegular(p.path)
	if errors.Is(err, errNotRegular) {
		return in, fileVersion{}, vault.E(vault.Invalid, vault.ReasonImageRejected, "%s: %v; name the file itself, no link or pipe", p.path, errNotRegular).Because(err)
	}
	if err != nil {
		return in, fileVersion{}, err
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return in, fileVersion{}, err
	}
	if before.Size() > maxPicture {
		return in, versionOf(before), vault.E(vault.Invalid, vault.ReasonImageRejected, "the file has %s; at most %s are read",
			humanize.IBytes(uint64(before.Size())), humanize.IBytes(maxPicture))
	}
	if in.Bytes, err = io.ReadAll(io.LimitReader(f, maxPicture+1)); err != nil {
		return in, fileVersion{}, err
	}
	after, err := f.Stat()
	if err != nil {
		return in, fileVersion{}, err
	}
	if !versionOf(before).is(versionOf(after)) || int64(len(in.Bytes)) != after.Size() {
		return in, versionOf(after), errChanging
	}
	return in, versionOf(after), nil
}
