package devvault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// start runs a Vault on dir until the test ends.
func start(t *testing.T, dir string) *Server {
	t.Helper()
	s, err := Start(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	// A cleanup runs after t.Context has ended.
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Error(err)
	}
}

// request calls Vault as a user of this package would: by address, certificate and token. It returns status and body.
func request(t *testing.T, s *Server, method, path string, in any) (int, string) {
	t.Helper()
	client, err := newClient(s.CACert())
	if err != nil {
		t.Fatal(err)
	}
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, s.Addr()+"/v1/"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", s.RootToken())
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

func must(t *testing.T, s *Server, method, path string, in any) string {
	t.Helper()
	status, answer := request(t, s, method, path, in)
	if status >= 300 {
		t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	return answer
}

// encrypt and decrypts use a transit key, as Portcullis does: only the key of that time gives the plaintext back.
func encrypt(t *testing.T, s *Server) string {
	t.Helper()
	answer := must(t, s, http.MethodPut, "transit/encrypt/k", map[string]string{"plaintext": "cG9ydGN1bGxpcw=="})
	var out struct {
		Data struct {
			Ciphertext string `json:"ciphertext"`
		} `json:"data"`
	}
	if err := json.Unmarshal([]byte(answer), &out); err != nil {
		t.Fatal(err)
	}
	return out.Data.Ciphertext
}

func decrypts(t *testing.T, s *Server, ciphertext string) {
	t.Helper()
	answer := must(t, s, http.MethodPut, "transit/decrypt/k", map[string]string{"ciphertext": ciphertext})
	if !strings.Contains(answer, "cG9ydGN1bGxpcw==") {
		t.Fatalf("decrypting gave %s", answer)
	}
}

func TestDataSurvives(t *testing.T) {
	defer goleak.VerifyNone(t)
	dir := filepath.Join(t.TempDir(), "a b", "väult") // no directory name needs care
	s, err := Start(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { stop(t, s) }()
	must(t, s, http.MethodPost, "sys/mounts/transit", map[string]string{"type": "transit"})
	must(t, s, http.MethodPut, "sys/audit/file", map[string]any{"type": "file", "options": map[string]string{"file_path": s.AuditLog()}})
	sealedText := encrypt(t, s)
	addr, token := s.Addr(), s.RootToken()

	same := func(how string) {
		t.Helper()
		if s.Addr() != addr || s.RootToken() != token {
			t.Fatalf("after %s: at %s, was at %s; token the same: %v", how, s.Addr(), addr, s.RootToken() == token)
		}
		decrypts(t, s, sealedText)
	}

	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", strings.TrimPrefix(addr, "https://")); err == nil {
		c.Close()
		t.Fatal("something listens after Kill")
	}
	if err := s.Kill(); err == nil {
		t.Fatal("a second Kill says that it killed something")
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	same("Kill and Restart")

	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	same("Restart of a running one")

	stop(t, s)
	stop(t, s)
	if s, err = Start(t.Context(), dir, Options{}); err != nil {
		t.Fatal(err)
	}
	same("Stop and Start")

	// Something else has the ports: the same Vault comes up on others, although raft remembers the old address.
	stop(t, s)
	for _, port := range []int{s.ports.API, s.ports.Cluster} {
		l, err := net.Listen("tcp", address(port))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	if err := s.Restart(t.Context()); err == nil {
		t.Fatal("Restart promises the same port and came up without it")
	}
	stop(t, s)
	if s, err = Start(t.Context(), dir, Options{}); err != nil {
		t.Fatal(err)
	}
	if s.Addr() == addr {
		t.Fatalf("serves at %s, which is taken", addr)
	}
	decrypts(t, s, sealedText)

	if audit, err := os.ReadFile(s.AuditLog()); err != nil || !bytes.Contains(audit, []byte("transit/decrypt/k")) {
		t.Fatalf("the audit log has no decrypt: %v", err)
	}
	closedToOthers(t, dir)
}

// closedToOthers fails for everything below dir that another user could read.
func closedToOthers(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory has mode %v, %v", info.Mode(), err)
	}
}

func TestSealUnseal(t *testing.T) {
	defer goleak.VerifyNone(t)
	s, err := Start(t.Context(), filepath.Join(t.TempDir(), "v"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, s)
	must(t, s, http.MethodPost, "sys/mounts/transit", map[string]string{"type": "transit"})
	sealedText := encrypt(t, s)
	if err := s.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status, _ := request(t, s, http.MethodGet, "sys/mounts", nil); status != http.StatusServiceUnavailable {
		t.Fatalf("a sealed Vault answers %d", status)
	}
	for range 2 { // the second finds it open
		if err := s.Unseal(t.Context()); err != nil {
			t.Fatal(err)
		}
		decrypts(t, s, sealedText)
	}
	if err := s.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	decrypts(t, s, sealedText)
}

func TestSecondStartIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "v")
	s := start(t, dir)
	if _, err := Start(t.Context(), dir, Options{}); !errors.Is(err, ErrInUse) {
		t.Fatalf("a second Start gives %v, want ErrInUse", err)
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), dir, Options{}); !errors.Is(err, ErrInUse) {
		t.Fatalf("a Start between Kill and Restart gives %v, want ErrInUse", err)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestFailedStartLeavesNothing(t *testing.T) {
	defer goleak.VerifyNone(t)
	dir := filepath.Join(t.TempDir(), "v")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, dir, Options{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("a start that was cancelled gives %v", err)
	}
	if _, err := Start(t.Context(), dir, Options{Bin: "/nonexistent/vault"}); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a start without a program gives %v", err)
	}

	// A program that ends at once: its last words are in the error, and it does not take the whole minute.
	broken := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\necho no such luck\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), dir, Options{Bin: broken}); err == nil || !strings.Contains(err.Error(), "no such luck") {
		t.Fatalf("a start with a broken program gives %v", err)
	}

	// The directory is free and fit for a real start after each of them.
	var steps bytes.Buffer
	s, err := Start(t.Context(), dir, Options{Log: &steps})
	if err != nil {
		t.Fatal(err)
	}
	stop(t, s)
	if !strings.Contains(steps.String(), s.Addr()) || strings.Contains(steps.String(), s.RootToken()) {
		t.Errorf("the steps are told as %q", &steps)
	}

	// Data whose keys are lost is neither opened nor touched.
	if err := os.Remove(filepath.Join(dir, keysFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), dir, Options{}); err == nil || !strings.Contains(err.Error(), keysFile) {
		t.Fatalf("a start without keys gives %v", err)
	}
	if ok, err := exists(filepath.Join(dir, raftDir)); !ok {
		t.Fatalf("the data is gone: %v", err)
	}
}

func TestDirectoryOfOthers(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := makeDir(dir); err != nil {
		t.Fatalf("an empty directory: %v", err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("an empty directory is left with mode %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(dir, "photo"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), dir, Options{}); err == nil || !strings.Contains(err.Error(), "open to other users") {
		t.Fatalf("a full directory that is open to others gives %v", err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
		t.Fatalf("a directory named by mistake was changed to mode %v, %v", info.Mode(), err)
	}
}
