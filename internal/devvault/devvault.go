// Package devvault runs a real HashiCorp Vault (or OpenBao) as a child process, for development and tests.
//
// INSECURE, and meant so: the unseal key and the root token lie beside the data, in
// INSECURE-development-keys.json. Whoever reads the directory reads everything in that Vault. Never keep real
// images under it.
//
// Everything lives in one directory of mode 0700: raft storage, configuration, certificate, logs, keys. The Vault
// listens with TLS on a free port of 127.0.0.1, which the directory remembers. It sees nothing of the caller's
// environment but PATH. It is in a process group of its own, so that Ctrl-C in a terminal reaches only the caller,
// who then calls Stop. On Linux it dies with its caller, however the caller dies; elsewhere a killed caller leaves
// it running, and it has to be ended by hand.
package devvault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	startTimeout = time.Minute      // from launch to active leader; about two seconds on two cores
	stopTimeout  = 10 * time.Second // from SIGTERM to SIGKILL; a Vault without load needs well under a second
)

// Options are the choices of Start; the zero value is good.
type Options struct {
	Bin string    // program to run; empty: what Find says
	Log io.Writer // takes a line in plain words for each step of starting; nil: silent. Vault's own log is DIR/vault.log
}

// Server is a Vault that runs, or did until Kill or Stop. All methods may be called concurrently.
type Server struct {
	dir   string
	bin   string
	ports ports
	keys  keys
	log   io.Writer
	api   *http.Client

	mu    sync.Mutex // guards what follows; held for the whole of Kill, Restart and Stop
	lock  *os.File   // the directory's lock; nil after Stop
	child *process   // nil after Kill and Stop
}

// Start runs Vault on dir, initialises it the first time (one key share), unseals it, and returns when it serves as
// the active leader. ctx bounds the start alone, which never takes more than a minute: the Vault runs until Kill,
// Stop, or the end of this process. When Start fails, nothing is left running.
//
// dir is made if absent. One that exists must be empty or closed to other users. A second Start on a directory in
// use, by any process, fails with ErrInUse. The port of the last run is used again if it is free, another if not.
func Start(ctx context.Context, dir string, opts Options) (_ *Server, err error) {
	s := &Server{bin: opts.Bin, log: opts.Log}
	if s.log == nil {
		s.log = io.Discard
	}
	if s.bin == "" {
		if s.bin, err = Find(); err != nil {
			return nil, err
		}
	}
	if s.dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("directory of the development Vault: %w", err)
	}
	if err := makeDir(s.dir); err != nil {
		return nil, err
	}
	if s.lock, err = lockDir(ctx, s.dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.halt()
		}
	}()
	if err := ensureCertificate(s.dir, time.Now()); err != nil {
		return nil, err
	}
	if s.api, err = newClient(s.CACert()); err != nil {
		return nil, err
	}
	if s.ports, err = choosePorts(s.dir); err != nil {
		return nil, err
	}
	if err := s.bringUp(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Addr returns the URL to reach this Vault at, https://127.0.0.1:PORT. It stays the same until a new Start.
func (s *Server) Addr() string { return fmt.Sprintf("https://127.0.0.1:%d", s.ports.API) }

// CACert returns the path of the PEM file with the certificate to trust. It stays the same until a new Start.
func (s *Server) CACert() string { return filepath.Join(s.dir, caFile) }

// RootToken returns the token that may do everything in this Vault.
func (s *Server) RootToken() string { return s.keys.RootToken }

// AuditLog returns the path to give to a file audit device, in the directory. Nothing is there until one is enabled.
func (s *Server) AuditLog() string { return filepath.Join(s.dir, "audit.log") }

// Seal seals the Vault, which goes on running and answers 503, until Unseal or Restart. It is sealed on return.
func (s *Server) Seal(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := s.call(ctx, http.MethodPut, "sys/seal", struct{}{}, nil); err != nil {
		return fmt.Errorf("sealing the development Vault: %w", err)
	}
	return s.await(ctx, nil, sealed)
}

// Unseal unseals the Vault and returns when it serves as the active leader. One that does so already is left alone.
func (s *Server) Unseal(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return s.unseal(ctx, nil)
}

// Kill ends the Vault as a crash would (SIGKILL); it is gone on return. A Vault that does not run is an error, since
// a crash test that kills nothing shows nothing. The directory stays locked for Restart, until Stop.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.child == nil {
		return errors.New("the development Vault does not run")
	}
	if s.child.exited() {
		return fmt.Errorf("the development Vault had ended by itself before the kill%s", s.child.logTail())
	}
	s.child.kill()
	s.child = nil
	return nil
}

// Restart runs Vault again on the same directory and the same port, and returns when it serves as the active leader.
// A Vault that still runs is stopped first. It fails when something else has taken the port since.
func (s *Server) Restart(ctx context.Context) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopChild(ctx)
	if s.lock == nil {
		if s.lock, err = lockDir(ctx, s.dir); err != nil {
			return err
		}
	}
	if err := s.bringUp(ctx); err != nil {
		s.stopChild(ctx)
		return err
	}
	return nil
}

// Stop ends the Vault in good order (SIGTERM), and kills it after ten seconds or when ctx ends. On return it is gone
// and the directory is free for another Start. It may be called again, and after Kill.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopChild(ctx)
	return s.unlock()
}

// halt ends without good order what a failed Start leaves.
func (s *Server) halt() {
	if s.child != nil {
		s.child.kill()
		s.child = nil
	}
	// The error that Start is about to return says more than one from closing the lock.
	_ = s.unlock()
}

func (s *Server) stopChild(ctx context.Context) {
	if s.child != nil {
		s.child.stop(ctx, stopTimeout)
		s.child = nil
	}
}

func (s *Server) unlock() error {
	if s.lock == nil {
		return nil
	}
	err := s.lock.Close()
	s.lock = nil
	if err != nil {
		return fmt.Errorf("lock of the development Vault: %w", err)
	}
	return nil
}

// bringUp launches the child and takes it through initialising and unsealing. The caller ends the child on error.
func (s *Server) bringUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := s.ports.free(); err != nil {
		return err
	}
	config, err := writeConfig(s.dir, s.ports, isBao(s.bin))
	if err != nil {
		return err
	}
	// Vault makes no folder for raft itself.
	if err := os.MkdirAll(filepath.Join(s.dir, raftDir), 0o700); err != nil {
		return fmt.Errorf("storage of the development Vault: %w", err)
	}
	fmt.Fprintf(s.log, "starting Vault (%s) on %s\n", s.bin, s.dir)
	if s.child, err = launch(s.bin, s.dir, config, s.lock); err != nil {
		return err
	}
	if err := s.await(ctx, s.child, listening); err != nil {
		return err
	}
	if s.keys == (keys{}) { // only in Start: RootToken reads them without the mutex
		if err := s.loadKeys(ctx); err != nil {
			return err
		}
	}
	if err := s.unseal(ctx, s.child); err != nil {
		return err
	}
	fmt.Fprintf(s.log, "Vault serves at %s\n", s.Addr())
	return nil
}

// newClient returns a client that trusts one certificate and goes through no proxy, whatever the environment says.
func newClient(caFile string) (*http.Client, error) {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("certificate of the development Vault: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("certificate of the development Vault: %s holds none", caFile)
	}
	return &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
			// A handful of calls in a Server's life: kept connections would only outlive it.
			DisableKeepAlives: true,
		},
	}, nil
}
