package hcvault

import (
	"net/http"

	"github.com/portcullis/portcullis/internal/hcvault/transport"
)

// Sealed says of an error of [Server.Health] that Vault answered, and is sealed, so that
// somebody must unseal it; other errors mean that it did not answer as a Vault does.
func Sealed(err error) bool { return transport.Status(err) == http.StatusServiceUnavailable }
