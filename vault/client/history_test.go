package client

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/portcullis/portcullis/internal/tlog"
	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
)

const logOrigin = "example.org/portcullis"

// history is one log, and the AuditService of a service that has it. It gives what it is told
// to give.
type history struct {
	pb.UnimplementedAuditServiceServer
	signer *tlog.Signer

	mu      sync.Mutex
	entries [][]byte
	tiles   map[string][]byte
	edge    tlog.Edge
	proofs  int // asked for

	// change may alter an answer, or give an error instead.
	change func(answer any) error
}

func logSigner(t *testing.T) *tlog.Signer {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key")
	if err := tlog.MakeKeyFile(key); err != nil {
		t.Fatal(err)
	}
	s, err := tlog.LoadKeyFile(key, logOrigin)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newHistory gives a log of so many events, each of which has the word in it.
func newHistory(signer *tlog.Signer, size int, word string) *history {
	h := &history{signer: signer, tiles: map[string][]byte{}}
	h.grow(size, word)
	return h
}

func (h *history) grow(n int, word string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for range n {
		e := []byte(`{"v":1,"word":"` + word + strings.Repeat(".", len(h.entries)%7) + `"}`)
		h.entries = append(h.entries, e)
		for _, t := range h.edge.Append(tlog.LeafHash(e)) {
			h.tiles[tlog.TilePath(t.Level, t.Index, 0)] = t.Data
		}
	}
	for _, t := range h.edge.Partial() {
		h.tiles[tlog.TilePath(t.Level, t.Index, 0)] = t.Data
	}
}

func (h *history) Tile(level int, index int64) ([]byte, error) {
	return h.tiles[tlog.TilePath(level, index, 0)], nil
}

func (h *history) newest() tlog.Checkpoint {
	return tlog.Checkpoint{Origin: logOrigin, Size: h.edge.Size(), Root: h.edge.Root()}
}

func (h *history) signed() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	b, err := h.newest().Sign(h.signer)
	if err != nil {
		panic(err) // the test's own key
	}
	return b
}

// answered gives an answer as it is, or changed.
func answered[A any](h *history, answer A, err error) (A, error) {
	if err == nil && h.change != nil {
		err = h.change(answer)
	}
	return answer, err
}

func (h *history) GetCheckpoint(context.Context, *pb.GetCheckpointRequest) (*pb.GetCheckpointResponse, error) {
	return answered(h, &pb.GetCheckpointResponse{Checkpoint: h.signed()}, nil)
}

func hashesOf(proof []tlog.Hash, err error) ([][]byte, error) {
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	var out [][]byte
	for _, x := range proof {
		out = append(out, x[:])
	}
	return out, nil
}

func (h *history) GetConsistencyProof(_ context.Context, req *pb.GetConsistencyProofRequest) (*pb.GetConsistencyProofResponse, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.proofs++
	hashes, err := hashesOf(tlog.ProveConsistency(h.newest(), req.FirstSize, req.SecondSize, h))
	return answered(h, &pb.GetConsistencyProofResponse{Hashes: hashes}, err)
}

func (h *history) GetInclusionProof(_ context.Context, req *pb.GetInclusionProofRequest) (*pb.GetInclusionProofResponse, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	hashes, err := hashesOf(tlog.ProveEntry(h.newest(), req.Size, req.Index, h))
	return answered(h, &pb.GetInclusionProofResponse{Hashes: hashes}, err)
}

func (h *history) ListEvents(_ context.Context, req *pb.ListEventsRequest) (*pb.ListEventsResponse, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := &pb.ListEventsResponse{}
	for i := req.StartIndex; i < int64(len(h.entries)) && len(out.Events) < int(req.PageSize); i++ {
		out.Events = append(out.Events, &pb.AuditEvent{Index: i, Event: h.entries[i]})
	}
	return answered(h, out, nil)
}

func (h *history) GetTile(_ context.Context, req *pb.GetTileRequest) (*pb.GetTileResponse, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	data, err := tlog.ReadTile(h.newest(), int(req.Level), req.Index, int(req.Width), h)
	return answered(h, &pb.GetTileResponse{Hashes: data}, err)
}

// serveLog starts a service with the log, and gives a client that remembers in the file.
func serveLog(t *testing.T, h *history, memory string) *Client {
	t.Helper()
	_, c := serveImages(t, h, memory)
	return c
}

// serveImages starts one that gives images, too.
func serveImages(t *testing.T, h *history, memory string) (*faulty, *Client) {
	t.Helper()
	f := &faulty{calls: map[string]int{}, records: map[string]string{}}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	pb.RegisterAuditServiceServer(srv, h)
	pb.RegisterReleaseServiceServer(srv, f)
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(lis) }()
	c, err := open(Config{LogKey: h.signer.Key(), LogMemory: memory, Patience: -1}, "passthrough:///"+lis.Addr().String(), insecure.NewCredentials())
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
