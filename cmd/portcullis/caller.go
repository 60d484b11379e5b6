package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

func (a *app) callerCommand() *cobra.Command {
	return noun("caller", "single callers of any kind: suspend, reinstate, list (admin)",
		a.callerSuspend(), a.callerReinstate(), a.callerList())
}

func (a *app) callerSuspend() *cobra.Command {
	var note string
	c := &cobra.Command{
		Use:   "suspend SPIFFE-ID",
		Short: "cut off one lane, workload, admin or auditor, at once",
		Long: `Suspend refuses all calls of one caller from now on, and resets its connections. When it answers,
nothing of it is under way any more. One admin is enough, and no question is asked.

A workload's grants end and never come back. An admin's signatures on what is still open count no
more; what is in force on them stays, and the answer names it for review. "caller reinstate" by
two admins lets the caller in again. To stop a whole contractor: "contractor suspend".`,
		Example: `  portcullis --profile alice caller suspend spiffe://agency.example/capture/anzalduas/lane-3 \
    --note "camera stolen, incident 12"`,
		Args: exactly(1),
	}
	c.Flags().StringVar(&note, "note", "", "why: one line of `TEXT`, of which the log keeps a hash")
	c.RunE = a.call(func(ctx context.Context, s *session, args []string) error {
		got, err := s.Admin.SuspendCaller(ctx, &pb.SuspendCallerRequest{Caller: args[0], Note: note})
		if err != nil {
			return err
		}
		return a.show(got, func(t *grid) {
			who := actor(got.SuspendedCaller.GetCaller())
			t.line("%s is suspended since %s", who, when(got.SuspendedCaller.GetSuspendTime()))
			switch role, _, _ := strings.Cut(who, "/"); vault.Role(role) {
			case vault.RoleContractor:
				t.line("%s ended", count(got.GrantsEnded, "grant"))
				t.line("%s", barrier(got.Barrier))
			case vault.RoleAdmin:
				t.line("%s", underWay(got.Barrier))
				t.line("void: %s of it on what was still open", count(got.SignaturesVoid, "signature"))
				if len(got.Review) > 0 {
					t.line("in force on its signature, and staying so; look at them:")
					t.text("  ", strings.Join(got.Review, "\n"))
				}
				if got.ReviewTruncated {
					t.line("  and more")
				}
			default:
				t.line("%s", underWay(got.Barrier))
			}
		})
	})
	return c
}

func (a *app) callerReinstate() *cobra.Command {
	c := &cobra.Command{
		Use:   "reinstate SPIFFE-ID",
		Short: "let a suspended caller in again (two admins run it)",
		Long: `Reinstate shows what is signed, and asks. It takes effect when a second admin signs the same;
the suspended one can not be one of them. Grants that ended with the suspension stay ended.`,
		Example: `  portcullis --profile alice caller reinstate spiffe://agency.example/capture/anzalduas/lane-3
  portcullis --profile bob caller reinstate spiffe://agency.example/capture/anzalduas/lane-3`,
		Args: exactly(1),
	}
	c.RunE = a.call(func(ctx context.Context, s *session, args []string) error {
		got, err := s.ReinstateCaller(ctx, args[0], func(d *pb.Decision) error {
			if err := a.showDecision(d); err != nil {
				return err
			}
			return a.confirm(ctx, "Sign?")
		})
		if err != nil {
			return err
		}
		return a.show(got, func(t *grid) { t.line("%s: %s", actor(args[0]), howFar(got.Decision)) })
	})
	return c
}

func (a *app) callerList() *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "list the callers that are suspended one by one (also auditors)", Args: exactly(0),
		Example: "  portcullis --profile alice caller list",
	}
	c.RunE = a.call(func(ctx context.Context, s *session, _ []string) error {
		out := &pb.ListSuspendedCallersResponse{}
		err := s.SuspendedCallers(ctx, func(c *pb.SuspendedCaller) error {
			out.SuspendedCallers = append(out.SuspendedCallers, c)
			return nil
		})
		if err != nil {
			return err
		}
		return a.show(out, func(t *grid) {
			t.row("CALLER", "SUSPENDED", "BY")
			for _, c := range out.SuspendedCallers {
				t.row(c.Caller, when(c.SuspendTime), actor(c.SuspendedBy))
			}
		})
	})
	return c
}
