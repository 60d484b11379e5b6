package hcvault

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/portcullis/portcullis/internal/hcvault/transport"
	"github.com/portcullis/portcullis/vault"
)

const (
	// markPolicy holds the mark, in a comment. It begins as fences do, so that no power is
	// needed beside that of writing fences. It allows nothing.
	markPolicy = FencePrefix + "mark"
	markBegins = "# mark "
	// tokenLeases is where Vault keeps the leases of tokens that were made by TokenRole.
	tokenLeases = "sys/leases/revoke-prefix/auth/token/create/" + TokenRole
)

// ReadMark gives the mark that WriteMark last wrote, as far as this Vault knows: the zero Mark if
// there is none.
func (a *Admin) ReadMark(ctx context.Context) (vault.Mark, error) {
	var got struct {
		Data struct {
			Policy string `json:"policy"`
		} `json:"data"`
	}
	err := a.session.do(ctx, http.MethodGet, "sys/policies/acl/"+markPolicy, nil, &got)
	var answer *transport.Error
	if errors.As(err, &answer) && answer.Absent() {
		return vault.Mark{}, nil
	}
	if err != nil {
		return vault.Mark{}, translate("read the mark", err)
	}
	text, ok := strings.CutPrefix(strings.TrimSuffix(got.Data.Policy, "\n"), markBegins)
	m, err := vault.ParseMark(text)
	if err == nil && (!ok || m == vault.Mark{}) {
		err = errors.New("the policy " + markPolicy + " holds no mark")
	}
	if err != nil {
		return vault.Mark{}, translate("read the mark", err)
	}
	return m, nil
}

// WriteMark replaces the mark. It is durable on return.
func (a *Admin) WriteMark(ctx context.Context, m vault.Mark) error {
	err := a.session.do(ctx, http.MethodPut, "sys/policies/acl/"+markPolicy, map[string]string{"policy": markBegins + m.String() + "\n"}, nil)
	return translate("write the mark", err)
}

// EndTokens ends every grant token that was minted till now. When it returns nil none of them
// opens anything.
func (a *Admin) EndTokens(ctx context.Context) error {
	// Without sync Vault answers first and ends them some time later.
	err := a.session.do(ctx, http.MethodPut, tokenLeases, map[string]bool{"sync": true}, nil)
	return translate("end all grant tokens", err)
}

// Fences gives the grants of which Vault has a policy, in no order that means anything.
func (a *Admin) Fences(ctx context.Context) (out []vault.ID, err error) {
	var got struct {
		Data struct {
			Keys []string `json:"keys"`
		} `json:"data"`
	}
	if err := a.session.do(ctx, "LIST", "sys/policies/acl", nil, &got); err != nil {
		return nil, translate("list fences", err)
	}
	for _, name := range got.Data.Keys {
		if rest, ok := strings.CutPrefix(name, FencePrefix); ok {
			if id, err := vault.ParseID("grant", rest); err == nil {
				out = append(out, id)
			}
		}
	}
	return out, nil
}
