package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

func TestMessageJSONIsStable(t *testing.T) {
	// Zero values are there, and messages that are absent are not. protojson by itself puts in
	// spaces at random, by a seed of the binary.
	b, err := messageJSON(&pb.GetGrantResponse{Grant: &pb.Grant{Name: "grants/x", Justification: "<&>"}})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"grant":{"name":"grants/x","state":"STATE_UNSPECIFIED","purpose":"","purpose_version":0,"purpose_digest":"",` +
		`"grantee":"","epoch":0,"max_records":"0","justification":"<&>","approvals_required":0,"approvals":[],"records_released":"0","digest":"","records_remaining":"0",` +
		`"max_bytes":"0","bytes_released":"0","bytes_remaining":"0"}}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
}

func TestEventJSONIsVerbatim(t *testing.T) {
	var out bytes.Buffer
	a := &app{stdout: &out, output: jsonOutput}
	const event = `{"v":1, "type":"x","note":"<&>\u0041"}`
	if err := a.eventJSON(&pb.AuditEvent{Index: 7, Event: []byte(event)}); err != nil {
		t.Fatal(err)
	}
	if want := `{"index":7,"event":` + event + "}\n"; out.String() != want {
		t.Errorf("got %s, want %s", out.String(), want)
	}
	for _, bad := range []string{"", "{", "{}\n{}", "{\n}", "{},{}"} {
		if err := a.eventJSON(&pb.AuditEvent{Event: []byte(bad)}); err == nil {
			t.Errorf("%q was written as an event", bad)
		}
	}
}

func TestTablesDoNotSteerTheTerminal(t *testing.T) {
	var out bytes.Buffer
	a := &app{stdout: &out, stderr: &out}
	if err := a.showTable(func(g *grid) {
		g.row("a\x1b[2Jb", "c\td", "e\nf")
		g.line("x\x1b]0;y\a")
		g.text("", "l1\x1b\nl2\n")
	}); err != nil {
		t.Fatal(err)
	}
	a.showSigned("honest: 1\nhidden: \x1b[8m2\r\n")
	a.report(errors.New("z\x1b[1m"))
	if strings.ContainsAny(out.String(), "\x1b\a\r") {
		t.Errorf("control characters went to the terminal: %q", out.String())
	}
	if n := strings.Count(out.String(), "\n"); n != 8 {
		t.Errorf("%d lines, want 8: %q", n, out.String())
	}
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 ms", 3*time.Millisecond + 400: "3 ms", 1500 * time.Millisecond: "1.5s", 10 * time.Minute: "10m", 4 * time.Hour: "4h", 90 * time.Minute: "1h30m",
		time.Hour + 5*time.Second: "1h0m5s", 10 * time.Second: "10s",
	} {
		if got := short(durationpb.New(d)); got != want {
			t.Errorf("%s is written %q, want %q", d, got, want)
		}
	}
	got := barrier(&pb.Barrier{ConnectionsReset: 1, SendsEnded: 2, Waited: durationpb.New(3 * time.Millisecond), VaultDone: true})
	if want := "nothing is under way any more: 1 connection reset, 2 sends ended, after 3 ms; Vault enforces it"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := barrier(&pb.Barrier{}); !strings.Contains(got, "Vault is away") {
		t.Errorf("Vault does not enforce it yet, but: %q", got)
	}
}

func TestEveryReasonHasAHint(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../../vault/reason.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	known := map[vault.Reason]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			text, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			known[vault.Reason(text)] = true
		}
		return true
	})
	if len(known) < 40 {
		t.Fatalf("only %d reasons found", len(known))
	}
	for r := range known {
		if hints[r] == "" {
			t.Errorf("no hint for reason %s", r)
		}
	}
	for r := range hints {
		if !known[r] {
			t.Errorf("a hint for %s, which is no reason", r)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		kind string
		exit int
	}{
		{vault.E(vault.Denied, vault.ReasonPurposeSite, "x"), "denied", 3},
		{vault.E(vault.NotFound, vault.ReasonGrantUnknown, "x"), "not_found", 3},
		{vault.E(vault.State, vault.ReasonGrantPending, "x"), "state", 3},
		{vault.E(vault.Exhausted, vault.ReasonQuotaExceeded, "x"), "exhausted", 3},
		{vault.E(vault.Exists, vault.ReasonUnchanged, "x"), "exists", 3},
		{vault.E(vault.Conflict, vault.ReasonDecisionOvertaken, "x"), "conflict", 3},
		{vault.InvalidField("a", "b"), "invalid", 2},
		{fmt.Errorf("after 3: %w", vault.E(vault.Unavailable, "", "x")), "unavailable", 4},
		{vault.E(vault.NotOffered, vault.ReasonNotOffered, "x"), "not_offered", 2},
		{vault.E(vault.DataLoss, vault.ReasonDataLoss, "x"), "data_loss", 1},
		{vault.E(vault.Internal, vault.ReasonInternal, "x"), "internal", 1},
		{&hinted{&incomplete{"x"}, "y"}, "incomplete", 1},
		{fmt.Errorf("x: %w", context.Canceled), "canceled", 1},
		{context.DeadlineExceeded, "unavailable", 4},
		{&usageError{err: vault.InvalidField("a", "b")}, "usage", 2},
		{errors.New("x"), "internal", 1},
	} {
		body, exit := describe(c.err)
		if body.Kind != c.kind || exit != c.exit {
			t.Errorf("%v: kind %s, exit code %d; want %s, %d", c.err, body.Kind, exit, c.kind, c.exit)
		}
	}
	if len(kindNames) != int(vault.NotOffered)+1 {
		t.Error("a kind has no name")
	}
}
