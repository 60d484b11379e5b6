package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

const (
	// completeTime is how long somebody who pressed a key waits for the service.
	completeTime = 2 * time.Second
	// completeMost is how many grants are looked at: the newest.
	completeMost = 100
)

// ofGrants lets a command's argument be completed with grants in one of the states, or any.
func (a *app) ofGrants(c *cobra.Command, states ...string) *cobra.Command {
	c.ValidArgsFunction = func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.completeGrants(c.Context(), states), cobra.ShellCompDirectiveNoFileComp
	}
	return c
}

// completeGrants asks the service, and names those with a kept token if it does not answer.
func (a *app) completeGrants(ctx context.Context, states []string) (out []string) {
	p, err := a.loadProfile()
	if err != nil {
		return nil
	}
	grants, err := a.newestGrants(ctx, states)
	if err != nil {
		ids, _ := p.tokens().held() // nothing to complete with is no error
		for _, id := range ids {
			out = append(out, id.String()+"\twith a kept token")
		}
		return out
	}
	for _, g := range grants {
		if len(states) > 0 && over(g) {
			continue
		}
		out = append(out, printable(bare(g.Name))+"\t"+printable(word(g.State, "STATE_")+", "+bare(g.Purpose)+", "+grantee(g.Grantee)))
	}
	return out
}

func (a *app) newestGrants(ctx context.Context, states []string) ([]*pb.Grant, error) {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completeTime)
	defer cancel()
	s, err := a.dial()
	if err != nil {
		return nil, err
	}
	defer s.Close()
	req := &pb.ListGrantsRequest{PageSize: completeMost}
	for _, st := range states {
		req.States = append(req.States, pb.Grant_State(pb.Grant_State_value["STATE_"+strings.ToUpper(st)]))
	}
	got, err := s.Grants.ListGrants(ctx, req)
	return got.GetGrants(), err
}

// completePurposes names the purposes of the caller's newest grants. Only admins and auditors
// may list purposes, and a contractor who tried would leave a refusal in the audit log.
func (a *app) completePurposes(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	grants, err := a.newestGrants(c.Context(), nil)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, g := range grants {
		if name := bare(g.Purpose); vault.CheckName("", name) == nil && strings.HasPrefix(g.Purpose, wire.Purposes+"/") {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), cobra.ShellCompDirectiveNoFileComp
}

// ofPurposes lets a command's argument be completed with the names of purposes.
func (a *app) ofPurposes(c *cobra.Command) *cobra.Command {
	c.ValidArgsFunction = func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx := c.Context()
		if ctx == nil {
			ctx = context.Background()
		}
		ctx, cancel := context.WithTimeout(ctx, completeTime)
		defer cancel()
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		s, err := a.dial()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer s.Close()
		got, err := s.Admin.ListPurposes(ctx, &pb.ListPurposesRequest{})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var out []string
		for _, p := range got.Purposes {
			out = append(out, printable(bare(p.Name))+"\t"+printable(p.Title))
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
	return c
}
