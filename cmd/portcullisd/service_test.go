package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portcullis/portcullis/internal/imaging"
	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
	"github.com/portcullis/portcullis/vault/wire"
)

func openSQL(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)")
	noError(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

// TestStoreApproveOpenRevoke is the main job from end to end, through restarts of daemon
// and Vault.
func TestStoreApproveOpenRevoke(t *testing.T) {
	s := begin(t)
	p := purpose()
	s.admit(p, devOrg)
	camera, contractor := s.as(lane), s.as(matcher)

	raw := picture(7, 20_000)
	clean, err := imaging.Clean(raw, imaging.Limits{})
	noError(t, err)
	in := client.Image{RequestID: vault.NewID(), Modality: vault.Plate, CapturedAt: time.Now(), Bytes: raw}
	first, err := camera.Store(t.Context(), in)
	noError(t, err)
	again, err := camera.Store(t.Context(), in)
	noError(t, err)
	if again.Record != first.Record || !again.Repeated {
		t.Fatalf("the same request_id gave %v and %v", first, again)
	}
	in.Modality = vault.Face
	_, err = camera.Store(t.Context(), in)
	refused(t, err, vault.ReasonRequestIDReused)
	s.store(camera, vault.Face, 3, 2000) // the grant must not show these

	// One Vault key per record, and no other.
	status, keys := s.atVault("LIST", "portcullis/keys", s.vault.RootToken(), nil)
	if status != 200 {
		t.Fatal(status, keys)
	}
	var names []string
	for _, e := range s.events("record.stored") {
		names = append(names, e.Stored.KeyName)
	}
	got := keyList(t, keys)
	slices.Sort(got)
	slices.Sort(names)
	if !slices.Equal(got, names) || len(names) != 4 {
		t.Fatalf("Vault has keys %v, the records' are %v", got, names)
	}

	grant, token := s.granted(contractor, p, 10)
	open := func() {
		t.Helper()
		handles := s.handles(contractor, grant, token)
		if len(handles) != 1 {
			t.Fatalf("%d handles, want the one plate", len(handles))
		}
		one, err := contractor.Release.FetchImage(t.Context(), &pb.FetchImageRequest{Grant: grant, GrantToken: token.Reveal(), Handle: handles[0]})
		noError(t, err)
		if !bytes.Equal(one.Image.Data, clean.Bytes) {
			t.Fatal("what comes back is not the cleaned image")
		}
	}
	open()

	// All of it holds through a kill of Vault and a restart of both.
	noError(t, s.vault.Kill())
	noError(t, s.vault.Restart(t.Context()))
	s.restart()
	contractor = s.as(matcher)
	open()

	// Activating again ends the earlier token.
	earlier := token
	if got := s.past(earlier); got != 200 {
		t.Fatalf("Vault answers %d to the live token", got)
	}
	token = s.activate(contractor, grant)
	open()
	_, err = contractor.Release.ListRecords(t.Context(), &pb.ListRecordsRequest{Grant: grant, GrantToken: earlier.Reveal()})
	refused(t, err, vault.ReasonGrantToken)
	if got := s.past(earlier); got != 403 {
		t.Fatalf("Vault answers %d to the earlier token", got)
	}

	done, err := s.as(alice).Grants.RevokeGrant(t.Context(), &pb.RevokeGrantRequest{Name: grant, Note: "enough"})
	noError(t, err)
	if done.Grant.State != pb.Grant_STATE_REVOKED || !done.Barrier.VaultDone {
		t.Fatal(done)
	}
	_, err = contractor.Release.ListRecords(t.Context(), &pb.ListRecordsRequest{Grant: grant, GrantToken: token.Reveal()})
	refused(t, err, vault.ReasonGrantRevoked)
	for _, secret := range []string{token.Reveal(), earlier.Reveal(), s.vault.RootToken(), "work order 4711"} {
		if strings.Contains(s.logs.String(), secret) {
			t.Fatal("a secret stands in the log")
		}
		for _, e := range s.events() {
			if b, _ := json.Marshal(e.Event); bytes.Contains(b, []byte(secret)) {
				t.Fatalf("a secret stands in event %d", e.index)
			}
		}
	}
}

// TestRefusals: what the purpose does not allow is refused at once, with its reason and an event.
func TestRefusals(t *testing.T) {
	s := begin(t)
	p := purpose()
	s.admit(p, devOrg, "other-org")
	contractor := s.as(matcher)
	for _, c := range []struct {
		who  string
		with func(*pb.RequestGrantRequest)
		want vault.Reason
	}{
		{matcher, func(r *pb.RequestGrantRequest) { r.Scope.Modalities = []pb.Modality{pb.Modality_MODALITY_FACE} }, vault.ReasonPurposeModality},
		{matcher, func(r *pb.RequestGrantRequest) { r.Scope.Sites = []string{"elsewhere"} }, vault.ReasonPurposeSite},
		{matcher, func(r *pb.RequestGrantRequest) { r.MaxRecords = 5001 }, vault.ReasonPurposeQuota},
		{matcher, func(r *pb.RequestGrantRequest) { r.Ttl.Seconds = 4*3600 + 1 }, vault.ReasonPurposeDuration},
		{matcher, func(r *pb.RequestGrantRequest) { r.Purpose = "purposes/model-training" }, vault.ReasonPurposeUnknown},
		{"/contractor/other-org/matcher", func(*pb.RequestGrantRequest) {}, vault.ReasonPurposeContractor},
		{matcher, func(r *pb.RequestGrantRequest) { r.Justification = "" }, vault.ReasonInvalidField},
		{matcher, func(r *pb.RequestGrantRequest) { r.Scope.EndTime = r.Scope.StartTime }, vault.ReasonInvalidField},
	} {
		req := s.requestFor(p, 10)
		c.with(req)
		_, err := s.as(c.who).Grants.RequestGrant(t.Context(), req)
		refused(t, err, c.want)
		if c.want == vault.ReasonInvalidField {
			continue
		}
		if all := s.events("grant.refused"); len(all) == 0 || all[len(all)-1].Reason != c.want {
			t.Fatalf("no event tells of the refusal %s", c.want)
		}
	}
	_, err := s.as("/contractor/stranger/matcher").Grants.RequestGrant(t.Context(), s.requestFor(p, 10))
	refused(t, err, vault.ReasonContractorUnknown)

	// The quota is exact, and a record that left already costs none.
	s.store(s.as(lane), vault.Plate, 5, 2000)
	grant, token := s.granted(contractor, p, 3)
	handles := s.handles(contractor, grant, token)
	fetched := 0
	fetch := func(h []string) error {
		return contractor.Fetch(t.Context(), grant, token, h, func(*pb.Image) error { fetched++; return nil })
	}
	refused(t, fetch(handles), vault.ReasonQuotaExceeded)
	noError(t, fetch(handles[:3]))
	if fetched != 6 {
		t.Fatalf("%d images left, want 3 twice", fetched)
	}
	if err := fetch([]string{strings.Repeat("ab", 16)}); vault.ReasonOf(err) != vault.ReasonHandleUnknown {
		t.Fatal(err)
	}
	// Another contractor's token, and an altered one.
	_, err = s.as("/contractor/other-org/matcher").Release.ListRecords(t.Context(), &pb.ListRecordsRequest{Grant: grant, GrantToken: token.Reveal()})
	refused(t, err, vault.ReasonGrantUnknown)
	_, err = s.as("/contractor/"+devOrg+"/other").Release.ListRecords(t.Context(), &pb.ListRecordsRequest{Grant: grant, GrantToken: token.Reveal()})
	refused(t, err, vault.ReasonGrantUnknown)
	_, err = contractor.Release.ListRecords(t.Context(), &pb.ListRecordsRequest{Grant: grant, GrantToken: token.Reveal() + "x"})
	refused(t, err, vault.ReasonGrantToken)

	// A grantee may give its grant back.
	_, err = contractor.Grants.RetireGrant(t.Context(), &pb.RetireGrantRequest{Name: grant})
	noError(t, err)
	refused(t, fetch(handles[:1]), vault.ReasonGrantRetired)
	g, err := s.request(contractor, p, 3)
	noError(t, err)
	_, err = s.as(bob).Grants.DenyGrant(t.Context(), &pb.DenyGrantRequest{Name: g.Name, Note: "no need"})
	noError(t, err)
	_, err = contractor.Grants.ActivateGrant(t.Context(), &pb.ActivateGrantRequest{Name: g.Name})
	refused(t, err, vault.ReasonGrantDenied)
}

// TestSelfApproval: no caller may both approve a grant and use it, and one admin is not two.
func TestSelfApproval(t *testing.T) {
	s := begin(t)
	p := purpose()
	s.admit(p, devOrg)
	contractor := s.as(matcher)
	g, err := s.request(contractor, p, 1)
	noError(t, err)
	_, err = contractor.Approve(t.Context(), g.Name, yes)
	refused(t, err, vault.ReasonRoleNotAllowed)
	_, err = s.as(alice).Approve(t.Context(), g.Name, yes)
	noError(t, err)
	_, err = s.as(alice).Approve(t.Context(), g.Name, yes)
	refused(t, err, vault.ReasonAlreadySigned)
	stop := errors.New("not confirmed")
	if _, err = s.as(bob).Approve(t.Context(), g.Name, func(*pb.GetGrantResponse, string) error { return stop }); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	_, err = contractor.Grants.ActivateGrant(t.Context(), &pb.ActivateGrantRequest{Name: g.Name})
	refused(t, err, vault.ReasonGrantPending)
	// A purpose that one admin applied twice is not in force.
	p.Name, p.Approvals = "another", 1
	for range 2 {
		d, err := s.as(alice).ApplyPurpose(t.Context(), p)
		noError(t, err)
		if d.Decision.State != pb.Decision_STATE_OPEN {
			t.Fatal("one admin put a purpose in force")
		}
	}
	_, err = s.request(contractor, p, 1)
	refused(t, err, vault.ReasonPurposeUnknown)
}

// TestSuspend: the contractor is cut off here and at Vault, also while Vault is sealed, and
// comes back in a new epoch without its old grants.
func TestSuspend(t *testing.T) {
	s := begin(t)
	p := purpose()
	s.admit(p, devOrg)
	s.store(s.as(lane), vault.Plate, 2, 2000)
	contractor := s.as(matcher)
	grant, token := s.granted(contractor, p, 10)
	handles := s.handles(contractor, grant, token)

	if got := s.past(token); got != 200 {
		t.Fatalf("Vault answers %d to the live token", got)
	}
	noError(t, s.vault.Seal(t.Context()))
	done, err := s.as(alice).Admin.SuspendContractor(t.Context(), &pb.SuspendContractorRequest{Name: "contractors/" + devOrg, Note: "incident"})
	noError(t, err)
	if done.Barrier.VaultDone || done.GrantsEnded != 1 || done.Contractor.State != pb.Contractor_STATE_SUSPENDED {
		t.Fatal(done)
	}
	fetch := func() error {
		return contractor.Fetch(t.Context(), grant, token, handles, func(*pb.Image) error { t.Fatal("an image left"); return nil })
	}
	refused(t, fetch(), vault.ReasonContractorSuspended)
	if got := s.events("call.refused"); len(got) != 1 || got[0].Reason != vault.ReasonContractorSuspended || got[0].Contractor != devOrg {
		t.Fatalf("the log says of a suspended contractor's call: %v", got)
	}
	_, err = s.as(bob).ApplyContractor(t.Context(), vault.Contractor{Name: devOrg, Title: "an example"})
	refused(t, err, vault.ReasonVaultUnavailable) // not back before Vault has cut it off

	noError(t, s.vault.Unseal(t.Context()))
	wait(t, "Vault has disabled the contractor", func() bool { return len(s.events("vault.caught_up")) > 0 })
	if got := s.past(token); got != 403 {
		t.Fatalf("Vault answers %d to a suspended contractor's token", got)
	}
	for _, admin := range []string{alice, bob} {
		_, err = s.as(admin).ApplyContractor(t.Context(), vault.Contractor{Name: devOrg, Title: "an example"})
		noError(t, err)
	}
	refused(t, fetch(), vault.ReasonGrantRevoked)
	s.sql("UPDATE grants SET state = 'active' WHERE id = $1", id(grant)) // nor does editing revive it
	refused(t, fetch(), vault.ReasonGrantRevoked)
	renewed, token2 := s.granted(contractor, p, 10)
	noError(t, contractor.Fetch(t.Context(), renewed, token2, s.handles(contractor, renewed, token2), func(*pb.Image) error { return nil }))
}

// TestKeys: a revoked key opens for no token, not at Vault either; after restore it opens;
// after destroy nothing does, and Vault answers 404.
func TestKeys(t *testing.T) {
	s := begin(t)
	p := purpose()
	s.admit(p, devOrg)
	records := s.store(s.as(lane), vault.Plate, 3, 2000)
	contractor := s.as(matcher)
	grant, token := s.granted(contractor, p, 10)
	handles := s.handles(contractor, grant, token)
	noError(t, contractor.Fetch(t.Context(), grant, token, handles, func(*pb.Image) error { return nil }))

	var name, wrapped string // stolen from the database and the log
	for _, e := range s.events("record.stored") {
		if e.Stored.Record == id(records[0]) {
			name = e.Stored.KeyName
		}
	}
	row := openSQL(t, s.cfg.Store.Path).QueryRowContext(t.Context(), "SELECT wrapped_key FROM records WHERE id = $1", id(records[0]))
	noError(t, row.Scan(&wrapped))
	past := func() int {
		status, _ := s.atVault("POST", "portcullis/decrypt/"+name, token.Reveal(), map[string]string{"ciphertext": wrapped})
		return status
	}
	opened := func() (n int) {
		for _, h := range handles {
			if contractor.Fetch(t.Context(), grant, token, []string{h}, func(*pb.Image) error { n++; return nil }) == nil {
				continue
			}
		}
		return n
	}
	if past() != 200 || opened() != 3 {
		t.Fatal("the live token does not open")
	}

	one := &pb.Selection{Record: records[0]}
	sel := vault.Selection{Record: parseID(t, records[0])}
	work, err := s.as(alice).Admin.RevokeKeys(t.Context(), &pb.RevokeKeysRequest{Selection: one, Note: "unclear"})
	noError(t, err)
	if work.KeyWork.Records != 1 || !work.KeyWork.Barrier.VaultDone {
		t.Fatal(work)
	}
	if got := past(); got != 400 {
		t.Fatalf("Vault answers %d to a token used past us on a revoked key", got)
	}
	if opened() != 2 {
		t.Fatal("a revoked record opens")
	}

	confirm := func(*pb.Decision) error { return nil }
	half, err := s.as(alice).RestoreKeys(t.Context(), sel, confirm)
	noError(t, err)
	if half.Decision.State != pb.Decision_STATE_OPEN || past() != 400 || opened() != 2 {
		t.Fatal("one admin restored a key")
	}
	whole, err := s.as(bob).RestoreKeys(t.Context(), sel, confirm)
	noError(t, err)
	if whole.Decision.State != pb.Decision_STATE_EFFECTIVE || past() != 200 || opened() != 3 {
		t.Fatal("a restored key does not open:", whole)
	}
	// The signatures on that decision are of no use for another revocation.
	_, err = s.as(bob).Admin.RevokeKeys(t.Context(), &pb.RevokeKeysRequest{Selection: one})
	noError(t, err)
	_, err = s.as(bob).Admin.SignDecision(t.Context(), &pb.SignDecisionRequest{Name: whole.Decision.Name, Signature: whole.Decision.Signatures[0]})
	if err == nil || past() != 400 {
		t.Fatal("an old decision was carried out again")
	}

	// Destroy all three by site and window.
	now := time.Now()
	site := vault.Selection{Site: devSite, From: vault.Micro(now.Add(-time.Hour)), Until: vault.Micro(now.Add(time.Hour))}
	half, err = s.as(bob).DestroyKeys(t.Context(), site, confirm)
	noError(t, err)
	if half.Decision.State != pb.Decision_STATE_OPEN || opened() != 2 {
		t.Fatal("one admin destroyed keys")
	}
	whole, err = s.as(alice).DestroyKeys(t.Context(), site, confirm)
	noError(t, err)
	if whole.KeyWork.GetRecords() != 3 || !whole.KeyWork.Barrier.VaultDone {
		t.Fatal(whole)
	}
	for _, want := range []string{"portcullis certificate of destruction v1", name, "attested_by: spiffe://portcullis.example/portcullisd", "signature: "} {
		if !strings.Contains(whole.KeyWork.Certificate, want) {
			t.Fatalf("the certificate lacks %q:\n%s", want, whole.KeyWork.Certificate)
		}
	}
	if past() == 200 || opened() != 0 {
		t.Fatal("a destroyed record opens")
	}
	if status, _ := s.atVault("GET", "portcullis/keys/"+name, s.vault.RootToken(), nil); status != 404 {
		t.Fatalf("Vault answers %d for a destroyed key", status)
	}
	if status, _ := s.atVault("LIST", "portcullis/keys", s.vault.RootToken(), nil); status != 404 {
		t.Fatal("keys are left")
	}
	if n := len(s.events("key.destroyed")); n != 3 {
		t.Fatalf("%d events tell of destroyed keys, want 3", n)
	}
	_, err = s.as(alice).RestoreKeys(t.Context(), site, confirm)
	refused(t, err, vault.ReasonSelectionEmpty)
}

// TestKeysWhileVaultIsAway: what is decided holds here at once, and at Vault once it is back,
// also when the daemon was restarted in between.
func TestKeysWhileVaultIsAway(t *testing.T) {
	s := begin(t)
	p := purpose()
	s.admit(p, devOrg)
	records := s.store(s.as(lane), vault.Plate, 1, 2000)
	contractor := s.as(matcher)
	grant, token := s.granted(contractor, p, 10)
	noError(t, s.vault.Kill())
	work, err := s.as(alice).Admin.RevokeKeys(t.Context(), &pb.RevokeKeysRequest{Selection: &pb.Selection{Record: records[0]}})
	noError(t, err)
	if work.KeyWork.Barrier.VaultDone {
		t.Fatal("Vault is down and done")
	}
	revoked, err := s.as(alice).Grants.RevokeGrant(t.Context(), &pb.RevokeGrantRequest{Name: grant})
	noError(t, err)
	if revoked.Barrier.VaultDone {
		t.Fatal("Vault is down and done")
	}
	_, err = s.as(matcher).Release.ListRecords(t.Context(), &pb.ListRecordsRequest{Grant: grant, GrantToken: token.Reveal()})
	refused(t, err, vault.ReasonGrantRevoked)
	s.restart()
	noError(t, s.vault.Restart(t.Context()))
	wait(t, "Vault has caught up with both", func() bool { return len(s.events("vault.caught_up")) == 2 })
	if got := s.past(token); got != 403 {
		t.Fatalf("Vault answers %d to a revoked grant's token", got)
	}
	_, err = s.as(alice).RestoreKeys(t.Context(), vault.Selection{Record: parseID(t, records[0])}, func(*pb.Decision) error { return nil })
	noError(t, err)
}

func parseID(t *testing.T, name string) vault.ID {
	t.Helper()
	out, err := wire.ParseName("name", wire.Records, name)
	noError(t, err)
	return out
}

// TestOtherCallers: each kind of caller may call its own methods and no others.
func TestOtherCallers(t *testing.T) {
	s := begin(t)
	s.admit(purpose(), devOrg)
	calls := map[string]func(c *client.Client) error{
		"store": func(c *client.Client) error {
			_, err := c.Store(t.Context(), client.Image{RequestID: vault.NewID(), Modality: vault.Face, CapturedAt: time.Now(), Bytes: picture(1, 2000)})
			return err
		},
		"request": func(c *client.Client) error { _, err := s.request(c, purpose(), 1); return err },
		"suspend": func(c *client.Client) error {
			_, err := c.Admin.SuspendContractor(t.Context(), &pb.SuspendContractorRequest{Name: "contractors/nobody"})
			return err
		},
		"events": func(c *client.Client) error {
			_, err := c.Events(t.Context(), 0, nil, func(*pb.AuditEvent) error { return nil })
			return err
		},
	}
	own := map[string]string{lane: "store", matcher: "request", alice: "suspend", auditor: "events"}
	for who, mine := range own {
		c := s.as(who)
		me, err := c.Identity.WhoAmI(t.Context(), &pb.WhoAmIRequest{})
		noError(t, err)
		if me.Id != "spiffe://"+devDomain+who {
			t.Fatal(me)
		}
		for name, call := range calls {
			err := call(c)
			if denied := vault.ReasonOf(err) == vault.ReasonRoleNotAllowed; denied == (name == mine) {
				t.Errorf("%s calls %s: %v", who, name, err)
			}
		}
	}
	// A capture system of another site or lane.
	_, err := s.as("/capture/south-gate/lane-1").Capture.StoreImage(context.Background(), &pb.StoreImageRequest{
		RequestId: vault.NewID().String(), Modality: pb.Modality_MODALITY_FACE, Site: devSite, CaptureTime: nil, Image: picture(1, 2000),
	})
	refused(t, err, vault.ReasonInvalidField)
	// A caller that is suspended while it is connected.
	c := s.as(lane)
	noError(t, calls["store"](c))
	s.sql("INSERT INTO suspended_callers (id, suspended_at) VALUES ($1, 0)", "spiffe://"+devDomain+lane)
	refused(t, calls["store"](c), vault.ReasonCallerSuspended)
}
