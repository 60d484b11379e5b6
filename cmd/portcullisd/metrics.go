package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	tracesdk "go.opentelemetry.io/otel/sdk/trace"

	"github.com/portcullis/portcullis/internal/server"
	"github.com/portcullis/portcullis/internal/store"
	"github.com/portcullis/portcullis/internal/telemetry"
	"github.com/portcullis/portcullis/vault"
)

// seams are where tests look in, and where they break things.
type seams struct {
	spans tracesdk.SpanExporter
	api   func(*server.Config)
	clock func() time.Time // of the facts; it may be ahead of the machine's
}

// facts is the clock that facts and their times go by.
func (s *seams) facts() func() time.Time {
	if s == nil || s.clock == nil {
		return time.Now
	}
	return s.clock
}

// measuring is what the daemon measures, and the page that shows it.
type measuring struct {
	*telemetry.Telemetry
	lis    net.Listener // nil if there is no page
	page   *http.Server
	served chan error
}

// measure puts instruments around the parts of the API, and serves the page if one is wanted.
func measure(ctx context.Context, cfg config, log *slog.Logger, api *server.Config, st *store.Store) (*measuring, error) {
	tc := telemetry.Config{
		Version: version(), Log: log,
		OTLP: os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != "",
	}
	if cfg.seams != nil {
		tc.Spans = cfg.seams.spans
	}
	t, err := telemetry.New(ctx, tc)
	if err != nil {
		return nil, err
	}
	m := &measuring{Telemetry: t, served: make(chan error, 1)}
	m.instrument(api)
	st.Observe(t.Committed)
	if cfg.seams != nil && cfg.seams.api != nil {
		cfg.seams.api(api)
	}
	if cfg.Metrics.Listen == "" {
		return m, nil
	}
	if m.lis, err = net.Listen("tcp", cfg.Metrics.Listen); err != nil {
		return nil, errors.Join(fmt.Errorf("metrics.listen: %w", err), t.Close(ctx))
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", t.Handler())
	m.page = &http.Server{
		Handler: mux, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn), MaxHeaderBytes: 16 << 10,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute,
	}
	go func() { m.served <- m.page.Serve(m.lis) }()
	return m, nil
}

// instrument decorates what this process has of the operations.
func (m *measuring) instrument(api *server.Config) {
	t := m.Telemetry
	api.Measures = server.Measures{Calls: t.Calls(), Ended: t.Ended}
	if c := api.Capture; c != nil {
		c.Keys, c.Ledger = t.CaptureKeys(c.Keys), t.CaptureLedger(c.Ledger)
	}
	if r := api.Release; r != nil {
		r.Keys, r.Gate, r.Barrier = t.ReleaseKeys(r.Keys), t.ReleaseGate(r.Gate), t.Barriers(r.Barrier)
	}
	if g := api.Grants; g != nil {
		g.Gate = t.Barriers(g.Gate)
		if g.Fences != nil {
			g.Fences = t.Fences(g.Fences)
		}
		if g.Tokens != nil {
			g.Tokens = t.Tokens(g.Tokens)
		}
	}
	if b := api.Breach; b != nil {
		b.Keys, b.Gate = t.BreachKeys(b.Keys), t.Barriers(b.Gate)
	}
}

// Close ends the page and sends the traces that wait. The page goes last, so that it shows
// the drain.
func (m *measuring) Close() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if m.page != nil {
		err = m.page.Shutdown(ctx)
		if served := <-m.served; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
	}
	return errors.Join(err, m.Telemetry.Close(ctx))
}

// mostOwed is how far debts are counted: more is no better news.
const mostOwed = 1000

// owed counts what Vault is still to be given.
func (d *daemon) owed(ctx context.Context) error {
	return d.store.View(ctx, func(tx *store.Tx) error {
		contractors, err := tx.ContractorsDue()
		if err != nil {
			return err
		}
		keys, err := tx.KeysDue(vault.ID{}, mostOwed)
		if err != nil {
			return err
		}
		fences, err := tx.FencesDue(tx.Now(), mostOwed)
		if err != nil {
			return err
		}
		d.measuring.Owed("contractors", len(contractors))
		d.measuring.Owed("keys", len(keys))
		d.measuring.Owed("fences", len(fences))
		return nil
	})
}
