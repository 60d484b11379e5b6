package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portcullis/portcullis/internal/hcvault"
	"github.com/portcullis/portcullis/vault"
)

// markTexts gives what stands in Vault's two marks.
func (s *service) markTexts() (out string) {
	s.t.Helper()
	for _, name := range []string{"mark", "mark-2"} {
		status, got := s.atVault("GET", "sys/policies/acl/"+hcvault.FencePrefix+name, s.vault.RootToken(), nil)
		out += fmt.Sprintln(status, got["data"])
	}
	return out
}

// begins starts a daemon beside the service's, by another configuration.
func (s *service) begins(cfg config) (*daemon, error) {
	s.t.Helper()
	log, err := logger(s.logs, "info")
	noError(s.t, err)
	return start(s.t.Context(), cfg, log)
}

// TestOtherDatabase: a daemon above the wrong database does not begin, and has changed nothing at
// Vault: neither its marks nor anybody's token. Who means it must say so to Vault.
func TestOtherDatabase(t *testing.T) {
	s := begin(t)
	p := purpose()
	s.admit(p, devOrg)
	records := s.store(s.as(lane), vault.Plate, 2, 2000)
	key := s.wraps(records)[0]
	grant, token := s.granted(s.as(matcher), p, 10)
	marks := s.markTexts()
	var ours string
	noError(t, openSQL(t, s.cfg.Store.Path).QueryRowContext(t.Context(), "SELECT mark FROM vault_mark").Scan(&ours))
	ours = ours[strings.LastIndexByte(ours, ' ')+1:]

	untouched := func(what string) {
		t.Helper()
		if now := s.markTexts(); now != marks && marks != "" || strings.Count(now, ours) != 2 {
			t.Errorf("%s: Vault's marks are %s, and were %s", what, now, marks)
		}
		if !s.opensAt(token, key) {
			t.Errorf("%s: the token was ended", what)
		}
		if opened, err := s.fetchAll(s.as(matcher), grant, token); err != nil || opened != 2 {
			t.Errorf("%s: the real daemon opens %d: %v", what, opened, err)
		}
	}
	other := s.cfg
	other.Store.Path, other.Blobs.Path = filepath.Join(t.TempDir(), "facts.db"), filepath.Join(t.TempDir(), "blobs")
	other.Audit.Ship = filepath.Join(t.TempDir(), "checkpoints") // that of the real one would tell that this log is another
	elsewhere := other
	elsewhere.Blobs.Path = s.cfg.Blobs.Path
	alone := other
	alone.Roles = roleAdmin
	for _, c := range []struct {
		what string
		config
	}{{"a new database", other}, {"beside the same ciphertext", elsewhere}, {"the admin role alone", alone}, {"once more", other}} {
		what := c.what
		d, err := s.begins(c.config)
		if err == nil {
			noError(t, d.Close())
		}
		refused(t, err, vault.ReasonOtherDatabase)
		for _, want := range []string{ours, "store.path", "docs/operations.md"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v: nothing of %s", what, err, want)
			}
		}
		untouched(what)
	}

	// While Vault is away nobody can know; then the daemon stops as soon as it does.
	noError(t, s.vault.Seal(t.Context()))
	d, err := s.begins(other)
	noError(t, err)
	stopped := make(chan error, 1)
	go func() { stopped <- d.Wait(t.Context()) }()
	noError(t, s.vault.Unseal(t.Context()))
	select {
	case err := <-stopped:
		refused(t, err, vault.ReasonOtherDatabase)
	case <-time.After(30 * time.Second):
		t.Fatal("it goes on")
	}
	wait(t, "the real one serves again", func() bool { return s.serves(releaseName) })
	marks = "" // the real one has moved them itself
	untouched("Vault was away")
	s.restart()
	untouched("after a restart")
	for _, e := range s.events("vault.restored") {
		t.Errorf("the log has %v", e)
	}

	// Who means it takes the marks away, with a token of Vault's operator.
	noError(t, s.Close())
	for _, name := range []string{"mark", "mark-2"} {
		s.atVault("DELETE", "sys/policies/acl/"+hcvault.FencePrefix+name, s.vault.RootToken(), nil)
	}
	d, err = s.begins(other)
	noError(t, err)
	if s.opensAt(token, key) {
		t.Error("a token of the database before opens")
	}
	noError(t, d.Close())
	log, err := logger(s.logs, "info")
	noError(t, err)
	if d, err := start(t.Context(), s.cfg, log); err == nil {
		noError(t, d.Close())
		t.Error("the database before is taken, too")
	} else {
		refused(t, err, vault.ReasonOtherDatabase)
	}
}
