// Package telemetry owns what is measured: the metrics and the traces of the service.
//
// Both are read by more people than the log of events is, so they hold no identity: methods,
// reasons, roles, modalities and outcomes are all that a label or an attribute may be. No ID,
// no handle, no SPIFFE ID, no contractor, no text of a caller, no text of an error. That also
// bounds how many series there can be. Who did what stands in the audit log.
//
// The parts of the service know nothing of it: what it measures it measures at the edges, by
// decorators of the operations' own interfaces and by a stats handler of gRPC.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	promexport "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	metricsdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	tracesdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const scope = "github.com/portcullis/portcullis"

// maxSeries bounds the series of one metric. What is beyond is added up under otel_metric_overflow="true".
const maxSeries = 2000

// Config says where measurements go.
type Config struct {
	Version string // of the service
	Log     *slog.Logger
	// OTLP sends traces where the OTEL_EXPORTER_OTLP_… variables of the environment say.
	OTLP bool
	// Spans takes traces besides. It gets what OTLP gets: attributes that are allowed, and no texts. May be nil.
	Spans tracesdk.SpanExporter
}

// Telemetry measures. Its methods, and those of all decorators that it makes, may be called at once from many
// goroutines.
type Telemetry struct {
	log      *slog.Logger
	registry *prometheus.Registry
	metrics  *metricsdk.MeterProvider
	traces   *tracesdk.TracerProvider
	tracer   trace.Tracer

	refusals, releases, released, stored metric.Int64Counter
	sending                              metric.Int64UpDownCounter
	barriers, vaultCalls, commits        metric.Float64Histogram
	batches                              metric.Int64Histogram
	owed                                 metric.Int64Gauge
	lag                                  metric.Float64Gauge
}

// New makes the instruments. Nothing is sent or served yet, except traces by what [Config] names.
func New(ctx context.Context, cfg Config) (*Telemetry, error) {
	res, err := resource.Merge(resource.Default(), resource.NewSchemaless(
		attribute.String("service.name", "portcullisd"), attribute.String("service.version", cfg.Version)))
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	t := &Telemetry{log: cfg.Log, registry: prometheus.NewRegistry()}
	t.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	page, err := promexport.New(promexport.WithRegisterer(t.registry), promexport.WithoutScopeInfo())
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	t.metrics = metricsdk.NewMeterProvider(metricsdk.WithReader(page), metricsdk.WithResource(res), metricsdk.WithCardinalityLimit(maxSeries))

	opts := []tracesdk.TracerProviderOption{tracesdk.WithResource(res)}
	if cfg.OTLP {
		remote, err := otlptracegrpc.New(ctx)
		if err != nil {
			return nil, fmt.Errorf("telemetry: send traces: %w", err)
		}
		opts = append(opts, tracesdk.WithBatcher(scrubbed{remote}))
		otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { cfg.Log.Warn("traces are not sent", "error", err) }))
	}
	if cfg.Spans != nil {
		opts = append(opts, tracesdk.WithSyncer(scrubbed{cfg.Spans}))
	}
	if !cfg.OTLP && cfg.Spans == nil {
		opts = append(opts, tracesdk.WithSampler(tracesdk.NeverSample()))
	}
	t.traces = tracesdk.NewTracerProvider(opts...)
	t.tracer = t.traces.Tracer(scope)
	return t, t.instruments(t.metrics.Meter(scope))
}

// The bounds of the histograms of time, in seconds: a commit takes about a millisecond, a barrier at most 30 s.
var seconds = []float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}

func (t *Telemetry) instruments(m metric.Meter) error {
	var errs [11]error
	t.refusals, errs[0] = m.Int64Counter("portcullis.refusals", metric.WithDescription("calls that failed, by reason and by the caller's role"))
	t.releases, errs[1] = m.Int64Counter("portcullis.releases", metric.WithDescription("images handed to a connection"))
	t.released, errs[2] = m.Int64Counter("portcullis.released", metric.WithUnit("By"), metric.WithDescription("bytes of the images handed to a connection"))
	t.stored, errs[3] = m.Int64Counter("portcullis.stored", metric.WithDescription("images stored, repeated requests not counted"))
	t.sending, errs[4] = m.Int64UpDownCounter("portcullis.sending", metric.WithDescription("images on their way out"))
	t.barriers, errs[5] = m.Float64Histogram("portcullis.barrier.duration", metric.WithUnit("s"), metric.WithExplicitBucketBoundaries(seconds...),
		metric.WithDescription("time from the ending of an access until nothing of it was under way"))
	t.vaultCalls, errs[6] = m.Float64Histogram("portcullis.vault.call.duration", metric.WithUnit("s"), metric.WithExplicitBucketBoundaries(seconds...),
		metric.WithDescription("calls of HashiCorp Vault, by operation and outcome: ok, or the reason of the failure"))
	t.commits, errs[7] = m.Float64Histogram("portcullis.commit.duration", metric.WithUnit("s"), metric.WithExplicitBucketBoundaries(seconds...),
		metric.WithDescription("transactions of the database"))
	t.batches, errs[8] = m.Int64Histogram("portcullis.commit.operations", metric.WithExplicitBucketBoundaries(1, 2, 4, 8, 16, 32, 64, 128, 256),
		metric.WithDescription("operations that shared one transaction"))
	t.owed, errs[9] = m.Int64Gauge("portcullis.owed", metric.WithDescription("what Vault is still to be given: contractors to disable, keys and fences to change"))
	t.lag, errs[10] = m.Float64Gauge("portcullis.log.lag", metric.WithUnit("s"), metric.WithDescription("how long the oldest event waits that is not in the log's tree"))
	return errors.Join(errs[:]...)
}

// Handler gives the page of metrics in Prometheus' format.
func (t *Telemetry) Handler() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(t.log.Handler(), slog.LevelWarn), MaxRequestsInFlight: 4, Timeout: 10 * time.Second,
	})
}

// Close sends the traces that wait, while ctx lasts, and ends all.
func (t *Telemetry) Close(ctx context.Context) error {
	return errors.Join(t.traces.Shutdown(ctx), t.metrics.Shutdown(ctx))
}

// Committed measures one transaction of the database and how many operations shared it.
func (t *Telemetry) Committed(operations int, took time.Duration) {
	t.batches.Record(context.Background(), int64(operations))
	t.commits.Record(context.Background(), took.Seconds())
}

// Lag says how long the oldest event waits that is not in the log's tree.
func (t *Telemetry) Lag(d time.Duration) { t.lag.Record(context.Background(), d.Seconds()) }

// Owed says how many things of a kind Vault is still to be given.
func (t *Telemetry) Owed(kind string, n int) {
	t.owed.Record(context.Background(), int64(n), metric.WithAttributes(attribute.String("kind", kind)))
}
