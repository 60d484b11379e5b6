package main

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
)

// TestRevokeDuringStreams revokes grants while 1,000 images stream to a client that reads
// slowly and to one that has stopped reading, and a third contractor's stream runs on.
func TestRevokeDuringStreams(t *testing.T) {
	const images, size = 1000, 64 << 10
	s := begin(t)
	p := purpose()
	p.Contractors = []string{devOrg, "slow-org", "stopped-org"}
	s.admit(p, p.Contractors...)
	s.store(s.as(lane), vault.Plate, images, size)

	type reader struct {
		path     string
		grant    string
		received atomic.Int64
		ended    chan error
		pause    func(n int64) // before each read
	}
	stopped := make(chan struct{}) // closed when the stopped reader may go on
	readers := []*reader{
		{path: "/contractor/slow-org/matcher", pause: func(int64) { time.Sleep(10 * time.Millisecond) }},
		{path: "/contractor/stopped-org/matcher", pause: func(n int64) {
			if n == 10 {
				<-stopped
			}
		}},
		{path: matcher, pause: func(int64) {}},
	}
	var all sync.WaitGroup
	for _, r := range readers {
		c := s.as(r.path)
		grant, token := s.granted(c, p, images)
		r.grant, r.ended = grant, make(chan error, 1)
		handles := s.handles(c, grant, token)
		if len(handles) != images {
			t.Fatalf("%d handles", len(handles))
		}
		all.Go(func() {
			stream, err := c.Release.FetchImages(t.Context(), &pb.FetchImagesRequest{Grant: grant, GrantToken: token.Reveal(), Handles: handles})
			for err == nil {
				r.pause(r.received.Load())
				if _, err = stream.Recv(); err == nil {
					r.received.Add(1)
				}
			}
			r.ended <- err
		})
	}
	slow, halted, other := readers[0], readers[1], readers[2]
	wait(t, "the streams run and one has stopped", func() bool {
		return slow.received.Load() > 20 && halted.received.Load() == 10
	})
	time.Sleep(200 * time.Millisecond) // the stopped reader's buffers fill

	revoked := map[*reader]*pb.RevokeGrantResponse{}
	for _, r := range readers[:2] {
		done, err := s.as(alice).Grants.RevokeGrant(t.Context(), &pb.RevokeGrantRequest{Name: r.grant})
		noError(t, err)
		revoked[r] = done
		if done.Barrier.ConnectionsReset != 1 {
			t.Errorf("%s: %d connections were reset, want 1", r.path, done.Barrier.ConnectionsReset)
		}
	}
	at := map[*reader]int64{slow: slow.received.Load(), halted: halted.received.Load()}
	close(stopped)
	for _, r := range readers[:2] {
		if err := <-r.ended; err == nil {
			t.Errorf("%s: the stream went on to its end", r.path)
		}
	}
	if err := <-other.ended; err == nil || other.received.Load() != images {
		t.Errorf("the other contractor got %d of %d images (%v)", other.received.Load(), images, err)
	}
	all.Wait()

	last := map[string]int64{}
	released := map[string]int64{}
	for _, e := range s.events("record.released") {
		last["grants/"+e.Grant] = e.index
		released["grants/"+e.Grant]++
	}
	unsent := map[string]int64{}
	for _, e := range s.events("release.unsent") {
		unsent["grants/"+e.Grant]++
	}
	for _, r := range readers[:2] {
		b := revoked[r].Barrier
		if last[r.grant] > b.EventIndex {
			t.Errorf("%s: a release has index %d, its grant was revoked at %d", r.path, last[r.grant], b.EventIndex)
		}
		if got := r.received.Load(); got > released[r.grant]-unsent[r.grant] {
			t.Errorf("%s: %d images arrived, the log knows of %d", r.path, got, released[r.grant]-unsent[r.grant])
		}
		t.Logf("%s: %d images when the revocation was answered (after %v, %d sends ended), %d after it; the log counts %d as exposed",
			r.path, at[r], b.Waited.AsDuration(), b.SendsEnded, r.received.Load()-at[r], released[r.grant]-unsent[r.grant])
	}
}

// TestRevokeAgainstStalledConnection revokes against a client whose socket is not read at
// all, not even by its HTTP/2 library: the harshest way to stop reading.
func TestRevokeAgainstStalledConnection(t *testing.T) {
	s := begin(t)
	p := purpose()
	s.admit(p, devOrg)
	s.store(s.as(lane), vault.Plate, 40, 256<<10)
	c := s.as(matcher)
	grant, token := s.granted(c, p, 100)
	handles := s.handles(c, grant, token)

	conns := make(chan *stallable, 1)
	raw := s.dialThrough(matcher, conns)
	defer raw.Close()
	stream, err := pb.NewReleaseServiceClient(raw).FetchImages(t.Context(), &pb.FetchImagesRequest{Grant: grant, GrantToken: token.Reveal(), Handles: handles})
	noError(t, err)
	_, err = stream.Recv()
	noError(t, err)
	conn := <-conns
	conn.stall()
	time.Sleep(500 * time.Millisecond) // buffers fill
	before := conn.read.Load()
	start := time.Now()
	done, err := s.as(bob).Grants.RevokeGrant(t.Context(), &pb.RevokeGrantRequest{Name: grant})
	noError(t, err)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("the barrier took %v", took)
	}
	if done.Barrier.SendsEnded != 1 {
		t.Errorf("%d sends ended, want 1", done.Barrier.SendsEnded)
	}
	conn.resume()
	got := 1
	for err == nil {
		if _, err = stream.Recv(); err == nil {
			got++
		}
	}
	t.Logf("barrier %v; %d images of %d arrived, %d bytes were read after the answer", done.Barrier.Waited.AsDuration(), got, len(handles), conn.read.Load()-before)
	if got == len(handles) {
		t.Error("all images arrived at a client that did not read")
	}
}

// stallable is a client's socket whose reading can be stopped.
type stallable struct {
	net.Conn
	turn chan struct{} // whoever reads takes it and puts it back
	read atomic.Int64
}

func (c *stallable) stall()  { <-c.turn }
func (c *stallable) resume() { c.turn <- struct{}{} }

func (c *stallable) Read(b []byte) (int, error) {
	c.turn <- <-c.turn
	n, err := c.Conn.Read(b)
	c.read.Add(int64(n))
	return n, err
}

// dialThrough connects as the identity, through a socket that can be stalled.
func (s *service) dialThrough(path string, conns chan<- *stallable) *grpc.ClientConn {
	s.t.Helper()
	cfg := s.config(path)
	conn, err := grpc.NewClient("passthrough:///"+cfg.Address,
		grpc.WithTransportCredentials(credentials.NewTLS(client.TLS(cfg))),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
			if err != nil {
				return nil, err
			}
			c := &stallable{Conn: raw, turn: make(chan struct{}, 1)}
			c.resume()
			conns <- c
			return c, nil
		}))
	noError(s.t, err)
	return conn
}
