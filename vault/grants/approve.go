package grants

import (
	"context"
	"errors"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// Approve adds an admin's signature over the terms. The last one needed approves the grant,
// and Vault's fence is written; when Vault is away, that follows.
func (s *Service) Approve(ctx context.Context, c vault.Caller, id vault.ID, sig vault.Signature) (g vault.Grant, err error) {
	var refused error
	_, err = s.Ledger.Update(ctx, func(tx Tx) error {
		if g, refused = s.approval(tx, c, id, sig); refused != nil {
			return refuse(tx, c, vault.Grant{Terms: vault.Terms{Grant: id}}, refused)
		}
		if err := tx.AddSignature(id, sig); err != nil {
			return err
		}
		e := event(tx, vault.EventGrantSigned, c, g)
		e.Signature = sig.Facts()
		if err := tx.Append(e); err != nil {
			return err
		}
		g.Signatures = append(g.Signatures, sig)
		if len(g.Signatures) < g.Approvals {
			return nil
		}
		if err := s.prove(tx, g); err != nil {
			return err
		}
		g.State = vault.GrantApproved
		return errors.Join(
			tx.SetGrantState(id, g.State), tx.SetFenceState(id, vault.FenceDue),
			tx.Append(event(tx, vault.EventGrantApproved, c, g)))
	})
	if err := errors.Join(err, refused); err != nil {
		return g, err
	}
	if g.State == vault.GrantApproved && s.Fences != nil {
		if err := s.fence(ctx, id); err != nil {
			s.Log.WarnContext(ctx, "vault's fence of an approved grant is still to be written", "grant", id, "error", err)
		}
	}
	return g, nil
}

// approval says whether the admin may sign the grant now, and did.
func (s *Service) approval(tx Tx, c vault.Caller, id vault.ID, sig vault.Signature) (vault.Grant, error) {
	if err := tx.Standing(c); err != nil {
		return vault.Grant{}, err
	}
	g, err := tx.Grant(id)
	if err != nil {
		return g, err
	}
	now := tx.Now()
	if err := undecided(g, now); err != nil {
		return g, err
	}
	p, err := s.lawful(tx, g)
	if err != nil {
		return g, err
	}
	if err := p.AllowsApprover(c); err != nil {
		return g, err
	}
	if err := s.apart(tx, p, g, anyLive); err != nil {
		return g, err
	}
	if err := s.Authority().Fresh(g.Decision(), sig, c, now); err != nil {
		return g, err
	}
	if g.Signatures, err = counted(tx, g.Signatures); err != nil {
		return g, err
	}
	return g, s.Authority().Decided(g.Decision(), append(g.Signatures[:len(g.Signatures):len(g.Signatures)], sig), 1, g.Grantee)
}

// undecided refuses what can not be approved any more, whoever asks.
func undecided(g vault.Grant, now time.Time) error {
	switch {
	case g.Lapsed(now):
		return vault.E(vault.State, vault.ReasonGrantLapsed, "grant %s was not approved within %s; request anew", g.Grant, vault.PendingTTL)
	case g.State != vault.GrantPending:
		return vault.E(vault.State, vault.ReasonGrantDecided, "grant %s is %s; it takes no approvals", g.Grant, g.State)
	case g.Ended(now):
		return vault.E(vault.State, vault.ReasonGrantExpired, "grant %s ended at %s", g.Grant, vault.FormatTime(g.Ends))
	}
	return nil
}

// lawful checks again what was checked at the request: since then the contractor may have
// been suspended, or the purpose changed. It gives the purpose as it is now, proved.
func (s *Service) lawful(tx Tx, g vault.Grant) (vault.Purpose, error) {
	p, against, err := s.unlawful(tx, g)
	if err == nil && len(against) > 0 {
		err = against[0]
	}
	return p, err
}

// unlawful gives all that speaks against the grant by law; err is what is no verdict.
func (s *Service) unlawful(tx Tx, g vault.Grant) (p vault.Purpose, against []error, err error) {
	org, err := s.contractor(tx, g.Contractor)
	switch {
	case err != nil && !decides(err):
		return p, nil, err
	case err != nil:
		against = append(against, err)
	case org.Suspended || org.Epoch != g.Epoch:
		against = append(against, vault.E(vault.Denied, vault.ReasonContractorSuspended, "contractor %s was suspended; its earlier grants do not revive", g.Contractor))
	}
	gone, err := suspended(tx, g.Grantee)
	if err != nil {
		return p, nil, err
	}
	if gone {
		against = append(against, vault.E(vault.Denied, vault.ReasonCallerSuspended, "%s, who asked for the grant, is suspended", g.Grantee))
	}
	if p, err = s.purpose(tx, g.Purpose.Name); err != nil {
		if !decides(err) {
			return p, nil, err
		}
		return p, append(against, err), nil
	}
	return p, append(against, p.Refusals(g.Contractor, g.Terms, g.RequestedAt)...), nil
}

// Deny refuses a pending request for good.
func (s *Service) Deny(ctx context.Context, c vault.Caller, id vault.ID, note string) (g vault.Grant, err error) {
	if err := vault.CheckText("note", note, MaxJustification, true); err != nil {
		return g, err
	}
	_, err = s.Ledger.Update(ctx, func(tx Tx) (err error) {
		if err := tx.Standing(c); err != nil {
			return err
		}
		if g, err = tx.Grant(id); err != nil {
			return err
		}
		if g.State != vault.GrantPending {
			return vault.E(vault.State, vault.ReasonGrantDecided, "grant %s is %s; only a pending one can be denied", id, g.State)
		}
		if g.Lapsed(tx.Now()) {
			return undecided(g, tx.Now())
		}
		g.State = vault.GrantDenied
		e := event(tx, vault.EventGrantDenied, c, g)
		e.Note = noteDigest(note)
		return errors.Join(tx.SetGrantState(id, g.State), tx.Append(e))
	})
	return g, err
}
