package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/portcullis/portcullis/internal/hcvault"
	"github.com/portcullis/portcullis/internal/server"
	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/capture"
	"github.com/portcullis/portcullis/vault/client"
	"github.com/portcullis/portcullis/vault/grants"
	"github.com/portcullis/portcullis/vault/wire"
)

// canaries are secrets by name, and where they are searched for. Safe for concurrent use.
type canaries struct {
	mu     sync.Mutex
	secret map[string][]byte
}

func (c *canaries) keep(name string, secret []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.secret[name] = bytes.Clone(secret)
}

// text makes a secret of text that occurs nowhere else.
func (c *canaries) text(name string) string {
	s := "canary " + rand.Text()
	c.keep(name, []byte(s[len("canary "):]))
	return s
}

// forms gives what a secret looks like when something writes it down.
func forms(secret []byte) map[string]string {
	out := map[string]string{
		"as it is":        string(secret),
		"quoted":          strings.Trim(fmt.Sprintf("%q", secret), `"`),
		"in hex":          hex.EncodeToString(secret),
		"in HEX":          strings.ToUpper(hex.EncodeToString(secret)),
		"as numbers":      strings.Trim(fmt.Sprint(secret[:min(len(secret), 12)]), "[]"),
		"escaped for URL": url.QueryEscape(string(secret)),
	}
	// In base64 it looks different by where in the text it stands; its ends mix with what is beside.
	for shift := range 3 {
		if len(secret) < shift+9 {
			continue
		}
		whole := secret[shift : shift+(len(secret)-shift)/3*3]
		out[fmt.Sprintf("in base64, shifted by %d", shift)] = base64.StdEncoding.EncodeToString(whole)
		out[fmt.Sprintf("in base64url, shifted by %d", shift)] = base64.URLEncoding.EncodeToString(whole)
	}
	return out
}

// find names each secret that the text holds, and its form.
func (c *canaries) find(text string) (found []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, secret := range c.secret {
		for form, s := range forms(secret) {
			if strings.Contains(text, s) {
				found = append(found, name+" "+form)
			}
		}
	}
	return found
}

// vaultToken is what tokens of Vault look like, the service's own among them.
var vaultToken = regexp.MustCompile(`hv[sbr]\.[A-Za-z0-9_-]{20,}`)

// faulty is what tests break inside of the service: it panics with secrets, and takes the
// data keys down on their way.
type faulty struct {
	canaries *canaries
	mu       sync.Mutex
	panics   any // nil: none
}

func (f *faulty) set(v any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.panics = v
}

func (f *faulty) strike() {
	f.mu.Lock()
	v := f.panics
	f.mu.Unlock()
	if v != nil {
		panic(v)
	}
}

type faultyKeys struct {
	capture.Keys
	*faulty
	n int
}

func (k *faultyKeys) Wrap(ctx context.Context, name string, dek []byte) (string, error) {
	k.mu.Lock()
	k.n++
	k.canaries.keep(fmt.Sprintf("data key %d", k.n), dek)
	k.mu.Unlock()
	k.strike()
	return k.Keys.Wrap(ctx, name, dek)
}

// faultyLedger panics inside of transactions.
type faultyLedger struct {
	grants.Ledger
	*faulty
}

func (l faultyLedger) Update(ctx context.Context, fn func(grants.Tx) error) (int64, error) {
	return l.Ledger.Update(ctx, func(tx grants.Tx) error {
		l.strike()
		return fn(tx)
	})
}

// TestCanaryFinder: a search that finds nothing proves something only if it can find.
func TestCanaryFinder(t *testing.T) {
	c := &canaries{secret: map[string][]byte{}}
	s := c.text("text")
	for _, leak := range []string{
		s, fmt.Sprintf("%q", s), fmt.Sprintf("%x", s), fmt.Sprintf("%X", s), fmt.Sprint([]byte(s)),
		base64.StdEncoding.EncodeToString([]byte(s)), base64.StdEncoding.EncodeToString([]byte("x" + s)),
		base64.RawURLEncoding.EncodeToString([]byte("xx" + s)), url.QueryEscape(s),
	} {
		if len(c.find("before "+leak+" after")) == 0 {
			t.Errorf("not found in %s", leak)
		}
	}
	if got := c.find("canary in a coal mine"); got != nil {
		t.Errorf("found %v", got)
	}
}

// commented is a JPEG with a comment.
func commented(jpeg []byte, comment string) []byte {
	n := len(comment) + 2
	out := append(slices.Clone(jpeg[:2]), 0xff, 0xfe, byte(n>>8), byte(n))
	return append(append(out, comment...), jpeg[2:]...)
}

// TestNoSecretLeavesByTheSide drives calls into every kind of failure and searches all that
// the service says of them: log, metrics, traces, errors, events.
func TestNoSecretLeavesByTheSide(t *testing.T) {
	c := &canaries{secret: map[string][]byte{}}
	broken := &faulty{canaries: c}
	spans := tracetest.NewInMemoryExporter()
	s := begin(t)
	noError(t, s.Close())
	s.cfg.Metrics.Listen, s.cfg.sweepEvery = "127.0.0.1:0", 200*time.Millisecond
	s.cfg.Log.Level = "debug"
	s.cfg.seams = &seams{spans: spans, api: func(api *server.Config) {
		api.Capture.Keys = &faultyKeys{Keys: api.Capture.Keys, faulty: broken}
		api.Grants.Ledger = faultyLedger{api.Grants.Ledger, broken}
	}}
	restart := func() {
		t.Helper()
		log, err := logger(s.logs, "debug")
		noError(t, err)
		if s.daemon, err = start(t.Context(), s.cfg, log); err != nil {
			t.Fatal(err)
		}
	}
	restart()

	// What is secret.
	c.keep("root token of Vault", []byte(s.vault.RootToken()))
	for _, role := range []string{"capture", "grants", "admin"} {
		text, err := os.ReadFile(filepath.Join(s.cfg.Vault.Credentials, role+".json"))
		noError(t, err)
		var r struct {
			SecretID string `json:"secret_id"`
		}
		noError(t, json.Unmarshal(text, &r))
		c.keep("secret ID of "+role, []byte(r.SecretID))
	}
	key, err := os.ReadFile(s.cfg.TLS.Key)
	noError(t, err)
	c.keep("key of the service", bytes.Split(key, []byte("\n"))[1])
	just, note, exif, reqID := c.text("justification"), c.text("note"), c.text("metadata of an image"), vault.NewID()
	pic := picture(99, 20<<10)
	c.keep("image", pic[len(pic)/2:len(pic)/2+24])
	pic = commented(pic, exif)
	head := c.text("header of a call")
	raw := c.text("name of a method")

	// What the service says.
	var said, errs strings.Builder
	failed := func(what string, err error) {
		t.Helper()
		if err == nil {
			t.Errorf("%s did not fail", what)
			return
		}
		fmt.Fprintf(&errs, "%s: %+v %#v\n", what, err, err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-canary", head, "traceparent", head, "baggage", "a="+url.QueryEscape(head), "tracestate", "a="+url.QueryEscape(head))
	cam, con, adm := s.as(lane), s.as(matcher), s.as(alice)
	p := purpose()
	s.admit(p, devOrg, "other-org")
	storing := func(img []byte) error {
		_, err := cam.Capture.StoreImage(ctx, &pb.StoreImageRequest{
			RequestId: vault.NewID().String(), Modality: wire.Modality(vault.Plate), CaptureTime: timestamppb.Now(), Image: img,
		})
		return err
	}
	asking := func(text string) (*pb.Grant, error) {
		req := s.requestFor(p, 100)
		req.Justification, req.RequestId = text, vault.NewID().String()
		got, err := con.Grants.RequestGrant(ctx, req)
		return got.GetGrant(), err
	}
	noError(t, storing(pic))
	noError(t, storing(commented(picture(98, 9<<10), exif)))
	g, err := asking(just)
	noError(t, err)
	for _, admin := range []string{alice, bob} {
		_, err := s.as(admin).Approve(ctx, g.Name, yes)
		noError(t, err)
	}
	token := s.activate(con, g.Name)
	c.keep("first grant token", []byte(token.Reveal()))
	old := token
	token = s.activate(con, g.Name)
	c.keep("grant token", []byte(token.Reveal()))
	handles := s.handles(con, g.Name, token)
	fetching := func(who *client.Client, grant string, tok vault.Token, handle string) error {
		_, err := who.Release.FetchImage(ctx, &pb.FetchImageRequest{Grant: grant, GrantToken: tok.Reveal(), Handle: handle})
		return err
	}
	noError(t, fetching(con, g.Name, token, handles[0]))

	// Bad input.
	failed("text for an image", storing([]byte("this is "+exif)))
	failed("half an image", storing(pic[:len(pic)/2]))
	for _, bad := range []string{strings.Repeat(just, 40), just + "\x00", just + "\n" + just, just + "\u2028"} {
		_, err := asking(bad)
		failed("bad justification", err)
	}
	_, err = adm.Admin.SuspendContractor(ctx, &pb.SuspendContractorRequest{Name: "contractors/other-org", Note: strings.Repeat(note, 40)})
	failed("long note", err)
	_, err = adm.Admin.RevokeKeys(ctx, &pb.RevokeKeysRequest{Selection: &pb.Selection{}, Note: note})
	failed("no selection", err)
	// A secret in the wrong field.
	secret := token.Reveal()
	failed("token for a handle", fetching(con, g.Name, token, secret))
	failed("token for a grant", fetching(con, secret, token, handles[0]))
	_, err = con.Release.ListRecords(ctx, &pb.ListRecordsRequest{Grant: g.Name, GrantToken: secret, PageToken: secret})
	failed("token for a page", err)
	_, err = con.Grants.ActivateGrant(ctx, &pb.ActivateGrantRequest{Name: "grants/" + secret})
	failed("token for a name", err)

	// Refusals.
	failed("ended token", fetching(con, g.Name, old, handles[0]))
	failed("altered token", fetching(con, g.Name, vault.TokenOf(secret+"x"), handles[0]))
	failed("token with a line", fetching(con, g.Name, vault.TokenOf(secret+"\n"), handles[0]))
	failed("another's token", fetching(s.as("/contractor/other-org/w"), g.Name, token, handles[0]))
	failed("not a contractor", fetching(cam, g.Name, token, handles[0]))
	failed("unknown handle", fetching(con, g.Name, token, vault.Handle(vault.NewID()).String()))
	_, err = con.Admin.SuspendContractor(ctx, &pb.SuspendContractorRequest{Name: "contractors/other-org", Note: note})
	failed("a contractor as admin", err)
	_, err = con.Capture.StoreImage(ctx, &pb.StoreImageRequest{RequestId: reqID.String(), Image: pic})
	failed("a contractor storing", err)
	for _, method := range []string{"/portcullis.v1.ReleaseService/" + url.QueryEscape(raw), "/" + url.QueryEscape(raw) + "/x"} {
		// gRPC itself tells the caller the name that the caller sent, so this error is not kept.
		if s.dialAs(matcher).Invoke(ctx, method, &pb.WhoAmIRequest{}, &pb.WhoAmIResponse{}) == nil {
			t.Errorf("%s answered", method)
		}
	}

	// Panics, whose values hold secrets.
	for _, v := range []any{secret + just, fmt.Errorf("token %s of %s", secret, just), pic, struct{ Token string }{secret}} {
		broken.set(v)
		failed("panic outside of a transaction", storing(pic))
		_, err := asking(just)
		failed("panic in a transaction", err)
	}
	broken.set(nil)

	// Vault sealed, then dead.
	vaultless := func(how string) {
		t.Helper()
		failed(how+": store", storing(pic))
		failed(how+": fetch", fetching(con, g.Name, token, handles[0]))
		_, err := con.Grants.ActivateGrant(ctx, &pb.ActivateGrantRequest{Name: g.Name})
		failed(how+": activate", err)
	}
	noError(t, s.vault.Seal(t.Context()))
	vaultless("sealed")
	said.WriteString(s.page())
	noError(t, s.vault.Unseal(t.Context()))
	noError(t, s.vault.Kill())
	vaultless("dead")
	noError(t, s.vault.Restart(t.Context()))
	s.wantSoon("Vault is back", func() error { return fetching(con, g.Name, token, handles[0]) })

	// The database locked by another, and damaged.
	db := openSQL(t, s.cfg.Store.Path)
	lock, err := db.Conn(t.Context())
	noError(t, err)
	_, err = lock.ExecContext(t.Context(), "BEGIN IMMEDIATE")
	noError(t, err)
	short, cancel := context.WithTimeout(ctx, 14*time.Second)
	_, err = con.Release.FetchImage(short, &pb.FetchImageRequest{Grant: g.Name, GrantToken: secret, Handle: handles[0]})
	cancel()
	failed("database locked", err)
	_, err = lock.ExecContext(t.Context(), "ROLLBACK")
	noError(t, err)
	noError(t, lock.Close())
	s.wantSoon("the database is free", func() error { return fetching(con, g.Name, token, handles[0]) })
	damaged := func(what, break_, mend string) {
		t.Helper()
		_, err := db.ExecContext(t.Context(), break_)
		noError(t, err)
		failed(what+": fetch", fetching(con, g.Name, token, handles[0]))
		_, err = db.ExecContext(t.Context(), mend)
		noError(t, err)
	}
	damaged("no table", "ALTER TABLE records RENAME TO elsewhere", "ALTER TABLE elsewhere RENAME TO records")
	damaged("wrapped key", "UPDATE records SET wrapped_key = wrapped_key || 'x'", "UPDATE records SET wrapped_key = substr(wrapped_key, 1, length(wrapped_key) - 1)")
	noError(t, filepath.WalkDir(s.cfg.Blobs.Path, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		return os.WriteFile(path, []byte("damaged"), 0o600)
	}))
	failed("blob damaged", fetching(con, g.Name, token, handles[0]))
	noError(t, os.Rename(s.cfg.Blobs.Path, s.cfg.Blobs.Path+".gone"))
	failed("blobs gone: store", storing(pic))
	failed("blobs gone: fetch", fetching(con, g.Name, token, handles[0]))
	noError(t, os.Rename(s.cfg.Blobs.Path+".gone", s.cfg.Blobs.Path))

	// Endings, with notes, and what comes after.
	_, err = adm.Admin.RevokeKeys(ctx, &pb.RevokeKeysRequest{Selection: wire.Selection(vault.Selection{Site: devSite, From: time.Now().Add(-time.Hour), Until: time.Now().Add(time.Hour)}), Note: note})
	noError(t, err)
	failed("key revoked", fetching(con, g.Name, token, handles[0]))
	_, err = adm.Admin.SuspendContractor(ctx, &pb.SuspendContractorRequest{Name: "contractors/" + devOrg, Note: note})
	noError(t, err)
	con = s.as(matcher)
	failed("suspended", fetching(con, g.Name, token, handles[0]))
	for _, e := range s.events() {
		b, err := json.Marshal(e.Event)
		noError(t, err)
		said.Write(b)
	}
	said.WriteString(s.page())

	// Credentials that Vault does not take, and files that are damaged.
	var traces strings.Builder
	n := 0
	gather := func() { // before the daemon ends its exporter, which then forgets
		for _, span := range spans.GetSpans() {
			fmt.Fprintf(&traces, "%+v\n", span)
			n++
		}
	}
	gather()
	noError(t, s.Close())
	wrong := c.text("wrong secret ID")[len("canary "):]
	path := filepath.Join(s.cfg.Vault.Credentials, "capture.json")
	good, err := os.ReadFile(path)
	noError(t, err)
	noError(t, os.WriteFile(path, (hcvault.AppRole{RoleID: "role", SecretID: wrong}).Encode(), 0o600))
	restart()
	cam = s.as(lane)
	failed("login refused", storing(pic))
	said.WriteString(s.page())
	gather()
	noError(t, s.Close())
	noError(t, os.WriteFile(path, good[:len(good)-4], 0o600))
	_, err = start(t.Context(), s.cfg, slog.New(slog.NewJSONHandler(s.logs, nil)))
	failed("damaged credential", err)

	// The search.
	texts := map[string]string{"log": s.logs.String(), "metrics and events": said.String(), "errors": errs.String(), "traces": traces.String()}
	for where, text := range texts {
		if len(text) < 2000 {
			t.Errorf("%s: only %d bytes; nothing was searched", where, len(text))
		}
		for _, f := range c.find(text) {
			t.Errorf("%s: %s", where, f)
		}
		if m := vaultToken.FindString(text); m != "" {
			t.Errorf("%s: a token of Vault", where)
		}
	}
	if strings.Contains(texts["traces"], "spiffe:") || strings.Contains(texts["traces"], handles[0]) {
		t.Error("traces name callers or handles")
	}
	if got := strings.Count(texts["log"], "panic"); got < 8 {
		t.Errorf("%d panics in the log, want 8 at least", got)
	}
	t.Logf("%d secrets in %d bytes of log, %d of metrics and events, %d of errors, %d of traces (%d spans)",
		len(c.secret), len(texts["log"]), said.Len(), errs.Len(), traces.Len(), n)
}

// wantSoon polls until fn succeeds.
func (s *service) wantSoon(what string, fn func() error) {
	s.t.Helper()
	wait(s.t, what, func() bool { return fn() == nil })
}
