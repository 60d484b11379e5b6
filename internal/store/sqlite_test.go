package store

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"sync"
	"testing"

	"github.com/portcullis/portcullis/vault"
)

// What stands here is of SQLite alone: its file, and what can become of it.

func TestOpenMakesTheSchemaAndKeepsIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.db")
	c := newClock()
	r := someRecord()
	for round := range 3 {
		s := openFile(t, path, c)
		if round == 0 {
			must(t, s, storeRecord(r))
		}
		if got := view(t, s, func(tx *Tx) (vault.Record, error) { return tx.Record(r.ID) }); !reflect.DeepEqual(got, r) {
			t.Errorf("round %d: %+v", round, got)
		}
		if n := len(checkLog(t, s)); n != 1 {
			t.Errorf("round %d: %d events", round, n)
		}
		for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "secure_delete": "1"} {
			var got string
			if err := s.write.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
				t.Errorf("%s is %q, %v; want %s", pragma, got, err, want)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRecordsFromBeforeClasses: what an earlier schema holds is of the default class.
func TestRecordsFromBeforeClasses(t *testing.T) {
	path, db := earlier(t, 12)
	r := someRecord()
	r.Class = vault.DefaultClass
	_, err := db.ExecContext(t.Context(), `INSERT INTO records (id, site, lane, modality, captured_at, crossing_id, content_type, orientation,
		size, device, request_id, stored_at, wrapped_key, sealed_hash, key_state) VALUES (`+marks(1, 15)+")",
		r.ID.String(), r.Site, r.Lane, string(r.Modality), micros(r.CapturedAt), r.CrossingID.String(), r.ContentType, r.Orientation,
		r.Size, r.Device, r.RequestID.String(), micros(r.StoredAt), r.WrappedKey, r.SealedHash[:], string(r.Key))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s := openFile(t, path, newClock())
	if got := view(t, s, func(tx *Tx) (vault.Record, error) { return tx.Record(r.ID) }); got != r {
		t.Errorf("%+v\nreads back as\n%+v", r, got)
	}
}

func TestOpenFails(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage.db")
	if err := os.WriteFile(garbage, bytes.Repeat([]byte("no database "), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		path string
	}{
		"garbage": {t.Context(), garbage}, "a directory": {t.Context(), dir}, "no directory": {t.Context(), filepath.Join(dir, "none", "p.db")},
		"given up": {gone, filepath.Join(dir, "p.db")},
	} {
		if s, err := Open(c.ctx, c.path, newClock().now); err == nil {
			t.Errorf("%s: opened", name)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if b, err := os.ReadFile(garbage); err != nil || !bytes.HasPrefix(b, []byte("no database ")) {
		t.Error("a file that is no database was written to")
	}
}

// Two processes on one file take turns; the log has no holes and nobody hears a wrong index.
func TestTwoStoresOnOneFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.db")
	c := newClock()
	stores := []*Store{openFile(t, path, c), openFile(t, path, c)}
	var heard sync.Map
	var all sync.WaitGroup
	for n := range 24 {
		all.Go(func() {
			for range 20 {
				r := someRecord()
				last, err := stores[n%2].Update(t.Context(), func(tx *Tx) error {
					// What is read first must still hold when it is written to.
					if _, err := tx.Record(r.ID); vault.KindOf(err) != vault.NotFound {
						return err
					}
					return storeRecord(r)(tx)
				})
				if err != nil {
					t.Error(err)
					return
				}
				heard.Store(r.ID.String(), last)
			}
		})
	}
	all.Wait()
	for _, s := range stores {
		indexes := checkLog(t, s)
		if len(indexes) != 480 {
			t.Errorf("%d events, want 480", len(indexes))
		}
		heard.Range(func(id, last any) bool {
			if indexes[id.(string)] != last {
				t.Errorf("record %s is at %d, its caller heard %d", id, indexes[id.(string)], last)
			}
			return true
		})
	}
}

// A full disk refuses what does not fit, whole, and nothing else; with room again all is well.
func TestFullDisk(t *testing.T) {
	s := open(t)
	must(t, s, storeRecord(someRecord()))
	var pages int
	if err := s.write.QueryRow("PRAGMA page_count").Scan(&pages); err != nil {
		t.Fatal(err)
	}
	limit := func(n int) {
		t.Helper()
		var got int
		if err := s.write.QueryRow("PRAGMA max_page_count = " + strconv.Itoa(n)).Scan(&got); err != nil || got != n {
			t.Fatalf("limit %d, %v", got, err)
		}
	}
	limit(pages + 4)
	acked := 1
	var failed int
	for range 200 {
		last, err := s.Update(t.Context(), storeRecord(someRecord()))
		if err == nil {
			acked++
			continue
		}
		failed++
		wantReason(t, err, vault.Unavailable, vault.ReasonStoreUnavailable)
		if last != -1 {
			t.Errorf("last %d with an error", last)
		}
	}
	if failed == 0 || acked < 3 {
		t.Errorf("%d went in, %d did not: the disk was not full", acked, failed)
	}
	if n := len(checkLog(t, s)); n != acked {
		t.Errorf("%d events, %d acknowledged", n, acked)
	}
	limit(1 << 20)
	must(t, s, storeRecord(someRecord()))
	if n := len(checkLog(t, s)); n != acked+1 {
		t.Errorf("%d events, want %d", n, acked+1)
	}
}

// What a constraint refuses is a bug of ours and no matter of trying again.
func TestConstraintIsABug(t *testing.T) {
	s := open(t)
	r := someRecord()
	must(t, s, storeRecord(r))
	for range 2 {
		last, err := s.Update(t.Context(), storeRecord(r))
		wantReason(t, err, vault.Internal, vault.ReasonInternal)
		if last != -1 {
			t.Errorf("last %d with an error", last)
		}
	}
	must(t, s, storeRecord(someRecord()))
	checkLog(t, s)
}

// A file that may only be read refuses writes, and serves reads.
func TestReadOnlyDatabase(t *testing.T) {
	s := open(t)
	must(t, s, storeRecord(someRecord()))
	readOnly := func(on string) {
		t.Helper()
		if _, err := s.write.Exec("PRAGMA query_only = " + on); err != nil {
			t.Fatal(err)
		}
	}
	readOnly("1")
	_, err := s.Update(t.Context(), storeRecord(someRecord()))
	wantReason(t, err, vault.Unavailable, vault.ReasonStoreUnavailable)
	if n := len(checkLog(t, s)); n != 1 {
		t.Errorf("%d events", n)
	}
	readOnly("0")
	must(t, s, storeRecord(someRecord()))
	checkLog(t, s)
}

// A file that became garbage is an error, never a panic and never an empty answer; with the
// file back, a store opened anew serves.
func TestFileBecomesGarbage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.db")
	c := newClock()
	s := openFile(t, path, c)
	for range 50 {
		must(t, s, storeRecord(someRecord()))
	}
	if err := s.Close(); err != nil { // the log ahead is written back
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s = openFile(t, path, c)
	if err := os.WriteFile(path, bytes.Repeat([]byte{0xa5}, len(whole)), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		err := s.View(t.Context(), func(tx *Tx) error { _, err := tx.Record(vault.NewID()); return err })
		wantReason(t, err, vault.Unavailable, vault.ReasonStoreUnavailable)
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if n := len(checkLog(t, openFile(t, path, c))); n != 50 {
		t.Errorf("%d events, want 50", n)
	}
}

func TestDamagedRowsAreDataLoss(t *testing.T) {
	c := newClock()
	s := openWith(t, c)
	r, g := someRecord(), someGrant(vault.GrantApproved)
	d := vault.Proposal{Decision: vault.Decision{ID: vault.NewID(), Kind: vault.ApplyPurpose, Body: "b", Expires: ended}, Payload: []byte("p")}
	p := vault.Purpose{Name: "upkeep", Version: 1}
	r.Key = vault.KeyRevoking
	sel := vault.Selection{Site: r.Site, From: r.CapturedAt, Until: r.CapturedAt.Add(1000)}
	for name, c := range map[string]struct {
		damage string
		read   func(*Tx) error
	}{
		"record's ID, due":         {"UPDATE records SET id = 'x'", func(tx *Tx) error { _, err := tx.KeysDue(vault.ID{}, 9); return err }},
		"record's ID, selected":    {"UPDATE records SET id = 'x'", func(tx *Tx) error { _, err := tx.Select(sel, 9); return err }},
		"record's crossing":        {"UPDATE records SET crossing_id = 'x'", func(tx *Tx) error { _, err := tx.Record(r.ID); return err }},
		"record's request":         {"UPDATE records SET request_id = '0'", func(tx *Tx) error { _, err := tx.Record(r.ID); return err }},
		"grant's ID":               {"UPDATE grants SET id = 'x'", func(tx *Tx) error { _, err := tx.Grants("", nil, vault.ID{}, 9); return err }},
		"grant's ID, due":          {"UPDATE grants SET id = 'x', fence = 'due'", func(tx *Tx) error { _, err := tx.FencesDue(tx.Now(), 9); return err }},
		"grant's key":              {"UPDATE grants SET handle_key = x'00'", func(tx *Tx) error { _, err := tx.Grant(g.Grant); return err }},
		"decision's ID":            {"UPDATE decisions SET id = 'x'", func(tx *Tx) error { _, err := tx.OpenDecision(d.Kind, d.Body); return err }},
		"signature's certificates": {"UPDATE signatures SET chain = '{'", func(tx *Tx) error { _, err := tx.Decision(d.ID); return err }},
		"signature of a grant":     {"UPDATE signatures SET chain = '[1]'", func(tx *Tx) error { _, err := tx.Grant(g.Grant); return err }},
		"purpose":                  {"UPDATE purposes SET body = '{'", func(tx *Tx) error { _, err := tx.Purpose("upkeep"); return err }},
		"purpose, listed":          {"UPDATE purposes SET body = '7'", func(tx *Tx) error { _, err := tx.Purposes(); return err }},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Update(t.Context(), func(tx *Tx) error {
				sig := vault.Signature{Signer: "a", SignedAt: ended, Bytes: []byte{1}, Chain: [][]byte{{1}}}
				for _, err := range []error{tx.AddRecord(r), tx.AddGrant(g, vault.NewID()), tx.AddDecision(d), tx.AddPurpose(p, d.ID), tx.AddSignature(d.ID, sig), tx.AddSignature(g.Grant, sig)} {
					if err != nil {
						return err
					}
				}
				if err := c.read(tx); err != nil {
					t.Errorf("before the damage: %v", err)
				}
				if n, err := tx.changed(c.damage); err != nil || n == 0 {
					t.Errorf("damaged %d rows, %v", n, err)
				}
				wantReason(t, c.read(tx), vault.DataLoss, vault.ReasonDataLoss)
				return errRefused // nothing of it stays for the next case
			})
			if err != errRefused {
				t.Error(err)
			}
		})
	}
}
