package identity

import (
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// CheckTrustDomain says whether s is the name of a trust domain, by SPIFFE's grammar.
func CheckTrustDomain(s string) error {
	td, err := spiffeid.TrustDomainFromString(s)
	if err != nil {
		return fmt.Errorf("%q: %w", s, err)
	}
	if td.Name() != s {
		return fmt.Errorf("%q is an ID; the trust domain is %s", s, td.Name())
	}
	return nil
}

// CheckCertificates says whether a file can be read and holds certificates (PEM) and nothing else.
func CheckCertificates(path string) error {
	b, err := readFile(path)
	if err != nil {
		return err
	}
	if _, err := certificates(b); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// ID gives the SPIFFE ID of the newest certificate.
func (f *Files) ID() (string, error) {
	leaf, err := x509.ParseCertificate(f.Certificate().Certificate[0])
	if err != nil {
		return "", err
	}
	if len(leaf.URIs) != 1 {
		return "", fmt.Errorf("the certificate names %d URIs; it must name exactly one, its SPIFFE ID", len(leaf.URIs))
	}
	if leaf.IsCA {
		return "", errors.New("the certificate is an authority's")
	}
	id, err := spiffeid.FromURI(leaf.URIs[0])
	if err != nil {
		return "", err
	}
	return id.String(), nil
}
