package server

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/proto"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

// early registers services so that callers are judged before their requests are read. grpc
// reads the whole request of a unary method before it asks any interceptor; of a stream it
// reads nothing before the handler wants it. On the wire the two are the same.
//
// ServerStreams must be set: of methods that stream neither way grpc leaves out the stream
// interceptor, which is what admits callers. The unary interceptor refuses what was
// registered in another way.
type early struct{ *grpc.Server }

// RegisterService registers the unary methods as streams of one message each way.
func (e early) RegisterService(d *grpc.ServiceDesc, impl any) {
	as := *d
	as.Methods = nil
	as.Streams = append([]grpc.StreamDesc(nil), d.Streams...)
	for _, m := range d.Methods {
		as.Streams = append(as.Streams, grpc.StreamDesc{
			StreamName:    m.MethodName,
			ServerStreams: true,
			Handler: func(srv any, ss grpc.ServerStream) error {
				answer, err := m.Handler(srv, ss.Context(), ss.RecvMsg, nil)
				if err != nil {
					return err
				}
				return ss.SendMsg(answer)
			},
		})
	}
	e.Server.RegisterService(&as, impl)
}

// unadmitted refuses methods that were not registered through early: nobody would have
// looked at the caller.
func unadmitted(_ context.Context, _ any, info *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
	return nil, status.Errorf(codes.Internal, "%s is not served", info.FullMethod)
}

// arriving is the context of a call. It ends, as by a deadline, when the request takes too
// long to arrive; after that only the caller ends it.
type arriving struct {
	context.Context
	late  atomic.Bool
	timer *time.Timer
}

type arrivingKey struct{}

func (c *arriving) Value(key any) any {
	if key == (arrivingKey{}) {
		return c
	}
	return c.Context.Value(key)
}

func (c *arriving) Err() error {
	err := c.Context.Err()
	if err != nil && c.late.Load() {
		return context.DeadlineExceeded
	}
	return err
}

// tap is asked before a call begins, with nothing but its headers read. It must not wait.
func (a *api) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	c, err := a.Config.Caller(ctx)
	if err != nil {
		return ctx, toStatus(ctx, a.Log, info.FullMethodName, err)
	}
	if !a.calls.add(c.ID) {
		return ctx, toStatus(ctx, a.Log, info.FullMethodName, busy("the service is at its limit of calls under way"))
	}
	under, cancel := context.WithCancel(ctx)
	in := &arriving{Context: under}
	in.timer = time.AfterFunc(a.ReceiveTime, func() {
		in.late.Store(true)
		cancel()
	})
	context.AfterFunc(ctx, func() {
		in.timer.Stop()
		cancel()
		a.calls.remove(c.ID)
	})
	return in, nil
}

// incoming holds a call's part of the budgets: all that a request may have while it is
// read, then what it has.
type incoming struct {
	grpc.ServerStream
	api    *api
	caller vault.Caller
	method string
	grant  string // that the request names, as it wrote it; empty if none

	request, fetch *hold
}

// fetches are the methods that send images.
var fetches = map[string]bool{
	pb.ReleaseService_FetchImage_FullMethodName:  true,
	pb.ReleaseService_FetchImages_FullMethodName: true,
}

// RecvMsg reads the request. Every method has one.
func (s *incoming) RecvMsg(m any) (err error) {
	ctx := s.Context()
	if s.request, err = s.api.requests.take(ctx, s.caller.ID, largestMessage(s.api.MaxImage)); err != nil {
		return err
	}
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	s.grant = grantOf(m)
	if in, ok := ctx.Value(arrivingKey{}).(*arriving); ok {
		in.timer.Stop()
	}
	n := int64(proto.Size(m.(proto.Message)))
	if n > maxOverhead && s.method != pb.CaptureService_StoreImage_FullMethodName {
		return vault.E(vault.Invalid, vault.ReasonInvalidField, "the request has %d bytes; at most %d are taken", n, maxOverhead)
	}
	s.request.shrinkTo(n)
	if fetches[s.method] {
		// The ciphertext or the message, and the image.
		s.fetch, err = s.api.fetches.take(ctx, s.caller.ID, 2*s.api.MaxImage)
	}
	return err
}

// done gives back what the call holds.
func (s *incoming) done() {
	s.request.shrinkTo(0)
	s.fetch.shrinkTo(0)
}
