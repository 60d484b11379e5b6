package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

// watcher is an API whose own log a test reads.
func watcher(c vault.Caller) (*api, *bytes.Buffer, *time.Time) {
	var out bytes.Buffer
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	return &api{Config: Config{
		Log: slog.New(slog.NewJSONHandler(&out, nil)), Clock: func() time.Time { return now },
		Caller: func(context.Context) (vault.Caller, error) { return c, nil },
	}}, &out, &now
}

func TestAlert(t *testing.T) {
	c := vault.Caller{ID: "spiffe://vault.test/contractor/acme/x", Role: vault.RoleContractor, Org: "acme"}
	a, out, now := watcher(c)
	grant := vault.NewID()
	secret := vault.E(vault.Denied, vault.ReasonPurposeSite, "free text %s", "of a caller").Because(errors.New("cause"))
	told := func(want int) []map[string]any {
		t.Helper()
		var lines []map[string]any
		for line := range strings.Lines(out.String()) {
			var v map[string]any
			if err := json.Unmarshal([]byte(line), &v); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, v)
		}
		if len(lines) != want {
			t.Fatalf("%d lines, want %d:\n%s", len(lines), want, out)
		}
		return lines
	}
	for range 1000 {
		a.alert(t.Context(), "/m", wire.Name(wire.Grants, grant), secret)
	}
	line := told(1)[0]
	for key, want := range map[string]any{
		"level": "WARN", "alert": true, "reason": "PURPOSE_SITE", "contractor": "acme", "caller": c.ID, "grant": grant.String(), "method": "/m",
	} {
		if line[key] != want {
			t.Errorf("%s: %v, want %v", key, line[key], want)
		}
	}
	if strings.Contains(out.String(), "free text") || strings.Contains(out.String(), "cause") || len(line) != 9 {
		t.Errorf("the line holds what it should not: %s", out)
	}
	a.alert(t.Context(), "/m", "", vault.E(vault.Exhausted, vault.ReasonQuotaExceeded, ""))
	a.alert(t.Context(), "/m", "grants/\nalert=true", vault.E(vault.Denied, vault.ReasonConflictRule, ""))
	if got := told(3)[2]["grant"]; got != "" {
		t.Errorf("a grant that is none is told as %v", got)
	}
	*now = now.Add(refusalEvery)
	a.alert(t.Context(), "/m", "", secret)
	told(4)
	for _, err := range []error{
		nil, errors.New("x"), vault.E(vault.State, vault.ReasonGrantPending, ""), vault.E(vault.Unavailable, vault.ReasonVaultUnavailable, ""),
		vault.E(vault.State, vault.ReasonBucketOpen, ""), vault.InvalidField("f", "x"),
	} {
		a.alert(t.Context(), "/m", "", err)
	}
	told(4)
}

// TestGrantOf: the calls that name a grant name it to whoever watches.
func TestGrantOf(t *testing.T) {
	for _, m := range []any{
		&pb.FetchImageRequest{Grant: "grants/x"}, &pb.FetchImagesRequest{Grant: "grants/x"}, &pb.ListRecordsRequest{Grant: "grants/x"},
		&pb.ActivateGrantRequest{Name: "grants/x"}, &pb.ApproveGrantRequest{Name: "grants/x"},
	} {
		if got := grantOf(m); got != "grants/x" {
			t.Errorf("%T names %q", m, got)
		}
	}
	for _, m := range []any{&pb.RequestGrantRequest{}, &pb.SignDecisionRequest{Name: "decisions/x"}, nil} {
		if got := grantOf(m); got != "" {
			t.Errorf("%T names %q", m, got)
		}
	}
}
