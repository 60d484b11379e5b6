// Package grants is the life of a grant: request, approve, activate, end. It is the only
// package that lets HashiCorp Vault honour anything.
package grants

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// Fences writes what Vault itself enforces of a grant.
type Fences interface {
	// WriteFence lets tokens of the grant decrypt by keys whose names have these prefixes.
	WriteFence(ctx context.Context, grant vault.ID, keyPrefixes []string) error
	// CloseFence takes that away from all of them, at the next call, and makes sure that
	// WriteFence never gives it again. Idempotent.
	CloseFence(ctx context.Context, grant vault.ID) error
	// DeleteFence removes what is left of a grant whose end has passed. Idempotent.
	DeleteFence(ctx context.Context, grant vault.ID) error
}

// Tokens mints and ends grant tokens.
type Tokens interface {
	// Mint makes a token of the grant that ends by itself after ttl.
	Mint(ctx context.Context, grant vault.ID, contractor string, epoch int, ttl time.Duration) (t vault.Token, accessor string, err error)
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
	// PurposeVersion gives one version of a purpose and the decision that sanctioned it.
	PurposeVersion(name string, version int) (vault.Purpose, vault.Decision, []vault.Signature, error)
	// Purpose gives the newest version of a purpose and the decision that sanctioned it.
	Purpose(name string) (vault.Purpose, vault.Decision, []vault.Signature, error)
	Grant(id vault.ID) (vault.Grant, error)
	GrantByRequest(grantee string, request vault.ID) (vault.Grant, error)
	AddGrant(g vault.Grant, request vault.ID) error
	AddSignature(decision vault.ID, s vault.Signature) error
	SetGrantState(id vault.ID, s vault.GrantState) error
	SetGrantToken(id vault.ID, d vault.Digest, accessor string) error
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
	Preview(s vault.Scope) (vault.Preview, error)
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

	fencing fences
}

// Request is what a contractor asks for.
type Request struct {
	ID            vault.ID // names the request at its workload
	Purpose       string
	Scope         vault.Scope
	MaxRecords    int64
	TTL           time.Duration
	Justification string
}

// MaxJustification is the longest justification, in bytes.
const MaxJustification = 500

func (r Request) check() error {
	if r.ID == (vault.ID{}) {
		return vault.InvalidField("request_id", "must not be empty")
	}
	if err := vault.CheckName("purpose", r.Purpose); err != nil {
		return err
	}
	if err := r.Scope.Check(); err != nil {
		return err
	}
	if r.MaxRecords < 1 || r.MaxRecords > vault.MaxQuota {
		return vault.InvalidField("max_records", "must be from 1 to %d", vault.MaxQuota)
	}
	if r.TTL < vault.MinTTL || r.TTL > vault.MaxTTL || r.TTL%time.Second != 0 {
		return vault.InvalidField("ttl", "must be whole seconds, from %s to %s", vault.MinTTL, vault.MaxTTL)
	}
	if n := len(r.Scope.KeyPrefixes()); n > vault.MaxPrefixes {
		return vault.InvalidField("scope", "needs %d paths in Vault's policy; at most %d are allowed: name fewer sites or a window of whole months", n, vault.MaxPrefixes)
	}
	return vault.CheckText("justification", r.Justification, MaxJustification, false)
}

// asks says whether a grant is what the request asked for.
func (r Request) asks(g vault.Grant) bool {
	want := vault.Terms{Scope: r.Scope}.Normal().Scope
	return g.Purpose.Name == r.Purpose && g.MaxRecords == r.MaxRecords && g.Justification == r.Justification &&
		g.Ends.Sub(g.RequestedAt) == r.TTL && slices.Equal(g.Scope.Sites, want.Sites) &&
		slices.Equal(g.Scope.Modalities, want.Modalities) && g.Scope.From.Equal(want.From) && g.Scope.Until.Equal(want.Until)
}

// terms are what the request asks for, without what the service adds.
func (r Request) terms(c vault.Caller, now time.Time) vault.Terms {
	return vault.Terms{
		Purpose: vault.PurposeRef{Name: r.Purpose}, Grantee: c.ID, Scope: r.Scope, MaxRecords: r.MaxRecords,
		Ends: now.Add(r.TTL), Justification: vault.DigestOf([]byte(r.Justification)),
	}.Normal()
}

// Request asks for a grant. What policy forbids is refused, with the reason and an event.
func (s *Service) Request(ctx context.Context, c vault.Caller, r Request) (g vault.Grant, err error) {
	if err := r.check(); err != nil {
		return g, err
	}
	var refused error
	_, err = s.Ledger.Update(ctx, func(tx Tx) error {
		known, err := tx.GrantByRequest(c.ID, r.ID)
		if err == nil && !r.asks(known) {
			return vault.E(vault.Exists, vault.ReasonRequestIDReused, "request_id %s was used for another request of this workload", r.ID)
		}
		if err == nil || vault.KindOf(err) != vault.NotFound {
			g, refused = known, nil
			return err
		}
		g, refused = s.draft(tx, c, r)
		if refused != nil {
			return refuse(tx, c, vault.Grant{Terms: r.terms(c, tx.Now())}, refused)
		}
		if err := tx.AddGrant(g, r.ID); err != nil {
			return err
		}
		e := event(tx, vault.EventGrantRequested, c, g)
		e.Terms = g.Terms.Text()
		return tx.Append(e)
	})
	return g, errors.Join(err, refused)
}

// draft makes the grant that a request asks for, if policy allows it.
func (s *Service) draft(tx Tx, c vault.Caller, r Request) (g vault.Grant, err error) {
	if err := tx.Standing(c); err != nil {
		return g, err
	}
	org, err := s.contractor(tx, c.Org)
	if err != nil {
		return g, err
	}
	p, err := s.purpose(tx, r.Purpose)
	if err != nil {
		return g, err
	}
	now := tx.Now()
	g = vault.Grant{
		Terms: r.terms(c, now),
		State: vault.GrantPending, Contractor: c.Org, Justification: r.Justification, RequestedAt: now,
	}
	g.Grant, g.Epoch, g.Approvals = vault.NewID(), org.Epoch, p.Approvals
	g.Purpose = vault.PurposeRef{Name: p.Name, Version: p.Version, Digest: p.Digest()}
	if _, err := rand.Read(g.HandleKey[:]); err != nil {
		return g, err
	}
	return g, p.Allows(c.Org, g.Terms, now)
}

// purpose gives the newest version of a purpose, proved to be what admins sanctioned.
func (s *Service) purpose(tx Tx, name string) (vault.Purpose, error) {
	p, d, sigs, err := tx.Purpose(name)
	if err != nil {
		return p, err
	}
	return p, s.Authority().Sanctioned(p, d, sigs)
}

// contractor gives a contractor, proved to be what admins admitted, in its epoch.
func (s *Service) contractor(tx Tx, name string) (vault.Contractor, error) {
	c, err := tx.Contractor(name)
	if err != nil {
		return c, err
	}
	d, sigs, err := tx.ContractorDecision(name)
	if err != nil {
		return c, err
	}
	return c, s.Authority().Admitted(c, d, sigs)
}

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
	if g.State != vault.GrantPending {
		return g, vault.E(vault.State, vault.ReasonGrantDecided, "grant %s is %s; it takes no approvals", id, g.State)
	}
	if g.Ended(now) {
		return g, vault.E(vault.State, vault.ReasonGrantExpired, "grant %s ended at %s", id, vault.FormatTime(g.Ends))
	}
	if err := s.lawful(tx, g); err != nil {
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

// lawful checks again what was checked at the request: since then the contractor may have
// been suspended, or the purpose changed.
func (s *Service) lawful(tx Tx, g vault.Grant) error {
	org, err := s.contractor(tx, g.Contractor)
	if err != nil {
		return err
	}
	if org.Suspended || org.Epoch != g.Epoch {
		return vault.E(vault.Denied, vault.ReasonContractorSuspended, "contractor %s was suspended; its earlier grants do not revive", g.Contractor)
	}
	gone, err := suspended(tx, g.Grantee)
	if err != nil {
		return err
	}
	if gone {
		return vault.E(vault.Denied, vault.ReasonCallerSuspended, "%s, who asked for the grant, is suspended", g.Grantee)
	}
	p, err := s.purpose(tx, g.Purpose.Name)
	if err != nil {
		return err
	}
	return p.Allows(g.Contractor, g.Terms, g.RequestedAt)
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
		g.State = vault.GrantDenied
		e := event(tx, vault.EventGrantDenied, c, g)
		e.Note = noteDigest(note)
		return errors.Join(tx.SetGrantState(id, g.State), tx.Append(e))
	})
	return g, err
}

// Activate gives the grantee a token. An earlier token of the grant ends, and the end of
// the grant does not move.
func (s *Service) Activate(ctx context.Context, c vault.Caller, id vault.ID) (g vault.Grant, t vault.Token, err error) {
	g, err = s.check(ctx, c, id)
	if err != nil {
		return g, vault.Token{}, err
	}
	if err := s.fenced(ctx, id); err != nil {
		return g, vault.Token{}, err
	}
	var now time.Time
	if err := s.Ledger.View(ctx, func(tx Tx) error { now = tx.Now(); return nil }); err != nil {
		return g, vault.Token{}, err
	}
	ttl := g.Ends.Sub(now).Truncate(time.Second)
	if ttl < time.Second {
		return g, vault.Token{}, vault.E(vault.State, vault.ReasonGrantExpired, "grant %s ended at %s", id, vault.FormatTime(g.Ends))
	}
	t, accessor, err := s.Tokens.Mint(ctx, id, g.Contractor, g.Epoch, ttl)
	if err != nil {
		return g, vault.Token{}, err
	}
	var refused error
	_, err = s.Ledger.Update(ctx, func(tx Tx) error {
		if g, refused = s.activation(tx, c, id); refused != nil {
			return errors.Join(tx.OweToken(id, accessor), refuse(tx, c, vault.Grant{Terms: vault.Terms{Grant: id}}, refused))
		}
		if g.Accessor != "" {
			if err := tx.OweToken(id, g.Accessor); err != nil {
				return err
			}
		}
		g.State = vault.GrantActive
		return errors.Join(
			tx.SetGrantState(id, g.State), tx.SetGrantToken(id, t.Digest(), accessor),
			tx.Append(event(tx, vault.EventGrantActivated, c, g)))
	})
	if err != nil {
		// The token was given to nobody. Should this fail too, the fence's removal ends it.
		return g, vault.Token{}, errors.Join(err, s.Tokens.RevokeToken(context.WithoutCancel(ctx), accessor))
	}
	// An earlier token is not honoured here any more. Until Vault has ended it too, nothing
	// is given out; the grantee activates again.
	err = s.endTokens(context.WithoutCancel(ctx), id)
	if err := errors.Join(refused, err); err != nil {
		return g, vault.Token{}, err
	}
	return g, t, nil
}

func (s *Service) check(ctx context.Context, c vault.Caller, id vault.ID) (g vault.Grant, err error) {
	var refused error
	_, err = s.Ledger.Update(ctx, func(tx Tx) error {
		if g, refused = s.activation(tx, c, id); refused != nil {
			return refuse(tx, c, vault.Grant{Terms: vault.Terms{Grant: id}}, refused)
		}
		return nil
	})
	return g, errors.Join(err, refused)
}

// activation says whether the caller may activate the grant now.
func (s *Service) activation(tx Tx, c vault.Caller, id vault.ID) (vault.Grant, error) {
	g, err := own(tx, c, id)
	if err != nil {
		return g, err
	}
	if err := g.Usable(tx.Now()); err != nil {
		return g, err
	}
	if err := s.lawful(tx, g); err != nil {
		return g, err
	}
	return g, s.prove(tx, g)
}

// own gives the grant if the caller is its grantee, in good standing.
func own(tx Tx, c vault.Caller, id vault.ID) (vault.Grant, error) {
	g, err := tx.Grant(id)
	if vault.KindOf(err) == vault.NotFound || (err == nil && g.Grantee != c.ID) {
		return g, unknown(id)
	}
	if err != nil {
		return g, err
	}
	return g, tx.Standing(c)
}

// unknown is what strangers hear of a grant.
func unknown(id vault.ID) error {
	return vault.E(vault.NotFound, vault.ReasonGrantUnknown, "grant %s is unknown, or not yours", id)
}

// prove checks the approvers' signatures over the grant's terms, and the purpose behind them.
func (s *Service) prove(tx Tx, g vault.Grant) error {
	p, d, sigs, err := tx.PurposeVersion(g.Purpose.Name, g.Purpose.Version)
	if err != nil {
		return err
	}
	if err := s.Authority().Sanctioned(p, d, sigs); err != nil {
		return err
	}
	return s.Authority().Approved(g, p)
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
