package main

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	_ "google.golang.org/grpc/encoding/gzip" // the service shall know it, whoever else links it in

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
)

// attacker speaks HTTP/2 by hand, with a good certificate, so that it can do what no gRPC
// client does.
type attacker struct {
	t       *testing.T
	conn    *tls.Conn
	reading sync.WaitGroup

	write  sync.Mutex
	framer *http2.Framer
	fields bytes.Buffer
	enc    *hpack.Encoder
	last   uint32

	mu     sync.Mutex
	resets map[http2.ErrCode]int // streams ended by the service
	status map[uint32]codes.Code
	gone   *http2.GoAwayFrame
	debug  string
	ended  error
}

// attack connects as the path from a loopback address of the attacker's own.
func (s *service) attack(path string) *attacker {
	s.t.Helper()
	config := client.TLS(s.config(path))
	config.NextProtos = []string{"h2"}
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	conn, err := tls.DialWithDialer(from, "tcp", s.Addr(), config)
	noError(s.t, err)
	a := &attacker{t: s.t, conn: conn, framer: http2.NewFramer(conn, conn), resets: map[http2.ErrCode]int{}, status: map[uint32]codes.Code{}}
	a.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	a.enc = hpack.NewEncoder(&a.fields)
	_, err = io.WriteString(conn, http2.ClientPreface)
	noError(s.t, err)
	noError(s.t, a.framer.WriteSettings())
	a.reading.Go(a.read)
	s.t.Cleanup(a.close)
	return a
}

func (a *attacker) close() {
	a.conn.NetConn().Close()
	a.reading.Wait()
}

func (a *attacker) read() {
	for {
		f, err := a.framer.ReadFrame()
		a.mu.Lock()
		switch f := f.(type) {
		case *http2.RSTStreamFrame:
			a.resets[f.ErrCode]++
		case *http2.MetaHeadersFrame:
			for _, h := range f.Fields {
				if h.Name == "grpc-status" {
					var n codes.Code
					_ = n.UnmarshalJSON([]byte(h.Value))
					a.status[f.StreamID] = n
				}
			}
		case *http2.GoAwayFrame:
			a.gone, a.debug = f, string(f.DebugData())
		case *http2.SettingsFrame:
			if !f.IsAck() {
				a.mu.Unlock()
				a.do(func() error { return a.framer.WriteSettingsAck() })
				a.mu.Lock()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				data := f.Data
				a.mu.Unlock()
				a.do(func() error { return a.framer.WritePing(true, data) })
				a.mu.Lock()
			}
		}
		var bad http2.StreamError
		if err != nil && !errors.As(err, &bad) {
			a.ended = err
			a.mu.Unlock()
			return
		}
		a.mu.Unlock()
	}
}

func (a *attacker) do(fn func() error) error {
	a.write.Lock()
	defer a.write.Unlock()
	return fn()
}

// open begins a call and gives its stream.
func (a *attacker) open(method string, more ...hpack.HeaderField) (uint32, error) {
	a.write.Lock()
	defer a.write.Unlock()
	if a.last++; a.last%2 == 0 {
		a.last++
	}
	a.fields.Reset()
	for _, h := range append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "https"}, {Name: ":path", Value: method},
		{Name: ":authority", Value: "x"}, {Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
	}, more...) {
		if err := a.enc.WriteField(h); err != nil {
			return 0, err
		}
	}
	rest := a.fields.Bytes()
	first := rest[:min(len(rest), 16<<10)]
	rest = rest[len(first):]
	err := a.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: a.last, BlockFragment: first, EndHeaders: len(rest) == 0})
	for len(rest) > 0 && err == nil {
		part := rest[:min(len(rest), 16<<10)]
		rest = rest[len(part):]
		err = a.framer.WriteContinuation(a.last, len(rest) == 0, part)
	}
	return a.last, err
}

func (a *attacker) data(stream uint32, end bool, b []byte) error {
	for {
		part := b[:min(len(b), 16<<10)]
		b = b[len(part):]
		if err := a.do(func() error { return a.framer.WriteData(stream, end && len(b) == 0, part) }); err != nil || len(b) == 0 {
			return err
		}
	}
}

// seen gives what the service did so far.
func (a *attacker) seen() (resets map[http2.ErrCode]int, status map[uint32]codes.Code, goAway string, ended error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.resets), maps.Clone(a.status), a.debug, a.ended
}

// message frames a gRPC message.
func message(compressed byte, b []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{compressed}, uint32(len(b))), b...)
}

// bomb is gzip of size bytes of zeros, a thousand times smaller.
func bomb(t *testing.T, size int) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(make([]byte, size))
	noError(t, err)
	noError(t, z.Close())
	return b.Bytes()
}

const storeImage = pb.CaptureService_StoreImage_FullMethodName

// TestAttacks: callers with a good certificate, and strangers without, abuse connections.
// Meanwhile and after each attack others store and fetch; nothing of it is stored and memory
// stays bounded.
func TestAttacks(t *testing.T) {
	const patience = 3 * time.Second
	s := begin(t)
	s.cfg.receiveTime = patience
	s.restart()
	p := purpose()
	s.admit(p, devOrg)
	contractor := s.as(matcher)
	stored := len(s.store(s.as(lane), vault.Plate, 1, 20_000))
	grant, token := s.granted(contractor, p, 10)
	handles := s.handles(contractor, grant, token)
	// others work with the service over connections made for it.
	others := func() {
		t.Helper()
		begun := time.Now()
		stored += len(s.store(s.as("/capture/"+devSite+"/lane-9"), vault.Plate, 4, 20_000))
		got := 0
		noError(t, s.as(matcher).Fetch(t.Context(), grant, token, handles, func(*pb.Image) error { got++; return nil }))
		if d := time.Since(begun); got != 1 || d > 5*time.Second {
			t.Fatalf("%d images after %s", got, d)
		}
		s.holds(stored)
	}
	others()

	run := func(name string, most uint64, fn func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			grown := heap(func() { fn(t) })
			if grown > most {
				t.Errorf("it took %d MiB of memory", grown)
			}
			others()
			t.Logf("%d MiB, %s", grown, time.Since(begun).Round(time.Millisecond))
		})
	}

	run("10,000 streams", 128, func(t *testing.T) {
		a := s.attack(lane)
		for range 10_000 {
			_, err := a.open(storeImage)
			noError(t, err)
		}
		others()
		wait(t, "streams over the limit are refused", func() bool {
			r, _, _, _ := a.seen()
			return r[http2.ErrCodeRefusedStream] == 10_000-256
		})
		wait(t, "those within it end for lack of a request", func() bool {
			_, status, _, _ := a.seen()
			late := 0
			for _, c := range status {
				if c == codes.DeadlineExceeded || c == codes.ResourceExhausted {
					late++
				}
			}
			return late == 256
		})
		a.close()
	})
	run("half handshakes", 128, func(t *testing.T) {
		from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
		var conns []net.Conn
		defer func() {
			for _, c := range conns {
				c.Close()
			}
		}()
		for range 400 {
			c, err := from.DialContext(t.Context(), "tcp", s.Addr())
			if err != nil {
				continue // cut already
			}
			conns = append(conns, c)
			_, _ = c.Write([]byte{22, 3, 1, 2}) // the beginning of a hello; some are cut already
		}
		others()
		open := 0
		for _, c := range conns {
			noError(t, c.SetReadDeadline(time.Now().Add(5*time.Millisecond)))
			_, err := c.Read(make([]byte, 1))
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				open++
			}
		}
		if open > 64 || open == 0 {
			t.Errorf("%d of 400 handshakes of one address are under way, want at most 64", open)
		}
		if !strings.Contains(s.logs.String(), "too many handshakes") {
			t.Error("the log does not tell of it")
		}
	})
	run("a byte at a time", 128, func(t *testing.T) {
		a := s.attack(lane)
		var ids []uint32
		for range 20 {
			id, err := a.open(storeImage)
			noError(t, err)
			noError(t, a.data(id, false, message(0, make([]byte, 1<<20))[:5])) // announces 1 MiB
			ids = append(ids, id)
		}
		begun := time.Now()
		ended := func() bool {
			_, status, _, _ := a.seen()
			return len(status) == len(ids)
		}
		worked := false
		for !ended() {
			if time.Since(begun) > patience+10*time.Second {
				t.Fatal("slow requests are not ended")
			}
			for _, id := range ids {
				noError(t, a.data(id, false, []byte{0}))
			}
			if !worked {
				others()
				worked = true
			}
			time.Sleep(100 * time.Millisecond)
		}
		if d := time.Since(begun); d > patience+2*time.Second {
			t.Errorf("ended after %s, want %s", d, patience)
		}
		_, status, _, _ := a.seen()
		for _, id := range ids {
			if status[id] != codes.DeadlineExceeded {
				t.Errorf("a slow request gets %s", status[id])
			}
		}
	})
	run("reset flood", 128, func(t *testing.T) {
		a := s.attack(lane)
		whole, err := proto.Marshal(&pb.StoreImageRequest{RequestId: vault.NewID().String()})
		noError(t, err)
		sent := 0
		for ; sent < 20_000; sent++ {
			id, err := a.open(storeImage)
			if err == nil {
				err = a.data(id, false, message(0, whole))
			}
			if err == nil {
				err = a.do(func() error { return a.framer.WriteRSTStream(id, http2.ErrCodeCancel) })
			}
			if err != nil {
				break
			}
			if sent == 10_000 {
				others()
			}
		}
		t.Logf("%d streams opened and reset", sent)
	})
	run("gzip bomb", 128, func(t *testing.T) {
		a := s.attack(lane)
		part := bomb(t, 32<<20)
		body := slices.Concat(part, part, part, part, part, part)
		id, err := a.open(storeImage, hpack.HeaderField{Name: "grpc-encoding", Value: "gzip"})
		noError(t, err)
		noError(t, a.data(id, true, message(1, body)))
		wait(t, "it is refused", func() bool { _, status, _, _ := a.seen(); return len(status) == 1 })
		if _, status, _, _ := a.seen(); status[id] != codes.ResourceExhausted {
			t.Errorf("%d bytes that are 192 MiB get %s", len(body), status[id])
		}
	})
	run("large headers", 128, func(t *testing.T) {
		a := s.attack(lane)
		for range 50 {
			_, err := a.open(storeImage, hpack.HeaderField{Name: "x", Value: strings.Repeat("x", 64<<10)})
			if err != nil {
				break // disconnected for it
			}
		}
		wait(t, "they are refused", func() bool {
			r, _, _, ended := a.seen()
			return r[http2.ErrCodeFrameSize] == 50 || ended != nil
		})
	})
	run("pings", 128, func(t *testing.T) {
		a := s.attack(lane)
		for range 100 {
			if a.do(func() error { return a.framer.WritePing(false, [8]byte{}) }) != nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		wait(t, "who pings too often is sent away", func() bool {
			_, _, why, ended := a.seen()
			return why == "too_many_pings" && ended != nil
		})
	})
}
