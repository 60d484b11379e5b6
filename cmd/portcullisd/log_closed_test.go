package main

import (
	"context"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
)

// open is a service with a grant on some records, all of which leave at first.
type open struct {
	*service
	grant   string
	token   vault.Token
	handles []string
	admin   *client.Client
	health  healthpb.HealthClient
}

const opened = 40

// beginOpen starts one whose log may not be far behind.
func beginOpen(t *testing.T, changes ...func(*config)) *open {
	t.Helper()
	o := &open{service: begin(t, append(changes, func(c *config) { c.Metrics.Listen = "127.0.0.1:0" })...)}
	o.prepare()
	noError(t, o.Close())
	o.cfg.Audit.MaxLag = time.Second // not before all is there: a slow machine may be behind for a moment
	o.serve()
	o.look()
	o.goesOn(o.grant, o.token, o.handles[0])
	return o
}

// within gives the same for a test inside the test.
func (o *open) within(t *testing.T) *open {
	out := *o
	out.service = o.service.within(t)
	return &out
}

// look opens the connections over which the test looks at the daemon.
func (o *open) look() {
	o.t.Helper()
	o.admin, o.health = o.as(alice), healthpb.NewHealthClient(o.dialAs(alice))
}

func (o *open) prepare() {
	o.t.Helper()
	p := purpose()
	o.admit(p, devOrg)
	o.store(o.as(lane), vault.Plate, opened, 64<<10)
	c := o.as(matcher)
	o.grant, o.token = o.granted(c, p, opened)
	o.handles = o.service.handles(c, o.grant, o.token)
	if len(o.handles) != opened {
		o.t.Fatalf("%d handles", len(o.handles))
	}
}

// lag gives what the page of metrics says of the log.
func (s *service) lag() float64 {
	s.t.Helper()
	got := regexp.MustCompile(`(?m)^portcullis_log_lag_seconds(?:\{.*\})? (\S+)$`).FindStringSubmatch(s.page())
	if got == nil {
		return -1 // not measured yet
	}
	lag, err := strconv.ParseFloat(got[1], 64)
	noError(s.t, err)
	return lag
}

// healthy says whether a service of the daemon is SERVING. Unlike serves it may be asked
// often, and when the daemon has cut its connections.
func (o *open) healthy(name string) bool {
	o.t.Helper()
	for tries := 0; ; tries++ {
		got, err := o.health.Check(o.t.Context(), &healthpb.HealthCheckRequest{Service: name}, grpc.WaitForReady(true))
		if status.Code(err) == codes.Unavailable && tries < 5 {
			continue // a node that loses its lease cuts all connections
		}
		noError(o.t, err)
		return got.Status == healthpb.HealthCheckResponse_SERVING
	}
}

// part gives how the daemon says that something it stands on is.
func (o *open) part(name string) pb.Part_State {
	o.t.Helper()
	got, err := o.admin.Identity.GetStatus(o.t.Context(), &pb.GetStatusRequest{})
	noError(o.t, err)
	for _, p := range got.Parts {
		if p.Name == name {
			return p.State
		}
	}
	return pb.Part_STATE_UNSPECIFIED
}

// released gives how many releases the database has, past the service.
func (s *service) released() (n int) {
	s.t.Helper()
	db := openSQL(s.t, s.cfg.Store.Path)
	defer db.Close() // it is asked often
	noError(s.t, db.QueryRowContext(s.t.Context(), "SELECT count(*) FROM events WHERE type = 'record.released'").Scan(&n))
	return n
}

// TestReleasesStopWhenTheTreeDoesNotGrow: events are written, but the tree is stuck. After
// audit.max_lag nothing leaves, streams under way end, and everyone who looks is told. The rest
// goes on; and so does all of it, by itself, once the tree grows again.
func TestReleasesStopWhenTheTreeDoesNotGrow(t *testing.T) {
	o := beginOpen(t)
	wait(t, "all is well", func() bool { return o.healthy(releaseName) && o.part("log") == pb.Part_STATE_UP && o.lag() >= 0 })
	free := o.jam()
	o.store(o.as(lane), vault.Plate, 1, 300) // an event that waits
	start := time.Now()

	// A stream whose reader is slow ends in the middle.
	cfg := o.config(matcher)
	cfg.Patience = -1
	came, before := 0, o.released()
	err := o.dial(cfg).Fetch(t.Context(), o.grant, o.token, o.handles, func(*pb.Image) error {
		came++
		time.Sleep(100 * time.Millisecond)
		return nil
	})
	refused(t, err, vault.ReasonLogBehind)
	if n := o.released() - before; came == len(o.handles) || n < came {
		t.Errorf("%d images came of a stream, %d are recorded", came, n)
	}
	o.stops(vault.ReasonLogBehind, o.grant, o.token, o.handles[0])
	_, err = listHandles(t, o.dial(cfg), o.grant, o.token)
	refused(t, err, vault.ReasonLogBehind)
	wait(t, "health tells", func() bool { return !o.healthy(releaseName) && !o.healthy("") })
	wait(t, "status tells", func() bool { return o.part("log") == pb.Part_STATE_DOWN })
	wait(t, "the metric tells", func() bool { return o.lag() > 1 })
	for name := range o.daemon.grpc.GetServiceInfo() {
		if strings.HasPrefix(name, "portcullis.") && name != releaseName && !o.healthy(name) {
			t.Errorf("%s does not serve", name)
		}
	}
	o.store(o.as(lane), vault.Plate, 1, 300)
	if _, err := o.as(alice).Admin.ListPurposes(t.Context(), &pb.ListPurposesRequest{}); err != nil {
		t.Errorf("admins: %v", err)
	}
	if text := o.logs.String(); !strings.Contains(text, "the log's tree does not grow") || !strings.Contains(text, "the tree is") {
		t.Error("the daemon's log does not tell")
	}
	was, lag := o.released(), o.lag()
	time.Sleep(1200 * time.Millisecond)
	if now := o.lag(); now <= lag {
		t.Errorf("the metric stands at %v s", now)
	}

	// A fetch that is patient waits until the tree grows again.
	cfg.Patience = 30 * time.Second
	patient := o.dial(cfg)
	done := make(chan error, 1)
	go func() {
		done <- patient.Fetch(t.Context(), o.grant, o.token, o.handles[:3], func(*pb.Image) error { return nil })
	}()
	time.Sleep(500 * time.Millisecond)
	if n := o.released(); n != was {
		t.Errorf("%d releases while the tree is stuck", n-was)
	}
	stuck := time.Since(start)
	free()
	noError(t, <-done)
	wait(t, "all is well again", func() bool {
		return o.healthy(releaseName) && o.healthy("") && o.part("log") == pb.Part_STATE_UP && o.lag() < 1
	})
	if !strings.Contains(o.logs.String(), "the log's tree grows again") {
		t.Error("the daemon's log does not tell that the tree grows")
	}
	t.Logf("the tree was stuck for %s; a stream got %d images before it ended", stuck.Round(time.Millisecond), came)
}

// TestDatabaseLocked: somebody holds the database's write lock for longer than anyone waits.
func TestDatabaseLocked(t *testing.T) {
	o := beginOpen(t)
	conn, err := openSQL(t, o.cfg.Store.Path).Conn(t.Context())
	noError(t, err)
	defer conn.Close()
	_, err = conn.ExecContext(t.Context(), "BEGIN IMMEDIATE")
	noError(t, err)
	before, start := o.released(), time.Now()
	came, err := o.fetch(o.grant, o.token, o.handles[0])
	if vault.KindOf(err) != vault.Unavailable || came != 0 {
		t.Errorf("%d images came of a locked database, with %v", came, err)
	}
	t.Logf("refused after %s: %v", time.Since(start).Round(time.Millisecond), err)
	wait(t, "health tells", func() bool { return !o.healthy(releaseName) })
	if n := o.released(); n != before {
		t.Errorf("%d releases were recorded", n-before)
	}
	_, err = conn.ExecContext(context.WithoutCancel(t.Context()), "ROLLBACK")
	noError(t, err)
	o.goesOn(o.grant, o.token, o.handles[0])
	wait(t, "health tells that it serves", func() bool { return o.healthy(releaseName) && o.healthy("") })
}
