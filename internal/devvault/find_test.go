package devvault

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFind(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("PATH", filepath.Join(home, "bin"))
	t.Setenv("PORTCULLIS_VAULT_BIN", "")

	if got, err := Find(); err == nil || !strings.Contains(err.Error(), "make vault") {
		t.Fatalf("without any: %q, %v; want an error that says what to do", got, err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	// Each is preferred to the ones before it.
	for _, path := range []string{
		filepath.Join(cache, "portcullis", "vault-"+version, "vault"),
		filepath.Join(home, "bin", "bao"),
		filepath.Join(home, "bin", "vault"),
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o700); err != nil {
			t.Fatal(err)
		}
		if got, err := Find(); got != path || err != nil {
			t.Errorf("Find gives %q, %v; want %q", got, err, path)
		}
	}
	named := filepath.Join(home, "mine")
	t.Setenv("PORTCULLIS_VAULT_BIN", named)
	if got, err := Find(); err == nil {
		t.Errorf("PORTCULLIS_VAULT_BIN names nothing, and Find gives %q", got)
	}
	if err := os.WriteFile(named, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := Find(); got != named || err != nil {
		t.Errorf("Find gives %q, %v; want %q", got, err, named)
	}
}

// The kept build is looked for where build.sh, which reads the version from go.mod, puts it.
func TestVersionIsTheOneBuilt(t *testing.T) {
	mod, err := os.ReadFile("../../tools/vault/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if want := "github.com/hashicorp/vault v" + version; !strings.Contains(string(mod), "\t"+want+" ") && !strings.Contains(string(mod), "\t"+want+"\n") {
		t.Errorf("tools/vault/go.mod does not require %s", want)
	}
}

func TestCertificateIsKeptUntilItRunsOut(t *testing.T) {
	dir := t.TempDir()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	mint := func(at time.Time) string {
		t.Helper()
		if err := ensureCertificate(dir, at); err != nil {
			t.Fatal(err)
		}
		ca, err := os.ReadFile(filepath.Join(dir, caFile))
		if err != nil {
			t.Fatal(err)
		}
		return string(ca)
	}
	first := mint(now)
	if mint(now.Add(certLife-certSpare-time.Minute)) != first {
		t.Error("a certificate with a week to live is replaced")
	}
	second := mint(now.Add(certLife - certSpare + time.Minute))
	if second == first {
		t.Error("a certificate with less than a week to live is kept")
	}
	// Half of a pair, as a crash in the middle of minting leaves it.
	if err := os.Remove(filepath.Join(dir, certKeyFile)); err != nil {
		t.Fatal(err)
	}
	if mint(now) == second {
		t.Error("a certificate without its key is kept")
	}
}
