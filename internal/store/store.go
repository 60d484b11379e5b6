// Package store keeps the facts and the log in SQL, in SQLite.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite" // and the driver "sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/portcullis/portcullis/vault"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	// maxBatch is the most operations that share one transaction.
	maxBatch = 256
	// queued is how many operations wait for a transaction before callers block.
	queued = 1024
	// readers, glances and scans are how many reads of each kind run at once, on connections of
	// their own: none waits for another kind.
	readers, glances, scans = 8, 4, 3
)

// Store keeps facts and log in one SQLite database. Its methods may be called at once from
// many goroutines, and several processes may open the same file.
type Store struct {
	write *sql.DB
	reads [scanning + 1]*sql.DB
	clock func() time.Time
	ops   chan *op
	quit  chan struct{}
	done  sync.WaitGroup
	once  sync.Once

	observe atomic.Pointer[func(operations int, took time.Duration)]
}

// The kinds of reads.
const (
	viewing = iota
	glancing
	scanning
)

// op is one caller's part of a transaction.
type op struct {
	ctx  context.Context
	fn   func(*Tx) error
	last int64
	err  error
	done chan struct{}
}

// Open opens the database at path, makes it if it is absent, and brings its schema up to
// date. clock gives the time of each transaction.
func Open(ctx context.Context, path string, clock func() time.Time) (*Store, error) {
	return openAt(ctx, path, clock, syncDir)
}

func openAt(ctx context.Context, path string, clock func() time.Time, syncDir func(string) error) (*Store, error) {
	// Made here, so that nobody else may read it; SQLite gives its other files the same mode. One
	// that is there is not opened: closing it would drop the locks that this process holds on it.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("open database: %w", err)
	}
	write, err := sql.Open("sqlite", dsn(path, "rw", "immediate"))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	write.SetMaxOpenConns(1)
	if err := migrate(ctx, write); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), write.Close())
	}
	// SQLite syncs the directory, too, but says nothing when that fails; and then a power cut
	// can take away the files' names, with all that was acknowledged.
	if err := syncDir(filepath.Dir(path)); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), write.Close())
	}
	s := &Store{write: write, clock: clock, ops: make(chan *op, queued), quit: make(chan struct{})}
	for kind, most := range [...]int{viewing: readers, glancing: glances, scanning: scans} {
		read, err := sql.Open("sqlite", dsn(path, "ro", "deferred"))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), s.closeReads(), write.Close())
		}
		read.SetMaxOpenConns(most)
		read.SetMaxIdleConns(most)
		s.reads[kind] = read
	}
	s.done.Go(s.commit)
	return s, nil
}

// dsn names the file with what durability needs: a write-ahead log that is synced at each
// commit (FULL), so that what was acknowledged survives a power cut.
func dsn(path, mode, lock string) string {
	q := url.Values{"mode": {mode}, "_txlock": {lock}, "_pragma": {
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)", "secure_delete(1)",
	}}
	if mode == "ro" {
		q["_pragma"] = []string{"busy_timeout(10000)", "query_only(1)"}
	}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String()
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func migrate(ctx context.Context, db *sql.DB) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir)
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// Close waits for transactions under way and closes the database.
func (s *Store) Close() error {
	s.once.Do(func() { close(s.quit) })
	s.done.Wait()
	return errors.Join(s.closeReads(), s.write.Close())
}

func (s *Store) closeReads() (err error) {
	for _, read := range s.reads {
		if read != nil {
			err = errors.Join(err, read.Close())
		}
	}
	return err
}

// errClosed is what callers hear while the store closes.
func errClosed() error {
	return vault.E(vault.Unavailable, vault.ReasonShuttingDown, "the service is stopping; try again")
}

// Update runs fn in one transaction and gives the log index of the last event that fn
// appended, -1 if none. On return without error, what fn wrote is durable. Operations that
// come at once share a transaction, each behind a savepoint of its own: an error of fn undoes
// fn's writes alone. fn may run more than once, and must not call the store.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error) (last int64, err error) {
	o := &op{ctx: ctx, fn: fn, done: make(chan struct{})}
	select {
	case s.ops <- o:
	case <-s.quit:
		return -1, errClosed()
	case <-ctx.Done():
		return -1, ctx.Err()
	}
	select {
	case <-o.done: // not ctx: whether it is committed must be known
		return o.last, o.err
	case <-s.quit:
	}
	s.done.Wait()
	select {
	case <-o.done:
		return o.last, o.err
	default:
		return -1, errClosed()
	}
}

// View runs fn on one consistent state of the database. It can not write.
func (s *Store) View(ctx context.Context, fn func(*Tx) error) error { return s.look(ctx, viewing, fn) }

// Glance is View for what all the rest hangs on and what takes well under a millisecond: who
// may call, leases, endings, health. It waits for no View and no Scan.
func (s *Store) Glance(ctx context.Context, fn func(*Tx) error) error {
	return s.look(ctx, glancing, fn)
}

// Scan is View for what reads a row for each record of a scope: about a second for a million.
// Few run at once; the others wait, as long as their contexts let them.
func (s *Store) Scan(ctx context.Context, fn func(*Tx) error) error {
	return s.look(ctx, scanning, fn)
}

func (s *Store) look(ctx context.Context, kind int, fn func(*Tx) error) error {
	tx, err := s.reads[kind].BeginTx(ctx, nil)
	if err != nil {
		return away(err)
	}
	defer tx.Rollback()
	return fn(&Tx{ctx: ctx, sql: tx, now: vault.Micro(s.clock())})
}

// Observe lets fn hear of each transaction that writes: how many operations shared it and how
// long it took. fn must not block, for the operations wait for it.
func (s *Store) Observe(fn func(operations int, took time.Duration)) { s.observe.Store(&fn) }

// commit is the one writer: it takes what operations are waiting and commits them together.
func (s *Store) commit() {
	for {
		var batch []*op
		select {
		case <-s.quit:
			return
		case o := <-s.ops:
			batch = append(batch, o)
		}
		for more := true; more && len(batch) < maxBatch; {
			select {
			case o := <-s.ops:
				batch = append(batch, o)
			default:
				more = false
			}
		}
		start := time.Now()
		if err := s.commitBatch(batch); err != nil {
			for _, o := range batch {
				o.last, o.err = -1, away(err)
			}
		}
		if fn := s.observe.Load(); fn != nil {
			(*fn)(len(batch), time.Since(start))
		}
		for _, o := range batch {
			close(o.done)
		}
	}
}

// commitBatch runs the operations in one transaction. An error is of the transaction: none
// of the operations holds.
func (s *Store) commitBatch(batch []*op) error {
	ctx := context.Background() // a caller that leaves must not undo the others' writes
	sqlTx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer sqlTx.Rollback()
	tx := &Tx{ctx: ctx, sql: sqlTx, now: vault.Micro(s.clock()), writable: true}
	var events []entry
	lasts := make([]int, len(batch)) // position behind the operation's last event, 0 if it has none
	for i, o := range batch {
		o.last, o.err = -1, o.ctx.Err()
		if o.err != nil {
			continue
		}
		tx.events, tx.before = nil, len(events)
		if err := tx.exec("SAVEPOINT op"); err != nil {
			return err
		}
		if o.err = run(tx, o.fn); o.err != nil {
			if err := tx.exec("ROLLBACK TO op"); err != nil {
				return err
			}
		} else if len(tx.events) > 0 {
			events = append(events, tx.events...)
			lasts[i] = len(events)
			tx.moved = tx.moved || movesKeys(tx.events)
		}
		if err := tx.exec("RELEASE op"); err != nil {
			return err
		}
	}
	first, err := tx.flush(events)
	if err != nil {
		return err
	}
	if err := sqlTx.Commit(); err != nil {
		return err
	}
	for i, o := range batch {
		if lasts[i] > 0 {
			o.last = first + int64(lasts[i]) - 1
		}
	}
	return nil
}

// run turns a panic of one operation into its error, so that it does not take the writer down.
// The panic's value may hold a secret, so the error tells its type alone.
func run(tx *Tx, fn func(*Tx) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = vault.E(vault.Internal, vault.ReasonInternal, "internal error").Because(fmt.Errorf("panic in a transaction: %T", r))
		}
	}()
	return fn(tx)
}

// ours are results of SQLite that a statement of ours brings about each time: asking again is of
// no use. They are primary result codes; see https://www.sqlite.org/rescode.html.
var ours = map[int]bool{
	sqlite3.SQLITE_CONSTRAINT: true, sqlite3.SQLITE_MISMATCH: true, sqlite3.SQLITE_MISUSE: true,
	sqlite3.SQLITE_RANGE: true, sqlite3.SQLITE_TOOBIG: true,
}

// away wraps a database failure: a database that may answer another time, or a bug of ours.
// Errors of the domain and of a context pass as they are.
func away(err error) error {
	var known *vault.Error
	if err == nil || errors.As(err, &known) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var failed *sqlite.Error
	if errors.As(err, &failed) && ours[failed.Code()&0xff] {
		return vault.E(vault.Internal, vault.ReasonInternal, "internal error").Because(err)
	}
	return vault.E(vault.Unavailable, vault.ReasonStoreUnavailable, "the database does not answer; try again").Because(err)
}
