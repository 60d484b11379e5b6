package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestWatchKilled kills "capture --watch" at random instants while pictures come in. In the
// end each file has one result and one record, and none was stored twice.
func TestWatchKilled(t *testing.T) {
	d := startDaemon(t)
	env := &testscript.Env{WorkDir: filepath.Join(t.TempDir(), "script-killed")}
	if err := os.Mkdir(env.WorkDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.setup(env); err != nil {
		t.Fatal(err)
	}
	k := &killed{t: t, env: env, config: env.Getenv("PORTCULLIS_CONFIG"), daemon: d.pid}
	for _, remove := range []bool{false, true} {
		name := map[bool]string{false: "keep", true: "remove"}[remove]
		t.Run(name, func(t *testing.T) { k.t = t; k.round(filepath.Join(env.WorkDir, name), remove) })
	}
	t.Run("away", func(t *testing.T) { k.t = t; k.awayAndBack(filepath.Join(env.WorkDir, "away")) })
}

type killed struct {
	t      *testing.T
	env    *testscript.Env
	config string
	daemon int // its process
	stored int // pictures that the service should have by now
}

// command is this program as the command line.
func (k *killed) command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Args = append([]string{"portcullis"}, args...)
	cmd.Env = append(os.Environ(), "PORTCULLIS_CONFIG="+k.config)
	return cmd
}

// text is what a process says, while it says it.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (t *text) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(b)
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

func (k *killed) watch(dir string, remove bool) (*exec.Cmd, *text) {
	k.t.Helper()
	args := []string{"--profile", "lane", "capture", dir, "--watch", "--modality", "face", "--settle", "50ms"}
	if remove {
		args = append(args, "--remove")
	}
	cmd := k.command(args...)
	said := &text{}
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	return cmd, said
}

// drop puts a picture of its own into the folder, in one of the ways that programs do.
func drop(t *testing.T, dir string, n int) string {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 40, 40))
	r := rand.New(rand.NewPCG(uint64(n), uint64(len(dir))))
	for i := range img.Pix {
		img.Pix[i] = byte(r.Uint32())
	}
	img.Set(0, 0, color.White)
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("p%03d.png", n)
	path := filepath.Join(dir, name)
	write := func(path string, parts ...[]byte) {
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parts {
			if _, err := f.Write(p); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Millisecond)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n%2 == 0 {
		write(path, b.Bytes()[:b.Len()/2], b.Bytes()[b.Len()/2:])
		return name
	}
	write(filepath.Join(dir, "."+name), b.Bytes())
	if err := os.Rename(filepath.Join(dir, "."+name), path); err != nil {
		t.Fatal(err)
	}
	return name
}

// results reads the whole lines, by file.
func results(t *testing.T, dir string) map[string][]outcome {
	t.Helper()
	f, err := os.Open(resultsFile(dir))
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := map[string][]outcome{}
	for s := bufio.NewScanner(f); s.Scan(); {
		var o outcome
		if json.Unmarshal(s.Bytes(), &o) == nil {
			all[string(o.File)] = append(all[string(o.File)], o)
		}
	}
	return all
}

func (k *killed) round(dir string, remove bool) {
	t := k.t
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	const kills = 25
	var names []string
	open := func() (n int) {
		for _, lines := range results(t, dir) {
			if lines[len(lines)-1].Status == "begun" {
				n++
			}
		}
		return n
	}
	lost := 0
	for i := range kills {
		// A random instant rarely lies between a picture's sending and its answer. In every
		// fifth round no answer comes until after the kill.
		held := i%5 == 0
		cmd, _ := k.watch(dir, remove)
		if held {
			k.signal(syscall.SIGSTOP)
		}
		for range 4 {
			names = append(names, drop(t, dir, len(names)))
			time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond)
		}
		if held {
			k.until(func() bool { return open() > 0 })
		}
		time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if held {
			k.signal(syscall.SIGCONT)
		}
		lost += open()
	}
	t.Logf("%d kills, %d files, %d answers lost", kills, len(names), lost)
	cmd, said := k.watch(dir, remove)
	k.until(func() bool {
		all := results(t, dir)
		for _, n := range names {
			if lines := all[n]; len(lines) == 0 || !lines[len(lines)-1].stored() {
				return false
			}
		}
		left, err := filepath.Glob(filepath.Join(dir, "*.png"))
		return err == nil && (!remove || len(left) == 0)
	})
	k.end(cmd, said)
	for _, n := range names {
		records, repeats, ids := map[string]bool{}, 0, map[string]bool{}
		for _, o := range results(t, dir)[n] {
			if o.Status != "begun" && !o.stored() {
				t.Errorf("%s: %+v", n, o)
			}
			ids[o.RequestID] = true
			if o.stored() {
				records[o.Record] = true
				repeats++
			}
		}
		if len(records) != 1 || len(ids) != 1 || repeats != 1 {
			t.Errorf("%s: %d results, records %v, request IDs %v", n, repeats, records, ids)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.png")); !remove && len(left) != len(names) {
		t.Errorf("%d of %d files are left", len(left), len(names))
	}
	k.stored += len(names)
	k.count()
}

// count holds what the service has against what was stored.
func (k *killed) count() {
	k.t.Helper()
	cmd := k.command("--profile", "alice", "--output", "json", "key", "list", "--site", "killed", "--from", k.env.Getenv("FROM"), "--until", k.env.Getenv("UNTIL"))
	out, err := cmd.Output()
	if err != nil {
		k.t.Fatal(err)
	}
	var got struct{ Records []json.RawMessage }
	if err := json.Unmarshal(out, &got); err != nil || len(got.Records) != k.stored {
		k.t.Errorf("the service has %d records of %d pictures; %v", len(got.Records), k.stored, err)
	}
}

func (k *killed) signal(s syscall.Signal) {
	k.t.Helper()
	if err := syscall.Kill(k.daemon, s); err != nil {
		k.t.Fatal(err)
	}
}

func (k *killed) until(done func() bool) {
	k.t.Helper()
	for end := time.Now().Add(2 * time.Minute); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			k.t.Fatal("not after two minutes")
		}
	}
}

func (k *killed) end(cmd *exec.Cmd, said *text) {
	k.t.Helper()
	k.until(func() bool { return strings.Contains(said.String(), "keeping up") })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		k.t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(said.String(), "0 pictures without a result") {
		k.t.Errorf("%v: %s", err, said)
	}
}

// awayAndBack begins while nothing answers, and lets the service come later.
func (k *killed) awayAndBack(dir string) {
	t := k.t
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(k.config)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := parseConfig(k.config, text)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close() // nobody answers there for now
	through := filepath.Join(filepath.Dir(k.config), "through.yaml")
	if err := os.WriteFile(through, bytes.ReplaceAll(text, []byte(cfg.Server), []byte(addr)), 0o600); err != nil {
		t.Fatal(err)
	}
	direct := k.config
	k.config = through
	const n = 30
	for i := range n {
		drop(t, dir, i)
	}
	cmd, said := k.watch(dir, true)
	time.Sleep(8 * time.Second)
	if left, _ := filepath.Glob(filepath.Join(dir, "*.png")); len(left) != n {
		t.Errorf("%d of %d files are left while nobody answers", len(left), n)
	}
	if l, err = net.Listen("tcp", addr); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				s, err := net.Dial("tcp", cfg.Server)
				if err != nil {
					return
				}
				defer s.Close()
				go func() { _, _ = io.Copy(s, c); s.Close() }()
				_, _ = io.Copy(c, s)
			}()
		}
	}()
	k.until(func() bool {
		left, err := filepath.Glob(filepath.Join(dir, "*.png"))
		return err == nil && len(left) == 0
	})
	k.end(cmd, said)
	for _, want := range []string{"the service takes nothing", "the service answers again", "ended: 30 stored"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("it does not say %q: %s", want, said)
		}
	}
	k.config = direct
	k.stored += n
	k.count()
}
