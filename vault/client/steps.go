package client

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

// Approve signs the terms of a grant with the caller's certificate key and sends the
// signature. confirm is shown the grant, its purpose and what it would open, and the exact text
// that is signed; its error ends the step before anything is signed. A purpose that is shown to
// an admin is the version that the text names by its digest.
func (c *Client) Approve(ctx context.Context, grant string, confirm func(shown *pb.GetGrantResponse, text string) error) (*pb.Grant, error) {
	got, err := c.Grants.GetGrant(ctx, &pb.GetGrantRequest{Name: grant})
	if err != nil {
		return nil, err
	}
	// The text is made from what was shown, here, not taken from the service.
	terms, err := wire.ParseTerms(got.Grant)
	if err != nil {
		return nil, err
	}
	if wire.Name(wire.Grants, terms.Grant) != grant {
		return nil, wrong("the terms of grant %s where %s was asked for", terms.Grant, grant)
	}
	if got.PurposeTerms != nil && got.Preview != nil { // to others than admins a part is shown
		p, err := wire.ParsePurpose(got.PurposeTerms)
		if err != nil {
			return nil, err
		}
		if p.Digest() != terms.Purpose.Digest {
			return nil, wrong("another version of purpose %s than the terms of grant %s name", p.Name, terms.Grant)
		}
	}
	if err := confirm(got, terms.Decision().Text()); err != nil {
		return nil, err
	}
	sig, err := c.sign(terms.Decision())
	if err != nil {
		return nil, err
	}
	done, err := c.Grants.ApproveGrant(ctx, &pb.ApproveGrantRequest{Name: grant, Signature: wire.Signature(sig)})
	return done.GetGrant(), err
}

func (c *Client) sign(d vault.Decision) (vault.Signature, error) {
	pair, err := tls.LoadX509KeyPair(c.cfg.Certificate, c.cfg.Key)
	if err != nil {
		return vault.Signature{}, err
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return vault.Signature{}, errors.New("the profile's key can not sign")
	}
	return vault.Sign(d, key, pair.Certificate, time.Now())
}

// ApplyPurpose signs that a purpose is sanctioned as given. It takes effect when a second admin
// does the same, or at once if it only tightens the version in force; the answer says how far it
// is. Where p says what it replaces, the service must agree: what was compared with that version
// is not put in the place of another.
func (c *Client) ApplyPurpose(ctx context.Context, p vault.Purpose) (*pb.SignDecisionResponse, error) {
	p = p.Normal()
	p.Withdrawn = false
	return c.decide(ctx, &pb.ProposeDecisionRequest{Action: &pb.ProposeDecisionRequest_ApplyPurpose{ApplyPurpose: wire.Purpose(p)}},
		vault.ApplyPurpose, func(body string) bool { return isVersion(body, p) })
}

// WithdrawPurpose signs that a purpose, as the version given has it, be withdrawn: nothing is
// granted for it any more, and its grants end before the answer. One admin is enough.
func (c *Client) WithdrawPurpose(ctx context.Context, p vault.Purpose) (*pb.SignDecisionResponse, error) {
	p = p.Normal()
	p.Replaces, p.Withdrawn = p.Digest(), true
	return c.decide(ctx, &pb.ProposeDecisionRequest{Action: &pb.ProposeDecisionRequest_WithdrawPurpose{WithdrawPurpose: wire.Purposes + "/" + p.Name}},
		vault.ApplyPurpose, func(body string) bool { return isVersion(body, p) })
}

// isVersion says whether a body is p in some version, and of the one that p replaces if it says so.
func isVersion(body string, p vault.Purpose) bool {
	if _, err := fmt.Sscanf(field(body, "version"), "%d", &p.Version); err != nil {
		return false
	}
	if before := field(body, "replaces"); p.Replaces == (vault.Digest{}) && before != "none" {
		var err error
		if p.Replaces, err = wire.ParseDigest("replaces", before); err != nil {
			return false
		}
	}
	return body == p.Text()
}

// ApplyContractor signs that a contractor is admitted. It takes effect when a second admin
// does the same. A suspended contractor comes back in a new epoch.
func (c *Client) ApplyContractor(ctx context.Context, org vault.Contractor) (*pb.SignDecisionResponse, error) {
	return c.decide(ctx, &pb.ProposeDecisionRequest{Action: &pb.ProposeDecisionRequest_ApplyContractor{ApplyContractor: wire.Contractor(org)}},
		vault.ApplyContractor, func(body string) bool {
			_, err := fmt.Sscanf(field(body, "epoch"), "%d", &org.Epoch)
			return err == nil && body == org.Text()
		})
}

// RestoreKeys signs that the revoked keys of a selection be usable again, which takes two admins.
func (c *Client) RestoreKeys(ctx context.Context, sel vault.Selection, confirm func(d *pb.Decision) error) (*pb.SignDecisionResponse, error) {
	return c.decideKeys(ctx, &pb.ProposeDecisionRequest{Action: &pb.ProposeDecisionRequest_RestoreKeys{RestoreKeys: wire.Selection(sel)}},
		vault.RestoreKeys, sel, confirm)
}

// DestroyKeys signs that the keys of a selection be destroyed, for good, which takes two
// admins. confirm is shown what is to be signed.
func (c *Client) DestroyKeys(ctx context.Context, sel vault.Selection, confirm func(d *pb.Decision) error) (*pb.SignDecisionResponse, error) {
	return c.decideKeys(ctx, &pb.ProposeDecisionRequest{Action: &pb.ProposeDecisionRequest_DestroyKeys{DestroyKeys: wire.Selection(sel)}},
		vault.DestroyKeys, sel, confirm)
}

func (c *Client) decideKeys(ctx context.Context, req *pb.ProposeDecisionRequest, k vault.DecisionKind, sel vault.Selection, confirm func(d *pb.Decision) error) (*pb.SignDecisionResponse, error) {
	return c.decideConfirmed(ctx, req, k, func(body string) bool { return strings.HasPrefix(body, sel.Text()+"records: ") }, confirm)
}

func (c *Client) decide(ctx context.Context, req *pb.ProposeDecisionRequest, k vault.DecisionKind, meant func(body string) bool) (*pb.SignDecisionResponse, error) {
	return c.decideConfirmed(ctx, req, k, meant, func(*pb.Decision) error { return nil })
}

// decideConfirmed proposes and signs. What is signed must be what was meant: a service that
// puts something else before the signer is refused.
func (c *Client) decideConfirmed(ctx context.Context, req *pb.ProposeDecisionRequest, k vault.DecisionKind, meant func(body string) bool, confirm func(d *pb.Decision) error) (*pb.SignDecisionResponse, error) {
	proposed, err := c.Admin.ProposeDecision(ctx, req)
	if err != nil {
		return nil, err
	}
	d, err := wire.ParseDecision(proposed.Decision)
	if err != nil {
		return nil, err
	}
	if d.Kind != k || !meant(d.Body) {
		return nil, fmt.Errorf("the service asks for a signature on something else: %s", d.Text())
	}
	if err := confirm(proposed.Decision); err != nil {
		return nil, err
	}
	sig, err := c.sign(d)
	if err != nil {
		return nil, err
	}
	for _, s := range proposed.Decision.Signatures {
		if s.Signer == sig.Signer {
			return &pb.SignDecisionResponse{Decision: proposed.Decision}, nil // signed before; another admin must
		}
	}
	return c.Admin.SignDecision(ctx, &pb.SignDecisionRequest{Name: proposed.Decision.Name, Signature: wire.Signature(sig)})
}

// field gives the value of a canonical line.
func field(body, key string) string {
	for line := range strings.Lines(body) {
		if v, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), key+": "); ok {
			return v
		}
	}
	return ""
}

// Events gives each event of the log from an index on, of the types given if any are, and
// returns the index at which a later call goes on.
func (c *Client) Events(ctx context.Context, from int64, types []string, each func(*pb.AuditEvent) error) (next int64, err error) {
	for {
		got, err := c.Audit.ListEvents(ctx, &pb.ListEventsRequest{StartIndex: from, PageSize: 1000, Types: types})
		if err != nil {
			return from, err
		}
		for _, e := range got.Events {
			if err := each(e); err != nil {
				return from, err
			}
		}
		from = got.NextIndex
		if !got.More {
			return from, nil
		}
	}
}
