package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// Callers with old and new certificates call throughout, each on a lasting connection and
// on new ones, while certificate and bundle are rotated, also carelessly.
func TestRotationFailsNoCall(t *testing.T) {
	s := serve(t, Options{})
	next := newCA(t)
	roots := s.ca.pool()
	roots.AddCert(next.cert)
	config := func(l leaf) *tls.Config {
		c := s.tls(&l)
		c.RootCAs = roots
		return c
	}
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	var calls, serials sync.Map
	calling := func(name string, c *tls.Config) (stop context.CancelFunc) {
		ctx, stop := context.WithCancel(ctx)
		c.VerifyConnection = func(cs tls.ConnectionState) error {
			serials.Store(cs.PeerCertificates[0].SerialNumber.String(), true)
			return nil
		}
		n := new(atomic.Int64)
		calls.Store(name, n)
		lasting := s.dial(c)
		callers.Go(func() {
			for ctx.Err() == nil {
				fresh, err := grpc.NewClient("passthrough:///"+s.addr, grpc.WithTransportCredentials(credentials.NewTLS(c)))
				if err != nil {
					t.Error(err)
					return
				}
				for _, cc := range []*grpc.ClientConn{lasting, fresh} {
					if err := check(cc); err != nil && ctx.Err() == nil {
						t.Errorf("%s: %v", name, err)
					}
				}
				fresh.Close()
				n.Add(1)
			}
		})
		return stop
	}
	step := func() {
		t.Helper()
		s.clock.advance(CheckEvery)
		calls.Range(func(name, n any) bool {
			count := n.(*atomic.Int64)
			for from, wait := count.Load(), time.Now(); count.Load() < from+3; time.Sleep(time.Millisecond) {
				if time.Since(wait) > 10*time.Second {
					t.Errorf("%s stands still", name)
					return false
				}
			}
			return true
		})
	}
	stopOld := calling("old", config(s.ca.client("/admin/ada")))
	step()
	for range 5 {
		l := s.ca.server()
		put(t, s.paths.cert, l.certPEM)
		step() // with a key that does not fit
		put(t, s.paths.key, l.pkey)
		step()
	}
	// The authority: both, then the service's own certificate, then the new one alone.
	both := bundle(s.ca, next)
	if err := os.WriteFile(s.paths.bundle, both[:len(both)-30], 0o600); err != nil {
		t.Fatal(err)
	}
	step()
	put(t, s.paths.bundle, both)
	s.clock.advance(CheckEvery)
	calling("new", config(next.client("/admin/bob")))
	step()
	l := next.server()
	put(t, s.paths.key, l.pkey)
	step()
	put(t, s.paths.cert, l.certPEM)
	step()
	stopOld()
	calls.Delete("old")
	put(t, s.paths.bundle, next.pem)
	step()
	cancel()
	callers.Wait()
	n := 0
	serials.Range(func(any, any) bool { n++; return true })
	if n != 7 {
		t.Errorf("clients saw %d certificates of the service, want 7", n)
	}
}

func TestConnectionsEndWithTheirCertificate(t *testing.T) {
	s := serve(t, Options{})
	s.stream = func(_ vault.Caller, stream grpc.ServerStream) error {
		// As a long stream does it: asked before every message.
		for {
			if _, err := CallerFrom(stream.Context()); err != nil {
				return err
			}
			if err := stream.SendMsg(message(1)); err != nil {
				return err
			}
			time.Sleep(time.Millisecond)
		}
	}
	next := newCA(t)
	long := s.ca.mint(func(x *x509.Certificate) { x.NotAfter = time.Now().Add(24 * time.Hour) }, "spiffe://"+trustDomain+"/admin/bob")
	short := s.ca.client("/admin/ada")
	ccShort, ccLong := s.dial(s.tls(&short)), s.dial(s.tls(&long))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stream, err := open(ctx, ccShort)
	if err != nil {
		t.Fatal(err)
	}
	refusedCall := func(cc *grpc.ClientConn) {
		t.Helper()
		if err := check(cc); err == nil || !strings.Contains(err.Error(), "expired or is no longer trusted") {
			t.Errorf("got %v, want a refusal", err)
		}
	}
	for _, cc := range []*grpc.ClientConn{ccShort, ccLong} {
		if err := check(cc); err != nil {
			t.Fatal(err)
		}
	}
	s.clock.advance(2 * time.Hour)
	refusedCall(ccShort)
	if err := check(ccLong); err != nil {
		t.Errorf("a certificate that is still valid: %v", err)
	}
	for err = stream.RecvMsg(message(0)); err == nil; err = stream.RecvMsg(message(0)) {
	}
	if !strings.Contains(err.Error(), "expired or is no longer trusted") {
		t.Errorf("the stream ended with %v", err)
	}

	put(t, s.paths.bundle, next.pem)
	s.clock.advance(CheckEvery)
	refusedCall(ccLong)
	put(t, s.paths.bundle, bundle(s.ca, next))
	s.clock.advance(CheckEvery)
	if err := check(ccLong); err != nil {
		t.Errorf("the authority is trusted again: %v", err)
	}
}

func BenchmarkStands(b *testing.B) {
	a := newCA(b)
	p := a.write(a.server())
	f, err := LoadFiles(p.cert, p.key, p.bundle)
	if err != nil {
		b.Fatal(err)
	}
	s := NewServer(f, trustDomain, Options{})
	l := a.client("/admin/ada")
	c := &conn{server: s, presented: []*x509.Certificate{l.tls.Leaf}}
	c.standing.Store(&standing{})
	for b.Loop() {
		if err := c.stands(); err != nil {
			b.Fatal(err)
		}
	}
}
