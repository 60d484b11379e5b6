package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/portcullis/portcullis/vault"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

const alpn = "h2"

// HandshakeTimeout is how long a client may take for its handshake unless [Options] say otherwise.
const HandshakeTimeout = 10 * time.Second

// SendBuffer is the size asked of the kernel for what waits to be sent on a connection,
// in bytes (Linux doubles it for its own bookkeeping). It bounds what is on its way when
// access ends.
const SendBuffer = 128 << 10

// ErrSilent says that a client went without having sent a byte: a probe of the port.
var ErrSilent = errors.New("the client sent nothing")

// Options of a [Server]. The zero value is good.
type Options struct {
	// Handshake is the time from accepting a connection to the client's first HTTP/2
	// frames; 0 means [HandshakeTimeout]. It takes the place of grpc.ConnectionTimeout.
	Handshake time.Duration

	// Now is the clock for the validity of certificates; nil means time.Now.
	Now func() time.Time

	// Refused, unless nil, is told of every connection that was not admitted: its address
	// and why, for the log. It is called from many goroutines at once.
	Refused func(addr string, err error)
}

// Server is the transport credentials of a grpc.Server and the registry of its
// connections. All methods may be called concurrently.
type Server struct {
	src         *Files
	trustDomain string
	opts        Options
	shaking     handshakes

	last  atomic.Uint64 // number of the newest connection
	mu    sync.Mutex
	conns map[uint64]*conn
}

var _ credentials.TransportCredentials = (*Server)(nil)

// NewServer makes credentials that present src's certificate and admit the callers of a
// trust domain (a name such as "portcullis.example").
func NewServer(src *Files, trustDomain string, opts Options) *Server {
	if opts.Handshake <= 0 {
		opts.Handshake = HandshakeTimeout
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Server{src: src, trustDomain: trustDomain, opts: opts, conns: map[uint64]*conn{}}
}

// socket is what a connection must offer so that it can be reset: a *net.TCPConn. A
// listener that wraps its connections hides it, and they are refused.
type socket interface {
	net.Conn
	syscall.Conn
	SetLinger(seconds int) error
	SetWriteBuffer(bytes int) error
}

// Info is what grpc keeps as the AuthInfo of a connection.
type Info struct {
	credentials.CommonAuthInfo
	Caller   vault.Caller
	NotAfter time.Time // end of the certificate or of its authority, whichever is first, as of the handshake

	conn *conn
}

// AuthType names the protocol.
func (Info) AuthType() string { return "mtls-spiffe" }

// conn is one admitted connection. grpc reads and writes it; Reset closes the socket below.
type conn struct {
	*tls.Conn
	raw       socket
	server    *Server
	caller    vault.Caller
	presented []*x509.Certificate

	standing atomic.Pointer[standing]
	cut      atomic.Bool
	reset    sync.Once
}

// standing is what a connection's certificate is worth under one bundle.
type standing struct {
	roots *x509.CertPool
	until time.Time // when to look again: at the end of the chain, or soon after it failed
	err   error
}

// SyscallConn gives the socket to grpc's channelz.
func (c *conn) SyscallConn() (syscall.RawConn, error) { return c.raw.SyscallConn() }

// Close takes the connection out of the registry only once it is closed: closing waits up
// to five seconds for a client that does not read, and a reset must reach it meanwhile.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.server.forget(c)
	return err
}

// cutOff sends a TCP reset instead of what still waits in the send buffer. When it
// returns the socket is closed, whichever of several callers did it.
func (c *conn) cutOff() {
	c.cut.Store(true)
	c.reset.Do(func() {
		// An error means that the socket is closed already.
		_ = c.raw.SetLinger(0)
		_ = c.raw.Close()
	})
	c.server.forget(c)
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c.caller.Conn)
}

// ServerHandshake admits a connection or refuses it. An admitted one is in the registry
// before this returns, so before any call on it begins.
func (s *Server) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, info, err := s.admit(raw)
	if err != nil {
		raw.Close()
		if s.opts.Refused != nil {
			s.opts.Refused(raw.RemoteAddr().String(), err)
		}
		return nil, nil, err
	}
	return c, info, nil
}

func (s *Server) admit(raw net.Conn) (*conn, Info, error) {
	sock, ok := raw.(socket)
	if !ok {
		return nil, Info{}, fmt.Errorf("admit connection: a %T can not be reset; only TCP connections can", raw)
	}
	end, err := s.shaking.begin(raw.RemoteAddr())
	if err != nil {
		return nil, Info{}, err
	}
	defer end()
	// It stays after the handshake, for the client's first HTTP/2 frames; grpc lifts it then.
	if err := raw.SetDeadline(time.Now().Add(s.opts.Handshake)); err != nil {
		return nil, Info{}, fmt.Errorf("admit connection: %w", err)
	}
	if err := sock.SetWriteBuffer(SendBuffer); err != nil {
		return nil, Info{}, fmt.Errorf("admit connection: %w", err)
	}
	c := &conn{raw: sock, server: s}
	var until time.Time
	heard := false // whether the client has begun a handshake
	c.Conn = tls.Server(raw, &tls.Config{
		MinVersion:             tls.VersionTLS13,
		MaxVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{*s.src.Certificate()},
		NextProtos:             []string{alpn},
		ClientAuth:             tls.RequireAnyClientCert, // that it is a good one, VerifyConnection says
		SessionTicketsDisabled: true,                     // a resumed session would skip checks
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			heard = true
			return nil, nil
		},
		VerifyConnection: func(state tls.ConnectionState) error {
			roots := s.src.Roots()
			caller, end, err := verifyPeer(state, roots, s.trustDomain, s.opts.Now())
			if err != nil {
				return err
			}
			c.caller, c.presented, until = caller, state.PeerCertificates, end
			c.standing.Store(&standing{roots: roots, until: end})
			return nil
		},
	})
	if err := c.Conn.HandshakeContext(context.Background()); err != nil {
		if !heard && errors.Is(err, io.EOF) {
			err = ErrSilent
		}
		return nil, Info{}, fmt.Errorf("admit connection: %w", err)
	}
	if c.standing.Load() == nil {
		return nil, Info{}, errors.New("admit connection: the client's certificate was not looked at")
	}
	c.caller.Conn = s.last.Add(1)
	c.caller.Addr = raw.RemoteAddr().String()
	s.mu.Lock()
	s.conns[c.caller.Conn] = c
	s.mu.Unlock()
	return c, Info{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		Caller:         c.caller, NotAfter: until, conn: c,
	}, nil
}

// Reset cuts the connections of all callers that match, and says how many. Bytes that
// were not sent yet are discarded, also those that the kernel holds; calls on the
// connections end with an error on both sides. When Reset returns the sockets are closed.
//
// Whoever ends somebody's access first makes that durable, then resets. A connection
// whose handshake ends before Reset looks is cut. One whose handshake ends later begins
// its first call after Reset looked, so that call meets the new state. match is called
// under the registry's lock: it must be quick and must not call the Server.
//
// A connection that the service has closed before, in the ordinary way, is out of reach:
// the kernel may still be sending the last [SendBuffer] bytes of it.
func (s *Server) Reset(match func(vault.Caller) bool) int {
	var matched []*conn
	s.mu.Lock()
	for _, c := range s.conns {
		if match(c.caller) {
			matched = append(matched, c)
		}
	}
	s.mu.Unlock()
	for _, c := range matched {
		c.cutOff()
	}
	return len(matched)
}

// CallerFrom gives the caller of a grpc call from its context. It refuses, with an error
// of kind [vault.Denied], when the caller's certificate has expired, no longer goes back
// to the bundle in use, or the connection was reset. It costs about 100 ns (BenchmarkStands),
// so a long stream can ask before every message.
func CallerFrom(ctx context.Context) (vault.Caller, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return vault.Caller{}, refused("the call did not come over a connection")
	}
	info, ok := p.AuthInfo.(Info)
	if !ok || info.conn == nil {
		return vault.Caller{}, refused("the connection does not prove an identity")
	}
	if err := info.conn.stands(); err != nil {
		return vault.Caller{}, err
	}
	return info.Caller, nil
}

func refused(why string) *vault.Error {
	return vault.E(vault.Denied, vault.ReasonRoleNotAllowed, "%s", why)
}

// stands looks at the chain again only when the bundle has changed since, or time has
// passed that may have changed the answer: an authority whose validity begins in a moment
// must not leave a connection refused for good.
func (c *conn) stands() error {
	if c.cut.Load() {
		return refused("the connection was cut")
	}
	now, roots := c.server.opts.Now(), c.server.src.Roots()
	st := c.standing.Load()
	if st.roots != roots || now.After(st.until) {
		st = &standing{roots: roots}
		if st.until, st.err = verifyChain(c.presented, roots, now); st.err != nil {
			st.until = now.Add(CheckEvery)
		}
		c.standing.Store(st)
	}
	if st.err != nil {
		return refused("the certificate of this connection has expired or is no longer trusted; connect again with a new one").Because(st.err)
	}
	return nil
}

// ClientHandshake always fails: these are a server's credentials.
func (s *Server) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("server credentials can not open connections")
}

// Info describes the protocol.
func (s *Server) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone gives s itself: there is one registry of connections.
func (s *Server) Clone() credentials.TransportCredentials { return s }

// OverrideServerName does nothing: only clients check names.
func (s *Server) OverrideServerName(string) error { return nil }
