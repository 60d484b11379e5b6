package main

import (
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
)

// raft calls Vault with bytes instead of JSON.
func (s *service) raft(method, path string, in []byte) (int, []byte) {
	s.t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // a test's own Vault on loopback
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.vault.Addr()+"/v1/sys/storage/raft/"+path, bytes.NewReader(in))
	noError(s.t, err)
	req.Header.Set("X-Vault-Token", s.vault.RootToken())
	resp, err := (&http.Client{Transport: transport, Timeout: 30 * time.Second}).Do(req)
	noError(s.t, err)
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	noError(s.t, err)
	return resp.StatusCode, out
}

func (s *service) snapshot() []byte {
	s.t.Helper()
	status, out := s.raft("GET", "snapshot", nil)
	if status != 200 || len(out) == 0 {
		s.t.Fatal("no snapshot: ", status)
	}
	return out
}

func (s *service) restoreVault(snapshot []byte) {
	s.t.Helper()
	if status, out := s.raft("POST", "snapshot-force", snapshot); status >= 300 {
		s.t.Fatal("no restore: ", status, string(out))
	}
}

// wrapped is a record's key and its data key, wrapped.
type wrapped struct{ key, text string }

// wraps gives those of the records, for asking Vault past the service, also once rows are gone.
func (s *service) wraps(records []string) (out []wrapped) {
	s.t.Helper()
	for _, e := range s.events("record.stored") {
		if !slices.Contains(records, "records/"+e.Stored.Record) {
			continue
		}
		w := wrapped{key: e.Stored.KeyName}
		noError(s.t, openSQL(s.t, s.cfg.Store.Path).QueryRowContext(s.t.Context(),
			"SELECT wrapped_key FROM records WHERE id = $1", e.Stored.Record).Scan(&w.text))
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b wrapped) int {
		at := func(w wrapped) int {
			return slices.IndexFunc(records, func(r string) bool { return strings.HasSuffix(w.key, id(r)) })
		}
		return at(a) - at(b)
	})
	return out
}

// opensAt says whether Vault opens it by the token.
func (s *service) opensAt(t vault.Token, w wrapped) bool {
	s.t.Helper()
	status, _ := s.atVault("POST", "portcullis/decrypt/"+w.key, t.Reveal(), map[string]string{"ciphertext": w.text})
	return status == 200
}

// serves says whether a service of the daemon is SERVING, by the health service.
func (s *service) serves(name string) bool {
	s.t.Helper()
	got, err := healthpb.NewHealthClient(s.dialAs(alice)).Check(s.t.Context(), &healthpb.HealthCheckRequest{Service: name})
	noError(s.t, err)
	return got.Status == healthpb.HealthCheckResponse_SERVING
}

var releaseName, adminName = pb.ReleaseService_ServiceDesc.ServiceName, pb.AdminService_ServiceDesc.ServiceName

func (s *service) fetchAll(c *client.Client, grant string, t vault.Token) (opened int, err error) {
	s.t.Helper()
	var handles []string
	err = c.Records(s.t.Context(), grant, t, func(r *pb.RecordView) error {
		handles = append(handles, r.Handle)
		return nil
	})
	for _, h := range handles {
		if c.Fetch(s.t.Context(), grant, t, []string{h}, func(*pb.Image) error { return nil }) == nil {
			opened++
		}
	}
	return opened, err
}

// restored is a service at whose Vault much was shut after a snapshot was taken.
type restored struct {
	*service
	snapshot []byte
	keys     []wrapped // of a record that was revoked, one destroyed, one active

	org, other                   *client.Client
	live                         string
	liveToken, revoked, expelled vault.Token // of a grant that goes on, one that ended, one of a contractor that was suspended
}

const otherOrg = "beta-vision"

func shutAfterSnapshot(t *testing.T) *restored {
	s := &restored{service: begin(t)}
	p := purpose()
	p.Contractors = append(p.Contractors, otherOrg)
	s.admit(p, devOrg, otherOrg)
	records := s.store(s.as(lane), vault.Plate, 3, 2000)
	s.keys = s.wraps(records)
	s.org, s.other = s.as(matcher), s.as("/contractor/"+otherOrg+"/matcher")
	s.live, s.liveToken = s.granted(s.org, p, 100)
	var ended string
	ended, s.revoked = s.granted(s.org, p, 100)
	_, s.expelled = s.granted(s.other, p, 100)
	for _, tok := range []vault.Token{s.liveToken, s.revoked, s.expelled} {
		for _, k := range s.keys {
			if !s.opensAt(tok, k) {
				t.Fatal("it does not open at first")
			}
		}
	}
	s.snapshot = s.service.snapshot()

	admin := s.as(alice)
	_, err := admin.Admin.RevokeKeys(t.Context(), &pb.RevokeKeysRequest{Selection: &pb.Selection{Record: records[0]}})
	noError(t, err)
	for _, who := range []string{alice, bob} {
		_, err := s.as(who).DestroyKeys(t.Context(), vault.Selection{Record: parseID(t, records[1])}, func(*pb.Decision) error { return nil })
		noError(t, err)
	}
	_, err = admin.Grants.RevokeGrant(t.Context(), &pb.RevokeGrantRequest{Name: ended})
	noError(t, err)
	_, err = admin.Admin.SuspendContractor(t.Context(), &pb.SuspendContractorRequest{Name: "contractors/" + otherOrg})
	noError(t, err)
	s.shut()
	return s
}

// shut shows that all is shut at Vault that must be.
func (s *restored) shut() {
	s.t.Helper()
	for what, tok := range map[string]vault.Token{"a grant that ended": s.revoked, "a suspended contractor": s.expelled} {
		for i, k := range s.keys {
			if s.opensAt(tok, k) {
				s.t.Errorf("the token of %s opens record %d at Vault", what, i)
			}
		}
	}
	for i, k := range s.keys[:2] {
		if s.opensAt(s.liveToken, k) || s.opens(k.key, k.text) {
			s.t.Errorf("Vault opens record %d, which is revoked or destroyed", i)
		}
	}
	if !s.disabled() {
		s.t.Error("the suspended contractor is enabled at Vault")
	}
	if status, _ := s.atVault("GET", "portcullis/keys/"+s.keys[1].key, s.vault.RootToken(), nil); status != 404 {
		s.t.Errorf("Vault answers %d for the destroyed key", status)
	}
}

// disabled says whether Vault has the other contractor's first epoch disabled.
func (s *restored) disabled() bool {
	s.t.Helper()
	_, mount := s.atVault("GET", "sys/auth/token", s.vault.RootToken(), nil)
	_, got := s.atVault("POST", "identity/lookup/entity", s.vault.RootToken(), map[string]any{
		"alias_name": "portcullis-c-" + otherOrg + "-1", "alias_mount_accessor": mount["data"].(map[string]any)["accessor"],
	})
	return got["data"].(map[string]any)["disabled"].(bool)
}

// open shows that the restore brought everything back.
func (s *restored) open() {
	s.t.Helper()
	if s.disabled() {
		s.t.Fatal("the snapshot does not bring the contractor back: no test")
	}
	for _, tok := range []vault.Token{s.revoked, s.expelled, s.liveToken} {
		for _, k := range s.keys {
			if !s.opensAt(tok, k) {
				s.t.Fatal("the snapshot does not bring back what is to be shut: no test")
			}
		}
	}
}

// TestRestoredVaultIsShutBeforeReleases: Vault's snapshot is restored while the daemon stands.
// When the daemon first says that it releases, everything is shut again.
func TestRestoredVaultIsShutBeforeReleases(t *testing.T) {
	for name, older := range map[string]bool{"older mark": true, "same mark": false} {
		t.Run(name, func(t *testing.T) {
			s := shutAfterSnapshot(t)
			if older {
				s.restart() // a start moves the mark
			}
			noError(t, s.Close())
			s.restoreVault(s.snapshot)
			s.open()
			start := time.Now()
			s.serve()
			for !s.serves(releaseName) {
				if time.Since(start) > time.Minute {
					t.Fatal("it never serves")
				}
			}
			s.shut() // before anything else
			t.Logf("serving after %s", time.Since(start))
			c := s.as(matcher)
			opened, err := s.fetchAll(c, s.live, s.liveToken)
			if !older {
				// Nothing shows that there was a restore, and nothing is left of it.
				if err != nil || opened != 1 || len(s.events("vault.restored")) != 0 {
					t.Errorf("the live grant opens %d, %v", opened, err)
				}
				return
			}
			refused(t, err, vault.ReasonGrantToken)
			if s.opensAt(s.liveToken, s.keys[2]) {
				t.Error("a token from before the restore lives")
			}
			if e := s.events("vault.restored"); len(e) != 1 || e[0].Count != 1 {
				t.Errorf("%+v", e)
			}
			again := s.activate(c, s.live)
			if opened, err := s.fetchAll(c, s.live, again); err != nil || opened != 1 {
				t.Errorf("activated again it opens %d: %v", opened, err)
			}
			s.restart()
			if opened, err := s.fetchAll(s.as(matcher), s.live, again); err != nil || opened != 1 || len(s.events("vault.restored")) != 1 {
				t.Errorf("the next start takes it for a restore: %d, %v", opened, err)
			}
			s.shut()
		})
	}
}

// TestVaultRestoredBeneath: as above, while the daemon runs.
func TestVaultRestoredBeneath(t *testing.T) {
	s := shutAfterSnapshot(t)
	s.restart()
	s.restoreVault(s.snapshot)
	start := time.Now()
	wait(t, "the daemon finds out", func() bool { return len(s.events("vault.restored")) == 1 })
	s.shut()
	t.Logf("shut after %s", time.Since(start))
	c := s.as(matcher)
	wait(t, "it serves", func() bool { return s.serves(releaseName) })
	if opened, err := s.fetchAll(c, s.live, s.activate(c, s.live)); err != nil || opened != 1 {
		t.Errorf("%d open: %v", opened, err)
	}
}

// TestNoReleaseWhileNotShut: what can not be shut, here by a set-up that lacks the power, keeps
// releases shut, and nothing else.
func TestNoReleaseWhileNotShut(t *testing.T) {
	s := shutAfterSnapshot(t)
	s.restart()
	noError(t, s.Close())
	s.restoreVault(s.snapshot)
	whole := s.lame()
	s.serve()
	c := s.as(matcher)
	for range 3 {
		_, err := s.fetchAll(c, s.live, s.liveToken)
		refused(t, err, vault.ReasonVaultUnchecked)
		_, err = c.Grants.ActivateGrant(t.Context(), &pb.ActivateGrantRequest{Name: s.live})
		refused(t, err, vault.ReasonVaultUnchecked)
		if s.serves(releaseName) || !s.serves(adminName) {
			t.Fatal("release is served, or admin is not")
		}
		time.Sleep(500 * time.Millisecond)
	}
	if !strings.Contains(s.logs.String(), "portcullisd setup") {
		t.Error("the log does not say what to do")
	}
	whole()
	wait(t, "it serves", func() bool { return s.serves(releaseName) })
	s.shut()
}

// TestRolledBackDatabaseReleasesNothing, also when ciphertext, with what is remembered beside it,
// came from the same backup: then Vault's mark tells.
func TestRolledBackDatabaseReleasesNothing(t *testing.T) {
	for name, from := range map[string]struct{ ciphertext, sameMark bool }{
		"database": {}, "database and ciphertext": {ciphertext: true}, "database, log alone tells": {sameMark: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t)
			p := purpose()
			s.admit(p, devOrg)
			s.store(s.as(lane), vault.Plate, 2, 2000)
			grant, token := s.granted(s.as(matcher), p, 100)
			s.restart()
			noError(t, s.Close())
			mark := filepath.Join(s.cfg.Blobs.Path, markFile)
			older, err := os.ReadFile(s.cfg.Store.Path)
			noError(t, err)
			remembered, err := os.ReadFile(mark)
			noError(t, err)
			s.serve()
			records := s.store(s.as(lane), vault.Plate, 3, 2000)
			s.restart()
			noError(t, s.Close())
			var newest string
			noError(t, openSQL(t, s.cfg.Store.Path).QueryRowContext(t.Context(), "SELECT mark FROM vault_mark").Scan(&newest))
			noError(t, os.WriteFile(s.cfg.Store.Path, older, 0o600))
			if from.sameMark {
				s.sql("UPDATE vault_mark SET mark = $1, good_until = 0", newest)
			}
			if from.ciphertext {
				noError(t, os.WriteFile(mark, remembered, 0o600))
			}
			_, keys := s.atVault("LIST", "portcullis/keys", s.vault.RootToken(), nil)
			s.serve()
			c := s.as(matcher)
			for range 3 {
				_, err := s.fetchAll(c, grant, token)
				refused(t, err, vault.ReasonLogRolledBack)
				if vault.KindOf(err) != vault.Unavailable {
					t.Error(err)
				}
				_, err = c.Grants.ActivateGrant(t.Context(), &pb.ActivateGrantRequest{Name: grant})
				refused(t, err, vault.ReasonLogRolledBack)
				wait(t, "a reconcile is refused", func() bool { // perhaps at first since the daemon's own is under way
					_, err := s.as(alice).Admin.Reconcile(t.Context(), &pb.ReconcileRequest{})
					return vault.ReasonOf(err) == vault.ReasonLogRolledBack
				})
				if s.serves(releaseName) || !s.serves(adminName) {
					t.Fatal("release is served, or admin is not")
				}
				wait(t, "the status says why", func() bool { return s.partIs("restores", pb.Part_STATE_DOWN, vault.ReasonLogRolledBack) })
				time.Sleep(600 * time.Millisecond)
			}
			_, now := s.atVault("LIST", "portcullis/keys", s.vault.RootToken(), nil)
			if len(keyList(t, now)) != len(keyList(t, keys)) || len(s.events("orphans.quarantined")) > 0 {
				t.Error("keys are gone, or put aside")
			}
			if _, err := s.blobs().Get(t.Context(), parseID(t, records[0])); err != nil {
				t.Error(err)
			}
			if !strings.Contains(s.logs.String(), `"reason":"LOG_ROLLED_BACK"`) {
				t.Error("the log does not say why")
			}
			// Whoever accepts the loss says so. Then it goes on, and tokens have ended.
			noError(t, s.Close())
			noError(t, os.Remove(mark))
			noError(t, os.Rename(s.cfg.Audit.Ship, s.cfg.Audit.Ship+".before"))
			s.serve()
			if from.sameMark {
				return // then Vault is not taken for restored
			}
			_, err = s.fetchAll(s.as(matcher), grant, token)
			refused(t, err, vault.ReasonGrantToken)
			if opened, err := s.fetchAll(s.as(matcher), grant, s.activate(s.as(matcher), grant)); err != nil || opened != 2 {
				t.Errorf("%d open: %v", opened, err)
			}
		})
	}
}

// TestReleaseAloneIsShut: a process without the admin role releases nothing before one with it
// has looked, nor long after.
func TestReleaseAloneIsShut(t *testing.T) {
	s := begin(t)
	p := purpose()
	s.admit(p, devOrg)
	s.store(s.as(lane), vault.Plate, 1, 2000)
	grant, token := s.granted(s.as(matcher), p, 100)
	noError(t, s.Close())
	all := s.cfg
	s.sql("UPDATE vault_mark SET good_until = 0")
	s.cfg.Roles = roleRelease
	s.serve()
	c := s.as(matcher)
	_, err := s.fetchAll(c, grant, token)
	refused(t, err, vault.ReasonVaultUnchecked)
	log, err := logger(s.logs, "info")
	noError(t, err)
	all.Roles = roleAdmin
	admin, err := start(t.Context(), all, log)
	noError(t, err)
	wait(t, "it releases", func() bool { n, err := s.fetchAll(c, grant, token); return err == nil && n == 1 })
	noError(t, admin.Close())
	wait(t, "the other's last look is too old", func() bool {
		_, err := s.fetchAll(c, grant, token)
		return vault.ReasonOf(err) == vault.ReasonVaultUnchecked
	})
}

// TestStartRestsOnNoEarlierLook: not while its own has not succeeded, here since its set-up may not
// end tokens, whatever an earlier process, or another, has written down.
func TestStartRestsOnNoEarlierLook(t *testing.T) {
	s := shutAfterSnapshot(t)
	s.restart() // moves the mark
	noError(t, s.Close())
	var good int64
	noError(t, openSQL(t, s.cfg.Store.Path).QueryRowContext(t.Context(), "SELECT good_until FROM vault_mark").Scan(&good))
	if time.UnixMicro(good).After(time.Now()) {
		t.Errorf("what stopped leaves a look behind that is good until %s", time.UnixMicro(good))
	}
	s.restoreVault(s.snapshot)
	whole := s.lame()
	hold := func() {
		s.sql("UPDATE vault_mark SET good_until = $1, reason = ''", time.Now().Add(time.Hour).UnixMicro())
	}
	hold()
	s.serve()
	c := s.as(matcher)
	for start := time.Now(); time.Since(start) < 4*time.Second; {
		hold()
		if opened, err := s.fetchAll(c, s.live, s.liveToken); opened > 0 || err == nil {
			t.Fatalf("a token from before the restore opens %d, %v", opened, err)
		}
	}
	whole()
	wait(t, "it serves", func() bool { return s.serves(releaseName) })
	s.shut()
}

// lame takes the power to end tokens from the admin role's policy, and gives what puts it back.
func (s *restored) lame() (whole func()) {
	s.t.Helper()
	const policy = "sys/policies/acl/portcullis-admin"
	_, got := s.atVault("GET", policy, s.vault.RootToken(), nil)
	was := got["data"].(map[string]any)["policy"].(string)
	put := func(text string) {
		s.t.Helper()
		if status, _ := s.atVault("PUT", policy, s.vault.RootToken(), map[string]string{"policy": text}); status >= 300 {
			s.t.Fatal(status)
		}
	}
	lame := strings.Replace(was, "sys/leases/revoke-prefix", "sys/leases/elsewhere", 1)
	if lame == was {
		s.t.Fatal("the policy has no such power")
	}
	put(lame)
	return func() { put(was) }
}

// TestRowsDoNotOpenARestoredVault: who can write to the database, and has Vault restored, opens
// nothing: the log says what is shut.
func TestRowsDoNotOpenARestoredVault(t *testing.T) {
	s := shutAfterSnapshot(t)
	s.restart() // moves the mark
	noError(t, s.Close())
	s.restoreVault(s.snapshot)
	s.open()
	s.sql("UPDATE records SET key_state = 'active'")
	s.sql("UPDATE contractors SET suspended = 0")
	s.sql("UPDATE grants SET state = 'active'")
	s.serve()
	wait(t, "it serves", func() bool { return s.serves(releaseName) })
	s.shut()
	c := s.as(matcher)
	again := s.activate(c, s.live)
	if opened, err := s.fetchAll(c, s.live, again); opened != 1 || s.opensAt(again, s.keys[0]) || s.opensAt(again, s.keys[1]) {
		t.Errorf("%d open, %v", opened, err)
	}
	if len(s.events("restore.undone")) == 0 || len(s.events("keys.restored")) > 0 {
		t.Errorf("%+v", s.events())
	}
}
