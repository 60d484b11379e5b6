package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.yaml.in/yaml/v3"

	"github.com/portcullis/portcullis/certs"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"portcullis":       func() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
		"portcullis-ahead": func() { os.Exit(runAhead(os.Args[1:])) },
		"sqlite3":          sqlite,
	})
}

// TestScripts runs testdata/script against one real daemon on a real Vault. Each script has a
// site, a lane, a contractor and admins of its own, named after it, so that none meets another.
func TestScripts(t *testing.T) {
	d := startDaemon(t)
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		Setup:               d.setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": exitCode, "grab": grab, "json": jsonValue, "mode": fileMode,
			"until": until, "paint": paint, "flip": flip, "forge": d.forge,
			"profile": d.profile, "logged": d.logged,
		},
	})
}

// daemon is a running "portcullisd dev".
type daemon struct {
	dir       string
	pid       int
	mu        sync.Mutex
	authority *certs.Authority
	config    map[string]any // as it wrote it
	logs      logText
}

func startDaemon(t *testing.T) *daemon {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "portcullisd")
	if out, err := exec.Command("go", "build", "-o", bin, "../portcullisd").CombinedOutput(); err != nil {
		t.Fatalf("build the daemon: %v\n%s", err, out)
	}
	d := &daemon{dir: filepath.Join(t.TempDir(), "dev")}
	cmd := exec.Command(bin, "dev", "--dir", d.dir)
	cmd.Stderr = &d.logs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.pid = cmd.Process.Pid
	ready := make(chan bool, 1)
	ended := make(chan error, 1)
	go func() {
		said := false
		var text []byte
		buf := make([]byte, 4096)
		for {
			n, err := out.Read(buf)
			text = append(text, buf[:n]...)
			if !said && bytes.Contains(text, []byte("\nready\n")) {
				said = true
				ready <- true
			}
			if err != nil {
				break
			}
		}
		ended <- cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the daemon ended badly: %v\n%s", err, d.logs.String())
			}
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
			t.Errorf("the daemon did not end within a minute of SIGTERM")
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil
		t.Fatalf("the daemon ended before it was ready: %v\n%s", err, d.logs.String())
	case <-time.After(5 * time.Minute):
		t.Fatal("the daemon was not ready after five minutes")
	}
	if d.authority, err = certs.Open(filepath.Join(d.dir, "certs"), "portcullis.example"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(d.dir, "portcullis.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	// The daemon writes the file in a form of its own, which must be this one.
	if _, err := parseConfig("portcullis.yaml", text); err != nil {
		t.Fatalf("the daemon's portcullis.yaml: %v", err)
	}
	if err := yaml.Unmarshal(text, &d.config); err != nil {
		t.Fatal(err)
	}
	return d
}

// setup makes the world of one script.
func (d *daemon) setup(env *testscript.Env) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := strings.TrimPrefix(filepath.Base(env.WorkDir), "script-")
	profiles := map[string]any{}
	for profile, path := range map[string]string{
		"lane": "/capture/" + name + "/lane-1", "contractor": "/contractor/" + name + "/matcher", "other": "/contractor/" + name + "/other",
		"alice": "/admin/alice-" + name, "bob": "/admin/bob-" + name, "auditor": "/auditor/auditor-" + name,
	} {
		pair, err := d.authority.Issue(profile+"-"+name, "spiffe://portcullis.example"+path, certs.Leaf{})
		if err != nil {
			return err
		}
		profiles[profile] = map[string]any{"certificate": pair.Cert, "key": pair.Key}
	}
	conf := filepath.Join(env.WorkDir, "conf")
	if err := os.Mkdir(conf, 0o700); err != nil {
		return err
	}
	for file, change := range map[string]func(map[string]any){
		"portcullis.yaml": func(map[string]any) {},
		"away.yaml":       func(c map[string]any) { c["server"] = "127.0.0.1:1" },
		"wrong-id.yaml":   func(c map[string]any) { c["server_id"] = "spiffe://portcullis.example/somebody-else" },
		"no-log-key.yaml": func(c map[string]any) { delete(c, "log_key") },
	} {
		c := map[string]any{
			"server": d.config["server"], "server_id": d.config["server_id"],
			"bundle": d.authority.Bundle(), "log_key": d.config["log_key"], "profiles": profiles,
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
	for file, text := range map[string]string{
		"contractor.yaml": "name: " + name + "\ntitle: contractor of the script\n",
		"purpose.yaml": fmt.Sprintf("name: %s\ntitle: purpose of the script\nlegal_basis: an example\nmodalities: [plate]\nsites: [%s]\ncontractors: [%s]\n"+
			"max_ttl: 4h\nmax_records: 10\nmax_bytes: 1GiB\nmax_rate: 10000\nmax_record_age: 365d\n"+
			// With linkage and exact times its records appear at once; live, so that the window may reach beyond today.
			"linkage: true\ntime_precision: exact\nlive: true\n", name, name, name),
	} {
		if err := os.WriteFile(filepath.Join(env.WorkDir, file), []byte(text), 0o600); err != nil {
			return err
		}
	}
	day := func(n int) string { return time.Now().UTC().AddDate(0, 0, n).Format(time.DateOnly) }
	env.Setenv("PORTCULLIS_CONFIG", filepath.Join(conf, "portcullis.yaml"))
	env.Setenv("NAME", name)
	env.Setenv("LOG_KEY", fmt.Sprint(d.config["log_key"]))
	env.Setenv("SHIPPED", filepath.Join(d.dir, "checkpoints"))
	env.Setenv("FROM", day(-2))
	env.Setenv("UNTIL", day(2))
	if err := d.sick(env, name); err != nil {
		return err
	}
	return pictures(filepath.Join(env.WorkDir, "pics"), name)
}

// pictures writes two faces, three plates, one of them JPEG, and two files that are none.
func pictures(dir, seed string) error {
	for _, p := range []string{"face/a.png", "face/b.png", "plate/a.png", "plate/b.jpg", "plate/sub/c.PNG"} {
		h := fnv.New64a()
		fmt.Fprint(h, seed, p)
		r := rand.New(rand.NewPCG(h.Sum64(), 1))
		img := image.NewRGBA(image.Rect(0, 0, 24, 16))
		for i := range img.Pix {
			img.Pix[i] = byte(r.Uint32())
		}
		img.Set(0, 0, color.White)
		var b bytes.Buffer
		encode := func() error { return png.Encode(&b, img) }
		if strings.HasSuffix(p, ".jpg") {
			encode = func() error { return jpeg.Encode(&b, img, nil) }
		}
		if err := encode(); err != nil {
			return err
		}
		path := filepath.Join(dir, p)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "plate", "notes.txt"), []byte("no picture"), 0o600)
}

// exitCode runs a program and wants its exit code: code N PROGRAM ARGS…
func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N program args...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// grab puts the first group of a pattern, found in standard output, into a variable.
func grab(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: grab VARIABLE pattern")
	}
	m := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(m) != 2 {
		ts.Fatalf("no match for %q", args[1])
	}
	ts.Setenv(args[0], m[1])
}

// jsonValue wants one value in the first object of an output: json stdout a.0.b VALUE. With
// no path, all of the output must be JSON.
func jsonValue(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 && len(args) != 3 {
		ts.Fatalf("usage: json stdout|stderr [path value]")
	}
	dec := json.NewDecoder(strings.NewReader(ts.ReadFile(args[0])))
	var v any
	ts.Check(dec.Decode(&v))
	if len(args) == 1 {
		for dec.More() {
			var rest any
			ts.Check(dec.Decode(&rest))
		}
		return
	}
	for _, key := range strings.Split(args[1], ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[key]
		case []any:
			if key == "length" {
				v = len(x)
				continue
			}
			i, err := strconv.Atoi(key)
			ts.Check(err)
			if i >= len(x) {
				ts.Fatalf("%s: no element %d", args[1], i)
			}
			v = x[i]
		default:
			v = nil
		}
	}
	if got := fmt.Sprint(v); (got == args[2]) == neg {
		ts.Fatalf("%s is %q", args[1], got)
	}
}

// fileMode wants a file's permissions: mode 600 FILE.
func fileMode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode PERM file")
	}
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%o", info.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}
