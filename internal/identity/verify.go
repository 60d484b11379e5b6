package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// verifyChain proves that the presented certificates (the leaf first) go back to roots
// and are good for a client at now. It gives the time from which they no longer are.
func verifyChain(presented []*x509.Certificate, roots *x509.CertPool, now time.Time) (time.Time, error) {
	between := x509.NewCertPool()
	for _, c := range presented[1:] {
		between.AddCert(c)
	}
	chains, err := presented[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return time.Time{}, err
	}
	var end time.Time
	for _, chain := range chains {
		first := chain[0].NotAfter
		for _, c := range chain[1:] {
			if c.NotAfter.Before(first) {
				first = c.NotAfter
			}
		}
		if first.After(end) {
			end = first
		}
	}
	return end, nil
}

// verifyPeer is the whole check of a connection, made once its handshake is otherwise done.
func verifyPeer(state tls.ConnectionState, roots *x509.CertPool, trustDomain string, now time.Time) (vault.Caller, time.Time, error) {
	refuse := func(err error) (vault.Caller, time.Time, error) { return vault.Caller{}, time.Time{}, err }
	switch {
	case state.Version != tls.VersionTLS13:
		return refuse(errors.New("the connection is not TLS 1.3"))
	case state.NegotiatedProtocol != alpn:
		return refuse(errors.New("the client does not ask for HTTP/2 by ALPN"))
	case state.DidResume:
		return refuse(errors.New("the session is a resumed one"))
	case len(state.PeerCertificates) == 0:
		return refuse(errors.New("the client has no certificate"))
	case len(state.PeerCertificates) > vault.MaxChain:
		return refuse(fmt.Errorf("the client sent %d certificates; at most %d are allowed", len(state.PeerCertificates), vault.MaxChain))
	}
	for _, c := range state.PeerCertificates {
		if len(c.Raw) > vault.MaxCertificate {
			return refuse(fmt.Errorf("a certificate has %d bytes; at most %d are allowed", len(c.Raw), vault.MaxCertificate))
		}
	}
	leaf := state.PeerCertificates[0]
	end, err := verifyChain(state.PeerCertificates, roots, now)
	if err != nil {
		return refuse(err)
	}
	switch {
	case leaf.IsCA, leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		// X509-SVID, section 4: a leaf must not be able to sign other certificates.
		return refuse(errors.New("the certificate is an authority's"))
	case !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth):
		// The chain's check also passes a certificate that names no usage at all.
		return refuse(errors.New("the certificate is not for clients"))
	case len(leaf.URIs) != 1:
		return refuse(fmt.Errorf("the certificate names %d URIs; it must name exactly one", len(leaf.URIs)))
	}
	id, err := spiffeid.FromURI(leaf.URIs[0])
	if err != nil {
		return refuse(err)
	}
	caller, err := vault.ParseCaller(trustDomain, id.String())
	if err != nil {
		return refuse(err)
	}
	caller.Cert = vault.DigestOf(leaf.Raw)
	return caller, end, nil
}
