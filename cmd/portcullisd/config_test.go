package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// whole is a configuration with all that must be there.
const whole = `
listen: 127.0.0.1:1
trust_domain: agency.example
tls: {certificate: c.pem, key: /keys/k.pem, bundle: b.pem}
vault: {address: "https://vault:8200", ca: ca.pem, credentials: creds}
store: {path: facts.db}
blobs: {path: blobs}
audit: {key: log.key}
`

func TestConfigFileEnvironmentFlags(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "portcullisd.yaml")
	load := func(text string, environ []string, args ...string) (config, error) {
		t.Helper()
		noError(t, os.WriteFile(path, []byte(text), 0o600))
		f := pflag.NewFlagSet("serve", pflag.ContinueOnError)
		f.String("config", "", "")
		configFlags(f)
		noError(t, f.Parse(args))
		return loadConfig(path, environ, f)
	}
	c, err := load(whole, nil)
	noError(t, err)
	if c.TLS.Certificate != filepath.Join(dir, "c.pem") || c.TLS.Key != "/keys/k.pem" || c.Vault.Mount != "portcullis" || c.Images.MaxBytes != defaultMaxBytes {
		t.Errorf("got %+v", c)
	}
	c, err = load(whole, []string{"PORTCULLISD_IMAGES__MAX_BYTES=1000", "PORTCULLISD_RECONCILE__KEEP=720h", "PORTCULLISD_LISTEN=127.0.0.1:2", "OTHER=x"}, "--listen", "127.0.0.1:3")
	noError(t, err)
	if c.Images.MaxBytes != 1000 || c.Reconcile.Keep != 720*time.Hour || c.Listen != "127.0.0.1:3" {
		t.Errorf("file, environment and flag gave %+v", c)
	}
	if c.Audit.SignEvery != 100*time.Millisecond {
		t.Errorf("the log's tree grows every %s if nothing is said", c.Audit.SignEvery)
	}
	for _, ok := range []string{"sign_every: 10ms", "sign_every: 5s", "sign_every: 500ms, max_lag: 1s", "sign_every: 5m, max_lag: 10m"} {
		if _, err := load(strings.Replace(whole, "key: log.key", "key: log.key, "+ok, 1), nil); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
	// What check prints is the same configuration again.
	text, err := c.yaml()
	noError(t, err)
	again, err := load(string(text), nil)
	noError(t, err)
	if again != c {
		t.Errorf("%+v was read back as %+v", c, again)
	}

	// Release holds no credential, so it needs no folder of them; any other role does.
	bare := strings.Replace(whole, ", credentials: creds", "", 1)
	if _, err := load(bare+"roles: release\n", nil); err != nil {
		t.Errorf("release alone: %v", err)
	}

	for _, bad := range []struct {
		text    string
		environ []string
		args    []string
		want    string
	}{
		{text: whole + "listne: x\n", want: `"listne"`},
		{text: strings.Replace(whole, "ca: ca.pem", "ca: ca.pem, cert: x", 1), want: `"vault.cert"`},
		{text: whole, environ: []string{"PORTCULLISD_LISTNE=x"}, want: "PORTCULLISD_LISTNE"},
		{text: strings.Replace(whole, "blobs: {path: blobs}", "", 1), want: "blobs.path"},
		{text: strings.Replace(whole, "key: log.key", "max_lag: 5s", 1), want: "audit.key must name"},
		{text: whole, environ: []string{"PORTCULLISD_AUDIT__SIGN_EVERY=9ms"}, want: "audit.sign_every is 9ms, and must be from 10ms to half of audit.max_lag, which is 5s"},
		{text: whole, args: []string{"--audit.sign_every", "-1s"}, want: "audit.sign_every is -1s"},
		{text: strings.Replace(whole, "key: log.key", "key: log.key, sign_every: 5001ms", 1), want: "audit.sign_every is 5.001s"},
		{text: strings.Replace(whole, "key: log.key", "key: log.key, sign_every: 5s, max_lag: 9s", 1), want: "half of audit.max_lag, which is 4.5s"},
		{text: whole + "policy: {conflict_memory: 1h}\n", want: "policy.conflict_memory is 1h0m0s"},
		{text: whole + "policy: {conflict_memory: -24h}\n", want: "policy.conflict_memory is -24h"},
		{text: bare + "roles: release,grants\n", want: "vault.credentials"},
		{text: whole + "images: {max_bytes: many}\n", want: "max_bytes"},
		{text: whole + "reconcile: {grace: 9m}\n", want: "reconcile.grace is 9m0s, and must be from 10m to 168h"},
		{text: whole + "reconcile: {grace: 3600}\n", want: "reconcile.grace"},
		{text: whole + "reconcile: {keep: a week}\n", want: "keep"},
		{text: whole, environ: []string{"PORTCULLISD_RECONCILE__KEEP=23h"}, want: "reconcile.keep is 23h0m0s"},
		{text: whole, args: []string{"--reconcile.every", "200h"}, want: "reconcile.every is 200h0m0s"},
		{text: whole, args: []string{"--images.max_bytes", "0"}, want: "images.max_bytes"},
		{text: whole, args: []string{"--images.max_pixels", "1000000000"}, want: "images.max_pixels"},
		{text: whole + "log: {level: loud}\n", want: "loud"},
		{text: whole + "roles: capture,auditor\n", want: `"auditor"`},
		{text: "listen: [", want: "portcullisd.yaml"},
		{text: whole + "listen: again\n", want: "portcullisd.yaml"},
	} {
		if _, err := load(bad.text, bad.environ, bad.args...); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%v gave %v, want an error with %s", bad, err, bad.want)
		}
	}
	if _, err := loadConfig(filepath.Join(dir, "absent.yaml"), nil, nil); err == nil {
		t.Error("a file that is absent is no error")
	}
}
