package main

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portcullis/portcullis/internal/store"
	"github.com/portcullis/portcullis/internal/tlog"
	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
)

// signed is a service that signs its log by the key at Vault, with a grant that opens one record.
type signed struct {
	*service
	key           string // of the log
	matcher       *client.Client
	grant, handle string
	token         vault.Token
}

const logKeyAtVault = "portcullis-log/keys/checkpoints"

func signerAtVault(c *config) {
	c.Audit.Signer, c.Audit.Key, c.Audit.MaxLag = signerVault, "", 2*time.Second
}

func beginSigned(t *testing.T) *signed {
	t.Helper()
	s := &signed{service: begin(t, signerAtVault)}
	s.key = s.printedKey()
	s.connect()
	p := purpose()
	s.admit(p, devOrg, "bystander-1", "bystander-2", "bystander-3")
	s.store(s.as(lane), vault.Plate, 1, 2000)
	s.grant, s.token = s.granted(s.matcher, p, 10)
	s.handle = s.handles(s.matcher, s.grant, s.token)[0]
	s.covers(len(s.events()))
	return s
}

// connect makes the contractor's client anew: a service that was restarted listens elsewhere.
// The client checks the log, and repeats nothing.
func (s *signed) connect() {
	s.t.Helper()
	cfg := s.config(matcher)
	cfg.LogKey, cfg.Patience = s.key, -1
	c, err := client.Dial(cfg)
	noError(s.t, err)
	s.t.Cleanup(func() { c.Close() })
	s.matcher = c
}

// printedKey is what the command log-key prints.
func (s *service) printedKey() string {
	s.t.Helper()
	text, err := s.cfg.yaml()
	noError(s.t, err)
	file := filepath.Join(s.t.TempDir(), "portcullisd.yaml")
	noError(s.t, os.WriteFile(file, text, 0o600))
	var out bytes.Buffer
	cmd := logKeyCommand(&out)
	cmd.SetArgs([]string{"--config", file})
	noError(s.t, cmd.ExecuteContext(s.t.Context()))
	return strings.TrimSpace(out.String())
}

// newest gives the newest checkpoint, as it stands in the database, which must be of the log's key.
func (s *signed) newest() tlog.Checkpoint {
	s.t.Helper()
	key, err := tlog.ParseKey(s.key)
	noError(s.t, err)
	text, err := tlog.Reader{Ledger: treeLedger{s.daemon.store}}.Checkpoint(s.t.Context())
	noError(s.t, err)
	c, err := tlog.Open(text, key)
	noError(s.t, err)
	return c
}

// covers waits until the newest checkpoint has so many events.
func (s *signed) covers(events int) {
	s.t.Helper()
	wait(s.t, "the tree has all events", func() bool { return s.newest().Size >= int64(events) })
}

// fetch asks for the record once.
func (s *signed) fetch() error {
	_, err := s.matcher.Release.FetchImage(s.t.Context(), &pb.FetchImageRequest{Grant: s.grant, GrantToken: s.token.Reveal(), Handle: s.handle})
	return err
}

// suspend suspends a contractor, which must work whatever Vault does.
func (s *signed) suspend(org string) {
	s.t.Helper()
	got, err := s.as(alice).Admin.SuspendContractor(s.t.Context(), &pb.SuspendContractorRequest{Name: "contractors/" + org, Note: "incident"})
	noError(s.t, err)
	if got.Contractor.State != pb.Contractor_STATE_SUSPENDED {
		s.t.Fatalf("the contractor is %v", got.Contractor.State)
	}
}

// stands says that releases stop, for that reason, and that nothing is signed while the tree is
// behind by more than it may be.
func (s *signed) stands(since tlog.Checkpoint, why vault.Reason) {
	s.t.Helper()
	wait(s.t, "nothing is released", func() bool { return vault.ReasonOf(s.fetch()) == why })
	wait(s.t, "the tree is too far behind", func() bool {
		var lag time.Duration
		noError(s.t, s.daemon.store.View(s.t.Context(), func(tx *store.Tx) (err error) {
			lag, _, err = tx.LogLag()
			return err
		}))
		return lag > s.cfg.Audit.MaxLag
	})
	refused(s.t, s.matcher.Fetch(s.t.Context(), s.grant, s.token, []string{s.handle}, func(*pb.Image) error {
		s.t.Error("an image left")
		return nil
	}), why)
	if now := s.newest(); now != since {
		s.t.Errorf("the checkpoint went from %d to %d events", since.Size, now.Size)
	}
}

// recovers waits until all is as it was, and checks the log from end to end.
func (s *signed) recovers() {
	s.t.Helper()
	wait(s.t, "it is released again", func() bool { return s.fetch() == nil })
	s.covers(len(s.events()))
	if _, err := s.matcher.Checkpoint(s.t.Context()); err != nil {
		s.t.Errorf("the client finds: %v", err)
	}
	got, err := verifyTree(s.t.Context(), s.cfg, s.hc, s.daemon.store)
	if err != nil || len(got.Findings) != 0 {
		s.t.Errorf("the tree: %v, %v", got.Findings, err)
	}
}

// TestSignerAtVault: the log grows under the key at Vault that log-key prints; while Vault is
// sealed or gone, or refuses to sign, nothing is signed and nothing is released, and contractors
// are suspended all the same; then all goes on by itself.
func TestSignerAtVault(t *testing.T) {
	s := beginSigned(t)
	noError(t, s.fetch())
	s.recovers()
	// What no Vault opens is refused for that; where Vault would open it, the log refuses.
	const policy = "sys/policies/acl/portcullis-log"
	_, was := s.atVault("GET", policy, s.vault.RootToken(), nil)
	text := was["data"].(map[string]any)["policy"]
	for _, gone := range []struct {
		org       string
		why       vault.Reason
		away, off func()
	}{
		{
			"bystander-1", vault.ReasonVaultUnavailable,
			func() { noError(t, s.vault.Seal(t.Context())) }, func() { noError(t, s.vault.Unseal(t.Context())) },
		},
		{
			"bystander-2", vault.ReasonVaultUnavailable,
			func() { noError(t, s.vault.Kill()) }, func() { noError(t, s.vault.Restart(t.Context())) },
		},
		{
			"bystander-3", vault.ReasonLogBehind,
			func() { s.root("DELETE", policy, nil) }, func() { s.root("PUT", policy, map[string]any{"policy": text}) },
		},
	} {
		last := s.newest()
		gone.away()
		s.suspend(gone.org)
		s.stands(last, gone.why)
		gone.off()
		s.recovers()
		if now := s.newest(); now.Size <= last.Size {
			t.Errorf("the tree had %d events and has %d", last.Size, now.Size)
		}
	}
	if logs := s.logs.String(); !strings.Contains(logs, "the log's tree does not grow") || !strings.Contains(logs, "the log's tree grows again") {
		t.Error("the service's log does not tell of it")
	}
}

// TestSignerAwayAtStart: the daemon starts without Vault, does what it can, and signs as soon
// as Vault is there.
func TestSignerAwayAtStart(t *testing.T) {
	s := beginSigned(t)
	last := s.newest()
	noError(t, s.Close())
	noError(t, s.vault.Kill())
	s.serve()
	s.connect()
	if !strings.Contains(s.logs.String(), "the log's key at Vault can not be reached yet") {
		t.Error("the service's log does not tell of it")
	}
	s.suspend("bystander-1")
	s.stands(last, vault.ReasonVaultUnavailable)
	noError(t, s.vault.Restart(t.Context()))
	s.recovers()
}

// TestSignerNeedsItsCredential: a daemon that is told to sign at Vault and has no credential
// for it does not start.
func TestSignerNeedsItsCredential(t *testing.T) {
	s := begin(t, signerAtVault)
	noError(t, s.Close())
	noError(t, os.Remove(filepath.Join(s.cfg.Vault.Credentials, "log.json")))
	log, err := logger(s.logs, "info")
	noError(t, err)
	if d, err := start(t.Context(), s.cfg, log); err == nil {
		noError(t, d.Close())
		t.Error("it started")
	} else if !strings.Contains(err.Error(), "log.json") {
		t.Errorf("it says %v", err)
	}
}

// root makes a call to Vault as its root, which must work.
func (s *service) root(method, path string, in any) {
	s.t.Helper()
	if status, got := s.atVault(method, path, s.vault.RootToken(), in); status >= http.StatusMultipleChoices {
		s.t.Fatalf("%s %s: %d %v", method, path, status, got)
	}
}

// TestSignerKeyDeletedOrReplaced: whatever becomes of the key at Vault, nothing is signed by
// another one, also after a restart, and releases stop.
func TestSignerKeyDeletedOrReplaced(t *testing.T) {
	s := beginSigned(t)
	s.root("POST", logKeyAtVault+"/rotate", nil)
	s.suspend("bystander-1") // an event
	s.recovers()             // version 1 signs on

	last := s.newest()
	s.root("POST", logKeyAtVault+"/config", map[string]any{"deletion_allowed": true})
	s.root("DELETE", logKeyAtVault, nil)
	s.root("POST", logKeyAtVault, map[string]any{"type": "ed25519"})
	s.suspend("bystander-2")
	s.stands(last, vault.ReasonLogBehind)
	if !strings.Contains(s.logs.String(), "the signature is not of the log's key") {
		t.Error("the service's log does not tell that the key was replaced")
	}

	s.restart()
	s.connect()
	s.stands(last, vault.ReasonLogBehind)
	if got, err := verifyTree(t.Context(), s.cfg, s.hc, s.daemon.store); err == nil && len(got.Findings) == 0 {
		t.Error("a tree that another key signed verifies by the new one")
	}

	s.root("POST", logKeyAtVault+"/config", map[string]any{"deletion_allowed": true})
	s.root("DELETE", logKeyAtVault, nil)
	s.stands(last, vault.ReasonLogBehind)
	s.restart()
	s.connect()
	s.stands(last, vault.ReasonLogBehind)
}
