package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/capture"
	"github.com/portcullis/portcullis/vault/grants"
	"github.com/portcullis/portcullis/vault/release"
)

// TestEveryMethodHasItsCallers walks what the server registers: a method that nobody was
// given is nobody's, and the table names no method that is gone.
func TestEveryMethodHasItsCallers(t *testing.T) {
	s, _ := New(Config{
		Credentials: insecure.NewCredentials(), MaxImage: 1 << 20,
		Capture: &capture.Service{}, Grants: &grants.Service{}, Release: &release.Service{}, Breach: &breach.Service{},
	})
	var methods []string
	for service, info := range s.GetServiceInfo() {
		for _, m := range info.Methods {
			methods = append(methods, "/"+service+"/"+m.Name)
			if !m.IsServerStream {
				t.Errorf("%s passes by the interceptor that admits callers", m.Name)
			}
		}
	}
	for _, m := range methods {
		if len(powers[m]) == 0 {
			t.Errorf("nobody may call %s", m)
		}
	}
	for m := range powers {
		if !slices.Contains(methods, m) {
			t.Errorf("the table names %s, which does not exist", m)
		}
	}
}

// TestNoCallerHasTwoHalves: whoever approves can not use, whoever uses can not approve, and
// who stores can not read.
func TestNoCallerHasTwoHalves(t *testing.T) {
	// What lets everyone keep checkpoints of the log, and compare them.
	open := map[string]bool{pb.AuditService_GetCheckpoint_FullMethodName: true, pb.AuditService_GetConsistencyProof_FullMethodName: true}
	for m, roles := range powers {
		has := func(r vault.Role) bool { return slices.Contains(roles, r) }
		service := strings.Split(m, "/")[1]
		switch {
		case service == "portcullis.v1.ReleaseService" && (len(roles) != 1 || !has(vault.RoleContractor)),
			service == "portcullis.v1.CaptureService" && (len(roles) != 1 || !has(vault.RoleCapture)),
			service == "portcullis.v1.AdminService" && (has(vault.RoleContractor) || has(vault.RoleCapture)),
			service == "portcullis.v1.AuditService" && (len(roles) != 1 || !has(vault.RoleAuditor)) && !open[m],
			service == "portcullis.v1.GrantService" && has(vault.RoleCapture):
			t.Errorf("%s may be called by %v", m, roles)
		}
	}
}

func TestToStatus(t *testing.T) {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	secret := errors.New("the cause, with a secret in it")
	for _, c := range []struct {
		err    error
		code   codes.Code
		reason vault.Reason
	}{
		{vault.InvalidField("image", "must not be empty"), codes.InvalidArgument, vault.ReasonInvalidField},
		{vault.E(vault.NotFound, vault.ReasonGrantUnknown, "unknown"), codes.NotFound, vault.ReasonGrantUnknown},
		{vault.E(vault.Denied, vault.ReasonGrantToken, "denied").Because(secret), codes.PermissionDenied, vault.ReasonGrantToken},
		{vault.E(vault.State, vault.ReasonGrantRevoked, "over"), codes.FailedPrecondition, vault.ReasonGrantRevoked},
		{vault.E(vault.Exhausted, vault.ReasonQuotaExceeded, "quota"), codes.ResourceExhausted, vault.ReasonQuotaExceeded},
		{vault.E(vault.Exists, vault.ReasonUnchanged, "exists"), codes.AlreadyExists, vault.ReasonUnchanged},
		{vault.E(vault.Conflict, vault.ReasonDecisionOvertaken, "changed"), codes.Aborted, vault.ReasonDecisionOvertaken},
		{vault.E(vault.DataLoss, vault.ReasonDataLoss, "lost").Because(secret), codes.DataLoss, vault.ReasonDataLoss},
		{vault.E(vault.Unavailable, vault.ReasonVaultUnavailable, "away").Because(secret), codes.Unavailable, vault.ReasonVaultUnavailable},
		{vault.E(vault.Internal, vault.ReasonInternal, "%v", secret), codes.Internal, vault.ReasonInternal},
		{fmt.Errorf("wrapped: %w", vault.E(vault.Denied, vault.ReasonKeyRevoked, "revoked")), codes.PermissionDenied, vault.ReasonKeyRevoked},
		{secret, codes.Internal, vault.ReasonInternal},
		{context.DeadlineExceeded, codes.Unavailable, vault.ReasonInternal}, // a part of ours, not the caller's
	} {
		s := status.Convert(toStatus(t.Context(), log, "/method", c.err))
		var info *errdetails.ErrorInfo
		fields := 0
		for _, d := range s.Details() {
			switch d := d.(type) {
			case *errdetails.ErrorInfo:
				info = d
			case *errdetails.BadRequest:
				fields = len(d.FieldViolations)
			}
		}
		if s.Code() != c.code || info.GetReason() != string(c.reason) || info.GetDomain() != domain {
			t.Errorf("%v became %v with %v", c.err, s, info)
		}
		if strings.Contains(s.Message(), "secret") {
			t.Errorf("%v tells its cause: %s", c.err, s.Message())
		}
		if (fields > 0) != (c.code == codes.InvalidArgument) {
			t.Errorf("%v names %d fields", c.err, fields)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if got := status.Code(toStatus(gone, log, "/method", context.Canceled)); got != codes.Canceled {
		t.Errorf("a caller that gave up gets %v", got)
	}
	if toStatus(t.Context(), log, "/method", nil) != nil {
		t.Error("no error became one")
	}
}

// TestPanicEndsTheCallAlone: a panic is INTERNAL to the caller, and its value, which may be
// a secret, goes nowhere.
func TestPanicEndsTheCallAlone(t *testing.T) {
	var out strings.Builder
	a := &api{Config: Config{Log: slog.New(slog.NewTextHandler(&out, nil))}}
	err := a.finish(t.Context(), "/method", nil, "a secret value")
	if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "secret") || strings.Contains(out.String(), "secret") {
		t.Errorf("got %v, logged %s", err, out.String())
	}
}

func TestRefusalsAreWrittenOnceAMinute(t *testing.T) {
	var r refusals
	now := time.Now()
	k := refusal{"spiffe://portcullis.example/contractor/a/b", "/method", vault.ReasonContractorSuspended}
	if !r.due(k, now) || r.due(k, now.Add(refusalEvery-1)) || !r.due(k, now.Add(refusalEvery)) {
		t.Error("the same refusal is not written once a minute")
	}
	k.method = "/another"
	if !r.due(k, now) {
		t.Error("another refusal is not written")
	}
	for i := range 3 * maxRefusals {
		r.due(refusal{method: fmt.Sprint(i)}, now)
	}
	if len(r.last) > maxRefusals {
		t.Errorf("%d refusals are remembered", len(r.last))
	}
}

// TestEachImageIsChecked: whether anything may be released now is asked once the request is
// there, and for each image of a call, not only when the call begins.
func TestEachImageIsChecked(t *testing.T) {
	d := newDesk()
	unchecked := vault.E(vault.Unavailable, vault.ReasonVaultUnchecked, "restored")
	d.api.Checked = func(context.Context) error { return unchecked }
	const name, token, handle = "grants/123e4567-e89b-42d3-a456-426614174000", "hvs.token", "00112233445566778899aabbccddeeff"
	for method, request := range map[string]proto.Message{
		"ActivateGrant": &pb.ActivateGrantRequest{Name: name},
		"ListRecords":   &pb.ListRecordsRequest{Grant: name, GrantToken: token},
		"FetchImage":    &pb.FetchImageRequest{Grant: name, GrantToken: token, Handle: handle},
		"FetchImages":   &pb.FetchImagesRequest{Grant: name, GrantToken: token, Handles: []string{handle}},
	} {
		for _, m := range methods(t) {
			if m.name != method {
				continue
			}
			wire, err := proto.Marshal(request)
			if err != nil {
				t.Fatal(err)
			}
			// The call was admitted; its request came later.
			if err := d.call(t, m, wire); vault.ReasonOf(err) != vault.ReasonVaultUnchecked || len(d.changed) != 0 {
				t.Errorf("%s: %v, %v changed", method, err, d.changed)
			}
		}
	}
}
