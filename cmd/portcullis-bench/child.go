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

// child is portcullisd as a process of its own, which runs Vault as a child in turn.
type child struct {
	cmd    *exec.Cmd
	ready  chan struct{} // closed when it printed ready
	done   chan struct{} // closed when it is gone
	err    error         // how it ended; read after done
	stderr *os.File
}

// startChild runs "portcullisd dev" on dir and returns when it takes calls. When it fails,
// nothing is left running.
func startChild(ctx context.Context, bin, dir, log string) (_ *child, err error) {
	c := &child{ready: make(chan struct{}), done: make(chan struct{})}
	if c.stderr, err = os.OpenFile(log, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return nil, fmt.Errorf("log of the daemon: %w", err)
	}
	c.cmd = exec.Command(bin, "dev", "--dir", dir)
	c.cmd.Dir, c.cmd.Stderr, c.cmd.SysProcAttr = filepath.Dir(log), c.stderr, childAttributes()
	for _, v := range os.Environ() {
		// What the person has set up for a service of theirs is not for this one.
		if name, _, _ := strings.Cut(v, "="); !strings.HasPrefix(name, "PORTCULLIS_") || name == "PORTCULLIS_VAULT_BIN" {
			c.cmd.Env = append(c.cmd.Env, v)
		}
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, c.stderr.Close())
	}
	started := make(chan error)
	go c.run(stdout, started)
	if err := <-started; err != nil {
		return nil, errors.Join(fmt.Errorf("run portcullisd: %w", err), c.stderr.Close())
	}
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	select {
	case <-c.ready:
		return c, nil
	case <-c.done:
		err = fmt.Errorf("portcullisd ended before it was ready: %v", c.err)
	case <-timeout.C:
		err = fmt.Errorf("portcullisd was not ready after %s", startTimeout)
	case <-ctx.Done():
		err = ctx.Err()
	}
	err = fmt.Errorf("%w; the end of its log:\n%s", err, c.tail())
	return nil, errors.Join(err, c.stop())
}

// run starts the child and waits for it. Linux sends the parent-death signal when the
// thread that forked ends, so this goroutine keeps its thread until the child is gone.
func (c *child) run(stdout io.Reader, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := c.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	lines := bufio.NewScanner(stdout)
	for seen := false; lines.Scan(); {
		if !seen && lines.Text() == "ready" {
			seen = true
			close(c.ready)
		}
	}
	c.err = c.cmd.Wait()
	close(c.done)
}

// stop ends the daemon, and with it Vault, in good order. The error tells that it did not.
func (c *child) stop() error {
	defer c.stderr.Close()
	select {
	case <-c.done:
		return fmt.Errorf("portcullisd had ended before it was told to: %v", c.err)
	default:
	}
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop portcullisd: %w", err)
	}
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	select {
	case <-c.done:
	case <-timeout.C:
		// It fails only for a process that is gone already.
		_ = c.cmd.Process.Kill()
		<-c.done
		return fmt.Errorf("portcullisd did not stop within %s and was killed", stopTimeout)
	}
	if c.err != nil {
		return fmt.Errorf("portcullisd stopped with an error: %w", c.err)
	}
	return nil
}

// tail gives the end of the daemon's log.
func (c *child) tail() string {
	info, err := c.stderr.Stat()
	if err != nil {
		return err.Error()
	}
	b := make([]byte, min(info.Size(), tailBytes))
	n, _ := c.stderr.ReadAt(b, info.Size()-int64(len(b))) // what was read is good enough for a message
	return strings.TrimSpace(string(b[:n]))
}
