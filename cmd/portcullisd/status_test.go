package main

import (
	"testing"
	"time"

	"github.com/portcullis/portcullis/internal/server"
	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
	"github.com/portcullis/portcullis/vault/wire"
)

// TestStatusTellsWhatIsWrong: whoever is authenticated learns its standing and the service's
// time, also when it is refused everywhere else and when the database is gone.
func TestStatusTellsWhatIsWrong(t *testing.T) {
	s := begin(t)
	p := purpose()
	admin := s.as(alice)
	ask := func(c *client.Client) *pb.GetStatusResponse {
		t.Helper()
		got, err := c.Identity.GetStatus(t.Context(), &pb.GetStatusRequest{})
		noError(t, err)
		if off := time.Since(got.ServerTime.AsTime()).Abs(); off > 10*time.Second {
			t.Errorf("the service's time is %s off", off)
		}
		return got
	}
	part := func(name string) func() pb.Part_State {
		return func() pb.Part_State {
			for _, p := range ask(admin).Parts {
				if p.Name == name {
					return p.State
				}
			}
			return pb.Part_STATE_UNSPECIFIED
		}
	}
	is := func(name string, want pb.Part_State) {
		t.Helper()
		wait(t, name+" is "+want.String(), func() bool { return part(name)() == want })
	}

	// Unknown, then admitted, then suspended; nothing else is told meanwhile.
	org := s.as(matcher)
	got := ask(org)
	if got.Standing != pb.Standing_STANDING_REFUSED || got.StandingReason != string(vault.ReasonContractorUnknown) || len(got.Parts) != 0 {
		t.Errorf("an unknown contractor is told %v", got)
	}
	_, err := org.Identity.WhoAmI(t.Context(), &pb.WhoAmIRequest{})
	refused(t, err, vault.ReasonContractorUnknown)
	_, err = admin.ApplyContractor(t.Context(), vault.Contractor{Name: devOrg, Title: "an example"})
	noError(t, err)
	w := ask(admin).Work
	if w.OpenDecisionCount != 1 || len(w.OpenDecisions) != 1 || w.OpenDecisions[0].Kind != string(vault.ApplyContractor) || len(w.OpenDecisions[0].Signatures) != 1 {
		t.Errorf("what waits is %v", w)
	}
	s.admit(p, devOrg)
	if w := ask(admin).Work; w.OpenDecisionCount != 0 || len(w.OpenDecisions) != 0 {
		t.Errorf("after the decisions, what waits is %v", w)
	}
	if got := ask(org); got.Standing != pb.Standing_STANDING_ACTIVE || got.Work != nil || got.LogSize != 0 || len(got.Parts) != 5 {
		t.Errorf("a contractor is told %v", got)
	}
	if got := ask(s.as(auditor)); got.LogSize != int64(len(s.events())) || got.Work != nil {
		t.Errorf("an auditor is told %v", got)
	}

	// A grant's quota and time, as the service has them.
	s.store(s.as(lane), vault.Plate, 3, 8<<10)
	name, token := s.granted(org, p, 2)
	_, err = org.Release.FetchImage(t.Context(), &pb.FetchImageRequest{Grant: name, GrantToken: token.Reveal(), Handle: s.handles(org, name, token)[0]})
	noError(t, err)
	g, err := org.Grants.GetGrant(t.Context(), &pb.GetGrantRequest{Name: name})
	noError(t, err)
	if g.Grant.RecordsReleased != 1 || g.Grant.RecordsRemaining != 1 || g.Grant.EndTime.AsTime().Sub(g.Grant.ReadTime.AsTime()) != g.Grant.TimeRemaining.AsDuration() {
		t.Errorf("the grant is %v", g.Grant)
	}
	_, err = admin.Admin.SuspendContractor(t.Context(), &pb.SuspendContractorRequest{Name: wire.Contractors + "/" + devOrg})
	noError(t, err)
	again := s.as(matcher)
	if got := ask(again); got.Standing != pb.Standing_STANDING_REFUSED || got.StandingReason != string(vault.ReasonContractorSuspended) || len(got.Parts) != 0 {
		t.Errorf("a suspended contractor is told %v", got)
	}
	g, err = admin.Grants.GetGrant(t.Context(), &pb.GetGrantRequest{Name: name})
	noError(t, err)
	if g.Grant.RecordsRemaining != 0 || g.Grant.TimeRemaining.AsDuration() != 0 {
		t.Errorf("an ended grant has %v left", g.Grant)
	}

	// Vault, sealed and gone, told apart; and the database.
	is("vault", pb.Part_STATE_UP)
	noError(t, s.vault.Seal(t.Context()))
	is("vault", pb.Part_STATE_SEALED)
	wait(t, "nobody can look for restores", func() bool { return s.partIs("restores", pb.Part_STATE_DOWN, vault.ReasonVaultUnavailable) })
	noError(t, s.vault.Unseal(t.Context()))
	is("vault", pb.Part_STATE_UP)
	noError(t, s.vault.Kill())
	is("vault", pb.Part_STATE_DOWN)
	is(server.PartDatabase, pb.Part_STATE_UP)
	noError(t, s.vault.Restart(t.Context()))
	is("vault", pb.Part_STATE_UP)
	s.ddl("ALTER TABLE suspended_callers RENAME TO elsewhere")
	if got := ask(again); got.Standing != pb.Standing_STANDING_UNSPECIFIED || len(got.Parts) == 0 {
		t.Errorf("without a database one is told %v", got)
	}
	if got := part(server.PartDatabase)(); got != pb.Part_STATE_DOWN {
		t.Errorf("the database is %v", got)
	}
	s.ddl("ALTER TABLE elsewhere RENAME TO suspended_callers")
	is(server.PartDatabase, pb.Part_STATE_UP)
	is("lease", pb.Part_STATE_UP)
	is("restores", pb.Part_STATE_UP)
}

// partIs says whether an admin is told that a part is so, for that reason.
func (s *service) partIs(name string, state pb.Part_State, why vault.Reason) bool {
	s.t.Helper()
	got, err := s.as(alice).Identity.GetStatus(s.t.Context(), &pb.GetStatusRequest{})
	noError(s.t, err)
	for _, p := range got.Parts {
		if p.Name == name {
			return p.State == state && p.Reason == string(why)
		}
	}
	return false
}
