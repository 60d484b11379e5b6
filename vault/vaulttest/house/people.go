package house

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"image"
	"image/color"
	"image/png"
	"math/big"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/capture"
	"github.com/portcullis/portcullis/vault/grants"
)

// The trust domain of the house, and the service's own path in it.
const (
	domain  = "vault.test"
	service = "portcullisd"
)

// people is the authority that admins' certificates go back to.
type people struct {
	ca    *x509.Certificate
	key   *ecdsa.PrivateKey
	roots *x509.CertPool

	mu    *sync.Mutex
	known map[string]Person
}

func newPeople(t testing.TB) people {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: Start.Add(-time.Hour), NotAfter: Start.AddDate(1, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	return people{ca, key, roots, &sync.Mutex{}, map[string]Person{}}
}

// Authority is whom signatures go back to.
func (h *House) Authority() vault.Authority {
	return vault.Authority{TrustDomain: domain, Roots: h.people.roots}
}

// Person is a caller with a certificate and its key.
type Person struct {
	vault.Caller
	key   *ecdsa.PrivateKey
	chain [][]byte
	clock *Clock
}

// Sign signs a decision, now.
func (p Person) Sign(d vault.Decision) vault.Signature {
	sig, err := vault.Sign(d, p.key, p.chain, p.clock.Now())
	if err != nil {
		panic(err) // with these keys and certificates it can not be
	}
	return sig
}

var (
	conns   atomic.Uint64
	serials atomic.Int64
)

// Caller gives the caller of a path, such as "contractor/acme/tuning", on a new connection.
func (h *House) Caller(path string) vault.Caller {
	h.Helper()
	c, err := vault.ParseCaller(domain, "spiffe://"+domain+"/"+path)
	h.NoError(err)
	c.Conn, c.Addr = conns.Add(1), "127.0.0.1:9"
	h.Connect(c)
	return c
}

// Person gives the person of a path, such as "admin/alice": the same one each time.
func (h *House) Person(path string) Person {
	h.Helper()
	h.people.mu.Lock()
	defer h.people.mu.Unlock()
	if p, ok := h.people.known[path]; ok {
		return p
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	h.NoError(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serials.Add(1) + 1), NotBefore: h.people.ca.NotBefore, NotAfter: h.people.ca.NotAfter,
		URIs:     []*url.URL{{Scheme: "spiffe", Host: domain, Path: "/" + path}},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, h.people.ca, key.Public(), h.people.key)
	h.NoError(err)
	p := Person{key: key, chain: [][]byte{der}, clock: h.Clock}
	if path != service {
		p.Caller = h.Caller(path)
	}
	p.Cert = vault.DigestOf(der)
	h.people.known[path] = p
	return p
}

// Alice is an admin.
func (h *House) Alice() Person { h.Helper(); return h.Person("admin/alice") }

// Bob is another.
func (h *House) Bob() Person { h.Helper(); return h.Person("admin/bob") }

// attester attests as the service.
type attester struct{ h *House }

func (a attester) Attest(text string) (string, error) {
	p := a.h.Person(service)
	return vault.Attest(text, p.key, p.chain)
}

// Decide has an action proposed and signed by alice and, if it takes two, by bob.
func (h *House) Decide(a breach.Action) (vault.Proposal, *breach.KeyWork) {
	h.Helper()
	d := h.Propose(a)
	d, out, err := h.Breach.Sign(h.ctx(), h.Alice().Caller, d.ID, h.Alice().Sign(d.Decision))
	h.NoError(err)
	if !d.Effective {
		d, out, err = h.Breach.Sign(h.ctx(), h.Bob().Caller, d.ID, h.Bob().Sign(d.Decision))
		h.NoError(err)
	}
	return d, out.Keys
}

// Propose has alice propose an action.
func (h *House) Propose(a breach.Action) vault.Proposal {
	h.Helper()
	d, err := h.Breach.Propose(h.ctx(), h.Alice().Caller, a)
	h.NoError(err)
	return d
}

func (h *House) ctx() context.Context { return context.Background() }

// Admit admits contractors, or reinstates them.
func (h *House) Admit(names ...string) {
	h.Helper()
	for _, name := range names {
		h.Decide(breach.Action{Contractor: &vault.Contractor{Name: name, Title: "Contractor " + name}})
	}
}

// Tuning is a purpose for acme and beta: faces and plates of north and south, joined.
func Tuning() vault.Purpose {
	return vault.Purpose{
		Name: "tuning", Title: "Tune the matcher", LegalBasis: "Order 12", Modalities: []vault.Modality{vault.Face, vault.Plate}, Linkage: true,
		Sites: []string{"north", "south"}, Contractors: []string{"acme", "beta"},
		MaxTTL: 8 * time.Hour, MaxRecords: 100_000, MaxBytes: 1 << 40, MaxRate: vault.MaxRate, MaxRecordAge: 365 * 24 * time.Hour,
		Precision: vault.PrecisionExact, Approvals: 2, Live: true, Retention: []string{vault.DefaultClass},
	}
}

// Open admits acme and beta and sanctions [Tuning].
func (h *House) Open() {
	h.Helper()
	h.Admit("acme", "beta")
	p := Tuning()
	h.Decide(breach.Action{Purpose: &p})
}

// Scope is the whole of February 2026 and the day of [Start], both modalities of both sites.
func Scope() vault.Scope {
	return vault.Scope{
		Sites: []string{"north", "south"}, Modalities: []vault.Modality{vault.Face, vault.Plate},
		From: time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC), Until: time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC),
	}
}

// Ask is a request for [Scope] under [Tuning], for an hour.
func Ask() grants.Request {
	return grants.Request{
		ID: vault.NewID(), Purpose: "tuning", Scope: Scope(), MaxRecords: 1000, TTL: time.Hour, Justification: "WO-1",
	}
}

// Requested gives a pending grant.
func (h *House) Requested(c vault.Caller, change ...func(*grants.Request)) vault.Grant {
	h.Helper()
	r := Ask()
	for _, f := range change {
		f(&r)
	}
	g, err := h.Grants.Request(h.ctx(), c, r)
	h.NoError(err)
	return g
}

// Approved gives an approved grant.
func (h *House) Approved(c vault.Caller, change ...func(*grants.Request)) vault.Grant {
	h.Helper()
	g := h.Requested(c, change...)
	for _, p := range []Person{h.Alice(), h.Bob()} {
		_, err := h.Grants.Approve(h.ctx(), p.Caller, g.Grant, p.Sign(g.Decision()))
		h.NoError(err)
	}
	return h.Grant(g.Grant)
}

// Active gives an active grant and its token.
func (h *House) Active(c vault.Caller, change ...func(*grants.Request)) (vault.Grant, vault.Token) {
	h.Helper()
	g := h.Approved(c, change...)
	_, t, err := h.Grants.Activate(h.ctx(), c, g.Grant)
	h.NoError(err)
	return h.Grant(g.Grant), t
}

// Grant reads a grant.
func (h *House) Grant(id vault.ID) vault.Grant {
	h.Helper()
	v, err := h.Grants.Get(h.ctx(), h.Alice().Caller, id)
	h.NoError(err)
	return v.Grant
}

// Picture is an image unlike any other.
func Picture() []byte {
	m := image.NewRGBA(image.Rect(0, 0, 8, 8))
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(serials.Add(1)))
	for i, b := range n {
		m.Set(i, i, color.RGBA{b, byte(i), 0, 255})
	}
	var out bytes.Buffer
	if err := png.Encode(&out, m); err != nil {
		panic(err) // into memory it can not be
	}
	return out.Bytes()
}

// Shot is an image for the device of a site, taken so long before now.
func (h *House) Shot(m vault.Modality, ago time.Duration) capture.Image {
	return capture.Image{
		RequestID: vault.NewID(), Modality: m, CapturedAt: h.Clock.Now().Add(-ago), CrossingID: vault.NewID(), Bytes: Picture(),
	}
}

// Record stores an image of a site, taken so long before now.
func (h *House) Record(site string, m vault.Modality, ago time.Duration) vault.Record {
	h.Helper()
	r, _, err := h.Capture.Store(h.ctx(), h.Caller("capture/"+site+"/lane-1"), h.Shot(m, ago))
	h.NoError(err)
	return r
}

// Records stores n faces of north, one a minute back in time.
func (h *House) Records(n int) []vault.Record {
	h.Helper()
	out := make([]vault.Record, n)
	for i := range out {
		out[i] = h.Record("north", vault.Face, time.Duration(i)*time.Minute)
	}
	return out
}

// KeyState reads what a record's row says of its key.
func (h *House) KeyState(id vault.ID) vault.KeyState {
	h.Helper()
	return vault.KeyState(h.Ask("SELECT key_state FROM records WHERE id = ?", id.String()))
}

// Opens says whether Vault itself lets the token open the record's key, past our own rules.
func (h *House) Opens(t vault.Token, r vault.Record) error {
	_, err := h.Vault.Unwrap(h.ctx(), t, r.KeyName(), r.WrappedKey)
	return err
}

// One selects one record.
func One(r vault.Record) vault.Selection { return vault.Selection{Record: r.ID} }

// All selects all records of north.
func All() vault.Selection {
	return vault.Selection{Site: "north", From: Scope().From, Until: Scope().Until}
}

// String is what stands for a trace in a message.
func String(trace []string) string { return strings.Join(trace, " ") }
