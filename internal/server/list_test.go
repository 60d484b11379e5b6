package server

import (
	"context"
	"slices"
	"testing"
	"time"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

// shelf gives grants as a store does, newest first.
type shelf struct {
	Facts
	grants []vault.Grant
}

func (s shelf) Grants(_ context.Context, _ string, states []vault.GrantState, before vault.ID, most int) (out []vault.Grant, err error) {
	from := 0
	if before != (vault.ID{}) {
		from = 1 + slices.IndexFunc(s.grants, func(g vault.Grant) bool { return g.Grant == before })
	}
	for _, g := range s.grants[from:] {
		if len(out) < most && (len(states) == 0 || slices.Contains(states, g.State)) {
			out = append(out, g)
		}
	}
	return out, nil
}

// TestGrantsAreListedAsTheyShow: a grant whose end has passed is listed as expired and under no
// other state, on pages of any size.
func TestGrantsAreListedAsTheyShow(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	var s shelf
	want := map[pb.Grant_State][]string{}
	var live []string
	for i := range 60 {
		g := vault.Grant{State: vault.GrantPending, RequestedAt: now.Add(-2 * time.Hour)}
		g.Grant = vault.NewID()
		g.Ends = now.Add(time.Hour)
		shown := pb.Grant_STATE_PENDING
		switch {
		case i%7 == 0:
			g.State, shown = vault.GrantRevoked, pb.Grant_STATE_REVOKED
		case i%3 != 0:
			g.Ends, shown = now.Add(-time.Hour), pb.Grant_STATE_EXPIRED
		case i%2 == 0:
			g.State, shown = vault.GrantActive, pb.Grant_STATE_ACTIVE
		case i%9 == 0: // no sweep has come by yet
			g.RequestedAt, shown = now.Add(-vault.PendingTTL), pb.Grant_STATE_LAPSED
		case i == 33:
			g.State, shown = vault.GrantLapsed, pb.Grant_STATE_LAPSED
		case i == 39:
			g.State, shown = vault.GrantSuspended, pb.Grant_STATE_SUSPENDED
		}
		if shown == pb.Grant_STATE_PENDING || shown == pb.Grant_STATE_ACTIVE {
			live = append(live, "grants/"+g.Grant.String())
		}
		s.grants = append(s.grants, g)
		want[shown] = append(want[shown], "grants/"+g.Grant.String())
	}
	desk := &grantAPI{api: &api{Config: Config{
		Facts: s, Clock: func() time.Time { return now },
		Caller: func(context.Context) (vault.Caller, error) { return vault.Caller{Role: vault.RoleAdmin}, nil },
	}}}
	list := func(what *pb.ListGrantsRequest, names []string) {
		t.Helper()
		for _, size := range []int32{1, 2, 5, 59, 60, 100} {
			var got []string
			req := &pb.ListGrantsRequest{States: what.States, Live: what.Live, PageSize: size}
			for pages := 0; ; pages++ {
				page, err := desk.ListGrants(t.Context(), req)
				if err != nil || pages > 100 || len(page.Grants) > int(size) {
					t.Fatalf("page %d of %d: %d grants, %v", pages, size, len(page.GetGrants()), err)
				}
				for _, g := range page.Grants {
					got = append(got, g.Name)
				}
				if req.PageToken = page.NextPageToken; req.PageToken == "" {
					break
				}
			}
			if !slices.Equal(got, names) {
				t.Errorf("%v, pages of %d: %d grants, want %d", what, size, len(got), len(names))
			}
		}
	}
	for state, names := range want {
		list(&pb.ListGrantsRequest{States: []pb.Grant_State{state}}, names)
		list(&pb.ListGrantsRequest{States: []pb.Grant_State{state}, Live: true}, map[pb.Grant_State][]string{
			pb.Grant_STATE_PENDING: names, pb.Grant_STATE_ACTIVE: names,
		}[state])
	}
	list(&pb.ListGrantsRequest{Live: true}, live)
	if len(want) != 6 || len(live) == 0 {
		t.Errorf("the test looks at %d states", len(want))
	}
}

// TestListsHideRecords: of a grant of a list contractors learn how it is called, not what is in it.
func TestListsHideRecords(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	g := vault.Grant{State: vault.GrantActive, RequestedAt: now}
	g.Grant, g.Ends = vault.NewID(), now.Add(time.Hour)
	g.Scope.List, g.Scope.Records = vault.NewID(), []vault.ID{vault.NewID()}
	for role, want := range map[vault.Role]int{vault.RoleContractor: 0, vault.RoleAdmin: 1, vault.RoleAuditor: 1} {
		desk := &grantAPI{api: &api{Config: Config{
			Facts: shelf{grants: []vault.Grant{g}}, Clock: func() time.Time { return now },
			Caller: func(context.Context) (vault.Caller, error) { return vault.Caller{Role: role}, nil },
		}}}
		page, err := desk.ListGrants(t.Context(), &pb.ListGrantsRequest{})
		if err != nil || len(page.Grants) != 1 {
			t.Fatalf("%v, %v", page, err)
		}
		if s := page.Grants[0].Scope; len(s.Records) != want || s.RecordList != "lists/"+g.Scope.List.String() {
			t.Errorf("%s sees %v", role, s)
		}
	}
}

func TestUnknownTypesOfEventsAreRefused(t *testing.T) {
	desk := &auditAPI{api: &api{}}
	_, err := desk.ListEvents(t.Context(), &pb.ListEventsRequest{Types: []string{string(vault.EventRecordReleased), "nosuch.type"}})
	if vault.KindOf(err) != vault.Invalid {
		t.Errorf("got %v", err)
	}
}
