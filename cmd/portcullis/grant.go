package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

func (a *app) grantCommand() *cobra.Command {
	return noun("grant", "permission to open images: request, list, show, wait, approve, deny, activate, retire, revoke",
		a.grantRequest(), a.grantList(),
		a.ofGrants(a.grantShow()), a.ofGrants(a.grantWait(), "pending", "approved", "active"),
		a.ofGrants(a.grantApprove(), "pending"), a.ofGrants(a.grantDeny(), "pending"),
		a.ofGrants(a.grantActivate(), "approved", "active"), a.ofGrants(a.grantRetire(), "pending", "approved", "active"),
		a.ofGrants(a.grantRevoke(), "pending", "approved", "active"))
}

// grantStates are the states that grants can be listed by.
var grantStates = []string{"pending", "approved", "active", "denied", "retired", "revoked", "expired", "lapsed", "suspended"}

func (a *app) grantList() *cobra.Command {
	var states []string
	var all, live bool
	c := &cobra.Command{
		Use: "list", Short: "list grants, newest first; a contractor sees its own", Args: exactly(0),
		Example: "  portcullis --profile alice grant list --state pending",
	}
	c.Flags().StringSliceVar(&states, "state", nil, "only these `STATE`s: "+strings.Join(grantStates, ", "))
	c.Flags().BoolVar(&live, "live", false, "only those of which something may still come: pending, approved or active, before their end")
	c.Flags().BoolVar(&all, "all", false, "all of them, not only the newest 100")
	complete(c, "state", grantStates...)
	c.RunE = a.call(func(ctx context.Context, s *session, _ []string) error {
		req := &pb.ListGrantsRequest{Live: live}
		for _, st := range states {
			if !slices.Contains(grantStates, st) {
				return usagef("--state %q is none of %s", st, strings.Join(grantStates, ", "))
			}
			req.States = append(req.States, pb.Grant_State(pb.Grant_State_value["STATE_"+strings.ToUpper(st)]))
		}
		if all {
			req.PageSize = 1000
		}
		out := &pb.ListGrantsResponse{}
		for {
			got, err := s.Grants.ListGrants(ctx, req)
			if err != nil {
				return err
			}
			out.Grants = append(out.Grants, got.Grants...)
			out.NextPageToken = got.NextPageToken
			if req.PageToken = got.NextPageToken; !all || req.PageToken == "" {
				break
			}
		}
		a.learn(s, out.Grants...)
		return a.show(out, func(t *grid) {
			t.row("GRANT", "STATE", "PURPOSE", "GRANTEE", "APPROVALS", "OPENED", "LEFT", "ENDS", "TIME LEFT")
			for _, g := range out.Grants {
				t.row(bare(g.Name), word(g.State, "STATE_"), bare(g.Purpose), grantee(g.Grantee),
					fmt.Sprintf("%d of %d", len(g.Approvals), g.ApprovalsRequired),
					fmt.Sprintf("%d of %d", g.RecordsReleased, g.MaxRecords), g.RecordsRemaining, when(g.EndTime), leftWords(g))
			}
			if out.NextPageToken != "" {
				t.line("there are more: --all lists them")
			}
		})
	})
	return c
}

// grantee shortens a contractor workload's SPIFFE ID to <org>/<workload>.
func grantee(id string) string {
	if _, short, ok := strings.Cut(id, "/contractor/"); ok {
		return short
	}
	return id
}

func (a *app) grantShow() *cobra.Command {
	c := &cobra.Command{
		Use: "show GRANT", Aliases: []string{"get"}, Args: exactly(1),
		Short: "show one grant, with what is left of its quotas and time",
		Long: `Show gives a grant's terms, what was opened under it and what is left. Admins also see what they
should know before they approve it, as of now: what it would open, by site; how much of that waits
for its hour or day to close, and how much never appears because too few crossings share it; what
the contractor and its affiliates hold and have opened; what is new since the grantee's last grant
of this purpose; and why it could not be approved or, once it is, activated.`,
		Example: "  portcullis --profile alice grant show 1f0c2a4e-7d53-4b1e-9a3f-0c7a8e6d5b21",
	}
	c.RunE = a.call(func(ctx context.Context, s *session, args []string) error {
		name, _, err := grantName(args[0])
		if err != nil {
			return err
		}
		got, err := s.Grants.GetGrant(ctx, &pb.GetGrantRequest{Name: name})
		if err != nil {
			return err
		}
		a.learn(s, got.Grant)
		return a.show(got, func(t *grid) {
			grantFacts(t, got.Grant, got.PurposeTerms)
			previewFacts(t, got.Grant, got.PurposeTerms, got.Preview)
		})
	})
	return c
}

func (a *app) grantApprove() *cobra.Command {
	c := &cobra.Command{
		Use:   "approve GRANT",
		Short: "sign a grant's terms (admin)",
		Long: `Approve shows what "grant show" does, and the very text that is signed with your
certificate's key; then it asks. Without a terminal it wants --yes. The text is made here from
what is shown, not taken from the service. What could not be approved is not asked about: it says
why, with exit code 3.`,
		Example: "  portcullis --profile alice grant approve 1f0c2a4e-7d53-4b1e-9a3f-0c7a8e6d5b21",
		Args:    exactly(1),
	}
	c.RunE = a.call(func(ctx context.Context, s *session, args []string) error {
		name, _, err := grantName(args[0])
		if err != nil {
			return err
		}
		got, err := s.Approve(ctx, name, func(shown *pb.GetGrantResponse, text string) error {
			g := shown.GetGrant()
			// Nobody is shown what to sign that the service would not take.
			if g.GetState() != pb.Grant_STATE_PENDING {
				return notPending(g)
			}
			if shown.GetPreview() == nil { // admins alone get it
				return vault.E(vault.Denied, vault.ReasonRoleNotAllowed, "only admins approve grants")
			}
			if !a.quiet() {
				aside := &app{stdout: a.stderr}
				if err := aside.showTable(func(t *grid) {
					grantFacts(t, g, shown.GetPurposeTerms())
					previewFacts(t, g, shown.GetPurposeTerms(), shown.GetPreview())
				}); err != nil {
					return err
				}
			}
			if against := shown.GetPreview().GetRefusals(); len(against) > 0 {
				return a.unapprovable(against)
			}
			a.showSigned(text)
			return a.confirm(ctx, "Sign?")
		})
		if err != nil {
			return err
		}
		return a.show(&pb.ApproveGrantResponse{Grant: got}, func(t *grid) {
			if missing := int(got.GetApprovalsRequired()) - len(got.GetApprovals()); missing > 0 {
				t.line("signed; waits for %s", count(missing, "more admin"))
				return
			}
			t.line("approved: its grantee may run \"portcullis grant activate %s\"", bare(got.GetName()))
		})
	})
	return c
}

// unapprovable is what ends an approval that the service would refuse: what speaks against it was
// shown, with what to do, unless a script reads.
func (a *app) unapprovable(against []*pb.Refusal) error {
	err := vault.E(vault.Denied, vault.Reason(against[0].GetReason()), "it can not be approved: %s", against[0].GetMessage())
	if a.quiet() {
		return err
	}
	return &hinted{err, ""}
}

// notPending says why a grant can not be approved any more.
func notPending(g *pb.Grant) error {
	reason := vault.ReasonGrantDecided
	switch g.GetState() {
	case pb.Grant_STATE_EXPIRED:
		reason = vault.ReasonGrantExpired
	case pb.Grant_STATE_LAPSED:
		reason = vault.ReasonGrantLapsed
	}
	return vault.E(vault.State, reason, "the grant waits for no approval: it is %s", standsWords(g))
}

func (a *app) grantDeny() *cobra.Command {
	var note string
	c := &cobra.Command{
		Use: "deny GRANT", Short: "refuse a pending request for good (admin)", Args: exactly(1),
		Example: `  portcullis --profile alice grant deny 1f0c2a4e-7d53-4b1e-9a3f-0c7a8e6d5b21 --note "no such work order"`,
	}
	c.Flags().StringVar(&note, "note", "", "why: one line of `TEXT`, of which the log keeps a hash")
	c.RunE = a.call(func(ctx context.Context, s *session, args []string) error {
		name, _, err := grantName(args[0])
		if err != nil {
			return err
		}
		got, err := s.Grants.DenyGrant(ctx, &pb.DenyGrantRequest{Name: name, Note: note})
		if err != nil {
			return err
		}
		return a.show(got, func(t *grid) { t.line("%s is denied", got.Grant.GetName()) })
	})
	return c
}

func (a *app) grantActivate() *cobra.Command {
	var print bool
	c := &cobra.Command{
		Use:   "activate GRANT",
		Short: "get the token of an approved grant, and keep it (contractor)",
		Long: `Activate gets the grant's token and keeps it in tokens/<profile>/<grant> beside the
configuration file, readable by you alone. Activating again ends the earlier token; the grant's
end does not move.`,
		Example: "  portcullis --profile contractor grant activate 1f0c2a4e-7d53-4b1e-9a3f-0c7a8e6d5b21",
		Args:    exactly(1),
	}
	c.Flags().BoolVar(&print, "print-token", false, "also write the token, which is a secret, to standard output")
	c.RunE = a.call(func(ctx context.Context, s *session, args []string) error {
		name, id, err := grantName(args[0])
		if err != nil {
			return err
		}
		// A token that can not be kept is not asked for: asking ends the earlier one.
		if err := s.tokens().prepare(); err != nil {
			return err
		}
		got, err := s.Grants.ActivateGrant(ctx, &pb.ActivateGrantRequest{Name: name})
		if err != nil {
			return err
		}
		secret := vault.TokenOf(got.GrantToken)
		if err := s.tokens().keep(id, secret); err != nil {
			return err
		}
		if a.output != jsonOutput {
			return a.showTable(func(t *grid) {
				t.line("active until %s; next: portcullis fetch %s --out DIR", when(got.Grant.GetEndTime()), id)
				if print {
					t.line("%s", secret.Reveal())
				}
			})
		}
		grant, err := messageJSON(got.Grant)
		if err != nil {
			return err
		}
		out := struct {
			Grant json.RawMessage `json:"grant"`
			File  string          `json:"token_file"`
			Token string          `json:"grant_token,omitempty"`
		}{Grant: grant, File: s.tokens().path(id)}
		if print {
			out.Token = secret.Reveal()
		}
		return a.showJSON(out)
	})
	return c
}

func (a *app) grantRetire() *cobra.Command {
	c := &cobra.Command{
		Use: "retire GRANT", Short: "end one's own grant before its time (contractor)", Args: exactly(1),
		Example: "  portcullis --profile contractor grant retire 1f0c2a4e-7d53-4b1e-9a3f-0c7a8e6d5b21",
	}
	c.RunE = a.call(func(ctx context.Context, s *session, args []string) error {
		name, id, err := grantName(args[0])
		if err != nil {
			return err
		}
		got, err := s.Grants.RetireGrant(ctx, &pb.RetireGrantRequest{Name: name})
		if err != nil {
			return err
		}
		if err := s.tokens().forget(id); err != nil {
			return err
		}
		return a.show(got, func(t *grid) { ended(t, got.Grant, got.Barrier) })
	})
	return c
}

func (a *app) grantRevoke() *cobra.Command {
	var note string
	c := &cobra.Command{
		Use:   "revoke GRANT",
		Short: "end a grant at once (admin)",
		Long: `Revoke ends a grant and cuts what is being sent under it. When it answers, nothing of the grant
is under way any more. One admin is enough, and no question is asked.`,
		Example: `  portcullis --profile alice grant revoke 1f0c2a4e-7d53-4b1e-9a3f-0c7a8e6d5b21 --note "incident 12"`,
		Args:    exactly(1),
	}
	c.Flags().StringVar(&note, "note", "", "why: one line of `TEXT`, of which the log keeps a hash")
	c.RunE = a.call(func(ctx context.Context, s *session, args []string) error {
		name, _, err := grantName(args[0])
		if err != nil {
			return err
		}
		got, err := s.Grants.RevokeGrant(ctx, &pb.RevokeGrantRequest{Name: name, Note: note})
		if err != nil {
			return err
		}
		return a.show(got, func(t *grid) { ended(t, got.Grant, got.Barrier) })
	})
	return c
}

// ended says that a grant is over, and how.
func ended(t *grid, g *pb.Grant, b *pb.Barrier) {
	t.line("%s is %s; %s had left under it", g.GetName(), word(g.GetState(), "STATE_"), count(g.GetRecordsReleased(), "record"))
	t.line("%s", barrier(b))
}
