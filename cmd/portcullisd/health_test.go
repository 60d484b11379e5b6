package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault/client"
)

// dialAs gives a plain gRPC connection of the identity at the path.
func (s *service) dialAs(path string) *grpc.ClientConn {
	s.t.Helper()
	cfg := s.config(path)
	conn, err := grpc.NewClient("passthrough:///"+cfg.Address, grpc.WithTransportCredentials(credentials.NewTLS(client.TLS(cfg))))
	noError(s.t, err)
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

// allServices are the API's, each of which has a health of its own.
var allServices = []string{
	pb.CaptureService_ServiceDesc.ServiceName, pb.GrantService_ServiceDesc.ServiceName, pb.ReleaseService_ServiceDesc.ServiceName,
	pb.AdminService_ServiceDesc.ServiceName, pb.AuditService_ServiceDesc.ServiceName, pb.IdentityService_ServiceDesc.ServiceName,
}

func TestHealthPerService(t *testing.T) {
	s := begin(t)
	h := healthpb.NewHealthClient(s.dialAs(alice))
	serves := func(name string) bool {
		got, err := h.Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
		if status.Code(err) == codes.Unavailable {
			// Cut in the middle: a node that loses its lease cuts all connections, once.
			got, err = h.Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
		}
		noError(t, err)
		return got.Status == healthpb.HealthCheckResponse_SERVING
	}
	// all says whether every service has the health that it should have.
	all := func(withoutVault bool) func() bool {
		return func() bool {
			good := serves("") != withoutVault
			for _, name := range allServices {
				good = good && serves(name) == (!withoutVault || !needsVault[name])
			}
			return good
		}
	}
	wait(t, "all services serve", all(false))
	for _, gone := range []struct {
		how       string
		away, off func() error
	}{
		{"sealed", func() error { return s.vault.Seal(t.Context()) }, func() error { return s.vault.Unseal(t.Context()) }},
		{"killed", s.vault.Kill, func() error { return s.vault.Restart(t.Context()) }},
	} {
		noError(t, gone.away())
		start := time.Now()
		wait(t, "what needs a Vault that is "+gone.how+" does not serve, and nothing else", all(true))
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("a Vault that is %s showed after %s", gone.how, took)
		}
		noError(t, gone.off())
		wait(t, "all services serve again", all(false))
	}

	// A database that does not answer stops all of them, and health still tells it. Here it is
	// tables that are gone, among them the one that tells whether a caller is suspended.
	gone := map[string]string{"log_counter": "elsewhere", "suspended_callers": "elsewhere_too"}
	for table, away := range gone {
		s.ddl("ALTER TABLE " + table + " RENAME TO " + away)
	}
	wait(t, "without its database nothing serves", func() bool {
		for _, name := range append([]string{""}, allServices...) {
			if serves(name) {
				return false
			}
		}
		return true
	})
	for table, away := range gone {
		s.ddl("ALTER TABLE " + away + " RENAME TO " + table)
	}
	wait(t, "all services serve once more", all(false))

	// Without a lease this node releases nothing. All else goes on.
	s.ddl("ALTER TABLE nodes RENAME TO elsewhere")
	wait(t, "without a lease release does not serve, and all else does", func() bool {
		good := !serves("")
		for _, name := range allServices {
			good = good && serves(name) == (name != pb.ReleaseService_ServiceDesc.ServiceName)
		}
		return good
	})
	s.ddl("ALTER TABLE elsewhere RENAME TO nodes")
	wait(t, "with a lease all services serve", all(false))

	// Draining shows first: who watches hears of it while the connection still stands.
	watching, err := h.Watch(t.Context(), &healthpb.HealthCheckRequest{Service: pb.AdminService_ServiceDesc.ServiceName})
	noError(t, err)
	first, err := watching.Recv()
	noError(t, err)
	if first.Status != healthpb.HealthCheckResponse_SERVING {
		t.Fatal("not serving before the drain")
	}
	start := time.Now()
	closed := make(chan error, 1)
	go func() { closed <- s.daemon.Close() }()
	last, err := watching.Recv()
	if err != nil || last.Status != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("draining told a watcher %v, %v", last, err)
	}
	if _, err := watching.Recv(); err == nil {
		t.Error("draining leaves a watcher waiting")
	}
	noError(t, <-closed)
	if took := time.Since(start); took > drainFor/2 {
		t.Errorf("a watcher held the drain up for %s", took)
	}
}

// ddl runs a statement on the database file that changes no rows.
func (s *service) ddl(statement string) {
	s.t.Helper()
	_, err := openSQL(s.t, s.cfg.Store.Path).ExecContext(s.t.Context(), statement)
	noError(s.t, err)
}

// page gives the page of metrics.
func (s *service) page() string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.measuring.lis.Addr().String()+"/metrics", nil)
	noError(s.t, err)
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	noError(s.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	noError(s.t, err)
	if resp.StatusCode != http.StatusOK {
		s.t.Fatalf("the page of metrics: %s", resp.Status)
	}
	return string(text)
}

func TestMetricsPage(t *testing.T) {
	s := begin(t)
	noError(t, s.Close())
	s.cfg.Metrics.Listen = "127.0.0.1:0"
	s.serve()
	p := purpose()
	s.admit(p, devOrg)
	s.store(s.as(lane), p.Modalities[0], 3, 20<<10)
	c := s.as(matcher)
	grant, token := s.granted(c, p, 2)
	handles := s.handles(c, grant, token)
	for _, h := range handles {
		_, err := c.Release.FetchImage(t.Context(), &pb.FetchImageRequest{Grant: grant, GrantToken: token.Reveal(), Handle: h})
		if h == handles[2] && err == nil {
			t.Error("the quota did not hold")
		}
	}
	_, err := s.as(alice).Grants.RevokeGrant(t.Context(), &pb.RevokeGrantRequest{Name: grant})
	noError(t, err)
	raw := s.dialAs(matcher)
	for i := range 300 {
		// Names that callers make up make no series.
		if err := raw.Invoke(t.Context(), fmt.Sprintf("/portcullis.v1.CaptureService/NoSuchMethod%d", i), &pb.WhoAmIRequest{}, &pb.WhoAmIResponse{}); err == nil {
			t.Fatal("a method that does not exist answered")
		}
	}
	text := s.page()
	for _, want := range []string{
		`portcullis_stored_total\{modality="plate"\} 3`,
		`portcullis_releases_total\{modality="plate",refetch="false"\} 2`,
		`portcullis_released_bytes_total\{modality="plate"\} [0-9.e+]+`,
		`portcullis_refusals_total\{reason="QUOTA_EXCEEDED",role="contractor"\} 1`,
		`portcullis_sending\S* 0`,
		`portcullis_barrier_duration_seconds_count\{outcome="ok"\} [1-9]`,
		`portcullis_vault_call_duration_seconds_count\{operation="wrap",outcome="ok"\} 3`,
		`portcullis_vault_call_duration_seconds_count\{operation="unwrap",outcome="ok"\} 2`,
		`portcullis_commit_operations_count [1-9]`,
		`portcullis_owed\{kind="fences"\} [0-9]`,
		`rpc_server_call_duration_seconds_count\{.*rpc_method="portcullis.v1.CaptureService/StoreImage".*\} 3`,
	} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("no %s", want)
		}
	}
	for _, never := range []string{devOrg, devSite, "spiffe", "lane-1", id(grant), handles[0], "NoSuchMethod"} {
		if strings.Contains(text, never) {
			t.Errorf("the page of metrics names %s", never)
		}
	}
	if t.Failed() {
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "portcullis_") || strings.HasPrefix(line, "rpc_") {
				t.Log(line)
			}
		}
	}
}
