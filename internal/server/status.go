package server

import (
	"context"
	"errors"
	"log/slog"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/portcullis/portcullis/vault"
)

// domain is the domain of every ErrorInfo.
const domain = "portcullis"

var kinds = map[vault.Kind]codes.Code{
	vault.Internal:    codes.Internal,
	vault.Invalid:     codes.InvalidArgument,
	vault.NotFound:    codes.NotFound,
	vault.Denied:      codes.PermissionDenied,
	vault.State:       codes.FailedPrecondition,
	vault.Exhausted:   codes.ResourceExhausted,
	vault.Exists:      codes.AlreadyExists,
	vault.Conflict:    codes.Aborted,
	vault.DataLoss:    codes.DataLoss,
	vault.Unavailable: codes.Unavailable,
	vault.NotOffered:  codes.Unimplemented,
}

// toStatus is the only place where an error becomes a status. What a caller may know goes
// out; the cause goes to the log.
func toStatus(ctx context.Context, log *slog.Logger, method string, err error) error {
	if err == nil {
		return nil
	}
	var e *vault.Error
	switch {
	case ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
		// The caller left, or was cut off: whatever failed on that account tells nothing of us.
		return status.FromContextError(ctx.Err()).Err()
	case errors.As(err, &e) && e.Kind != vault.Internal:
		if e.Kind == vault.Unavailable || e.Kind == vault.DataLoss {
			log.ErrorContext(ctx, "call failed", "method", method, "reason", e.Reason, "error", err)
		}
	case errors.Is(err, context.DeadlineExceeded):
		e = vault.E(vault.Unavailable, vault.ReasonInternal, "a part of the service took too long; try again")
		log.ErrorContext(ctx, "call failed", "method", method, "error", err)
	default:
		if s, ok := status.FromError(err); ok && s.Code() != codes.Unknown {
			return err // grpc's own: a send on a connection that is gone
		}
		log.ErrorContext(ctx, "call failed", "method", method, "error", err)
		e = vault.E(vault.Internal, vault.ReasonInternal, "internal error; the service's log has the cause")
	}
	s := status.New(kinds[e.Kind], e.Message)
	info := &errdetails.ErrorInfo{Reason: string(e.Reason), Domain: domain}
	if len(e.Fields) == 0 {
		details := []protoadapt.MessageV1{info}
		wait := e.After
		if e.Reason == vault.ReasonServerBusy {
			wait = retryAfter
		}
		if wait > 0 {
			details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(wait)})
		}
		if with, err := s.WithDetails(details...); err == nil {
			s = with
		}
		return s.Err()
	}
	bad := &errdetails.BadRequest{}
	text := e.Message
	for _, f := range e.Fields {
		bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: f.Name, Description: f.Description})
		text += ": " + f.Name + " " + f.Description
	}
	s = status.New(kinds[e.Kind], text)
	if with, err := s.WithDetails(info, bad); err == nil {
		s = with
	}
	return s.Err()
}
