package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const goodConfig = `server: 127.0.0.1:8443
server_id: spiffe://portcullis.example/portcullisd
bundle: certs/ca.pem
default_profile: alice
profiles:
  lane:  {certificate: certs/lane.pem, key: /keys/lane.key}
  alice: {certificate: certs/alice.pem, key: certs/alice.key}
`

func TestConfigRefuses(t *testing.T) {
	for name, c := range map[string]struct{ old, new, want string }{
		"unknown key":         {"bundle:", "bundel: x\nbundle:", `x.yaml: line 3: unknown key "bundel"`},
		"unknown inner key":   {"key: certs/alice.key", "key: a, passphrase: b", `unknown key "passphrase"`},
		"twice":               {"bundle:", "server: x\nbundle:", `already defined at line 1`},
		"no server":           {"server: 127.0.0.1:8443", "server: ''", "server must not be empty"},
		"no bundle":           {"certs/ca.pem", "''", "bundle must not be empty"},
		"id is no SPIFFE ID":  {"spiffe://portcullis.example", "https://portcullis.example", "server_id must be a SPIFFE ID"},
		"default unknown":     {"default_profile: alice", "default_profile: al", "default_profile \"al\" is none of the profiles: alice, lane"},
		"name leaves folder":  {"  alice:", "  ../alice:", "a name is lower-case"},
		"profile without key": {", key: certs/alice.key", "", "must have certificate and key"},
		"two documents":       {"server:", "---\n---\nserver:", "must hold one YAML document"},
		"not a mapping":       {goodConfig, "[1, 2]", "a mapping of keys is wanted"},
		"empty":               {goodConfig, "", "is empty"},
		"too large":           {goodConfig, strings.Repeat("#", maxYAML+1), "has more than"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(goodConfig, c.old, c.new, 1)
			if text == goodConfig {
				t.Fatal("the case changes nothing")
			}
			_, err := parseConfig("x.yaml", []byte(text))
			var u *usageError
			if !errors.As(err, &u) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want a usage error with %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "main.") {
				t.Errorf("the error names our types: %v", err)
			}
		})
	}
}

func TestProfileIsChosen(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "portcullis.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	load := func(flag, env string) (profile, error) {
		a := &app{configFile: file, profile: flag, getenv: func(k string) string {
			return map[string]string{"PORTCULLIS_PROFILE": env}[k]
		}}
		return a.loadProfile()
	}
	write(goodConfig)
	for _, c := range []struct{ flag, env, want string }{
		{"", "", "alice"}, {"", "lane", "lane"}, {"alice", "lane", "alice"}, {"lane", "", "lane"},
	} {
		p, err := load(c.flag, c.env)
		if err != nil || p.name != c.want {
			t.Errorf("--profile %q, environment %q: got %q, %v; want %q", c.flag, c.env, p.name, err, c.want)
		}
	}
	p, err := load("lane", "")
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(dir, "certs/lane.pem"); p.client.Certificate != want {
		t.Errorf("certificate %s, want %s: relative to the file", p.client.Certificate, want)
	}
	if p.client.Key != "/keys/lane.key" {
		t.Errorf("key %s: an absolute path stays", p.client.Key)
	}
	if want := tokens(filepath.Join(dir, "tokens/lane")); p.tokens() != want {
		t.Errorf("tokens in %s, want %s", p.tokens(), want)
	}
	if _, err := load("bob", ""); err == nil {
		t.Error("an unknown profile was taken")
	}
	write(strings.Replace(goodConfig, "default_profile: alice\n", "", 1))
	if _, err := load("", ""); err == nil || !strings.Contains(err.Error(), "one of alice, lane") {
		t.Errorf("no profile chosen among two: %v", err)
	}
	write(goodConfig[:strings.Index(goodConfig, "default")] + "profiles: {only: {certificate: a, key: b}}\n")
	if p, err := load("", ""); err != nil || p.name != "only" {
		t.Errorf("the only profile: %q, %v", p.name, err)
	}
}
