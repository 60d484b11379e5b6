package vault

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
)

// Token is a grant token: the secret that a grantee shows with each fetch. Behind it
// stands a token of HashiCorp Vault. It does not print itself, where it is asked to print at
// all: keep it out of unexported fields of what is printed, out of the keys of maps, and away
// from the verbs %p and %w, which look at the string below.
type Token string

// MaxToken is the longest grant token, in bytes.
const MaxToken = 512

// Reveal gives the secret.
func (t Token) Reveal() string { return string(t) }

// String hides the secret.
func (t Token) String() string { return "[grant token]" }

// GoString hides the secret.
func (t Token) GoString() string { return t.String() }

// Format hides the secret from every verb that asks it.
func (t Token) Format(f fmt.State, _ rune) { fmt.Fprint(f, t.String()) }

// MarshalText hides the secret from encoders.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// Digest is what is kept of a token.
func (t Token) Digest() Digest { return sha256.Sum256([]byte(t)) }

// Matches compares with a kept digest in constant time. The zero digest matches nothing.
func (t Token) Matches(d Digest) bool {
	got := t.Digest()
	return d != Digest{} && subtle.ConstantTimeCompare(got[:], d[:]) == 1
}
