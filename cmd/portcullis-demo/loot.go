package main

import (
	"bytes"
	"compress/flate"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// loot is what a thief of the service's disk carries off: its database and its ciphertext.
type loot struct {
	records []stolen
	bytes   int64 // of ciphertext
	packed  int64 // the same, compressed
}

// stolen is one record of the stolen database.
type stolen struct {
	id, modality, key, wrapped string
	sealed                     []byte
}

// steal copies database and ciphertext from dir to a folder of the thief's, and reads them
// there. Whoever copies the files of a live database takes its log along.
func steal(ctx context.Context, dir, to string) (l loot, err error) {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return l, err
	}
	for _, name := range []string{"facts.db", "facts.db-wal", "facts.db-shm"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) && name != "facts.db" {
			continue
		}
		if err != nil {
			return l, err
		}
		if err := os.WriteFile(filepath.Join(to, name), b, 0o600); err != nil {
			return l, err
		}
	}
	sealed, err := blobs(filepath.Join(dir, "blobs"))
	if err != nil {
		return l, err
	}
	db, err := openFacts(filepath.Join(to, "facts.db"))
	if err != nil {
		return l, err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, "SELECT id, site, modality, captured_at, wrapped_key FROM records ORDER BY id")
	if err != nil {
		return l, fmt.Errorf("the stolen database: %w", err)
	}
	defer rows.Close()
	var pack bytes.Buffer
	squeeze, err := flate.NewWriter(&pack, flate.BestCompression)
	if err != nil {
		return l, err
	}
	for rows.Next() {
		var r stolen
		var site string
		var captured int64 // microseconds
		if err := rows.Scan(&r.id, &site, &r.modality, &captured, &r.wrapped); err != nil {
			return l, fmt.Errorf("the stolen database: %w", err)
		}
		r.key = fmt.Sprintf("%s.%s.%s.%s", site, r.modality, time.UnixMicro(captured).UTC().Format("20060102"), r.id)
		if r.sealed = sealed[r.id]; len(r.sealed) == 0 {
			return l, fmt.Errorf("no ciphertext of record %s", r.id)
		}
		if _, err := squeeze.Write(r.sealed); err != nil {
			return l, err
		}
		l.bytes += int64(len(r.sealed))
		l.records = append(l.records, r)
	}
	err = errors.Join(rows.Err(), squeeze.Close())
	l.packed = int64(pack.Len())
	return l, err
}

// blobs reads all ciphertext below dir, by the record IDs that end the files' names.
func blobs(dir string) (map[string][]byte, error) {
	const idLength = 36
	out := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name := strings.TrimSuffix(d.Name(), filepath.Ext(d.Name()))
		if len(name) < idLength {
			return nil
		}
		b, err := os.ReadFile(path)
		out[name[len(name)-idLength:]] = b
		return err
	})
	return out, err
}

// of gives the first stolen record of a modality.
func (l loot) of(modality string) (stolen, error) {
	for _, r := range l.records {
		if r.modality == modality {
			return r, nil
		}
	}
	return stolen{}, fmt.Errorf("the stolen database has no %s", modality)
}

// openFacts opens a database of facts, as a thief or a forger would.
func openFacts(path string) (*sql.DB, error) {
	q := url.Values{"_pragma": {"busy_timeout(10000)"}, "_txlock": {"immediate"}, "mode": {"rw"}}
	return sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String())
}

// column is one column of a row, and what it holds.
type column struct {
	name  string
	value any
}

// forge changes columns of a grant in the live database, past the service, and gives what
// they held before.
func forge(ctx context.Context, path, grant string, columns []column) (before []column, err error) {
	db, err := openFacts(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("forge a grant: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // changes nothing after the commit
	for _, c := range columns {
		// The columns' names are ones that this program's own story wrote.
		old := column{name: c.name}
		if err := tx.QueryRowContext(ctx, "SELECT "+c.name+" FROM grants WHERE id = $1", grant).Scan(&old.value); err != nil {
			return nil, fmt.Errorf("forge %s of a grant: %w", c.name, err)
		}
		if _, err := tx.ExecContext(ctx, "UPDATE grants SET "+c.name+" = $1 WHERE id = $2", c.value, grant); err != nil {
			return nil, fmt.Errorf("forge %s of a grant: %w", c.name, err)
		}
		before = append(before, old)
	}
	return before, tx.Commit()
}
