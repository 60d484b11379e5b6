// Package devservice runs "portcullisd dev" as a child process, for programs that measure or
// show a whole service and leave nothing of it running.
package devservice

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	startTimeout = 90 * time.Second // from launch to ready; some four seconds on two cores
	stopTimeout  = 30 * time.Second // from SIGTERM to SIGKILL; the daemon gives calls 10 s and Vault 10 s
	tailBytes    = 4096             // of the daemon's log that a failure shows
)

// Service is portcullisd as a process of its own, which runs Vault as a child in turn.
type Service struct {
	cmd    *exec.Cmd
	ready  chan struct{} // closed when it printed ready
	done   chan struct{} // closed when it is gone
	err    error         // how it ended; read after done
	stderr *os.File
}

// Environ is the environment of this process without what the person has set up for a service
// of theirs: no PORTCULLIS_ variable but the one that says where the Vault binary is.
func Environ() (env []string) {
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !strings.HasPrefix(name, "PORTCULLIS_") || name == "PORTCULLIS_VAULT_BIN" {
			env = append(env, v)
		}
	}
	return env
}

// Start runs the binary on a folder, with log as the file that its messages go to, and returns
// when it takes calls. When it fails, nothing is left running, and the error ends in the end
// of the log. ctx bounds the start alone. args follow the others of the command line.
func Start(ctx context.Context, bin, dir, log string, env []string, args ...string) (_ *Service, err error) {
	s := &Service{ready: make(chan struct{}), done: make(chan struct{})}
	if s.stderr, err = os.OpenFile(log, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return nil, fmt.Errorf("log of the daemon: %w", err)
	}
	s.cmd = exec.Command(bin, append([]string{"dev", "--dir", dir}, args...)...)
	s.cmd.Dir, s.cmd.Env, s.cmd.Stderr, s.cmd.SysProcAttr = filepath.Dir(log), env, s.stderr, attributes()
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, s.stderr.Close())
	}
	started := make(chan error)
	go s.run(stdout, started)
	if err := <-started; err != nil {
		return nil, errors.Join(fmt.Errorf("run portcullisd: %w", err), s.stderr.Close())
	}
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	select {
	case <-s.ready:
		return s, nil
	case <-s.done:
		err = fmt.Errorf("portcullisd ended before it was ready: %v", s.err)
	case <-timeout.C:
		err = fmt.Errorf("portcullisd was not ready after %s", startTimeout)
	case <-ctx.Done():
		err = ctx.Err()
	}
	err = fmt.Errorf("%w; the end of its log:\n%s", err, s.Tail())
	return nil, errors.Join(err, s.Stop())
}

// run starts the child and waits for it. Linux sends the parent-death signal when the
// thread that forked ends, so this goroutine keeps its thread until the child is gone.
func (s *Service) run(stdout io.Reader, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := s.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	lines := bufio.NewScanner(stdout)
	for seen := false; lines.Scan(); {
		if !seen && lines.Text() == "ready" {
			seen = true
			close(s.ready)
		}
	}
	s.err = s.cmd.Wait()
	close(s.done)
}

// PID is the daemon's process.
func (s *Service) PID() int { return s.cmd.Process.Pid }

// Stop ends the daemon, and with it Vault, in good order. The error tells that it did not, or
// had ended before. It is called once.
func (s *Service) Stop() error {
	defer s.stderr.Close()
	select {
	case <-s.done:
		return fmt.Errorf("portcullisd had ended before it was told to: %v", s.err)
	default:
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop portcullisd: %w", err)
	}
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	select {
	case <-s.done:
	case <-timeout.C:
		// It fails only for a process that is gone already.
		_ = s.cmd.Process.Kill()
		<-s.done
		return fmt.Errorf("portcullisd did not stop within %s and was killed", stopTimeout)
	}
	if s.err != nil {
		return fmt.Errorf("portcullisd stopped with an error: %w", s.err)
	}
	return nil
}

// Tail gives the end of the daemon's log, in whole lines if it is longer.
func (s *Service) Tail() string {
	info, err := s.stderr.Stat()
	if err != nil {
		return err.Error()
	}
	from := max(0, info.Size()-tailBytes)
	b := make([]byte, info.Size()-from)
	n, _ := s.stderr.ReadAt(b, from) // what was read is good enough for a message
	text := string(b[:n])
	if _, rest, ok := strings.Cut(text, "\n"); ok && from > 0 {
		text = rest
	}
	return strings.TrimSpace(text)
}
