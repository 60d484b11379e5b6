package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/portcullis/portcullis/internal/hcvault"
	"github.com/portcullis/portcullis/internal/identity"
	"github.com/portcullis/portcullis/internal/tlog"
)

// misconfigured is an error that whoever wrote the configuration can mend.
type misconfigured struct{ error }

// Unwrap gives the cause.
func (m misconfigured) Unwrap() error { return m.error }

// inspect looks at all that the configuration names on this machine: what config check and
// serve refuse, they refuse here. It changes nothing and connects to nothing.
func (c config) inspect() error {
	bad := func(key string, err error) error {
		if err == nil {
			return nil
		}
		return fmt.Errorf("configuration: %s: %w", key, err)
	}
	// Each file by itself first, so that the error names the setting.
	err := errors.Join(
		bad("tls.certificate", identity.CheckCertificates(c.TLS.Certificate)),
		bad("tls.key", c.keyFile()),
		bad("tls.bundle", identity.CheckCertificates(c.TLS.Bundle)),
	)
	if err == nil {
		err = c.inspectIdentity()
	}
	hc, dial := hcvault.Dial(hcvault.Config{Addr: c.Vault.Address, CAFile: c.Vault.CA, Mount: c.Vault.Mount})
	if err = errors.Join(err, bad("vault.ca", dial)); dial == nil {
		hc.Close()
	}
	for _, role := range c.credentials() {
		_, missing := hcvault.LoadAppRole(c.Vault.Credentials, role)
		err = errors.Join(err, bad("vault.credentials", missing))
	}
	if slices.Contains(c.roles(), roleAdmin) {
		if c.Audit.Signer == signerFile {
			_, missing := tlog.LoadKeyFile(c.Audit.Key, c.origin())
			if errors.Is(missing, fs.ErrNotExist) {
				missing = fmt.Errorf("%w (portcullisd log-key --create makes it)", missing)
			}
			err = errors.Join(err, bad("audit.key", missing))
		}
		if c.Audit.Ship != "" {
			err = errors.Join(err, bad("audit.ship", fileIn(c.Audit.Ship)))
		}
	}
	err = errors.Join(err, bad("store.path", fileIn(c.Store.Path)), bad("blobs.path", c.blobFolder()))
	if err != nil {
		return misconfigured{err}
	}
	return nil
}

// credentials names the files that the roles of the process need.
func (c config) credentials() (out []string) {
	for _, role := range []string{roleCapture, roleGrants, roleAdmin} {
		if slices.Contains(c.roles(), role) {
			out = append(out, role)
		}
	}
	if slices.Contains(c.roles(), roleAdmin) && c.Audit.Signer == signerVault {
		out = append(out, "log")
	}
	return out
}

// inspectIdentity looks whether certificate and key are a pair, and the service's.
func (c config) inspectIdentity() error {
	files, err := identity.LoadFiles(c.TLS.Certificate, c.TLS.Key, c.TLS.Bundle)
	if err != nil {
		return fmt.Errorf("configuration: tls: %w", err)
	}
	id, err := files.ID()
	if err != nil {
		return fmt.Errorf("configuration: tls.certificate: %s: %w", c.TLS.Certificate, err)
	}
	if want := c.serverID(); id != want {
		return fmt.Errorf("configuration: tls.certificate: %s is the certificate of %s; the service's must be that of %s (trust_domain is %s)",
			c.TLS.Certificate, id, want, c.TrustDomain)
	}
	return nil
}

func (c config) serverID() string { return "spiffe://" + c.TrustDomain + "/portcullisd" }

// keyFile looks whether nobody but its owner can read the key.
func (c config) keyFile() error {
	f, err := os.Open(c.TLS.Key)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s has mode %04o, so others can get at it; chmod 600 it", c.TLS.Key, mode)
	}
	return nil
}

// fileIn looks whether a file can be at a path: the daemon makes it, but not its folder. It is not
// opened, for closing a database drops the locks that this process has on it.
func fileIn(path string) error {
	if err := isFolder(filepath.Dir(path)); err != nil {
		return err
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return fmt.Errorf("%s is a folder, and must be a file", path)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func isFolder(path string) error {
	info, err := os.Stat(path)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is not a folder", path)
	}
	return err
}

// blobFolder looks whether the ciphertext's folder is there, or can be made.
func (c config) blobFolder() error {
	err := isFolder(c.Blobs.Path)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !slices.Contains(c.roles(), roleCapture) {
		return fmt.Errorf("%w (the process with the capture role makes it)", err)
	}
	for at := filepath.Dir(c.Blobs.Path); ; at = filepath.Dir(at) {
		if err := isFolder(at); !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			return err
		}
	}
}

// checkAddress says whether something can listen at an address, as far as its form tells.
func checkAddress(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("%q must be host:port, such as 127.0.0.1:8443", s)
	}
	return nil
}

// warnings tells what is allowed, and rarely meant.
func (c config) warnings(now time.Time) (out []string) {
	if host, _, err := net.SplitHostPort(c.Metrics.Listen); err == nil && host != "localhost" {
		if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
			out = append(out, fmt.Sprintf("metrics.listen: %s is not on loopback: whoever reaches it reads the metrics, in plain HTTP and unasked who they are", c.Metrics.Listen))
		}
	}
	if files, err := identity.LoadFiles(c.TLS.Certificate, c.TLS.Key, c.TLS.Bundle); err == nil {
		if leaf := files.Certificate().Leaf; leaf != nil && (now.After(leaf.NotAfter) || now.Before(leaf.NotBefore)) {
			out = append(out, fmt.Sprintf("tls.certificate: %s is valid from %s to %s, which is not now: callers refuse it",
				c.TLS.Certificate, leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339)))
		}
	}
	return out
}
