package client

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// faulty is a service on a real connection that fails as it is told to. It keeps records and
// releases as the real one does: one record for a request ID.
type faulty struct {
	pb.UnimplementedCaptureServiceServer
	pb.UnimplementedGrantServiceServer
	pb.UnimplementedReleaseServiceServer

	mu       sync.Mutex
	calls    map[string]int
	conns    []net.Conn
	records  map[string]string // by request ID
	inFlight int
	most     int
	bytes    int64
	mostSize int64

	// before and after decide about the n-th call (from 1) of a method: before it does
	// anything, and once it is committed. They run without the lock.
	before func(ctx context.Context, n int) error
	after  func(n int) error
	// send changes what a fetch sends as the n-th image of the test, from 1. An error ends the stream.
	send func(n int, img *pb.Image) error
	sent int
	asks [][]string // handles of each fetch
	// answer is what a fetch sends instead of what it was asked for.
	answer []string
	list   func(req *pb.ListRecordsRequest) *pb.ListRecordsResponse
}

func (f *faulty) begin(method string, ctx context.Context) (int, error) {
	f.mu.Lock()
	f.calls[method]++
	n := f.calls[method]
	f.mu.Unlock()
	if f.before == nil {
		return n, nil
	}
	return n, f.before(ctx, n)
}

// cut resets every connection, as a crash or a barrier does.
func (f *faulty) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
	f.conns = nil
}

func (f *faulty) count(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[method]
}

func (f *faulty) StoreImage(ctx context.Context, req *pb.StoreImageRequest) (*pb.StoreImageResponse, error) {
	f.mu.Lock()
	f.inFlight++
	f.bytes += int64(len(req.Image))
	f.most, f.mostSize = max(f.most, f.inFlight), max(f.mostSize, f.bytes)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.inFlight--
		f.bytes -= int64(len(req.Image))
		f.mu.Unlock()
	}()
	n, err := f.begin("StoreImage", ctx)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	record, repeated := f.records[req.RequestId]
	if !repeated {
		record = "records/" + vault.NewID().String()
		f.records[req.RequestId] = record
	}
	f.mu.Unlock()
	if f.after != nil {
		if err := f.after(n); err != nil {
			return nil, err
		}
	}
	return &pb.StoreImageResponse{Record: record, Repeated: repeated}, nil
}

func (f *faulty) GetGrant(ctx context.Context, req *pb.GetGrantRequest) (*pb.GetGrantResponse, error) {
	_, err := f.begin("GetGrant", ctx)
	return &pb.GetGrantResponse{Grant: &pb.Grant{Name: req.Name}}, err
}

func (f *faulty) ActivateGrant(ctx context.Context, _ *pb.ActivateGrantRequest) (*pb.ActivateGrantResponse, error) {
	_, err := f.begin("ActivateGrant", ctx)
	return &pb.ActivateGrantResponse{}, err
}

func (f *faulty) ListRecords(ctx context.Context, req *pb.ListRecordsRequest) (*pb.ListRecordsResponse, error) {
	if _, err := f.begin("ListRecords", ctx); err != nil {
		return nil, err
	}
	return f.list(req), nil
}

func (f *faulty) FetchImages(req *pb.FetchImagesRequest, s grpc.ServerStreamingServer[pb.FetchImagesResponse]) error {
	f.mu.Lock()
	f.asks = append(f.asks, req.Handles)
	f.mu.Unlock()
	if _, err := f.begin("FetchImages", s.Context()); err != nil {
		return err
	}
	answer := req.Handles
	if f.answer != nil {
		answer = f.answer
	}
	for _, h := range answer {
		f.mu.Lock()
		f.sent++
		n := f.sent
		f.mu.Unlock()
		img := picture(h)
		if f.send != nil {
			if err := f.send(n, img); err != nil {
				return err
			}
		}
		if err := s.Send(&pb.FetchImagesResponse{Image: img}); err != nil {
			return err
		}
	}
	return nil
}

var pngHead = []byte("\x89PNG\r\n\x1a\n")

func picture(h string) *pb.Image {
	return &pb.Image{Handle: h, Modality: pb.Modality_MODALITY_PLATE, ContentType: "image/png", Orientation: 1, Data: append(bytes.Clone(pngHead), h...)}
}

func handles(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%032x", i+1)
	}
	return out
}

// listener keeps the connections, so that they can be cut.
type listener struct {
	net.Listener
	f *faulty
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.f.mu.Lock()
		l.f.conns = append(l.f.conns, c)
		l.f.mu.Unlock()
	}
	return c, err
}

// serve starts a faulty service and gives a client of it.
func serve(t *testing.T, cfg Config) (*faulty, *Client) {
	t.Helper()
	f := &faulty{calls: map[string]int{}, records: map[string]string{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage))
	pb.RegisterCaptureServiceServer(srv, f)
	pb.RegisterGrantServiceServer(srv, f)
	pb.RegisterReleaseServiceServer(srv, f)
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(listener{l, f}) }()
	c, err := open(cfg, "passthrough:///"+l.Addr().String(), insecure.NewCredentials())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		srv.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return f, c
}

// busy is what the service answers at its limit.
func busy(after time.Duration) error {
	s, err := status.New(codes.ResourceExhausted, "busy").WithDetails(
		&errdetails.ErrorInfo{Reason: string(vault.ReasonServerBusy)}, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	if err != nil {
		panic(err)
	}
	return s.Err()
}
