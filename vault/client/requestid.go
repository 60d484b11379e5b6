package client

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"github.com/portcullis/portcullis/vault"
)

// RequestIDs gives a function that names images by what they are: the same modality, bytes,
// crossing, retention class and capture time (zero is a value, too) give the same ID, so that storing them
// again after a crash stores nothing twice, without a list of what was stored. The image's
// own RequestID is not looked at. The function may be called at once from many goroutines.
//
// An ID is a MAC under a key that comes from the profile's private key. A plain hash would
// let whoever reads the service's database or log test for pictures that they have. With
// another private key the IDs are others.
func (c *Client) RequestIDs() (func(Image) vault.ID, error) {
	pair, err := tls.LoadX509KeyPair(c.cfg.Certificate, c.cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate of the profile: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("key of the profile: %w", err)
	}
	defer clear(der)
	key, err := hkdf.Key(sha256.New, der, nil, "portcullis request id v1", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("key of the profile: %w", err)
	}
	return func(in Image) vault.ID { return requestID(key, in) }, nil
}

func requestID(key []byte, in Image) (id vault.ID) {
	captured := ""
	if !in.CapturedAt.IsZero() {
		captured = vault.FormatTime(in.CapturedAt)
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s\n%s\n%s\n%x\n", in.Modality, in.CrossingID, captured, sha256.Sum256(in.Bytes))
	if in.Class != "" && in.Class != vault.DefaultClass { // without it the IDs are those from before there were classes
		fmt.Fprintf(mac, "%s\n", in.Class)
	}
	copy(id[:], mac.Sum(nil))
	id[6] = id[6]&0x0f | 0x80 // version 8: made in a way of one's own (RFC 9562)
	id[8] = id[8]&0x3f | 0x80 // the RFC's variant
	return id
}
