package client

import (
	"context"
	"slices"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

// exhausted is what the service answers for a reason, with a time to wait when it is not 0.
func exhausted(r vault.Reason, after time.Duration) error {
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: string(r)}}
	if after != 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	}
	s, err := status.New(codes.ResourceExhausted, "no more").WithDetails(details...)
	if err != nil {
		panic(err)
	}
	return s.Err()
}

// TestFetchWaitsForTheRate: at the rate of a purpose a fetch waits as long as it is told, however
// little patience it has, asks once, and goes on where it was.
func TestFetchWaitsForTheRate(t *testing.T) {
	const wait = 300 * time.Millisecond
	f, c := serve(t, Config{Patience: time.Millisecond})
	var refused time.Time
	calls := 0
	f.send = func(n int, _ *pb.Image) error {
		if calls++; n == 4 || n == 8 {
			refused = time.Now()
			return exhausted(vault.ReasonRateExceeded, wait)
		}
		if !refused.IsZero() && time.Since(refused) < wait {
			t.Errorf("asked again after %s", time.Since(refused))
		}
		return nil
	}
	want := handles(9)
	var got []string
	var told []time.Duration
	e := Expect{Waiting: func(d time.Duration) { told = append(told, d) }}
	err := c.FetchExpected(t.Context(), someGrant, vault.TokenOf("token"), want, e, func(i *pb.Image) error {
		got = append(got, i.Handle)
		return nil
	})
	if err != nil || !slices.Equal(got, want) || !slices.Equal(told, []time.Duration{wait, wait}) {
		t.Fatalf("%v after %v; told %v", err, got, told)
	}
	if len(f.asks) != 3 || calls != len(want)+2 || f.asks[1][0] != want[3] || f.asks[2][0] != want[6] {
		t.Errorf("asked %d times, %d images", len(f.asks), calls)
	}
}

// TestRateIsNotWaitedForInVain: nor for a quota, nor without end, nor past the caller's own.
func TestRateIsNotWaitedForInVain(t *testing.T) {
	fetch := func(ctx context.Context, answer error) (calls int, err error) {
		f, c := serve(t, Config{Patience: 20 * time.Second})
		f.before = func(context.Context, int) error { return answer }
		err = c.Fetch(ctx, someGrant, vault.TokenOf("token"), handles(2), func(*pb.Image) error { return nil })
		return f.count("FetchImages"), err
	}
	for _, r := range []vault.Reason{vault.ReasonQuotaExceeded, vault.ReasonBytesExceeded, vault.ReasonUsesSpent} {
		if n, err := fetch(t.Context(), exhausted(r, 0)); n != 1 || vault.ReasonOf(err) != r {
			t.Errorf("%s: asked %d times, %v", r, n, err)
		}
	}
	if n, err := fetch(t.Context(), exhausted(vault.ReasonRateExceeded, rateWait+time.Second)); n != 1 || vault.ReasonOf(err) != vault.ReasonRateExceeded {
		t.Errorf("a long wait: asked %d times, %v", n, err)
	}
	if n, err := fetch(t.Context(), exhausted(vault.ReasonRateExceeded, time.Millisecond)); n != rateTries+1 || vault.ReasonOf(err) != vault.ReasonRateExceeded {
		t.Errorf("others take it all: asked %d times, %v", n, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	began := time.Now()
	if n, err := fetch(ctx, exhausted(vault.ReasonRateExceeded, time.Minute)); n != 1 || vault.ReasonOf(err) != vault.ReasonRateExceeded || time.Since(began) > 4*time.Second {
		t.Errorf("past the deadline: asked %d times, %v after %s", n, err, time.Since(began))
	}
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(200*time.Millisecond, cancel)
	began = time.Now()
	if n, err := fetch(ctx, exhausted(vault.ReasonRateExceeded, time.Minute)); n != 1 || err == nil || time.Since(began) > 10*time.Second {
		t.Errorf("given up: asked %d times, %v after %s", n, err, time.Since(began))
	}
}

// TestOneImageWaitsForTheRate: so does a call for one image.
func TestOneImageWaitsForTheRate(t *testing.T) {
	w := newWaits(-1)
	if !w.again(t.Context(), exhausted(vault.ReasonRateExceeded, time.Millisecond)) || w.again(t.Context(), busy(time.Millisecond)) {
		t.Error("patience counts for rates, or not for what is busy")
	}
}
