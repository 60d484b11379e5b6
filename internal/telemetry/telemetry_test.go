package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	tracesdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	_ "google.golang.org/grpc/health/grpc_health_v1" // a service that is known
	"google.golang.org/grpc/stats"

	"github.com/portcullis/portcullis/vault"
)

// What a library puts on a span beyond what is allowed stays in the house.
func TestSpansAreScrubbed(t *testing.T) {
	out := tracetest.NewInMemoryExporter()
	tel, err := New(t.Context(), Config{Log: slog.New(slog.DiscardHandler), Spans: out})
	if err != nil {
		t.Fatal(err)
	}
	_, span := tel.tracer.Start(t.Context(), "call", trace.WithAttributes(attribute.String("client.address", "secret"), attribute.String("role", "admin")),
		trace.WithLinks(trace.Link{SpanContext: trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}}), Attributes: []attribute.KeyValue{attribute.String("k", "secret")}}))
	span.RecordError(errors.New("secret"))
	span.AddEvent("secret")
	span.SetStatus(codes.Error, "secret")
	span.End()
	got := out.GetSpans()
	if len(got) != 1 || got[0].Status.Code != codes.Error {
		t.Fatalf("got %+v", got)
	}
	if text := fmt.Sprintf("%+v", got[0]); strings.Contains(text, "secret") || !strings.Contains(text, "admin") {
		t.Errorf("left the house: %s", text)
	}
	if err := tel.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

type heard struct {
	stats.Handler
	names []string
}

func (h *heard) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	h.names = append(h.names, info.FullMethodName)
	return ctx
}

func TestNamesThatCallersMakeUp(t *testing.T) {
	h := &heard{}
	for _, name := range []string{"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Chequé", "/made.up/Check", "nothing", "", "/grpc.health.v1.HealthCheckRequest/x"} {
		known{h}.TagRPC(t.Context(), &stats.RPCTagInfo{FullMethodName: name})
	}
	if want := "/grpc.health.v1.Health/Check" + strings.Repeat(" /unknown/unknown", 5); strings.Join(h.names, " ") != want {
		t.Errorf("got %q", h.names)
	}
}

func TestOutcome(t *testing.T) {
	for want, err := range map[string]error{
		"ok":                nil,
		"QUOTA_EXCEEDED":    fmt.Errorf("x: %w", vault.E(vault.Exhausted, vault.ReasonQuotaExceeded, "text")),
		"CANCELED":          fmt.Errorf("x: %w", context.Canceled),
		"DEADLINE_EXCEEDED": context.DeadlineExceeded,
		"INTERNAL":          errors.New("text"),
	} {
		if got := outcome(err); got != want {
			t.Errorf("%v: got %s, want %s", err, got, want)
		}
	}
	if roleName("spiffe://x") != "none" {
		t.Error("a role that is none became a label")
	}
}

var _ tracesdk.SpanExporter = scrubbed{}
