package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.yaml.in/yaml/v3"

	"github.com/portcullis/portcullis/certs"
)

// runAhead is the program on a machine whose clock is ahead by the first argument.
func runAhead(args []string) int {
	ahead, err := time.ParseDuration(args[0])
	if err != nil {
		panic(err)
	}
	a := newApp(os.Stdin, os.Stdout, os.Stderr)
	a.now = func() time.Time { return time.Now().Add(ahead) }
	return a.run(context.Background(), args[1:])
}

// sick writes configurations in which something is wrong: sick.yaml, by profile, and
// foreign.yaml, whose bundle is not the service's.
func (d *daemon) sick(env *testscript.Env, name string) error {
	conf := filepath.Join(env.WorkDir, "conf")
	foreign, err := certs.Open(filepath.Join(conf, "foreign"), "portcullis.example")
	if err != nil {
		return err
	}
	id := "spiffe://portcullis.example/admin/sick-" + name
	profiles := map[string]any{}
	for profile, of := range map[string]struct {
		from *certs.Authority
		leaf certs.Leaf
	}{
		"expired": {d.authority, certs.Leaf{NotBefore: time.Now().Add(-2 * time.Hour), Life: time.Hour}},
		"early":   {d.authority, certs.Leaf{NotBefore: time.Now().Add(time.Hour)}},
		"soon":    {d.authority, certs.Leaf{NotBefore: time.Now().Add(-95 * time.Hour), Life: 100 * time.Hour}},
		"foreign": {foreign, certs.Leaf{}},
		"server":  {d.authority, certs.LocalServer},
		"loose":   {d.authority, certs.Leaf{}},
		"mixed":   {d.authority, certs.Leaf{}},
		"healthy": {d.authority, certs.Leaf{}},
	} {
		pair, err := of.from.Issue(profile+"-"+name, id, of.leaf)
		if err != nil {
			return err
		}
		if profile == "loose" {
			if err := os.Chmod(pair.Key, 0o644); err != nil {
				return err
			}
		}
		if profile == "mixed" {
			other, err := d.authority.Issue("mixed-key-"+name, id, certs.Leaf{})
			if err != nil {
				return err
			}
			pair.Key = other.Key
		}
		profiles[profile] = map[string]any{"certificate": pair.Cert, "key": pair.Key}
	}
	profiles["gone"] = map[string]any{"certificate": "no.pem", "key": "no.key"}
	for file, change := range map[string]func(map[string]any){
		"sick.yaml":    func(map[string]any) {},
		"foreign.yaml": func(c map[string]any) { c["bundle"] = foreign.Bundle() },
		"no-name.yaml": func(c map[string]any) { c["server"] = "no-such-host.invalid:8443" },
		"no-port.yaml": func(c map[string]any) { c["server"] = "127.0.0.1" },
	} {
		c := map[string]any{
			"server": d.config["server"], "server_id": d.config["server_id"], "bundle": d.authority.Bundle(), "log_key": d.config["log_key"],
			"profiles": profiles,
		}
		change(c)
		text, err := yaml.Marshal(c)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(conf, file), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// TestWithoutVault runs scripts against a daemon of their own, whose Vault they stop.
func TestWithoutVault(t *testing.T) {
	d := startDaemon(t)
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "without-vault"),
		RequireExplicitExec: true,
		Setup:               d.setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": exitCode, "grab": grab, "json": jsonValue, "mode": fileMode,
			"vault": d.signalVault, "until": until,
		},
	})
}

// signalVault stops the daemon's Vault, or lets it go on: vault STOP|CONT.
func (d *daemon) signalVault(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]syscall.Signal{"STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT}
	if neg || len(args) != 1 || signals[args[0]] == 0 {
		ts.Fatalf("usage: vault STOP|CONT")
	}
	pids, err := children(d.pid)
	ts.Check(err)
	if len(pids) != 1 {
		ts.Fatalf("the daemon has %d children, want its Vault alone", len(pids))
	}
	ts.Check(syscall.Kill(pids[0], signals[args[0]]))
	if args[0] == "STOP" {
		ts.Defer(func() { _ = syscall.Kill(pids[0], syscall.SIGCONT) })
	}
}

// children gives the processes whose parent is pid.
func children(pid int) (out []int, err error) {
	text, err := exec.Command("ps", "-o", "pid=,ppid=", "-A").Output()
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		var child, parent int
		if _, err := fmt.Sscan(line, &child, &parent); err == nil && parent == pid {
			out = append(out, child)
		}
	}
	return out, nil
}

// until repeats a program until it exits as wanted: until N program args…
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until N program args...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := -1
	for deadline := time.Now().Add(40 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		got = 0
		if err := ts.Exec(args[1], args[2:]...); err != nil {
			exit, ok := err.(*exec.ExitError)
			if !ok {
				ts.Fatalf("%v", err)
			}
			got = exit.ExitCode()
		}
		if got == want {
			return
		}
	}
	ts.Fatalf("exit code %d, never %d", got, want)
}
