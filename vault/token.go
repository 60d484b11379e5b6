package vault

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"unique"
)

// Token is a grant token: the secret that a grantee shows with each fetch. Behind it stands
// a token of HashiCorp Vault. The zero Token is none.
//
// It does not print or encode itself, and who looks into it by reflection, as fmt does at
// unexported fields and for %p, finds an address. Only [Token.Reveal] gives the secret.
// Tokens are equal (==) if their secrets are; addresses are compared, so the time it takes
// tells nothing of them.
type Token struct{ secret unique.Handle[string] }

// MaxToken is the longest grant token, in bytes.
const MaxToken = 512

// TokenOf gives the token whose secret this is, none for "". The length is not checked.
func TokenOf(secret string) Token {
	if secret == "" {
		return Token{}
	}
	return Token{unique.Make(secret)}
}

// Reveal gives the secret, "" of none.
func (t Token) Reveal() string {
	if t.IsZero() {
		return ""
	}
	return t.secret.Value()
}

// IsZero says whether it is none.
func (t Token) IsZero() bool { return t == Token{} }

// String hides the secret.
func (t Token) String() string { return "[grant token]" }

// GoString hides the secret.
func (t Token) GoString() string { return t.String() }

// Format hides the secret from every verb that asks it.
func (t Token) Format(f fmt.State, _ rune) { fmt.Fprint(f, t.String()) }

// MarshalText hides the secret from encoders, those of log/slog among them.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// Digest is what is kept of a token.
func (t Token) Digest() Digest { return sha256.Sum256([]byte(t.Reveal())) }

// Matches compares with a kept digest in constant time. The zero digest matches nothing.
func (t Token) Matches(d Digest) bool {
	got := t.Digest()
	return d != Digest{} && subtle.ConstantTimeCompare(got[:], d[:]) == 1
}
