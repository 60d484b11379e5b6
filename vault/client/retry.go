package client

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

// How long calls take and are repeated when the configuration does not say.
const (
	// defaultTimeout is over the two minutes that the service gives a request to arrive, and
	// the thirty seconds in which it opens an image.
	defaultTimeout  = 150 * time.Second
	defaultPatience = 5 * time.Second
	// onceTimeout ends a call that is not repeated: its answer may take a barrier, or a
	// destruction of many keys.
	onceTimeout = 10 * time.Minute

	firstWait = 200 * time.Millisecond
	mostWait  = 15 * time.Second

	// rateWait is the longest that a rate makes a call wait: rates are of one minute.
	rateWait = 2 * time.Minute
	// rateTries is how many times in a row it does so: others may use up the same grant's rate.
	rateTries = 10
)

// repeatable are the calls of which a second one does no more than the first: they read, or
// carry a request ID, or ask for what then is so. The others are never repeated here, since
// nobody can tell whether the first one arrived:
//
//   - ApproveGrant, DenyGrant, SignDecision: the second is refused as done already;
//   - ActivateGrant: it ends the token of the one before, which may answer later;
//   - RevokeKeys: the second finds nothing left to revoke.
//
// After one of these has failed, look at the grant or decision, or give the command again.
var repeatable = map[string]bool{
	pb.CaptureService_StoreImage_FullMethodName:        true, // request_id
	pb.GrantService_RequestGrant_FullMethodName:        true, // request_id
	pb.GrantService_GetGrant_FullMethodName:            true,
	pb.GrantService_ListGrants_FullMethodName:          true,
	pb.GrantService_RevokeGrant_FullMethodName:         true, // ended is ended; the barrier is held again
	pb.GrantService_RetireGrant_FullMethodName:         true,
	pb.ReleaseService_ListRecords_FullMethodName:       true,
	pb.ReleaseService_FetchImage_FullMethodName:        true, // the same image again costs no quota
	pb.AdminService_ProposeDecision_FullMethodName:     true, // gives the decision that is open
	pb.AdminService_ListPurposes_FullMethodName:        true,
	pb.AdminService_ListContractors_FullMethodName:     true,
	pb.AdminService_SuspendContractor_FullMethodName:   true,
	pb.AdminService_ListRecordKeys_FullMethodName:      true,
	pb.AdminService_CreateRecordList_FullMethodName:    true, // request_id
	pb.AdminService_GetRecordList_FullMethodName:       true,
	pb.AuditService_ListEvents_FullMethodName:          true,
	pb.AuditService_GetCheckpoint_FullMethodName:       true,
	pb.AuditService_GetConsistencyProof_FullMethodName: true,
	pb.AuditService_GetInclusionProof_FullMethodName:   true,
	pb.AuditService_GetTile_FullMethodName:             true,
	pb.IdentityService_WhoAmI_FullMethodName:           true,
}

// patience is how long this one call is repeated.
type patience struct {
	grpc.EmptyCallOption
	d time.Duration
}

// attempts gives every call a deadline, and repeats those that may be.
func (c Config) attempts(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if !repeatable[method] {
		if _, ok := ctx.Deadline(); !ok {
			limited, cancel := context.WithTimeout(ctx, onceTimeout)
			defer cancel()
			ctx = limited
		}
		return call(ctx, method, req, reply, cc, opts...)
	}
	w := newWaits(c.Patience)
	for _, o := range opts {
		if p, ok := o.(patience); ok {
			w.patience = p.d
		}
	}
	for {
		err := c.attempt(ctx, method, req, reply, cc, call, opts...)
		if err == nil || !w.again(ctx, err) {
			return err
		}
	}
}

func (c Config) attempt(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	return call(ctx, method, req, reply, cc, opts...)
}

// waits are the pauses between attempts of one call. They grow, with jitter, and end when
// patience does.
type waits struct {
	patience time.Duration
	grow     backoff.ExponentialBackOff
	began    time.Time // of the first attempt, or of the last success
	since    time.Time // of the first failure without success since
	rates    int       // waits for a rate without success since
	told     func(time.Duration)
}

func newWaits(patience time.Duration) *waits {
	return &waits{patience: patience, began: time.Now(), grow: backoff.ExponentialBackOff{
		InitialInterval: firstWait, RandomizationFactor: backoff.DefaultRandomizationFactor, Multiplier: 2, MaxInterval: mostWait,
	}}
}

// again waits, and says whether to try once more after err, which is a status.
func (w *waits) again(ctx context.Context, err error) bool {
	told, ok := passing(err)
	if !ok || ctx.Err() != nil {
		return false
	}
	if told > 0 && vault.ReasonOf(fromStatus(err)) == vault.ReasonRateExceeded {
		return w.rate(ctx, told)
	}
	if w.since.IsZero() {
		w.since = time.Now()
		if vault.ReasonOf(fromStatus(err)) == vault.ReasonVaultUnavailable {
			w.since = w.began // the service has been patient already
		}
	}
	pause := max(told, w.grow.NextBackOff())
	if time.Since(w.since)+pause > w.patience {
		return false
	}
	return pauseFor(ctx, pause)
}

// rate waits until the rate of a purpose allows more, as long as the service says: that is how a
// grant is meant to be used, so it has nothing to do with patience. Who does not wait ends the
// grant ([vault.MaxExcess]).
func (w *waits) rate(ctx context.Context, told time.Duration) bool {
	if w.rates++; told > rateWait || w.rates > rateTries {
		return false
	}
	if end, ok := ctx.Deadline(); ok && time.Until(end) < told {
		return false // it would be in vain
	}
	if w.told != nil {
		w.told(told)
	}
	// A little longer: others wait for the same moment.
	return pauseFor(ctx, told+time.Duration(float64(firstWait)*rand.Float64()))
}

func pauseFor(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// progress begins anew after a success.
func (w *waits) progress() {
	w.began, w.since, w.rates = time.Now(), time.Time{}, 0
	w.grow.Reset()
}

// passing says whether a failure may pass by itself, and how long the service wants to be
// left alone. The context of the call must still be alive.
func passing(err error) (told time.Duration, ok bool) {
	s, is := status.FromError(err)
	if !is {
		return 0, false
	}
	for _, d := range s.Details() {
		if r, is := d.(*errdetails.RetryInfo); is {
			told, ok = r.GetRetryDelay().AsDuration(), true
		}
	}
	switch s.Code() {
	case codes.Unavailable, // the service says so, or the connection is lost
		codes.DeadlineExceeded, // of this attempt
		codes.Canceled:         // by the service, which is stopping or ends an access: it tells the next call why
		return told, true
	case codes.ResourceExhausted:
		return told, ok // a quota comes without
	}
	return 0, false
}
