package hcvault

import (
	"context"
	"errors"
	"net/http"
	"regexp"

	"github.com/portcullis/portcullis/internal/hcvault/transport"
	"github.com/portcullis/portcullis/vault"
)

// Release opens data keys with the token that its caller brings. It holds no credential.
type Release struct{ srv *Server }

// Release needs no credential.
func (s *Server) Release() *Release { return &Release{s} }

var wrappedForm = regexp.MustCompile(`^vault:v[1-9][0-9]{0,8}:`)

// Unwrap decrypts a wrapped data key by the key of that name, with the token, and gives its 32 bytes.
//
// Errors: Denied KEY_REFUSED when Vault does not take the token for this key, KEY_REVOKED when the key is revoked,
// KEY_DESTROYED when the token would do but the key is gone (without rights Vault does not tell which keys exist),
// DataLoss when the wrapped key is not what the key made, Unavailable when Vault is sealed or away, and for some
// milliseconds when other calls have had the last of the token's uses: then it answers 500, later 403.
func (r *Release) Unwrap(ctx context.Context, t vault.Token, keyName, wrapped string) (dek []byte, err error) {
	if err := checkKey(keyName); err != nil {
		return nil, err
	}
	refuse := func(k vault.Kind, why vault.Reason, what string, cause error) error {
		return vault.E(k, why, "%s", what).Because(cause)
	}
	if !tokenForm(t.Reveal()) {
		return nil, refuse(vault.Denied, vault.ReasonKeyRefused, "Vault does not take the grant token", errors.New("it is not a token of Vault"))
	}
	// Vault takes version 0 for 1, and answers negative ones as if the key were revoked.
	if len(wrapped) > MaxWrapped || !wrappedForm.MatchString(wrapped) {
		return nil, refuse(vault.DataLoss, vault.ReasonDataLoss, "the wrapped key is damaged", nil)
	}
	var got struct {
		Data struct {
			Plaintext []byte `json:"plaintext"`
		} `json:"data"`
	}
	in := map[string]string{"ciphertext": wrapped}
	err = r.srv.calls.Do(ctx, t.Reveal(), http.MethodPost, r.srv.path("decrypt", keyName), in, &got)
	var answer *transport.Error
	if errors.As(err, &answer) {
		switch {
		case answer.Status == http.StatusForbidden:
			return nil, refuse(vault.Denied, vault.ReasonKeyRefused, "Vault refused the grant's token for this key", err)
		case answer.Status != http.StatusBadRequest:
		case answer.Says("disallowed by policy (too old)"):
			return nil, refuse(vault.Denied, vault.ReasonKeyRevoked, "the record's key is revoked", err)
		case answer.Says("encryption key not found"):
			return nil, refuse(vault.Denied, vault.ReasonKeyDestroyed, "the record's key is destroyed", err)
		case answer.Says("invalid ciphertext"), answer.Says("message authentication failed"):
			return nil, refuse(vault.DataLoss, vault.ReasonDataLoss, "the wrapped key is damaged", err)
		}
	}
	if err != nil {
		return nil, translate("open by key "+keyName, err)
	}
	if len(got.Data.Plaintext) != dekSize {
		clear(got.Data.Plaintext)
		return nil, refuse(vault.DataLoss, vault.ReasonDataLoss, "the data key has a wrong length", nil)
	}
	return got.Data.Plaintext, nil
}

// tokenForm says whether s can be a token of Vault: it becomes a header.
func tokenForm(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return s != "" && len(s) <= vault.MaxToken
}
