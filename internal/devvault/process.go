package devvault

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// process is a running Vault. A goroutine waits for it, so that it never stays a zombie.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process is gone
	log  string        // path of the log, which holds those of earlier runs too
	from int64         // where this run's part of it begins
}

// launch runs `bin server` on a configuration. The child holds a copy of the lock, so that the directory counts as in
// use until the child itself is gone, even when its parent died first.
func launch(bin, dir, config string, lock *os.File) (*process, error) {
	out, err := os.OpenFile(filepath.Join(dir, logFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log of the development Vault: %w", err)
	}
	defer out.Close() // the child has its own copy
	info, err := out.Stat()
	if err != nil {
		return nil, fmt.Errorf("log of the development Vault: %w", err)
	}

	cmd := exec.Command(bin, "server", "-config="+config)
	cmd.Dir = dir
	// Nothing else: VAULT_* and BAO_* would change what the child does. HOME keeps it off the files of the user.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + os.TempDir()}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{lock}
	cmd.SysProcAttr = childAttributes()

	p := &process{cmd: cmd, done: make(chan struct{}), log: out.Name(), from: info.Size()}
	started := make(chan error)
	go func() {
		// The kernel sends the parent-death signal when the thread that forked ends, not only the process: this one
		// belongs to this goroutine until the child is gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		// How it ended is in its log and in nobody's interest: it ends by a signal of ours.
		_ = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("running the development Vault: %w", err)
	}
	return p, nil
}

func (p *process) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) kill() {
	// It fails only for a process that is gone already.
	_ = p.cmd.Process.Kill()
	<-p.done
}

// stop asks the process to end and kills it when that takes longer than patience or ctx ends.
func (p *process) stop(ctx context.Context, patience time.Duration) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-p.done:
		return
	case <-late.C:
	case <-ctx.Done():
	}
	p.kill()
}

// logTail returns the end of what the process printed, as a part of an error message; empty when it printed nothing.
// A Vault server prints no keys and no tokens; only its -dev mode does, which is not used.
func (p *process) logTail() string {
	const limit = 1024
	f, err := os.Open(p.log)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() <= p.from {
		return ""
	}
	buf := make([]byte, min(limit, info.Size()-p.from))
	n, _ := f.ReadAt(buf, info.Size()-int64(len(buf))) // what was read is good enough for a message
	return fmt.Sprintf("; the end of %s:\n%s", p.log, bytes.TrimSpace(buf[:n]))
}
