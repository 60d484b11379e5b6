package identity

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// CheckEvery is how often, at most, the files are read again.
const CheckEvery = time.Second

// maxFile is the largest PEM file that is read, in bytes: some hundred certificates.
const maxFile = 1 << 20

// Files is a certificate with its key, and the bundle of authorities that clients'
// certificates must go back to. It follows its files: on use, but at most once every
// [CheckEvery], it reads them again and takes what changed. A file that does not parse,
// or a key that does not fit its certificate, changes nothing; [Files.Err] tells of it.
// Whoever rotates should write beside the file and rename: a bundle cut off exactly
// between two certificates can not be told from a shorter one.
//
// All methods may be called concurrently. One caller a second pays for the reading,
// which takes some ten microseconds; the others get what was read before.
type Files struct {
	certPath, keyPath, bundlePath string

	now  func() time.Time
	next atomic.Int64 // when to read again, in Unix nanoseconds

	cert  atomic.Pointer[tls.Certificate]
	roots atomic.Pointer[x509.CertPool]
	err   atomic.Pointer[error]

	reading                       sync.Mutex // guards what follows
	certBytes, keyBytes, caBundle []byte
}

// LoadFiles reads a certificate (PEM, the leaf first, then its intermediates), its key
// (PEM) and the bundle of authorities (PEM, one or more). It fails when any of them is
// absent, malformed or larger than 1 MiB. Errors name paths and never hold key material.
func LoadFiles(cert, key, bundle string) (*Files, error) {
	return loadFiles(cert, key, bundle, time.Now)
}

func loadFiles(cert, key, bundle string, now func() time.Time) (*Files, error) {
	f := &Files{certPath: cert, keyPath: key, bundlePath: bundle, now: now}
	f.next.Store(now().Add(CheckEvery).UnixNano())
	if err := f.read(); err != nil {
		return nil, fmt.Errorf("load identity: %w", err)
	}
	return f, nil
}

// Certificate gives the newest certificate and key. It must not be modified.
func (f *Files) Certificate() *tls.Certificate {
	f.follow()
	return f.cert.Load()
}

// Roots gives the newest bundle. Every change of it gives another pointer, and the same
// pointer always means the same authorities. It must not be modified.
func (f *Files) Roots() *x509.CertPool {
	f.follow()
	return f.roots.Load()
}

// Err gives why the newest files are not in use, nil when they are. It does not read.
func (f *Files) Err() error {
	if err := f.err.Load(); err != nil {
		return *err
	}
	return nil
}

func (f *Files) follow() {
	now := f.now()
	if now.UnixNano() < f.next.Load() || !f.reading.TryLock() {
		return
	}
	defer f.reading.Unlock()
	if now.UnixNano() < f.next.Load() {
		return
	}
	err := f.read()
	f.err.Store(&err)
	// Set last: whoever comes later must find what this reading found.
	f.next.Store(now.Add(CheckEvery).UnixNano())
}

// read takes what changed. It compares contents, because times and sizes of files can
// stay the same when they are written twice within one tick.
func (f *Files) read() error { return errors.Join(f.readPair(), f.readBundle()) }

func (f *Files) readPair() error {
	certBytes, err := readFile(f.certPath)
	if err != nil {
		return err
	}
	keyBytes, err := readFile(f.keyPath)
	if err != nil {
		return err
	}
	if f.cert.Load() != nil && bytes.Equal(certBytes, f.certBytes) && bytes.Equal(keyBytes, f.keyBytes) {
		return nil
	}
	if _, err := certificates(certBytes); err != nil {
		return fmt.Errorf("%s: %w", f.certPath, err)
	}
	pair, err := tls.X509KeyPair(certBytes, keyBytes)
	if err != nil {
		return fmt.Errorf("%s with %s: %w", f.certPath, f.keyPath, err)
	}
	f.cert.Store(&pair)
	f.certBytes, f.keyBytes = certBytes, keyBytes
	return nil
}

func (f *Files) readBundle() error {
	b, err := readFile(f.bundlePath)
	if err != nil {
		return err
	}
	if f.roots.Load() != nil && bytes.Equal(b, f.caBundle) {
		return nil
	}
	all, err := certificates(b)
	if err != nil {
		return fmt.Errorf("%s: %w", f.bundlePath, err)
	}
	pool := x509.NewCertPool()
	for _, c := range all {
		if !c.IsCA {
			return fmt.Errorf("%s: certificate of %q is not an authority's", f.bundlePath, c.Subject)
		}
		pool.AddCert(c)
	}
	f.roots.Store(pool)
	f.caBundle = b
	return nil
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	return b, nil
}

// certificates reads PEM strictly. The library's own readers skip what they can not
// parse, so a file cut off within its second certificate would pass for a whole one.
func certificates(b []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, errors.New("holds something other than certificates")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all, b = append(all, c), rest
	}
	switch {
	case bytes.Contains(b, []byte("-----BEGIN")):
		return nil, errors.New("is cut off within a certificate")
	case len(all) == 0:
		return nil, errors.New("holds no certificate")
	}
	return all, nil
}
