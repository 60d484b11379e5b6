package store

import (
	"database/sql"
	"io/fs"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/portcullis/portcullis/vault"
)

// TestUpgradeToLaw: a database of schema 12, with grants and releases. Contractors are groups of
// their own, what left before counts as opened without linkage, and grants keep all they had.
func TestUpgradeToLaw(t *testing.T) {
	path, db := earlier(t, 12)
	r, g := someRecord(), someGrant(vault.GrantActive)
	g.MaxBytes, g.Released = 0, 1
	for _, do := range []struct {
		query string
		args  []any
	}{
		{"INSERT INTO contractors (name, title, suspended, epoch, disabled_epoch, decision_id) VALUES ('acme', 'Acme', 0, 1, 0, 'd')", nil},
		{`INSERT INTO records (id, site, lane, modality, captured_at, crossing_id, content_type, orientation, size, device, request_id, stored_at,
			wrapped_key, sealed_hash, key_state) VALUES ($1, $2, 'l', $3, $4, '', 'image/png', 1, 5, 'd', $5, 1, 'w', x'00', 'active')`,
			[]any{r.ID.String(), r.Site, string(r.Modality), micros(r.CapturedAt), vault.NewID().String()}},
		{`INSERT INTO grants (id, state, contractor, purpose, purpose_version, purpose_digest, grantee, epoch, sites, modalities, captured_from, captured_until,
			max_records, ends, approvals, justification, requested_at, request_id, released, handle_key, token_digest, accessor, fence)
			VALUES ($1, 'active', 'acme', $2, $3, $4, $5, 1, 'north,south', 'face,plate', $6, $7, 20, $8, 2, $9, $10, 'r', 1, $11, x'', '', 'written')`,
			[]any{g.Grant.String(), g.Purpose.Name, g.Purpose.Version, g.Purpose.Digest[:], g.Grantee, micros(g.Scope.From), micros(g.Scope.Until), micros(g.Ends), g.Justification, micros(g.RequestedAt), g.HandleKey[:]}},
		{"INSERT INTO released (grant_id, record_id) VALUES ($1, $2), ($1, $3)", []any{g.Grant.String(), r.ID.String(), vault.NewID().String()}},
	} {
		if _, err := db.ExecContext(t.Context(), do.query, do.args...); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s := openFile(t, path, newClock())
	if got := grantOf(t, s, g.Grant); !reflect.DeepEqual(got, g) {
		t.Errorf("%+v\nreads back as\n%+v", g, got)
	}
	if n := view(t, s, func(tx *Tx) (int64, error) { return tx.UsesLeft(g.Grant) }); n != -1 {
		t.Errorf("%d uses left", n)
	}
	if got := view(t, s, func(tx *Tx) (vault.Contractor, error) { return tx.Contractor("acme") }); got.Group != "acme" {
		t.Errorf("%+v", got)
	}
	day := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	claims := view(t, s, func(tx *Tx) ([]vault.Claim, error) { return tx.OpenedWithin([]string{"acme"}, g.Scope, g.Ends) })
	want := vault.Claim{Contractor: "acme", Purpose: "upkeep", Sites: []string{"north"}, Modalities: []vault.Modality{vault.Face}, From: day, Until: day.AddDate(0, 0, 1)}
	if !reflect.DeepEqual(claims, []vault.Claim{want}) {
		t.Errorf("opened: %+v", claims)
	}
}

// earlier makes a database of an earlier schema.
func earlier(t *testing.T, schema int64) (path string, db *sql.DB) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "p.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	to, err := goose.NewProvider(goose.DialectSQLite3, db, dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := to.UpTo(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	return path, db
}
