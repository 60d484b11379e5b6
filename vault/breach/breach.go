// Package breach acts after one: it suspends contractors and single callers, revokes, restores and
// destroys keys, and carries out the decisions that admins sign. What tightens takes one admin, what
// loosens or destroys takes two.
package breach

import (
	"context"
	"log/slog"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// Keys is what HashiCorp Vault lets an admin do. All of it is idempotent.
type Keys interface {
	// DisableContractor ends every token of a contractor's epoch.
	DisableContractor(ctx context.Context, contractor string, epoch int) error
	// RevokeKey makes what was wrapped by the key unreadable to every token.
	RevokeKey(ctx context.Context, keyName string) error
	// RestoreKey undoes RevokeKey.
	RestoreKey(ctx context.Context, keyName string) error
	// DestroyKey deletes the key and returns once it is shown to be gone.
	DestroyKey(ctx context.Context, keyName string) error
}

// Blobs keeps ciphertext.
type Blobs interface {
	// Delete is durable on return, and idempotent.
	Delete(ctx context.Context, id vault.ID) error
}

// Gate ends what is being sent.
type Gate interface {
	// End returns when no send that the ending covers is under way any more.
	End(ctx context.Context, e vault.Ending) (vault.Barrier, error)
}

// Tx is one transaction on the facts.
type Tx interface {
	Now() time.Time
	// Standing refuses a suspended caller.
	Standing(c vault.Caller) error

	Contractor(name string) (vault.Contractor, error)
	// ContractorDecision gives the decision that admitted a contractor in its epoch.
	ContractorDecision(name string) (vault.Decision, []vault.Signature, error)
	// PutContractor adds a contractor or replaces its facts.
	PutContractor(c vault.Contractor, decision vault.ID) error
	// SuspendContractor ends the contractor's epoch and all its grants, and says how many.
	SuspendContractor(name string) (grants int64, err error)
	// Disabled says whether Vault has disabled the contractor's epoch.
	Disabled(name string) (bool, error)
	SetDisabled(name string, epoch int) error
	// ContractorsDue gives suspended contractors that Vault has still to disable.
	ContractorsDue() ([]vault.Contractor, error)

	CallersTx

	// Purpose gives the newest version of a purpose, PurposeVersion one of them.
	Purpose(name string) (vault.Sanction, error)
	PurposeVersion(name string, version int) (vault.Sanction, error)
	// EndGrantsFor ends all grants of a purpose and gives them.
	EndGrantsFor(purpose string) ([]vault.ID, error)
	AddPurpose(p vault.Purpose, decision vault.ID) error

	// OpenDecision gives a decision of the kind and body that still waits for signatures; NotFound
	// if there is none.
	OpenDecision(k vault.DecisionKind, body string) (vault.Proposal, error)
	Decision(id vault.ID) (vault.Proposal, error)
	AddDecision(d vault.Proposal) error
	AddSignature(decision vault.ID, s vault.Signature) error
	SetEffective(decision vault.ID) error

	// Select gives the records of a selection whose keys are in one of the states, in the
	// order of their IDs.
	Select(s vault.Selection, most int, states ...vault.KeyState) ([]vault.ID, error)
	// Selected gives records of a selection, in the order of their IDs, from the first after the
	// one given.
	Selected(s vault.Selection, after vault.ID, most int) ([]vault.Record, error)
	Record(id vault.ID) (vault.Record, error)
	// SetKeyState moves a record's key to a state if it is in one of those from, and says
	// whether it was.
	SetKeyState(id vault.ID, to vault.KeyState, from ...vault.KeyState) (bool, error)
	// SetKeyDecision keeps which decision restores or destroys a record's key.
	SetKeyDecision(id, decision vault.ID) error
	// KeyDecision gives that decision, zero if there is none, and when the key was revoked last.
	KeyDecision(id vault.ID) (decision vault.ID, revoked time.Time, err error)
	// DestroyRecord forgets the wrapped key of a record.
	DestroyRecord(id vault.ID) error
	// Grantees gives the workloads that opened any of the records.
	Grantees(records []vault.ID) ([]string, error)
	// RecordsIn gives records whose keys are in one of the states, in the order of their IDs,
	// from the first after the one given.
	RecordsIn(after vault.ID, most int, states ...vault.KeyState) ([]vault.Record, error)
	// EachEvent gives entries of the log from an index on, of some types if any are given, and
	// returns the size of the log.
	EachEvent(from int64, most int, types []string, fn func(index int64, body []byte) error) (size int64, err error)

	// Size is the index of the next event.
	Size() (int64, error)
	Append(e vault.Event) error
}

// Ledger keeps the facts and the log.
type Ledger interface {
	// Update runs fn in one transaction, durable on return, and gives the log index of the
	// last event that fn appended. fn may run more than once.
	Update(ctx context.Context, fn func(Tx) error) (last int64, err error)
	// View runs fn on a consistent state. It writes nothing.
	View(ctx context.Context, fn func(Tx) error) error
}

// Service acts after a breach. Its methods may be called at once from many goroutines.
type Service struct {
	Ledger    Ledger
	Keys      Keys
	Blobs     Blobs
	Gate      Gate
	Disarm    Disarmer
	Authority func() vault.Authority
	Attest    Attester
	Log       *slog.Logger

	// Checked says whether Vault and the database were looked at for a restore lately, and are
	// good: see [Reconciler.Look]. Without that no key is restored or destroyed. nil: always.
	Checked func(ctx context.Context) error

	// work is held, for one record, by whoever changes its key at Vault.
	work   keyLocks
	proved vault.Proofs
}

// maxNote is the longest note of an admin, in bytes.
const maxNote = 500

// Suspended is what came of suspending a contractor.
type Suspended struct {
	Contractor vault.Contractor
	Grants     int64 // that ended
	Barrier    vault.Barrier
}

// Suspend stops a contractor: all its grants and streams, at once. It works while Vault is
// away; Vault's part then follows.
func (s *Service) Suspend(ctx context.Context, c vault.Caller, name, note string) (out Suspended, err error) {
	if err := vault.CheckText("note", note, maxNote, true); err != nil {
		return out, err
	}
	var size int64
	index, err := s.Ledger.Update(ctx, func(tx Tx) (err error) {
		size = -1
		if err := tx.Standing(c); err != nil {
			return err
		}
		if out.Contractor, err = tx.Contractor(name); err != nil {
			return err
		}
		if out.Contractor.Suspended {
			// Suspended already: the barrier below holds for whatever was authorized till now.
			out.Grants = 0
			size, err = tx.Size()
			return err
		}
		if out.Grants, err = tx.SuspendContractor(name); err != nil {
			return err
		}
		out.Contractor.Suspended = true
		e := vault.NewEvent(vault.EventContractorSuspended, c, tx.Now())
		e.Contractor, e.Epoch, e.Count, e.Note = name, out.Contractor.Epoch, out.Grants, noteDigest(note)
		return tx.Append(e)
	})
	if err != nil {
		return out, err
	}
	// The suspension is durable: from here on nothing may hinder it, not even the caller leaving.
	ctx = context.WithoutCancel(ctx)
	if out.Barrier, err = s.Gate.End(ctx, vault.Ending{Index: max(index, size), Contractor: name}); err != nil {
		return out, err
	}
	if err := s.disable(ctx, out.Contractor); err != nil {
		s.Log.WarnContext(ctx, "vault has still to disable a suspended contractor", "contractor", name, "error", err)
		return out, nil
	}
	out.Barrier.VaultDone = true
	return out, nil
}

// disable makes Vault end every token of the contractor's epoch.
func (s *Service) disable(ctx context.Context, c vault.Contractor) error {
	if err := s.Keys.DisableContractor(ctx, c.Name, c.Epoch); err != nil {
		return err
	}
	_, err := s.Ledger.Update(ctx, func(tx Tx) error {
		now, err := tx.Contractor(c.Name)
		if err != nil || now.Epoch != c.Epoch {
			return err
		}
		if done, err := tx.Disabled(c.Name); err != nil || done {
			return err
		}
		e := vault.NewEvent(vault.EventVaultCaughtUp, vault.Caller{}, tx.Now())
		e.Contractor, e.Epoch = c.Name, c.Epoch
		if err := tx.SetDisabled(c.Name, c.Epoch); err != nil {
			return err
		}
		return tx.Append(e)
	})
	return err
}

func noteDigest(note string) string {
	if note == "" {
		return ""
	}
	return vault.DigestOf([]byte(note)).String()
}
