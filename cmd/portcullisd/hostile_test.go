package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"io/fs"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/portcullis/portcullis/certs"
	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
)

// kept counts what storing leaves behind: records, ciphertexts and keys at Vault.
func (s *service) kept() (records, blobs, keys int) {
	s.t.Helper()
	noError(s.t, filepath.WalkDir(s.cfg.Blobs.Path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if _, none := vault.ParseID("name", d.Name()); none == nil { // what the service remembers of itself is no ciphertext
			blobs++
		}
		return nil
	}))
	if status, answer := s.atVault("LIST", "portcullis/keys", s.vault.RootToken(), nil); status == 200 {
		keys = len(keyList(s.t, answer))
	}
	return len(s.events("record.stored")), blobs, keys
}

// holds says that n images and nothing else are kept, once files that are there for a moment
// alone are gone.
func (s *service) holds(n int) {
	s.t.Helper()
	var r, b, k int
	for range 20 {
		if r, b, k = s.kept(); r == n && b == n && k == n {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.t.Fatalf("%d records, %d ciphertexts and %d keys are kept, want %d of each", r, b, k, n)
}

// heap watches how much more memory the process has in use at its worst while fn runs.
func heap(fn func()) (mebibytes uint64) {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	before, peak := m.HeapInuse, m.HeapInuse
	stop := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse)
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	})
	fn()
	close(stop)
	watching.Wait()
	return (peak - before) >> 20
}

// hugePNG is the beginning of a PNG of 60,000 x 60,000 pixels, with all of its checksums.
func hugePNG() []byte {
	chunk := func(kind string, data []byte) []byte {
		out := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
		body := append([]byte(kind), data...)
		out = append(out, body...)
		return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(body))
	}
	size := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 60_000), 60_000)
	return slices.Concat([]byte("\x89PNG\r\n\x1a\n"), chunk("IHDR", append(size, 8, 6, 0, 0, 0)),
		chunk("IDAT", []byte{0x78, 0x9c, 3, 0, 0, 0, 0, 1}), chunk("IEND", nil))
}

func aGIF(t *testing.T) []byte {
	var b bytes.Buffer
	noError(t, gif.Encode(&b, image.NewPaletted(image.Rect(0, 0, 8, 8), color.Palette{color.Black, color.White}), nil))
	return b.Bytes()
}

// TestBadRequests: each is a clear error that names the field, nothing of it is stored, and
// it costs little memory.
func TestBadRequests(t *testing.T) {
	s := begin(t)
	camera := s.as(lane)
	good := picture(1, 20_000)
	for _, c := range []struct {
		name   string
		with   func(*pb.StoreImageRequest)
		reason vault.Reason
		field  string // or part of the message, if the error is of no field
		says   string
	}{
		{"empty", func(r *pb.StoreImageRequest) { r.Image = nil }, vault.ReasonImageRejected, "image", "IMAGE_EMPTY"},
		{"9 MiB", func(r *pb.StoreImageRequest) { r.Image = append(bytes.Clone(good), make([]byte, 9<<20)...) }, vault.ReasonImageRejected, "image", "IMAGE_TOO_LARGE"},
		{"20 MiB", func(r *pb.StoreImageRequest) { r.Image = append(bytes.Clone(good), make([]byte, 20<<20)...) }, "", "", "larger than max"},
		{"text", func(r *pb.StoreImageRequest) { r.Image = []byte("this is plate.jpg\n") }, vault.ReasonImageRejected, "image", "IMAGE_TYPE_UNSUPPORTED"},
		{"truncated JPEG", func(r *pb.StoreImageRequest) { r.Image = good[:len(good)/2] }, vault.ReasonImageRejected, "image", "IMAGE_MALFORMED"},
		{"PNG of 60,000 x 60,000", func(r *pb.StoreImageRequest) { r.Image = hugePNG() }, vault.ReasonImageRejected, "image", "IMAGE_TOO_MANY_PIXELS"},
		{"GIF", func(r *pb.StoreImageRequest) { r.Image = aGIF(t) }, vault.ReasonImageRejected, "image", "GIF"},
		{"WebP", func(r *pb.StoreImageRequest) { r.Image = []byte("RIFF\x1a\x00\x00\x00WEBPVP8L\x0d\x00\x00\x00") }, vault.ReasonImageRejected, "image", "WebP"},
		{"TIFF", func(r *pb.StoreImageRequest) { r.Image = []byte("II*\x00\x08\x00\x00\x00\x00\x00\x00\x00") }, vault.ReasonImageRejected, "image", "TIFF"},
		{"another site", func(r *pb.StoreImageRequest) { r.Site = "south-gate" }, vault.ReasonSiteMismatch, "", "south-gate"},
		{"another lane", func(r *pb.StoreImageRequest) { r.Lane = "lane-2" }, vault.ReasonSiteMismatch, "", "lane-2"},
		{"no request_id", func(r *pb.StoreImageRequest) { r.RequestId = "" }, vault.ReasonInvalidField, "request_id", "UUID"},
		{"no modality", func(r *pb.StoreImageRequest) { r.Modality = 0 }, vault.ReasonInvalidField, "modality", ""},
		{"no such modality", func(r *pb.StoreImageRequest) { r.Modality = 99 }, vault.ReasonInvalidField, "modality", ""},
		{"no capture_time", func(r *pb.StoreImageRequest) { r.CaptureTime = nil }, vault.ReasonInvalidField, "capture_time", ""},
		{"capture_time that is none", func(r *pb.StoreImageRequest) { r.CaptureTime.Nanos = -1 }, vault.ReasonInvalidField, "capture_time", ""},
		{"tomorrow", func(r *pb.StoreImageRequest) { r.CaptureTime.Seconds += 86400 }, vault.ReasonCapturedAtOutOfRange, "capture_time", "server's time"},
		{"crossing_id that is none", func(r *pb.StoreImageRequest) { r.CrossingId = "x" }, vault.ReasonInvalidField, "crossing_id", "UUID"},
	} {
		t.Run(c.name, func(t *testing.T) {
			req := &pb.StoreImageRequest{
				RequestId: vault.NewID().String(), Modality: pb.Modality_MODALITY_PLATE, CaptureTime: timestamppb.Now(), Image: good,
			}
			c.with(req)
			var err error
			grown := heap(func() { _, err = camera.Capture.StoreImage(t.Context(), req) })
			refused(t, err, c.reason)
			if e := new(vault.Error); !errors.As(err, &e) || (c.field != "" && (len(e.Fields) != 1 || e.Fields[0].Name != c.field)) {
				t.Errorf("the error %v does not name the field %q", err, c.field)
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("the error %q does not say %q", err, c.says)
			}
			if grown > 150 { // of client and service together
				t.Errorf("it took %d MiB", grown)
			}
			t.Logf("%v (%d MiB)", err, grown)
		})
	}
	// Only what an image may have: other methods take small requests.
	_, err := camera.Identity.WhoAmI(t.Context(), &pb.WhoAmIRequest{})
	noError(t, err)
	_, err = s.as(alice).Grants.DenyGrant(t.Context(), &pb.DenyGrantRequest{Name: "grants/x", Note: strings.Repeat("x", 1<<20)})
	refused(t, err, vault.ReasonInvalidField)
	s.holds(0)
	s.store(camera, vault.Plate, 1, 20_000)
	s.holds(1)
}

// greet connects and reads the first byte, as a client that has no gRPC would.
func greet(addr string, c *tls.Config) error {
	conn, err := tls.Dial("tcp", addr, c)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1)) // in TLS 1.3 the refusal comes after the client is done
	return err
}

// TestStrangers: who does not prove a caller of this trust domain does not get as far as a
// call, and the log says why.
func TestStrangers(t *testing.T) {
	s := begin(t)
	own, err := certs.Open(filepath.Join(s.dir, "certs"), devDomain)
	noError(t, err)
	stranger, err := certs.Open(filepath.Join(t.TempDir(), "other"), devDomain)
	noError(t, err)
	who := func(from *certs.Authority, name string, l certs.Leaf) func(*tls.Config) {
		pair, err := from.Issue(name, "spiffe://"+devDomain+alice, l)
		noError(t, err)
		loaded, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
		noError(t, err)
		return func(c *tls.Config) { c.Certificates = []tls.Certificate{loaded} }
	}
	day := 24 * time.Hour
	for _, c := range []struct {
		name string
		with func(*tls.Config)
		says string
	}{
		{"no certificate", func(*tls.Config) {}, "didn't provide a certificate"},
		{"another authority", who(stranger, "alice", certs.Leaf{}), "unknown authority"},
		{"expired", who(own, "late", certs.Leaf{NotBefore: time.Now().Add(-2 * day), Life: day}), "expired"},
		{"not valid yet", who(own, "soon", certs.Leaf{NotBefore: time.Now().Add(day), Life: day}), "not yet valid"},
		{"TLS 1.2", func(c *tls.Config) {
			who(own, "alice-12", certs.Leaf{})(c)
			c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		}, "unsupported versions"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := client.TLS(s.config(alice))
			config.GetClientCertificate, config.NextProtos = nil, []string{"h2"}
			c.with(config)
			if err := greet(s.Addr(), config); err == nil {
				t.Fatal("admitted")
			}
			wait(t, "the log tells of it", func() bool { return strings.Contains(s.logs.String(), c.says) })
		})
	}
	config := client.TLS(s.config(alice))
	config.NextProtos = []string{"h2"}
	noError(t, greet(s.Addr(), config)) // the same with nothing wrong
}

// sessions is a client's cache that counts the tickets it is given.
type sessions struct {
	tls.ClientSessionCache
	mu  sync.Mutex
	put int
}

func (c *sessions) Put(key string, s *tls.ClientSessionState) {
	c.mu.Lock()
	c.put++
	c.mu.Unlock()
	c.ClientSessionCache.Put(key, s)
}

// TestSuspendedCallerComesBack: a session from before the suspension is worth nothing,
// whoever kept it.
func TestSuspendedCallerComesBack(t *testing.T) {
	s := begin(t)
	p := purpose()
	s.admit(p, devOrg)
	cache := &sessions{ClientSessionCache: tls.NewLRUClientSessionCache(4)}
	call := func() (err error) {
		config := client.TLS(s.config(matcher))
		config.ClientSessionCache = cache
		cc, err := grpc.NewClient("passthrough:///"+s.Addr(), grpc.WithTransportCredentials(credentials.NewTLS(config)))
		noError(t, err)
		defer cc.Close()
		_, err = pb.NewGrantServiceClient(cc).RequestGrant(t.Context(), s.requestFor(p, 1))
		return err
	}
	noError(t, call())
	_, err := s.as(alice).Admin.SuspendContractor(t.Context(), &pb.SuspendContractorRequest{Name: "contractors/" + devOrg, Note: "incident"})
	noError(t, err)
	if err := call(); err == nil || !strings.Contains(err.Error(), "PermissionDenied") {
		t.Fatalf("a suspended caller gets %v", err)
	}
	if cache.put != 0 {
		t.Fatalf("the service gave %d tickets to resume sessions with", cache.put)
	}
}

// TestContractorIsNoAdmin: each admin method refuses contractors and cameras, without
// reading what they send.
func TestContractorIsNoAdmin(t *testing.T) {
	s := begin(t)
	s.admit(purpose(), devOrg)
	for _, path := range []string{matcher, lane} {
		c, ctx := s.as(path), t.Context()
		for name, call := range map[string]func() error{
			"ProposeDecision": func() error { _, err := c.Admin.ProposeDecision(ctx, &pb.ProposeDecisionRequest{}); return err },
			"SignDecision":    func() error { _, err := c.Admin.SignDecision(ctx, &pb.SignDecisionRequest{}); return err },
			"ListPurposes":    func() error { _, err := c.Admin.ListPurposes(ctx, &pb.ListPurposesRequest{}); return err },
			"ListContractors": func() error { _, err := c.Admin.ListContractors(ctx, &pb.ListContractorsRequest{}); return err },
			"SuspendContractor": func() error {
				_, err := c.Admin.SuspendContractor(ctx, &pb.SuspendContractorRequest{Name: "contractors/" + devOrg})
				return err
			},
			"RevokeKeys":     func() error { _, err := c.Admin.RevokeKeys(ctx, &pb.RevokeKeysRequest{}); return err },
			"ListRecordKeys": func() error { _, err := c.Admin.ListRecordKeys(ctx, &pb.ListRecordKeysRequest{}); return err },
			"ApproveGrant":   func() error { _, err := c.Grants.ApproveGrant(ctx, &pb.ApproveGrantRequest{}); return err },
			"DenyGrant":      func() error { _, err := c.Grants.DenyGrant(ctx, &pb.DenyGrantRequest{}); return err },
			"RevokeGrant":    func() error { _, err := c.Grants.RevokeGrant(ctx, &pb.RevokeGrantRequest{}); return err },
			"ListEvents":     func() error { _, err := c.Audit.ListEvents(ctx, &pb.ListEventsRequest{}); return err },
		} {
			if err := call(); vault.ReasonOf(err) != vault.ReasonRoleNotAllowed {
				t.Errorf("%s gets of %s: %v", path, name, err)
			}
		}
	}
	_, err := s.as(matcher).Capture.StoreImage(context.Background(), &pb.StoreImageRequest{Image: make([]byte, 5<<20)})
	refused(t, err, vault.ReasonRoleNotAllowed)
	s.holds(0)
}
