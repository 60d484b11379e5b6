package main

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

// daemon is portcullisd as a child process, which runs Vault as a child of its own.
type daemon struct {
	cmd    *exec.Cmd
	done   chan struct{} // closed when it is gone
	err    error         // how it ended; read after done
	log    string        // path of what it printed
	ready  chan struct{} // closed when it printed ready
	stderr *os.File
}

// startDaemon runs "portcullisd dev" on dir and returns when it takes calls. When it fails,
// nothing is left running.
func startDaemon(ctx context.Context, bin, work, dir string, env []string) (_ *daemon, err error) {
	d := &daemon{done: make(chan struct{}), ready: make(chan struct{}), log: filepath.Join(work, "portcullisd.log")}
	if d.stderr, err = os.OpenFile(d.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return nil, fmt.Errorf("log of the daemon: %w", err)
	}
	d.cmd = exec.Command(bin, "dev", "--dir", dir)
	d.cmd.Dir, d.cmd.Env, d.cmd.Stderr = work, env, d.stderr
	d.cmd.SysProcAttr = childAttributes()
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, d.stderr.Close())
	}
	started := make(chan error)
	go d.run(stdout, started)
	if err := <-started; err != nil {
		return nil, errors.Join(fmt.Errorf("run portcullisd: %w", err), d.stderr.Close())
	}
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	select {
	case <-d.ready:
		return d, nil
	case <-d.done:
		err = fmt.Errorf("portcullisd ended before it was ready: %v", d.err)
	case <-timeout.C:
		err = fmt.Errorf("portcullisd was not ready after %s", startTimeout)
	case <-ctx.Done():
		err = ctx.Err()
	}
	tail := d.tail()
	return nil, errors.Join(err, d.stop(), errors.New(tail))
}

// run starts the child and waits for it. Linux sends the parent-death signal when the
// thread that forked ends, so this goroutine keeps its thread until the child is gone.
func (d *daemon) run(stdout io.Reader, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := d.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	lines := bufio.NewScanner(stdout)
	for seen := false; lines.Scan(); {
		if !seen && lines.Text() == "ready" {
			seen = true
			close(d.ready)
		}
	}
	d.err = d.cmd.Wait()
	close(d.done)
}

// stop ends the daemon, and with it Vault, in good order. The error tells that it did not.
func (d *daemon) stop() error {
	defer d.stderr.Close()
	select {
	case <-d.done:
		return fmt.Errorf("portcullisd had ended before it was told to: %v", d.err)
	default:
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop portcullisd: %w", err)
	}
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	select {
	case <-d.done:
	case <-timeout.C:
		// It fails only for a process that is gone already.
		_ = d.cmd.Process.Kill()
		<-d.done
		return fmt.Errorf("portcullisd did not stop within %s and was killed", stopTimeout)
	}
	if d.err != nil {
		return fmt.Errorf("portcullisd stopped with an error: %w", d.err)
	}
	return nil
}

// tail gives the end of the daemon's log.
func (d *daemon) tail() string {
	b, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	if len(b) > tailBytes {
		b = b[len(b)-tailBytes:]
		if _, rest, ok := strings.Cut(string(b), "\n"); ok {
			b = []byte(rest)
		}
	}
	return strings.TrimSpace(string(b))
}
