package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/portcullis/portcullis/vault"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(writerEnv); path != "" {
		writeUntilKilled(path)
	}
	goleak.VerifyTestMain(m)
}

// clock is a time that a test turns.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 3, 4, 5, 6, 7, 891_234_567, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// open opens a fresh store, which is closed when the test ends.
func open(t *testing.T) *Store {
	t.Helper()
	return openWith(t, newClock())
}

func openWith(t *testing.T, c *clock) *Store {
	t.Helper()
	return openFile(t, filepath.Join(t.TempDir(), "a dir? with #odd %20 letters.db"), c)
}

func openFile(t *testing.T, path string, c *clock) *Store {
	t.Helper()
	s, err := Open(t.Context(), path, c.now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// must runs fn in an Update that has to succeed.
func must(t *testing.T, s *Store, fn func(*Tx) error) (last int64) {
	t.Helper()
	last, err := s.Update(t.Context(), fn)
	if err != nil {
		t.Fatal(err)
	}
	return last
}

// view gives what fn reads, which has to succeed.
func view[V any](t *testing.T, s *Store, fn func(*Tx) (V, error)) (v V) {
	t.Helper()
	if err := s.View(t.Context(), func(tx *Tx) (err error) {
		v, err = fn(tx)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return v
}

// count gives the number that a query selects.
func count(t *testing.T, s *Store, query string, args ...any) int64 {
	t.Helper()
	return view(t, s, func(tx *Tx) (n int64, err error) {
		_, err = tx.get(query, args, &n)
		return n, err
	})
}

func wantReason(t *testing.T, err error, k vault.Kind, r vault.Reason) {
	t.Helper()
	if err == nil || vault.KindOf(err) != k || vault.ReasonOf(err) != r {
		t.Errorf("error %v (kind %d, reason %q), want kind %d, reason %q", err, vault.KindOf(err), vault.ReasonOf(err), k, r)
	}
}

var errRefused = errors.New("refused")

// note is an event that names a record.
func note(tx *Tx, id vault.ID) vault.Event {
	e := vault.NewEvent(vault.EventRecordStored, vault.Caller{}, tx.Now())
	e.Record = id.String()
	return e
}

// store adds a record and its event.
func storeRecord(r vault.Record) func(*Tx) error {
	return func(tx *Tx) error { return errors.Join(tx.AddRecord(r), tx.Append(note(tx, r.ID))) }
}

func someRecord() vault.Record {
	id := vault.NewID()
	return vault.Record{
		ID: id, Site: "north", Lane: "3", Modality: vault.Face, CapturedAt: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), CrossingID: vault.NewID(),
		ContentType: "image/jpeg", Orientation: 6, Size: 12345, Device: "spiffe://example.org/capture/north/3", RequestID: vault.NewID(),
		StoredAt: time.Date(2026, 3, 4, 0, 0, 0, 1000, time.UTC), WrappedKey: "vault:v1:" + id.String(), SealedHash: vault.DigestOf(id[:]), Key: vault.KeyActive, Class: "us-citizen",
	}
}

// checkLog demands that the log is without holes and that each event names a record that is
// there, and each record has its event.
func checkLog(t *testing.T, s *Store) (records map[string]int64) {
	t.Helper()
	records = map[string]int64{}
	from, size := int64(0), int64(-1)
	for size < 0 || from < size {
		indexes, bodies, _, n, err := s.Events(t.Context(), from, 500, nil)
		if err != nil {
			t.Fatal(err)
		}
		size = n
		if len(indexes) == 0 {
			break
		}
		for i, index := range indexes {
			if index != from {
				t.Fatalf("index %d where %d was expected", index, from)
			}
			from++
			e, err := vault.DecodeEvent(bodies[i])
			if err != nil {
				t.Fatal(err)
			}
			if _, double := records[e.Record]; double {
				t.Errorf("record %s has two events", e.Record)
			}
			records[e.Record] = index
		}
	}
	if from != size || int64(len(records)) != size {
		t.Errorf("the log has %d entries and says %d", from, size)
	}
	stored := view(t, s, func(tx *Tx) (out []string, err error) {
		err = tx.each("SELECT id FROM records", nil, func(scan func(...any) error) error {
			var id string
			err := scan(&id)
			out = append(out, id)
			return err
		})
		return out, err
	})
	if len(stored) != len(records) {
		t.Errorf("%d records, %d events", len(stored), len(records))
	}
	for _, id := range stored {
		if _, ok := records[id]; !ok {
			t.Errorf("record %s has no event", id)
		}
	}
	return records
}

// inFiles says whether the text stands in the database's files.
func inFiles(t *testing.T, path, text string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("files of the database: %q, %v", files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), text) {
			return true
		}
	}
	return false
}
