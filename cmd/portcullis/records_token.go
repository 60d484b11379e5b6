package main

import (
	"context"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

// tokenOf gives the kept token of a grant. Where none is kept, the service knows why better than
// this machine does.
func (a *app) tokenOf(ctx context.Context, s *session, id vault.ID) (vault.Token, error) {
	token, err := s.tokens().load(id)
	if vault.ReasonOf(err) != vault.ReasonGrantNotActive {
		return token, err
	}
	if why := untokened(ctx, s, id); why != nil {
		return token, why
	}
	return token, err
}

// untokened says why the caller has no token of a grant; nil when activating it would help, or
// nothing is known.
func untokened(ctx context.Context, s *session, id vault.ID) error {
	me, err := s.Identity.WhoAmI(ctx, &pb.WhoAmIRequest{})
	if err != nil {
		return verdict(err)
	}
	if me.GetRole() != string(vault.RoleContractor) {
		return vault.E(vault.Denied, vault.ReasonRoleNotAllowed, "only contractors open images; this is a profile of role %s", me.GetRole())
	}
	got, err := s.Grants.GetGrant(ctx, &pb.GetGrantRequest{Name: wire.Name(wire.Grants, id)})
	if err != nil {
		return verdict(err)
	}
	switch g := got.GetGrant(); {
	case g.GetGrantee() != me.GetId():
		return vault.E(vault.NotFound, vault.ReasonGrantUnknown, "grant %s is another workload's, %s", id, grantee(g.GetGrantee()))
	case over(g):
		return vault.E(vault.State, overReasons[g.GetState()], "grant %s is %s", id, standsWords(g))
	case g.GetState() == pb.Grant_STATE_PENDING:
		return vault.E(vault.State, vault.ReasonGrantPending, "grant %s is %s", id, standsWords(g))
	}
	return nil
}

// verdict passes on what the service has against the caller or its question, and no other failure.
func verdict(err error) error {
	switch vault.KindOf(err) {
	case vault.Denied, vault.NotFound, vault.State:
		return err
	}
	return nil
}
