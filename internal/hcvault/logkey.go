package hcvault

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

const (
	// LogRole names the credential, policy and AppRole that sign the log's checkpoints.
	LogRole = "portcullis-log"
	// LogKeyName names the key that signs them, in an engine of its own beside the record keys', so that the admin
	// role, which works on every key there, can not touch it.
	LogKeyName = "checkpoints"
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

// Public gives the public key. Version 1 stays the log's key: a key that was rotated at Vault would be another log's.
func (k *LogKey) Public(ctx context.Context) (ed25519.PublicKey, error) {
	var got struct {
		Data struct {
			Type string `json:"type"`
			Keys map[string]struct {
				PublicKey string `json:"public_key"`
			} `json:"keys"`
		} `json:"data"`
	}
	if err := k.session.do(ctx, http.MethodGet, k.path("keys"), nil, &got); err != nil {
		return nil, translate("read the log's key", err)
	}
	public, err := base64.StdEncoding.DecodeString(got.Data.Keys["1"].PublicKey)
	if err != nil || got.Data.Type != "ed25519" || len(public) != ed25519.PublicKeySize {
		return nil, translate("read the log's key", fmt.Errorf("it is of type %q, and version 1 has no Ed25519 key", got.Data.Type))
	}
	return public, nil
}

// Sign signs a checkpoint. The signature is not checked here: whoever uses it knows the key.
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
		return nil, translate("sign the log", errors.New("the answer is no signature of version 1"))
	}
	return sig, nil
}
