package devvault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// keys are what opens the Vault. The file holds them in the clear: for development only.
type keys struct {
	UnsealKey string `json:"unseal_key"`
	RootToken string `json:"root_token"`
}

// state is what sys/health answers, as a status code (Vault's API documentation, /sys/health).
type state int

const (
	active        state = 200
	standby       state = 429
	uninitialised state = 501
	sealed        state = 503
)

// listening is not a state of Vault's: await takes any answer for it.
const listening state = 0

// health asks for the state of the Vault once.
func (s *Server) health(ctx context.Context) (state, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Addr()+"/v1/sys/health", nil)
	if err != nil {
		return 0, err
	}
	resp, err := s.api.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return state(resp.StatusCode), nil
}

// await waits until the Vault is in a state. With a child it gives up as soon as that child is gone.
func (s *Server) await(ctx context.Context, child *process, want state) error {
	var done chan struct{} // nil waits for ever
	tail := func() string { return "" }
	if child != nil {
		done, tail = child.done, child.logTail
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		got, err := s.health(ctx)
		if err == nil && (got == want || want == listening) {
			return nil
		}
		select {
		case <-done:
			return fmt.Errorf("the development Vault ended while starting%s", tail())
		case <-ctx.Done():
			if err == nil {
				err = fmt.Errorf("sys/health answers %d", got)
			}
			return fmt.Errorf("waiting for the development Vault: %w (last: %v)%s", ctx.Err(), err, tail())
		case <-tick.C:
		}
	}
}

// loadKeys reads the keys of the directory, or initialises the Vault and keeps the new ones.
func (s *Server) loadKeys(ctx context.Context) error {
	now, err := s.health(ctx)
	if err != nil {
		return fmt.Errorf("state of the development Vault: %w", err)
	}
	content, err := os.ReadFile(filepath.Join(s.dir, keysFile))
	switch {
	case now == uninitialised:
		return s.initialise(ctx)
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("the development Vault on %s has data and its %s is gone: nobody can open it; remove the directory", s.dir, keysFile)
	case err != nil:
		return fmt.Errorf("keys of the development Vault: %w", err)
	}
	if err := json.Unmarshal(content, &s.keys); err != nil || s.keys.UnsealKey == "" || s.keys.RootToken == "" {
		// The cause is left out: it could quote a key.
		return fmt.Errorf("%s does not hold the keys of a development Vault", filepath.Join(s.dir, keysFile))
	}
	return nil
}

func (s *Server) initialise(ctx context.Context) error {
	// A Ctrl-C here must not leave a Vault whose keys nobody has.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	var made struct {
		Keys      []string `json:"keys_base64"`
		RootToken string   `json:"root_token"`
	}
	shares := map[string]int{"secret_shares": 1, "secret_threshold": 1}
	if err := s.call(ctx, http.MethodPut, "sys/init", shares, &made); err != nil {
		return fmt.Errorf("initialising the development Vault: %w", err)
	}
	if len(made.Keys) != 1 || made.RootToken == "" {
		return fmt.Errorf("initialising the development Vault: the answer holds %d keys, not 1 and a token", len(made.Keys))
	}
	s.keys = keys{UnsealKey: made.Keys[0], RootToken: made.RootToken}
	content, err := json.MarshalIndent(s.keys, "", "  ")
	if err != nil {
		return fmt.Errorf("keys of the development Vault: %w", err)
	}
	fmt.Fprintf(s.log, "initialised Vault; its keys are in %s, for development only\n", filepath.Join(s.dir, keysFile))
	return writeFile(s.dir, keysFile, append(content, '\n'))
}

// unseal unseals the Vault and waits until it leads. On an open one it waits alone.
func (s *Server) unseal(ctx context.Context, child *process) error {
	now, err := s.health(ctx)
	if err != nil {
		return fmt.Errorf("state of the development Vault: %w", err)
	}
	if now != active && now != standby {
		if err := s.call(ctx, http.MethodPut, "sys/unseal", map[string]string{"key": s.keys.UnsealKey}, nil); err != nil {
			return fmt.Errorf("unsealing the development Vault: %w", err)
		}
	}
	return s.await(ctx, child, active)
}

// call makes one call of the API as root, and decodes what it answers into out unless that is nil.
func (s *Server) call(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, s.Addr()+"/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if s.keys.RootToken != "" {
		req.Header.Set("X-Vault-Token", s.keys.RootToken)
	}
	resp, err := s.api.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		// Only Vault's own error texts: the rest of an answer may hold a secret.
		var failed struct {
			Errors []string `json:"errors"`
		}
		_ = json.Unmarshal(answer, &failed)
		return fmt.Errorf("%s answers %d: %s", path, resp.StatusCode, strings.Join(failed.Errors, "; "))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}
