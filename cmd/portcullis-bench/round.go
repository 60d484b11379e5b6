package main

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"
)

// load is what one client of a measurement does: operations, one after the other. It calls
// next as each ends, and returns as soon as next says no.
type load func(ctx context.Context, client int, next func() bool) error

// The parts of a round besides its counted window.
const (
	warm     = 300 * time.Millisecond // ahead of the window, so that connections stand and all clients work
	settle   = 100 * time.Millisecond // after each round, so that what it left behind does not burden the next
	overtime = 30 * time.Second       // for operations under way at the end, which are not counted
)

// play runs a load with so many clients and measures it for the window. An operation
// counts where it ends; its latency is the time since the client's last one ended, so that
// of a stream is the time between images. edge is called at both ends of the window.
func play(ctx context.Context, clients int, window time.Duration, edge func(), work load) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, warm+window+overtime)
	defer cancel()
	from := time.Now().Add(warm)
	until := from.Add(window)
	all := make([][]time.Duration, clients)
	group, ctx := errgroup.WithContext(ctx)
	for i := range clients {
		group.Go(func() error {
			last := time.Now()
			return work(ctx, i, func() bool {
				now := time.Now()
				if !now.Before(from) && now.Before(until) {
					all[i] = append(all[i], now.Sub(last))
				}
				last = now
				return now.Before(until) && ctx.Err() == nil
			})
		})
	}
	group.Go(func() error {
		for _, at := range []time.Time{from, until} {
			if err := sleep(ctx, time.Until(at)); err != nil {
				return err
			}
			edge()
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var out []time.Duration
	for _, l := range all {
		out = append(out, l...)
	}
	return out, nil
}

// repeat is the load of one call over and over.
func repeat(call func(ctx context.Context, client int) error) load {
	return func(ctx context.Context, client int, next func() bool) error {
		for {
			if err := call(ctx, client); err != nil {
				return err
			}
			if !next() {
				return ctx.Err()
			}
		}
	}
}

// errOver ends a stream whose round is over.
var errOver = errors.New("the round is over")

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
