//go:build linux

package blob

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/portcullis/portcullis/internal/crashfs"
	"github.com/portcullis/portcullis/internal/imaging"
	"github.com/portcullis/portcullis/internal/store"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/capture"
)

// The power is cut at some point while images are being stored, in the real database and the
// real directory. What stands here is what comes before: the stores, and the trace of them.

// crashesEnv says at how many points the power is cut, if not at so many:
const (
	crashesEnv = "PORTCULLIS_CRASHES"
	crashes    = 1000
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func atNoon() time.Time { return noon }

// ledger shows capture its part of the store.
type ledger struct{ *store.Store }

func (l ledger) Update(ctx context.Context, fn func(capture.Tx) error) (int64, error) {
	return l.Store.Update(ctx, func(t *store.Tx) error { return fn(t) })
}

func (l ledger) View(ctx context.Context, fn func(capture.Tx) error) error {
	return l.Store.View(ctx, func(t *store.Tx) error { return fn(t) })
}

// shot is one image that somebody tried to store.
type shot struct {
	in    capture.Image
	clean []byte
	rec   vault.Record
	begun int // the trace's length when it was sent
	acked int // the same when its caller heard, negative if he never did
}

// story is all that happened before the power was cut, and what only this test may know: the
// data keys, and the ciphertext as it was put.
type story struct {
	trace  *crashfs.Trace
	device vault.Caller

	mu     sync.Mutex
	shots  []*shot
	begun  int  // changes before the first store
	over   bool // the traced part is
	keys   map[string]key
	sealed map[vault.ID]vault.Digest
}

// key is a record's key in Vault, where it is durable at once.
type key struct {
	dek  []byte
	made int // the trace's length when it was made
}

// Wrap keeps data keys. It is [capture.Keys].
func (y *story) Wrap(_ context.Context, name string, dek []byte) (string, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	made := y.trace.Len()
	if y.over {
		made = math.MaxInt // what is stored after a crash is of no other crash
	}
	y.keys[name] = key{bytes.Clone(dek), made}
	return "vault:v1:" + name, nil
}

// putter notes what is put.
type putter struct {
	*Dir
	story *story
}

func (p putter) Put(ctx context.Context, id vault.ID, sealed []byte) error {
	p.story.mu.Lock()
	p.story.sealed[id] = vault.DigestOf(sealed)
	p.story.mu.Unlock()
	return p.Dir.Put(ctx, id, sealed)
}

// put gives what was put under an ID.
func (y *story) put(id vault.ID) vault.Digest {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.sealed[id]
}

func (y *story) service(s *store.Store, d *Dir) *capture.Service {
	return &capture.Service{Ledger: ledger{s}, Keys: y, Blobs: putter{d, y}, Window: capture.DefaultWindow}
}

// newShot draws an image of one of several sizes.
func (y *story) newShot(t *testing.T, rng *rand.Rand) *shot {
	img := image.NewGray(image.Rect(0, 0, 16+rng.IntN(48), 16+rng.IntN(48)))
	for i := range img.Pix {
		img.Pix[i] = color.Gray{Y: uint8(rng.Uint32())}.Y
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Error(err)
	}
	clean, err := imaging.Clean(b.Bytes(), imaging.Limits{})
	if err != nil {
		t.Error(err)
	}
	return &shot{acked: -1, clean: clean.Bytes, in: capture.Image{
		RequestID: vault.NewID(), Modality: vault.Plate, CapturedAt: noon.Add(-time.Minute), CrossingID: vault.NewID(), Bytes: b.Bytes(),
	}}
}

// keep stores a shot and notes when its caller heard.
func (y *story) keep(t *testing.T, svc *capture.Service, sh *shot) {
	y.mu.Lock()
	sh.begun = y.trace.Len()
	y.shots = append(y.shots, sh)
	y.mu.Unlock()
	rec, repeated, err := svc.Store(context.Background(), y.device, sh.in)
	if err != nil || repeated {
		t.Errorf("store: %v, repeated %v", err, repeated)
		return
	}
	at := y.trace.Len()
	y.mu.Lock()
	defer y.mu.Unlock()
	sh.rec, sh.acked = rec, at
}

// sloth is a way to lose what was acknowledged: some syncs are not there.
type sloth struct{ blobs, folders, database bool }

// tell plays the story: a store and a directory are made, several callers store at once, the
// log is written back in between, and all of it is closed and opened again.
func tell(t *testing.T, seed uint64, lives, each int, lazy sloth) *story {
	t.Helper()
	device, err := vault.ParseCaller("example.org", "spiffe://example.org/capture/north/lane-1")
	if err != nil {
		t.Fatal(err)
	}
	y := &story{trace: crashfs.NewTrace(), device: device, keys: map[string]key{}, sealed: map[vault.ID]vault.Digest{}}
	if err := errors.Join(y.trace.Mkdir("/db"), y.trace.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	y.begun = y.trace.Len()
	dir, remove := crashfs.Scratch(t)
	defer remove()
	path := filepath.Join(dir, "facts.db")
	watch, stop := crashfs.Watch(dir, y.trace, "/db")
	defer stop()
	watch.Deaf(lazy.database)
	disk := &memoryDisk{tree: crashfs.NewTree(), trace: y.trace, deaf: lazy.blobs, lazy: lazy.folders}
	for life := range lives {
		s, err := store.Open(context.Background(), path, atNoon)
		if err != nil {
			t.Fatal(err)
		}
		d, err := open("/blobs", disk)
		if err != nil {
			t.Fatal(err)
		}
		svc := y.service(s, d)
		side, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)")
		if err != nil {
			t.Fatal(err)
		}
		const callers = 6
		var all sync.WaitGroup
		for c := range callers {
			rng := rand.New(rand.NewPCG(seed, uint64(life*callers+c)))
			all.Go(func() {
				for n := range each {
					y.keep(t, svc, y.newShot(t, rng))
					if c == 0 && n%6 == 3 { // another process, a backup say, writes the log back
						how := []string{"PASSIVE", "RESTART", "TRUNCATE"}[rng.IntN(3)]
						if _, err := side.Exec("PRAGMA wal_checkpoint(" + how + ")"); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		all.Wait()
		if err := errors.Join(side.Close(), s.Close()); err != nil {
			t.Fatal(err)
		}
	}
	y.over = true
	return y
}

func (y *story) dek(r vault.Record) []byte {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.keys[r.KeyName()].dek
}

// tally counts what was found after the crashes.
type tally struct {
	points, acked, whole, gone, orphans, reconciled int
	fates                                           map[crashfs.Fate]int
}

func (c tally) String() string {
	return fmt.Sprintf("%d crashes (%v): %d acknowledged images read back; of those without an answer %d whole and %d gone; %d orphans, whole, in %d reconciles",
		c.points, c.fates, c.acked, c.whole, c.gone, c.orphans, c.reconciled)
}

// found is what a crash left, opened again.
type found struct {
	store *store.Store
	dir   *Dir
	path  string
}

// after opens the real store and the real directory on what a crash left in scratch.
func after(tree *crashfs.Tree, scratch string, rng *rand.Rand) (f found, err error) {
	if err := errors.Join(os.RemoveAll(scratch), os.Mkdir(scratch, 0o700), tree.Copy("/db", scratch)); err != nil {
		return f, err
	}
	f.path = filepath.Join(scratch, "facts.db")
	if rng.IntN(2) == 0 { // the index of the log may be there, and then it holds anything
		garbage := make([]byte, 32<<10)
		for i := range garbage {
			garbage[i] = byte(rng.Uint32())
		}
		if err := os.WriteFile(f.path+"-shm", garbage, 0o600); err != nil {
			return f, err
		}
	}
	if f.store, err = store.Open(context.Background(), f.path, atNoon); err != nil {
		return f, fmt.Errorf("%w: the database does not open: %w", errLost, err)
	}
	if f.dir, err = open("/blobs", &memoryDisk{tree: tree}); err != nil {
		return f, errors.Join(fmt.Errorf("the directory does not open: %w", err), f.store.Close())
	}
	return f, nil
}

// cutAll cuts the power at points of the story, on two cores, and gives what was found and
// the first thing that was lost.
func (y *story) cutAll(t *testing.T, seed uint64, points int) (c tally, lost error) {
	t.Helper()
	const cores = 2
	var all sync.WaitGroup
	var tallies [cores]tally
	var errs [cores]error
	for i := range cores {
		dir, remove := crashfs.Scratch(t)
		defer remove()
		all.Go(func() { tallies[i], errs[i] = y.cut(t, seed+uint64(i)<<32, (points+i)/cores, filepath.Join(dir, "db")) })
	}
	all.Wait()
	c.fates = map[crashfs.Fate]int{}
	for i := range cores {
		c.add(tallies[i])
	}
	return c, errors.Join(errs[:]...)
}

func (y *story) cut(t *testing.T, seed uint64, points int, scratch string) (c tally, lost error) {
	rng := rand.New(rand.NewPCG(seed, 1))
	at := make([]int, points)
	for i := range at {
		at[i] = y.begun + rng.IntN(y.trace.Len()-y.begun+1)
	}
	slices.Sort(at)
	replay := y.trace.Replay(rng)
	c.fates = map[crashfs.Fate]int{}
	for _, point := range at {
		replay.Advance(point)
		fate := crashfs.AnyFate(rng)
		f, err := after(replay.Crash(fate), scratch, rng)
		if err == nil {
			err = errors.Join(y.check(t, f, point, rng, &c), f.store.Close())
		}
		if err != nil {
			return c, fmt.Errorf("seed %d, cut at %d of %d, %s: %w", seed, point, y.trace.Len(), fate, err)
		}
		c.points++
		c.fates[fate]++
	}
	return c, nil
}

func (c *tally) add(o tally) {
	c.points, c.acked, c.whole, c.gone = c.points+o.points, c.acked+o.acked, c.whole+o.whole, c.gone+o.gone
	c.orphans, c.reconciled = c.orphans+o.orphans, c.reconciled+o.reconciled
	for fate, n := range o.fates {
		c.fates[fate] += n
	}
}

func points(t *testing.T) int {
	n := crashes
	if text := os.Getenv(crashesEnv); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	return n
}
