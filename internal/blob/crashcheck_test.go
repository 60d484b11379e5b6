//go:build linux

package blob

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/portcullis/portcullis/internal/envelope"
	"github.com/portcullis/portcullis/internal/store"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
)

// TestPowerCuts cuts the power at seeded points while images are stored. Each image that was
// acknowledged reads back; of the others each is whole or gone; no record is without its
// event or the other way round; what is left over goes with a reconcile.
func TestPowerCuts(t *testing.T) {
	begun := time.Now()
	y := tell(t, 1, 3, 4, sloth{})
	told := time.Since(begun)
	c, err := y.cutAll(t, 1, points(t))
	t.Logf("%s; a trace of %d changes in %s, crashes in %s", c, y.trace.Len(), told.Round(time.Millisecond), (time.Since(begun) - told).Round(time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	if c.acked == 0 || c.whole == 0 || c.gone == 0 || c.orphans == 0 {
		t.Error("something of it never came to pass")
	}
}

// TestPowerCutsFindLosses: the crashes show it when syncs are left out.
func TestPowerCutsFindLosses(t *testing.T) {
	for name, lazy := range map[string]sloth{
		"ciphertext is not synced": {blobs: true}, "folders are not synced": {folders: true}, "the database is not synced": {database: true},
	} {
		y := tell(t, 2, 1, 4, lazy)
		c, err := y.cutAll(t, 2, 200)
		if !errors.Is(err, errLost) {
			t.Errorf("%s: nothing was lost at %d points, %v", name, c.points, err)
		}
		t.Logf("%s: after %d points %v", name, c.points, err)
	}
}

// What is slow is not done after each crash, but after each of so many.
const (
	reconciles = 10 // a reconcile
	intacts    = 5  // SQLite's own check
)

var errLost = errors.New("an acknowledged image is lost")

// check looks at what a crash left: database, log, ciphertext and what belongs together.
func (y *story) check(t *testing.T, f found, point int, rng *rand.Rand, c *tally) error {
	if c.points%intacts == 0 {
		if err := intact(f.path); err != nil {
			return err
		}
	}
	records, err := recorded(f.store)
	if err != nil {
		return err
	}
	known := map[vault.ID]bool{}
	for _, sh := range y.shots {
		rec, there := records[sh.in.RequestID]
		if !there {
			if sh.acked >= 0 && sh.acked <= point {
				return fmt.Errorf("%w: no record %s", errLost, sh.rec.ID)
			}
			if sh.begun <= point {
				c.gone++
			}
			continue
		}
		image, err := f.dir.Get(t.Context(), rec.ID)
		if err == nil {
			image, err = envelope.Open(rec, y.dek(rec), image)
		}
		if err != nil || !bytes.Equal(image, sh.clean) {
			return fmt.Errorf("%w: record %s: %d bytes, %w", errLost, rec.ID, len(image), err)
		}
		delete(records, sh.in.RequestID)
		known[rec.ID] = true
		if sh.acked >= 0 && sh.acked <= point {
			c.acked++
		} else {
			c.whole++
		}
	}
	if len(records) > 0 {
		return fmt.Errorf("%d records that nobody stored", len(records))
	}
	if c.points%reconciles == 0 {
		if err := y.reconcile(t, f, point, known, c); err != nil {
			return err
		}
		c.reconciled++
	}
	return y.goesOn(t, f, rng)
}

// intact asks SQLite whether the database is.
func intact(path string) error {
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	if err != nil {
		return err
	}
	defer db.Close()
	var said string
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&said); err != nil || said != "ok" {
		return fmt.Errorf("%w: the database is damaged: %s, %w", errLost, said, err)
	}
	return nil
}

// recorded gives the records by their requests, once each has proved to have its event, and
// each event its record.
func recorded(s *store.Store) (map[vault.ID]vault.Record, error) {
	ctx := context.Background()
	var rows []vault.Record
	var entries []store.Entry
	var size int64
	err := s.View(ctx, func(tx *store.Tx) (err error) {
		if rows, err = tx.Records(vault.ID{}, 100_000); err != nil {
			return err
		}
		entries, size, err = tx.Events(0, 100_000, nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	facts := map[string]vault.StoredFacts{}
	for i, entry := range entries {
		e, err := vault.DecodeEvent(entry.Body)
		if err != nil || entry.Index != int64(i) || e.Stored == nil {
			return nil, fmt.Errorf("entry %d of the log, at %d: %+v, %w", i, entry.Index, e, err)
		}
		facts[e.Stored.Record] = *e.Stored
	}
	records := map[vault.ID]vault.Record{}
	for _, r := range rows {
		if facts[r.ID.String()] != *r.Facts() {
			return nil, fmt.Errorf("record %s has no event, or another", r.ID)
		}
		records[r.RequestID] = r
	}
	if len(facts) != len(rows) || int64(len(entries)) != size || len(records) != len(rows) || len(entries) != len(rows) {
		return nil, fmt.Errorf("%d records, %d requests, %d events, a log of %d", len(rows), len(records), len(entries), size)
	}
	return records, nil
}

// reconcile demands that ciphertext without a record is whole, and that the real reconcile
// leaves nothing of it.
func (y *story) reconcile(t *testing.T, f found, point int, known map[vault.ID]bool, c *tally) error {
	count := func() (blobs, orphans int, err error) {
		err = f.dir.List(t.Context(), func(id vault.ID, _ int64, _ time.Time) error {
			blobs++
			if known[id] {
				return nil
			}
			orphans++
			b, err := f.dir.Get(t.Context(), id)
			if err == nil && vault.DigestOf(b) != y.put(id) {
				err = fmt.Errorf("the ciphertext %s is in pieces", id)
			}
			return err
		})
		return blobs, orphans, err
	}
	blobs, orphans, err := count()
	if err != nil {
		return err
	}
	c.orphans += orphans
	r := &breach.Reconciler{
		Service: &breach.Service{Keys: admin{}, Log: slog.New(slog.DiscardHandler)},
		Ledger:  stock{f.store}, Keys: vaultKeys{story: y, point: point}, Blobs: f.dir, Mark: noMark{}, Grace: time.Hour,
		Vault: &marked{}, Fences: noFences{},
	}
	// The first puts aside what no record names, the second destroys it.
	if done, err := r.Reconcile(t.Context()); err != nil || done.Records != blobs-orphans || done.Quarantined < orphans || done.Returned > 0 {
		return fmt.Errorf("reconcile of %d blobs, %d without a record: %+v, %w", blobs, orphans, done, err)
	}
	if done, err := r.Reconcile(t.Context()); err != nil || done.Destroyed < orphans || done.Waiting > 0 {
		return fmt.Errorf("the second reconcile of %d orphans: %+v, %w", orphans, done, err)
	}
	rest, _, err := count()
	if err == nil {
		err = f.dir.Quarantined(t.Context(), func(vault.ID) error { rest++; return nil })
	}
	if err != nil || rest != blobs-orphans {
		return fmt.Errorf("%d blobs after the reconcile, %d records: %w", rest, blobs-orphans, err)
	}
	return nil
}

// goesOn demands that what was opened takes another image.
func (y *story) goesOn(t *testing.T, f found, rng *rand.Rand) error {
	sh := y.newShot(t, rng)
	rec, _, err := y.service(f.store, f.dir).Store(t.Context(), y.device, sh.in)
	if err != nil {
		return fmt.Errorf("the next image: %w", err)
	}
	image, err := f.dir.Get(t.Context(), rec.ID)
	if err == nil {
		image, err = envelope.Open(rec, y.dek(rec), image)
	}
	if err != nil || !bytes.Equal(image, sh.clean) {
		return fmt.Errorf("the next image does not read back: %w", err)
	}
	return nil
}

// vaultKeys are the keys that Vault had when the power was cut here.
type vaultKeys struct {
	breach.StockKeys
	story *story
	point int
}

func (v vaultKeys) Keys(context.Context) (names []string, err error) {
	v.story.mu.Lock()
	defer v.story.mu.Unlock()
	for name, k := range v.story.keys {
		if k.made <= v.point {
			names = append(names, name)
		}
	}
	return names, nil
}

func (vaultKeys) InspectKey(context.Context, string) (found, revoked bool, made time.Time, err error) {
	return true, false, time.Unix(0, 0), nil
}

// admin changes keys.
type admin struct{ breach.Keys }

func (admin) RevokeKey(context.Context, string) error  { return nil }
func (admin) DestroyKey(context.Context, string) error { return nil }

// marked is a Vault that nobody restored, without grants.
type marked struct {
	breach.StockVault
	newest, before vault.Mark
}

func (v *marked) ReadMarks(context.Context) (newest, before vault.Mark, err error) {
	return v.newest, v.before, nil
}

func (v *marked) WriteMark(_ context.Context, m vault.Mark) error {
	v.newest, v.before = m, v.newest
	return nil
}

func (*marked) EndTokens(context.Context) error { return nil }

func (*marked) Fences(context.Context) ([]vault.ID, error) { return nil, nil }

type noFences struct{}

func (noFences) Refence(context.Context, []vault.ID, map[vault.ID]bool) ([]vault.ID, error) {
	return nil, nil
}

// stock shows the reconcile its part of the store.
type stock struct{ *store.Store }

func (l stock) Update(ctx context.Context, fn func(breach.StockTx) error) (int64, error) {
	return l.Store.Update(ctx, func(t *store.Tx) error { return fn(t) })
}

func (l stock) View(ctx context.Context, fn func(breach.StockTx) error) error {
	return l.Store.View(ctx, func(t *store.Tx) error { return fn(t) })
}

// noMark remembers nothing of the log.
type noMark struct{}

func (noMark) Load() (int64, string, error) { return 0, "", nil }
func (noMark) Save(int64, string) error     { return nil }
