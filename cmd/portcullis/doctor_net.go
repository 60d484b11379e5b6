package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/portcullis/portcullis/vault"
)

const (
	// connectTime is how long a connection may take to come about.
	connectTime = 5 * time.Second
	// admitTime is how long the service may take to say whether it takes our certificate.
	admitTime = 3 * time.Second
)

// address asks whether anything listens at the service's address.
func (d *doctor) address(ctx context.Context) bool {
	addr := d.config.Server
	conn, err := (&net.Dialer{Timeout: connectTime}).DialContext(ctx, "tcp", addr)
	if err == nil {
		d.ok(checkAddress, "%s is reached from %s", addr, conn.LocalAddr())
		_ = conn.Close()
		return true
	}
	next := "is \"server\" in the configuration the service's host:port?"
	var dns *net.DNSError
	var malformed *net.AddrError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		next = "no such name: mend \"server\" in the configuration, or the name service"
	case errors.As(err, &dns):
		next = "the name service did not answer: look at this machine's network and its name server"
	case errors.As(err, &malformed):
		next = "\"server\" in the configuration must be host:port"
	case errors.Is(err, syscall.ECONNREFUSED):
		next = "the machine is there, and nothing listens at this port: is portcullisd running, and is the port right?"
	case timedOut(err):
		next = "no answer at all: is the machine up, and does a firewall between drop the packets?"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		next = "there is no way to that machine: look at this machine's network and routes"
	}
	d.fail(checkAddress, next, "%s: %s", addr, oneLine(err))
	return false
}

func timedOut(err error) bool {
	var n net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}

// handshake connects as a client does, but looks at each step apart. It says whether both
// sides take the other.
func (d *doctor) handshake(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, connectTime+admitTime)
	defer cancel()
	raw, err := (&net.Dialer{Timeout: connectTime}).DialContext(ctx, "tcp", d.config.Server)
	if err != nil {
		d.fail(checkTLS, "try again: the address answered a moment ago", "%s", oneLine(err))
		d.skip("no connection", checkServerChain, checkServerID, checkAdmitted)
		return false
	}
	defer raw.Close()
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
		InsecureSkipVerify: true, // each part is looked at below, apart
	}
	if d.pair != nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return d.pair, nil }
	}
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		d.fail(checkTLS, tlsNext(err), "%s", oneLine(err))
		d.skip("no TLS connection", checkServerChain, checkServerID, checkAdmitted)
		return false
	}
	d.ok(checkTLS, "TLS 1.3")
	sure := d.serverCertificate(conn.ConnectionState().PeerCertificates)
	if d.pair == nil {
		d.skip("no certificate to show", checkAdmitted)
		return false
	}
	return d.admitted(conn) && sure
}

func tlsNext(err error) string {
	var header tls.RecordHeaderError
	text := err.Error()
	switch {
	case errors.As(err, &header):
		return "what listens there does not speak TLS: is \"server\" in the configuration the service's address?"
	case strings.Contains(text, "protocol version"):
		return "what listens there is not Portcullis, or something between ends the connection: Portcullis speaks TLS 1.3 alone"
	case strings.Contains(text, "no application protocol"):
		return "what listens there does not speak gRPC: is \"server\" in the configuration the service's address?"
	case timedOut(err):
		return "something listens there and does not answer: is the service overloaded or stopped?"
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return "what listens there hung up: it is not Portcullis, or it has as many connections as it takes: try again"
	}
	return "is \"server\" in the configuration the service's address?"
}

// serverCertificate asks whether the service is the one that the configuration names.
func (d *doctor) serverCertificate(presented []*x509.Certificate) (sure bool) {
	leaf, between := presented[0], x509.NewCertPool()
	for _, c := range presented[1:] {
		between.AddCert(c)
	}
	var wrong, untimely error
	now := d.now()
	if d.bundle != nil {
		wrong = goesBack(leaf, between, d.bundle, x509.ExtKeyUsageServerAuth)
		_, untimely = leaf.Verify(x509.VerifyOptions{
			Roots: d.bundle.pool(), Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		})
	}
	switch {
	case d.bundle == nil:
		d.skip("the bundle can not be read", checkServerChain)
	case wrong != nil:
		d.fail(checkServerChain, "bundle ("+d.bundle.file+") must hold the service's authority: get it from whoever runs the service; if it did before, do not trust this address",
			"wrong authority on this side: the service's certificate is not of the bundle: %s", oneLine(wrong))
	case now.Before(leaf.NotBefore):
		d.fail(checkServerChain, d.clockToo(), "the service's certificate is valid only from %s, so this clock is behind, or the service's was ahead", vault.FormatTime(leaf.NotBefore))
	case now.After(leaf.NotAfter):
		d.fail(checkServerChain, "tell whoever runs the service; but "+d.clockToo(), "the service's certificate expired at %s", vault.FormatTime(leaf.NotAfter))
	case untimely != nil:
		d.fail(checkServerChain, "tell whoever runs the service; but "+d.clockToo(), "the service's certificate is not good now: %s", oneLine(untimely))
	default:
		sure = true
		d.ok(checkServerChain, "of the bundle, until %s", vault.FormatTime(leaf.NotAfter))
	}
	want := d.config.ServerID
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != want {
		d.fail(checkServerID, "server_id in the configuration must be the service's; if the address is right and the ID was right before, do not trust this address",
			"the service proves to be %v, not %s", leaf.URIs, want)
		return false
	}
	d.ok(checkServerID, "%s", want)
	return sure
}

// http2Hello is what an HTTP/2 client sends first: the preface, and empty settings.
const http2Hello = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// admitted asks whether the service takes our certificate. In TLS 1.3 that shows only after
// the client's side of the handshake is done: as an alert, or as the service's first bytes.
func (d *doctor) admitted(conn *tls.Conn) bool {
	// gRPC servers speak first. What a refusing one has not read would cost us its alert, so
	// nothing is sent before it had time to speak.
	first := make([]byte, 1)
	_ = conn.SetDeadline(time.Now().Add(admitTime / 2))
	_, err := conn.Read(first)
	if timedOut(err) {
		_ = conn.SetDeadline(time.Now().Add(admitTime / 2))
		// An error of the write is that of the read, which tells more.
		_, _ = io.WriteString(conn, http2Hello)
		_, err = conn.Read(first)
	}
	if err == nil {
		d.ok(checkAdmitted, "the service takes this certificate")
		return true
	}
	next, detail := admissionNext(err), oneLine(err)
	leaf, now := d.pair.Leaf, d.now()
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		next = "see above: the certificate is not valid by this machine's clock either"
	}
	d.fail(checkAdmitted, next, "the service refuses this profile's certificate: %s", detail)
	return false
}

func admissionNext(err error) string {
	text := err.Error()
	const theirs = "its tls.bundle must hold this certificate's authority, and its trust_domain be that of this certificate; or its clock says that the certificate is not valid"
	switch {
	case strings.Contains(text, "certificate required"):
		return "no certificate arrived: look at the profile's certificate"
	case strings.Contains(text, "expired certificate"):
		return "the service's clock says that it has expired: have a new one issued, or compare the clocks"
	case strings.Contains(text, "tls: "):
		// Most services say no more than that it is bad.
		return "wrong authority on the service's side? " + theirs + "; its log says which"
	case timedOut(err), errors.Is(err, os.ErrDeadlineExceeded):
		return "the service did not say within " + span(admitTime) + ": is it overloaded? Try again"
	}
	return "the service hung up: it refuses the certificate (its log says why: " + theirs + "), or has as many connections as it takes"
}
