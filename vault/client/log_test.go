package client

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/portcullis/portcullis/internal/tlog"
	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

// sizeIn gives the size of the checkpoint in a file, -1 when there is none.
func sizeIn(t *testing.T, h *history, path string) int64 {
	t.Helper()
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return -1
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := tlog.Open(b, h.signer.Verifier())
	if err != nil {
		t.Fatal(err)
	}
	return c.Size
}

// TestCheckpointIsRemembered, across clients, and the newer of two stays.
func TestCheckpointIsRemembered(t *testing.T) {
	signer := logSigner(t)
	memory := filepath.Join(t.TempDir(), "seen")
	h := newHistory(signer, 0, "x")
	for i, size := range []int{0, 1, 1, 254, 0, 1, 1, 600} {
		h.grow(size, "x")
		c := serveLog(t, h, memory)
		got, err := c.Checkpoint(t.Context())
		if err != nil || got.Size != int64(len(h.entries)) || got.Root != h.newest().Root || got.Origin != logOrigin {
			t.Fatalf("step %d: %+v, %v", i, got, err)
		}
		if n := sizeIn(t, h, memory); n != got.Size {
			t.Errorf("step %d: size %d is remembered of %d", i, n, got.Size)
		}
	}
	older := newHistory(signer, 300, "x").signed() // the same log, as it was
	c := serveLog(t, h, memory)
	if err := c.seen(t.Context(), older); err != nil {
		t.Errorf("an older checkpoint of the same log: %v", err)
	}
	if n := sizeIn(t, h, memory); n != int64(len(h.entries)) {
		t.Errorf("size %d is remembered after an older one came", n)
	}
	// Many at once, of many sizes, in any order.
	var all sync.WaitGroup
	for size := range 40 {
		all.Go(func() {
			if err := c.seen(t.Context(), newHistory(signer, 20*size, "x").signed()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// TestRewrittenLogIsTold, however the service hides it: nothing replaces what is remembered,
// and both checkpoints are kept.
func TestRewrittenLogIsTold(t *testing.T) {
	signer := logSigner(t)
	for name, set := range map[string]struct {
		now    *history
		change func(any) error
	}{
		"rolled back":               {now: newHistory(signer, 290, "x")},
		"empty":                     {now: newHistory(signer, 0, "x")},
		"another of the same size":  {now: newHistory(signer, 300, "y")},
		"another, shorter":          {now: newHistory(signer, 299, "y")},
		"another, longer":           {now: newHistory(signer, 900, "y")},
		"one event more than there": {now: newHistory(signer, 1, "y")},
		"without a proof": {newHistory(signer, 900, "y"), func(a any) error {
			if p, ok := a.(*pb.GetConsistencyProofResponse); ok {
				p.Hashes = nil
			}
			return nil
		}},
		"with a proof of others": {newHistory(signer, 900, "y"), func(a any) error {
			if p, ok := a.(*pb.GetConsistencyProofResponse); ok {
				for _, h := range p.Hashes {
					h[5] ^= 1
				}
			}
			return nil
		}},
		"that says it never was so long": {newHistory(signer, 900, "y"), func(a any) error {
			if _, ok := a.(*pb.GetConsistencyProofResponse); ok {
				return status.Error(codes.InvalidArgument, "there is no such size")
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			memory := filepath.Join(t.TempDir(), "seen")
			if _, err := serveLog(t, newHistory(signer, 300, "x"), memory).Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
			set.now.change = set.change
			c := serveLog(t, set.now, memory)
			for range 2 {
				_, err := c.Checkpoint(t.Context())
				if !errors.Is(err, ErrLogRewritten) || !strings.Contains(err.Error(), memory+".conflict") {
					t.Errorf("%v", err)
				}
				if _, err := c.ExportLog(t.Context(), t.TempDir(), func(int64, int64) {}); !errors.Is(err, ErrLogRewritten) {
					t.Errorf("export: %v", err)
				}
				if _, _, err := c.ProveEvent(t.Context(), 0); !errors.Is(err, ErrLogRewritten) {
					t.Errorf("proof of an event: %v", err)
				}
			}
			if was, is := sizeIn(t, set.now, memory), sizeIn(t, set.now, memory+".conflict"); was != 300 || is != int64(len(set.now.entries)) {
				t.Errorf("sizes %d and %d are kept", was, is)
			}
			// A client without a file is told by what it saw itself, one that saw nothing is not.
			inside := serveLog(t, set.now, "")
			if _, err := inside.Checkpoint(t.Context()); err != nil {
				t.Errorf("without a memory: %v", err)
			}
			if err := inside.seen(t.Context(), newHistory(signer, 300, "x").signed()); !errors.Is(err, ErrLogRewritten) && name != "rolled back" && name != "empty" {
				t.Errorf("within the client: %v", err)
			}
		})
	}
}

// TestCheckpointThatCanNotBeProved is not remembered, and not taken for a rewritten log either.
func TestCheckpointThatCanNotBeProved(t *testing.T) {
	signer := logSigner(t)
	memory := filepath.Join(t.TempDir(), "seen")
	h := newHistory(signer, 300, "x")
	c := serveLog(t, h, memory)
	if _, err := c.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.grow(10, "x")
	for name, change := range map[string]func(any) error{
		"away":    func(any) error { return status.Error(codes.Unavailable, "away") },
		"damaged": func(any) error { return status.Error(codes.DataLoss, "the tree does not fit") },
		"short hashes": func(a any) error {
			p := a.(*pb.GetConsistencyProofResponse)
			p.Hashes[0] = p.Hashes[0][:31]
			return nil
		},
	} {
		h.change = func(a any) error {
			if _, ok := a.(*pb.GetConsistencyProofResponse); ok {
				return change(a)
			}
			return nil
		}
		if _, err := c.Checkpoint(t.Context()); err == nil || errors.Is(err, ErrLogRewritten) {
			t.Errorf("%s: %v", name, err)
		}
		if n := sizeIn(t, h, memory); n != 300 {
			t.Errorf("%s: size %d is remembered", name, n)
		}
	}
	h.change = nil
	if got, err := c.Checkpoint(t.Context()); err != nil || got.Size != 310 {
		t.Errorf("%+v, %v", got, err)
	}

	// Nor is one of another key, one that is none, or a memory that is none.
	for name, signed := range map[string][]byte{"another key": newHistory(logSigner(t), 320, "x").signed(), "none": []byte("x")} {
		if err := c.seen(t.Context(), signed); err == nil || errors.Is(err, ErrLogRewritten) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := sizeIn(t, h, memory); n != 310 {
		t.Errorf("size %d is remembered", n)
	}
	if err := os.WriteFile(memory, []byte("spoilt"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Checkpoint(t.Context()); err == nil || !strings.Contains(err.Error(), memory) {
		t.Errorf("a memory that is spoilt: %v", err)
	}
}

// TestLogNeedsItsKey: what can not be checked is not asked for.
func TestLogNeedsItsKey(t *testing.T) {
	h := newHistory(logSigner(t), 5, "x")
	c := serveLog(t, h, "")
	c.log = nil
	_, one := c.Checkpoint(t.Context())
	_, two := c.ExportLog(t.Context(), t.TempDir(), func(int64, int64) {})
	_, _, three := c.ProveEvent(t.Context(), 0)
	for _, err := range []error{one, two, three} {
		if !errors.Is(err, ErrNoLogKey) {
			t.Error(err)
		}
	}
	if err := c.seen(t.Context(), []byte("whatever")); err != nil {
		t.Errorf("an image without a key: %v", err)
	}
	if _, err := open(Config{LogKey: "no key"}, "passthrough:///localhost:1", insecure.NewCredentials()); err == nil {
		t.Error("a key that is none is taken")
	}
}

func TestProveEvent(t *testing.T) {
	h := newHistory(logSigner(t), 300, "x")
	c := serveLog(t, h, "")
	for _, i := range []int64{0, 1, 255, 256, 299} {
		got, at, err := c.ProveEvent(t.Context(), i)
		if err != nil || string(got) != string(h.entries[i]) || at.Size != 300 {
			t.Errorf("event %d: %q, %+v, %v", i, got, at, err)
		}
	}
	for _, i := range []int64{-1, 300} {
		if _, _, err := c.ProveEvent(t.Context(), i); vault.KindOf(err) != vault.Invalid {
			t.Errorf("event %d: %v", i, err)
		}
	}
	for name, change := range map[string]func(any) error{
		"another event": func(a any) error {
			if l, ok := a.(*pb.ListEventsResponse); ok {
				l.Events[0].Event = []byte(`{"v":1,"word":"forged"}`)
			}
			return nil
		},
		"another index": func(a any) error {
			if l, ok := a.(*pb.ListEventsResponse); ok {
				l.Events[0].Index++
			}
			return nil
		},
		"none": func(a any) error {
			if l, ok := a.(*pb.ListEventsResponse); ok {
				l.Events = nil
			}
			return nil
		},
		"another proof": func(a any) error {
			if p, ok := a.(*pb.GetInclusionProofResponse); ok {
				p.Hashes[0][0] ^= 1
			}
			return nil
		},
		"a short proof": func(a any) error {
			if p, ok := a.(*pb.GetInclusionProofResponse); ok {
				p.Hashes = p.Hashes[1:]
			}
			return nil
		},
	} {
		h.change = change
		_, _, err := c.ProveEvent(t.Context(), 17)
		if vault.KindOf(err) != vault.DataLoss && !errors.Is(err, tlog.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestExportLogTrustsNothing: events that are not those of the checkpoint leave no checkpoint
// in the export; once the service gives the right ones, the export goes on.
func TestExportLogTrustsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		change func(l *pb.ListEventsResponse)
		want   string
	}{
		"changed":   {func(l *pb.ListEventsResponse) { l.Events[40].Event = []byte("{}") }, "entry 40 was changed"},
		"left out":  {func(l *pb.ListEventsResponse) { l.Events = append(l.Events[:40:40], l.Events[41:]...) }, "event 41 where 40 is due"},
		"swapped":   {func(l *pb.ListEventsResponse) { l.Events[4], l.Events[5] = l.Events[5], l.Events[4] }, "event 5 where 4 is due"},
		"renamed":   {func(l *pb.ListEventsResponse) { l.Events[40].Index = 7 }, "event 7 where 40 is due"},
		"too long":  {func(l *pb.ListEventsResponse) { l.Events[3].Event = make([]byte, 65_536) }, "65536 bytes"},
		"none":      {func(l *pb.ListEventsResponse) { l.Events = nil }, "no event from 0 on"},
		"one twice": {func(l *pb.ListEventsResponse) { l.Events[9] = l.Events[8] }, "event 8 where 9 is due"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHistory(logSigner(t), 300, "x")
			cl := serveLog(t, h, "")
			h.change = func(a any) error {
				if l, ok := a.(*pb.ListEventsResponse); ok {
					c.change(l)
				}
				return nil
			}
			dir := t.TempDir()
			_, err := cl.ExportLog(t.Context(), dir, func(int64, int64) {})
			if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, ErrLogRewritten) {
				t.Errorf("%v; want %s", err, c.want)
			}
			if b, err := tlog.Dir(dir).Checkpoint(); b != nil || err != nil {
				t.Errorf("the export has a checkpoint: %q, %v", b, err)
			}
			h.change = nil
			at, err := cl.ExportLog(t.Context(), dir, func(int64, int64) {})
			if err != nil || at.Size != 300 {
				t.Fatalf("%+v, %v", at, err)
			}
			v, err := tlog.Dir(dir).Verify(t.Context(), h.signer.Verifier(), nil, func(int64, int64) {})
			if err != nil || len(v.Findings) > 0 {
				t.Errorf("%q, %v", v.Findings, err)
			}
		})
	}
}

// TestFetchChecksTheLog: what comes with images and pages is held against what was seen.
func TestFetchChecksTheLog(t *testing.T) {
	signer := logSigner(t)
	memory := filepath.Join(t.TempDir(), "seen")
	h := newHistory(signer, 300, "x")
	f, c := serveImages(t, h, memory)
	with := h.signed()
	f.send = func(n int, img *pb.Image) error {
		if n == 1 {
			img.Checkpoint = with
		}
		return nil
	}
	f.list = func(*pb.ListRecordsRequest) *pb.ListRecordsResponse {
		return &pb.ListRecordsResponse{Checkpoint: with}
	}
	fetch := func() (came int, err error) {
		f.mu.Lock()
		f.sent = 0
		f.mu.Unlock()
		err = c.Fetch(t.Context(), someGrant, vault.TokenOf("token"), handles(5), func(*pb.Image) error { came++; return nil })
		return came, err
	}
	list := func() error {
		return c.Records(t.Context(), someGrant, vault.TokenOf("token"), func(*pb.RecordView) error { return nil })
	}
	if n, err := fetch(); n != 5 || err != nil || sizeIn(t, h, memory) != 300 {
		t.Errorf("%d images, %v, %d remembered", n, err, sizeIn(t, h, memory))
	}
	h.grow(1, "x")
	with = h.signed()
	if err := list(); err != nil || sizeIn(t, h, memory) != 301 {
		t.Errorf("%v, %d remembered", err, sizeIn(t, h, memory))
	}
	// A log that was rewritten, also behind a stream that fails.
	with = newHistory(signer, 400, "y").signed()
	if _, err := fetch(); !errors.Is(err, ErrLogRewritten) {
		t.Errorf("fetch: %v", err)
	}
	if err := list(); !errors.Is(err, ErrLogRewritten) {
		t.Errorf("list: %v", err)
	}
	send := f.send
	f.send = func(n int, img *pb.Image) error {
		if n == 3 {
			return status.Error(codes.PermissionDenied, "revoked")
		}
		return send(n, img)
	}
	if n, err := fetch(); !errors.Is(err, ErrLogRewritten) || vault.KindOf(err) != vault.Denied || n != 2 {
		t.Errorf("a fetch that fails: %d images, %v", n, err)
	}
	f.send = send
	with = []byte("— no checkpoint")
	if _, err := fetch(); err == nil || errors.Is(err, ErrLogRewritten) {
		t.Errorf("fetch with what is no checkpoint: %v", err)
	}
	// Whoever leaves hears that it left.
	with = h.signed()
	ctx, cancel := context.WithCancel(t.Context())
	f.send = func(n int, img *pb.Image) error {
		img.Checkpoint = with
		cancel()
		time.Sleep(50 * time.Millisecond)
		return nil
	}
	if err := c.Fetch(ctx, someGrant, vault.TokenOf("token"), handles(5), func(*pb.Image) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("left: %v", err)
	}
}
