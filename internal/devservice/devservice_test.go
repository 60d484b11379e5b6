package devservice

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test's program plays the daemon: the folder's name says how it behaves.
func TestMain(m *testing.M) {
	if len(os.Args) < 4 || os.Args[1] != "dev" || os.Args[2] != "--dir" {
		os.Exit(m.Run())
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	how := filepath.Base(os.Args[3])
	fmt.Fprintln(os.Stderr, strings.Repeat("an old line\n", 500)+"the last line, "+os.Getenv("PORTCULLIS_TEST_WORD")+strings.Join(os.Args[4:], ","))
	if how == "fails" {
		os.Exit(3)
	}
	if how != "hangs" {
		fmt.Println("setting up\nready\nmore")
	}
	if how != "dies" {
		<-stop
	}
	if how == "unclean" {
		os.Exit(4)
	}
	os.Exit(0)
}

// start runs the program on a folder of that name.
func start(t *testing.T, ctx context.Context, how string) (*Service, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return Start(ctx, self, filepath.Join(dir, how), filepath.Join(dir, "log"), []string{"PORTCULLIS_TEST_WORD=wo"}, "r", "d")
}

func TestStartAndStop(t *testing.T) {
	for how, want := range map[string]string{"well": "", "unclean": "stopped with an error: exit status 4", "dies": "had ended before"} {
		s, err := start(t, t.Context(), how)
		if err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		if tail := s.Tail(); !strings.HasSuffix(tail, "the last line, wor,d") || !strings.HasPrefix(tail, "an old line\n") || len(tail) > tailBytes {
			t.Errorf("%s: the log ends in %q", how, tail)
		}
		if how == "dies" {
			<-s.done
		}
		if err := s.Stop(); fmt.Sprint(err) == "<nil>" != (want == "") || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%s: %v, want %q", how, err, want)
		}
		if err := syscall.Kill(s.PID(), 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("%s: process %d is there: %v", how, s.PID(), err)
		}
	}
}

func TestStartFails(t *testing.T) {
	if _, err := start(t, t.Context(), "fails"); err == nil || !strings.Contains(err.Error(), "exit status 3; the end of its log:") || !strings.Contains(err.Error(), "the last line, wor,d") {
		t.Errorf("a daemon that fails: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := start(t, ctx, "hangs"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a daemon that is never ready: %v", err)
	}
	if _, err := Start(t.Context(), "/nowhere/portcullisd", t.TempDir(), t.TempDir()+"/log", nil); err == nil {
		t.Error("a program that is not there runs")
	}
}

func TestEnviron(t *testing.T) {
	t.Setenv("PORTCULLIS_CONFIG", "theirs")
	t.Setenv("PORTCULLIS_VAULT_BIN", "vault")
	t.Setenv("OTHER", "x")
	env := Environ()
	if slices.Contains(env, "PORTCULLIS_CONFIG=theirs") || !slices.Contains(env, "PORTCULLIS_VAULT_BIN=vault") || !slices.Contains(env, "OTHER=x") {
		t.Error("the environment is not what it should be")
	}
}
