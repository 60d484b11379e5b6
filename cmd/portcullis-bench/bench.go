package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	probe   *probe
	images  [][][]byte // by size
	stored  []atomic.Int64
	days    []time.Time // by size

	rows []row
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
	fmt.Fprintln(progress, "starting Vault and portcullisd")
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
	if err := r.measure(ctx); err != nil {
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
			err := r.turns(ctx, "raw_vault_wrap", "store", clients, size,
				r.service.wrapRaw(at), r.service.storeImages(r.images[n], at, &r.stored[n]),
				func() error { return r.probe.run(ctx, clients, r.images[n][0], size, at) })
			if err != nil {
				return err
			}
		}
	}
	pool := max(64, 8*r.clients[len(r.clients)-1])
	if err := r.fill(ctx, pool); err != nil {
		return fmt.Errorf("store images to fetch: %w", err)
	}
	if err := r.service.permit(ctx, r.days[len(r.days)-1], r.days[0], int64(pool*len(r.sizes))); err != nil {
		return err
	}
	handles, err := r.service.handles(ctx, r.days, pool)
	if err != nil {
		return err
	}
	for n, size := range r.sizes {
		records, err := r.service.wrappedKeys(ctx, r.days[n], pool)
		if err != nil {
			return err
		}
		for _, clients := range r.clients {
			err := r.turns(ctx, "raw_vault_unwrap", "fetch", clients, size,
				r.service.unwrapRaw(records, clients), r.service.fetchImages(handles[n], clients, size),
				func() error { return nil })
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// fill stores what is missing of so many images of each size.
func (r *run) fill(ctx context.Context, pool int) error {
	const atOnce = 16
	for n := range r.sizes {
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(atOnce)
		store := r.service.storeImages(r.images[n], r.days[n], &r.stored[n])
		for i := range pool - int(r.stored[n].Load()) {
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

// turns measures a raw and a service load by turns and adds their rows.
func (r *run) turns(ctx context.Context, rawName, name string, clients, size int, raw, service load, between func() error) error {
	var rawRounds, rounds []result
	fmt.Fprintf(r.say, "%3.0f s: %s and %s by turns, clients: %d, %d KiB\n",
		time.Since(r.began).Seconds(), rawName, name, clients, size>>10)
	for range r.rounds {
		for _, side := range []struct {
			name string
			work load
			into *[]result
		}{{rawName, raw, &rawRounds}, {name, service, &rounds}} {
			var edges []usage
			latencies, err := play(ctx, clients, r.window, func() { edges = append(edges, r.meter.read()) }, side.work)
			if err != nil {
				return fmt.Errorf("%s, %d at once: %w", side.name, clients, err)
			}
			got, err := summarize(latencies, r.window, edges[1].minus(edges[0]))
			if err != nil {
				return fmt.Errorf("%s, %d at once: %w", side.name, clients, err)
			}
			*side.into = append(*side.into, got)
			if err := sleep(ctx, settle); err != nil {
				return err
			}
		}
		if err := between(); err != nil {
			return fmt.Errorf("probe: %w", err)
		}
	}
	a, b := pair(rawName, name, clients, size, rawRounds, rounds)
	r.rows = append(r.rows, a, b)
	return nil
}
