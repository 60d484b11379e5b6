package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portcullis/portcullis/certs"
	"github.com/portcullis/portcullis/internal/tlog"
)

// typed runs a command line as a person would, and gives what it wrote and its exit code. What
// would serve is told to stop after a while.
func typed(t *testing.T, args ...string) (out, said string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var o, e logs
	code = run(ctx, args, &o, &e)
	return o.String(), e.String(), code
}

// configured writes a configuration that is good, all of its files included, and gives its path.
// Nothing answers at its Vault.
func configured(t *testing.T) (dir, path string) {
	t.Helper()
	dir = t.TempDir()
	a, err := certs.Open(filepath.Join(dir, "certs"), "agency.example")
	noError(t, err)
	pair, err := a.Issue("portcullisd", a.ServerID(), certs.LocalServer)
	noError(t, err)
	noError(t, os.Mkdir(filepath.Join(dir, "credentials"), 0o700))
	for _, role := range []string{"capture", "grants", "admin", "log"} {
		noError(t, os.WriteFile(filepath.Join(dir, "credentials", role+".json"), []byte(`{"role_id":"r","secret_id":"s"}`), 0o600))
	}
	noError(t, tlog.MakeKeyFile(filepath.Join(dir, "log.key")))
	cfg := defaultConfig()
	cfg.Listen, cfg.TrustDomain = "127.0.0.1:0", "agency.example"
	cfg.TLS.Certificate, cfg.TLS.Key, cfg.TLS.Bundle = pair.Cert, pair.Key, a.Bundle()
	cfg.Vault.Address, cfg.Vault.CA, cfg.Vault.Credentials = "https://127.0.0.1:1", a.Bundle(), filepath.Join(dir, "credentials")
	cfg.Store.Path, cfg.Blobs.Path, cfg.Audit.Key = filepath.Join(dir, "facts.db"), filepath.Join(dir, "blobs"), filepath.Join(dir, "log.key")
	text, err := cfg.yaml()
	noError(t, err)
	path = filepath.Join(dir, "portcullisd.yaml")
	noError(t, os.WriteFile(path, text, 0o600))
	return dir, path
}

// TestWhatServeRefuses: check and serve refuse the same, in the same words, and say which
// setting and which file it is.
func TestWhatServeRefuses(t *testing.T) {
	if out, said, code := func() (string, string, int) {
		_, path := configured(t)
		return typed(t, "config", "check", "--config", path)
	}(); code != 0 || said != "" || !strings.Contains(out, "trust_domain: agency.example") {
		t.Fatalf("a good one: exit %d, %s%s", code, out, said)
	}
	chmod := func(file string, mode os.FileMode) func(*testing.T, string) {
		return func(t *testing.T, dir string) { noError(t, os.Chmod(filepath.Join(dir, file), mode)) }
	}
	remove := func(file string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { noError(t, os.Remove(filepath.Join(dir, file))) }
	}
	write := func(file, text string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			noError(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600))
		}
	}
	issue := func(domain, id string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			a, err := certs.Open(filepath.Join(dir, "other"), domain)
			noError(t, err)
			pair, err := a.Issue("portcullisd", id, certs.LocalServer)
			noError(t, err)
			for from, to := range map[string]string{pair.Cert: "certs/portcullisd.pem", pair.Key: "certs/portcullisd.key"} {
				noError(t, os.Rename(from, filepath.Join(dir, to)))
			}
		}
	}
	for name, c := range map[string]struct {
		change func(t *testing.T, dir string)
		args   []string
		want   []string
	}{
		"no port":                  {args: []string{"--listen", "foo"}, want: []string{"listen", "host:port", `"foo"`}},
		"a port that is none":      {args: []string{"--listen", "127.0.0.1:99999"}, want: []string{"listen", "host:port"}},
		"metrics without a port":   {args: []string{"--metrics.listen", "foo"}, want: []string{"metrics.listen", "host:port"}},
		"vault in the clear":       {args: []string{"--vault.address", "http://127.0.0.1:8200"}, want: []string{"vault.address", "https"}},
		"a mount that is none":     {args: []string{"--vault.mount", "a/b"}, want: []string{"vault.mount", `"a/b"`}},
		"a trust domain's grammar": {args: []string{"--trust_domain", "Foo_Bar"}, want: []string{"trust_domain", `"Foo_Bar"`}},
		"an ID for a trust domain": {args: []string{"--trust_domain", "spiffe://agency.example"}, want: []string{"trust_domain"}},
		"a role twice":             {args: []string{"--roles", "release,release"}, want: []string{"roles", "twice"}},

		"no certificate":             {args: []string{"--tls.certificate", "nosuch.pem"}, want: []string{"tls.certificate", "nosuch.pem"}},
		"no key":                     {change: remove("certs/portcullisd.key"), want: []string{"tls.key", "portcullisd.key"}},
		"no bundle":                  {change: remove("certs/ca.pem"), want: []string{"tls.bundle", "vault.ca", "ca.pem"}},
		"an empty bundle":            {change: write("certs/ca.pem", ""), want: []string{"tls.bundle", "vault.ca", "ca.pem"}},
		"a key for all to read":      {change: chmod("certs/portcullisd.key", 0o644), want: []string{"tls.key", "portcullisd.key", "0644"}},
		"another domain's":           {change: issue("other.example", "spiffe://other.example/portcullisd"), want: []string{"tls.certificate", "portcullisd.pem", "spiffe://other.example/portcullisd", "spiffe://agency.example/portcullisd"}},
		"an admin's certificate":     {change: issue("agency.example", "spiffe://agency.example/admin/alice"), want: []string{"tls.certificate", "portcullisd.pem", "/admin/alice"}},
		"no key of the log":          {change: remove("log.key"), want: []string{"audit.key", "log.key", "log-key --create"}},
		"a log key for all to read":  {change: chmod("log.key", 0o640), want: []string{"audit.key", "log.key", "0640"}},
		"a log key that is none":     {change: write("log.key", "x"), want: []string{"audit.key", "log.key"}},
		"no credential of a role":    {change: remove("credentials/grants.json"), want: []string{"vault.credentials", "grants.json"}},
		"a credential for all":       {change: chmod("credentials/admin.json", 0o644), want: []string{"vault.credentials", "admin.json", "0644"}},
		"a credential that is none":  {change: write("credentials/capture.json", "{}"), want: []string{"vault.credentials", "capture.json"}},
		"no credential of the log's": {change: remove("credentials/log.json"), args: []string{"--audit.signer", "vault"}, want: []string{"vault.credentials", "log.json"}},
		"no folder of the database":  {args: []string{"--store.path", "/nonexistent/facts.db"}, want: []string{"store.path", "/nonexistent"}},
		"a folder for a database":    {args: []string{"--store.path", "/"}, want: []string{"store.path"}},
		"a file for a folder":        {args: []string{"--blobs.path", "/dev/null"}, want: []string{"blobs.path", "/dev/null"}},
		"ciphertext nobody keeps":    {args: []string{"--roles", "release"}, want: []string{"blobs.path", "blobs"}},
		"no folder to ship to":       {args: []string{"--audit.ship", "/nonexistent/checkpoints"}, want: []string{"audit.ship", "/nonexistent"}},
		"another certificate's key": {change: func(t *testing.T, dir string) {
			a, err := certs.Open(filepath.Join(dir, "certs"), "agency.example")
			noError(t, err)
			other, err := a.Issue("other", a.ServerID(), certs.LocalServer)
			noError(t, err)
			noError(t, os.Rename(other.Key, filepath.Join(dir, "certs/portcullisd.key")))
		}, want: []string{"portcullisd.pem", "portcullisd.key", "does not match"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, path := configured(t)
			if c.change != nil {
				c.change(t, dir)
			}
			args := append([]string{"--config", path}, c.args...)
			out, checked, code := typed(t, append([]string{"config", "check"}, args...)...)
			if code != 2 || out != "" {
				t.Errorf("check: exit %d, %s%s", code, out, checked)
			}
			for _, want := range c.want {
				if !strings.Contains(checked, want) {
					t.Errorf("check says %q, nothing of %q", checked, want)
				}
			}
			if _, served, code := typed(t, append([]string{"serve"}, args...)...); code != 2 || served != checked {
				t.Errorf("serve: exit %d, %q, and check says %q", code, served, checked)
			}
			if _, err := os.Stat(filepath.Join(dir, "facts.db")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("what is refused has made a database: %v", err)
			}
		})
	}
}

// TestDoubtfulConfiguration: what is allowed and rarely meant is told.
func TestDoubtfulConfiguration(t *testing.T) {
	for args, want := range map[string]string{
		"--metrics.listen 0.0.0.0:9090":   "metrics.listen",
		"--metrics.listen :9090":          "metrics.listen",
		"--metrics.listen [::1]:9090":     "",
		"--metrics.listen localhost:9090": "",
	} {
		_, path := configured(t)
		out, said, code := typed(t, append([]string{"config", "check", "--config", path}, strings.Fields(args)...)...)
		if code != 0 || out == "" || strings.Contains(said, "warning") != (want != "") || !strings.Contains(said, want) {
			t.Errorf("%s: exit %d, %q", args, code, said)
		}
	}
}

// TestDevRefusesASettingFirst: nothing is made for a log that would stop releases.
func TestDevRefusesASettingFirst(t *testing.T) {
	for _, every := range []string{"9ms", "5001ms", "-1s"} {
		dir := filepath.Join(t.TempDir(), "dev")
		_, said, code := typed(t, "dev", "--dir", dir, "--audit.sign_every", every)
		if _, err := os.Stat(dir); code != 2 || !strings.Contains(said, "--audit.sign_every is") || !os.IsNotExist(err) {
			t.Errorf("%s: exit %d, %q, %v", every, code, said, err)
		}
	}
}

// TestSettingsThatAreNone: an error says where the setting stands and which one was meant, once.
func TestSettingsThatAreNone(t *testing.T) {
	for name, c := range map[string]struct {
		text, variable, value string
		args                  []string
		want, not             string
	}{
		"in the file":         {text: "listn: x\n", want: `portcullisd.yaml: there is no setting "listn"; did you mean listen?`},
		"deep in the file":    {text: "vault: {adress: x}\n", want: `did you mean vault.address?`},
		"a folder":            {text: "tls: x\n", want: `portcullisd.yaml`},
		"in the environment":  {variable: "PORTCULLISD_LISTN", value: "x", want: "PORTCULLISD_LISTN: there is no such setting; did you mean PORTCULLISD_LISTEN?"},
		"one underscore":      {variable: "PORTCULLISD_TLS_KEY", value: "x", want: "PORTCULLISD_TLS_KEY: there is no such setting; did you mean PORTCULLISD_TLS__KEY?"},
		"two of one":          {variable: "PORTCULLISD_TRUST__DOMAIN", value: "x", want: "did you mean PORTCULLISD_TRUST_DOMAIN?"},
		"nothing near":        {variable: "PORTCULLISD_COLOUR_OF_THE_SKY", value: "x", want: "PORTCULLISD_COLOUR_OF_THE_SKY: there is no such setting", not: "mean"},
		"a flag":              {args: []string{"--listn", "x"}, want: "--listn; did you mean --listen?"},
		"one dash in a flag":  {args: []string{"--tls-key", "x"}, want: "did you mean --tls.key?"},
		"an empty level":      {variable: "PORTCULLISD_LOG__LEVEL", want: "log.level must not be empty"},
		"an empty signer":     {variable: "PORTCULLISD_AUDIT__SIGNER", want: "audit.signer must not be empty"},
		"an empty address":    {variable: "PORTCULLISD_VAULT__ADDRESS", want: "vault.address must not be empty"},
		"an empty time":       {variable: "PORTCULLISD_AUDIT__MAX_LAG", want: "audit.max_lag"},
		"too rare a step":     {variable: "PORTCULLISD_AUDIT__SIGN_EVERY", value: "6s", want: "audit.sign_every is 6s"},
		"an unknown command":  {args: []string{"serv"}, want: "serv"},
		"a word too many":     {args: []string{"now"}, want: "now"},
		"a number that is no": {args: []string{"--images.max_bytes", "many"}, want: "images.max_bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, path := configured(t)
			if c.text != "" {
				old, err := os.ReadFile(path)
				noError(t, err)
				if strings.HasPrefix(c.text, "vault:") {
					old = []byte(strings.Replace(string(old), "vault:\n", "vault:\n    adress: x\n", 1))
				} else if strings.HasPrefix(c.text, "tls:") {
					old = []byte("tls: x\n")
				} else {
					old = append(old, c.text...)
				}
				noError(t, os.WriteFile(path, old, 0o600))
			}
			if c.variable != "" {
				t.Setenv(c.variable, c.value)
			}
			args := append([]string{"config", "check", "--config", path}, c.args...)
			if name == "an unknown command" {
				args = c.args
			}
			_, said, code := typed(t, args...)
			if code != 2 || !strings.Contains(said, c.want) || (c.not != "" && strings.Contains(said, c.not)) {
				t.Errorf("exit %d, %q", code, said)
			}
			if c.text == "" || name != "a folder" {
				if n := strings.Count(strings.TrimSpace(said), "\n") + 1; n != 1 {
					t.Errorf("%d lines for one mistake: %q", n, said)
				}
			}
		})
	}
}

// TestExitCodes: 2 is for what a person can mend in the command line or the configuration.
func TestExitCodes(t *testing.T) {
	_, path := configured(t)
	if _, said, code := typed(t, "fsck", "--config", path); code != 1 {
		t.Errorf("a database that is not there: exit %d, %s", code, said)
	}
	if _, said, code := typed(t, "setup"); code != 2 {
		t.Errorf("flags that are missing: exit %d, %s", code, said)
	}
	if _, said, code := typed(t, "fsck", "--config", path, "--output", "xml"); code != 2 {
		t.Errorf("an output that is none: exit %d, %s", code, said)
	}
	for _, args := range [][]string{{"help"}, {"serve", "--help"}} {
		if out, _, code := typed(t, args...); code != 0 || !strings.Contains(out, "exits with 2") {
			t.Errorf("%v: exit %d, %s", args, code, out)
		}
	}
}

// TestNextSteps: the comments stand in one column, however long the folder's name is.
func TestNextSteps(t *testing.T) {
	for _, dir := range []string{"/x", "/a/rather/long/name/of/a/folder"} {
		var b strings.Builder
		noError(t, nextSteps(&b, dir))
		column := 0
		for _, line := range strings.Split(b.String(), "\n") {
			at := strings.Index(line, " # ")
			if at < 0 {
				continue
			}
			if column == 0 {
				column = at
			}
			if at != column {
				t.Errorf("%q has its comment at %d, others at %d", line, at, column)
			}
		}
		if column == 0 {
			t.Error("no comments")
		}
	}
}
