package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"crypto/tls"
	"crypto/x509"
	"os"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/portcullis/portcullis/certs"
	"github.com/portcullis/portcullis/internal/devvault"
	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
	"github.com/portcullis/portcullis/vault/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service is a whole Portcullis as `portcullisd dev` runs it: a real Vault, real files, real
// TLS. Tests use the same wiring as production.
type service struct {
	t     *testing.T
	dir   string
	vault *devvault.Server
	cfg   config
	*daemon
	logs *logs
}

// logs keeps what the daemon logs, for searching.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// begin starts a Portcullis of its own for the test, as it is configured after the changes.
func begin(t *testing.T, changes ...func(*config)) *service {
	t.Helper()
	s := &service{t: t, dir: t.TempDir(), logs: &logs{}}
	var err error
	if s.vault, err = devvault.Start(t.Context(), filepath.Join(s.dir, "vault"), devvault.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { noError(t, s.vault.Stop(context.Background())) })
	if s.cfg, err = prepareDev(t.Context(), s.dir, s.vault); err != nil {
		t.Fatal(err)
	}
	s.cfg.Listen, s.cfg.sweepEvery, s.cfg.markEvery = "127.0.0.1:0", 500*time.Millisecond, time.Hour
	for _, change := range changes {
		change(&s.cfg)
	}
	s.serve()
	t.Cleanup(func() {
		noError(t, s.Close())
		if t.Failed() {
			t.Log(s.logs)
		}
	})
	return s
}

// serve starts the daemon; restart stops it first.
func (s *service) serve() {
	s.t.Helper()
	log, err := logger(s.logs, "info")
	noError(s.t, err)
	if s.daemon, err = start(s.t.Context(), s.cfg, log); err != nil {
		s.t.Fatal(err)
	}
}

func (s *service) restart() {
	s.t.Helper()
	noError(s.t, s.Close())
	s.serve()
}

// as gives a client of the identity at the path, such as "/admin/alice".
func (s *service) as(path string) *client.Client {
	s.t.Helper()
	c, err := client.Dial(s.config(path))
	noError(s.t, err)
	s.t.Cleanup(func() { c.Close() })
	return c
}

func (s *service) config(path string) client.Config {
	s.t.Helper()
	authority, err := certs.Open(filepath.Join(s.dir, "certs"), devDomain)
	noError(s.t, err)
	pair, err := authority.Issue(strings.ReplaceAll(path[1:], "/", "-"), "spiffe://"+devDomain+path, certs.Leaf{})
	noError(s.t, err)
	return client.Config{
		Address: s.Addr(), ServerID: authority.ServerID(),
		Certificate: pair.Cert, Key: pair.Key, Bundle: authority.Bundle(),
	}
}

// The identities most tests use.
const (
	lane    = "/capture/" + devSite + "/lane-1"
	matcher = "/contractor/" + devOrg + "/matcher"
	alice   = "/admin/alice"
	bob     = "/admin/bob"
	auditor = "/auditor/auditor"
)

// purpose is one that allows all that the tests do, unless they change it.
func purpose() vault.Purpose {
	return vault.Purpose{
		Name: "plate-reader-check", Title: "check that lane cameras read plates right", LegalBasis: "an example",
		Linkage: true, Modalities: []vault.Modality{vault.Plate}, Sites: []string{devSite}, Contractors: []string{devOrg},
		MaxTTL: 4 * time.Hour, MaxRecords: 5000, MaxBytes: 1 << 40, MaxRate: vault.MaxRate, MaxRecordAge: 365 * 24 * time.Hour,
		Precision: vault.PrecisionExact, Approvals: 2, Live: true, Retention: []string{vault.DefaultClass},
	}
}

// admit lets two admins admit contractors and sanction a purpose for them.
func (s *service) admit(p vault.Purpose, orgs ...string) {
	s.t.Helper()
	for _, admin := range []string{alice, bob} {
		c := s.as(admin)
		for _, org := range orgs {
			_, err := c.ApplyContractor(s.t.Context(), vault.Contractor{Name: org, Title: "an example"})
			noError(s.t, err)
		}
		_, err := c.ApplyPurpose(s.t.Context(), p)
		noError(s.t, err)
	}
}

// request asks for a grant on today's records of a purpose.
func (s *service) request(c *client.Client, p vault.Purpose, quota int64) (*pb.Grant, error) {
	s.t.Helper()
	got, err := c.Grants.RequestGrant(s.t.Context(), s.requestFor(p, quota))
	return got.GetGrant(), err
}

func (s *service) requestFor(p vault.Purpose, quota int64) *pb.RequestGrantRequest {
	now := time.Now()
	return &pb.RequestGrantRequest{
		Purpose: wire.Purposes + "/" + p.Name, MaxRecords: quota, Ttl: durationpb.New(time.Hour),
		Justification: "work order 4711", RequestId: vault.NewID().String(),
		Scope: wire.Scope(vault.Scope{Sites: p.Sites, Modalities: p.Modalities, From: now.Add(-24 * time.Hour), Until: now.Add(24 * time.Hour)}),
	}
}

func yes(*pb.GetGrantResponse, string) error { return nil }

// granted gives an active grant of the contractor's, and its token.
func (s *service) granted(c *client.Client, p vault.Purpose, quota int64) (string, vault.Token) {
	s.t.Helper()
	g, err := s.request(c, p, quota)
	noError(s.t, err)
	for _, admin := range []string{alice, bob} {
		_, err := s.as(admin).Approve(s.t.Context(), g.Name, yes)
		noError(s.t, err)
	}
	return g.Name, s.activate(c, g.Name)
}

func (s *service) activate(c *client.Client, grant string) vault.Token {
	s.t.Helper()
	got, err := c.Grants.ActivateGrant(s.t.Context(), &pb.ActivateGrantRequest{Name: grant})
	noError(s.t, err)
	return vault.TokenOf(got.GrantToken)
}

// handles lists all records of a grant.
func (s *service) handles(c *client.Client, grant string, t vault.Token) (out []string) {
	s.t.Helper()
	noError(s.t, c.Records(s.t.Context(), grant, t, func(r *pb.RecordView) error {
		out = append(out, r.Handle)
		return nil
	}))
	return out
}

// picture draws noise as a JPEG of about the size given, in bytes.
func picture(seed uint64, size int) []byte {
	rnd := rand.New(rand.NewPCG(seed, 1))
	side := 8
	for side*side*5/3 < size {
		side += 8
	}
	img := image.NewRGBA(image.Rect(0, 0, side, side))
	for i := range img.Pix {
		img.Pix[i] = uint8(rnd.Uint32())
	}
	img.Set(0, 0, color.White)
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 90}); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// store stores n pictures of about the size given, many at once.
func (s *service) store(c *client.Client, m vault.Modality, n, size int) (records []string) {
	s.t.Helper()
	records = make([]string, n)
	pictures := make([][]byte, min(n, 8))
	for i := range pictures {
		pictures[i] = picture(uint64(i), size)
	}
	var all errgroup.Group
	all.SetLimit(32)
	for i := range n {
		all.Go(func() error {
			got, err := c.Store(s.t.Context(), client.Image{
				RequestID: vault.NewID(), Modality: m, CapturedAt: time.Now(), Bytes: pictures[i%len(pictures)],
			})
			records[i] = got.GetRecord()
			return err
		})
	}
	noError(s.t, all.Wait())
	return records
}

// event is an entry of the log.
type event struct {
	index int64
	vault.Event
}

// events gives the whole log, as the auditor reads it.
func (s *service) events(types ...string) (out []event) {
	s.t.Helper()
	_, err := s.as(auditor).Events(s.t.Context(), 0, types, func(e *pb.AuditEvent) error {
		d, err := vault.DecodeEvent(e.Event)
		out = append(out, event{e.Index, d})
		return err
	})
	noError(s.t, err)
	return out
}

// sql runs a statement on the database file, as somebody would who can write to it.
func (s *service) sql(query string, args ...any) {
	s.t.Helper()
	res, err := openSQL(s.t, s.cfg.Store.Path).ExecContext(s.t.Context(), query, args...)
	noError(s.t, err)
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		s.t.Fatalf("%s: changed nothing (%v)", query, err)
	}
}

// atVault calls Vault directly, past the service, with a token, and gives status and body.
func (s *service) atVault(method, path, token string, in any) (int, map[string]any) {
	s.t.Helper()
	pem, err := os.ReadFile(s.vault.CACert())
	noError(s.t, err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer transport.CloseIdleConnections()
	body, err := json.Marshal(in)
	noError(s.t, err)
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.vault.Addr()+"/v1/"+path, bytes.NewReader(body))
	noError(s.t, err)
	req.Header.Set("X-Vault-Token", token)
	resp, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(req)
	noError(s.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	noError(s.t, err)
	var out map[string]any
	_ = json.Unmarshal(text, &out) // some answers have no body
	return resp.StatusCode, out
}

// past decrypts the first record's data key at Vault directly, past the service, and gives
// Vault's status: 200 when the token opens it.
func (s *service) past(token vault.Token) int {
	s.t.Helper()
	var first, wrapped string
	noError(s.t, openSQL(s.t, s.cfg.Store.Path).QueryRowContext(s.t.Context(),
		`SELECT site || '.' || modality || '.' || strftime('%Y%m%d', captured_at / 1000000, 'unixepoch') || '.' || id, wrapped_key
		FROM records ORDER BY stored_at LIMIT 1`).Scan(&first, &wrapped))
	status, _ := s.atVault("POST", "portcullis/decrypt/"+first, token.Reveal(), map[string]string{"ciphertext": wrapped})
	return status
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused says that err has the reason.
func refused(t *testing.T, err error, want vault.Reason) {
	t.Helper()
	if got := vault.ReasonOf(err); got != want {
		t.Fatalf("got reason %q (%v), want %s", got, err, want)
	}
}

// wait polls until fn is content.
func wait(t *testing.T, what string, fn func() bool) {
	t.Helper()
	for deadline := time.Now().Add(40 * time.Second); !fn(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain until ", what)
		}
	}
}

// id gives the UUID of a resource name.
func id(name string) string { return name[strings.Index(name, "/")+1:] }

func keyList(t *testing.T, answer map[string]any) (out []string) {
	t.Helper()
	data, ok := answer["data"].(map[string]any)
	if !ok {
		t.Fatalf("no data in %v", answer)
	}
	for _, k := range data["keys"].([]any) {
		out = append(out, fmt.Sprint(k))
	}
	return out
}
