package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

// TestDatabaseEditedByHand: whoever can write to the database, but holds no admin's key,
// can not make, approve or widen a grant.
func TestDatabaseEditedByHand(t *testing.T) {
	s := begin(t)
	p := purpose()
	s.admit(p, devOrg)
	s.store(s.as(lane), vault.Plate, 3, 2000)
	contractor := s.as(matcher)
	pending := func() string {
		g, err := s.request(contractor, p, 1)
		noError(t, err)
		return g.Name
	}
	approve := func(grant, admin string) {
		t.Helper()
		_, err := s.as(admin).Approve(t.Context(), grant, yes)
		noError(t, err)
	}
	activate := func(grant string) error {
		_, err := contractor.Grants.ActivateGrant(t.Context(), &pb.ActivateGrantRequest{Name: grant})
		return err
	}

	t.Run("set to approved", func(t *testing.T) {
		g := pending()
		refused(t, activate(g), vault.ReasonGrantPending)
		s.sql("UPDATE grants SET state = 'approved', fence = 'due' WHERE id = $1", id(g))
		refused(t, activate(g), vault.ReasonGrantTampered)
		noFence(t, s, g)
	})
	t.Run("set to approved with one of two approvals", func(t *testing.T) {
		g := pending()
		approve(g, alice)
		s.sql("UPDATE grants SET state = 'approved', fence = 'written' WHERE id = $1", id(g))
		refused(t, activate(g), vault.ReasonGrantTampered)
		s.sql("UPDATE grants SET approvals = 1 WHERE id = $1", id(g))
		if err := activate(g); vault.KindOf(err) != vault.Denied {
			t.Fatal(err)
		}
	})
	t.Run("approval row copied under another name", func(t *testing.T) {
		g := pending()
		approve(g, alice)
		s.sql(`INSERT INTO signatures SELECT decision_id, 'spiffe://portcullis.example/admin/bob', signed_at, signature, chain
			FROM signatures WHERE decision_id = $1`, id(g))
		s.sql("UPDATE grants SET state = 'approved', fence = 'due' WHERE id = $1", id(g))
		refused(t, activate(g), vault.ReasonGrantTampered)
		_, err := s.as(bob).Approve(t.Context(), g, yes)
		if err == nil {
			t.Fatal("an approval is taken beside a forged one")
		}
	})
	t.Run("approval copied from another grant", func(t *testing.T) {
		from, g := pending(), pending()
		approve(from, alice)
		approve(from, bob)
		s.sql("INSERT INTO signatures SELECT $1, signer, signed_at, signature, chain FROM signatures WHERE decision_id = $2", id(g), id(from))
		s.sql("UPDATE grants SET state = 'approved', fence = 'due' WHERE id = $1", id(g))
		refused(t, activate(g), vault.ReasonGrantTampered)
	})
	t.Run("terms widened between the approvals", func(t *testing.T) {
		g := pending()
		approve(g, alice)
		s.sql("UPDATE grants SET max_records = 4000 WHERE id = $1", id(g))
		_, err := s.as(bob).Approve(t.Context(), g, yes)
		refused(t, err, vault.ReasonSignatureInvalid)
	})
	for _, c := range []struct{ name, set string }{
		{"quota", "max_records = 4000"}, {"end", "ends = ends + 3600000000"}, {"modalities", "modalities = 'face,plate'"},
		{"window", "captured_from = captured_from - 86400000000"}, {"grantee", "grantee = grantee, epoch = 2"}, {"justification", "justification = 'another'"},
	} {
		t.Run("terms widened after approval: "+c.name, func(t *testing.T) {
			g := pending()
			approve(g, alice)
			approve(g, bob)
			s.sql("UPDATE grants SET "+c.set+" WHERE id = $1", id(g))
			if err := activate(g); err == nil || !slices.Contains([]vault.Reason{
				vault.ReasonGrantTampered, vault.ReasonPurposeModality, vault.ReasonContractorSuspended,
			}, vault.ReasonOf(err)) {
				t.Fatal(err)
			}
		})
		t.Run("terms widened while active: "+c.name, func(t *testing.T) {
			g, token := s.granted(contractor, p, 1)
			handles := s.handles(contractor, g, token)
			s.sql("UPDATE grants SET "+c.set+" WHERE id = $1", id(g))
			err := contractor.Fetch(t.Context(), g, token, handles[:1], func(*pb.Image) error { t.Fatal("an image left"); return nil })
			if !slices.Contains([]vault.Reason{vault.ReasonGrantTampered, vault.ReasonGrantRevoked}, vault.ReasonOf(err)) {
				t.Fatal(err)
			}
		})
	}
	t.Run("ended grant revived", func(t *testing.T) {
		for _, end := range []func(g string) error{
			func(g string) error {
				_, err := s.as(alice).Grants.RevokeGrant(t.Context(), &pb.RevokeGrantRequest{Name: g})
				return err
			},
			func(g string) error {
				_, err := s.as(matcher).Grants.RetireGrant(t.Context(), &pb.RetireGrantRequest{Name: g})
				return err
			},
		} {
			g, token := s.granted(s.as(matcher), p, 1)
			noError(t, end(g))
			s.sql("UPDATE grants SET state = 'approved', fence = 'due' WHERE id = $1", id(g))
			_, err := s.as(matcher).Grants.ActivateGrant(t.Context(), &pb.ActivateGrantRequest{Name: g})
			refused(t, err, vault.ReasonGrantRevoked)
			s.sql("UPDATE grants SET state = 'active', fence = 'written' WHERE id = $1", id(g))
			again, _ := s.as(matcher).Grants.ActivateGrant(t.Context(), &pb.ActivateGrantRequest{Name: g})
			for _, open := range []vault.Token{token, vault.TokenOf(again.GetGrantToken())} {
				if got := s.past(open); got == 200 {
					t.Fatal("Vault opens under a grant that had ended")
				}
			}
		}
	})
	t.Run("ended grant made to look expired, and revived", func(t *testing.T) {
		for _, before := range []bool{true, false} { // the revocation
			g, token := s.granted(s.as(matcher), p, 1)
			expire := func() { s.sql("UPDATE grants SET ends = ends - 7200000000 WHERE id = $1", id(g)) }
			if before {
				expire()
			}
			_, err := s.as(alice).Grants.RevokeGrant(t.Context(), &pb.RevokeGrantRequest{Name: g})
			noError(t, err)
			if !before {
				expire()
			}
			_ = s.daemon.grants.Sweep(t.Context()) // the other forgeries of this test make it complain
			s.sql("UPDATE grants SET ends = ends + 7200000000, state = 'approved', fence = 'due' WHERE id = $1", id(g))
			_, err = s.as(matcher).Grants.ActivateGrant(t.Context(), &pb.ActivateGrantRequest{Name: g})
			refused(t, err, vault.ReasonGrantRevoked)
			if got := s.past(token); got != 403 {
				t.Fatalf("Vault answers %d to the token of a revoked grant", got)
			}
			s.sql("UPDATE grants SET state = 'revoked', fence = 'closed' WHERE id = $1", id(g))
		}
	})
	t.Run("what Vault was told forgotten before the end", func(t *testing.T) {
		c := s.as(matcher)
		g, token := s.granted(c, p, 1)
		s.sql("UPDATE grants SET fence = 'removed', accessor = '' WHERE id = $1", id(g))
		if got := s.past(token); got != 200 {
			t.Fatalf("Vault answers %d to the live token", got)
		}
		done, err := s.as(alice).Grants.RevokeGrant(t.Context(), &pb.RevokeGrantRequest{Name: g})
		noError(t, err)
		if got := s.past(token); !done.Barrier.VaultDone || got != 403 {
			t.Fatalf("after the revocation (%v) Vault answers %d", done.Barrier, got)
		}
	})
	t.Run("fewer approvals wanted", func(t *testing.T) {
		g, err := s.request(s.as(matcher), p, 1)
		noError(t, err)
		s.sql("UPDATE grants SET approvals = 1 WHERE id = $1", id(g.Name))
		_, err = s.as(alice).Approve(t.Context(), g.Name, yes)
		refused(t, err, vault.ReasonApprovalsMissing)
	})
	t.Run("keys restored and destroyed", func(t *testing.T) {
		events := s.events("record.stored")
		one := events[0].Stored
		_, err := s.as(alice).Admin.RevokeKeys(t.Context(), &pb.RevokeKeysRequest{Selection: &pb.Selection{Record: "records/" + one.Record}})
		noError(t, err)
		for _, state := range []string{"restoring", "destroying"} {
			s.sql("UPDATE records SET key_state = $1 WHERE id = $2", state, one.Record)
			if err := s.daemon.breach.Sweep(t.Context()); vault.ReasonOf(err) != vault.ReasonDecisionTampered {
				t.Errorf("%s: the sweep says %v", state, err)
			}
			status, key := s.atVault("GET", "portcullis/keys/"+one.KeyName, s.vault.RootToken(), nil)
			if status != 200 || fmt.Sprint(key["data"].(map[string]any)["min_decryption_version"]) == "1" {
				t.Errorf("%s: Vault says %d, %v", state, status, key)
			}
		}
		s.sql("UPDATE records SET key_state = 'revoked' WHERE id = $1", one.Record)
	})
	t.Run("contractor reinstated", func(t *testing.T) {
		s.sql("UPDATE contractors SET epoch = 2")
		_, err := s.request(s.as(matcher), p, 1)
		refused(t, err, vault.ReasonDecisionTampered)
		s.sql("UPDATE contractors SET epoch = 1")
	})
	t.Run("purpose widened", func(t *testing.T) {
		s.sql(`UPDATE purposes SET body = REPLACE(body, '"plate"', '"face","plate"')`)
		req := s.requestFor(p, 1)
		req.Scope.Modalities = []pb.Modality{pb.Modality_MODALITY_FACE}
		_, err := contractor.Grants.RequestGrant(t.Context(), req)
		refused(t, err, vault.ReasonDecisionTampered)
	})
}

// noFence says that Vault has no policy for the grant.
func noFence(t *testing.T, s *service, grant string) {
	t.Helper()
	if err := s.daemon.grants.Sweep(t.Context()); vault.ReasonOf(err) != vault.ReasonGrantTampered {
		t.Fatalf("the sweep says %v of a forged approval", err)
	}
	if status, _ := s.atVault("GET", "sys/policies/acl/portcullis-grant-"+id(grant), s.vault.RootToken(), nil); status != 404 {
		t.Fatalf("Vault has a policy for a grant that nobody approved: %d", status)
	}
	s.sql("UPDATE grants SET state = 'pending', fence = 'none' WHERE id = $1", id(grant))
}

// TestSwappedAndFlipped: ciphertext, wrapped keys and rows that were swapped, flipped or cut
// give DATA_LOSS or a refusal, never a wrong image, and the log says that nothing left.
func TestSwappedAndFlipped(t *testing.T) {
	s := begin(t)
	p := purpose()
	p.Retention = []string{vault.DefaultClass, "us-citizen"}
	s.admit(p, devOrg)
	records := s.store(s.as(lane), vault.Plate, 2, 2000)
	a, b := id(records[0]), id(records[1])
	contractor := s.as(matcher)
	grant, token := s.granted(contractor, p, 100)
	handles := s.handles(contractor, grant, token)
	intact := func() (n int) {
		for _, h := range handles {
			if contractor.Fetch(t.Context(), grant, token, []string{h}, func(*pb.Image) error { n++; return nil }) == nil {
				continue
			}
		}
		return n
	}
	if intact() != 2 {
		t.Fatal("the images do not open before anything was done to them")
	}
	blobs := map[string]string{}
	noError(t, filepath.WalkDir(s.cfg.Blobs.Path, func(path string, d fs.DirEntry, err error) error {
		for _, r := range []string{a, b} {
			if strings.Contains(path, r) || strings.Contains(strings.ReplaceAll(path, "/", ""), strings.ReplaceAll(r, "-", "")) {
				blobs[r] = path
			}
		}
		return err
	}))
	if len(blobs) != 2 {
		t.Fatalf("found %v", blobs)
	}
	change := func(path string, with func([]byte) []byte) func() {
		was, err := os.ReadFile(path)
		noError(t, err)
		noError(t, os.WriteFile(path, with(bytes.Clone(was)), 0o600))
		return func() { noError(t, os.WriteFile(path, was, 0o600)) }
	}
	column := func(name, value string) func() func() {
		return func() func() {
			var was any
			noError(t, openSQL(t, s.cfg.Store.Path).QueryRowContext(t.Context(), "SELECT "+name+" FROM records WHERE id = $1", a).Scan(&was))
			s.sql("UPDATE records SET "+name+" = "+value+" WHERE id = $1", a)
			return func() { s.sql("UPDATE records SET "+name+" = $1 WHERE id = $2", was, a) }
		}
	}
	for _, c := range []struct {
		name string
		do   func() (undo func())
	}{
		{"blob flipped", func() func() { return change(blobs[a], func(x []byte) []byte { x[len(x)/2] ^= 1; return x }) }},
		{"blob cut", func() func() { return change(blobs[a], func(x []byte) []byte { return x[:len(x)-1] }) }},
		{"blob emptied", func() func() { return change(blobs[a], func([]byte) []byte { return nil }) }},
		{"blob of another", func() func() {
			other, err := os.ReadFile(blobs[b])
			noError(t, err)
			return change(blobs[a], func([]byte) []byte { return other })
		}},
		{"wrapped key of another", column("wrapped_key", "(SELECT wrapped_key FROM records WHERE id = '"+b+"')")},
		{"wrapped key flipped", column("wrapped_key", "SUBSTR(wrapped_key, 1, 20) || 'A' || SUBSTR(wrapped_key, 22)")},
		{"captured at another time", column("captured_at", "captured_at + 1")},
		{"another lane", column("lane", "'lane-2'")},
		{"another content type", column("content_type", "'image/png'")},
		{"another class", column("class", "'us-citizen'")},
		{"no class", column("class", "''")},
		{"another crossing", column("crossing_id", "'"+b+"'")},
	} {
		undo := c.do()
		if n := intact(); n != 1 {
			t.Errorf("%s: %d images open, want the other one alone", c.name, n)
		}
		undo()
	}
	if intact() != 2 {
		t.Error("the images do not open after all was undone")
	}
	// A record without a class is none that the purpose may see: nothing is opened of it at all.
	if n := len(s.events("release.unsent")); n != 11 {
		t.Errorf("%d events say that nothing left, want 11", n)
	}
}
