package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	tracesdk "go.opentelemetry.io/otel/sdk/trace"
)

// allowed are the attributes that a span may take out of the house. A library that begins to add others, such as the
// caller's address, adds them in vain.
var allowed = map[attribute.Key]bool{
	"rpc.system":               true,
	"rpc.system.name":          true,
	"rpc.service":              true,
	"rpc.method":               true,
	"rpc.response.status_code": true,
	"rpc.grpc.status_code":     true,
	"role":                     true,
	"reason":                   true,
	"outcome":                  true,
	"modality":                 true,
}

// scrubbed exports spans without whatever is not allowed: other attributes, events, links, and the texts of statuses,
// which are those of errors and name callers.
type scrubbed struct{ tracesdk.SpanExporter }

func (s scrubbed) ExportSpans(ctx context.Context, in []tracesdk.ReadOnlySpan) error {
	out := make([]tracesdk.ReadOnlySpan, len(in))
	for i, span := range in {
		out[i] = bare{span}
	}
	return s.SpanExporter.ExportSpans(ctx, out)
}

// bare is a span without them.
type bare struct{ tracesdk.ReadOnlySpan }

func (b bare) Attributes() (out []attribute.KeyValue) {
	for _, kv := range b.ReadOnlySpan.Attributes() {
		if allowed[kv.Key] {
			out = append(out, kv)
		}
	}
	return out
}

func (b bare) Status() tracesdk.Status {
	s := b.ReadOnlySpan.Status()
	s.Description = ""
	return s
}

func (b bare) Events() []tracesdk.Event { return nil }
func (b bare) Links() []tracesdk.Link   { return nil }
