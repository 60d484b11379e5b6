// Package grants is the life of a grant: request, approve, activate, end. It is the only
// package that lets HashiCorp Vault honour anything.
package grants

import (
	"context"
	"log/slog"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// Fences writes what Vault itself enforces of a grant.
type Fences interface {
	// WriteFence lets tokens of the grant decrypt by the keys within the fence.
	WriteFence(ctx context.Context, grant vault.ID, f vault.Fence) error
	// CloseFence takes that away from all of them, at the next call, and makes sure that
	// WriteFence never gives it again. Idempotent.
	CloseFence(ctx context.Context, grant vault.ID) error
	// DeleteFence removes what is left of a grant whose end has passed. Idempotent.
	DeleteFence(ctx context.Context, grant vault.ID) error
}

// Tokens mints and ends grant tokens.
type Tokens interface {
	// Mint makes a token of the grant that ends by itself after ttl, and after that many uses
	// if uses is above 0; with 0 Vault does not count. No uses left is nothing to mint for.
	Mint(ctx context.Context, grant vault.ID, contractor string, epoch int, ttl time.Duration, uses int64) (t vault.Token, accessor string, err error)
	// Uses says how many uses a token has left of those that Vault counts. One that has ended,
	// by its last use or otherwise, has none. A token whose uses are not counted is an error.
	Uses(ctx context.Context, accessor string) (left int64, err error)
	// RevokeToken ends a token. Idempotent.
	RevokeToken(ctx context.Context, accessor string) error
}

// Gate ends what is being sent.
type Gate interface {
	// End returns when no send that the ending covers is under way any more.
	End(ctx context.Context, e vault.Ending) (vault.Barrier, error)
}

// Tx is one transaction on the facts.
type Tx interface {
	Now() time.Time
	// Standing refuses a suspended caller, and a contractor that is unknown or suspended.
	Standing(c vault.Caller) error
	Contractor(name string) (vault.Contractor, error)
	// ContractorDecision gives the decision that admitted a contractor in its epoch.
	ContractorDecision(name string) (vault.Decision, []vault.Signature, error)
	// Purpose gives the newest version of a purpose and the decision that sanctioned it,
	// PurposeVersion one of them.
	Purpose(name string) (vault.Sanction, error)
	PurposeVersion(name string, version int) (vault.Sanction, error)
	Grant(id vault.ID) (vault.Grant, error)
	GrantByRequest(grantee string, request vault.ID) (vault.Grant, error)
	AddGrant(g vault.Grant, request vault.ID) error
	AddSignature(decision vault.ID, s vault.Signature) error
	// Admissions gives all contractors, each with the decision that admitted it in its epoch.
	Admissions() ([]vault.Admission, error)
	// LiveGrants gives the approved and active grants of contractors, whose end has not passed,
	// the newest first.
	LiveGrants(contractors []string) ([]vault.Grant, error)
	// OpenedWithin gives what contractors have opened of a scope's sites and days, last at or
	// after a time; Opened sums up all that they have opened.
	OpenedWithin(contractors []string, s vault.Scope, since time.Time) ([]vault.Claim, error)
	Opened(contractors []string) ([]vault.Opened, error)
	// EarlierGrant gives the latest grant of a grantee and purpose that was approved and asked
	// for before a time; NotFound if there is none.
	EarlierGrant(grantee, purpose string, before time.Time) (vault.Grant, error)
	// LapseDue gives pending grants that were asked for at or before a time.
	LapseDue(before time.Time, most int) ([]vault.ID, error)
	SetGrantState(id vault.ID, s vault.GrantState) error
	SetGrantToken(id vault.ID, d vault.Digest, accessor string) error
	// UsesLeft gives how many uses of a grant that Vault counts stand in no token: -1 as long as
	// it never counted any. SetUsesLeft keeps it.
	UsesLeft(id vault.ID) (int64, error)
	SetUsesLeft(id vault.ID, left int64) error
	FenceState(id vault.ID) (vault.FenceState, error)
	SetFenceState(id vault.ID, s vault.FenceState) error
	// OweToken keeps the accessor of a token that is not the grant's newest any more, or
	// never was, until Vault has ended it.
	OweToken(id vault.ID, accessor string) error
	// OwedTokens gives the accessors that OweToken kept.
	OwedTokens(id vault.ID) (accessors []string, err error)
	// DropAccessor forgets the accessor of a token that ended.
	DropAccessor(id vault.ID, accessor string) error
	// TokensDue gives grants of which Vault has still to end a token: the newest of an ended
	// one, and what is owed.
	TokensDue(now time.Time, most int) ([]vault.ID, error)
	// FencesDue gives grants whose fence is to be written or, once they have ended, removed.
	FencesDue(now time.Time, most int) ([]vault.ID, error)
	// Covered counts what a scope covers, of these retention classes: in all, and by site and
	// modality.
	Covered(s vault.Scope, classes []string) (all vault.Covered, parts []vault.Covered, err error)
	// EachInScope calls fn for each record of a scope whose key is active, in any order. Of the
	// record there are the ID, site, modality, class, crossing and times alone.
	EachInScope(s vault.Scope, fn func(vault.Record)) error
	// Crossings counts the crossings of a bucket whose keys are active, of these retention classes,
	// up to most.
	Crossings(b vault.Bucket, classes []string, most int) (int64, error)
	// RecordsOf gives those of the records that there are, in any order.
	RecordsOf(ids []vault.ID) ([]vault.Record, error)
	// RecordList gives a list of records, RecordListByRequest the one that an admin made under a
	// request ID; NotFound if there is none.
	RecordList(id vault.ID) (vault.RecordList, error)
	RecordListByRequest(admin string, request vault.ID) (vault.RecordList, error)
	AddRecordList(l vault.RecordList, request vault.ID) error
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
	// Scan is View for counting what a scope covers. Few run at once.
	Scan(ctx context.Context, fn func(Tx) error) error
}

// Service is the life of grants. Its methods may be called at once from many goroutines.
//
// Fences and Tokens are powers of two credentials. A process that holds one of them alone
// has the other nil, and leaves that part to the process that holds it.
type Service struct {
	Ledger    Ledger
	Fences    Fences
	Tokens    Tokens
	Gate      Gate
	Authority func() vault.Authority
	Log       *slog.Logger
	// ConflictMemory is how long what a contractor has opened counts against what it asks for
	// ([vault.ConflictRule]); 0 for ever.
	ConflictMemory time.Duration

	fencing, ending fences
	proved          vault.Proofs
	questions       questions
}

// prove checks the approvers' signatures over the grant's terms, and the purpose behind them.
func (s *Service) prove(tx Tx, g vault.Grant) error {
	p, err := tx.PurposeVersion(g.Purpose.Name, g.Purpose.Version)
	if err != nil {
		return err
	}
	if err := s.sanctioned(tx, p); err != nil {
		return err
	}
	return s.Authority().Approved(g, p.Purpose)
}

// refuse records a refusal and lets the transaction commit it: of a grant, or of a request for
// one, which has terms and no name. Failures that are no verdict (storage, for one) end the
// transaction instead.
func refuse(tx Tx, c vault.Caller, g vault.Grant, why error) error {
	switch vault.KindOf(why) {
	case vault.Denied, vault.State, vault.NotFound:
	default:
		return why
	}
	e := vault.NewEvent(vault.EventGrantRefused, c, tx.Now())
	e.Contractor, e.Reason = c.Org, vault.ReasonOf(why)
	if g.Grant != (vault.ID{}) {
		e.Grant = g.Grant.String()
	} else {
		e.Terms = g.Text()
	}
	return tx.Append(e)
}

func event(tx Tx, t vault.EventType, c vault.Caller, g vault.Grant) vault.Event {
	e := vault.NewEvent(t, c, tx.Now())
	e.Grant, e.Contractor = g.Grant.String(), g.Contractor
	return e
}

func noteDigest(note string) string {
	if note == "" {
		return ""
	}
	return vault.DigestOf([]byte(note)).String()
}
