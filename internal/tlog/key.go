package tlog

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/mod/sumdb/note"
)

// Signer signs checkpoints with an Ed25519 key, wherever the key is.
type Signer struct {
	verifier note.Verifier
	text     string
	sign     func(message []byte) ([]byte, error)
}

// NewSigner makes a signer of the public key's other half, for the log of the origin.
func NewSigner(origin string, public ed25519.PublicKey, sign func(message []byte) ([]byte, error)) (*Signer, error) {
	if err := CheckOrigin(origin); err != nil {
		return nil, err
	}
	text, err := note.NewEd25519VerifierKey(origin, public)
	if err != nil {
		return nil, fmt.Errorf("key of the log: %w", err)
	}
	v, err := note.NewVerifier(text)
	if err != nil {
		return nil, fmt.Errorf("key of the log: %w", err)
	}
	return &Signer{verifier: v, text: text, sign: sign}, nil
}

// Name is the origin of the log.
func (s *Signer) Name() string { return s.verifier.Name() }

// KeyHash names the key in the checkpoint.
func (s *Signer) KeyHash() uint32 { return s.verifier.KeyHash() }

// Sign signs, and checks what came of it: a key elsewhere could have been changed.
func (s *Signer) Sign(message []byte) ([]byte, error) {
	sig, err := s.sign(message)
	if err != nil {
		return nil, err
	}
	if !s.verifier.Verify(message, sig) {
		return nil, errors.New("the signature is not of the log's key")
	}
	return sig, nil
}

// Verifier checks what the signer signed.
func (s *Signer) Verifier() note.Verifier { return s.verifier }

// Key is what everyone who checks the log is given, in the text form of sumdb/note:
// <origin>+<hash>+<key>.
func (s *Signer) Key() string { return s.text }

// ParseKey reads what [Signer.Key] gives.
func ParseKey(text string) (note.Verifier, error) {
	v, err := note.NewVerifier(text)
	if err != nil {
		return nil, fmt.Errorf("key of the log: %q is none; it looks like <origin>+<8 hex digits>+<base64>", text)
	}
	return v, nil
}

// maxKeyFile is the longest key file that is read, in bytes; one has about 120.
const maxKeyFile = 4096

// MakeKeyFile makes a signing key in a new file of mode 0600 (PKCS #8 in PEM). It is durable
// on return, but for the name in its directory. A file that is there is left alone, and is an
// error that matches fs.ErrExist.
func MakeKeyFile(path string) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("signing key of the log: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("signing key of the log: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("signing key of the log: %w", err)
	}
	err = pem.Encode(f, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("signing key of the log: %w", errors.Join(err, os.Remove(path)))
	}
	return nil
}

// LoadKeyFile reads the file of a signing key, which only its owner may be able to read.
func LoadKeyFile(path, origin string) (*Signer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("signing key of the log: %w", err)
	}
	defer f.Close() // it was open for reading: there is nothing to lose
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("signing key of the log: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("signing key of the log: %s has mode %04o, so others can read it; chmod 600 it", path, info.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("signing key of the log: %w", err)
	}
	defer clear(b)
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("signing key of the log: %s holds no PEM block", path)
	}
	defer clear(block.Bytes)
	// What the parser says is left out: it could quote the key.
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("signing key of the log: %s holds no Ed25519 key in PKCS #8", path)
	}
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("signing key of the log: %s holds no Ed25519 key in PKCS #8", path)
	}
	return NewSigner(origin, public, func(message []byte) ([]byte, error) { return ed25519.Sign(key, message), nil })
}
