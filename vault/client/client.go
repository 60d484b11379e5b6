// Package client is the SDK for capture systems, contractors, admins and auditors: a
// connection that proves both sides, and the steps that a caller must get right (storing
// under one request ID, signing exactly what is shown, checking what is fetched).
//
// Errors of calls are *vault.Error with the kind, reason and fields that the service gave.
// What the service sends and can not be right is a *vault.Error of the kind DataLoss.
//
// # Calls that fail
//
// A call that may be repeated without doing more than once is repeated, with growing waits,
// while the service or the connection is away, an attempt takes too long, or the service
// says when to come again (RetryInfo); [Config] says how long. Such are all calls that read,
// StoreImage and RequestGrant (each under its request ID), ProposeDecision, RevokeGrant,
// RetireGrant and SuspendContractor. At the rate of a purpose (RATE_EXCEEDED) they wait as long
// as the service says, whatever the patience. Any other answer is final: what is invalid, denied, over
// a quota, in the wrong state or lost does not get better. ApproveGrant, DenyGrant,
// ActivateGrant, SignDecision and RevokeKeys are not repeated: after such a call is lost,
// look what came of it, or, for ActivateGrant, activate again.
//
// Every call has a deadline: that of its context, and [Config].Timeout for each attempt; ten
// minutes for calls that are not repeated and whose context has none.
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

// Config says where the service is and who the caller is.
type Config struct {
	Address     string // host:port
	ServerID    string // SPIFFE ID that the service must prove, such as spiffe://example.org/portcullisd
	Certificate string // PEM file: the caller's certificate and its intermediates
	Key         string // PEM file
	Bundle      string // PEM file: the authorities of the trust domain

	// LogKey is the key of the service's audit log, as the operator gives it: with it each
	// checkpoint that comes with an answer is checked, and compared with the one before, which
	// the file LogMemory keeps (only within this client when it is empty).
	LogKey    string
	LogMemory string

	// Timeout ends one attempt of a call that may be repeated, and a stream of images that
	// brings none for so long. 150 s when 0.
	Timeout time.Duration
	// Patience is how long such a call is repeated after its first failure, or a stream after
	// its last image; where the service waited in vain for HashiCorp Vault, its wait counts as
	// well. 5 s when 0; not at all when negative.
	Patience time.Duration
}

func (c Config) withDefaults() Config {
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.Patience == 0 {
		c.Patience = defaultPatience
	}
	return c
}

// maxMessage is the largest answer taken, in bytes: one image and what goes with it.
const maxMessage = 64 << 20

// Client is a connection to the service. Its methods, and those of the services, may be
// called at once from many goroutines.
type Client struct {
	Capture  pb.CaptureServiceClient
	Grants   pb.GrantServiceClient
	Release  pb.ReleaseServiceClient
	Admin    pb.AdminServiceClient
	Audit    pb.AuditServiceClient
	Identity pb.IdentityServiceClient

	cfg  Config
	log  *logWatch // nil without a key of the log
	conn *grpc.ClientConn
}

// Dial makes a client. It reads the files, and connects with the first call; a certificate
// that is renewed in its file is used from the next connection on.
func Dial(cfg Config) (*Client, error) {
	if _, err := tls.LoadX509KeyPair(cfg.Certificate, cfg.Key); err != nil {
		return nil, fmt.Errorf("certificate of the profile: %w", err)
	}
	if _, err := roots(cfg.Bundle); err != nil {
		return nil, err
	}
	return open(cfg, "passthrough:///"+cfg.Address, alerted{credentials.NewTLS(TLS(cfg))})
}

func open(cfg Config, target string, creds credentials.TransportCredentials, more ...grpc.DialOption) (*Client, error) {
	cfg = cfg.withDefaults()
	log, err := cfg.logWatch()
	if err != nil {
		return nil, err
	}
	// grpc's own waits between connections grow to two minutes, which is long for a lane.
	between := backoff.Config{BaseDelay: firstWait, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 10 * time.Second}
	conn, err := grpc.NewClient(target, append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		// The service disconnects who pings more often than every 20 s.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 15 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: between, MinConnectTimeout: 20 * time.Second}),
		grpc.WithChainUnaryInterceptor(unaryErrors, cfg.attempts),
		grpc.WithChainStreamInterceptor(streamErrors),
		grpc.WithDisableServiceConfig(),
	}, more...)...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", cfg.Address, err)
	}
	return &Client{
		Capture: pb.NewCaptureServiceClient(conn), Grants: pb.NewGrantServiceClient(conn), Release: pb.NewReleaseServiceClient(conn),
		Admin: pb.NewAdminServiceClient(conn), Audit: pb.NewAuditServiceClient(conn), Identity: pb.NewIdentityServiceClient(conn),
		cfg: cfg, log: log, conn: conn,
	}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

func roots(bundle string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(bundle)
	if err != nil {
		return nil, fmt.Errorf("bundle of the profile: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("bundle of the profile: no certificate in %s", bundle)
	}
	return pool, nil
}

// inTime says whether the caller's own certificate is valid now. The service would refuse it
// too, but need not get to say so before the connection is gone.
func inTime(own *x509.Certificate, now time.Time) error {
	for _, bad := range []struct {
		is   bool
		what string
		at   time.Time
		by   time.Duration
	}{
		{now.After(own.NotAfter), "expired %s ago, at %s", own.NotAfter, now.Sub(own.NotAfter)},
		{now.Before(own.NotBefore), "is valid only in %s, from %s", own.NotBefore, own.NotBefore.Sub(now)},
	} {
		if bad.is {
			return fmt.Errorf(ownCertificate+" "+bad.what, about(bad.by), vault.FormatTime(bad.at))
		}
	}
	return nil
}

// about writes a duration in its largest unit.
func about(d time.Duration) string {
	for _, u := range []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if d >= u.size {
			return fmt.Sprintf("%d%s", d/u.size, u.name)
		}
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// TLS is how a client of the configuration connects: for those who bring a gRPC client of
// their own. It proves the service by its SPIFFE ID, not by a host name. The check stands in
// VerifyConnection, which no resumed session skips.
func TLS(cfg Config) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // the standard check wants a host name; VerifyConnection checks chain and ID
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(cfg.Certificate, cfg.Key)
			if err == nil {
				err = inTime(pair.Leaf, time.Now())
			}
			return &pair, err
		},
		VerifyConnection: func(state tls.ConnectionState) error {
			pool, err := roots(cfg.Bundle)
			if err != nil {
				return err
			}
			between := x509.NewCertPool()
			for _, c := range state.PeerCertificates[1:] {
				between.AddCert(c)
			}
			leaf := state.PeerCertificates[0]
			if _, err := leaf.Verify(x509.VerifyOptions{
				Roots: pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			}); err != nil {
				return fmt.Errorf("the service's certificate is not of the profile's bundle: %w", err)
			}
			if len(leaf.URIs) != 1 || leaf.URIs[0].String() != cfg.ServerID {
				return fmt.Errorf("the service proves to be %v, not %s", leaf.URIs, cfg.ServerID)
			}
			return nil
		},
	}
}

var kinds = map[codes.Code]vault.Kind{
	codes.InvalidArgument: vault.Invalid, codes.NotFound: vault.NotFound, codes.PermissionDenied: vault.Denied,
	codes.FailedPrecondition: vault.State, codes.ResourceExhausted: vault.Exhausted, codes.AlreadyExists: vault.Exists,
	codes.Aborted: vault.Conflict, codes.DataLoss: vault.DataLoss, codes.Unavailable: vault.Unavailable,
	codes.Unimplemented: vault.NotOffered,
}

// failure is an error as the domain knows it, with the status that it came as.
type failure struct {
	error
	status *status.Status
}

func (f *failure) Unwrap() error { return f.error }

// GRPCStatus lets status.FromError find the status.
func (f *failure) GRPCStatus() *status.Status { return f.status }

// fromStatus gives the service's error as the domain knows it. A connection that fails is
// Unavailable, without a reason; a caller that gave up finds its context's error.
func fromStatus(err error) error {
	s, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	switch s.Code() {
	case codes.Canceled:
		return &failure{fmt.Errorf("%s: %w", s.Message(), context.Canceled), s}
	case codes.DeadlineExceeded:
		return &failure{fmt.Errorf("%s: %w", s.Message(), context.DeadlineExceeded), s}
	}
	e := &vault.Error{Kind: kinds[s.Code()], Message: s.Message()}
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			e.Reason = vault.Reason(d.Reason)
		case *errdetails.BadRequest:
			e.Message = "invalid request"
			for _, f := range d.FieldViolations {
				e.Fields = append(e.Fields, vault.Field{Name: f.Field, Description: f.Description})
			}
		case *errdetails.RetryInfo:
			e.After = d.GetRetryDelay().AsDuration()
		}
	}
	if unproved(s) {
		return &failure{unprovedError{e}, s}
	}
	return &failure{e, s}
}

// unprovedError is an error that is ErrUnproved besides.
type unprovedError struct{ error }

func (e unprovedError) Unwrap() []error { return []error{e.error, ErrUnproved} }

func unaryErrors(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return fromStatus(call(ctx, method, req, reply, cc, opts...))
}

func streamErrors(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(ctx, desc, cc, method, opts...)
	if err != nil {
		return nil, fromStatus(err)
	}
	return stream{s}, nil
}

type stream struct{ grpc.ClientStream }

func (s stream) RecvMsg(m any) error { return fromStatus(s.ClientStream.RecvMsg(m)) }
