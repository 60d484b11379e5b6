package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
	"github.com/portcullis/portcullis/vault/wire"
)

// decrypts uses a token at Vault directly, past the service, until Vault refuses or that many
// times, and says how often it opened.
func (s *service) decrypts(token vault.Token, most int) (n int) {
	s.t.Helper()
	for n < most && s.past(token) == 200 {
		n++
	}
	return n
}

// TestStrictAtVault: a strict purpose with a quota of five. Whoever takes the token to Vault opens
// five times and no more. Activating again gives what is left, less what may have been used while
// the earlier token ended: one, and 2,000 for each second of that.
func TestStrictAtVault(t *testing.T) {
	s := begin(t)
	p := purpose()
	p.Strict, p.MaxRecords = true, 1000
	s.admit(p, devOrg)
	s.store(s.as(lane), vault.Plate, 1, 2_000)
	c := s.as(matcher)
	grant, token := s.granted(c, p, 5)
	if n := s.decrypts(token, 9); n != 5 {
		t.Fatalf("Vault opened %d times, want 5", n)
	}
	_, err := c.Grants.ActivateGrant(t.Context(), &pb.ActivateGrantRequest{Name: grant})
	refused(t, err, vault.ReasonUsesSpent)

	grant, one := s.granted(c, p, 1000)
	if n := s.decrypts(one, 2); n != 2 {
		t.Fatalf("Vault opened %d times, want 2", n)
	}
	began := time.Now()
	two := s.activate(c, grant)
	took := time.Since(began)
	if n := s.decrypts(one, 9); n != 0 {
		t.Errorf("the earlier token opened %d times", n)
	}
	// A fetch through the service is a use as well.
	handles := s.handles(c, grant, two)
	_, err = c.Release.FetchImage(t.Context(), &pb.FetchImageRequest{Grant: grant, GrantToken: two.Reveal(), Handle: handles[0]})
	noError(t, err)
	s.restart()
	c = s.as(matcher)
	began = time.Now()
	three := s.activate(c, grant)
	took += time.Since(began)
	least := 1000 - 3 - (2 + 2 + int(2000*took/time.Second))
	if n := s.decrypts(three, 1001); n > 1000-3-2*2 || n < least {
		t.Errorf("of 997 that were left Vault opened %d, want at least %d", n, least)
	}
	_, err = c.Grants.ActivateGrant(t.Context(), &pb.ActivateGrantRequest{Name: grant})
	refused(t, err, vault.ReasonUsesSpent)
	last := s.events(string(vault.EventGrantRefused))
	if n := len(last); n != 2 || last[1].Reason != vault.ReasonUsesSpent || last[1].Grant != id(grant) {
		t.Errorf("the log has %+v", last)
	}
}

// TestAgencyProgramme: the agency's own matcher is a contractor with a purpose of its own: faces
// and plates, joined, as they come. What was stored before the approval it never sees.
func TestAgencyProgramme(t *testing.T) {
	s := begin(t)
	const agency = "agency-matcher"
	p := purpose()
	p.Name, p.Title, p.Contractors = "entry-exit", "match entries and exits", []string{agency}
	p.Modalities = []vault.Modality{vault.Face, vault.Plate}
	s.admit(p, agency)
	device, c := s.as(lane), s.as("/contractor/"+agency+"/live")
	cross := func(n uint64) {
		t.Helper()
		crossing, at := vault.NewID(), time.Now()
		for i, m := range p.Modalities {
			_, err := device.Store(t.Context(), client.Image{
				RequestID: vault.NewID(), Modality: m, CapturedAt: at, CrossingID: crossing, Bytes: picture(2*n+uint64(i), 2_000),
			})
			noError(t, err)
		}
	}
	cross(1)
	got, err := c.Grants.RequestGrant(t.Context(), &pb.RequestGrantRequest{
		Purpose: "purposes/" + p.Name, MaxRecords: 100, Ttl: durationpb.New(time.Hour), Justification: "programme", RequestId: vault.NewID().String(),
		Scope: wire.Wanted(vault.Scope{Live: true, Sites: p.Sites, Modalities: p.Modalities}),
	})
	noError(t, err)
	grant := got.Grant.Name
	cross(2) // after the request, before the approval
	for _, admin := range []string{alice, bob} {
		_, err := s.as(admin).Approve(t.Context(), grant, yes)
		noError(t, err)
	}
	token := s.activate(c, grant)
	records := func() (out []*pb.RecordView) {
		t.Helper()
		noError(t, c.Records(t.Context(), grant, token, func(r *pb.RecordView) error {
			out = append(out, r)
			return nil
		}))
		return out
	}
	if got := records(); len(got) != 0 {
		t.Fatalf("%d records from before the approval", len(got))
	}
	for n := range uint64(3) {
		cross(3 + n)
		got := records()
		pairs := map[string][]string{}
		for _, r := range got {
			if r.TimePrecision != pb.TimePrecision_TIME_PRECISION_EXACT || r.CaptureTime == nil {
				t.Errorf("a record's time is %v, told to the %v", r.CaptureTime, r.TimePrecision)
			}
			pairs[r.Crossing] = append(pairs[r.Crossing], r.Modality.String())
			if _, err := c.Release.FetchImage(t.Context(), &pb.FetchImageRequest{Grant: grant, GrantToken: token.Reveal(), Handle: r.Handle}); err != nil {
				t.Error(err)
			}
		}
		if len(pairs) != int(n)+1 {
			t.Errorf("after %d crossings there are %d", n+1, len(pairs))
		}
		for crossing, both := range pairs {
			slices.Sort(both)
			if crossing == "" || !slices.Equal(both, []string{"MODALITY_FACE", "MODALITY_PLATE"}) {
				t.Errorf("of crossing %q there are %v", crossing, both)
			}
		}
	}
}

// TestListsAtVault: a grant of a list opens its records, through the service and at Vault, and no
// other of the same site and day; its contractor never learns a record's ID.
func TestListsAtVault(t *testing.T) {
	s := begin(t)
	p := purpose()
	s.admit(p, devOrg)
	all := s.store(s.as(lane), vault.Plate, 4, 2_000)
	made, err := s.as(alice).Admin.CreateRecordList(t.Context(), &pb.CreateRecordListRequest{
		RequestId: vault.NewID().String(), RecordList: &pb.RecordList{Contractor: "contractors/" + devOrg, Records: all[:2]},
	})
	noError(t, err)
	c := s.as(matcher)
	if _, err := c.Admin.GetRecordList(t.Context(), &pb.GetRecordListRequest{Name: made.RecordList.Name}); vault.ReasonOf(err) != vault.ReasonRoleNotAllowed {
		t.Errorf("the contractor reads the list: %v", err)
	}
	var seen bytes.Buffer // all that the contractor is told of the grant
	got, err := c.Grants.RequestGrant(t.Context(), &pb.RequestGrantRequest{
		Purpose: "purposes/" + p.Name, MaxRecords: 2, Ttl: durationpb.New(time.Hour), Justification: "incident 12", RequestId: vault.NewID().String(),
		Scope: &pb.Scope{RecordList: made.RecordList.Name},
	})
	noError(t, err)
	fmt.Fprintln(&seen, got)
	grant := got.Grant.Name
	for _, admin := range []string{alice, bob} {
		_, err := s.as(admin).Approve(t.Context(), grant, yes)
		noError(t, err)
	}
	active, err := c.Grants.ActivateGrant(t.Context(), &pb.ActivateGrantRequest{Name: grant})
	noError(t, err)
	token := vault.TokenOf(active.GrantToken)
	fmt.Fprintln(&seen, active.Grant)
	one, err := c.Grants.GetGrant(t.Context(), &pb.GetGrantRequest{Name: grant})
	noError(t, err)
	page, err := c.Grants.ListGrants(t.Context(), &pb.ListGrantsRequest{})
	noError(t, err)
	handles := s.handles(c, grant, token)
	if len(handles) != 2 {
		t.Errorf("%d records", len(handles))
	}
	fmt.Fprintln(&seen, one, page, handles)
	rows, err := openSQL(t, s.cfg.Store.Path).QueryContext(t.Context(), "SELECT id, 'portcullis/decrypt/' || site || '.' || modality || '.' || strftime('%Y%m%d', captured_at / 1000000, 'unixepoch') || '.' || id, wrapped_key FROM records")
	noError(t, err)
	defer rows.Close()
	opened := 0
	for rows.Next() {
		var record, path, wrapped string
		noError(t, rows.Scan(&record, &path, &wrapped))
		status, _ := s.atVault("POST", path, token.Reveal(), map[string]string{"ciphertext": wrapped})
		if (status == 200) != slices.Contains(all[:2], "records/"+record) {
			t.Errorf("Vault answers %d for record %d", status, slices.Index(all, "records/"+record))
		}
		if opened++; strings.Contains(seen.String(), record) {
			t.Errorf("the contractor learned the ID of record %d", slices.Index(all, "records/"+record))
		}
	}
	noError(t, rows.Err())
	if opened != 4 {
		t.Errorf("the test looked at %d keys", opened)
	}
	retired, err := c.Grants.RetireGrant(t.Context(), &pb.RetireGrantRequest{Name: grant})
	noError(t, err)
	if len(retired.Grant.Scope.Records) != 0 {
		t.Error("an ended grant tells of its records")
	}
	shown, err := s.as(auditor).Grants.GetGrant(t.Context(), &pb.GetGrantRequest{Name: grant})
	noError(t, err)
	if len(shown.Grant.Scope.Records) != 2 || shown.Preview != nil || shown.PurposeTerms.GetTitle() != p.Title {
		t.Errorf("the auditor sees %v", shown)
	}
}

// TestConflictOverConnections: two admins approve, at once and over connections of their own, the
// last signatures of two grants that conflict. One wins.
func TestConflictOverConnections(t *testing.T) {
	s := begin(t)
	var names []string
	orgs := []string{devOrg}
	for _, m := range []vault.Modality{vault.Face, vault.Plate} {
		p := purpose()
		p.Name, p.Modalities, p.Linkage, p.Precision, p.MinBucket = "only-"+string(m), []vault.Modality{m}, false, vault.PrecisionDay, 2
		s.admit(p, orgs...)
		orgs = nil
		for range 2 {
			r := s.requestFor(p, 5)
			day := time.Now().UTC().Truncate(24 * time.Hour)
			r.Scope = wire.Scope(vault.Scope{Sites: p.Sites, Modalities: p.Modalities, From: day, Until: day.AddDate(0, 0, 1)})
			got, err := s.as(matcher).Grants.RequestGrant(t.Context(), r)
			noError(t, err)
			_, err = s.as(alice).Approve(t.Context(), got.Grant.Name, yes)
			noError(t, err)
			names = append(names, got.Grant.Name)
		}
	}
	var mu sync.Mutex
	won := map[string]bool{}
	var all sync.WaitGroup
	for i, name := range names {
		admin := s.as(bob)
		all.Go(func() {
			_, err := admin.Approve(t.Context(), name, yes)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won[[]string{"faces", "plates"}[i/2]] = true
			} else if vault.ReasonOf(err) != vault.ReasonConflictRule {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(won) != 1 {
		t.Errorf("approved: %v", won)
	}
}
