package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// service is a real grpc server behind the credentials: the health service, and a stream.
type service struct {
	t       *testing.T
	ca      *ca
	paths   paths
	creds   *Server
	addr    string
	clock   *clock
	refused chan error

	stream func(vault.Caller, grpc.ServerStream) error

	mu      sync.Mutex
	sockets map[string]*counted // by the client's address
	callers []vault.Caller
}

func serve(t *testing.T, opts Options) *service {
	t.Helper()
	s := &service{t: t, ca: newCA(t), clock: &clock{}, refused: make(chan error, 1000), sockets: map[string]*counted{}}
	s.paths = s.ca.write(s.ca.server())
	files, err := loadFiles(s.paths.cert, s.paths.key, s.paths.bundle, s.clock.now)
	if err != nil {
		t.Fatal(err)
	}
	opts.Now = s.clock.now
	opts.Refused = func(_ string, err error) { s.refused <- err }
	s.creds = NewServer(files, trustDomain, opts)
	gs := grpc.NewServer(grpc.Creds(s.creds),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			c, err := CallerFrom(ctx)
			if err != nil {
				return nil, err
			}
			s.mu.Lock()
			s.callers = append(s.callers, c)
			s.mu.Unlock()
			return h(ctx, req)
		}))
	healthpb.RegisterHealthServer(gs, health.NewServer())
	gs.RegisterService(&grpc.ServiceDesc{ServiceName: "test.Stream", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
		StreamName: "Run", ServerStreams: true,
		Handler: func(_ any, stream grpc.ServerStream) error {
			c, err := CallerFrom(stream.Context())
			if err != nil {
				return err
			}
			if err := stream.RecvMsg(new(emptypb.Empty)); err != nil {
				return err
			}
			return s.stream(c, stream)
		},
	}}}, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	done := make(chan error, 1)
	go func() { done <- gs.Serve(listener{l, s}) }()
	t.Cleanup(func() {
		gs.Stop()
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
		s.creds.mu.Lock()
		defer s.creds.mu.Unlock()
		if n := len(s.creds.conns); n != 0 {
			t.Errorf("%d connections are still in the registry", n)
		}
	})
	return s
}

// listener counts what the server gives to the kernel.
type listener struct {
	net.Listener
	s *service
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	n := &counted{TCPConn: c.(*net.TCPConn)}
	l.s.mu.Lock()
	l.s.sockets[c.RemoteAddr().String()] = n
	l.s.mu.Unlock()
	return n, nil
}

func (s *service) tls(l *leaf) *tls.Config {
	c := &tls.Config{RootCAs: s.ca.pool(), NextProtos: []string{"h2"}, ServerName: "127.0.0.1"}
	if l != nil {
		c.Certificates = []tls.Certificate{l.tls}
	}
	return c
}

func (s *service) dial(c *tls.Config, opts ...grpc.DialOption) *grpc.ClientConn {
	s.t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+s.addr, append(opts, grpc.WithTransportCredentials(credentials.NewTLS(c)))...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { cc.Close() })
	return cc
}

func check(cc *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := healthpb.NewHealthClient(cc).Check(ctx, &healthpb.HealthCheckRequest{})
	return err
}

func TestCallersAreAdmitted(t *testing.T) {
	s := serve(t, Options{})
	for path, want := range map[string]vault.Caller{
		"/capture/north/lane-1":      {Role: vault.RoleCapture, Site: "north", Lane: "lane-1"},
		"/contractor/acme/analytics": {Role: vault.RoleContractor, Org: "acme", Workload: "analytics"},
		"/admin/ada":                 {Role: vault.RoleAdmin, Name: "ada"},
		"/auditor/bob":               {Role: vault.RoleAuditor, Name: "bob"},
	} {
		l := s.ca.client(path)
		cc := s.dial(s.tls(&l))
		for range 2 {
			if err := check(cc); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
		}
		s.mu.Lock()
		got, again := s.callers[len(s.callers)-1], s.callers[len(s.callers)-2]
		if _, ok := s.sockets[got.Addr]; !ok || got.Conn == 0 || got != again {
			t.Errorf("%s: caller %+v, then %+v, on no connection that was made", path, again, got)
		}
		s.mu.Unlock()
		want.ID, want.Cert = "spiffe://"+trustDomain+path, vault.DigestOf(l.tls.Certificate[0])
		want.Conn, want.Addr = got.Conn, got.Addr
		if got != want {
			t.Errorf("%s: got %+v, want %+v", path, got, want)
		}
	}
}

func TestOthersAreRefused(t *testing.T) {
	const ada = "spiffe://" + trustDomain + "/admin/ada"
	s := serve(t, Options{})
	mint := func(change func(*x509.Certificate), ids ...string) *tls.Config {
		l := s.ca.mint(change, ids...)
		return s.tls(&l)
	}
	with := func(c *tls.Config, change func(*tls.Config)) *tls.Config {
		change(c)
		return c
	}
	other := newCA(t).client("/admin/ada")
	chain := func(n int) *tls.Config {
		l := s.ca.client("/admin/ada")
		for range n - 1 {
			l.tls.Certificate = append(l.tls.Certificate, s.ca.cert.Raw)
		}
		return s.tls(&l)
	}
	for name, c := range map[string]struct {
		config *tls.Config
		want   string
	}{
		"no certificate":       {s.tls(nil), "didn't provide a certificate"},
		"another authority":    {s.tls(&other), "unknown authority"},
		"expired":              {mint(func(x *x509.Certificate) { x.NotAfter = time.Now().Add(-time.Minute) }, ada), "expired"},
		"not valid yet":        {mint(func(x *x509.Certificate) { x.NotBefore = time.Now().Add(time.Minute) }, ada), "not yet valid"},
		"another trust domain": {mint(nil, "spiffe://elsewhere.test/admin/ada"), "trust domain"},
		"a trust domain below": {mint(nil, "spiffe://a."+trustDomain+"/admin/ada"), "trust domain"},
		"two URIs":             {mint(nil, ada, "spiffe://"+trustDomain+"/admin/bob"), "names 2 URIs"},
		"the same URI twice":   {mint(nil, ada, ada), "names 2 URIs"},
		"no URI":               {mint(func(x *x509.Certificate) { x.DNSNames = []string{"ada"} }), "names 0 URIs"},
		"a web address":        {mint(nil, "https://"+trustDomain+"/admin/ada"), "scheme"},
		"an unknown role":      {mint(nil, "spiffe://"+trustDomain+"/root/ada"), "must begin with"},
		"the service itself":   {mint(nil, "spiffe://"+trustDomain+"/portcullisd"), "must begin with"},
		"a part too many":      {mint(nil, ada+"/x"), "number of parts"},
		"an escaped path":      {mint(nil, "spiffe://"+trustDomain+"/%61dmin/ada"), "path"},
		"a query":              {mint(nil, ada+"?x=1"), "path"},
		"for servers only": {mint(func(x *x509.Certificate) {
			x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}, ada), "incompatible key usage"},
		"for nothing in particular": {mint(func(x *x509.Certificate) { x.ExtKeyUsage = nil }, ada), "not for clients"},
		"for anything": {mint(func(x *x509.Certificate) {
			x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
		}, ada), "not for clients"},
		"an authority": {mint(func(x *x509.Certificate) {
			x.IsCA, x.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
		}, ada), "authority's"},
		"a long chain":      {chain(vault.MaxChain + 1), "at most 3"},
		"a big certificate": {mint(func(x *x509.Certificate) { x.DNSNames = many(600) }, ada), "bytes; at most"},
		"TLS 1.2":           {with(chain(1), func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), "unsupported versions"},
		"no ALPN":           {with(chain(1), func(c *tls.Config) { c.NextProtos = nil }), "HTTP/2"},
		"HTTP/1.1":          {with(chain(1), func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }), "HTTP/2"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := tls.Dial("tcp", s.addr, c.config)
			if err == nil {
				// In TLS 1.3 the client is done before the server has looked at it.
				if err = conn.SetDeadline(time.Now().Add(5 * time.Second)); err == nil {
					_, err = conn.Read(make([]byte, 1))
				}
				conn.Close()
			}
			if err == nil {
				t.Error("the client reads from the server")
			}
			select {
			case err := <-s.refused:
				if !strings.Contains(err.Error(), c.want) {
					t.Errorf("refused with %q, want %q", err, c.want)
				}
			case <-time.After(5 * time.Second):
				t.Error("not refused")
			}
		})
	}
	if err := check(s.dial(chain(vault.MaxChain))); err != nil {
		t.Errorf("the longest chain that is allowed: %v", err)
	}
}

// TestSilentProbes: who goes without a word is told apart from who is refused.
func TestSilentProbes(t *testing.T) {
	s := serve(t, Options{})
	for sent, silent := range map[string]bool{"": true, "G": false, "GET / HTTP/1.1\r\n\r\n": false} {
		raw, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := raw.Write([]byte(sent)); err != nil {
			t.Fatal(err)
		}
		raw.Close()
		if err := <-s.refused; errors.Is(err, ErrSilent) != silent {
			t.Errorf("after %q: %v", sent, err)
		}
	}
}

func many(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = strings.Repeat("a", 20)
	}
	return names
}

// tickets is a client's session cache that tells whether it was ever given anything.
type tickets struct {
	tls.ClientSessionCache
	mu  sync.Mutex
	put int
}

func (c *tickets) Put(key string, s *tls.ClientSessionState) {
	c.mu.Lock()
	c.put++
	c.mu.Unlock()
	c.ClientSessionCache.Put(key, s)
}

func TestSessionsCanNotBeResumed(t *testing.T) {
	s := serve(t, Options{})
	l := s.ca.client("/admin/ada")
	config, cache := s.tls(&l), &tickets{ClientSessionCache: tls.NewLRUClientSessionCache(10)}
	config.ClientSessionCache = cache
	for i := range 3 {
		conn, err := tls.Dial("tcp", s.addr, config)
		if err != nil {
			t.Fatal(err)
		}
		// Tickets come before the server's first frame.
		if _, err := io.ReadFull(conn, make([]byte, 9)); err != nil {
			t.Fatal(err)
		}
		if conn.ConnectionState().DidResume {
			t.Errorf("connection %d resumed a session", i)
		}
		conn.Close()
	}
	if cache.put > 0 {
		t.Errorf("the server gave %d tickets", cache.put)
	}
}

func TestSlowHandshakesAreCut(t *testing.T) {
	const limit = 300 * time.Millisecond
	s := serve(t, Options{Handshake: limit})
	l := s.ca.client("/admin/ada")
	ends := func(t *testing.T, conn net.Conn, from time.Time) {
		t.Helper()
		if err := conn.SetReadDeadline(from.Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err := io.Copy(io.Discard, conn)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			t.Fatal("still open")
		}
		if d := time.Since(from); d < limit/2 || d > limit+2*time.Second {
			t.Errorf("cut after %s, want %s", d, limit)
		}
	}
	for name, send := range map[string]func(net.Conn){
		"silent": func(net.Conn) {},
		"one byte at a time": func(c net.Conn) {
			// A handshake record of 512 bytes, begun and never finished.
			hello := append([]byte{22, 3, 1, 2, 0}, make([]byte, 512)...)
			for _, b := range hello {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			from := time.Now()
			conn, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			var sending sync.WaitGroup
			sending.Go(func() { send(conn) })
			ends(t, conn, from)
			sending.Wait()
		})
	}
	t.Run("TLS and then nothing", func(t *testing.T) {
		from := time.Now()
		conn, err := tls.Dial("tcp", s.addr, s.tls(&l))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ends(t, conn, from)
	})
	t.Run("a good connection outlives the limit", func(t *testing.T) {
		cc := s.dial(s.tls(&l))
		if err := check(cc); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * limit)
		if err := check(cc); err != nil {
			t.Fatal(err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if n := len(s.callers); s.callers[n-1].Conn != s.callers[n-2].Conn {
			t.Error("it was another connection")
		}
	})
}

func TestConnectionsThatCanNotBeResetAreRefused(t *testing.T) {
	s := serve(t, Options{})
	a, b := net.Pipe()
	defer b.Close()
	if _, _, err := s.creds.ServerHandshake(a); err == nil || !strings.Contains(err.Error(), "can not be reset") {
		t.Errorf("a pipe: %v", err)
	}
}

func TestCallerFromNothing(t *testing.T) {
	if c, err := CallerFrom(context.Background()); vault.KindOf(err) != vault.Denied {
		t.Errorf("got %+v, %v", c, err)
	}
}

// message is what streams carry.
func message(n int) *wrapperspb.BytesValue { return wrapperspb.Bytes(make([]byte, n)) }
