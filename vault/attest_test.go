package vault_test

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/portcullis/portcullis/vault"
)

func TestAttest(t *testing.T) {
	ann := newAuthority(t, nil).admin("ann")
	out, err := vault.Attest("portcullis certificate v1\ncount: 3\n", ann.key, ann.chain)
	if err != nil {
		t.Fatal(err)
	}
	text, signature, ok := strings.Cut(out, "signature: ")
	if !ok || !strings.HasPrefix(text, "portcullis certificate v1\ncount: 3\nattested_by: "+adminID("ann")+"\ncertificate: ") || !strings.HasSuffix(out, "\n") {
		t.Fatalf("attested text:\n%s", out)
	}
	sig, err := base64.StdEncoding.DecodeString(strings.TrimSpace(signature))
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(ann.chain[0])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(text))
	if !ecdsa.VerifyASN1(leaf.PublicKey.(*ecdsa.PublicKey), sum[:], sig) {
		t.Error("the attestation's signature does not verify")
	}
}
