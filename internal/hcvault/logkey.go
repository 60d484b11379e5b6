package hcvault

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/portcullis/portcullis/vault"
)

const (
	// LogRole names the credential, policy and AppRole that sign the log's checkpoints.
	LogRole = "portcullis-log"
	// LogKeyName names the key that signs them, in an engine of its own beside the record keys', so that the admin
	// role, which works on every key there, can not touch it.
	LogKeyName = "checkpoints"
	// LogKeyType is its type at Vault.
	LogKeyType = "ed25519"
)

// LogMount is where the engine of the log's key stands, beside that of the record keys.
func LogMount(mount string) string { return mount + "-log" }

// LogKey signs the log's checkpoints by a key that does not leave Vault. It can do nothing else.
type LogKey struct{ session *session }

// LogKey uses the credential portcullis-log.
func (s *Server) LogKey(a AppRole) *LogKey { return &LogKey{&session{srv: s, role: a}} }

func (k *LogKey) path(verb string) string {
	return LogMount(k.session.srv.mount) + "/" + verb + "/" + LogKeyName
}

// Public gives the public key. Version 1 stays the log's key, also after somebody rotated it at Vault: with another it
// would be another log. Vault sealed or away is Unavailable; a key that is gone, or of another type, is Internal.
func (k *LogKey) Public(ctx context.Context) (ed25519.PublicKey, error) {
	var got struct {
		Data struct {
			Type string                     `json:"type"`
			Keys map[string]json.RawMessage `json:"keys"` // of a symmetric key they are numbers
		} `json:"data"`
	}
	if err := k.session.do(ctx, http.MethodGet, k.path("keys"), nil, &got); err != nil {
		return nil, translate("read the log's key", err)
	}
	if got.Data.Type != LogKeyType {
		return nil, unfit(fmt.Errorf("it is of type %q, not %s", got.Data.Type, LogKeyType))
	}
	var first struct {
		PublicKey []byte `json:"public_key"` // base64 in JSON, as Vault has it
	}
	if err := json.Unmarshal(got.Data.Keys["1"], &first); err != nil || len(first.PublicKey) != ed25519.PublicKeySize {
		return nil, unfit(errors.New("it has no version 1 that can be used"))
	}
	return first.PublicKey, nil
}

// unfit is what Vault has as the log's key and can not be it.
func unfit(cause error) error {
	return vault.E(vault.Internal, vault.ReasonInternal, "the log's key at Vault is not the one it should be").Because(cause)
}

// Sign signs a checkpoint with version 1 of the key. The signature is not checked here: whoever uses it knows the key.
// Errors are those of Public.
func (k *LogKey) Sign(ctx context.Context, message []byte) ([]byte, error) {
	var got struct {
		Data struct {
			Signature string `json:"signature"`
		} `json:"data"`
	}
	in := map[string]any{"input": base64.StdEncoding.EncodeToString(message), "key_version": 1}
	if err := k.session.do(ctx, http.MethodPost, k.path("sign"), in, &got); err != nil {
		return nil, translate("sign the log", err)
	}
	text, ok := strings.CutPrefix(got.Data.Signature, "vault:v1:")
	sig, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(sig) != ed25519.SignatureSize {
		return nil, unfit(errors.New("its answer is no signature of version 1"))
	}
	return sig, nil
}
