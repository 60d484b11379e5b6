package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/portcullis/portcullis/internal/devvault"
	"github.com/portcullis/portcullis/internal/imaging"
	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/client"
)

// killsEnv sets how often TestKillDaemon kills; TestKillVault kills a quarter as often.
const killsEnv = "PORTCULLIS_KILLS"

func kills(t *testing.T) int {
	text, ok := os.LookupEnv(killsEnv)
	if !ok {
		return 12
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 4 {
		t.Fatalf("%s is %q, not a number of 4 or more", killsEnv, text)
	}
	return n
}

// loadClients is how many clients store while something is killed.
const loadClients = 16

// boundAt is the listener of a daemon that runs in another process.
type boundAt struct {
	net.Listener
	at net.Addr
}

func (b boundAt) Addr() net.Addr { return b.at }

// killable is a Portcullis whose daemon is a process of its own.
type killable struct {
	*service
	bin, config string
	child       *exec.Cmd
	out         bytes.Buffer // of the child that runs
}

func beginKillable(t *testing.T, changes ...func(*config)) *killable {
	t.Helper()
	k := &killable{service: &service{t: t, dir: t.TempDir(), logs: &logs{}}}
	// Built without the race detector: it is the kills that are tested, many of them.
	k.bin = filepath.Join(k.dir, "portcullisd")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", k.bin, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	k.vault, err = devvault.Start(t.Context(), filepath.Join(k.dir, "vault"), devvault.Options{})
	noError(t, err)
	t.Cleanup(func() { noError(t, k.vault.Stop(context.Background())) })
	k.cfg, err = prepareDev(t.Context(), k.dir, k.vault)
	noError(t, err)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	noError(t, err)
	k.cfg.Listen = free.Addr().String()
	for _, change := range changes {
		change(&k.cfg)
	}
	k.daemon = &daemon{lis: boundAt{at: free.Addr()}}
	noError(t, free.Close())
	text, err := k.cfg.yaml()
	noError(t, err)
	k.config = filepath.Join(k.dir, "portcullisd.yaml")
	noError(t, os.WriteFile(k.config, text, 0o600))
	t.Cleanup(func() {
		if k.child != nil {
			k.kill()
		}
	})
	return k
}

// run starts the daemon and waits until it takes connections.
func (k *killable) run() {
	k.t.Helper()
	k.out.Reset()
	k.child = exec.Command(k.bin, "serve", "--config", k.config)
	k.child.Stdout, k.child.Stderr = &k.out, &k.out
	noError(k.t, k.child.Start())
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.DialTimeout("tcp", k.cfg.Listen, time.Second)
		if err == nil {
			noError(k.t, conn.Close())
			return
		}
		if time.Now().After(deadline) {
			k.kill()
			k.t.Fatalf("the daemon does not serve: %v\n%s", err, &k.out)
		}
	}
}

// kill ends the daemon as a crash would.
func (k *killable) kill() {
	k.t.Helper()
	err := k.child.Process.Kill()
	werr := k.child.Wait()
	if err != nil {
		k.t.Errorf("the daemon had ended by itself: %v\n%s", werr, &k.out)
	}
	k.child = nil
}

// load is clients that store, and what they know of it.
type load struct {
	cfg  client.Config
	stop context.CancelFunc
	done sync.WaitGroup

	mu        sync.Mutex
	sent      map[vault.Digest]bool   // each image as it will be kept
	acked     map[vault.Digest]string // those acknowledged, and the record that was named
	abandoned int                     // given up after a failure
	failures  int
	odd       []error // failures that a kill does not explain
}

func (k *killable) load() *load {
	ctx, stop := context.WithCancel(k.t.Context())
	cfg := k.service.config(lane)
	cfg.Patience = time.Nanosecond // each failure is to be seen, and some images given up
	l := &load{cfg: cfg, stop: stop, sent: map[vault.Digest]bool{}, acked: map[vault.Digest]string{}}
	for i := range loadClients {
		l.done.Go(func() { l.client(ctx, uint64(i)) })
	}
	return l
}

// end stops the clients and waits for them.
func (l *load) end() {
	l.stop()
	l.done.Wait()
}

func (l *load) client(ctx context.Context, n uint64) {
	rnd := rand.New(rand.NewPCG(n, 2))
	var c *client.Client
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	for i := uint64(0); ctx.Err() == nil; i++ {
		raw := picture(n<<32|i, 300)
		clean, err := imaging.Clean(raw, imaging.Limits{})
		if err != nil {
			l.failed(err)
			return
		}
		kept := vault.DigestOf(clean.Bytes)
		l.mu.Lock()
		l.sent[kept] = true
		l.mu.Unlock()
		in := client.Image{RequestID: vault.NewID(), Modality: vault.Plate, CapturedAt: time.Now(), Bytes: raw}
		for ctx.Err() == nil {
			if c == nil {
				if c, err = client.Dial(l.cfg); err != nil {
					l.failed(err)
					return
				}
			}
			// Not the load's own context: what was asked for must be known.
			call, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			got, err := c.Store(call, in)
			cancel()
			if err == nil {
				l.mu.Lock()
				l.acked[kept] = got.Record
				l.mu.Unlock()
				break
			}
			l.failed(err)
			c.Close() // a new one does not wait as long before it connects again
			c = nil
			time.Sleep(time.Duration(5+rnd.IntN(20)) * time.Millisecond)
			if rnd.IntN(2) == 0 {
				l.mu.Lock()
				l.abandoned++
				l.mu.Unlock()
				break
			}
		}
		time.Sleep(time.Duration(rnd.IntN(60)) * time.Millisecond)
	}
}

func (l *load) failed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures++
	if vault.KindOf(err) != vault.Unavailable {
		l.odd = append(l.odd, err)
	}
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// verify reconciles and checks what the kills left, then opens every image.
func (k *killable) verify(what string, n int, l *load) {
	t := k.t
	t.Helper()
	for i, err := range l.odd {
		if i < 5 {
			t.Errorf("a kill does not explain this failure: %v", err)
		}
	}
	var out bytes.Buffer
	err := fsck(t.Context(), k.cfg, fsckOptions{repair: true, keep: time.Hour, output: "json"}, &out)
	if err != nil {
		t.Fatalf("fsck: %v\n%s", err, &out)
	}
	var rep struct {
		Sound  bool
		Repair breach.Reconciled
		breach.Report
	}
	noError(t, json.Unmarshal(out.Bytes(), &rep))
	if !rep.Sound || rep.Keyless+rep.Blobless+rep.Repair.Young > 0 || rep.Records != rep.Stored || rep.Aside != rep.Repair.Waiting {
		t.Errorf("fsck --repair left something:\n%s", &out)
	}

	log, err := logger(k.logs, "warn")
	noError(t, err)
	k.daemon, err = start(t.Context(), k.cfg, log)
	noError(t, err)
	defer func() { noError(t, k.daemon.Close()) }()
	p := purpose()
	p.MaxRecords = int64(rep.Records) + 1
	k.admit(p, devOrg)
	contractor := k.as(matcher)
	grant, token := k.granted(contractor, p, p.MaxRecords)
	handles := k.handles(contractor, grant, token)
	opened := map[vault.Digest]int{}
	noError(t, contractor.Fetch(t.Context(), grant, token, handles, func(i *pb.Image) error {
		opened[vault.DigestOf(i.Data)]++
		return nil
	}))
	lost, foreign, twice := 0, 0, 0
	for kept := range l.acked {
		if opened[kept] == 0 {
			lost++
		}
	}
	for kept, times := range opened {
		if !l.sent[kept] {
			foreign++
		}
		if times > 1 {
			twice++
		}
	}
	if lost+foreign+twice > 0 || len(handles) != rep.Records {
		t.Errorf("of %d records %d open; %d acknowledged images are lost, %d were never sent, %d are there twice",
			rep.Records, len(handles), lost, foreign, twice)
	}
	if len(l.acked) == 0 || l.failures == 0 {
		t.Errorf("%d images acknowledged, %d failures: the kills met no load", len(l.acked), l.failures)
	}
	fmt.Printf("%s: %d kills under load from %d clients: %d images sent, %d acknowledged and all read back, "+
		"%d unacknowledged but whole, %d failed calls, %d given up; %d records with %d events; orphans put aside: %d; damage: %d\n",
		what, n, loadClients, len(l.sent), len(l.acked), len(opened)-len(l.acked), l.failures, l.abandoned,
		rep.Records, rep.Stored, rep.Repair.Quarantined, len(rep.Damage))
}

// TestKillDaemon: whatever was acknowledged survives kills of the daemon at any instant, and
// what was not is whole or gone. Every checkpoint of the log that anybody saw begins the last.
func TestKillDaemon(t *testing.T) {
	n := kills(t)
	k := beginKillable(t, func(c *config) { c.Audit.ShipEvery = time.Second })
	k.run()
	w := k.watch()
	defer w.end()
	l := k.load()
	defer l.end()
	for range n {
		before := l.count()
		wait(t, "an image is acknowledged", func() bool { return l.count() > before })
		time.Sleep(time.Duration(rand.Int64N(int64(250 * time.Millisecond))))
		k.kill()
		k.run()
	}
	l.end()
	w.end()
	k.kill()
	k.verify("daemon", n, l)
	k.verifyLog(n, w)
}

// TestKillVault: the same for kills of Vault.
func TestKillVault(t *testing.T) {
	n := kills(t) / 4
	k := beginKillable(t)
	k.run()
	l := k.load()
	defer l.end()
	for range n {
		before := l.count()
		wait(t, "an image is acknowledged", func() bool { return l.count() > before })
		time.Sleep(time.Duration(rand.Int64N(int64(500 * time.Millisecond))))
		noError(t, k.vault.Kill())
		noError(t, k.vault.Restart(t.Context()))
	}
	l.end()
	k.kill()
	k.verify("vault", n, l)
}
