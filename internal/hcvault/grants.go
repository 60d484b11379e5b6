package hcvault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/portcullis/portcullis/internal/hcvault/transport"
	"github.com/portcullis/portcullis/vault"
)

// Grants mints and ends grant tokens. It can write no policy, so it opens at most what approved grants allow.
type Grants struct{ session *session }

// Grants uses the credential portcullis-grants.
func (s *Server) Grants(a AppRole) *Grants { return &Grants{&session{srv: s, role: a}} }

type minted struct {
	Auth struct {
		ClientToken   string   `json:"client_token"`
		Accessor      string   `json:"accessor"`
		Policies      []string `json:"policies"`
		LeaseDuration int64    `json:"lease_duration"` // seconds
		Renewable     bool     `json:"renewable"`
		Orphan        bool     `json:"orphan"`
		EntityID      string   `json:"entity_id"`
		NumUses       int64    `json:"num_uses"` // 0: not counted
	} `json:"auth"`
}

// Mint makes a token of the grant that ends by itself after ttl, cut to whole seconds, and belongs to the
// contractor's epoch. It gives the secret and the accessor, by which the token can be ended. After an error a token
// may exist that nobody knows; deleting the grant's fence makes it worthless.
//
// With uses above 0 Vault ends the token by that many calls. It counts each that shows the token, also one that it
// refuses (403) or can not do (400), but for those from an address that the token is not bound to. With 0 it does not
// count, so who has none left must not come here: less than 0 is Invalid.
//
// Errors: Denied CONTRACTOR_SUSPENDED when Vault has the contractor's epoch disabled, Unavailable.
func (g *Grants) Mint(ctx context.Context, grant vault.ID, contractor string, epoch int, ttl time.Duration, uses int64) (vault.Token, string, error) {
	name, err := alias(contractor, epoch)
	if err != nil {
		return vault.Token{}, "", err
	}
	if ttl < time.Second || ttl > vault.MaxTTL {
		return vault.Token{}, "", vault.InvalidField("ttl", "must be from 1s to %s", vault.MaxTTL)
	}
	if uses < 0 {
		return vault.Token{}, "", vault.InvalidField("uses", "must not be negative")
	}
	life := fmt.Sprintf("%ds", int64(ttl/time.Second))
	in := map[string]any{
		"policies":          []string{fenceName(grant)},
		"ttl":               life,
		"explicit_max_ttl":  life,
		"entity_alias":      name,
		"renewable":         false,
		"no_default_policy": true,
	}
	if uses > 0 {
		in["num_uses"] = uses
	}
	what := "mint a token of grant " + grant.String()
	var got minted
	err = g.session.do(ctx, http.MethodPost, "auth/token/create/"+TokenRole, in, &got)
	var refused *transport.Error
	if errors.As(err, &refused) && refused.Status == http.StatusForbidden && refused.Says("entity alias is disabled") {
		return vault.Token{}, "", vault.E(vault.Denied, vault.ReasonContractorSuspended, "contractor %s is disabled at Vault", contractor).
			Because(fmt.Errorf("%s: %w", what, err))
	}
	if err != nil {
		return vault.Token{}, "", translate(what, err)
	}
	if err := got.check(fenceName(grant), ttl, uses); err != nil {
		// A Vault that was set up in another way must not give out more than was asked for.
		if got.Auth.Accessor != "" {
			err = errors.Join(err, g.RevokeToken(context.WithoutCancel(ctx), got.Auth.Accessor))
		}
		return vault.Token{}, "", vault.E(vault.Internal, vault.ReasonInternal, "Vault made another token than was asked for").
			Because(fmt.Errorf("%s: %w", what, err))
	}
	return vault.TokenOf(got.Auth.ClientToken), got.Auth.Accessor, nil
}

func (m minted) check(policy string, ttl time.Duration, uses int64) error {
	a := m.Auth
	switch {
	case !tokenForm(a.ClientToken) || a.Accessor == "":
		return errors.New("no token or no accessor")
	case !slices.Equal(a.Policies, []string{policy}):
		return fmt.Errorf("policies %q", a.Policies)
	case a.LeaseDuration < 1 || a.LeaseDuration > int64(ttl/time.Second):
		return fmt.Errorf("life of %d s", a.LeaseDuration)
	case a.Renewable || !a.Orphan:
		return errors.New("renewable, or with a parent")
	case a.NumUses != uses:
		return fmt.Errorf("%d uses, not %d", a.NumUses, uses)
	case a.EntityID == "":
		return errors.New("no entity: suspending the contractor would not end it")
	}
	return nil
}

// RevokeToken ends a token; when it returns nil no call by the token succeeds any more. Idempotent: a token that has
// ended, and one that never was, is a success.
func (g *Grants) RevokeToken(ctx context.Context, accessor string) error {
	if accessor == "" {
		return vault.InvalidField("accessor", "must not be empty")
	}
	err := g.session.do(ctx, http.MethodPost, "auth/token/revoke-accessor", map[string]string{"accessor": accessor}, nil)
	var refused *transport.Error
	if errors.As(err, &refused) && refused.Status == http.StatusBadRequest && refused.Says("token not found") {
		return nil // somebody else ends it at this moment
	}
	return translate("revoke a grant token", err)
}

// While a token ends, Vault answers for some milliseconds as if the question were forbidden.
const (
	askAgain      = 4
	askAgainAfter = 20 * time.Millisecond
)

// Uses says how many uses a token has left of those that it was minted with. A token that has ended, by its last use
// or otherwise, and one that never was have none: 0, nil. A token whose uses Vault does not count is an error of kind
// Internal. Asking is no use.
func (g *Grants) Uses(ctx context.Context, accessor string) (left int64, err error) {
	if accessor == "" {
		return 0, vault.InvalidField("accessor", "must not be empty")
	}
	const what = "look up the uses of a grant token"
	var got struct {
		Data struct {
			NumUses int64 `json:"num_uses"`
		} `json:"data"`
	}
	for n := 1; ; n++ {
		err = g.session.do(ctx, http.MethodPost, "auth/token/lookup-accessor", map[string]string{"accessor": accessor}, &got)
		if transport.Status(err) != http.StatusForbidden || n == askAgain {
			break
		}
		select {
		case <-time.After(askAgainAfter):
		case <-ctx.Done():
			return 0, translate(what, ctx.Err())
		}
	}
	var refused *transport.Error
	if errors.As(err, &refused) && refused.Status == http.StatusBadRequest && refused.Says("invalid accessor") {
		return 0, nil
	}
	if err != nil {
		return 0, translate(what, err)
	}
	switch n := got.Data.NumUses; {
	case n > 0:
		return n, nil
	case n < 0: // Vault's mark of a token that had its last use and is being ended
		return 0, nil
	}
	return 0, vault.E(vault.Internal, vault.ReasonInternal, "Vault does not count the uses of this grant's token")
}
