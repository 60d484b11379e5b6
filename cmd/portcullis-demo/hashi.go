package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// hashi speaks to HashiCorp Vault directly, past Portcullis: to compare what it holds, and
// to play the thief.
type hashi struct {
	address string
	mount   string
	http    *http.Client
	root    string // the development Vault's root token, which opens every door there is
}

// maxAnswer is the most bytes read of an answer; a list of some thousand keys takes 100 KB.
const maxAnswer = 4 << 20

// openHashi reads where Vault is from the files below the service's directory.
func openHashi(dir string) (*hashi, error) {
	var cfg struct {
		Vault struct{ Address, CA, Mount string }
	}
	var keys struct {
		RootToken string `json:"root_token"`
	}
	text, err := os.ReadFile(filepath.Join(dir, "portcullisd.yaml"))
	if err != nil {
		return nil, err
	}
	if err := yaml.Unmarshal(text, &cfg); err != nil {
		return nil, fmt.Errorf("portcullisd.yaml: %w", err)
	}
	if text, err = os.ReadFile(filepath.Join(dir, "vault", "INSECURE-development-keys.json")); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &keys); err != nil || keys.RootToken == "" {
		return nil, errors.New("the development Vault's keys hold no root token")
	}
	pem, err := os.ReadFile(cfg.Vault.CA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", cfg.Vault.CA)
	}
	return &hashi{
		address: cfg.Vault.Address, mount: cfg.Vault.Mount, root: keys.RootToken,
		http: &http.Client{
			Timeout:   callTimeout,
			Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, IdleConnTimeout: time.Second},
		},
	}, nil
}

// answer is what Vault said.
type answer struct {
	status int
	Data   json.RawMessage
	Auth   struct {
		ClientToken string `json:"client_token"`
	} `json:"auth"`
	Errors []string `json:"errors"`
}

// dataKey gives the data key that Vault gave out; nil if it gave none.
func (a answer) dataKey() []byte {
	var data struct{ Plaintext []byte }
	if a.status != http.StatusOK || json.Unmarshal(a.Data, &data) != nil || len(data.Plaintext) == 0 {
		return nil
	}
	return data.Plaintext
}

func (h *hashi) call(ctx context.Context, method, path, token string, in any) (a answer, err error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return a, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, h.address+"/v1/"+path, body)
	if err != nil {
		return a, err
	}
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	resp, err := h.http.Do(req)
	if err != nil {
		return a, fmt.Errorf("vault: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return a, fmt.Errorf("vault: %w", err)
	}
	a.status = resp.StatusCode
	if len(b) > 0 {
		if err := json.Unmarshal(b, &a); err != nil {
			return a, fmt.Errorf("vault: status %d and no JSON: %w", resp.StatusCode, err)
		}
	}
	return a, nil
}

// keys lists the names of all keys.
func (h *hashi) keys(ctx context.Context) ([]string, error) {
	a, err := h.call(ctx, "LIST", h.mount+"/keys", h.root, nil)
	if err != nil || a.status == http.StatusNotFound { // there are none
		return nil, err
	}
	var data struct{ Keys []string }
	if a.status != http.StatusOK || json.Unmarshal(a.Data, &data) != nil {
		return nil, fmt.Errorf("vault: status %d on listing keys: %q", a.status, a.Errors)
	}
	return data.Keys, nil
}

// key asks for one key as root.
func (h *hashi) key(ctx context.Context, name string) (answer, error) {
	return h.call(ctx, http.MethodGet, h.mount+"/keys/"+name, h.root, nil)
}

// fence says, asked as root, whether Vault has a policy for a grant that allows something:
// its fence, without which no token of the grant opens anything. That of an ended grant is
// replaced by a comment, so that nothing revives the grant.
func (h *hashi) fence(ctx context.Context, grant string) (stands bool, err error) {
	a, err := h.call(ctx, http.MethodGet, "sys/policies/acl/portcullis-grant-"+grant, h.root, nil)
	if err == nil && a.status != http.StatusOK && a.status != http.StatusNotFound {
		err = fmt.Errorf("vault: status %d on reading a policy: %q", a.status, a.Errors)
	}
	var policy struct{ Policy string }
	if err == nil && a.status == http.StatusOK {
		err = json.Unmarshal(a.Data, &policy)
	}
	return strings.Contains(policy.Policy, "path "), err
}

// unwrap asks Vault to open a wrapped data key.
func (h *hashi) unwrap(ctx context.Context, token, key, wrapped string) (answer, error) {
	return h.call(ctx, http.MethodPost, h.mount+"/decrypt/"+key, token, map[string]string{"ciphertext": wrapped})
}

// mint asks for a token of a policy, with the daemon's own credential for that.
func (h *hashi) mint(ctx context.Context, token, policy string) (answer, error) {
	return h.call(ctx, http.MethodPost, "auth/token/create/portcullis-grant", token, map[string]any{
		"policies": []string{policy}, "ttl": "60s", "explicit_max_ttl": "60s", "renewable": false, "no_default_policy": true,
		"entity_alias": "portcullis-c-" + contractor + "-1",
	})
}

// login gives a token for one of the daemon's own credentials.
func (h *hashi) login(ctx context.Context, file string) (string, error) {
	var role map[string]string
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	if err := json.Unmarshal(b, &role); err != nil {
		return "", fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	a, err := h.call(ctx, http.MethodPost, "auth/approle/login", "", role)
	if err == nil && a.Auth.ClientToken == "" {
		err = fmt.Errorf("vault: status %d on login with %s: %q", a.status, filepath.Base(file), a.Errors)
	}
	return a.Auth.ClientToken, err
}
