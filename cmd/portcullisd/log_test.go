package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"sync"
	"testing"
	"time"

	"github.com/portcullis/portcullis/internal/tlog"
	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
)

// logKey is what everyone is given who checks the log.
func (s *service) logKey() string {
	s.t.Helper()
	signer, err := tlog.LoadKeyFile(s.cfg.Audit.Key, s.cfg.origin())
	noError(s.t, err)
	return signer.Key()
}

// watching gives a client that checks the log and remembers in a file what it saw of it.
func (s *service) watching(path, memory string) *client.Client {
	s.t.Helper()
	cfg := s.config(path)
	cfg.LogKey, cfg.LogMemory = s.logKey(), memory
	return s.dial(cfg)
}

// within gives the same service for a test inside the test.
func (s *service) within(t *testing.T) *service {
	out := *s
	out.t = t
	return &out
}

func (s *service) dial(cfg client.Config) *client.Client {
	s.t.Helper()
	c, err := client.Dial(cfg)
	noError(s.t, err)
	s.t.Cleanup(func() { c.Close() })
	return c
}

// checkpoint gives the newest in the database, past the service.
func (s *service) checkpoint() (c tlog.Checkpoint, signed []byte) {
	s.t.Helper()
	db := openSQL(s.t, s.cfg.Store.Path)
	defer db.Close() // many may be asked for
	noError(s.t, db.QueryRowContext(s.t.Context(), "SELECT checkpoint FROM log_tree").Scan(&signed))
	return s.opened(signed), signed
}

func (s *service) opened(signed []byte) tlog.Checkpoint {
	s.t.Helper()
	key, err := tlog.ParseKey(s.logKey())
	noError(s.t, err)
	c, err := tlog.Open(signed, key)
	noError(s.t, err)
	return c
}

// grown waits until every event is in the tree, and gives its size.
func (s *service) grown() (size int64) {
	s.t.Helper()
	db := openSQL(s.t, s.cfg.Store.Path)
	defer db.Close() // else the daemon's Close leaves a write-ahead log, and its file alone is no copy
	wait(s.t, "the tree has every event", func() (all bool) {
		noError(s.t, db.QueryRowContext(s.t.Context(),
			"SELECT t.size, t.size = c.next FROM log_tree t, log_counter c").Scan(&size, &all))
		return all
	})
	return size
}

func silent(int64, int64) {}

// outsideTool gives a program that checks exports and knows nothing of Portcullis.
func outsideTool(t *testing.T) func(dir, key string) error {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "tlogfsck")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", "../../tools/tlogfsck", "-o", bin, ".")
	build.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return func(dir, key string) error {
		out, err := exec.CommandContext(t.Context(), bin, "-dir", dir, "-key", key).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
}

// sound shows that an export is, with every checkpoint that was kept.
func (s *service) sound(dir string, kept []tlog.Kept) tlog.Checkpoint {
	s.t.Helper()
	key, err := tlog.ParseKey(s.logKey())
	noError(s.t, err)
	v, err := tlog.Dir(dir).Verify(s.t.Context(), key, kept, silent)
	if err != nil || len(v.Findings) > 0 || v.Kept != len(kept) {
		s.t.Errorf("of %d checkpoints %d fit the export: %q, %v", len(kept), v.Kept, v.Findings, err)
	}
	return v.Checkpoint
}

// shipped gives the checkpoints in the file that the daemon appends them to.
func (s *service) shipped() []tlog.Kept {
	s.t.Helper()
	key, err := tlog.ParseKey(s.logKey())
	noError(s.t, err)
	kept, err := tlog.LoadKept(s.cfg.Audit.Ship, key)
	noError(s.t, err)
	return kept
}

// TestExportOfARunningService: an auditor brings a directory up to date while the service
// works; a program that knows nothing of Portcullis finds it sound at each size.
func TestExportOfARunningService(t *testing.T) {
	check := outsideTool(t)
	s := begin(t, func(c *config) { c.Audit.ShipEvery = time.Second })
	camera := s.as(lane)
	s.store(camera, vault.Plate, 300, 300)
	s.grown()
	ctx, stop := context.WithCancel(t.Context())
	var storing sync.WaitGroup
	storing.Go(func() {
		for i := uint64(0); ctx.Err() == nil; i++ {
			in := client.Image{RequestID: vault.NewID(), Modality: vault.Plate, CapturedAt: time.Now(), Bytes: picture(i, 300)}
			if _, err := camera.Store(t.Context(), in); err != nil {
				t.Error(err)
			}
		}
	})
	watcher := s.watching(auditor, filepath.Join(t.TempDir(), "seen"))
	dir := t.TempDir()
	var kept []tlog.Kept
	for round := range 3 {
		var done, all int64
		at, err := watcher.ExportLog(t.Context(), dir, func(d, a int64) { done, all = d, a })
		noError(t, err)
		if done != at.Size || all != at.Size {
			t.Errorf("told of %d entries of %d, there are %d", done, all, at.Size)
		}
		noError(t, check(dir, s.logKey()))
		kept = append(kept, tlog.Kept{Checkpoint: s.opened(at.Signed), Where: fmt.Sprint("round ", round)})
		if c := s.sound(dir, kept); c.Size != at.Size || c.Root != at.Root || c.Size < 300 {
			t.Errorf("the export is of %+v, the service said %+v", c, at)
		}
		for index := int64(round); index < at.Size; index += 97 {
			if _, _, err := watcher.ProveEvent(t.Context(), index); err != nil {
				t.Errorf("event %d: %v", index, err)
			}
		}
		wait(t, "the log grows", func() bool { c, _ := s.checkpoint(); return c.Size > at.Size+5 })
	}
	stop()
	storing.Wait()
	size := s.grown()
	if at, err := watcher.ExportLog(t.Context(), dir, silent); err != nil || at.Size != size {
		t.Fatalf("%d of %d: %v", at.Size, size, err)
	}
	if kept[0].Size >= kept[1].Size || kept[1].Size >= kept[2].Size {
		t.Errorf("nothing grew between the exports: %v", kept)
	}
	noError(t, check(dir, s.logKey()))
	s.sound(dir, append(kept, s.shipped()...))
	for i, e := range s.entries(dir, size) {
		if want := s.body(int64(i)); !bytes.Equal(e, want) {
			t.Fatalf("entry %d of the export is %q, the event is %q", i, e, want)
		}
	}

	// Another key fits nothing.
	other := *s
	other.cfg.Audit.Key = filepath.Join(t.TempDir(), "another.key")
	noError(t, tlog.MakeKeyFile(other.cfg.Audit.Key))
	if check(dir, other.logKey()) == nil {
		t.Error("the outside tool takes another key")
	}
	wrong := other.watching(auditor, "")
	for what, call := range map[string]func() error{
		"Checkpoint": func() error { _, err := wrong.Checkpoint(t.Context()); return err },
		"ExportLog":  func() error { _, err := wrong.ExportLog(t.Context(), t.TempDir(), silent); return err },
		"ProveEvent": func() error { _, _, err := wrong.ProveEvent(t.Context(), 0); return err },
	} {
		mustSay(t, what+" by another key", call(), "not signed by the log's key")
	}
}

// entries gives what an export has.
func (s *service) entries(dir string, size int64) (out [][]byte) {
	s.t.Helper()
	for index := int64(0); index*tlog.TileWidth < size; index++ {
		b, err := tlog.Dir(dir).Bundle(index)
		noError(s.t, err)
		entries, err := tlog.SplitBundle(b)
		noError(s.t, err)
		out = append(out, entries...)
	}
	if int64(len(out)) != size {
		s.t.Fatalf("the export has %d entries of %d", len(out), size)
	}
	return out
}

// body gives an event's bytes, past the service.
func (s *service) body(index int64) (b []byte) {
	s.t.Helper()
	noError(s.t, openSQL(s.t, s.cfg.Store.Path).QueryRowContext(s.t.Context(), "SELECT body FROM events WHERE idx = $1", index).Scan(&b))
	return b
}

// mustSay says that an error is there and says what it should.
func mustSay(t *testing.T, what string, err error, want string) {
	t.Helper()
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte(want)) {
		t.Errorf("%s: %v; want %q", what, err, want)
	}
}

// TestHowFarCheckpointsAreBehind measures how long an event waits for a checkpoint that has it,
// under the load of eight clients. What it asserts must hold on a machine that others use, too.
func TestHowFarCheckpointsAreBehind(t *testing.T) {
	s := begin(t)
	type sight struct {
		at   time.Time
		size int64
	}
	var sights []sight
	ctx, stop := context.WithCancel(t.Context())
	var looking, storing sync.WaitGroup
	looking.Go(func() {
		var last []byte
		for ctx.Err() == nil {
			signed, err := tlog.Reader{Ledger: treeLedger{s.daemon.store}}.Checkpoint(ctx)
			if err == nil && !bytes.Equal(signed, last) {
				sights = append(sights, sight{time.Now(), s.opened(signed).Size})
				last = signed
			}
			time.Sleep(2 * time.Millisecond)
		}
	})
	start := time.Now()
	for i := range uint64(8) {
		camera := s.as(lane)
		storing.Go(func() {
			raw := picture(i, 2000)
			for time.Since(start) < 3*time.Second {
				in := client.Image{RequestID: vault.NewID(), Modality: vault.Plate, CapturedAt: time.Now(), Bytes: raw}
				if _, err := camera.Store(t.Context(), in); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	storing.Wait()
	took := time.Since(start)
	s.grown()
	time.Sleep(50 * time.Millisecond) // for the last look
	stop()
	looking.Wait()
	var lags []time.Duration
	for _, e := range s.events(string(vault.EventRecordStored)) {
		at, err := vault.ParseTime(e.At)
		noError(t, err)
		i := sort.Search(len(sights), func(i int) bool { return sights[i].size > e.index })
		if i == len(sights) {
			t.Fatalf("event %d is in no checkpoint", e.index)
		}
		lags = append(lags, sights[i].at.Sub(at))
	}
	slices.Sort(lags)
	part := func(p float64) time.Duration { return lags[int(p*float64(len(lags)-1))].Round(time.Millisecond) }
	within := sort.Search(len(lags), func(i int) bool { return lags[i] > 250*time.Millisecond })
	fmt.Printf("checkpoints are behind, 8 clients, %.0f stores/s: median %s, 95 %% %s, 99 %% %s, longest %s; %.1f %% within 250ms (of %d events, %d checkpoints)\n",
		float64(len(lags))/took.Seconds(), part(.5), part(.95), part(.99), part(1), 100*float64(within)/float64(len(lags)), len(lags), len(sights))
	if len(lags) < 20 || part(.5) > 5*time.Second || lags[0] < 0 {
		t.Errorf("%d events; half of them waited for longer than %s", len(lags), part(.5))
	}
}

// TestHowOftenTheTreeGrows: the setting says it.
func TestHowOftenTheTreeGrows(t *testing.T) {
	s := begin(t, func(c *config) { c.Audit.SignEvery = 3 * time.Second })
	camera := s.as(lane)
	s.store(camera, vault.Plate, 1, 300)
	size := s.grown()
	s.store(camera, vault.Plate, 1, 300)
	time.Sleep(time.Second)
	if c, _ := s.checkpoint(); c.Size != size {
		t.Errorf("the tree went from %d to %d within a second", size, c.Size)
	}
	if now := s.grown(); now <= size {
		t.Errorf("the tree has %d events, it had %d", now, size)
	}
}

// jam keeps the log's tree from growing, and it alone. free lets it grow again.
func (s *service) jam() (free func()) {
	s.t.Helper()
	s.ddl(`CREATE TRIGGER jam BEFORE UPDATE ON log_tree BEGIN SELECT RAISE(ABORT, 'jammed'); END`)
	return func() { s.t.Helper(); s.ddl("DROP TRIGGER jam") }
}

// TestCheckpointsComeWithImages: each page and each stream brings the newest checkpoint, a
// stream only when it is another than before, and the SDK remembers it.
func TestCheckpointsComeWithImages(t *testing.T) {
	s := begin(t)
	p := purpose()
	s.admit(p, devOrg)
	s.store(s.as(lane), vault.Plate, 60, 64<<10)
	memory := filepath.Join(t.TempDir(), "seen")
	c := s.watching(matcher, memory)
	grant, token := s.granted(c, p, 100)
	handles := s.handles(c, grant, token)
	remembered := func() tlog.Checkpoint {
		t.Helper()
		signed, err := os.ReadFile(memory)
		noError(t, err)
		return s.opened(signed)
	}
	if got := remembered(); got.Size == 0 {
		t.Error("a listing leaves nothing to remember")
	}
	s.grown()
	stream := func(between func(n int)) (with []tlog.Checkpoint, at []int) {
		t.Helper()
		got, err := c.Release.FetchImages(t.Context(), &pb.FetchImagesRequest{Grant: grant, GrantToken: token.Reveal(), Handles: handles})
		noError(t, err)
		for n := range handles {
			m, err := got.Recv()
			noError(t, err)
			if m.Image.Checkpoint != nil {
				with, at = append(with, s.opened(m.Image.Checkpoint)), append(at, n)
			}
			between(n)
		}
		return with, at
	}
	free := s.jam()
	is, _ := s.checkpoint()
	with, at := stream(func(int) {})
	free()
	if len(with) != 1 || with[0] != is || at[0] != 0 {
		t.Errorf("while it does not change, the checkpoint came with images %v: %v, not %v", at, with, is)
	}
	s.grown()
	with, at = stream(func(n int) {
		if n == 4 { // the others are not all on their way
			was, _ := s.checkpoint()
			s.store(s.as(lane), vault.Plate, 1, 300)
			wait(t, "the tree grows", func() bool { now, _ := s.checkpoint(); return now.Size > was.Size })
		}
	})
	if len(with) < 2 || at[0] != 0 {
		t.Errorf("while the tree grew, checkpoints came with images %v only", at)
	}
	for i := 1; i < len(with); i++ {
		if with[i].Size <= with[i-1].Size {
			t.Errorf("image %d brings size %d, image %d size %d", at[i-1], with[i-1].Size, at[i], with[i].Size)
		}
	}
	size := s.grown()
	one, err := c.Release.FetchImage(t.Context(), &pb.FetchImageRequest{Grant: grant, GrantToken: token.Reveal(), Handle: handles[0]})
	noError(t, err)
	if got := s.opened(one.Image.Checkpoint); got.Size < size {
		t.Errorf("an image brings size %d of %d", got.Size, size)
	}
	noError(t, c.Fetch(t.Context(), grant, token, handles[:1], func(*pb.Image) error { return nil }))
	if got := remembered(); got.Size < size {
		t.Errorf("size %d is remembered after a fetch, there are %d", got.Size, size)
	}
}

// TestWhoMayAskTheLog, in each process when the roles are apart.
func TestWhoMayAskTheLog(t *testing.T) {
	s := begin(t)
	s.admit(purpose(), devOrg)
	s.store(s.as(lane), vault.Plate, 3, 300)
	s.grown()
	noError(t, s.Close())
	addresses := map[string]string{}
	for _, role := range allRoles {
		cfg := s.cfg
		cfg.Roles = role
		log, err := logger(s.logs, "info")
		noError(t, err)
		d, err := start(t.Context(), cfg, log)
		noError(t, err)
		defer func() { noError(t, d.Close()) }()
		addresses[role] = d.Addr()
	}
	for role, address := range addresses {
		as := func(path string) *client.Client {
			cfg := s.config(path)
			cfg.Address, cfg.LogKey = address, s.logKey()
			return s.dial(cfg)
		}
		for _, path := range []string{auditor, alice, matcher, lane} {
			c := as(path)
			at, err := c.Checkpoint(t.Context())
			if err != nil || at.Size < 3 {
				t.Fatalf("%s at %s: %+v, %v", path, role, at, err)
			}
			proof, err := c.Audit.GetConsistencyProof(t.Context(), &pb.GetConsistencyProofRequest{FirstSize: 3, SecondSize: at.Size})
			if err != nil || len(proof.Hashes) == 0 {
				t.Errorf("%s at %s: no proof: %v", path, role, err)
			}
			_, listed := c.Audit.ListEvents(t.Context(), &pb.ListEventsRequest{})
			_, tiled := c.Audit.GetTile(t.Context(), &pb.GetTileRequest{Width: 3})
			_, included := c.Audit.GetInclusionProof(t.Context(), &pb.GetInclusionProofRequest{Index: 1, Size: 3})
			for what, err := range map[string]error{"events": listed, "a tile": tiled, "a proof of inclusion": included} {
				if path == auditor {
					noError(t, err)
				} else if vault.ReasonOf(err) != vault.ReasonRoleNotAllowed {
					t.Errorf("%s at %s asks for %s: %v", path, role, what, err)
				}
			}
		}
		dir := t.TempDir()
		if _, err := as(auditor).ExportLog(t.Context(), dir, silent); err != nil {
			t.Errorf("export at %s: %v", role, err)
		}
		s.sound(dir, nil)
	}
}
