package breach

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/portcullis/portcullis/vault"
)

const (
	// maxCaller is the longest SPIFFE ID that is looked at, in bytes: the limit of its standard.
	maxCaller = 2048
	// maxReview is the most grants, purposes and contractors each that an answer names for review.
	maxReview = 1000
	// maxOwed is the most grants that Vault is told of before the answer. The sweep does the rest.
	maxOwed = 1000
	// disarmTime is how long Vault may take for that, in all.
	disarmTime = 15 * time.Second
)

// CallersTx is the part of a transaction that is about callers one by one.
type CallersTx interface {
	// Suspension gives a caller's suspension; NotFound if it is not suspended.
	Suspension(id string) (vault.Suspension, error)
	SuspendCaller(s vault.Suspension) error
	ReinstateCaller(id string) error
	// EndGrantsOf ends all grants of a grantee, and says how many.
	EndGrantsOf(grantee string) (int64, error)
	// OwedOf gives grants of a grantee that ended before their time and of which Vault has
	// still to be told.
	OwedOf(grantee string, most int) ([]vault.ID, error)
	// VoidSignatures takes an admin's signatures off whatever still waits for signatures, and
	// says how many.
	VoidSignatures(signer string) (int64, error)
	// RestsOn gives what is in force on an admin's signature, at most so much of each.
	RestsOn(signer string, most int) (vault.Review, error)
}

// Disarmer ends at Vault, for good, what it still allows of a grant that has ended here: at
// the next call of whoever holds a token of it. Idempotent.
type Disarmer interface {
	Disarm(ctx context.Context, grant vault.ID) error
}

// SuspendedCaller is what came of suspending a caller.
type SuspendedCaller struct {
	vault.Suspension
	Grants  int64        // a workload's, that ended
	Void    int64        // an admin's signatures on what was still open, which count no more
	Review  vault.Review // what is in force on an admin's signature, and stays so
	Barrier vault.Barrier
}

// SuspendCaller cuts off one caller of any kind, itself included, at once: its calls are
// refused, its connections are reset on every node, and a workload's grants end, here and at
// Vault. An admin's signatures count no more on what is still open. It works while Vault is
// away; Vault's part then follows. What waits on a signature given before, and is in force,
// stays: the answer names it.
func (s *Service) SuspendCaller(ctx context.Context, c vault.Caller, id, note string) (out SuspendedCaller, err error) {
	if err := vault.CheckText("note", note, maxNote, true); err != nil {
		return out, err
	}
	who, err := s.named(id)
	if err != nil {
		return out, err
	}
	var size int64
	index, err := s.Ledger.Update(ctx, func(tx Tx) (err error) {
		size, out = -1, SuspendedCaller{}
		if err := tx.Standing(c); err != nil {
			return err
		}
		out.Suspension, err = tx.Suspension(id)
		switch {
		case err == nil:
			// Suspended already: the barrier below holds for whatever was authorized till now.
			size, err = tx.Size()
		case vault.KindOf(err) == vault.NotFound:
			out.Suspension = vault.Suspension{Caller: id, At: tx.Now(), By: c.ID}
			err = cutOff(tx, c, who, note, &out)
		}
		if err == nil && who.Role == vault.RoleAdmin {
			out.Review, err = tx.RestsOn(id, maxReview)
		}
		return err
	})
	if err != nil {
		return out, err
	}
	// The suspension is durable: from here on nothing may hinder it, not even the caller leaving.
	ctx = context.WithoutCancel(ctx)
	end := vault.Ending{Index: max(index, size), Callers: []string{id}}
	if id == c.ID {
		end.Spare = c.Addr // the answer's way; whatever else is asked on it is refused
	}
	if out.Barrier, err = s.Gate.End(ctx, end); err != nil {
		return out, err
	}
	if err := s.disarm(ctx, who); err != nil {
		s.Log.WarnContext(ctx, "vault has still to end grants of a suspended caller", "caller", id, "error", err)
		return out, nil
	}
	out.Barrier.VaultDone = true
	return out, nil
}

// named reads the SPIFFE ID of a caller of any kind.
func (s *Service) named(id string) (vault.Caller, error) {
	if len(id) > maxCaller {
		return vault.Caller{}, vault.InvalidField("caller", "has %d bytes; at most %d are allowed", len(id), maxCaller)
	}
	domain := s.Authority().TrustDomain
	c, err := vault.ParseCaller(domain, id)
	if err != nil {
		return c, vault.InvalidField("caller", "must be the SPIFFE ID of a capture system, workload, admin or auditor of %s", domain)
	}
	return c, nil
}

// cutOff makes a suspension a fact, with all that ends with it.
func cutOff(tx Tx, c, who vault.Caller, note string, out *SuspendedCaller) (err error) {
	if err := tx.SuspendCaller(out.Suspension); err != nil {
		return err
	}
	switch who.Role {
	case vault.RoleContractor:
		out.Grants, err = tx.EndGrantsOf(who.ID)
	case vault.RoleAdmin:
		out.Void, err = tx.VoidSignatures(who.ID)
	}
	if err != nil {
		return err
	}
	e := vault.NewEvent(vault.EventCallerSuspended, c, out.At)
	e.Caller, e.Contractor, e.Count, e.Void, e.Note = who.ID, who.Org, out.Grants, out.Void, noteDigest(note)
	return tx.Append(e)
}

// disarm makes Vault end what the grants of a suspended workload still open there. A Vault that
// is away must not keep the answer: the sweep goes on with it.
func (s *Service) disarm(ctx context.Context, who vault.Caller) error {
	if who.Role != vault.RoleContractor {
		return nil
	}
	var owed []vault.ID
	err := s.Ledger.View(ctx, func(tx Tx) (err error) {
		owed, err = tx.OwedOf(who.ID, maxOwed)
		return err
	})
	err = errors.Join(err, s.disarmEach(ctx, owed))
	if err == nil && len(owed) == maxOwed {
		err = errors.New("more grants have ended than are told of at once")
	}
	return err
}

// disarmEach makes Vault end what these grants still open there, as far as there is time. One
// that fails must not keep the others from their turn.
func (s *Service) disarmEach(ctx context.Context, grants []vault.ID) (err error) {
	ctx, cancel := context.WithTimeout(ctx, disarmTime)
	defer cancel()
	for i, id := range grants {
		if i == maxOwed {
			return errors.Join(err, errors.New("more grants have ended than are told of at once"))
		}
		failed := s.Disarm.Disarm(ctx, id)
		if err = errors.Join(err, failed); failed != nil && (ctx.Err() != nil || vault.KindOf(failed) == vault.Unavailable) {
			break
		}
	}
	return err
}

// draftCaller lets a suspended caller in again.
func (s *Service) draftCaller(tx Tx, id string) (d vault.Proposal, err error) {
	if _, err := s.named(id); err != nil {
		return d, err
	}
	known, err := tx.Suspension(id)
	if vault.KindOf(err) == vault.NotFound {
		return d, vault.E(vault.Exists, vault.ReasonUnchanged, "%s is not suspended", id)
	}
	if err != nil {
		return d, err
	}
	d.Kind, d.Body = vault.ReinstateCaller, known.Text()
	d.Payload, err = json.Marshal(known)
	return d, err
}

// reinstate carries out a decision to let a caller in again.
func (s *Service) reinstate(tx Tx, c vault.Caller, d vault.Proposal) error {
	var known vault.Suspension
	if err := json.Unmarshal(d.Payload, &known); err != nil || known.Text() != d.Body {
		return tampered(d, err)
	}
	if now, err := s.draftCaller(tx, known.Caller); err != nil || now.Body != d.Body {
		return errors.Join(overtaken(d), err)
	}
	e := vault.NewEvent(vault.EventCallerReinstated, c, tx.Now())
	e.Caller, e.Decision = known.Caller, d.Facts()
	return errors.Join(tx.ReinstateCaller(known.Caller), tx.Append(e))
}

// counted leaves out the signatures of admins that are suspended by now.
func counted(tx Tx, sigs []vault.Signature) (out []vault.Signature, err error) {
	for _, sig := range sigs {
		_, err := tx.Suspension(sig.Signer)
		switch {
		case vault.KindOf(err) == vault.NotFound:
			out = append(out, sig)
		case err != nil:
			return nil, err
		}
	}
	return out, nil
}
