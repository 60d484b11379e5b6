package release_test

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/grants"
	"github.com/portcullis/portcullis/vault/release"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

func TestStrangers(t *testing.T) {
	s := open(t, 1)
	other, token := s.Active(s.Caller("contractor/beta/tuning"))
	h := s.handle(s.records[0])
	check := func(name string, err error, k vault.Kind, r vault.Reason) {
		t.Helper()
		if vault.KindOf(err) != k || vault.ReasonOf(err) != r {
			t.Errorf("%s: %v", name, err)
		}
		if e := s.Last(); e.Type != vault.EventReleaseRefused || e.Reason != r {
			t.Errorf("%s: the log ends in %+v", name, e)
		}
	}
	beta := s.Caller("contractor/beta/tuning")
	check("another contractor", s.ask(beta, s.token, s.grant.Grant, h), vault.NotFound, vault.ReasonGrantUnknown)
	check("another workload", s.ask(s.Caller("contractor/acme/other"), s.token, s.grant.Grant, h), vault.NotFound, vault.ReasonGrantUnknown)
	check("no such grant", s.ask(s.acme, s.token, vault.NewID(), h), vault.NotFound, vault.ReasonGrantUnknown)
	check("another token", s.ask(s.acme, token, s.grant.Grant, h), vault.Denied, vault.ReasonGrantToken)
	check("no token", s.ask(s.acme, vault.Token{}, s.grant.Grant, h), vault.Denied, vault.ReasonGrantToken)
	check("another grant's handle", s.ask(beta, token, other.Grant, h), vault.NotFound, vault.ReasonHandleUnknown)
	check("the record's own ID", s.ask(s.acme, s.token, s.grant.Grant, vault.Handle(s.records[0].ID)), vault.NotFound, vault.ReasonHandleUnknown)
	// A handle made with the grant's own key opens nothing outside the scope.
	for name, r := range map[string]vault.Record{
		"site": s.Record("east", vault.Face, 0), "day": s.Record("north", vault.Face, 29*24*time.Hour),
	} {
		check("out of scope: "+name, s.ask(s.acme, s.token, s.grant.Grant, s.handle(r)), vault.NotFound, vault.ReasonHandleUnknown)
	}
	if s.handle(s.records[0]) == other.HandleKey.Handle(s.records[0].ID) {
		t.Error("two grants name a record alike")
	}
	if n := len(s.Events(vault.EventRecordReleased)); n != 0 || s.Vault.Calls("Unwrap") != 0 {
		t.Errorf("%d releases", n)
	}
}

func TestStates(t *testing.T) {
	for name, c := range map[string]struct {
		end    func(s *scene)
		kind   vault.Kind
		reason vault.Reason
	}{
		"expired": {func(s *scene) { s.Clock.Advance(time.Hour) }, vault.State, vault.ReasonGrantExpired},
		"revoked": {func(s *scene) {
			_, _, err := s.Grants.Revoke(t.Context(), s.Alice().Caller, s.grant.Grant, "")
			s.NoError(err)
		}, vault.State, vault.ReasonGrantRevoked},
		"retired": {func(s *scene) {
			_, _, err := s.Grants.Retire(t.Context(), s.acme, s.grant.Grant)
			s.NoError(err)
		}, vault.State, vault.ReasonGrantRetired},
		"suspended": {func(s *scene) {
			_, err := s.Breach.Suspend(t.Context(), s.Alice().Caller, "acme", "")
			s.NoError(err)
		}, vault.Denied, vault.ReasonContractorSuspended},
		"reinstated": {func(s *scene) {
			_, err := s.Breach.Suspend(t.Context(), s.Alice().Caller, "acme", "")
			s.NoError(err)
			s.Admit("acme")
		}, vault.State, vault.ReasonGrantRevoked},
		"reinstated, and its row revived": {func(s *scene) {
			_, err := s.Breach.Suspend(t.Context(), s.Alice().Caller, "acme", "")
			s.NoError(err)
			s.Admit("acme")
			s.SQL("UPDATE grants SET state = 'active'")
		}, vault.State, vault.ReasonGrantRevoked},
		"caller suspended": {func(s *scene) {
			s.SQL("INSERT INTO suspended_callers (id, suspended_at) VALUES (?, 0)", s.acme.ID)
		}, vault.Denied, vault.ReasonCallerSuspended},
		"only approved": {func(s *scene) { s.SQL("UPDATE grants SET state = 'approved'") }, vault.State, vault.ReasonGrantNotActive},
		"key revoked": {func(s *scene) {
			_, err := s.Breach.Revoke(t.Context(), s.Alice().Caller, house.All(), "")
			s.NoError(err)
		}, vault.Denied, vault.ReasonKeyRevoked},
		"key revoking":          {func(s *scene) { s.SQL("UPDATE records SET key_state = 'revoking'") }, vault.Denied, vault.ReasonKeyRevoked},
		"key restoring":         {func(s *scene) { s.SQL("UPDATE records SET key_state = 'restoring'") }, vault.Denied, vault.ReasonKeyRevoked},
		"key destroying":        {func(s *scene) { s.SQL("UPDATE records SET key_state = 'destroying'") }, vault.State, vault.ReasonKeyDestroyed},
		"key of no known state": {func(s *scene) { s.SQL("UPDATE records SET key_state = 'Active'") }, vault.Denied, vault.ReasonKeyRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, 1)
			c.end(s)
			s.refused(s.records[0], c.kind, c.reason)
			if s.Vault.Calls("Unwrap") != 0 {
				t.Error("Vault was asked")
			}
		})
	}
}

// TestTamperedGrant: whoever writes to the database widens nothing, not even a running grant
// whose approvals were proved before.
func TestTamperedGrant(t *testing.T) {
	for column, value := range map[string]any{
		"max_records": 2000, "sites": "east,north,south", "modalities": "face", "ends": house.Start.Add(6 * time.Hour).UnixMicro(),
		"captured_from": 0, "captured_until": house.Start.AddDate(0, 0, 10).UnixMicro(), "approvals": 1,
		"justification": "WO-2", "purpose_digest": make([]byte, 32), "requested_at": 1,
	} {
		t.Run(column, func(t *testing.T) {
			s := open(t, 1)
			if _, err := s.fetch(s.records[0]); err != nil {
				t.Fatal(err)
			}
			s.SQL("UPDATE grants SET "+column+" = ?", value)
			s.refused(s.records[0], vault.Denied, vault.ReasonGrantTampered)
			_, err := s.Release.List(t.Context(), s.acme, s.token, s.grant.Grant, "", 0)
			s.Refused(err, vault.Denied, vault.ReasonGrantTampered)
		})
	}
	for name, query := range map[string]string{
		"a signature less":    "DELETE FROM signatures WHERE decision_id IN (SELECT id FROM grants) AND signer LIKE '%/alice'",
		"a signature altered": "UPDATE signatures SET signature = zeroblob(70) WHERE decision_id IN (SELECT id FROM grants)",
		"a signer renamed":    "UPDATE signatures SET signer = 'spiffe://vault.test/admin/eve' WHERE decision_id IN (SELECT id FROM grants) AND signer LIKE '%/alice'",
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, 1)
			if s.SQL(query) == 0 {
				t.Fatal("nothing to tamper with")
			}
			s.refused(s.records[0], vault.Denied, vault.ReasonGrantTampered)
		})
	}
	for name, query := range map[string]string{
		"the purpose":                 "UPDATE purposes SET body = replace(body, '\"MaxRecords\":100000', '\"MaxRecords\":999999')",
		"the contractor":              "UPDATE contractors SET title = 'Another' WHERE name = 'acme'",
		"the contractor, unadmitted":  "UPDATE contractors SET decision_id = '' WHERE name = 'acme'",
		"who sanctioned the purpose":  "DELETE FROM signatures WHERE decision_id IN (SELECT decision_id FROM purposes) AND signer LIKE '%/bob'",
		"who admitted the contractor": "DELETE FROM signatures WHERE decision_id IN (SELECT decision_id FROM contractors) AND signer LIKE '%/bob'",
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, 1)
			if s.SQL(query) == 0 {
				t.Fatal("nothing to tamper with")
			}
			before := s.Vault.Calls("Unwrap")
			sent, err := s.fetch(s.records[0])
			if vault.KindOf(err) == vault.Internal || err == nil || len(sent) != 0 || s.Vault.Calls("Unwrap") != before {
				t.Errorf("%d sent, %v", len(sent), err)
			}
		})
	}
	for _, set := range []string{"purpose = 'matching'", "purpose_version = 7"} { // sanctioned by nobody
		t.Run(set, func(t *testing.T) {
			s := open(t, 1)
			s.SQL("UPDATE grants SET " + set)
			s.refused(s.records[0], vault.NotFound, vault.ReasonPurposeUnknown)
		})
	}
}

// TestTamperedRecord: a record's row that was altered never gives a wrong image.
func TestTamperedRecord(t *testing.T) {
	for name, set := range map[string]string{
		"site": "site = 'south'", "lane": "lane = 'lane-2'", "modality": "modality = 'plate'",
		"capture time": "captured_at = captured_at + 1", "capture day": "captured_at = captured_at - 86400000000",
		"crossing": "crossing_id = '123e4567-e89b-42d3-a456-426614174000'", "no crossing": "crossing_id = ''",
		"content type": "content_type = 'image/jpeg'", "orientation": "orientation = 6",
		"wrapped key": "wrapped_key = substr(wrapped_key, 1, length(wrapped_key) - 8) || 'AAAAAAAA'", "no wrapped key": "wrapped_key = ''",
		"another's wrapped key": "wrapped_key = (SELECT wrapped_key FROM records AS o WHERE o.id <> records.id)",
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, 2)
			r := s.records[0]
			if s.SQL("UPDATE records SET "+set+" WHERE id = ?", r.ID.String()) != 1 {
				t.Fatal("nothing to tamper with")
			}
			sent, err := s.fetch(r)
			k := vault.KindOf(err)
			if len(sent) != 0 || (k != vault.DataLoss && k != vault.Denied) {
				t.Fatalf("%d sent, %v", len(sent), err)
			}
			if e := s.Last(); e.Type != vault.EventReleaseUnsent || e.Reason != vault.ReasonOf(err) {
				t.Errorf("the log ends in %+v", e)
			}
		})
	}
}

func TestQuota(t *testing.T) {
	const records, quota, callers = 40, 24, 64
	s := open(t, records, func(r *grants.Request) { r.MaxRecords = quota })
	var all sync.WaitGroup
	var sent, over, tries atomic.Int64
	var mu sync.Mutex
	left := map[vault.Handle]bool{}
	for i := range callers {
		all.Go(func() {
			for j := range records {
				tries.Add(1)
				err := s.Release.Fetch(t.Context(), s.acme, s.token, s.grant.Grant, s.handle(s.records[(i*7+j)%records]), func(img vault.Image) error {
					sent.Add(1)
					mu.Lock()
					defer mu.Unlock()
					left[img.Handle] = true
					return nil
				})
				switch {
				case err == nil:
				case vault.KindOf(err) == vault.Exhausted && vault.ReasonOf(err) == vault.ReasonQuotaExceeded:
					over.Add(1)
					return // whoever goes on regardless ends the grant: see TestBreaker
				default:
					t.Errorf("%v", err)
				}
			}
		})
	}
	all.Wait()
	events := s.Events(vault.EventRecordReleased)
	fresh := 0
	for _, e := range events {
		if !e.Refetch {
			fresh++
		}
	}
	if len(left) != quota || fresh != quota || s.Grant(s.grant.Grant).Released != quota {
		t.Errorf("%d records left, %d by the log, %d by the row; the quota is %d", len(left), fresh, s.Grant(s.grant.Grant).Released, quota)
	}
	if n := int64(len(events)); n != sent.Load() || n+over.Load() != tries.Load() {
		t.Errorf("%d releases in the log, %d sent, %d refused", n, sent.Load(), over.Load())
	}
	if n := int64(len(s.Events(vault.EventReleaseRefused))); n != over.Load() {
		t.Errorf("%d refusals in the log of %d", n, over.Load())
	}
	if n := s.Ask("SELECT COUNT(*) FROM released"); n != "24" {
		t.Errorf("%s rows", n)
	}
}

func TestList(t *testing.T) {
	const n = 60
	s := open(t, n) // each a minute before the last
	s.Record("east", vault.Face, 0)
	s.Record("north", vault.Face, 29*24*time.Hour)
	hidden := s.records[7]
	_, err := s.Breach.Revoke(t.Context(), s.Alice().Caller, house.One(hidden), "")
	s.NoError(err)
	var views []release.View
	next := ""
	for more := true; more; {
		got, err := s.Release.List(t.Context(), s.acme, s.token, s.grant.Grant, next, 7)
		s.NoError(err)
		page := got.Views
		next, more = got.Next, got.Next != ""
		if len(page) == 0 || len(page) > 7 || (more && len(page) != 7) {
			t.Fatalf("a page of %d, more: %v", len(page), more)
		}
		if e := s.Last(); e.Type != vault.EventRecordsListed || e.Count != int64(len(page)) {
			t.Errorf("the log ends in %+v", e)
		}
		views = append(views, page...)
	}
	at := map[vault.Handle]time.Time{}
	for _, r := range s.records {
		at[s.handle(r)] = r.CapturedAt
	}
	delete(at, s.handle(hidden))
	var times []time.Time
	for _, v := range views {
		captured, ok := at[v.Handle]
		if !ok {
			t.Errorf("%s is listed twice, or not in scope", v.Handle)
		}
		if v.Site != "north" || v.Modality != vault.Face || !v.Captured.Equal(captured) || v.Precision != vault.PrecisionExact {
			t.Errorf("%+v of %s", v, captured)
		}
		delete(at, v.Handle)
		times = append(times, captured)
	}
	if len(at) != 0 {
		t.Errorf("%d are not listed", len(at))
	}
	// Sixty at random are in an order of time once in 60! runs.
	if back := slices.Clone(times); slices.IsSortedFunc(times, time.Time.Compare) || func() bool { slices.Reverse(back); return slices.IsSortedFunc(back, time.Time.Compare) }() {
		t.Error("they come in an order of time")
	}
	for _, most := range []int{-1, release.MaxPage + 1} {
		_, err := s.Release.List(t.Context(), s.acme, s.token, s.grant.Grant, "", most)
		s.Refused(err, vault.Invalid, vault.ReasonInvalidField)
	}
	_, err = s.Release.List(t.Context(), s.Caller("contractor/acme/other"), s.token, s.grant.Grant, "", 0)
	s.Refused(err, vault.NotFound, vault.ReasonGrantUnknown)
	if e := s.Last(); e.Type != vault.EventReleaseRefused || e.Reason != vault.ReasonGrantUnknown {
		t.Errorf("the log ends in %+v", e)
	}
}
