package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/portcullis/portcullis/internal/devservice"
)

// still is a second service, with a Vault of its own, whose tree grows so seldom that a window
// fits between two steps. It is whole as the first is: only the setting audit.sign_every differs.
type still struct {
	child   *devservice.Service
	service *service
	log     *auditLog
	meter   meter
}

// beginStill starts it below a directory. When it fails, nothing is left running.
func beginStill(ctx context.Context, daemon, dir string, window time.Duration) (_ *still, err error) {
	data := filepath.Join(dir, "still")
	s := &still{}
	s.child, err = devservice.Start(ctx, daemon, data, filepath.Join(dir, "still.log"), devservice.Environ(),
		"--audit.sign_every", signEvery(window).String())
	if err != nil {
		return nil, fmt.Errorf("the second service: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("the second service: %w", err), s.stop())
		}
	}()
	s.meter = newMeter(s.child.PID())
	if s.service, err = connect(data); err != nil {
		return nil, err
	}
	if s.log, err = openLog(ctx, s.service.Store.Path); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *still) stop() (err error) {
	if s.log != nil {
		err = s.log.close()
	}
	if s.service != nil {
		s.service.close()
	}
	return errors.Join(err, s.child.Stop())
}

// explain adds the end of the daemon's log.
func (s *still) explain(err error) error {
	if tail := s.child.Tail(); tail != "" {
		return fmt.Errorf("%w\nthe end of the second daemon's log:\n%s", err, tail)
	}
	return err
}

// round measures a load once, in a window in which the tree does not grow. It returns when the
// tree has what the load left, so that this does not burden the next.
func (s *still) round(ctx context.Context, clients int, window time.Duration, work load) (result, error) {
	once := func(ctx context.Context) error { return work(ctx, 0, func() bool { return false }) }
	for range tries {
		began, err := s.log.afterStep(ctx, once)
		if err != nil {
			return result{}, err
		}
		var edges []usage
		var ended int64
		var lookErr error
		latencies, err := play(ctx, clients, window, func() {
			edges = append(edges, s.meter.read())
			_, ended, lookErr = s.log.sizes(ctx)
		}, work)
		if err := errors.Join(err, lookErr); err != nil {
			return result{}, err
		}
		if err := s.log.whole(ctx); err != nil {
			return result{}, err
		}
		if ended == began {
			return summarize(latencies, window, edges[1].minus(edges[0]))
		}
	}
	return result{}, fmt.Errorf("the log's tree grew within each of %d windows, which were to end before: give it fewer -clients or a quieter machine", tries)
}
