// Package transport makes calls of HashiCorp Vault's HTTP API: one call, one answer.
//
// It tames HashiCorp's own client, which stands below: that one reads the VAULT_* environment
// in its constructor and repeats writes by itself. Here nothing comes from the environment and
// nothing is sent twice.
package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
)

// Limits of one answer, in bytes.
const (
	maxAnswer = 1 << 20
	// MaxList is the limit of a list; a key name takes at most 90 bytes of it, so it is good for three million.
	MaxList = 256 << 20
)

// Config says which Vault and how.
type Config struct {
	Addr    string        // https://host:port
	CAFile  string        // PEM; the only authorities that are trusted
	Timeout time.Duration // of one call, waiting for a connection included; 0 means 10 s
	Conns   int           // most connections at once; further calls wait for one; 0 means 64
}

// Client makes calls. It holds no credential: each call brings its token. Safe for concurrent use.
type Client struct {
	timeout time.Duration
	http    *http.Client
	api     *api.Client
}

// CheckAddress says whether s can be the address of a Vault.
func CheckAddress(s string) error {
	_, err := parseAddress(s)
	return err
}

func parseAddress(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return nil, fmt.Errorf("address of Vault %q: must be https://host:port", s)
	}
	return u, nil
}

// New makes a client. It does not connect yet.
func New(cfg Config) (*Client, error) {
	u, err := parseAddress(cfg.Addr)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(cfg.CAFile)
	if err != nil {
		return nil, fmt.Errorf("CA certificates of Vault: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CA certificates of Vault: %s holds none", cfg.CAFile)
	}
	if cfg.Timeout < 0 || cfg.Conns < 0 {
		return nil, errors.New("client of Vault: timeout and connections must not be negative")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Conns == 0 {
		cfg.Conns = 64
	}
	// HTTP/1.1: with many calls at once a pool of connections is faster than one that all share, and a POST is sent
	// again by net/http only if none of its bytes had left.
	only1 := new(http.Protocols)
	only1.SetHTTP1(true)
	c := &Client{
		timeout: cfg.Timeout,
		http: &http.Client{
			Transport: bounded{&http.Transport{
				Proxy:               nil, // tokens go to Vault and nowhere else
				DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
				TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
				TLSHandshakeTimeout: 5 * time.Second,
				MaxConnsPerHost:     cfg.Conns,
				MaxIdleConns:        cfg.Conns,
				MaxIdleConnsPerHost: cfg.Conns,
				IdleConnTimeout:     time.Minute,
				Protocols:           only1,
			}},
			// The client below follows a standby of Vault to its leader by itself: once, and never away from https.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	if c.api, err = api.NewClient(&api.Config{
		Address: "https://" + u.Host, HttpClient: c.http, MaxRetries: 0,
		CheckRetry: func(context.Context, *http.Response, error) (bool, error) { return false, nil },
	}); err != nil {
		// It reads the whole VAULT_* environment, and fails on what it can not read, though we use none of it.
		return nil, fmt.Errorf("client of Vault (is a VAULT_ variable of the environment malformed?): %w", err)
	}
	c.api.ClearToken()
	c.api.SetHeaders(http.Header{api.RequestHeaderName: {"true"}}) // drops namespace and headers of the environment
	c.api.SetWrappingLookupFunc(func(string, string) string { return "" })
	return c, nil
}

// Timeout is the most that one call takes.
func (c *Client) Timeout() time.Duration { return c.timeout }

// bounded cuts answers that are longer than allowed: the client below reads them whole.
type bounded struct{ *http.Transport }

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.Transport.RoundTrip(req)
	if err == nil {
		most := int64(maxAnswer)
		if req.URL.Query().Get("list") != "" {
			most = MaxList
		}
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, most+1), resp.Body}
	}
	return resp, err
}

// Error is Vault's refusal. It holds the texts that Vault gave, without the token.
type Error struct {
	Status int
	Texts  []string
}

// Error gives status and texts on one line.
func (e *Error) Error() string {
	if len(e.Texts) == 0 {
		return fmt.Sprintf("vault answers %d", e.Status)
	}
	return fmt.Sprintf("vault answers %d: %s", e.Status, strings.Join(e.Texts, "; "))
}

// Says tells whether one of the texts holds s.
func (e *Error) Says(s string) bool {
	for _, t := range e.Texts {
		if strings.Contains(t, s) {
			return true
		}
	}
	return false
}

// Absent tells whether Vault says that what was asked for does not exist. A path that nothing serves is answered by
// 404, too, but with a text.
func (e *Error) Absent() bool { return e.Status == http.StatusNotFound && len(e.Texts) == 0 }

// Status gives the status of Vault's refusal in err's tree, 0 if there is none.
func Status(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

// Do makes one call with a token (none if empty) and decodes the answer into out, which may be nil and stays as it is
// when Vault answers without content. It never repeats a call. Errors: [*Error] when Vault refuses, else what net/http
// says; a context that ended is found by errors.Is.
func (c *Client) Do(ctx context.Context, token, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("encode call: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	resp, err := c.send(ctx, token, method, path, body)
	if resp != nil && resp.Body != nil {
		defer resp.Body.Close()
	}
	var failed *api.ResponseError
	switch {
	case errors.As(err, &failed):
		return refusal(failed, token)
	case err != nil:
		return err
	}
	most := int64(maxAnswer)
	if method == "LIST" {
		most = MaxList
	}
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if int64(len(answer)) > most {
		return fmt.Errorf("answer has more than %d bytes", most)
	}
	if out == nil || resp.StatusCode == http.StatusNoContent {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return errors.New("answer is not the JSON that was expected") // the cause could quote a secret
	}
	return nil
}

// send makes the call through HashiCorp's client, which is shared: the token belongs to the one call.
func (c *Client) send(ctx context.Context, token, method, path string, body []byte) (*api.Response, error) {
	call := c.api.WithRequestCallbacks(func(r *api.Request) { r.ClientToken = token }).Logical()
	switch method {
	case http.MethodGet:
		return call.ReadRawWithContext(ctx, path)
	case "LIST":
		return call.ReadRawWithDataWithContext(ctx, path, url.Values{"list": {"true"}})
	case http.MethodPost, http.MethodPut:
		return call.WriteRawWithContext(ctx, path, body)
	case http.MethodDelete:
		return call.DeleteRawWithContext(ctx, path)
	default:
		return nil, fmt.Errorf("no call of Vault has method %q", method)
	}
}

// refusal keeps of an answer only Vault's own error texts: the rest may hold anything.
func refusal(failed *api.ResponseError, token string) *Error {
	e := &Error{Status: failed.StatusCode}
	if failed.RawError {
		e.Texts = []string{"(no JSON)"}
		return e
	}
	for _, t := range failed.Errors[:min(len(failed.Errors), 8)] {
		t = strings.Join(strings.Fields(t), " ")
		if token != "" {
			t = strings.ReplaceAll(t, token, "[token]")
		}
		e.Texts = append(e.Texts, t[:min(len(t), 300)])
	}
	return e
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }
