package telemetry

import (
	"context"
	"errors"
	"strings"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/stats"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/portcullis/portcullis/vault"
)

// Calls measures each call of the server: its duration by method and code, and a span. A trace begins here: what
// callers send of theirs is not taken over, for it is their text.
func (t *Telemetry) Calls() stats.Handler {
	return known{otelgrpc.NewServerHandler(
		otelgrpc.WithMeterProvider(t.metrics), otelgrpc.WithTracerProvider(t.traces),
		otelgrpc.WithPropagators(propagation.NewCompositeTextMapPropagator()),
	)}
}

// known gives all methods that do not exist one name: their names are the callers' text.
type known struct{ stats.Handler }

func (k known) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	if !isMethod(info.FullMethodName) {
		other := *info
		other.FullMethodName = "/unknown/unknown"
		info = &other
	}
	return k.Handler.TagRPC(ctx, info)
}

// isMethod says whether a service of this program's has the method, served here or not.
func isMethod(full string) bool {
	service, method, ok := strings.Cut(strings.TrimPrefix(full, "/"), "/")
	if !ok {
		return false
	}
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return false
	}
	s, ok := d.(protoreflect.ServiceDescriptor)
	return ok && s.Methods().ByName(protoreflect.Name(method)) != nil
}

// Ended notes how a call of a caller of the role ended: err is nil, or why it failed.
func (t *Telemetry) Ended(ctx context.Context, role vault.Role, err error) {
	span := trace.SpanFromContext(ctx)
	who := attribute.String("role", roleName(role))
	if err == nil {
		span.SetAttributes(who)
		return
	}
	why := attribute.String("reason", outcome(err))
	span.SetAttributes(who, why)
	t.refusals.Add(ctx, 1, metric.WithAttributes(who, why))
}

// roleName is the role, or "none" of somebody whose certificate names none.
func roleName(r vault.Role) string {
	switch r {
	case vault.RoleCapture, vault.RoleContractor, vault.RoleAdmin, vault.RoleAuditor:
		return string(r)
	}
	return "none"
}

// outcome is "ok", the reason of an error, or what stands for it if it has none.
func outcome(err error) string {
	reason := vault.ReasonOf(err)
	switch {
	case err == nil:
		return "ok"
	case reason != "" && reason != vault.ReasonInternal:
		return string(reason)
	case errors.Is(err, context.Canceled):
		return "CANCELED"
	case errors.Is(err, context.DeadlineExceeded):
		return "DEADLINE_EXCEEDED"
	}
	return string(vault.ReasonInternal)
}
