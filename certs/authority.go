package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// DefaultDir is where development certificates go, from the root of a checkout.
const DefaultDir = "certs/dev"

const (
	caName = "ca"

	// caLife is long because nothing hangs on it: who holds the directory holds the key.
	caLife = 10 * 365 * 24 * time.Hour

	// backdate lets a machine whose clock is a little behind accept a new certificate.
	backdate = 5 * time.Minute
)

// Authority issues the certificates of one trust domain. It may be used from several
// goroutines for different names. Two processes must not Open an empty directory at once.
type Authority struct {
	dir  string
	td   spiffeid.TrustDomain
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	now  func() time.Time
}

// Open gives the authority of a directory, and makes both the first time: an ECDSA P-256
// key in ca.key (mode 0600), and ca.pem, valid for ten years and by its name constraint
// for this trust domain alone. It fails when the directory holds another trust domain's
// authority, one that has expired, or a key that others can read.
func Open(dir, trustDomain string) (*Authority, error) {
	return open(dir, trustDomain, time.Now)
}

func open(dir, trustDomain string, now func() time.Time) (*Authority, error) {
	td, err := spiffeid.TrustDomainFromString(trustDomain)
	if err != nil {
		return nil, fmt.Errorf("open authority: trust domain %q: %w", trustDomain, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	a := &Authority{dir: dir, td: td, now: now}
	// Before any key: a crash must not leave one that git would take.
	if err := a.ignore(); err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	err = a.load()
	if errors.Is(err, fs.ErrNotExist) {
		if _, missing := os.Stat(a.path(caName, ".pem")); missing == nil {
			// Others trust this ca.pem; a new one would break them without a word.
			return nil, fmt.Errorf("open authority: %s is there and its key is not; remove it to begin anew", a.Bundle())
		}
		err = a.create()
	}
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	return a, nil
}

// Bundle is the path of ca.pem, the bundle that both sides trust.
func (a *Authority) Bundle() string { return a.path(caName, ".pem") }

func (a *Authority) path(name, ext string) string { return filepath.Join(a.dir, name+ext) }

func (a *Authority) ignore() error {
	path := filepath.Join(a.dir, ".gitignore")
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	return writeFile(path, []byte("# keys are never committed\n*\n"), 0o644)
}

func (a *Authority) load() error {
	key, err := readKey(a.path(caName, ".key"))
	if err != nil {
		return err
	}
	cert, _, err := readCertificate(a.Bundle())
	if err != nil {
		return err
	}
	switch {
	case !key.PublicKey.Equal(cert.PublicKey):
		return fmt.Errorf("%s and its key do not belong together; remove both to begin anew", a.Bundle())
	case !slices.Equal(cert.PermittedURIDomains, []string{a.td.Name()}):
		return fmt.Errorf("%s is the authority of %q, not of %q", a.Bundle(), cert.PermittedURIDomains, a.td.Name())
	case a.now().After(cert.NotAfter):
		return fmt.Errorf("%s expired at %s; remove it and its key to begin anew", a.Bundle(), cert.NotAfter.UTC().Format(time.RFC3339))
	}
	a.cert, a.key = cert, key
	return nil
}

func (a *Authority) create() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := serialNumber()
	if err != nil {
		return err
	}
	now := a.now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"Portcullis development"}, CommonName: a.td.Name()},
		URIs:                  uris(a.td.ID()),
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
		// The field is named after DNS and holds for all constraints.
		PermittedDNSDomainsCritical: true, PermittedURIDomains: []string{a.td.Name()},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	// The key first: without ca.pem it is worth nothing, and the next Open begins anew.
	if err := writeKey(a.path(caName, ".key"), key); err != nil {
		return err
	}
	if err := writeFile(a.Bundle(), certificatePEM(der), 0o644); err != nil {
		return err
	}
	a.key = key
	a.cert, err = x509.ParseCertificate(der)
	return err
}

// serialNumber is 127 random bits: RFC 5280 wants it unique, positive and at most 20 bytes.
func serialNumber() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	return n.Add(n, big.NewInt(1)), nil
}
