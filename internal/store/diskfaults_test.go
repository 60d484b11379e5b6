//go:build linux

package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/portcullis/portcullis/internal/crashfs"
	"github.com/portcullis/portcullis/vault"
)

// sick is a disk that can be made to fail, under a store.
type sick struct {
	dir   string
	trace *crashfs.Trace
	watch *crashfs.SQLite
	after *crashfs.Replay
	rng   *rand.Rand

	acked map[string]int64 // what callers heard: records and their indexes
	tried map[string]bool  // what they asked for and heard an error
	taken map[string]int   // calls that failed, by what they were
}

// newSick gives a disk without a database. end must be called once the store is closed.
func newSick(t *testing.T) (d *sick, end func()) {
	t.Helper()
	dir, remove := crashfs.Scratch(t)
	d = &sick{
		dir: dir, trace: crashfs.NewTrace(), rng: rand.New(rand.NewPCG(3, 4)),
		acked: map[string]int64{}, tried: map[string]bool{}, taken: map[string]int{},
	}
	if err := errors.Join(d.trace.Mkdir("/db"), d.trace.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	var stop func()
	d.watch, stop = crashfs.Watch(d.dir, d.trace, "/db")
	d.after = d.trace.Replay(d.rng)
	return d, func() { stop(); remove() }
}

func (d *sick) path() string { return filepath.Join(d.dir, "p.db") }

// syncDir is the store's own sync of the directory.
func (d *sick) syncDir(path string) error {
	if path != d.dir {
		return fmt.Errorf("%s is synced, not %s", path, d.dir)
	}
	return d.trace.SyncDir("/db")
}

func (d *sick) open() (*Store, error) {
	return openAt(context.Background(), d.path(), newClock().now, d.syncDir)
}

// nth makes call n fail, of those that match, and says which it was once it did.
func (d *sick) nth(n int, of func(crashfs.Call) bool, fault crashfs.Fault) (failed *string) {
	var mu sync.Mutex
	at, cutShort := 0, ""
	failed = new(string)
	d.watch.Fail(func(c crashfs.Call) crashfs.Fault {
		mu.Lock()
		defer mu.Unlock()
		if cutShort == c.String() { // the rest of a short write
			cutShort = ""
			return crashfs.Fault{Errno: fault.Errno}
		}
		if !of(c) {
			return crashfs.Fault{}
		}
		at++
		if at-1 != n {
			return crashfs.Fault{}
		}
		*failed = c.String()
		if fault.Half {
			cutShort = c.String()
		}
		return fault
	})
	return failed
}

// sickness is a way to fail, and the calls that fail so.
type sickness struct {
	name  string
	fault crashfs.Fault
	of    func(crashfs.Call) bool
	step  int // every how manieth call fails: each once with broken, and then some of many alike
}

// crashesEnv says that each call is to fail in every way that it can.
const crashesEnv = "PORTCULLIS_CRASHES"

// next gives the call that fails after call n.
func (ill sickness) next(n int) int {
	if os.Getenv(crashesEnv) != "" {
		return n + 1
	}
	return n + ill.step
}

func anyOf(ops ...string) func(crashfs.Call) bool {
	return func(c crashfs.Call) bool { return slices.Contains(ops, c.Op) }
}

var sicknesses = []sickness{
	{"broken", crashfs.Fault{Errno: syscall.EIO}, func(crashfs.Call) bool { return true }, 1},
	{"full", crashfs.Fault{Errno: syscall.ENOSPC}, anyOf("open", "pwrite", "ftruncate", "fsync"), 4},
	{"full after half", crashfs.Fault{Errno: syscall.ENOSPC, Half: true}, anyOf("pwrite"), 4},
	{"broken after half", crashfs.Fault{Errno: syscall.EIO, Half: true}, anyOf("pwrite"), 4},
	{"not synced", crashfs.Fault{Errno: syscall.EIO}, anyOf("fsync", "openDirectory"), 1},
	{"no more files", crashfs.Fault{Errno: syscall.EMFILE}, anyOf("open", "openDirectory"), 1},
}

// ask has records stored, one operation after the other, and notes what was heard.
func (d *sick) ask(t *testing.T, s *Store, sizes ...int) (failed int) {
	t.Helper()
	for _, n := range sizes {
		records := make([]vault.Record, n)
		for i := range records {
			records[i] = someRecord()
		}
		last, err := s.Update(context.Background(), func(tx *Tx) error {
			for _, r := range records {
				if err := storeRecord(r)(tx); err != nil {
					return err
				}
			}
			return nil
		})
		for i, r := range records {
			if err == nil {
				d.acked[r.ID.String()] = last - int64(n-1-i)
			} else {
				d.tried[r.ID.String()] = true
			}
		}
		if err != nil {
			failed++
			wantReason(t, err, vault.Unavailable, vault.ReasonStoreUnavailable)
			if last != -1 {
				t.Errorf("last %d with an error", last)
			}
		}
	}
	return failed
}

// whole demands that a store has all that was acknowledged, at its index, each record with
// its event, and nothing that nobody asked for.
func (d *sick) whole(t *testing.T, s *Store, when string) {
	t.Helper()
	indexes := checkLog(t, s)
	for id, last := range d.acked {
		if index, ok := indexes[id]; !ok || index != last {
			t.Errorf("%s: acknowledged record %s is at %d (%t), its caller heard %d", when, id, index, ok, last)
		}
	}
	for id := range indexes {
		if _, acked := d.acked[id]; !acked && !d.tried[id] {
			t.Errorf("%s: nobody stored record %s", when, id)
		}
	}
}

// cut cuts the power, and looks at what is there then.
func (d *sick) cut(t *testing.T, when string, fate crashfs.Fate) {
	t.Helper()
	d.after.Advance(d.trace.Len())
	dir := filepath.Join(d.dir, "after")
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700), d.after.Crash(fate).Copy("/db", dir)); err != nil {
		t.Fatal(err)
	}
	when = fmt.Sprintf("%s, then the power cut, %s", when, fate)
	s, err := Open(context.Background(), filepath.Join(dir, "p.db"), newClock().now)
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	d.whole(t, s, when)
	if said := view(t, s, func(tx *Tx) (said string, err error) {
		_, err = tx.get("PRAGMA integrity_check", nil, &said)
		return said, err
	}); said != "ok" {
		t.Errorf("%s: %s", when, said)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestEachDatabaseCallFails lets each system call of an open store's writes fail once, the
// writing back of the log among them. What was acknowledged is there, also if the power fails
// then; who heard an error heard a clear one; and the same store goes on by itself.
func TestEachDatabaseCallFails(t *testing.T) {
	heard, acked, taken := 0, 0, map[string]int{}
	for _, ill := range sicknesses {
		d, end := newSick(t)
		defer end()
		d.taken = taken
		heard += d.eachCall(t, ill)
		acked += len(d.acked)
	}
	report(t, taken, heard, acked)
}

// eachCall makes one store sick in one way, again and again, each time one call later.
func (d *sick) eachCall(t *testing.T, ill sickness) (heard int) {
	t.Helper()
	s, err := d.open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	// So that a few operations fill the log, write it back and begin it again.
	if _, err := s.write.Exec("PRAGMA wal_autocheckpoint = 12"); err != nil {
		t.Fatal(err)
	}
	d.ask(t, s, 1, 3)
	for n := 0; ; n = ill.next(n) {
		failed := d.nth(n, ill.of, ill.fault)
		errs := d.ask(t, s, 1, 3, 1)
		if err := s.View(context.Background(), func(tx *Tx) error { _, err := tx.Size(); return err }); err != nil {
			wantReason(t, err, vault.Unavailable, vault.ReasonStoreUnavailable)
		}
		d.watch.Fail(nil)
		if *failed == "" {
			return heard
		}
		when := fmt.Sprintf("%s: %s, call %d", ill.name, *failed, n)
		d.taken[ill.name+": "+*failed]++
		heard += errs
		if errs > 1 {
			t.Errorf("%s: %d operations failed of one fault", when, errs)
		}
		d.cut(t, when, crashfs.AnyFate(d.rng))
		if more := d.ask(t, s, 1); more > 0 {
			t.Fatalf("%s: the store does not go on", when)
		}
		d.whole(t, s, when)
		if t.Failed() {
			t.Fatal(when)
		}
	}
}

func report(t *testing.T, taken map[string]int, heard, acked int) {
	t.Helper()
	var lines []string
	total := 0
	for what, n := range taken {
		total += n
		lines = append(lines, fmt.Sprintf("%4d %s", n, what))
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[5:], b[5:]) })
	t.Logf("%d faults, %d of them heard by a caller, %d records acknowledged\n%s", total, heard, acked, strings.Join(lines, "\n"))
}

// TestEachDatabaseCallOfOpenFails lets each system call fail once while a database is made,
// and while one is opened that a crash left. Open says so or has done its work all the same;
// it can be called again.
func TestEachDatabaseCallOfOpenFails(t *testing.T) {
	for _, fresh := range []bool{true, false} {
		heard, taken := 0, map[string]int{}
		var left string // what a crash left
		if !fresh {
			left = t.TempDir()
			leave(t, left)
		}
		for _, ill := range sicknesses {
			for n := 0; ; n = ill.next(n) {
				failed, said := ill.open(t, n, left)
				if failed == "" {
					break
				}
				taken[ill.name+": "+failed]++
				if said {
					heard++
				}
			}
		}
		report(t, taken, heard, 0)
	}
}

// open opens a database, which is made if there is nothing left of one, while call n fails; and
// says which one that was, if there was one, and whether Open said so.
func (ill sickness) open(t *testing.T, n int, left string) (call string, heard bool) {
	t.Helper()
	d, end := newSick(t)
	defer end()
	if left != "" {
		if err := os.CopyFS(d.dir, os.DirFS(left)); err != nil {
			t.Fatal(err)
		}
	}
	failed := d.nth(n, ill.of, ill.fault)
	s, err := d.open()
	d.watch.Fail(nil)
	when := fmt.Sprintf("%s: %s, call %d, left %q", ill.name, *failed, n, left)
	if heard = err != nil; heard {
		if *failed == "" {
			t.Fatal(err)
		}
		if s, err = d.open(); err != nil {
			t.Fatalf("%s: does not open again: %v", when, err)
		}
	}
	switch {
	case *failed == "":
	case left == "":
		d.ask(t, s, 1)
		d.whole(t, s, when)
		d.cut(t, when, crashfs.Dropped) // names, too
	default:
		if n := len(checkLog(t, s)); n != 20 {
			t.Errorf("%s: %d events, want 20", when, n)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if t.Failed() {
		t.Fatal(when)
	}
	return *failed, heard
}

// leave makes a database of 20 records whose log was not written back, as after a crash.
func leave(t *testing.T, dir string) {
	t.Helper()
	from := t.TempDir()
	s := openFile(t, filepath.Join(from, "p.db"), newClock())
	for range 20 {
		must(t, s, storeRecord(someRecord()))
	}
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "p.db-shm")); err != nil {
		t.Fatal(err)
	}
}
