package client

import (
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ErrUnproved says that no connection came about because one side's certificate does not prove
// what the other side wants, or because the other side does not speak TLS 1.3: trying again
// helps only once the certificates, the bundle or a clock are mended. Its kind is
// vault.Unavailable, as that of other connections that fail, and it is repeated like them:
// certificates are renewed file by file.
var ErrUnproved = errors.New("the connection's proof failed")

const ownCertificate = "this profile's certificate"

// unprovedWords are in the message of a status whose connection failed its proof: the words of
// this package's own checks, those of crypto/tls for what the other side said, and for what is
// no TLS. gRPC gives connections' errors as text alone.
var unprovedWords = []string{
	ownCertificate,
	"the service's certificate is not of",
	"the service proves to be",
	"bundle of the profile",
	"remote error: tls: ",
	"authentication handshake failed: tls: ",
	"error reading server preface: tls: ",
}

// unproved says whether a status is that of a connection whose proof failed.
func unproved(s *status.Status) bool {
	if s.Code() != codes.Unavailable || len(s.Details()) > 0 {
		return false // the service itself gives details
	}
	for _, w := range unprovedWords {
		if strings.Contains(s.Message(), w) {
			return true
		}
	}
	return false
}
