// Package client is the SDK for capture systems, contractors, admins and auditors: a
// connection that proves both sides, and the steps that a caller must get right (storing
// under one request ID, signing exactly what is shown, fetching page by page).
//
// Errors of calls are *vault.Error with the kind, reason and fields that the service gave.
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
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
	conn, err := grpc.NewClient("passthrough:///"+cfg.Address,
		grpc.WithTransportCredentials(credentials.NewTLS(TLS(cfg))),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.WithChainUnaryInterceptor(unaryErrors),
		grpc.WithChainStreamInterceptor(streamErrors),
		grpc.WithDisableServiceConfig(),
	)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", cfg.Address, err)
	}
	return &Client{
		Capture: pb.NewCaptureServiceClient(conn), Grants: pb.NewGrantServiceClient(conn), Release: pb.NewReleaseServiceClient(conn),
		Admin: pb.NewAdminServiceClient(conn), Audit: pb.NewAuditServiceClient(conn), Identity: pb.NewIdentityServiceClient(conn),
		cfg: cfg, conn: conn,
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

// TLS is how a client of the configuration connects: for those who bring a gRPC client of
// their own. It proves the service by its SPIFFE ID, not by a host name. The check stands in
// VerifyConnection, which no resumed session skips.
func TLS(cfg Config) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // the standard check wants a host name; VerifyConnection checks chain and ID
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(cfg.Certificate, cfg.Key)
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

// fromStatus gives the service's error as the domain knows it. A connection that fails is
// Unavailable, without a reason; a caller that gave up finds its context's error.
func fromStatus(err error) error {
	s, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	switch s.Code() {
	case codes.Canceled:
		return fmt.Errorf("%s: %w", s.Message(), context.Canceled)
	case codes.DeadlineExceeded:
		return fmt.Errorf("%s: %w", s.Message(), context.DeadlineExceeded)
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
		}
	}
	return e
}

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

// errNoAnswer says that an answer lacks what the service must send.
var errNoAnswer = errors.New("the service's answer is incomplete")
