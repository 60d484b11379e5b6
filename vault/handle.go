package vault

import (
	"crypto/aes"
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
