package store

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis/portcullis/internal/tlog"
	"github.com/portcullis/portcullis/vault"
)

// treeLedger is the store as the leader sees it.
type treeLedger struct{ *Store }

func (l treeLedger) View(ctx context.Context, fn func(tlog.Tx) error) error {
	return l.Store.View(ctx, func(tx *Tx) error { return fn(tx) })
}

func (l treeLedger) Update(ctx context.Context, fn func(tlog.Tx) error) error {
	_, err := l.Store.Update(ctx, func(tx *Tx) error { return fn(tx) })
	return err
}

func newLeader(t *testing.T, s *Store) *tlog.Leader {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key")
	if err := tlog.MakeKeyFile(key); err != nil {
		t.Fatal(err)
	}
	signer, err := tlog.LoadKeyFile(key, "example.org/portcullis")
	if err != nil {
		t.Fatal(err)
	}
	return &tlog.Leader{Ledger: treeLedger{s}, Signer: signer, Log: slog.New(slog.DiscardHandler), Clock: time.Now}
}

// grown steps until all events are in the tree.
func grown(t *testing.T, l *tlog.Leader) {
	t.Helper()
	for more := true; more; {
		var err error
		if more, err = l.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// source is the store as an export sees it.
type source struct{ *Store }

func (s source) Checkpoint(ctx context.Context) (signed []byte, err error) {
	err = s.View(ctx, func(tx *Tx) (err error) {
		signed, err = tx.SignedCheckpoint()
		return err
	})
	return signed, err
}

func (s source) Entries(ctx context.Context, from, to int64, each func([]byte) error) error {
	return s.View(ctx, func(tx *Tx) error {
		all, err := tx.Leaves(from, int(to-from), 1<<30)
		for _, e := range all {
			if err := each(e); err != nil {
				return err
			}
		}
		return err
	})
}

func (s source) Tile(ctx context.Context, size int64, level int, index int64, width int) (hashes []byte, err error) {
	err = s.View(ctx, func(tx *Tx) error {
		hashes, err = tx.Tile(level, index)
		return err
	})
	return hashes[:min(len(hashes), 32*width)], err
}

func silent(int64, int64) {}

// exported shows that an export is sound, holds every event, and fits the checkpoints kept.
func exported(t *testing.T, s *Store, l *tlog.Leader, kept ...tlog.Kept) tlog.Checkpoint {
	t.Helper()
	d := tlog.Dir(t.TempDir())
	c, err := d.Export(t.Context(), source{s}, l.Signer.Verifier(), silent)
	if err != nil {
		t.Fatal(err)
	}
	v, err := d.Verify(t.Context(), l.Signer.Verifier(), kept, silent)
	if err != nil || len(v.Findings) > 0 || v.Kept != len(kept) {
		t.Errorf("%q, %d kept, %v", v.Findings, v.Kept, err)
	}
	v, err = tlog.Reader{Ledger: treeLedger{s}}.Verify(t.Context(), l.Signer.Verifier(), kept, silent)
	if err != nil || len(v.Findings) > 0 || v.Checkpoint != c {
		t.Errorf("in the database: %q, %v", v.Findings, err)
	}
	if n := count(t, s, "SELECT count(*) FROM events"); c.Size != n {
		t.Errorf("the tree has %d, the log %d", c.Size, n)
	}
	return c
}

func TestTreeOfAnEmptyLog(t *testing.T) {
	s := open(t)
	l := newLeader(t, s)
	grown(t, l)
	if c := exported(t, s, l); c.Size != 0 {
		t.Errorf("%+v", c)
	}
}

// TestTreeFollowsTheLog: two leaders side by side, as in two processes, while events come from
// two processes. Every checkpoint that was there begins the next.
func TestTreeFollowsTheLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.db")
	c := newClock()
	stores := []*Store{openFile(t, path, c), openFile(t, path, c)}
	first := newLeader(t, stores[0])
	leaders := []*tlog.Leader{first, {Ledger: treeLedger{stores[1]}, Signer: first.Signer, Log: first.Log, Clock: first.Clock}}
	ctx, stop := context.WithCancel(t.Context())
	var running, writing sync.WaitGroup
	for i, l := range leaders {
		running.Go(func() { l.Run(ctx, time.Duration(1+i)*time.Millisecond) })
	}
	var kept []tlog.Kept
	running.Go(func() {
		for ctx.Err() == nil {
			signed, err := source{stores[1]}.Checkpoint(t.Context())
			if err != nil || signed == nil {
				continue
			}
			c, err := tlog.Open(signed, first.Signer.Verifier())
			if err != nil {
				t.Error(err)
			}
			if len(kept) == 0 || kept[len(kept)-1].Checkpoint != c {
				kept = append(kept, tlog.Kept{Checkpoint: c, Where: "memory"})
			}
		}
	})
	for i := range 16 {
		writing.Go(func() {
			for range 60 {
				must(t, stores[i%2], storeRecord(someRecord()))
			}
		})
	}
	writing.Wait()
	stop()
	running.Wait()
	grown(t, first)
	if c := exported(t, stores[0], first, kept...); c.Size != 960 {
		t.Errorf("%d entries", c.Size)
	}
	if len(kept) < 3 {
		t.Errorf("only %d checkpoints were seen: nothing ran side by side", len(kept))
	}
	for i := 1; i < len(kept); i++ {
		if kept[i].Size <= kept[i-1].Size {
			t.Errorf("a checkpoint of %d entries came after one of %d", kept[i].Size, kept[i-1].Size)
		}
	}
}

// cutting is a ledger whose process is killed at a step: before it, or after it became
// durable but before anyone heard.
type cutting struct {
	tlog.Ledger
	at, step int
	after    bool
}

var errKilled = errors.New("killed")

func (c *cutting) View(ctx context.Context, fn func(tlog.Tx) error) error {
	if c.step++; c.step == c.at {
		return errKilled
	}
	return c.Ledger.View(ctx, fn)
}

func (c *cutting) Update(ctx context.Context, fn func(tlog.Tx) error) error {
	if c.step++; c.step != c.at {
		return c.Ledger.Update(ctx, fn)
	}
	if !c.after {
		return errKilled
	}
	return errors.Join(c.Ledger.Update(ctx, fn), errKilled)
}

// TestLeaderIsKilled: at each step; the next leader goes on.
func TestLeaderIsKilled(t *testing.T) {
	s := open(t)
	first := newLeader(t, s)
	for at := 1; at <= 6; at++ {
		for _, after := range []bool{false, true} {
			for range 100 {
				must(t, s, storeRecord(someRecord()))
			}
			l := &tlog.Leader{Ledger: &cutting{Ledger: treeLedger{s}, at: at, after: after}, Signer: first.Signer, Log: first.Log, Clock: first.Clock}
			for range 4 {
				if _, err := l.Step(t.Context()); errors.Is(err, errKilled) {
					break
				}
				must(t, s, storeRecord(someRecord()))
			}
			next := &tlog.Leader{Ledger: treeLedger{s}, Signer: first.Signer, Log: first.Log, Clock: first.Clock}
			grown(t, next)
			// One that goes on, not knowing whether its step became durable, does too.
			must(t, s, storeRecord(someRecord()))
			grown(t, l)
			exported(t, s, first)
		}
	}
}

// TestLeaderRefuses: a database that is not the one that it was, or whose tiles were changed.
// Nothing is signed then.
func TestLeaderRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change  string
		running error // the leader that has run all the time
		fresh   error // one that starts
	}{
		"tile changed":       {"UPDATE log_tiles SET hashes = zeroblob(length(hashes)) WHERE level = 0 AND idx = 1", nil, tlog.ErrDamaged},
		"tile removed":       {"DELETE FROM log_tiles WHERE level = 1", nil, tlog.ErrDamaged},
		"checkpoint removed": {"DELETE FROM log_tree", tlog.ErrRewritten, tlog.ErrRewritten},
		"event missing":      {"UPDATE log_counter SET next = 305", tlog.ErrDamaged, tlog.ErrDamaged},
		"events removed":     {"UPDATE log_counter SET next = 290", tlog.ErrRewritten, tlog.ErrRewritten},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			l := newLeader(t, s)
			l.Ship = filepath.Join(t.TempDir(), "shipped")
			for range 300 {
				must(t, s, storeRecord(someRecord()))
			}
			grown(t, l)
			if _, err := s.write.Exec(c.change); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Step(t.Context()); !errors.Is(err, c.running) {
				t.Errorf("%v, want %v", err, c.running)
			}
			fresh := &tlog.Leader{Ledger: treeLedger{s}, Signer: l.Signer, Ship: l.Ship, Log: l.Log, Clock: l.Clock}
			for range 2 {
				if _, err := fresh.Step(t.Context()); !errors.Is(err, c.fresh) {
					t.Errorf("%v, want %v", err, c.fresh)
				}
			}
		})
	}
}

// TestDatabaseRolledBack: an older copy of the database is put in place, and the log goes on
// from there. The checkpoint that was shipped tells.
func TestDatabaseRolledBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.db")
	s := openFile(t, path, newClock())
	l := newLeader(t, s)
	l.Ship = filepath.Join(t.TempDir(), "shipped")
	for range 100 {
		must(t, s, storeRecord(someRecord()))
	}
	grown(t, l)
	older := filepath.Join(t.TempDir(), "older.db")
	if _, err := s.write.Exec("VACUUM INTO '" + older + "'"); err != nil {
		t.Fatal(err)
	}
	must(t, s, storeRecord(someRecord()))
	grown(t, l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	back := openFile(t, older, newClock())
	for _, more := range []int{0, 5} { // as it was, and after it went on
		for range more {
			must(t, back, storeRecord(someRecord()))
		}
		after := &tlog.Leader{Ledger: treeLedger{back}, Signer: l.Signer, Ship: l.Ship, Log: l.Log, Clock: l.Clock}
		if _, err := after.Step(t.Context()); !errors.Is(err, tlog.ErrRewritten) {
			t.Errorf("%v", err)
		}
		// A leader that has no memory signs it; then the memory of others tells.
		after.Ship = ""
		grown(t, after)
		if more > 0 {
			after.Ship = l.Ship
			after = &tlog.Leader{Ledger: treeLedger{back}, Signer: l.Signer, Ship: l.Ship, Log: l.Log, Clock: l.Clock}
			if _, err := after.Step(t.Context()); !errors.Is(err, tlog.ErrRewritten) {
				t.Errorf("longer than before: %v", err)
			}
		}
	}
	if b, err := os.ReadFile(l.Ship); err != nil || bytes.Count(b, []byte("— ")) != 2 {
		t.Errorf("%s, %v", b, err)
	}
}

// TestForgedDatabase: what is changed in the events is named by an export.
func TestForgedDatabase(t *testing.T) {
	for name, c := range map[string]struct{ change, want string }{
		"edited":  {"UPDATE events SET body = replace(body, '\"v\":1', '\"v\":2') WHERE idx = 280", "entry 280 was changed"},
		"dropped": {"DELETE FROM events WHERE idx = 280", "damaged: entries 280 to 511 are missing"},
		"dropped and closed up": {"DELETE FROM events WHERE idx = 280; UPDATE events SET idx = -idx WHERE idx > 280; UPDATE events SET idx = -idx - 1 WHERE idx < 0",
			"entry 280 is missing"},
		"reordered":  {"UPDATE events SET idx = -1 WHERE idx = 280; UPDATE events SET idx = 280 WHERE idx = 281; UPDATE events SET idx = 281 WHERE idx = -1", "entry 28"},
		"duplicated": {"UPDATE events SET body = (SELECT body FROM events WHERE idx = 279) WHERE idx = 280", "entry 280 was replaced by entry 279"},
		"inserted": {"UPDATE events SET idx = -idx - 1 WHERE idx >= 280; UPDATE events SET idx = -idx WHERE idx < 0; INSERT INTO events SELECT 280, type, body || ' ' FROM events WHERE idx = 5",
			"an entry was put in before entry 280"},
		"tiles too": {"UPDATE events SET body = body || ' ' WHERE idx = 280; UPDATE log_tiles SET hashes = zeroblob(length(hashes)) WHERE level = 0 AND idx = 1",
			"do not fit the checkpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			l := newLeader(t, s)
			for range 600 {
				must(t, s, storeRecord(someRecord()))
			}
			grown(t, l)
			if _, err := s.write.Exec(c.change); err != nil {
				t.Fatal(err)
			}
			// The operator's own look at the database names it, too.
			v, err := tlog.Reader{Ledger: treeLedger{s}}.Verify(t.Context(), l.Signer.Verifier(), nil, silent)
			if err != nil || len(v.Findings) == 0 {
				t.Errorf("nothing is found in the database: %v", err)
			}
			_, err = tlog.Dir(t.TempDir()).Export(t.Context(), source{s}, l.Signer.Verifier(), silent)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %s", err, c.want)
			}
		})
	}
}

// TestLogLag: how long the oldest event waits that is not in the tree.
func TestLogLag(t *testing.T) {
	c := newClock()
	s := openWith(t, c)
	l := newLeader(t, s)
	lag := func() time.Duration {
		t.Helper()
		return view(t, s, func(tx *Tx) (time.Duration, error) { lag, _, err := tx.LogLag(); return lag, err })
	}
	put := func() {
		must(t, s, func(tx *Tx) error {
			e := vault.NewEvent(vault.EventRecordStored, vault.Caller{}, tx.Now())
			return tx.Append(e)
		})
	}
	want := func(d time.Duration) {
		t.Helper()
		if got := lag(); got < d || got > d+time.Second {
			t.Errorf("the lag is %s, want %s", got, d)
		}
	}
	want(0)
	put()
	c.add(time.Minute)
	want(time.Minute) // without any tree
	put()
	grown(t, l)
	want(0)
	c.add(time.Hour)
	want(0) // nothing waits
	put()
	c.add(10 * time.Second)
	put()
	want(10 * time.Second) // the oldest
	c.add(-time.Minute)
	want(50 * time.Second) // a clock that is set back must not hide it
	for _, change := range []string{"UPDATE events SET body = 'x' WHERE idx = 2", "DELETE FROM events WHERE idx = 2"} {
		if _, err := s.write.Exec(change); err != nil {
			t.Fatal(err)
		}
		err := s.View(t.Context(), func(tx *Tx) error { _, _, err := tx.LogLag(); return err })
		wantReason(t, err, vault.DataLoss, vault.ReasonDataLoss)
	}
}

// TestLogOrderIsCommitOrder: writers in two processes, with delays at every point where one
// can be overtaken; readers all the while. Whoever sees an entry sees every entry before it.
func TestNoReaderMissesAnEntry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.db")
	c := newClock()
	var delays atomic.Int64
	delay := func() {
		if n := rand.IntN(3); n > 0 {
			delays.Add(1)
			time.Sleep(time.Duration(n) * time.Millisecond)
		}
	}
	slow := func() time.Time { delay(); return c.now() } // as a transaction begins
	var stores []*Store
	for range 2 {
		s := openFile(t, path, c)
		s.clock = slow
		s.Observe(func(int, time.Duration) { delay() }) // after the commit, before the callers hear
		stores = append(stores, s)
	}
	var writing, reading sync.WaitGroup
	var acked sync.Map
	for i := range 12 {
		writing.Go(func() {
			for range 25 {
				r := someRecord()
				last := must(t, stores[i%2], func(tx *Tx) error {
					delay()
					if err := storeRecord(r)(tx); err != nil {
						return err
					}
					delay() // between the event and the commit
					return nil
				})
				if was, twice := acked.LoadOrStore(last, r.ID); twice {
					t.Errorf("index %d is of %s and of %s", last, was, r.ID)
				}
			}
		})
	}
	ctx, stop := context.WithCancel(t.Context())
	var looks atomic.Int64
	for i := range 4 {
		reading.Go(func() {
			var seen int64 // all below it were seen, for good
			for ctx.Err() == nil {
				var got []Entry
				var size int64
				err := stores[i%2].View(t.Context(), func(tx *Tx) (err error) {
					got, size, err = tx.Events(seen, 1000, nil)
					return err
				})
				if err != nil {
					t.Error(err)
					return
				}
				for _, e := range got {
					if e.Index != seen {
						t.Errorf("entry %d is seen, %d is not", e.Index, seen)
						return
					}
					seen++
				}
				if seen != size {
					t.Errorf("the log has %d entries, %d are seen", size, seen)
				}
				looks.Add(1)
			}
		})
	}
	writing.Wait()
	stop()
	reading.Wait()
	if n := len(checkLog(t, stores[0])); n != 300 {
		t.Errorf("%d records", n)
	}
	acked.Range(func(index, id any) bool {
		e := view(t, stores[1], func(tx *Tx) ([]Entry, error) { e, _, err := tx.Events(index.(int64), 1, nil); return e, err })
		if len(e) != 1 || !strings.Contains(string(e[0].Body), id.(vault.ID).String()) {
			t.Errorf("entry %d is not of record %s", index, id)
		}
		return true
	})
	if delays.Load() < 100 || looks.Load() < 20 {
		t.Errorf("%d delays, %d looks: nothing was raced", delays.Load(), looks.Load())
	}
}
