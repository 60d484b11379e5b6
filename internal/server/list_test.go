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
	for i := range 60 {
		g := vault.Grant{State: vault.GrantPending}
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
		}
		s.grants = append(s.grants, g)
		want[shown] = append(want[shown], "grants/"+g.Grant.String())
	}
	desk := &grantAPI{api: &api{Config: Config{
		Facts: s, Clock: func() time.Time { return now },
		Caller: func(context.Context) (vault.Caller, error) { return vault.Caller{Role: vault.RoleAdmin}, nil },
	}}}
	for state, names := range want {
		for _, size := range []int32{1, 2, 5, 59, 60, 100} {
			var got []string
			req := &pb.ListGrantsRequest{States: []pb.Grant_State{state}, PageSize: size}
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
				t.Errorf("%v, pages of %d: %d grants, want %d", state, size, len(got), len(names))
			}
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
