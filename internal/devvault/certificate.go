package devvault

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"
)

const (
	certLife  = 365 * 24 * time.Hour
	certSpare = 7 * 24 * time.Hour // a certificate with less left is replaced at the next start
)

// ensureCertificate mints the listener's certificate in dir, unless there is one with a week or more to live.
func ensureCertificate(dir string, now time.Time) error {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, certFile), filepath.Join(dir, certKeyFile))
	if err == nil && now.Before(pair.Leaf.NotAfter.Add(-certSpare)) {
		if ok, err := exists(filepath.Join(dir, caFile)); ok || err != nil {
			return err
		}
	}
	if err := mintCertificate(dir, now); err != nil {
		return fmt.Errorf("certificate of the development Vault: %w", err)
	}
	return nil
}

// mintCertificate makes a CA, signs one certificate for 127.0.0.1 with it and forgets the CA's key: what trusts this
// CA trusts this one listener.
func mintCertificate(dir string, now time.Time) error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Portcullis development Vault CA"},
		NotBefore:             now.Add(-time.Hour), // clocks differ
		NotAfter:              now.Add(certLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "Portcullis development Vault"},
		NotBefore:   ca.NotBefore,
		NotAfter:    ca.NotAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return err
	}
	signer, err := x509.ParseCertificate(caDER)
	if err != nil {
		return err
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, signer, key.Public(), caKey)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	block := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	// The key comes last: until it fits the certificate, the next start mints anew.
	return errors.Join(
		writeFile(dir, caFile, block("CERTIFICATE", caDER)),
		writeFile(dir, certFile, block("CERTIFICATE", leafDER)),
		writeFile(dir, certKeyFile, block("PRIVATE KEY", keyDER)),
	)
}
