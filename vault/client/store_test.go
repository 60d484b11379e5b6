package client

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

func shot(size int) Image {
	return Image{RequestID: vault.NewID(), Modality: vault.Face, CapturedAt: time.Now(), Bytes: make([]byte, size)}
}

// TestStoreAgain: whatever fails on the way, one image is one record.
func TestStoreAgain(t *testing.T) {
	for name, set := range map[string]func(f *faulty){
		"away three times": func(f *faulty) {
			f.before = func(_ context.Context, n int) error {
				if n <= 3 {
					return status.Error(codes.Unavailable, "away")
				}
				return nil
			}
		},
		"connection lost before": func(f *faulty) {
			f.before = func(_ context.Context, n int) error {
				if n == 1 {
					f.cut()
				}
				return nil
			}
		},
		"answer lost after the commit": func(f *faulty) {
			f.after = func(n int) error {
				if n <= 2 {
					f.cut()
				}
				return nil
			}
		},
		"answer too late": func(f *faulty) {
			f.after = func(n int) error {
				if n == 1 {
					time.Sleep(1500 * time.Millisecond)
				}
				return nil
			}
		},
		"busy": func(f *faulty) {
			f.before = func(_ context.Context, n int) error {
				if n == 1 {
					return busy(time.Millisecond)
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, c := serve(t, Config{Timeout: time.Second, Patience: 20 * time.Second})
			set(f)
			in := shot(1000)
			got, err := c.Store(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			if n := f.count("StoreImage"); n < 2 {
				t.Errorf("%d calls: nothing failed", n)
			}
			if len(f.records) != 1 || f.records[in.RequestID.String()] != got.Record {
				t.Errorf("got %s; the service has %v", got.Record, f.records)
			}
		})
	}
}

// TestFinalAnswers are never asked for twice.
func TestFinalAnswers(t *testing.T) {
	for _, code := range []codes.Code{
		codes.InvalidArgument, codes.NotFound, codes.PermissionDenied, codes.FailedPrecondition, codes.ResourceExhausted,
		codes.AlreadyExists, codes.Aborted, codes.DataLoss, codes.Internal, codes.Unimplemented, codes.Unknown,
	} {
		f, c := serve(t, Config{})
		f.before = func(context.Context, int) error { return status.Error(code, "no") }
		if _, err := c.Store(t.Context(), shot(1)); err == nil || status.Code(err) != code {
			t.Errorf("%s: %v", code, err)
		}
		if n := f.count("StoreImage"); n != 1 {
			t.Errorf("%s: %d calls", code, n)
		}
	}
}

// TestOnlyRepeatableCallsAreRepeated: activating again would end the token of the first.
func TestOnlyRepeatableCallsAreRepeated(t *testing.T) {
	f, c := serve(t, Config{})
	var deadlines []time.Duration
	f.before = func(ctx context.Context, n int) error {
		at, _ := ctx.Deadline()
		deadlines = append(deadlines, time.Until(at))
		if n == 1 {
			return status.Error(codes.Unavailable, "away")
		}
		return nil
	}
	if _, err := c.Grants.GetGrant(t.Context(), &pb.GetGrantRequest{Name: "grants/x"}); err != nil || f.count("GetGrant") != 2 {
		t.Errorf("a read: %v after %d calls", err, f.count("GetGrant"))
	}
	_, err := c.Grants.ActivateGrant(t.Context(), &pb.ActivateGrantRequest{})
	if vault.KindOf(err) != vault.Unavailable || f.count("ActivateGrant") != 1 {
		t.Errorf("an activation: %v after %d calls", err, f.count("ActivateGrant"))
	}
	for _, d := range deadlines {
		if d <= 0 || d > onceTimeout {
			t.Errorf("a call has %s", d)
		}
	}
}

func TestPatience(t *testing.T) {
	f, c := serve(t, Config{Patience: 700 * time.Millisecond})
	f.before = func(context.Context, int) error { return status.Error(codes.Unavailable, "away") }
	began := time.Now()
	if _, err := c.Store(t.Context(), shot(1)); vault.KindOf(err) != vault.Unavailable {
		t.Error(err)
	}
	if took := time.Since(began); took > 2*time.Second || f.count("StoreImage") < 2 {
		t.Errorf("gave up after %s and %d calls", took, f.count("StoreImage"))
	}

	// The service's own wish counts, also against impatience.
	f, c = serve(t, Config{Patience: time.Second})
	f.before = func(context.Context, int) error { return busy(time.Hour) }
	if _, err := c.Store(t.Context(), shot(1)); vault.ReasonOf(err) != vault.ReasonServerBusy || f.count("StoreImage") != 1 {
		t.Errorf("%v after %d calls", err, f.count("StoreImage"))
	}

	f, c = serve(t, Config{Patience: -1})
	f.before = func(context.Context, int) error { return status.Error(codes.Unavailable, "away") }
	if _, err := c.Store(t.Context(), shot(1)); err == nil || f.count("StoreImage") != 1 {
		t.Errorf("%v after %d calls", err, f.count("StoreImage"))
	}

	f, c = serve(t, Config{Patience: Forever})
	f.before = func(context.Context, int) error { return status.Error(codes.Unavailable, "away") }
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := c.Store(ctx, shot(1)); err == nil || time.Since(began) > 10*time.Second {
		t.Errorf("the context does not end it: %v", err)
	}
}

// TestPatienceCountsWaitsForVault: what the service waited for Vault counts, unlike what an answer
// that was lost took.
func TestPatienceCountsWaitsForVault(t *testing.T) {
	away, err := status.New(codes.Unavailable, "away").WithDetails(&errdetails.ErrorInfo{Reason: string(vault.ReasonVaultUnavailable)})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		err  error
		want int
	}{{away.Err(), 1}, {status.Error(codes.Unavailable, "lost"), 2}} {
		f, cl := serve(t, Config{Patience: 700 * time.Millisecond})
		f.before = func(context.Context, int) error {
			time.Sleep(700 * time.Millisecond)
			return c.err
		}
		if _, err := cl.Store(t.Context(), shot(1)); vault.KindOf(err) != vault.Unavailable || f.count("StoreImage") < c.want || f.count("StoreImage") > 2*c.want-1 {
			t.Errorf("%v: %d calls, want %d", c.err, f.count("StoreImage"), c.want)
		}
		f, cl = serve(t, Config{Patience: 700 * time.Millisecond})
		f.send = func(n int, _ *pb.Image) error {
			if n < 3 {
				time.Sleep(500 * time.Millisecond) // each image begins the patience anew
				return nil
			}
			time.Sleep(700 * time.Millisecond)
			return c.err
		}
		err := cl.Fetch(t.Context(), someGrant, vault.TokenOf("token"), handles(4), func(*pb.Image) error { return nil })
		if vault.KindOf(err) != vault.Unavailable || len(f.asks) < c.want || len(f.asks) > 2*c.want-1 {
			t.Errorf("%v: %d fetches, want %d", c.err, len(f.asks), c.want)
		}
	}
}

// TestStoreAll: many in flight, never more than allowed, each with one result.
func TestStoreAll(t *testing.T) {
	f, c := serve(t, Config{})
	f.before = func(_ context.Context, n int) error {
		time.Sleep(2 * time.Millisecond)
		if n%5 == 0 {
			return status.Error(codes.Unavailable, "away")
		}
		return nil
	}
	want := map[vault.ID]bool{}
	err := c.StoreAll(t.Context(), func(yield func(Image) bool) {
		for range 200 {
			in := shot(1000)
			f.mu.Lock()
			want[in.RequestID] = true
			f.mu.Unlock()
			if !yield(in) {
				return
			}
		}
	}, StorerOptions{InFlight: 8, Bytes: 5500}, func(r Result) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if r.Err != nil || r.Stored.GetRecord() != f.records[r.Image.RequestID.String()] || r.Image.Bytes != nil {
			t.Errorf("%+v", r)
		}
		delete(want, r.Image.RequestID)
	})
	if err != nil || len(want) != 0 || len(f.records) != 200 {
		t.Errorf("%v; %d without a result, %d records", err, len(want), len(f.records))
	}
	if f.most > 5 || f.mostSize > 5500 || f.most < 3 {
		t.Errorf("%d in flight, %d bytes; allowed were 5 and 5500", f.most, f.mostSize)
	}

	// One that is larger than the bound goes, alone.
	f, c = serve(t, Config{})
	s := c.NewStorer(StorerOptions{InFlight: 3, Bytes: 10})
	for _, size := range []int{5, 1000, 5} {
		in := shot(size)
		if err := s.Submit(t.Context(), int64(size), func() (Image, error) { return in, nil }, func(Result) {}); err != nil {
			t.Error(err)
		}
	}
	s.Wait()
	if f.mostSize != 1000 || len(f.records) != 3 {
		t.Errorf("%d bytes at once, %d records", f.mostSize, len(f.records))
	}
}

func TestStoreAllEndsWithItsContext(t *testing.T) {
	f, c := serve(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	var once sync.Once
	f.before = func(ctx context.Context, _ int) error {
		once.Do(cancel)
		<-ctx.Done()
		return ctx.Err()
	}
	results := 0
	err := c.StoreAll(ctx, func(yield func(Image) bool) {
		for yield(shot(1)) {
		}
	}, StorerOptions{InFlight: 4}, func(r Result) {
		results++
		if !errors.Is(r.Err, context.Canceled) {
			t.Error(r.Err)
		}
	})
	if !errors.Is(err, context.Canceled) || results == 0 || results > 4 {
		t.Errorf("%v after %d results", err, results)
	}
}
