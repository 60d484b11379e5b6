package hcvault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/portcullis/portcullis/internal/hcvault/transport"
	"github.com/portcullis/portcullis/vault"
)

// Admin writes fences, ends contractors and works on keys. It can neither encrypt nor decrypt nor mint tokens.
type Admin struct{ session *session }

// Admin uses the credential portcullis-admin.
func (s *Server) Admin(a AppRole) *Admin { return &Admin{&session{srv: s, role: a}} }

// WriteFence lets tokens of the grant decrypt by the keys within the fence and do nothing else. It is durable on return
// and replaces an earlier fence of the grant. After [Admin.CloseFence] it is refused: State GRANT_REVOKED. What is not
// of the form of a prefix or of a key's name is Invalid and does not reach Vault.
func (a *Admin) WriteFence(ctx context.Context, grant vault.ID, f vault.Fence) error {
	policy, err := a.session.srv.fence(f)
	if err != nil {
		return err
	}
	var known struct {
		Data struct {
			Policy string `json:"policy"`
		} `json:"data"`
	}
	err = a.session.do(ctx, http.MethodGet, "sys/policies/acl/"+fenceName(grant), nil, &known)
	if err != nil && transport.Status(err) != http.StatusNotFound {
		return translate("read the fence of grant "+grant.String(), err)
	}
	if known.Data.Policy == closedFence {
		return vault.E(vault.State, vault.ReasonGrantRevoked, "Vault knows grant %s as ended", grant)
	}
	err = a.session.do(ctx, http.MethodPut, "sys/policies/acl/"+fenceName(grant), map[string]string{"policy": policy}, nil)
	return translate("write the fence of grant "+grant.String(), err)
}

// fence writes a grant's policy. In HCL, because Vault 1.21.0 loses values of other types than string from the
// JSON form.
func (s *Server) fence(f vault.Fence) (string, error) {
	if n := f.Paths(); n == 0 || n > vault.MaxPrefixes {
		return "", vault.InvalidField("fence", "has %d prefixes and names; 1 to %d are allowed", n, vault.MaxPrefixes)
	}
	var b strings.Builder
	allow := func(keys string) {
		fmt.Fprintf(&b, "path %q {\n  capabilities = [\"update\"]\n  allowed_parameters = { \"ciphertext\" = [] }\n}\n",
			s.path("decrypt", keys))
	}
	for _, p := range f.Prefixes {
		if err := checkPrefix(p); err != nil {
			return "", err
		}
		allow(p + "*")
	}
	for _, name := range f.Names {
		if err := checkKey(name); err != nil {
			return "", err
		}
		allow(name) // without a star: no key but this one
	}
	return b.String(), nil
}

// closedFence is a policy that allows nothing, and says that its grant has ended.
const closedFence = "# ended\n"

// CloseFence takes the power away from all tokens of the grant, at the next call, and keeps Vault from ever giving it
// again: what the database says later does not revive the grant. Idempotent, and durable on return.
func (a *Admin) CloseFence(ctx context.Context, grant vault.ID) error {
	err := a.session.do(ctx, http.MethodPut, "sys/policies/acl/"+fenceName(grant), map[string]string{"policy": closedFence}, nil)
	return translate("close the fence of grant "+grant.String(), err)
}

// DeleteFence takes all rights from the grant's tokens, from their next call on, also from tokens that nobody
// recorded. Idempotent.
func (a *Admin) DeleteFence(ctx context.Context, grant vault.ID) error {
	err := a.session.do(ctx, http.MethodDelete, "sys/policies/acl/"+fenceName(grant), nil, nil)
	return translate("delete the fence of grant "+grant.String(), err)
}

// DisableContractor ends every token of a contractor's epoch at once, also those of grants that nobody recorded, and
// no other can be minted for it. It is durable on return, and idempotent. An epoch for which nothing was ever minted
// has no entity at Vault, and there is nothing to end.
func (a *Admin) DisableContractor(ctx context.Context, contractor string, epoch int) error {
	name, err := alias(contractor, epoch)
	if err != nil {
		return err
	}
	return translate("disable "+name, a.disable(ctx, name))
}

func (a *Admin) disable(ctx context.Context, name string) error {
	e, err := a.entity(ctx, name)
	if err != nil || e.ID == "" || e.Disabled {
		return err
	}
	if err := a.session.do(ctx, http.MethodPost, entityByID+e.ID, map[string]bool{"disabled": true}, nil); err != nil {
		return err
	}
	now, err := a.entity(ctx, name)
	if err == nil && (now.ID != e.ID || !now.Disabled) {
		err = errors.New("the entity is still enabled, or another one")
	}
	return err
}

type entity struct {
	ID       string `json:"id"`
	Disabled bool   `json:"disabled"`
}

// entity looks one up by its alias at the token mount. Its ID is empty if there is none.
func (a *Admin) entity(ctx context.Context, name string) (entity, error) {
	// The mount's accessor is asked for each time and not kept: with that of another Vault, one that was restored
	// for example, every entity would seem absent, and its contractor ended.
	var mount struct {
		Data struct {
			Accessor string `json:"accessor"`
		} `json:"data"`
	}
	if err := a.session.do(ctx, http.MethodGet, tokenMount, nil, &mount); err != nil {
		return entity{}, err
	}
	if mount.Data.Accessor == "" {
		return entity{}, errors.New("the token mount has no accessor")
	}
	var found struct {
		Data entity `json:"data"`
	}
	in := map[string]string{"alias_name": name, "alias_mount_accessor": mount.Data.Accessor}
	err := a.session.do(ctx, http.MethodPost, lookup, in, &found)
	return found.Data, err
}

// Keys gives the names of all keys in the mount, in no order that means anything. 200,000 take about 14 MB and
// 190 ms (two shared cores). Meant for reconciling.
func (a *Admin) Keys(ctx context.Context) ([]string, error) {
	var got struct {
		Data struct {
			Keys []string `json:"keys"`
		} `json:"data"`
	}
	err := a.session.do(ctx, "LIST", a.session.srv.path("keys"), nil, &got)
	var answer *transport.Error
	if errors.As(err, &answer) && answer.Absent() {
		return nil, nil
	}
	return got.Data.Keys, translate("list keys", err)
}
