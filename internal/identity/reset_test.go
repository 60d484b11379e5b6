package identity

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// counted is a server's socket that counts what the kernel took.
type counted struct {
	*net.TCPConn
	written atomic.Int64
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	c.written.Add(int64(n))
	return n, err
}

// tap is a client's socket that counts, and that can be slowed down or closed.
type tap struct {
	net.Conn
	pace func()
	read atomic.Int64
	last atomic.Pointer[error]
}

func (c *tap) Read(b []byte) (int, error) {
	c.pace()
	n, err := c.Conn.Read(b[:min(len(b), 16<<10)])
	c.read.Add(int64(n))
	if err != nil {
		c.last.Store(&err)
	}
	return n, err
}

// wide windows leave the pacing to TCP, as a client may choose to.
func tapped(c **tap, pace func()) []grpc.DialOption {
	var once sync.Once
	return []grpc.DialOption{
		grpc.WithInitialWindowSize(64 << 20), grpc.WithInitialConnWindowSize(64 << 20),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
			if err != nil {
				return nil, err
			}
			t := &tap{Conn: conn, pace: pace}
			once.Do(func() { *c = t })
			return t, nil
		}),
	}
}

func open(ctx context.Context, cc *grpc.ClientConn) (grpc.ClientStream, error) {
	stream, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/test.Stream/Run")
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(&emptypb.Empty{}); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return stream, stream.CloseSend()
}

func contractor(org string) func(vault.Caller) bool {
	return func(c vault.Caller) bool { return c.Org == org }
}

func TestResetEndsStreamsAtOnce(t *testing.T) {
	for name, stalls := range map[string]bool{"a client that reads slowly": false, "a client that stopped reading": true} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, Options{})
			ended := make(chan error, 1)
			s.stream = func(c vault.Caller, stream grpc.ServerStream) error {
				for {
					if c.Org == "other" {
						time.Sleep(5 * time.Millisecond)
					}
					if err := stream.SendMsg(message(64 << 10)); err != nil {
						if c.Org == "acme" {
							ended <- err
						}
						return err
					}
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()

			// Another caller, undisturbed throughout.
			otherLeaf := s.ca.client("/contractor/other/x")
			other, err := open(ctx, s.dial(s.tls(&otherLeaf)))
			if err != nil {
				t.Fatal(err)
			}
			var received atomic.Int64
			var otherEnd error
			var reading sync.WaitGroup
			reading.Go(func() {
				for {
					if otherEnd = other.RecvMsg(new(wrapperspb.BytesValue)); otherEnd != nil {
						return
					}
					received.Add(1)
				}
			})

			var stalled atomic.Bool
			release := make(chan struct{})
			var socket *tap
			acmeLeaf := s.ca.client("/contractor/acme/x")
			acme, err := open(ctx, s.dial(s.tls(&acmeLeaf), tapped(&socket, func() {
				if stalled.Load() {
					<-release
				}
				time.Sleep(time.Millisecond)
			})...))
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if err := acme.RecvMsg(new(wrapperspb.BytesValue)); err != nil {
					t.Fatal(err)
				}
			}
			stalled.Store(stalls)
			s.mu.Lock()
			server := s.sockets[socket.LocalAddr().String()]
			s.mu.Unlock()
			if stalls {
				settle(t, &server.written)
			} else {
				time.Sleep(300 * time.Millisecond)
			}

			readBefore := socket.read.Load()
			from := time.Now()
			if n := s.creds.Reset(contractor("acme")); n != 1 {
				t.Errorf("reset %d connections, want 1", n)
			}
			took := time.Since(from)
			// What the server's own side does must not depend on the client.
			select {
			case err := <-ended:
				t.Logf("server: reset took %s, stream ended after %s: %v", took, time.Since(from), err)
			case <-time.After(2 * time.Second):
				t.Error("the server's stream goes on")
			}
			close(release)
			end := make(chan error, 1)
			go func() {
				for {
					if err := acme.RecvMsg(new(wrapperspb.BytesValue)); err != nil {
						end <- err
						return
					}
				}
			}()
			select {
			case <-end:
			case <-time.After(20 * time.Second):
				t.Fatal("the client's stream goes on")
			}
			if err := socket.last.Load(); err == nil || !errors.Is(*err, syscall.ECONNRESET) {
				t.Errorf("the client's socket ended with %v, want a reset", err)
			}
			after := socket.read.Load() - readBefore
			discarded := server.written.Load() - socket.read.Load()
			t.Logf("client: ended after %s; %d bytes were read after the reset, %d bytes given to the kernel never arrived",
				time.Since(from), after, discarded)
			if discarded <= 0 {
				t.Errorf("all of the send buffer arrived")
			}

			before := received.Load()
			for wait := time.Now(); received.Load() < before+10; time.Sleep(time.Millisecond) {
				if time.Since(wait) > 5*time.Second {
					t.Fatal("the other caller's stream stands still")
				}
			}
			if n := s.creds.Reset(contractor("acme")); n != 0 {
				t.Errorf("reset %d connections again", n)
			}
			cancel()
			reading.Wait()
		})
	}
}

// settle waits until the server can write no more.
func settle(t *testing.T, n *atomic.Int64) {
	t.Helper()
	for last, same, i := int64(-1), 0, 0; same < 10; i++ {
		if i > 500 {
			t.Fatal("the server goes on writing to a client that does not read")
		}
		time.Sleep(20 * time.Millisecond)
		if now := n.Load(); now == last && now > 0 {
			same++
		} else {
			last, same = now, 0
		}
	}
}

// However handshakes and the reset fall together: a stream that was let in before access
// ended does not outlive the reset.
func TestResetMissesNoHandshake(t *testing.T) {
	s := serve(t, Options{})
	var suspended atomic.Bool
	var live, begun atomic.Int64
	s.stream = func(_ vault.Caller, stream grpc.ServerStream) error {
		begun.Add(1)
		if suspended.Load() {
			return errors.New("suspended")
		}
		live.Add(1)
		defer live.Add(-1)
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	l := s.ca.client("/contractor/acme/x")
	for range 5 {
		suspended.Store(false)
		begun.Store(0)
		ctx, cancel := context.WithCancel(t.Context())
		var clients sync.WaitGroup
		for range 4 {
			clients.Go(func() {
				for ctx.Err() == nil {
					cc := s.dial(s.tls(&l))
					if stream, err := open(ctx, cc); err == nil && begun.Load() > 20 && suspended.Load() {
						_ = stream.RecvMsg(new(wrapperspb.BytesValue))
						cc.Close()
					}
				}
			})
		}
		for begun.Load() < 20 {
			time.Sleep(time.Millisecond)
		}
		suspended.Store(true)
		n := s.creds.Reset(contractor("acme"))
		for wait := time.Now(); live.Load() > 0; time.Sleep(time.Millisecond) {
			if time.Since(wait) > 3*time.Second {
				t.Fatalf("%d streams outlive a reset of %d connections", live.Load(), n)
			}
		}
		cancel()
		clients.Wait()
	}
}

func TestCallsOnAResetConnectionAreRefused(t *testing.T) {
	s := serve(t, Options{})
	got := make(chan error, 1)
	s.stream = func(_ vault.Caller, stream grpc.ServerStream) error {
		s.creds.Reset(contractor("acme"))
		_, err := CallerFrom(stream.Context())
		got <- err
		return err
	}
	l := s.ca.client("/contractor/acme/x")
	stream, err := open(t.Context(), s.dial(s.tls(&l)))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(new(wrapperspb.BytesValue)); err == nil {
		t.Error("the stream goes on")
	}
	if err := <-got; vault.KindOf(err) != vault.Denied {
		t.Errorf("CallerFrom gives %v", err)
	}
}
