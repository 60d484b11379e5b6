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
	// markPolicy holds a mark, in a comment, and markPolicy2 another. They begin as fences do, so
	// that no power is needed beside that of writing fences. They allow nothing.
	markPolicy  = FencePrefix + "mark"
	markPolicy2 = FencePrefix + "mark-2"
	markBegins  = "# mark "
	// tokenLeases is where Vault keeps the leases of tokens that were made by TokenRole.
	tokenLeases = "sys/leases/revoke-prefix/auth/token/create/" + TokenRole
)

// ReadMarks gives the two marks that WriteMark wrote last, as far as this Vault knows, the newer
// one first: the zero Mark where there is none, and [vault.Unreadable] for a text that is no mark,
// which counts as the newest.
func (a *Admin) ReadMarks(ctx context.Context) (newest, before vault.Mark, err error) {
	one, err := a.readMark(ctx, markPolicy)
	if err != nil {
		return vault.Mark{}, vault.Mark{}, err
	}
	two, err := a.readMark(ctx, markPolicy2)
	if err != nil {
		return vault.Mark{}, vault.Mark{}, err
	}
	if two == vault.Unreadable || (one != vault.Unreadable && two.Number > one.Number) {
		return two, one, nil
	}
	return one, two, nil
}

func (a *Admin) readMark(ctx context.Context, policy string) (vault.Mark, error) {
	var got struct {
		Data struct {
			Policy string `json:"policy"`
		} `json:"data"`
	}
	err := a.session.do(ctx, http.MethodGet, "sys/policies/acl/"+policy, nil, &got)
	var answer *transport.Error
	if errors.As(err, &answer) && answer.Absent() {
		return vault.Mark{}, nil
	}
	if err != nil {
		return vault.Mark{}, translate("read the mark", err)
	}
	text, ok := strings.CutPrefix(strings.TrimSuffix(got.Data.Policy, "\n"), markBegins)
	m, err := vault.ParseMark(text)
	if err != nil || !ok || m == (vault.Mark{}) {
		return vault.Unreadable, nil
	}
	return m, nil
}

// WriteMark writes a mark over the older of the two, or over one that is unreadable. It is durable
// on return.
func (a *Admin) WriteMark(ctx context.Context, m vault.Mark) error {
	one, err := a.readMark(ctx, markPolicy)
	if err != nil {
		return err
	}
	two, err := a.readMark(ctx, markPolicy2)
	if err != nil {
		return err
	}
	policy := markPolicy
	if two.Number < one.Number {
		policy = markPolicy2
	}
	err = a.session.do(ctx, http.MethodPut, "sys/policies/acl/"+policy, map[string]string{"policy": markBegins + m.String() + "\n"}, nil)
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
