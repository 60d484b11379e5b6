package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/portcullis/portcullis/vault"
)

// others says in words that others than the owner can get at a file.
func others(info fs.FileInfo) (string, bool) {
	mode := info.Mode().Perm()
	return fmt.Sprintf("%s has mode %04o, so others can get at it", info.Name(), mode), mode&0o077 != 0
}

func (d *doctor) keyFile() {
	path := d.profile.client.Key
	info, err := os.Stat(path)
	if err != nil {
		d.fail(checkKeyFile, "name the profile's key in "+d.profile.file, "%v", err)
		return
	}
	if what, open := others(info); open {
		d.fail(checkKeyFile, "chmod 600 "+path+"; if others have been on this machine, have a new certificate issued", "%s", what)
		return
	}
	d.ok(checkKeyFile, "%s, yours alone", path)
}

func (d *doctor) tokenFiles() {
	t := d.profile.tokens()
	info, err := os.Stat(string(t))
	if errors.Is(err, fs.ErrNotExist) {
		d.ok(checkTokens, "none kept")
		return
	}
	if err != nil {
		d.fail(checkTokens, "mend the folder, or remove it: \"grant activate\" makes it anew", "%v", err)
		return
	}
	if what, open := others(info); open {
		d.fail(checkTokens, "chmod 700 "+string(t)+"; then \"grant activate\" again for new tokens", "folder %s", what)
		return
	}
	ids, err := t.held()
	if err != nil {
		d.fail(checkTokens, "mend the folder, or remove it: \"grant activate\" makes it anew", "%v", err)
		return
	}
	for _, id := range ids {
		info, err := os.Stat(t.path(id))
		if err != nil {
			continue // it went meanwhile
		}
		if what, open := others(info); open {
			d.fail(checkTokens, "run \"grant activate "+id.String()+"\" again: it ends the token that others may have read", "%s", what)
			return
		}
	}
	d.ok(checkTokens, "%s, yours alone", count(len(ids), "token"))
}

// certificate looks at the profile's certificate by itself.
func (d *doctor) certificate() {
	c := d.profile.client
	pair, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
	if err != nil {
		d.fail(checkCertificate, "certificate and key of the profile must be PEM files that belong together; have them issued anew if they do not", "%v", err)
		d.skip("no certificate", checkIdentity, checkValidity)
		return
	}
	d.pair = &pair
	d.ok(checkCertificate, "%s, fits its key", c.Certificate)
	d.identity(pair.Leaf)
	d.validity(pair.Leaf)
}

func (d *doctor) identity(leaf *x509.Certificate) {
	const next = "have a certificate issued that names one SPIFFE ID, such as spiffe://DOMAIN/contractor/ORG/WORKLOAD, for clients"
	td := trustDomain(d.profile.client.ServerID)
	switch {
	case len(leaf.URIs) != 1:
		d.fail(checkIdentity, next, "the certificate names %d URIs; it must name exactly one", len(leaf.URIs))
		return
	case leaf.IsCA:
		d.fail(checkIdentity, next, "the certificate is an authority's, not a caller's")
		return
	case !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth):
		d.fail(checkIdentity, next, "the certificate is not for clients")
		return
	}
	id := leaf.URIs[0].String()
	caller, err := vault.ParseCaller(td, id)
	if err != nil {
		d.fail(checkIdentity, "the certificate must be of the trust domain "+td+", as server_id is, and for a capture system, contractor, admin or auditor", "%v", err)
		return
	}
	d.ok(checkIdentity, "%s, %s", id, caller.Role)
}

func (d *doctor) validity(leaf *x509.Certificate) {
	now := d.now()
	left := leaf.NotAfter.Sub(now)
	switch {
	case now.Before(leaf.NotBefore):
		d.fail(checkValidity, d.clockToo()+"; else wait", "the certificate is valid only from %s, in %s", vault.FormatTime(leaf.NotBefore), span(leaf.NotBefore.Sub(now)))
	case left <= 0:
		d.fail(checkValidity, "have a new one issued; but "+d.clockToo(), "the certificate expired at %s, %s ago", vault.FormatTime(leaf.NotAfter), span(-left))
	case left < leaf.NotAfter.Sub(leaf.NotBefore)/10:
		d.warn(checkValidity, "have a new one issued; it is used from the next connection on", "the certificate expires at %s, in %s", vault.FormatTime(leaf.NotAfter), span(left))
	default:
		d.ok(checkValidity, "until %s, for %s", vault.FormatTime(leaf.NotAfter), span(left))
	}
}

// bundle are the authorities that the configuration names.
type bundle struct {
	file        string
	authorities []*x509.Certificate
}

func (b *bundle) pool() *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range b.authorities {
		p.AddCert(c)
	}
	return p
}

func (d *doctor) readBundle() {
	const next = "bundle must be a PEM file with the authorities of the trust domain: get it from whoever runs the service"
	file := d.config.Bundle
	text, err := readLimited(file, 1<<20)
	if err != nil {
		d.fail(checkBundle, next, "%v", err)
		return
	}
	b := &bundle{file: file}
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			d.fail(checkBundle, next, "%s: %v", file, err)
			return
		}
		b.authorities = append(b.authorities, c)
	}
	if len(b.authorities) == 0 {
		d.fail(checkBundle, next, "no certificate in %s", file)
		return
	}
	d.bundle = b
	now, valid := d.now(), 0
	for _, c := range b.authorities {
		if !now.Before(c.NotBefore) && !now.After(c.NotAfter) {
			valid++
		}
	}
	if valid == 0 {
		d.fail(checkBundle, "get the new bundle; but "+d.clockToo(), "none of the %d authorities in %s is valid now", len(b.authorities), file)
		return
	}
	d.ok(checkBundle, "%s, with %d valid of %d authorities", file, valid, len(b.authorities))
}

// chain asks whether the profile's certificate is of the bundle, whatever the time is.
func (d *doctor) chain() {
	if d.pair == nil || d.bundle == nil {
		d.skip("certificate or bundle can not be read", checkChain)
		return
	}
	leaf, between := d.pair.Leaf, x509.NewCertPool()
	for _, raw := range d.pair.Certificate[1:] {
		if c, err := x509.ParseCertificate(raw); err == nil {
			between.AddCert(c)
		}
	}
	if err := goesBack(leaf, between, d.bundle, x509.ExtKeyUsageClientAuth); err != nil {
		// The service's own bundle may be another one: what it takes, admission shows.
		d.warn(checkChain, "certificate and bundle are mostly of the same authority: is one of them another service's?",
			"the certificate does not go back to the bundle: %s", oneLine(err))
		return
	}
	d.ok(checkChain, "the certificate goes back to the bundle")
}

// goesBack asks whether the bundle vouches for a certificate, apart from the clock.
func goesBack(leaf *x509.Certificate, between *x509.CertPool, b *bundle, use x509.ExtKeyUsage) error {
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: b.pool(), Intermediates: between, KeyUsages: []x509.ExtKeyUsage{use},
		CurrentTime: leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2),
	})
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		// The leaf is valid then, so this is an authority, whose signature is looked at
		// before its time is.
		return nil
	}
	return err
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
