package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const trustDomain = "portcullis.test"

// ca mints certificates of any shape, also ones that package certs refuses to make.
type ca struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// leaf is a certificate with its key, in both forms.
type leaf struct {
	tls           tls.Certificate
	certPEM, pkey []byte
}

func newCA(t testing.TB) *ca {
	t.Helper()
	c := &ca{t: t}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(240 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	var der []byte
	c.cert, c.key, der = c.sign(template, nil)
	c.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return c
}

func (c *ca) sign(template *x509.Certificate, by *ca) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		c.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		c.t.Fatal(err)
	}
	return cert, key, der
}

// mint makes a certificate; change may turn a good client's into anything.
func (c *ca) mint(change func(*x509.Certificate), ids ...string) leaf {
	c.t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		c.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	for _, id := range ids {
		u, err := url.Parse(id)
		if err != nil {
			c.t.Fatal(err)
		}
		template.URIs = append(template.URIs, u)
	}
	if change != nil {
		change(template)
	}
	_, key, der := c.sign(template, c)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		c.t.Fatal(err)
	}
	l := leaf{
		certPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pkey:    pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
	}
	if l.tls, err = tls.X509KeyPair(l.certPEM, l.pkey); err != nil {
		c.t.Fatal(err)
	}
	return l
}

func (c *ca) client(path string) leaf { return c.mint(nil, "spiffe://"+trustDomain+path) }

func (c *ca) server() leaf {
	return c.mint(func(x *x509.Certificate) {
		x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		x.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}, "spiffe://"+trustDomain+"/portcullisd")
}

func (c *ca) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c.cert)
	return p
}

// paths are the files that Files follows.
type paths struct{ cert, key, bundle string }

func (c *ca) write(l leaf, authorities ...*ca) paths {
	c.t.Helper()
	dir := c.t.TempDir()
	p := paths{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "cert.key"), filepath.Join(dir, "ca.pem")}
	put(c.t, p.cert, l.certPEM)
	put(c.t, p.key, l.pkey)
	put(c.t, p.bundle, bundle(append([]*ca{c}, authorities...)...))
	return p
}

func bundle(all ...*ca) []byte {
	var b []byte
	for _, c := range all {
		b = slices.Concat(b, c.pem)
	}
	return b
}

// put replaces a file the way a rotation should: beside it, then renamed.
func put(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
