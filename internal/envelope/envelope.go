// Package envelope is the sealed-image format: one image, encrypted so that it opens only
// whole, and only as the record that it was sealed for.
//
// docs/formats.md describes versions 1 and 2 exactly enough to write them anew. The vectors in
// testdata, made by other code in another language, pin them. Version 2, which is what is
// written, binds the retention class as well.
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

// The magic begins every sealed image; its last byte is the version.
const (
	magic1 = "PSI\x01" // binds no retention class: only read
	magic2 = "PSI\x02"
)

// Figures of the format, in bytes.
const (
	KeySize   = 32 // of a data key: AES-256
	nonceSize = 12 // NIST SP 800-38D, section 8.2.2: 96 random bits
	tagSize   = 16
	Overhead  = len(magic2) + nonceSize + tagSize // how much longer a sealed image is than the image
)

// NewKey makes a random data key of [KeySize] bytes. It seals one image and no other.
func NewKey() []byte {
	key := make([]byte, KeySize)
	rand.Read(key) // crypto/rand.Read never fails: it ends the process instead
	return key
}

// Seal encrypts an image under dek, a key from [NewKey], and binds it to what names the
// record, says how to show it and to whom: ID, modality, site, lane, capture time, crossing,
// content type, orientation, key name and retention class. The result is len(image) + [Overhead] bytes and differs at
// every call. Seal changes none of its arguments and may be called at once.
//
// An error means that the key has another size, or that the format can not carry the record:
// a text over 65,535 bytes, or a capture time outside the years 0 to 9999.
func Seal(rec vault.Record, dek, image []byte) ([]byte, error) {
	aad, err := associatedData(magic2, rec)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	aead, err := newAEAD(dek)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	sealed := make([]byte, len(magic2), len(image)+Overhead)
	copy(sealed, magic2)
	return aead.Seal(sealed, nil, image, aad), nil
}

// Open decrypts what [Seal] made with the same key for a record of the same bound facts. An
// image of version 1 is bound to no retention class: it opens only for a record of class
// [vault.DefaultClass], as all were when it was sealed. Open
// gives the image, in memory of its own, only when all of it has proved intact. Any other
// outcome, a data key of a wrong size included, is a [vault.Error] of kind DataLoss and no
// bytes. Open changes none of its arguments and may be called at once.
func Open(rec vault.Record, dek, sealed []byte) ([]byte, error) {
	if len(sealed) < Overhead {
		return nil, lost(fmt.Errorf("%d bytes are too few for a sealed image", len(sealed)))
	}
	magic := string(sealed[:len(magic2)])
	if magic != magic1 && magic != magic2 {
		return nil, lost(errors.New("not a sealed image of version 1 or 2"))
	}
	if magic == magic1 && rec.Class != vault.DefaultClass {
		return nil, lost(fmt.Errorf("an image of version 1 for a record of class %q", rec.Class))
	}
	aad, err := associatedData(magic, rec)
	if err != nil {
		return nil, lost(err)
	}
	aead, err := newAEAD(dek)
	if err != nil {
		return nil, lost(err)
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

// associatedData writes the bound facts of a record in the one canonical form of a version:
// fields in fixed order, each after its length in two bytes. So two records with any difference
// in these facts never have the same, and no version has that of another.
func associatedData(magic string, rec vault.Record) ([]byte, error) {
	// Outside these years a time fits neither the key name's four digits nor, further out,
	// 64 bits of microseconds.
	if y := rec.CapturedAt.UTC().Year(); y < 0 || y > 9999 {
		return nil, fmt.Errorf("captured in the year %d, outside 0 to 9999", y)
	}
	fields := []string{
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
	}
	if magic == magic2 {
		fields = append(fields, rec.Class)
	}
	var b []byte
	for _, field := range fields {
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
