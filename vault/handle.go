package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
)

// Handle is the name of a record inside one grant: the record's UUID encrypted as one
// AES block under a key of that grant. Another grant has another handle for the same
// record, and nobody without the key can tell that they are the same.
type Handle [aes.BlockSize]byte

// HandleKey is a grant's key for handles (AES-128).
type HandleKey [16]byte

// Handle names a record.
func (k HandleKey) Handle(record ID) Handle {
	var h Handle
	block, err := aes.NewCipher(k[:])
	if err != nil {
		panic(fmt.Sprintf("aes with a 16-byte key: %v", err)) // cannot be
	}
	block.Encrypt(h[:], record[:])
	return h
}

// Record gives the record that a handle names; for a made-up handle, some ID that no record has.
func (k HandleKey) Record(h Handle) ID {
	var id ID
	block, err := aes.NewCipher(k[:])
	if err != nil {
		panic(fmt.Sprintf("aes with a 16-byte key: %v", err)) // cannot be
	}
	block.Decrypt(id[:], h[:])
	return id
}

// Crossings gives the grant's key for handles of crossings, by HKDF-SHA-256: a crossing whose ID
// equals that of a record has another handle than the record.
func (k HandleKey) Crossings() HandleKey { return HandleKey(k.derive("portcullis crossing", len(k))) }

func (k HandleKey) derive(use string, size int) []byte {
	key, err := hkdf.Key(sha256.New, k[:], nil, use, size)
	if err != nil {
		panic(fmt.Sprintf("hkdf of %d bytes: %v", size, err)) // cannot be
	}
	return key
}

// pageToken is the length of a page token, in characters: in base64url the nonce, the handle
// and the tag.
const pageToken = ((12+aes.BlockSize+16)*4 + 2) / 3

func (k HandleKey) pages() cipher.AEAD {
	block, err := aes.NewCipher(k.derive("portcullis page", 32))
	if err != nil {
		panic(fmt.Sprintf("aes with a 32-byte key: %v", err)) // cannot be
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(fmt.Sprintf("gcm of aes: %v", err)) // cannot be
	}
	return aead
}

// SealPage gives the token of the page behind a handle, in the listing of this grant: AES-256-GCM
// under a key of the grant, another one each time. It tells nothing of where the listing stands.
func (k HandleKey) SealPage(grant ID, after Handle) string {
	return base64.RawURLEncoding.EncodeToString(k.pages().Seal(nil, nil, after[:], grant[:]))
}

// CheckPage says whether s has the form of a page token, or is empty for the first page.
func CheckPage(field, s string) error {
	if s == "" {
		return nil
	}
	_, err := decodePage(field, s)
	return err
}

func decodePage(field, s string) ([]byte, error) {
	if len(s) == pageToken {
		if sealed, err := base64.RawURLEncoding.Strict().DecodeString(s); err == nil && base64.RawURLEncoding.EncodeToString(sealed) == s {
			return sealed, nil
		}
	}
	return nil, InvalidField(field, "must be the next_page_token of this grant's page before, or empty")
}

// OpenPage opens what SealPage gave for the same grant, and nothing else. The zero handle, which
// begins a listing, is that of an empty s.
func (k HandleKey) OpenPage(field string, grant ID, s string) (after Handle, err error) {
	if s == "" {
		return after, nil
	}
	sealed, err := decodePage(field, s)
	if err != nil {
		return after, err
	}
	opened, err := k.pages().Open(nil, nil, sealed, grant[:])
	if err != nil || len(opened) != len(after) {
		return after, InvalidField(field, "must be the next_page_token of this grant's page before, or empty")
	}
	return Handle(opened), nil
}

// String gives 32 hexadecimal digits.
func (h Handle) String() string { return hex.EncodeToString(h[:]) }

// ParseHandle reads what String wrote.
func ParseHandle(field, s string) (Handle, error) {
	var h Handle
	if len(s) != 2*len(h) {
		return h, InvalidField(field, "must be a handle of %d hexadecimal digits", 2*len(h))
	}
	if _, err := hex.Decode(h[:], []byte(s)); err != nil || h.String() != s {
		return Handle{}, InvalidField(field, "must be a handle of %d hexadecimal digits", 2*len(h))
	}
	return h, nil
}
