package hcvault

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"

	"github.com/portcullis/portcullis/vault"
)

// dekSize is the length of a data key, in bytes.
const dekSize = 32

// MaxWrapped is the longest wrapped key that is taken to Vault, in bytes; one of version 1 has 89.
const MaxWrapped = 512

// Capture makes record keys. It can neither open anything nor use a key that exists.
type Capture struct{ session *session }

// Capture uses the credential portcullis-capture.
func (s *Server) Capture(a AppRole) *Capture { return &Capture{&session{srv: s, role: a}} }

// Wrap makes the key of that name and encrypts a data key of 32 bytes by it, in one round trip. On return the key is
// durable at Vault. A name that exists is refused. Wrap is not repeated by itself: after an Unavailable error the key
// may exist, and only a fresh name may be tried.
func (c *Capture) Wrap(ctx context.Context, keyName string, dek []byte) (wrapped string, err error) {
	if err := checkKey(keyName); err != nil {
		return "", err
	}
	if len(dek) != dekSize {
		return "", vault.E(vault.Internal, vault.ReasonInternal, "a data key has %d bytes, not %d", len(dek), dekSize)
	}
	var got struct {
		Data struct {
			Ciphertext string `json:"ciphertext"`
		} `json:"data"`
	}
	in := map[string]string{"plaintext": base64.StdEncoding.EncodeToString(dek)}
	err = c.session.do(ctx, http.MethodPost, c.session.srv.path("encrypt", keyName), in, &got)
	if err != nil {
		return "", translate("make key "+keyName, err)
	}
	// Version 1 shows that the key was made by this call.
	if w := got.Data.Ciphertext; !strings.HasPrefix(w, "vault:v1:") || len(w) > MaxWrapped {
		return "", translate("make key "+keyName, fmt.Errorf("the answer is not a key wrapped by version 1"))
	}
	return got.Data.Ciphertext, nil
}
