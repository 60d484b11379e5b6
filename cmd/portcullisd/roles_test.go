package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
)

// TestRolesApart runs each role as a daemon of its own, with its own credential alone, and
// plays the story across them: a grant revoked in one ends the stream in another.
func TestRolesApart(t *testing.T) {
	s := begin(t)
	noError(t, s.Close()) // the one with all roles
	at := map[string]string{}
	for _, role := range allRoles {
		cfg := s.cfg
		cfg.Roles, cfg.Vault.Credentials = role, filepath.Join(t.TempDir(), role)
		noError(t, os.Mkdir(cfg.Vault.Credentials, 0o700))
		if role != roleRelease { // which has none
			file, err := os.ReadFile(filepath.Join(s.cfg.Vault.Credentials, role+".json"))
			noError(t, err)
			noError(t, os.WriteFile(filepath.Join(cfg.Vault.Credentials, role+".json"), file, 0o600))
		}
		log, err := logger(s.logs, "info")
		noError(t, err)
		d, err := start(t.Context(), cfg, log)
		noError(t, err)
		t.Cleanup(func() { noError(t, d.Close()) })
		at[role] = d.Addr()
	}
	as := func(role, path string) *client.Client {
		cfg := s.config(path)
		cfg.Address = at[role]
		c, err := client.Dial(cfg)
		noError(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	p := purpose()
	for _, who := range []string{alice, bob} {
		c := as(roleAdmin, who)
		_, err := c.ApplyContractor(t.Context(), vault.Contractor{Name: devOrg, Title: "an example"})
		noError(t, err)
		_, err = c.ApplyPurpose(t.Context(), p)
		noError(t, err)
	}
	const images = 60
	s.store(as(roleCapture, lane), vault.Plate, images, 64<<10)

	asking := as(roleGrants, matcher)
	g, err := s.request(asking, p, images)
	noError(t, err)
	for _, who := range []string{alice, bob} {
		_, err := as(roleAdmin, who).Approve(t.Context(), g.Name, yes)
		noError(t, err)
	}
	token := s.activate(asking, g.Name)
	opening := as(roleRelease, matcher)
	handles := s.handles(opening, g.Name, token)
	if len(handles) != images {
		t.Fatalf("%d handles", len(handles))
	}

	// What a process does not offer.
	_, err = as(roleGrants, alice).Grants.RevokeGrant(t.Context(), &pb.RevokeGrantRequest{Name: g.Name})
	refused(t, err, vault.ReasonNotOffered)
	_, err = as(roleAdmin, matcher).Grants.ActivateGrant(t.Context(), &pb.ActivateGrantRequest{Name: g.Name})
	refused(t, err, vault.ReasonNotOffered)
	for _, role := range []string{roleCapture, roleGrants, roleAdmin} {
		_, err := as(role, matcher).Release.ListRecords(t.Context(), &pb.ListRecordsRequest{Grant: g.Name, GrantToken: token.Reveal()})
		if vault.KindOf(err) != vault.NotOffered {
			t.Errorf("%s lists records: %v", role, err)
		}
	}

	if got := s.past(token); got != 200 {
		t.Fatalf("Vault answers %d to the live token", got)
	}
	received, revoked, ended := make(chan struct{}, images), make(chan struct{}), make(chan error, 1)
	go func() {
		n := 0
		ended <- opening.Fetch(t.Context(), g.Name, token, handles, func(*pb.Image) error {
			received <- struct{}{}
			if n++; n == 5 {
				<-revoked // reads no more, so that a send is under way before long
			}
			return nil
		})
	}()
	for range 5 {
		<-received
	}
	audit := as(roleAdmin, auditor)
	released := func() (n int, last int64) {
		_, err := audit.Events(t.Context(), 0, []string{"record.released"}, func(e *pb.AuditEvent) error {
			n, last = n+1, e.Index
			return nil
		})
		noError(t, err)
		return n, last
	}
	for before, now := -1, 0; before != now; time.Sleep(500 * time.Millisecond) {
		before = now
		now, _ = released()
	}
	done, err := as(roleAdmin, bob).Grants.RevokeGrant(t.Context(), &pb.RevokeGrantRequest{Name: g.Name})
	noError(t, err)
	close(revoked)
	// The one that streams, and the workload's five others, in all four processes.
	if b := done.Barrier; b.ConnectionsReset != 6 || b.SendsEnded != 1 || !b.VaultDone {
		t.Errorf("the barrier across processes says %v", b)
	}
	if err := <-ended; err == nil {
		t.Error("the stream went on in the other process")
	}
	if _, last := released(); last > done.Barrier.EventIndex {
		t.Errorf("a release has index %d, the revocation %d", last, done.Barrier.EventIndex)
	}
	t.Logf("across processes: %v, %d sends ended", done.Barrier.Waited.AsDuration(), done.Barrier.SendsEnded)
	if got := s.past(token); got != 403 {
		t.Errorf("Vault answers %d to the token after the revocation", got)
	}
}
