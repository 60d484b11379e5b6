package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/portcullis/portcullis/internal/devservice"
)

// run is one run of the benchmark.
type run struct {
	options
	began   time.Time
	say     io.Writer // progress
	service *service
	meter   meter
	still   *still
	probe   *probe
	images  [][][]byte // by size
	stored  []atomic.Int64
	days    []time.Time // by size

	rows     []row
	logCosts []row // fetch with the log by fetch without it, as of raw
	logSize  int   // events that are exported
	logBytes int64 // of an export
}

// bench makes a run and prints what came of it. It leaves nothing behind: no process and
// no directory.
func bench(ctx context.Context, o options, out, progress io.Writer) (err error) {
	if o.json != "" {
		if info, err := os.Stat(filepath.Dir(o.json)); err != nil || !info.IsDir() {
			return fmt.Errorf("BENCH_JSON: %s is not in a directory", o.json)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	daemon := filepath.Join(filepath.Dir(self), "portcullisd")
	if _, err := os.Stat(daemon); err != nil {
		return fmt.Errorf("%w: make bench builds what is needed", err)
	}
	r := &run{
		options: o, began: time.Now(), say: progress,
		stored: make([]atomic.Int64, len(o.sizes)), images: make([][][]byte, len(o.sizes)),
	}
	facts := machine(ctx)
	for i, size := range o.sizes {
		if r.images[i], err = drawNoise(size); err != nil {
			return err
		}
		r.days = append(r.days, day(r.began, i))
	}
	dir, err := os.MkdirTemp(o.dir, "portcullis-bench-") // mode 0700
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove(dir)) }()
	fmt.Fprintln(progress, "starting Vault and portcullisd, twice")
	c, err := devservice.Start(ctx, daemon, filepath.Join(dir, "service"), filepath.Join(dir, "portcullisd.log"), devservice.Environ())
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && ctx.Err() == nil {
			if tail := c.Tail(); tail != "" {
				err = fmt.Errorf("%w\nthe end of the daemon's log:\n%s", err, tail)
			}
		}
		err = errors.Join(err, c.Stop())
	}()
	r.meter = newMeter(c.PID())
	if r.service, err = connect(filepath.Join(dir, "service")); err != nil {
		return err
	}
	defer r.service.close()
	if r.probe, err = newProbe(ctx, filepath.Join(dir, "probe")); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.probe.close()) }()
	log, err := openLog(ctx, r.service.Store.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.close()) }()
	if r.still, err = beginStill(ctx, daemon, dir, r.window); err != nil {
		return err
	}
	err = r.measure(ctx)
	if err != nil && ctx.Err() == nil {
		err = r.still.explain(err)
	}
	if err := errors.Join(err, r.still.stop()); err != nil { // it has no part in what follows
		return err
	}
	if err := r.measureLog(ctx, log, dir); err != nil {
		return err
	}
	if err := r.report(out, facts); err != nil {
		return err
	}
	if o.json != "" {
		return writeJSON(o.json, r.rows)
	}
	return nil
}

// remove removes the directory. A Vault whose daemon was killed may take a moment to be gone,
// and write to it meanwhile.
func remove(dir string) (err error) {
	for range 20 {
		if err = os.RemoveAll(dir); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

// measure plays all loads. Raw and service take turns, so that what else the machine does
// meanwhile burdens both.
func (r *run) measure(ctx context.Context) error {
	for n, size := range r.sizes {
		at := r.days[n]
		for _, clients := range r.clients {
			err := r.turns(ctx, clients, size, func() error { return r.probe.run(ctx, clients, r.images[n][0], size, at) },
				side{name: "raw_vault_wrap", work: r.service.wrapRaw(at)},
				side{name: "store", work: r.service.storeImages(r.images[n], at, &r.stored[n])})
			if err != nil {
				return err
			}
		}
	}
	pool := max(64, 8*r.clients[len(r.clients)-1])
	handles, err := r.stock(ctx, r.service, r.stored, pool)
	if err != nil {
		return err
	}
	stillHandles, err := r.stock(ctx, r.still.service, make([]atomic.Int64, len(r.sizes)), pool)
	if err != nil {
		return fmt.Errorf("the second service: %w", err)
	}
	for n, size := range r.sizes {
		records, err := r.service.wrappedKeys(ctx, r.days[n], pool)
		if err != nil {
			return err
		}
		for _, clients := range r.clients {
			err := r.turns(ctx, clients, size, func() error { return nil },
				side{name: "raw_vault_unwrap", work: r.service.unwrapRaw(records, clients)},
				side{name: "fetch", work: r.service.fetchImages(handles[n], clients, size)},
				side{name: "fetch_without_log", work: r.still.service.fetchImages(stillHandles[n], clients, size), still: r.still})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// stock stores what is missing of so many images of each size at a service, and gives the handles of so
// many under a grant, by size.
func (r *run) stock(ctx context.Context, at *service, stored []atomic.Int64, pool int) ([][]string, error) {
	if err := r.fill(ctx, at, stored, pool); err != nil {
		return nil, fmt.Errorf("store images to fetch: %w", err)
	}
	if err := at.permit(ctx, r.days[len(r.days)-1], r.days[0], int64(pool*len(r.sizes))); err != nil {
		return nil, err
	}
	return at.handles(ctx, r.days, pool)
}

func (r *run) fill(ctx context.Context, at *service, stored []atomic.Int64, pool int) error {
	const atOnce = 16
	for n := range r.sizes {
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(atOnce)
		store := at.storeImages(r.images[n], r.days[n], &stored[n])
		for i := range pool - int(stored[n].Load()) {
			group.Go(func() error {
				return store(ctx, i, func() bool { return false })
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// side is one of the loads that are measured by turns.
type side struct {
	name  string
	work  load
	still *still // where it is measured without the log; nil for the first service
}

// turns measures loads by turns and adds their rows. The first is the raw one. Of three, the last
// is the second without the log.
func (r *run) turns(ctx context.Context, clients, size int, between func() error, sides ...side) error {
	rounds := make([][]result, len(sides))
	var names []string
	for _, s := range sides {
		names = append(names, s.name)
	}
	fmt.Fprintf(r.say, "%3.0f s: %s by turns, clients: %d, %d KiB\n", time.Since(r.began).Seconds(), strings.Join(names, " and "), clients, size>>10)
	for n := range r.rounds {
		for i := range sides {
			if n%2 == 1 { // the other way round, so that none is always the one that follows another
				i = len(sides) - 1 - i
			}
			got, err := r.round(ctx, clients, sides[i])
			if err != nil {
				return fmt.Errorf("%s, %d at once: %w", sides[i].name, clients, err)
			}
			rounds[i] = append(rounds[i], got)
			if err := sleep(ctx, settle); err != nil {
				return err
			}
		}
		if err := between(); err != nil {
			return fmt.Errorf("probe: %w", err)
		}
	}
	for i := 1; i < len(sides); i++ {
		a, b := pair(sides[0].name, sides[i].name, clients, size, rounds[0], rounds[i])
		if i == 1 {
			r.rows = append(r.rows, a)
		}
		r.rows = append(r.rows, b)
	}
	if len(sides) == 3 {
		_, cost := pair(sides[2].name, sides[1].name, clients, size, rounds[2], rounds[1])
		r.logCosts = append(r.logCosts, cost)
	}
	return nil
}

// round measures one load once.
func (r *run) round(ctx context.Context, clients int, s side) (result, error) {
	if s.still != nil {
		return s.still.round(ctx, clients, min(r.window, mostStill), s.work)
	}
	var edges []usage
	latencies, err := play(ctx, clients, r.window, func() { edges = append(edges, r.meter.read()) }, s.work)
	if err != nil {
		return result{}, err
	}
	return summarize(latencies, r.window, edges[1].minus(edges[0]))
}
