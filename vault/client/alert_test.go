package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"
)

// TestRefusedWhileSending: who is still sending when the service refuses the certificate hears
// why, and not of a broken pipe.
func TestRefusedWhileSending(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pair := []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	refused := make(chan error, 1)
	go func() {
		raw, err := listener.Accept()
		if err != nil {
			refused <- err
			return
		}
		err = tls.Server(raw, &tls.Config{
			Certificates: pair, NextProtos: []string{"h2"}, ClientAuth: tls.RequireAnyClientCert,
			VerifyConnection: func(tls.ConnectionState) error { return errors.New("not one of ours") },
		}).HandshakeContext(t.Context())
		raw.Close()
		refused <- err
	}()
	raw, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	creds := alerted{credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, Certificates: pair})}.Clone()
	conn, _, err := creds.ClientHandshake(t.Context(), "x", raw)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := <-refused; err == nil || !strings.Contains(err.Error(), "not one of ours") {
		t.Fatalf("the service's handshake: %v", err)
	}
	for err == nil {
		_, err = conn.Write([]byte("the service has gone"))
		time.Sleep(time.Millisecond)
	}
	if !strings.Contains(err.Error(), "tls: bad certificate") {
		t.Errorf("heard %v", err)
	}
}
