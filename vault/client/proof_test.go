package client

import (
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/portcullis/portcullis/vault"
)

func TestUnproved(t *testing.T) {
	for text, want := range map[string]bool{
		`connection error: desc = "error reading server preface: remote error: tls: bad certificate"`:                                              true,
		`connection error: desc = "transport: authentication handshake failed: the service proves to be [x], not y"`:                               true,
		`connection error: desc = "transport: authentication handshake failed: tls: first record does not look like a TLS handshake"`:              true,
		`connection error: desc = "transport: authentication handshake failed: this profile's certificate expired 1h ago, at x"`:                   true,
		`connection error: desc = "transport: authentication handshake failed: EOF"`:                                                               false,
		`connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`:                             false,
		`connection error: desc = "transport: authentication handshake failed: read tcp 127.0.0.1:2->127.0.0.1:1: read: connection reset by peer"`: false,
		`connection error: desc = "transport: authentication handshake failed: context deadline exceeded"`:                                         false,
	} {
		err := fromStatus(status.Error(codes.Unavailable, text))
		if errors.Is(err, ErrUnproved) != want || vault.KindOf(err) != vault.Unavailable {
			t.Errorf("%s: %v, kind %v", text, !want, vault.KindOf(err))
		}
	}
	if errors.Is(fromStatus(status.Error(codes.Internal, "remote error: tls: x")), ErrUnproved) {
		t.Error("another code")
	}
}

func TestOwnCertificateInTime(t *testing.T) {
	from := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	c := &x509.Certificate{NotBefore: from, NotAfter: from.Add(24 * time.Hour)}
	for at, want := range map[time.Duration]string{
		-90 * time.Second:   "is valid only in 1m, from 2026-03-04T05:06:07",
		0:                   "",
		24 * time.Hour:      "",
		25 * time.Hour:      "expired 1h ago, at 2026-03-05T05:06:07",
		24 * 10 * time.Hour: "expired 9d ago, at 2026-03-05T05:06:07",
	} {
		err := inTime(c, from.Add(at))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), ownCertificate+" "+want) {
			t.Errorf("after %s: %v", at, err)
		}
	}
}
