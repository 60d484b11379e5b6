package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/url"
	"slices"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// DefaultLife is how long a development certificate is valid.
const DefaultLife = 90 * 24 * time.Hour

// Leaf says what a certificate is like. The zero value is a client's of [DefaultLife].
type Leaf struct {
	// Hosts are DNS names and IP addresses. A certificate with hosts is a server's and
	// good for nothing else; one without is a client's.
	Hosts []string

	// Life counts from NotBefore; 0 means [DefaultLife]. It ends with the authority's.
	Life time.Duration

	// NotBefore is when it becomes valid; zero means now, less five minutes for clocks.
	NotBefore time.Time
}

// LocalServer is a server's certificate for this machine.
var LocalServer = Leaf{Hosts: []string{"localhost", "127.0.0.1", "::1"}}

// Pair is where a certificate and its key lie.
type Pair struct {
	Cert string // PEM
	Key  string // PEM (PKCS #8), mode 0600
}

// ServerID is the SPIFFE ID of the service itself in this trust domain. Clients expect it.
func (a *Authority) ServerID() string { return "spiffe://" + a.td.Name() + "/portcullisd" }

// Issue gives NAME.pem and NAME.key for a SPIFFE ID of the authority's trust domain. What
// is there already stays when it is of this authority, says the same, its key fits and
// no one else can read it, and at least a third of its life remains; otherwise both are
// made anew. Files are written whole and renamed into place, the key first; a reader
// between the two finds a key that does not fit and should keep what it had.
func (a *Authority) Issue(name, id string, leaf Leaf) (Pair, error) {
	pair := Pair{Cert: a.path(name, ".pem"), Key: a.path(name, ".key")}
	if err := a.issue(name, id, leaf, pair); err != nil {
		return Pair{}, fmt.Errorf("issue certificate %q: %w", name, err)
	}
	return pair, nil
}

func (a *Authority) issue(name, id string, leaf Leaf, pair Pair) error {
	// It becomes a file name.
	if err := vault.CheckName("name", name); err != nil {
		return err
	}
	if name == caName {
		return fmt.Errorf("the name is the authority's own")
	}
	sid, err := spiffeid.FromString(id)
	if err != nil {
		return err
	}
	if !sid.MemberOf(a.td) || sid.Path() == "" {
		return fmt.Errorf("%s is not the identity of a workload of %s", id, a.td)
	}
	template, err := a.template(sid, leaf)
	if err != nil {
		return err
	}
	if a.good(pair, template) {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return err
	}
	if err := writeKey(pair.Key, key); err != nil {
		return err
	}
	return writeFile(pair.Cert, certificatePEM(der), 0o644)
}

func (a *Authority) template(id spiffeid.ID, leaf Leaf) (*x509.Certificate, error) {
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial,
		// X509-SVID: the identity is the URI alone. The name is for people.
		Subject:               pkix.Name{Organization: []string{"Portcullis development"}},
		URIs:                  uris(id),
		NotBefore:             leaf.NotBefore,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	if len(leaf.Hosts) > 0 {
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	for _, h := range leaf.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	if leaf.Life < 0 {
		return nil, fmt.Errorf("a life of %s is none", leaf.Life)
	}
	life := leaf.Life
	if life == 0 {
		life = DefaultLife
	}
	if t.NotBefore.IsZero() {
		t.NotBefore = a.now().Add(-backdate)
		life += backdate
	}
	t.NotAfter = t.NotBefore.Add(life)
	if t.NotAfter.After(a.cert.NotAfter) {
		t.NotAfter = a.cert.NotAfter
	}
	return t, nil
}

// good says whether what lies there can stay. Whatever is wrong with it, making it anew mends it.
func (a *Authority) good(pair Pair, want *x509.Certificate) bool {
	key, err := readKey(pair.Key)
	if err != nil {
		return false
	}
	have, n, err := readCertificate(pair.Cert)
	if err != nil || n != 1 {
		return false
	}
	life := have.NotAfter.Sub(have.NotBefore)
	return key.PublicKey.Equal(have.PublicKey) &&
		have.CheckSignatureFrom(a.cert) == nil &&
		have.NotAfter.Sub(a.now()) >= life/3 &&
		sameLife(life, want.NotAfter.Sub(want.NotBefore), want.NotAfter.Equal(a.cert.NotAfter)) &&
		slices.EqualFunc(have.URIs, want.URIs, func(a, b *url.URL) bool { return a.String() == b.String() }) &&
		slices.Equal(have.DNSNames, want.DNSNames) &&
		slices.EqualFunc(have.IPAddresses, want.IPAddresses, net.IP.Equal) &&
		slices.Equal(have.ExtKeyUsage, want.ExtKeyUsage)
}

// sameLife allows for the whole seconds of certificates. A life that the authority's end
// cuts short differs at each issue, and says nothing.
func sameLife(have, want time.Duration, cutShort bool) bool {
	return cutShort || (have-want).Abs() <= 2*time.Second
}

func uris(id spiffeid.ID) []*url.URL { return []*url.URL{id.URL()} }
