package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

const td = "portcullis.test"

func openAt(t *testing.T, dir string, now time.Time) *Authority {
	t.Helper()
	a, err := open(dir, td, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func leafOf(t *testing.T, p Pair) *x509.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(p.Cert, p.Key)
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

func issue(t *testing.T, a *Authority, name, id string, l Leaf) (Pair, *x509.Certificate) {
	t.Helper()
	p, err := a.Issue(name, id, l)
	if err != nil {
		t.Fatal(err)
	}
	return p, leafOf(t, p)
}

func (a *Authority) verify(c *x509.Certificate, at time.Time, use x509.ExtKeyUsage, host string) error {
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	_, err := c.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{use}, DNSName: host})
	return err
}

func TestIssuedCertificatesAreGoodForOneThing(t *testing.T) {
	now := time.Now()
	a := openAt(t, t.TempDir(), now)
	_, server := issue(t, a, "server", a.ServerID(), LocalServer)
	_, client := issue(t, a, "admin-ada", "spiffe://"+td+"/admin/ada", Leaf{})

	for _, host := range []string{"localhost", "127.0.0.1", "::1"} {
		if err := a.verify(server, now, x509.ExtKeyUsageServerAuth, host); err != nil {
			t.Errorf("server as %s: %v", host, err)
		}
	}
	if a.verify(server, now, x509.ExtKeyUsageClientAuth, "") == nil {
		t.Error("the server's certificate is good for a client")
	}
	if err := a.verify(client, now, x509.ExtKeyUsageClientAuth, ""); err != nil {
		t.Errorf("client: %v", err)
	}
	if a.verify(client, now, x509.ExtKeyUsageServerAuth, "") == nil {
		t.Error("the client's certificate is good for a server")
	}
	for c, id := range map[*x509.Certificate]string{server: a.ServerID(), client: "spiffe://" + td + "/admin/ada"} {
		if len(c.URIs) != 1 || c.URIs[0].String() != id || c.IsCA {
			t.Errorf("URIs %v, authority %v; want one, %s, and no authority", c.URIs, c.IsCA, id)
		}
	}
	if got := client.NotAfter.Sub(now); (got - DefaultLife).Abs() > 2*time.Second {
		t.Errorf("life %s, want %s", got, DefaultLife)
	}
}

func TestNameConstraintHoldsForTheTrustDomain(t *testing.T) {
	now := time.Now()
	for _, domain := range []string{td, "portcullis", "site_7.portcullis.test"} {
		t.Run(domain, func(t *testing.T) {
			a, err := Open(t.TempDir(), domain)
			if err != nil {
				t.Fatal(err)
			}
			if _, c := issue(t, a, "ada", "spiffe://"+domain+"/admin/ada", Leaf{}); a.verify(c, now, x509.ExtKeyUsageClientAuth, "") != nil {
				t.Errorf("own trust domain: %v", a.verify(c, now, x509.ExtKeyUsageClientAuth, ""))
			}
			// What somebody could make who has the key, past Issue's own check.
			template, err := a.template(spiffeid.RequireFromString("spiffe://elsewhere.test/admin/ada"), Leaf{})
			if err != nil {
				t.Fatal(err)
			}
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
			if err != nil {
				t.Fatal(err)
			}
			foreign, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			var invalid x509.CertificateInvalidError
			if err := a.verify(foreign, now, x509.ExtKeyUsageClientAuth, ""); !errors.As(err, &invalid) || invalid.Reason != x509.CANotAuthorizedForThisName {
				t.Errorf("other trust domain: %v, want a violated name constraint", err)
			}
		})
	}
}

func TestIssueKeepsUntilAThirdRemains(t *testing.T) {
	start := time.Now()
	dir := t.TempDir()
	life := 30 * 24 * time.Hour
	_, first := issue(t, openAt(t, dir, start), "lane", "spiffe://"+td+"/capture/north/1", Leaf{Life: life})
	_, second := issue(t, openAt(t, dir, start.Add(19*24*time.Hour)), "lane", "spiffe://"+td+"/capture/north/1", Leaf{Life: life})
	if !first.Equal(second) {
		t.Error("a certificate with more than a third of its life was made anew")
	}
	_, third := issue(t, openAt(t, dir, start.Add(21*24*time.Hour)), "lane", "spiffe://"+td+"/capture/north/1", Leaf{Life: life})
	if first.Equal(third) {
		t.Error("a certificate with less than a third of its life was kept")
	}
}

func TestIssueMakesAnewWhatDoesNotSayTheSame(t *testing.T) {
	now := time.Now()
	cases := map[string]struct {
		change func(t *testing.T, dir string, p Pair)
		id     string
		leaf   Leaf
	}{
		"other identity": {id: "spiffe://" + td + "/admin/bob"},
		"other hosts":    {leaf: Leaf{Hosts: []string{"localhost"}}},
		"other life":     {leaf: Leaf{Life: time.Hour}},
		"key readable by others": {change: func(t *testing.T, _ string, p Pair) {
			if err := os.Chmod(p.Key, 0o640); err != nil {
				t.Fatal(err)
			}
		}},
		"crash between key and certificate": {change: func(t *testing.T, _ string, p Pair) {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			if err := writeKey(p.Key, key); err != nil {
				t.Fatal(err)
			}
		}},
		"cut off": {change: func(t *testing.T, _ string, p Pair) {
			if err := os.Truncate(p.Cert, 100); err != nil {
				t.Fatal(err)
			}
		}},
		"other authority": {change: func(t *testing.T, dir string, _ Pair) {
			for _, f := range []string{"ca.pem", "ca.key"} {
				if err := os.Remove(filepath.Join(dir, f)); err != nil {
					t.Fatal(err)
				}
			}
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			id := "spiffe://" + td + "/admin/ada"
			p, first := issue(t, openAt(t, dir, now), "ada", id, Leaf{})
			if c.change != nil {
				c.change(t, dir, p)
			}
			if c.id != "" {
				id = c.id
			}
			a := openAt(t, dir, now)
			_, second := issue(t, a, "ada", id, c.leaf)
			if first.Equal(second) {
				t.Fatal("was kept")
			}
			if err := second.CheckSignatureFrom(a.cert); err != nil {
				t.Fatal(err)
			}
			if _, third := issue(t, a, "ada", id, c.leaf); !second.Equal(third) {
				t.Fatal("the new one was not kept")
			}
		})
	}
}

func TestFilesAreNeverReadableByOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "below", "dev")
	a := openAt(t, dir, time.Now())
	for range 2 {
		issue(t, a, "server", a.ServerID(), LocalServer)
	}
	want := map[string]fs.FileMode{".gitignore": 0o644, "ca.key": 0o600, "ca.pem": 0o644, "server.key": 0o600, "server.pem": 0o644}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if mode, ok := want[e.Name()]; !ok || info.Mode() != mode {
			t.Errorf("%s has mode %s, want %s", e.Name(), info.Mode(), mode)
		}
		delete(want, e.Name())
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(e.Name(), ".pem") && bytes.Contains(b, []byte("PRIVATE")) {
			t.Errorf("%s holds a key", e.Name())
		}
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
	if b, err := os.ReadFile(filepath.Join(dir, ".gitignore")); err != nil || !bytes.Contains(b, []byte("\n*\n")) {
		t.Errorf("git would take what is in the directory: %q, %v", b, err)
	}
}

func TestWriteFileLeavesTheOldOneWhenItFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ada.key")
	// A directory in the way makes the last step, the rename, fail.
	if err := os.MkdirAll(filepath.Join(path, "in-the-way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(path, []byte("new"), 0o600); err == nil {
		t.Fatal("wrote over a directory")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != "ada.key" {
		t.Errorf("left behind: %v", entries)
	}
}

func TestOpenRefuses(t *testing.T) {
	now := time.Now()
	cases := map[string]struct {
		domain string
		at     time.Time
		change func(dir string) error
		want   string
	}{
		"another trust domain": {domain: "elsewhere.test", want: "authority of"},
		"no trust domain":      {domain: "Not A Domain", want: "trust domain"},
		"an expired authority": {at: now.Add(caLife + time.Hour), want: "expired"},
		"a readable key":       {change: func(d string) error { return os.Chmod(filepath.Join(d, "ca.key"), 0o644) }, want: "0600"},
		"a lost key":           {change: func(d string) error { return os.Remove(filepath.Join(d, "ca.key")) }, want: "its key is not"},
		"a cut-off bundle":     {change: func(d string) error { return os.Truncate(filepath.Join(d, "ca.pem"), 90) }, want: "not whole"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			openAt(t, dir, now)
			if c.change != nil {
				if err := c.change(dir); err != nil {
					t.Fatal(err)
				}
			}
			domain, at := td, now
			if c.domain != "" {
				domain = c.domain
			}
			if !c.at.IsZero() {
				at = c.at
			}
			if _, err := open(dir, domain, func() time.Time { return at }); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestOpenMendsACrash(t *testing.T) {
	dir := t.TempDir()
	openAt(t, dir, time.Now())
	if err := os.Remove(filepath.Join(dir, "ca.pem")); err != nil {
		t.Fatal(err)
	}
	a := openAt(t, dir, time.Now())
	_, c := issue(t, a, "ada", "spiffe://"+td+"/admin/ada", Leaf{})
	if err := a.verify(c, time.Now(), x509.ExtKeyUsageClientAuth, ""); err != nil {
		t.Error(err)
	}
}

func TestIssueRefuses(t *testing.T) {
	a := openAt(t, t.TempDir(), time.Now())
	good := "spiffe://" + td + "/admin/ada"
	for _, c := range []struct {
		name, id string
		leaf     Leaf
	}{
		{"../ada", good, Leaf{}}, {"", good, Leaf{}}, {"ca", good, Leaf{}}, {"Ada", good, Leaf{}},
		{"ada", "spiffe://elsewhere.test/admin/ada", Leaf{}}, {"ada", "spiffe://" + td, Leaf{}},
		{"ada", "https://" + td + "/admin/ada", Leaf{}}, {"ada", good, Leaf{Life: -time.Hour}},
	} {
		if p, err := a.Issue(c.name, c.id, c.leaf); err == nil {
			t.Errorf("Issue(%q, %q, %+v) gave %v", c.name, c.id, c.leaf, p)
		}
	}
}

func TestTheAuthoritySurvivesReopening(t *testing.T) {
	dir := t.TempDir()
	first := openAt(t, dir, time.Now())
	second := openAt(t, dir, time.Now())
	if !first.cert.Equal(second.cert) || !first.key.Equal(second.key) {
		t.Error("opening again made another authority")
	}
	info, err := tls.LoadX509KeyPair(first.Bundle(), filepath.Join(dir, "ca.key"))
	if err != nil || !info.Leaf.MaxPathLenZero || info.Leaf.MaxPathLen != 0 {
		t.Errorf("the authority could name further authorities: %v", err)
	}
}
