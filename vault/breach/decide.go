package breach

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/portcullis/portcullis/vault"
)

// Action is what a decision is to do: exactly one of its fields is set.
type Action struct {
	Purpose    *vault.Purpose
	Withdraw   string // name of a purpose
	Contractor *vault.Contractor
	Reinstate  string // SPIFFE ID of a suspended caller
	Restore    *vault.Selection
	Destroy    *vault.Selection
}

// Propose opens a decision. Proposing what is open already gives the open one, so that two
// admins can run the same command, one after the other.
func (s *Service) Propose(ctx context.Context, c vault.Caller, a Action) (out vault.Proposal, err error) {
	_, err = s.Ledger.Update(ctx, func(tx Tx) error {
		if err := tx.Standing(c); err != nil {
			return err
		}
		draft, err := s.draft(tx, a)
		if err != nil {
			return err
		}
		out, err = tx.OpenDecision(draft.Kind, draft.Body)
		if err == nil {
			out.Need, err = s.need(tx, out)
		}
		if vault.KindOf(err) != vault.NotFound {
			return err
		}
		out = draft
		out.ID, out.Expires = vault.NewID(), tx.Now().Add(vault.DecisionTTL)
		if out.Need, err = s.need(tx, out); err != nil {
			return err
		}
		if err := tx.AddDecision(out); err != nil {
			return err
		}
		e := vault.NewEvent(vault.EventDecisionProposed, c, tx.Now())
		e.Decision = out.Facts()
		return tx.Append(e)
	})
	return out, err
}

// draft gives kind, body and payload of the decision that an action needs.
func (s *Service) draft(tx Tx, a Action) (d vault.Proposal, err error) {
	switch {
	case a.Purpose != nil:
		p := a.Purpose.Normal()
		p.Withdrawn = false // that is an action of its own
		return s.draftPurpose(tx, p)
	case a.Withdraw != "":
		return s.draftWithdrawal(tx, a.Withdraw)
	case a.Contractor != nil:
		return s.draftContractor(tx, *a.Contractor)
	case a.Reinstate != "":
		return s.draftCaller(tx, a.Reinstate)
	case a.Restore != nil:
		return s.draftKeys(tx, vault.RestoreKeys, *a.Restore, vault.KeyRevoking, vault.KeyRevoked)
	case a.Destroy != nil:
		return s.draftKeys(tx, vault.DestroyKeys, *a.Destroy,
			vault.KeyActive, vault.KeyRevoking, vault.KeyRevoked, vault.KeyRestoring)
	default:
		return d, vault.InvalidField("action", "must be one of apply_purpose, withdraw_purpose, apply_contractor, restore_keys, destroy_keys and reinstate_caller")
	}
}

// draftContractor admits a contractor; a suspended one comes back in a new epoch.
func (s *Service) draftContractor(tx Tx, c vault.Contractor) (d vault.Proposal, err error) {
	if err := c.Check(); err != nil {
		return d, err
	}
	known, err := tx.Contractor(c.Name)
	c = c.Normal()
	c.Suspended, c.Epoch = false, 1
	switch {
	case vault.KindOf(err) == vault.NotFound:
	case err != nil:
		return d, err
	case known.Suspended:
		done, err := tx.Disabled(c.Name)
		if err != nil {
			return d, err
		}
		if !done {
			return d, vault.E(vault.State, vault.ReasonVaultUnavailable, "Vault has still to disable epoch %d of %s; try again once it has", known.Epoch, c.Name)
		}
		c.Epoch = known.Epoch + 1
	default:
		c.Epoch = known.Epoch
		decision, signed, err := tx.ContractorDecision(c.Name)
		if err != nil && vault.KindOf(err) != vault.NotFound {
			return d, err
		}
		// What nobody signed so, or in words of an earlier version of this program, is to be signed.
		if c.Text() == known.Text() && s.Authority().Admitted(known, decision, signed) == nil {
			return d, vault.E(vault.Exists, vault.ReasonUnchanged, "contractor %s is admitted as it stands here", c.Name)
		}
	}
	d.Kind, d.Body = vault.ApplyContractor, c.Text()
	d.Payload, err = json.Marshal(c)
	return d, err
}

func (s *Service) draftKeys(tx Tx, k vault.DecisionKind, sel vault.Selection, states ...vault.KeyState) (d vault.Proposal, err error) {
	ids, err := choose(tx, sel, states...)
	if err != nil {
		return d, err
	}
	d.Kind, d.Body = k, keysBody(sel, ids)
	d.Payload, err = json.Marshal(ids)
	return d, err
}

// choose gives the records of a selection: at least one, not more than MaxSelection.
func choose(tx Tx, sel vault.Selection, states ...vault.KeyState) ([]vault.ID, error) {
	if err := sel.Check(); err != nil {
		return nil, err
	}
	ids, err := tx.Select(sel, vault.MaxSelection+1, states...)
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		return nil, vault.E(vault.NotFound, vault.ReasonSelectionEmpty, "no record of this selection has a key in state %s", oneOf(states))
	}
	if len(ids) > vault.MaxSelection {
		return nil, vault.E(vault.State, vault.ReasonSelectionTooLarge, "the selection has more than %d records; narrow it", vault.MaxSelection)
	}
	return ids, nil
}

func oneOf(states []vault.KeyState) string {
	var names []string
	for _, s := range states {
		names = append(names, string(s))
	}
	return strings.Join(names, " or ")
}

// keysBody is what admins sign: how the records were chosen, how many they are, and the
// hash of their list.
func keysBody(sel vault.Selection, ids []vault.ID) string {
	return sel.Text() + keysLines(ids)
}

// Outcome is what came of a decision that was carried out.
type Outcome struct {
	Keys  *KeyWork     // of one that changed keys
	Ended *EndedGrants // of one that withdrew a purpose
}

// Sign adds an admin's signature to a decision. With the last one needed the decision is
// carried out. How many are needed follows from what it changes at that moment, not from what
// its row says.
func (s *Service) Sign(ctx context.Context, c vault.Caller, id vault.ID, sig vault.Signature) (d vault.Proposal, out Outcome, err error) {
	var ids []vault.ID
	index, err := s.Ledger.Update(ctx, func(tx Tx) (err error) {
		ids, d = nil, vault.Proposal{}
		if err := tx.Standing(c); err != nil {
			return err
		}
		if d, err = tx.Decision(id); err != nil {
			return err
		}
		if d.Effective {
			return vault.E(vault.State, vault.ReasonDecisionUnknown, "decision %s is in force already", id)
		}
		if err := s.Authority().Fresh(d.Decision, sig, c, tx.Now()); err != nil {
			return err
		}
		before, err := counted(tx, d.Signatures)
		if err != nil {
			return err
		}
		all := append(before, sig)
		if err := s.Authority().Decided(d.Decision, all, 1); err != nil {
			return err
		}
		if err := tx.AddSignature(id, sig); err != nil {
			return err
		}
		e := vault.NewEvent(vault.EventDecisionSigned, c, tx.Now())
		e.Decision, e.Signature = d.Facts(), sig.Facts()
		if err := tx.Append(e); err != nil {
			return err
		}
		if d.Need, err = s.need(tx, d); err != nil {
			return err
		}
		if d.Signatures = all; len(all) < d.Need {
			return nil
		}
		d.Effective = true
		if ids, err = s.effect(tx, c, d); err != nil {
			return err
		}
		return tx.SetEffective(id)
	})
	if err != nil {
		return d, out, errors.Join(err, s.refused(context.WithoutCancel(ctx), c, d, err))
	}
	if !d.Effective {
		return d, out, nil
	}
	// It is durable: from here on nothing may hinder it, not even the caller leaving.
	ctx = context.WithoutCancel(ctx)
	switch {
	case d.Kind == vault.RestoreKeys || d.Kind == vault.DestroyKeys:
		out.Keys, err = s.carryOut(ctx, d, index, ids)
	case withdraws(d):
		out.Ended, err = s.endAtOnce(ctx, index, ids)
	}
	return d, out, err
}

// need is how many admins must sign a decision, as things stand: one for what tightens the
// purpose in force, which must be proved itself, and two for all else.
func (s *Service) need(tx Tx, d vault.Proposal) (int, error) {
	if d.Kind != vault.ApplyPurpose {
		return vault.LooseningSigners, nil
	}
	var p vault.Purpose
	if err := json.Unmarshal(d.Payload, &p); err != nil || p.Text() != d.Body {
		return vault.LooseningSigners, nil // with them it is refused
	}
	known, err := tx.Purpose(p.Name)
	switch k := vault.KindOf(err); {
	case err != nil && (k == vault.NotFound || k == vault.DataLoss):
		return vault.LooseningSigners, nil
	case err != nil:
		return 0, err
	}
	if p.Version != known.Purpose.Version+1 || p.Replaces != known.Purpose.Digest() || !p.Tightens(known.Purpose) {
		return vault.LooseningSigners, nil
	}
	switch err := s.sanctioned(tx, known); {
	case err == nil:
		return 1, nil
	case vault.KindOf(err) == vault.Denied:
		return vault.LooseningSigners, nil
	default:
		return 0, err
	}
}

// refused records that a signature was refused, once nothing of it is left. Failures that are no
// verdict (storage, for one) leave no event.
func (s *Service) refused(ctx context.Context, c vault.Caller, d vault.Proposal, why error) error {
	switch vault.KindOf(why) {
	case vault.Denied, vault.State, vault.NotFound, vault.Conflict:
	default:
		return nil
	}
	_, err := s.Ledger.Update(ctx, func(tx Tx) error {
		e := vault.NewEvent(vault.EventDecisionRefused, c, tx.Now())
		if e.Reason = vault.ReasonOf(why); d.ID != (vault.ID{}) {
			e.Decision = d.Facts()
		}
		return tx.Append(e)
	})
	return err
}

// effect makes a signed decision a fact. What Vault must do follows after the commit. The
// payload is only a note of what to do: it must give the very body that was signed.
func (s *Service) effect(tx Tx, c vault.Caller, d vault.Proposal) ([]vault.ID, error) {
	switch d.Kind {
	case vault.ApplyPurpose:
		return s.applyPurpose(tx, c, d)
	case vault.ApplyContractor:
		var org vault.Contractor
		if err := json.Unmarshal(d.Payload, &org); err != nil || org.Text() != d.Body {
			return nil, tampered(d, err)
		}
		if now, err := s.draftContractor(tx, org); err != nil || now.Body != d.Body {
			return nil, errors.Join(overtaken(d), err)
		}
		e := vault.NewEvent(vault.EventContractorApplied, c, tx.Now())
		e.Contractor, e.Epoch, e.Decision = org.Name, org.Epoch, d.Facts()
		return nil, errors.Join(tx.PutContractor(org, d.ID), tx.Append(e))
	case vault.ReinstateCaller:
		return nil, s.reinstate(tx, c, d)
	case vault.RestoreKeys, vault.DestroyKeys:
		ids, err := decidedKeys(d)
		if err != nil {
			return nil, tampered(d, err)
		}
		to, as := vault.KeyRestoring, vault.EventKeysRestored
		from := []vault.KeyState{vault.KeyRevoking, vault.KeyRevoked}
		if d.Kind == vault.DestroyKeys {
			to, as = vault.KeyDestroying, vault.EventKeysDestroying
			from = append(from, vault.KeyActive, vault.KeyRestoring)
		}
		proposed := d.Expires.Add(-vault.DecisionTTL)
		for _, id := range ids {
			// What was revoked anew since was revoked for a reason that the signers did not know.
			if _, revoked, err := tx.KeyDecision(id); err != nil || (d.Kind == vault.RestoreKeys && revoked.After(proposed)) {
				return nil, errors.Join(overtaken(d), err)
			}
		}
		moved, err := move(tx, ids, to, from...)
		if err != nil {
			return nil, err
		}
		for _, id := range moved {
			if err := tx.SetKeyDecision(id, d.ID); err != nil {
				return nil, err
			}
		}
		e := vault.NewEvent(as, c, tx.Now())
		e.Decision = d.Facts()
		return moved, appendLong(tx, e, moved)
	default:
		return nil, tampered(d, fmt.Errorf("unknown kind %q", d.Kind))
	}
}

func tampered(d vault.Proposal, why error) error {
	return vault.E(vault.Denied, vault.ReasonDecisionTampered, "decision %s is not what was signed", d.ID).Because(why)
}

func overtaken(d vault.Proposal) error {
	return vault.E(vault.Conflict, vault.ReasonDecisionOvertaken, "something changed since decision %s was proposed; propose it again", d.ID)
}
