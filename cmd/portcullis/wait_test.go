package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

// watched is a grant as the service tells of it at a time since the test's beginning.
type watched struct {
	begin time.Time
	ends  time.Duration
	at    map[time.Duration]pb.Grant_State // from then on
	away  [2]time.Duration                 // unavailable between these
	looks int
}

func (w *watched) look(context.Context) (*pb.Grant, error) {
	w.looks++
	since := time.Since(w.begin)
	if since >= w.away[0] && since < w.away[1] {
		return nil, vault.E(vault.Unavailable, "", "away")
	}
	g := &pb.Grant{Name: "grants/x", ApprovalsRequired: 2, ReadTime: timestamppb.Now(), TimeRemaining: durationpb.New(max(w.ends-since, 0))}
	var from time.Duration = -1
	for at, state := range w.at {
		if since >= at && at > from {
			from, g.State = at, state
		}
	}
	if since >= w.ends && !over(g) {
		g.State = pb.Grant_STATE_EXPIRED
	}
	return g, nil
}

func TestWaitFor(t *testing.T) {
	const never = 1000 * time.Hour
	pending := map[time.Duration]pb.Grant_State{0: pb.Grant_STATE_PENDING}
	then := func(at time.Duration, s pb.Grant_State) map[time.Duration]pb.Grant_State {
		return map[time.Duration]pb.Grant_State{0: pb.Grant_STATE_PENDING, at: s}
	}
	for name, c := range map[string]struct {
		w      watched
		want   string
		reason vault.Reason // of the end; empty if it is reached
		vain   bool
		until  [2]time.Duration // the end comes between these
		looks  int              // at most
	}{
		"approved":         {w: watched{ends: never, at: then(time.Hour, pb.Grant_STATE_APPROVED)}, want: "approved", until: [2]time.Duration{time.Hour, time.Hour + waitMost}, looks: 800},
		"active will do":   {w: watched{ends: never, at: then(time.Minute, pb.Grant_STATE_ACTIVE)}, want: "approved", until: [2]time.Duration{time.Minute, time.Minute + waitMost}, looks: 30},
		"denied":           {w: watched{ends: never, at: then(time.Minute, pb.Grant_STATE_DENIED)}, want: "approved", reason: vault.ReasonGrantDenied, vain: true, until: [2]time.Duration{time.Minute, time.Minute + waitMost}, looks: 30},
		"retired":          {w: watched{ends: never, at: then(0, pb.Grant_STATE_RETIRED)}, want: "active", reason: vault.ReasonGrantRetired, vain: true, looks: 1},
		"lapses":           {w: watched{ends: 10 * time.Minute, at: pending}, want: "approved", reason: vault.ReasonGrantExpired, vain: true, until: [2]time.Duration{10 * time.Minute, 10*time.Minute + 100*time.Millisecond}, looks: 140},
		"its end is meant": {w: watched{ends: 10 * time.Minute, at: pending}, want: "ended", until: [2]time.Duration{10 * time.Minute, 10*time.Minute + 100*time.Millisecond}, looks: 140},
		"away for a while": {w: watched{ends: never, at: then(time.Hour, pb.Grant_STATE_APPROVED), away: [2]time.Duration{time.Minute, 2 * time.Hour}}, want: "approved", until: [2]time.Duration{2 * time.Hour, 2*time.Hour + waitMost}, looks: 1600},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out, notes bytes.Buffer
				a := &app{stdout: &out, stderr: &notes, output: table}
				c.w.begin = time.Now()
				err := a.waitFor(t.Context(), c.w.look, c.want)
				took := time.Since(c.w.begin)
				var vain *waitedInVain
				if errors.As(err, &vain) != c.vain || vault.ReasonOf(err) != c.reason || (err != nil) != c.vain {
					t.Fatalf("ended with %v", err)
				}
				if took < c.until[0] || took > c.until[1] {
					t.Errorf("ended after %s, want between %s and %s", took, c.until[0], c.until[1])
				}
				if c.w.looks > c.looks {
					t.Errorf("looked %d times, want at most %d", c.w.looks, c.looks)
				}
				if n := strings.Count(out.String(), "\n"); n != len(c.w.at) && !(n == len(c.w.at)+1 && c.w.ends < never) {
					t.Errorf("wrote %d lines for %d changes:\n%s", n, len(c.w.at), out.String())
				}
				if got := strings.Count(notes.String(), "does not answer"); (got == 1) != (c.w.away[1] > 0) || got > 1 {
					t.Errorf("told %d times that the service is away", got)
				}
			})
		})
	}
}

// TestWaitForEndsAtOnce: what will not pass, and a service that never answered, ends the wait.
func TestWaitForEndsAtOnce(t *testing.T) {
	for _, failing := range []error{
		vault.E(vault.Unavailable, "", "away"), vault.E(vault.Denied, vault.ReasonContractorSuspended, "no"), vault.E(vault.NotFound, vault.ReasonGrantUnknown, "no"),
	} {
		synctest.Test(t, func(t *testing.T) {
			a := &app{stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}}
			begin := time.Now()
			err := a.waitFor(t.Context(), func(context.Context) (*pb.Grant, error) { return nil, failing }, "approved")
			if !errors.Is(err, failing) || time.Since(begin) > 0 {
				t.Errorf("ended with %v after %s", err, time.Since(begin))
			}
		})
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 900 * time.Millisecond: "0s", 12 * time.Second: "12s", 59*time.Minute + 30*time.Second: "59m30s",
		time.Hour: "1h", time.Hour + 5*time.Second: "1h", 2*time.Hour - time.Second: "1h59m", 51 * time.Hour: "2d3h", -3 * time.Minute: "-3m",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%s) is %q, want %q", d, got, want)
		}
	}
}

// TestOnlyAnEndRemovesTokens: of all errors, those that say that a grant is over cost a token.
func TestOnlyAnEndRemovesTokens(t *testing.T) {
	id := vault.NewID()
	for r := range hints {
		s := &session{profile: profile{name: "p", file: t.TempDir() + "/portcullis.yaml"}}
		if err := s.tokens().prepare(); err != nil {
			t.Fatal(err)
		}
		if err := s.tokens().keep(id, vault.TokenOf("hvs.secret")); err != nil {
			t.Fatal(err)
		}
		a := &app{stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}}
		a.learnFrom(s, a.fetchCommand(), []string{id.String()}, vault.E(vault.State, r, "x"))
		held, err := s.tokens().held()
		if err != nil {
			t.Fatal(err)
		}
		want := r == vault.ReasonGrantExpired || r == vault.ReasonGrantRevoked || r == vault.ReasonGrantRetired || r == vault.ReasonGrantDenied ||
			r == vault.ReasonGrantLapsed || r == vault.ReasonGrantSuspended
		if (len(held) == 0) != want {
			t.Errorf("after %s %d tokens are kept", r, len(held))
		}
		for st := range pb.Grant_State_name {
			if err := s.tokens().keep(id, vault.TokenOf("hvs.secret")); err != nil {
				t.Fatal(err)
			}
			a.learn(s, &pb.Grant{Name: "grants/" + id.String(), State: pb.Grant_State(st)})
			held, err := s.tokens().held()
			if err != nil {
				t.Fatal(err)
			}
			if (len(held) == 0) != over(&pb.Grant{State: pb.Grant_State(st)}) {
				t.Errorf("after state %v %d tokens are kept", pb.Grant_State(st), len(held))
			}
		}
	}
}

// TestConnectionHints: what goes wrong before the service speaks has a hint that leads on.
func TestConnectionHints(t *testing.T) {
	for message, want := range map[string]string{
		`connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`:                                 "nothing listens",
		`name resolver error: dial tcp: lookup no.invalid: no such host`:                                                                               "no such name",
		`dial tcp 10.0.0.1:8443: i/o timeout`:                                                                                                          "no answer",
		`error reading server preface: remote error: tls: bad certificate`:                                                                             "refused this profile's certificate",
		`error reading server preface: remote error: tls: expired certificate`:                                                                         "has expired",
		`authentication handshake failed: the service's certificate is not of the profile's bundle: x509: certificate signed by unknown authority`:     "server_id and bundle",
		`the service's certificate is not of the profile's bundle: x509: certificate has expired or is not yet valid: current time 2026 is after 2025`: "machine's clock",
		`authentication handshake failed: tls: first record does not look like a TLS handshake`:                                                        "does not speak TLS",
		`the service proves to be [spiffe://a/b], not spiffe://a/c`:                                                                                    "server_id and bundle",
		`something that nobody has seen`:                                                                                                               "is the service running",
	} {
		got := hint(errors.New(message), errorBody{Kind: "unavailable", Message: message})
		if !strings.Contains(got, want) || !strings.Contains(got, "portcullis doctor") {
			t.Errorf("%s\n\thint %q, want one with %q that points to doctor", message, got, want)
		}
	}
}
