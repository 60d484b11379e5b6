package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

const (
	// waitFirst is the pause after the first look and after each change; each pause is longer
	// than the last by half, up to waitMost.
	waitFirst = 500 * time.Millisecond
	waitMost  = 10 * time.Second
	// waitLook is how long one look may take.
	waitLook = 15 * time.Second
)

// waitFors are the states that can be waited for.
var waitFors = []string{"approved", "active", "ended"}

// waitedInVain is how a wait ends that can no longer come true, and one that took too long.
type waitedInVain struct {
	err      error
	timedOut bool
}

func (e *waitedInVain) Error() string { return e.err.Error() }
func (e *waitedInVain) Unwrap() error { return e.err }

func (a *app) grantWait() *cobra.Command {
	var want string
	var timeout durationFlag
	c := &cobra.Command{
		Use:   "wait GRANT",
		Short: "wait until a grant is decided",
		Long: `Wait looks at a grant again and again until it is approved (or active, or ended), and writes each
change: with --output json one object a line, {"grant":…}, as "grant show" gives it.

Exit codes: 0 it is so, 5 it can not come to that any more, because the grant was denied, revoked
or retired, ended by itself, has expired, or was not approved in time, 6 --timeout was over first. See "portcullis help exit-codes" for others.
While the service is away it goes on, once it has had a first answer.`,
		Example: `  portcullis --profile contractor grant wait 1f0c2a4e-7d53-4b1e-9a3f-0c7a8e6d5b21 --timeout 2h &&
    portcullis --profile contractor grant activate 1f0c2a4e-7d53-4b1e-9a3f-0c7a8e6d5b21`,
		Args: exactly(1),
	}
	c.Flags().StringVar(&want, "for", "approved", "what to wait for: `STATE`, one of approved, active, ended")
	c.Flags().Var(&timeout, "timeout", "give up after this long; without it, wait as long as the grant lives")
	complete(c, "for", waitFors...)
	c.RunE = a.call(func(ctx context.Context, s *session, args []string) error {
		name, id, err := grantName(args[0])
		if err != nil {
			return err
		}
		if want != "approved" && want != "active" && want != "ended" {
			return usagef("--for %q is none of approved, active, ended", want)
		}
		if timeout < 0 {
			return usagef("--timeout must not be negative")
		}
		within := ctx
		if timeout > 0 {
			var cancel context.CancelFunc
			within, cancel = context.WithTimeout(ctx, time.Duration(timeout))
			defer cancel()
		}
		look := func(ctx context.Context) (*pb.Grant, error) {
			ctx, cancel := context.WithTimeout(ctx, waitLook)
			defer cancel()
			got, err := s.Grants.GetGrant(ctx, &pb.GetGrantRequest{Name: name})
			return got.GetGrant(), err
		}
		err = a.waitFor(within, look, want)
		switch {
		case ctx.Err() != nil:
			return ctx.Err() // interrupted, however that showed
		case within.Err() != nil && err != nil:
			return &waitedInVain{timedOut: true, err: &hinted{
				fmt.Errorf("grant %s is not %s after %s", id, want, span(time.Duration(timeout))),
				"\"grant show\" shows how far it is: wait again, or ask the admins",
			}}
		}
		return err
	})
	return c
}

// waitFor looks until the grant is as wanted, or can not become so, or ctx ends.
func (a *app) waitFor(ctx context.Context, look func(context.Context) (*pb.Grant, error), want string) error {
	var last *pb.Grant
	pause := waitFirst
	away := false
	for {
		g, err := look(ctx)
		switch {
		case err == nil:
			away = false
			if last == nil || g.GetState() != last.GetState() || len(g.GetApprovals()) != len(last.GetApprovals()) {
				if err := a.showWaiting(g); err != nil {
					return err
				}
				pause = waitFirst
			}
			last = g
			if done, err := settled(g, want); done {
				return err
			}
		case last == nil || !passing(err) || ctx.Err() != nil:
			return err
		case !away && a.output != jsonOutput:
			away = true
			fmt.Fprintf(a.stderr, "the service does not answer; going on: %s\n", printable(err.Error()))
		}
		sleep := pause/2 + rand.N(pause/2+1)
		if left := last.GetTimeRemaining().AsDuration(); err == nil && last.GetTimeRemaining() != nil {
			sleep = min(sleep, left+50*time.Millisecond) // its end is worth a look of its own
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(sleep):
		}
		pause = min(pause*3/2, waitMost)
	}
}

// passing says of an error that a later look may go better.
func passing(err error) bool {
	switch vault.KindOf(err) {
	case vault.Unavailable, vault.Exhausted:
		return true
	}
	return errors.Is(err, context.DeadlineExceeded)
}

// overReasons are the reasons for which nothing can come of a grant any more, by its state.
var overReasons = map[pb.Grant_State]vault.Reason{
	pb.Grant_STATE_DENIED: vault.ReasonGrantDenied, pb.Grant_STATE_REVOKED: vault.ReasonGrantRevoked,
	pb.Grant_STATE_RETIRED: vault.ReasonGrantRetired, pb.Grant_STATE_EXPIRED: vault.ReasonGrantExpired,
	pb.Grant_STATE_LAPSED: vault.ReasonGrantLapsed, pb.Grant_STATE_SUSPENDED: vault.ReasonGrantSuspended,
}

// settled says whether waiting is over, and with an error if it was in vain.
func settled(g *pb.Grant, want string) (bool, error) {
	switch state := g.GetState(); {
	case want == "ended":
		return over(g), nil
	case state == pb.Grant_STATE_ACTIVE, state == pb.Grant_STATE_APPROVED && want == "approved":
		return true, nil
	case over(g):
		return true, &waitedInVain{err: vault.E(vault.State, overReasons[state], "grant %s is %s; it can not become %s", bare(g.GetName()), word(state, "STATE_"), want)}
	}
	return false, nil
}

func (a *app) showWaiting(g *pb.Grant) error {
	if a.output == jsonOutput {
		b, err := messageJSON(&pb.GetGrantResponse{Grant: g})
		if err != nil {
			return err
		}
		return a.lineJSON(b)
	}
	// Not a table: each line is there at once.
	line := standsWords(g)
	if left := leftWords(g); left != "-" {
		line += "; " + left + " until it ends"
	}
	_, err := fmt.Fprintf(a.stdout, "%s  %s\n", when(g.GetReadTime()), printable(line))
	return err
}
