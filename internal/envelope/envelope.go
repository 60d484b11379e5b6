// Package envelope is the sealed-image format: one image, encrypted so that it opens only
// whole, and only as the record that it was sealed for.
//
// docs/formats.md describes version 1 exactly enough to write it anew. The vectors in
// testdata, made by other code in another language, pin it.
package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/portcullis/portcullis/vault"
)

// magic begins every sealed image of version 1; its last byte is the version.
const magic = "PSI\x01"

// Figures of the format, in bytes.
const (
	KeySize   = 32 // of a data key: AES-256
	nonceSize = 12 // NIST SP 800-38D, section 8.2.2: 96 random bits
	tagSize   = 16
	Overhead  = len(magic) + nonceSize + tagSize // how much longer a sealed image is than the image
)

// NewKey makes a random data key of [KeySize] bytes. It seals one image and no other.
func NewKey() []byte {
	key := make([]byte, KeySize)
	rand.Read(key) // crypto/rand.Read never fails: it ends the process instead
	return key
}

// Seal encrypts an image under dek, a key from [NewKey], and binds it to what names the
// record and says how to show it: ID, modality, site, lane, capture time, crossing, content
// type, orientation and key name. The result is len(image) + [Overhead] bytes and differs at
// every call. Seal changes none of its arguments and may be called at once.
//
// An error means that the key has another size, or that the format can not carry the record:
// a text over 65,535 bytes, or a capture time outside the years 0 to 9999.
func Seal(rec vault.Record, dek, image []byte) ([]byte, error) {
	aad, err := associatedData(rec)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	aead, err := newAEAD(dek)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	sealed := make([]byte, len(magic), len(image)+Overhead)
	copy(sealed, magic)
	return aead.Seal(sealed, nil, image, aad), nil
}

// Open decrypts what [Seal] made with the same key for a record of the same bound facts. It
// gives the image, in memory of its own, only when all of it has proved intact. Any other
// outcome, a data key of a wrong size included, is a [vault.Error] of kind DataLoss and no
// bytes. Open changes none of its arguments and may be called at once.
func Open(rec vault.Record, dek, sealed []byte) ([]byte, error) {
	aad, err := associatedData(rec)
	if err != nil {
		return nil, lost(err)
	}
	aead, err := newAEAD(dek)
	if err != nil {
		return nil, lost(err)
	}
	if len(sealed) < Overhead {
		return nil, lost(fmt.Errorf("%d bytes are too few for a sealed image", len(sealed)))
	}
	if string(sealed[:len(magic)]) != magic {
		return nil, lost(errors.New("not a sealed image of version 1"))
	}
	image, err := aead.Open(nil, nil, sealed[len(magic):], aad)
	if err != nil {
		return nil, lost(err)
	}
	return image, nil
}

func lost(cause error) error {
	return vault.E(vault.DataLoss, vault.ReasonDataLoss, "the stored image does not prove intact").Because(cause)
}

func newAEAD(dek []byte) (cipher.AEAD, error) {
	if len(dek) != KeySize { // aes would take 16 and 24 as well
		return nil, fmt.Errorf("the data key has %d bytes, not %d", len(dek), KeySize)
	}
	block, err := aes.NewCipher(dek)
	if err != nil {
		return nil, err
	}
	// The nonce is drawn inside the cipher: no caller can repeat one, and FIPS 140 allows no
	// other way.
	return cipher.NewGCMWithRandomNonce(block)
}

// associatedData writes the bound facts of a record in their one canonical form: fields in
// fixed order, each after its length in two bytes. So two records with any difference in
// these facts never have the same.
func associatedData(rec vault.Record) ([]byte, error) {
	// Outside these years a time fits neither the key name's four digits nor, further out,
	// 64 bits of microseconds.
	if y := rec.CapturedAt.UTC().Year(); y < 0 || y > 9999 {
		return nil, fmt.Errorf("captured in the year %d, outside 0 to 9999", y)
	}
	var b []byte
	for _, field := range [...]string{
		magic,
		string(rec.ID[:]),
		string(rec.Modality),
		rec.Site,
		rec.Lane,
		int64Field(rec.CapturedAt.UnixMicro()),
		string(rec.CrossingID[:]),
		rec.ContentType,
		int64Field(int64(rec.Orientation)),
		rec.KeyName(),
	} {
		if len(field) > math.MaxUint16 {
			return nil, fmt.Errorf("a bound fact has %d bytes; at most %d can be written", len(field), math.MaxUint16)
		}
		b = binary.BigEndian.AppendUint16(b, uint16(len(field)))
		b = append(b, field...)
	}
	return b, nil
}

// int64Field is n as eight bytes, big-endian, two's complement.
func int64Field(n int64) string {
	return string(binary.BigEndian.AppendUint64(nil, uint64(n)))
}
