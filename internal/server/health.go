package server

import (
	"context"
	"sync"

	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
)

// Health tells which services can do their work. Its methods may be called at once from many
// goroutines.
type Health struct {
	*health.Server
	once    sync.Once
	drained chan struct{} // closed once nothing serves any more
}

func newHealth() *Health { return &Health{Server: health.NewServer(), drained: make(chan struct{})} }

// standingless are the methods that a caller's standing is not asked for: whoever is
// authenticated learns that the database is gone, in which standings are kept.
var standingless = map[string]bool{
	healthpb.Health_Check_FullMethodName: true,
	healthpb.Health_List_FullMethodName:  true,
	healthpb.Health_Watch_FullMethodName: true,

	pb.IdentityService_GetStatus_FullMethodName: true, // it tells the standing itself
}

// Shutdown says of all services, for good, that they do not serve. Each watcher is told, and
// its call ends, so that no watcher holds up a graceful stop.
func (h *Health) Shutdown() {
	h.Server.Shutdown()
	h.once.Do(func() { close(h.drained) })
}

// Watch streams the health of one service until the caller leaves or the service shuts down.
func (h *Health) Watch(in *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	w := &watching{Health_WatchServer: stream, ctx: ctx, cancel: cancel}
	waiting := make(chan struct{})
	go func() {
		defer close(waiting)
		select {
		case <-h.drained:
			w.drain()
		case <-ctx.Done():
		}
	}()
	err := h.Server.Watch(in, w)
	cancel()
	<-waiting
	if stream.Context().Err() == nil && w.draining {
		return nil
	}
	return err
}

// watching is the call of a watcher. It ends once the service shuts down and the watcher
// knows it.
type watching struct {
	healthpb.Health_WatchServer
	ctx    context.Context
	cancel context.CancelFunc

	mu       sync.Mutex
	told     healthpb.HealthCheckResponse_ServingStatus
	draining bool
}

func (w *watching) Context() context.Context { return w.ctx }

func (w *watching) Send(r *healthpb.HealthCheckResponse) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if err := w.Health_WatchServer.Send(r); err != nil {
		return err
	}
	w.told = r.Status
	w.end()
	return nil
}

func (w *watching) drain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.draining = true
	w.end()
}

// end ends the call if there is nothing more to tell. The lock is held.
func (w *watching) end() {
	if w.draining && w.told != healthpb.HealthCheckResponse_SERVING && w.told != healthpb.HealthCheckResponse_UNKNOWN {
		w.cancel()
	}
}
