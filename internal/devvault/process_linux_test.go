package devvault

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// parentEnv turns the test program into a parent of a Vault on the directory that it names.
const parentEnv = "DEVVAULT_TEST_PARENT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(parentEnv); dir != "" {
		s, err := Start(context.Background(), dir, Options{})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(s.Addr(), s.child.cmd.Process.Pid)
		select {} // until it is killed
	}
	os.Exit(m.Run())
}

func TestDiesWithItsParent(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "v")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(self)
	parent.Env = append(os.Environ(), parentEnv+"="+dir)
	// Should the test itself be killed.
	parent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, readErr := bufio.NewReader(out).ReadString('\n')
	var addr string
	var pid int
	_, err = fmt.Sscanf(line, "https://%s %d", &addr, &pid)
	isAddr := err == nil
	if isAddr {
		if c, err := net.Dial("tcp", addr); err != nil {
			t.Error(err)
		} else {
			c.Close()
		}
		if _, err := Start(t.Context(), dir, Options{}); !errors.Is(err, ErrInUse) {
			t.Errorf("Start on the directory of another process gives %v, want ErrInUse", err)
		}
	}
	if err := parent.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = parent.Wait() // it was killed
	if !isAddr {
		t.Fatalf("the parent says %q (%v)", line, readErr)
	}

	// The child holds the lock too, so it is free only when both are gone.
	lock, err := lockDir(t.Context(), dir)
	if err != nil {
		// Leave none behind. It holds the lock, so the number is still its own.
		_ = syscall.Kill(pid, syscall.SIGKILL)
		t.Fatalf("the Vault outlives its parent: %v", err)
	}
	lock.Close()
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Fatal("the Vault outlives its parent: it still listens")
	}
	s := start(t, dir)
	if s.Addr() != "https://"+addr {
		t.Errorf("the next Start serves at %s, the one before at %s", s.Addr(), addr)
	}
}

func TestChildProcess(t *testing.T) {
	t.Setenv("VAULT_API_ADDR", "https://192.0.2.1:1")
	t.Setenv("VAULT_RAFT_NODE_ID", "leaked")
	t.Setenv("BAO_LOG_LEVEL", "trace")
	t.Setenv("HTTPS_PROXY", "http://192.0.2.1:1")

	// The thread that starts the Vault ends: one that is locked to a goroutine ends with it, but for the main thread.
	var s *Server
	var err error
	done := make(chan struct{})
	dir := filepath.Join(t.TempDir(), "v")
	var onThread func()
	onThread = func() {
		runtime.LockOSThread()
		if syscall.Gettid() == syscall.Getpid() {
			go onThread()
			<-done // keeps the main thread, so that the next goroutine gets another
			return
		}
		defer close(done)
		s, err = Start(t.Context(), dir, Options{})
	}
	go onThread()
	<-done
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	select {
	case <-s.child.done:
		t.Fatal("the Vault ended with the thread that started it, and its process lives")
	case <-time.After(500 * time.Millisecond):
	}
	must(t, s, http.MethodGet, "sys/mounts", nil)

	pid := s.child.cmd.Process.Pid
	if group, err := syscall.Getpgid(pid); err != nil || group != pid {
		t.Errorf("the Vault is in process group %d, %v; want its own, %d", group, err, pid)
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Fatal(err)
	}
	for v := range bytes.SplitSeq(bytes.TrimSuffix(environ, []byte{0}), []byte{0}) {
		if name, _, _ := bytes.Cut(v, []byte("=")); !strings.Contains(" PATH HOME TMPDIR ", " "+string(name)+" ") {
			t.Errorf("the Vault sees %s", name)
		}
	}
}
