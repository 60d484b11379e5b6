package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
)

// vaultProcess gives the process of the test's own Vault.
func (s *service) vaultProcess() (pid int) {
	s.t.Helper()
	text, err := exec.CommandContext(s.t.Context(), "ps", "-o", "pid=,args=", "-ww", "-A").Output()
	noError(s.t, err)
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, "-config="+s.dir+"/") {
			continue
		}
		if _, err := fmt.Sscan(line, &pid); err != nil {
			s.t.Fatal(err)
		}
		return pid
	}
	s.t.Fatal("no process has a configuration in ", s.dir)
	return 0
}

// TestStalledVault: a Vault that stands still, with its connections open, keeps nobody waiting
// for much more than ten seconds, and shows at once.
func TestStalledVault(t *testing.T) {
	const most = 12 * time.Second // ten, and what two busy cores may add
	s := begin(t)
	p := purpose()
	s.admit(p, devOrg)
	s.store(s.as(lane), vault.Plate, 2, 2000)
	grant, token := s.granted(s.as(matcher), p, 10)
	handles := s.handles(s.as(matcher), grant, token)
	_, before := s.atVault("LIST", "portcullis/keys", s.vault.RootToken(), nil)

	cfg := s.config(lane)
	cfg.Patience = 10 * time.Second // the command line's
	capture, err := client.Dial(cfg)
	noError(t, err)
	t.Cleanup(func() { capture.Close() })
	contractor := s.as(matcher)

	pid := s.vaultProcess()
	noError(t, syscall.Kill(pid, syscall.SIGSTOP))
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	began := time.Now()
	type answer struct {
		what string
		took time.Duration
		err  error
	}
	answers := make(chan answer, 2)
	go func() {
		_, err := capture.Store(context.WithoutCancel(t.Context()), client.Image{RequestID: vault.NewID(), Modality: vault.Plate, CapturedAt: time.Now(), Bytes: picture(9, 2000)})
		answers <- answer{"a store", time.Since(began), err}
	}()
	go func() {
		err := contractor.Fetch(context.WithoutCancel(t.Context()), grant, token, handles, func(*pb.Image) error { return nil })
		answers <- answer{"a fetch", time.Since(began), err}
	}()
	wait(t, "health shows it", func() bool { return !s.serves(pb.CaptureService_ServiceDesc.ServiceName) })
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("a Vault that stands still showed after %s", took)
	}
	for range 2 {
		a := <-answers
		if vault.ReasonOf(a.err) != vault.ReasonVaultUnavailable || a.took > most {
			t.Errorf("%s: %v after %s", a.what, a.err, a.took)
		}
	}
	noError(t, syscall.Kill(pid, syscall.SIGCONT))
	wait(t, "Vault serves again", func() bool { return s.serves("") })
	time.Sleep(time.Second) // what still stood in its queue
	_, after := s.atVault("LIST", "portcullis/keys", s.vault.RootToken(), nil)
	if n := len(keyList(t, after)) - len(keyList(t, before)); n > 1 {
		t.Errorf("%d keys were made for one image that was not stored", n)
	}
	s.store(s.as(lane), vault.Plate, 1, 2000)
}
