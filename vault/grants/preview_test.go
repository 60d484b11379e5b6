package grants_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

func (s *scene) preview(g vault.Grant) vault.Preview {
	s.Helper()
	v, err := s.Grants.Get(s.Context(), s.Alice().Caller, g.Grant)
	s.NoError(err)
	return v.Preview
}

// TestPreviewCounts: what would open, in all and by site and modality, and of it what waits for
// its hour to close and what shows too few crossings to appear. A record of a class that the
// purpose may not see is none of it.
func TestPreviewCounts(t *testing.T) {
	s := open(t)
	s.sanction(apart("faces", vault.Face))
	s.Clock.Advance(30 * time.Minute) // 12:30; there is one face of 11:59 already
	for range 2 {
		s.Record("north", vault.Face, 90*time.Minute) // 11:00, and 11:59 as well
	}
	s.Record("north", vault.Face, 20*time.Minute) // 12:10, still open
	s.Record("south", vault.Face, 3*time.Hour)    // alone at 9:30
	s.Record("south", vault.Face, 27*time.Hour)   // alone at 9:30 of the day before
	s.Record("south", vault.Plate, 27*time.Hour)  // of another modality
	shot := s.Shot(vault.Face, 27*time.Hour)
	shot.Class = "minors"
	_, _, err := s.Capture.Store(t.Context(), s.Caller("capture/south/lane-1"), shot)
	s.NoError(err)
	s.SQL("UPDATE records SET stored_at = captured_at")
	g := s.Requested(s.acme, faces)
	p := s.preview(g)
	if p.Records != 6 || p.Crossings != 6 || p.Days != 2 || p.Waiting != 1 || p.Hidden != 2 {
		t.Errorf("%+v, %d wait, %d are hidden", p.Covered, p.Waiting, p.Hidden)
	}
	want := []vault.Covered{
		{Site: "north", Modality: vault.Face, Records: 4, Crossings: 4, Days: 1},
		{Site: "south", Modality: vault.Face, Records: 2, Crossings: 2, Days: 2},
	}
	if !slices.Equal(p.Sites, want) {
		t.Errorf("by site: %+v", p.Sites)
	}
	// Of a bucket those count alone that can be opened.
	s.Record("south", vault.Face, 3*time.Hour)
	s.SQL("UPDATE records SET stored_at = captured_at")
	if p := s.preview(g); p.Records != 7 || p.Hidden != 1 {
		t.Errorf("%d records, %d hidden", p.Records, p.Hidden)
	}
	s.SQL("UPDATE records SET key_state = 'revoked' WHERE rowid = (SELECT MAX(rowid) FROM records)")
	if p := s.preview(g); p.Records != 6 || p.Hidden != 2 {
		t.Errorf("%d records, %d hidden", p.Records, p.Hidden)
	}
	// With linkage nothing waits or hides.
	if p := s.preview(s.Requested(s.acme)); p.Waiting != 0 || p.Hidden != 0 || p.Records != 7 {
		t.Errorf("%+v", p)
	}
}

// TestPreviewOfLive: of what is there at the request a live grant opens nothing.
func TestPreviewOfLive(t *testing.T) {
	s := open(t)
	g := s.Requested(s.acme, func(r *request) { r.Scope = live() })
	s.Clock.Advance(time.Minute)
	s.Record("north", vault.Face, 30*time.Second) // captured after the request
	if p := s.preview(g); p.Records != 0 || len(p.Sites) != 0 {
		t.Errorf("%+v", p)
	}
	for _, who := range []house.Person{s.Alice(), s.Bob()} {
		_, err := s.sign(who, g)
		s.NoError(err)
	}
	s.Clock.Advance(time.Minute)
	s.Record("north", vault.Face, 30*time.Second)
	if p := s.preview(g); p.Records != 1 {
		t.Errorf("%+v", p)
	}
}

// TestPreviewOfOthers: what the contractor and its affiliates hold and have opened, what changed
// since the grantee's last grant, and why it could not be approved.
func TestPreviewOfOthers(t *testing.T) {
	s := open(t)
	s.sanction(apart("faces", vault.Face), apart("plates", vault.Plate))
	s.affiliates()
	beta := s.Caller("contractor/beta/tuning")
	earlier := s.Approved(s.acme, faces)
	held := s.Approved(beta, faces)
	s.Admit("gamma")
	pending := s.Requested(s.acme, faces, func(r *request) {
		r.Scope.Sites, r.MaxRecords, r.TTL, r.Justification = []string{"north"}, 7, 2*time.Hour, "WO-9"
	})
	s.Clock.Advance(time.Minute)
	g := s.Requested(s.acme, faces, func(r *request) {
		r.Scope.Sites, r.MaxRecords, r.TTL, r.Justification = []string{"north"}, 7, 2*time.Hour, "WO-9"
	})
	for _, day := range []int{20513, 20511} {
		s.SQL("INSERT INTO opened (contractor, site, modality, day, purpose, linkage, last_at) VALUES ('beta', 'north', 'face', ?, 'faces', 0, 0)", day)
	}
	s.SQL("INSERT INTO opened (contractor, site, modality, day, purpose, linkage, last_at) VALUES ('gamma', 'north', 'face', 1, 'faces', 0, 0)")
	p := s.preview(g)
	if len(p.Held) != 2 || p.Held[0].Grant == g.Grant || p.Held[1].Grant == pending.Grant {
		t.Errorf("held: %+v", p.Held)
	}
	if !slices.ContainsFunc(p.Held, func(h vault.Grant) bool { return h.Grant == held.Grant }) {
		t.Error("an affiliate's grant is not told of")
	}
	day := func(n int64) time.Time { return time.Unix(n*86400, 0).UTC() }
	if want := (vault.Opened{Contractor: "beta", Purpose: "faces", Site: "north", Modality: vault.Face, Days: 2, First: day(20511), Last: day(20513)}); len(p.Opened) != 1 || p.Opened[0] != want {
		t.Errorf("opened: %+v", p.Opened)
	}
	if p.Earlier.Grant != earlier.Grant {
		t.Errorf("earlier: %s", p.Earlier.Grant)
	}
	want := []vault.Change{
		{Field: "sites", Before: "north,south", After: "north"},
		{Field: "max_records", Before: "1000", After: "7"}, {Field: "ttl", Before: "1h0m0s", After: "2h0m0s"},
	}
	if !slices.Equal(p.Changes, want) || len(p.Refusals) != 0 {
		t.Errorf("changes: %+v, refusals %v", p.Changes, p.Refusals)
	}
	// What is too much for one answer is left out, and the answer says so.
	s.SQL(`WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 999)
		INSERT INTO opened (contractor, site, modality, day, purpose, linkage, last_at) SELECT 'beta', 'site-' || n, 'face', 1, 'faces', 0, 0 FROM n`)
	if p := s.preview(g); len(p.Opened) != 1000 || p.Truncated {
		t.Errorf("%d lines, truncated %t", len(p.Opened), p.Truncated)
	}
	s.SQL("INSERT INTO opened (contractor, site, modality, day, purpose, linkage, last_at) VALUES ('beta', 'site-1', 'plate', 1, 'plates', 0, 0)")
	if p := s.preview(g); len(p.Opened) != 1000 || !p.Truncated {
		t.Errorf("%d lines, truncated %t", len(p.Opened), p.Truncated)
	}
}

// TestPreviewRefusals: all that speaks against approving it now.
func TestPreviewRefusals(t *testing.T) {
	s := divided(t)
	one, other := s.Requested(s.acme, faces), s.Requested(s.acme, plates)
	reasons := func(g vault.Grant) (out []vault.Reason) {
		for _, err := range s.preview(g).Refusals {
			out = append(out, vault.ReasonOf(err))
		}
		return out
	}
	if got := reasons(other); len(got) != 0 {
		t.Errorf("at first: %v", got)
	}
	for _, who := range []house.Person{s.Alice(), s.Bob()} {
		_, err := s.sign(who, one)
		s.NoError(err)
	}
	if got := reasons(other); !slices.Equal(got, []vault.Reason{vault.ReasonConflictRule}) {
		t.Errorf("in conflict: %v", got)
	}
	if got := reasons(one); len(got) != 0 {
		t.Errorf("approved: %v", got)
	}
	newer := apart("faces", vault.Face)
	newer.Title += " anew"
	s.sanction(newer)
	if got := reasons(one); !slices.Equal(got, []vault.Reason{vault.ReasonPurposeChanged}) {
		t.Errorf("approved, of a version before: %v", got)
	}
	_, err := s.Breach.SuspendCaller(t.Context(), s.Alice().Caller, s.acme.ID, "")
	s.NoError(err)
	s.SQL("UPDATE grants SET state = 'pending' WHERE id = ?", other.Grant.String())
	p := apart("plates", vault.Plate)
	p.MaxRecords, p.MaxTTL = 5, 30*time.Minute
	s.sanction(p)
	if got := reasons(other); !slices.Equal(got, []vault.Reason{
		vault.ReasonCallerSuspended, vault.ReasonPurposeChanged, vault.ReasonPurposeDuration, vault.ReasonPurposeQuota,
	}) {
		t.Errorf("suspended, and the purpose tightened: %v", got)
	}
	s.Clock.Advance(vault.PendingTTL)
	if got := reasons(other); !slices.Equal(got, []vault.Reason{vault.ReasonGrantLapsed}) {
		t.Errorf("lapsed: %v", got)
	}
	if got := reasons(one); !slices.Equal(got, []vault.Reason{vault.ReasonGrantDecided}) {
		t.Errorf("decided: %v", got)
	}
}

// TestWhoSeesWhat: admins see the preview; contractors and auditors the purpose without it, and
// contractors not whom else it is for.
func TestWhoSeesWhat(t *testing.T) {
	s := open(t)
	g := s.Requested(s.acme)
	for path, want := range map[string]struct {
		contractors string
		preview     bool
	}{"admin/alice": {"acme,beta", true}, "auditor/ann": {"acme,beta", false}, "contractor/acme/other": {"acme", false}} {
		v, err := s.Grants.Get(t.Context(), s.Caller(path), g.Grant)
		s.NoError(err)
		if v.Purpose == nil || strings.Join(v.Purpose.Contractors, ",") != want.contractors || v.Purpose.Version != 1 {
			t.Errorf("%s sees the purpose %+v", path, v.Purpose)
		}
		if (v.Preview.Records > 0) != want.preview {
			t.Errorf("%s sees the preview %+v", path, v.Preview)
		}
	}
	// A version that is not the one that the terms name is not shown as if it were.
	s.SQL("UPDATE purposes SET body = replace(body, '\"MaxRecords\":100000', '\"MaxRecords\":999999')")
	v, err := s.Grants.Get(t.Context(), s.Alice().Caller, g.Grant)
	s.NoError(err)
	if v.Purpose != nil || v.Preview.Records != 0 || len(v.Preview.Refusals) == 0 {
		t.Errorf("a purpose that nobody signed is shown: %+v", v)
	}
}
