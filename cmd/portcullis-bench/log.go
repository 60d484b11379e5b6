package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/portcullis/portcullis/internal/store"
	"github.com/portcullis/portcullis/internal/tlog"
	"github.com/portcullis/portcullis/vault"
)

const (
	// mostStill is the longest window that is measured without the log: with what is around it,
	// it ends before the tree grows again, which is each 5 s at the most (half of audit.max_lag).
	mostStill = 4 * time.Second
	// spare is how much later than its window's end the tree may grow again: the window begins
	// a moment after the step, when its end in the database was seen.
	spare = 700 * time.Millisecond
	// glance is how often the bench looks whether the tree grew.
	glance = 10 * time.Millisecond
	// catchUp is how long the tree may take to have what was committed.
	catchUp = time.Minute
	// tries is how often a window is begun without the log until the tree stands still in it.
	tries = 5
	// logEvents is the least size of the log that is exported and verified. It is one more than
	// whole tiles have, as logs are.
	logEvents = 100_001
	// atOnce is how many events are added in one transaction.
	atOnce = 1000
)

// auditLog is the service's log, as whoever can write to its database has it.
type auditLog struct {
	db    *sql.DB
	facts *store.Store
}

func openLog(ctx context.Context, path string) (*auditLog, error) {
	facts, err := store.Open(ctx, path, time.Now) // it also brings the driver
	if err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)&_pragma=synchronous(FULL)")
	if err != nil {
		return nil, errors.Join(err, facts.Close())
	}
	return &auditLog{db, facts}, nil
}

func (l *auditLog) close() error { return errors.Join(l.db.Close(), l.facts.Close()) }

// signEvery is how often the tree of the second service grows, so that a window without the
// log fits between two steps.
func signEvery(window time.Duration) time.Duration {
	return warm + min(window, mostStill) + spare
}

// sizes gives how many events there are, and how many of them the tree has.
func (l *auditLog) sizes(ctx context.Context) (events, hashed int64, err error) {
	err = l.db.QueryRowContext(ctx, `SELECT c.next, COALESCE(t.size, 0) FROM log_counter c LEFT JOIN log_tree t ON t.one = 1`).Scan(&events, &hashed)
	return events, hashed, err
}

// afterStep waits until the tree grows, and gives its size when it has all events: from then on
// it stands still for most of signEvery. event makes the service write an event, without
// which the tree would not grow; nothing else may be at work.
func (l *auditLog) afterStep(ctx context.Context, event func(context.Context) error) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	_, before, err := l.sizes(ctx)
	if err != nil {
		return 0, fmt.Errorf("look at the log: %w", err)
	}
	if err := event(ctx); err != nil {
		return 0, err
	}
	for {
		events, hashed, err := l.sizes(ctx)
		if err != nil {
			return 0, fmt.Errorf("look at the log: %w", err)
		}
		if hashed > before && hashed == events {
			return hashed, nil
		}
		if err := sleep(ctx, glance); err != nil {
			return 0, fmt.Errorf("wait until the log's tree grows, which has %d of %d events: %w", hashed, events, err)
		}
	}
}

// whole waits until all events are in the tree.
func (l *auditLog) whole(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	for {
		events, hashed, err := l.sizes(ctx)
		if err != nil {
			return fmt.Errorf("wait for the log: %w", err)
		}
		if events == hashed {
			return nil
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("wait for the log, which has %d of %d events: %w", hashed, events, err)
		}
	}
}

// fill adds what is missing of so many events. They say nothing that the service would act on, and are
// as long as those of releases.
func (l *auditLog) fill(ctx context.Context, events int64) error {
	var size int64
	if err := l.facts.View(ctx, func(t *store.Tx) (err error) { size, err = t.Size(); return err }); err != nil {
		return err
	}
	for size < events {
		n := min(atOnce, events-size)
		_, err := l.facts.Update(ctx, func(t *store.Tx) error {
			for range n {
				e := vault.NewEvent(vault.EventCallRefused, vault.Caller{ID: "spiffe://portcullis.example/contractor/" + contractor + "/matcher", Cert: vault.DigestOf(nil)}, t.Now())
				e.Grant, e.Contractor, e.Record = vault.NewID().String(), contractor, vault.NewID().String()
				if err := t.Append(e); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("fill the log: %w", err)
		}
		size += n
	}
	return l.whole(ctx)
}

// measureLog exports the log through the service, as an auditor does, and verifies the export,
// each time anew.
func (r *run) measureLog(ctx context.Context, log *auditLog, dir string) error {
	if err := log.fill(ctx, logEvents); err != nil {
		return err
	}
	key, err := tlog.ParseKey(r.service.LogKey)
	if err != nil {
		return err
	}
	fmt.Fprintf(r.say, "%3.0f s: log_export and log_verify by turns\n", time.Since(r.began).Seconds())
	var exports, verifies []result
	for range r.rounds {
		to := filepath.Join(dir, "export")
		exported, err := r.timed(func(step func(int64, int64)) (int64, error) {
			c, err := r.service.auditor.ExportLog(ctx, to, step)
			return c.Size, err
		})
		if err != nil {
			return fmt.Errorf("log_export: %w", err)
		}
		verified, err := r.timed(func(step func(int64, int64)) (int64, error) {
			got, err := tlog.Dir(to).Verify(ctx, key, nil, step)
			if err == nil && len(got.Findings) > 0 {
				err = fmt.Errorf("the export is damaged: %s", got.Findings[0])
			}
			return got.Checkpoint.Size, err
		})
		if err != nil {
			return fmt.Errorf("log_verify: %w", err)
		}
		if r.logBytes == 0 {
			if r.logBytes, err = sizeOf(to); err != nil {
				return err
			}
		}
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		exports, verifies = append(exports, exported), append(verifies, verified)
	}
	r.logSize = exports[len(exports)-1].done
	r.rows = append(r.rows, rowOf("log_export", 1, 0, exports), rowOf("log_verify", 1, 0, verifies))
	return nil
}

// timed measures one pass over the log: its rate in events a second, and the latencies of its
// steps, each of which is a bundle of 256 events.
func (r *run) timed(pass func(step func(done, all int64)) (int64, error)) (result, error) {
	var steps []time.Duration
	before, began := r.meter.read(), time.Now()
	last := began
	events, err := pass(func(int64, int64) {
		now := time.Now()
		steps = append(steps, now.Sub(last))
		last = now
	})
	took := time.Since(began)
	if err != nil {
		return result{}, err
	}
	if len(steps) == 0 {
		return result{}, errors.New("the log is empty")
	}
	slices.Sort(steps)
	return result{
		rate: float64(events) / took.Seconds(), p50: quantile(steps, 0.50), p99: quantile(steps, 0.99),
		done: int(events), cost: r.meter.read().minus(before),
	}, nil
}

// sizeOf sums the files below a directory, in bytes.
func sizeOf(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}
