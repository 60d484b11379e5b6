// Package release lists and opens images under a grant, within the law of its purpose. It holds no credential of its own:
// what it opens, it opens with the token that the grantee shows. Nothing in it can make a
// grant, or a token.
package release

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/portcullis/portcullis/internal/envelope"
	"github.com/portcullis/portcullis/vault"
)

// Keys opens data keys.
type Keys interface {
	// Unwrap decrypts a wrapped data key by the transit key of that name, with the token.
	Unwrap(ctx context.Context, t vault.Token, keyName, wrapped string) (dek []byte, err error)
}

// Blobs keeps ciphertext.
type Blobs interface {
	Get(ctx context.Context, id vault.ID) ([]byte, error)
}

// Gate stands between opening and sending.
type Gate interface {
	// Enter lets a release pass unless its access has ended since it was authorized. leave
	// is called once the send is over. After an ending's barrier nothing covered enters.
	Enter(rel vault.Release) (leave func(), err error)
}

// Barrier ends what is being sent.
type Barrier interface {
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
	PurposeVersion(name string, version int) (vault.Sanction, error)
	Grant(id vault.ID) (vault.Grant, error)
	Record(id vault.ID) (vault.Record, error)
	// RecordsOf gives those of the records that there are, in any order.
	RecordsOf(ids []vault.ID) ([]vault.Record, error)
	// EachInScope calls fn for each record of a scope whose key is active, in any order. Of the
	// record there are the ID, site, modality, class, crossing and times alone.
	EachInScope(s vault.Scope, fn func(vault.Record)) error
	// Crossings counts the crossings of a bucket whose keys are active, of these retention classes,
	// up to most.
	Crossings(b vault.Bucket, classes []string, most int) (int64, error)
	// KeysChanged gives a number that is the same as long as the same keys are active, and grows
	// with each change: -1 while one is under way.
	KeysChanged() (int64, error)
	// CountRelease counts a record against its grant's quotas, once however often it leaves, and
	// against the rate of its purpose each time: QUOTA_EXCEEDED, BYTES_EXCEEDED or RATE_EXCEEDED
	// if they do not allow it.
	CountRelease(g vault.Grant, p vault.Purpose, r vault.Record) (refetch bool, err error)
	// CountExcess counts a refusal for quota or rate. With the one beyond most since the last
	// release the grant ends by itself, and CountExcess says so.
	CountExcess(grant vault.ID, most int) (suspended bool, err error)
	// LogLag says how long the oldest event that is not in the log's tree has been waiting, and
	// gives the newest signed checkpoint, nil when there is none.
	LogLag() (lag time.Duration, checkpoint []byte, err error)
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
	// Scan is View for EachInScope, which takes as long as the scope is large: nothing else
	// waits for it. Few run at once.
	Scan(ctx context.Context, fn func(Tx) error) error
}

// DefaultMaxLag is how far the log's tree may be behind while images leave: far longer than
// the fraction of a second that a healthy one needs.
const DefaultMaxLag = 10 * time.Second

// openTimeout bounds the time between a release's authorization and its entering the gate.
const openTimeout = 30 * time.Second

// Service releases images. Its methods may be called at once from many goroutines.
type Service struct {
	Ledger    Ledger
	Keys      Keys
	Blobs     Blobs
	Gate      Gate
	Barrier   Barrier
	Authority func() vault.Authority
	// Ended hears of each grant that ended by itself, once nothing of it is under way, so that
	// Vault follows; nil if nobody here can make it. It must not block.
	Ended func(grant vault.ID)
	// MaxLag is how far the log's tree may be behind the events for images to be released.
	MaxLag time.Duration

	proved   vault.Proofs
	listings listings
	verdicts verdicts
}

// Fetch opens one image and gives it to send: it records, opens, sends, never in another
// order. The release is recorded, durably, before send is called. An error of send leaves it
// recorded as having left, for nobody knows how much of it did.
func (s *Service) Fetch(ctx context.Context, c vault.Caller, t vault.Token, grant vault.ID, h vault.Handle, send func(vault.Image) error) error {
	rel, strict, err := s.authorize(ctx, c, t, grant, h)
	if err != nil {
		return err
	}
	img, err := s.open(ctx, t, rel)
	if strict && vault.ReasonOf(err) == vault.ReasonKeyRefused {
		// Vault does not say which it is; the next activation does.
		err = vault.E(vault.Denied, vault.ReasonKeyRefused, "Vault refused the grant's token for this key; the purpose is strict, so it may have counted the grant's uses to their end").Because(err)
	}
	if err == nil {
		img.Handle = h
		var leave func()
		if leave, err = s.Gate.Enter(rel); err == nil {
			defer leave()
			return send(img)
		}
	}
	// Nothing left: say so, or it counts as exposed.
	return errors.Join(err, s.unsent(context.WithoutCancel(ctx), rel, err))
}

// authorize checks everything and commits the event; only then may bytes leave. strict says whether
// Vault counts, too.
func (s *Service) authorize(ctx context.Context, c vault.Caller, t vault.Token, grant vault.ID, h vault.Handle) (rel vault.Release, strict bool, err error) {
	var refused error
	var suspended int64 // index of the event with which the grant ended by itself, -1 if it did not
	index, err := s.Ledger.Update(ctx, func(tx Tx) error {
		suspended = -1
		checkpoint, err := s.keepsUp(tx)
		if err != nil {
			return err
		}
		g, p, err := s.grant(tx, c, t, grant)
		if err == nil {
			rel, err = s.admit(tx, c, g, p, h)
		}
		if vault.KindOf(err) == vault.Exhausted {
			suspended, err = exceeded(tx, g, err)
		}
		if refused = err; err != nil {
			return refuse(tx, c, grant, err)
		}
		rel.Checkpoint, strict = checkpoint, p.Strict
		e := vault.NewEvent(vault.EventRecordReleased, c, tx.Now())
		e.Grant, e.Contractor, e.Record, e.Refetch = grant.String(), g.Contractor, rel.Record.ID.String(), rel.Refetch
		return tx.Append(e)
	})
	rel.Index = index
	if err == nil && suspended >= 0 {
		return rel, strict, errors.Join(refused, s.end(context.WithoutCancel(ctx), grant, suspended))
	}
	return rel, strict, errors.Join(err, refused)
}

// end ends what is under way of a grant that ended by itself. Its caller has nothing under way at
// the gate: it is answered over its connection, unless that one is sending more of the grant.
func (s *Service) end(ctx context.Context, grant vault.ID, index int64) error {
	_, err := s.Barrier.End(ctx, vault.Ending{Index: index, Grants: []vault.ID{grant}})
	if s.Ended != nil {
		s.Ended(grant)
	}
	return err
}

// keepsUp refuses when the log's tree does not keep up with the events: what leaves then could
// be rewritten without a trace. It gives the newest checkpoint.
func (s *Service) keepsUp(tx Tx) (checkpoint []byte, err error) {
	lag, checkpoint, err := tx.LogLag()
	if err != nil {
		return nil, err
	}
	if lag > s.MaxLag {
		return nil, vault.E(vault.Unavailable, vault.ReasonLogBehind, "the log's tree is %s behind, so nothing is released", lag.Round(time.Second))
	}
	return checkpoint, nil
}

// grant gives the grant if it is the caller's, may be used now, and is what its approvers
// signed. Whatever keeps a stranger from it looks the same to the stranger.
func (s *Service) grant(tx Tx, c vault.Caller, t vault.Token, id vault.ID) (g vault.Grant, p vault.Purpose, err error) {
	g, err = tx.Grant(id)
	if vault.KindOf(err) == vault.NotFound || (err == nil && g.Grantee != c.ID) {
		return g, p, vault.E(vault.NotFound, vault.ReasonGrantUnknown, "grant %s is unknown, or not yours", id)
	}
	if err != nil {
		return g, p, err
	}
	if err := tx.Standing(c); err != nil {
		return g, p, err
	}
	if err := g.Open(tx.Now()); err != nil {
		return g, p, err
	}
	if !t.Matches(g.TokenDigest) {
		return g, p, vault.E(vault.Denied, vault.ReasonGrantToken, "the token is not the newest of grant %s; activate it again", id)
	}
	org, err := tx.Contractor(g.Contractor)
	if err != nil {
		return g, p, err
	}
	if g.Contractor != c.Org || org.Epoch != g.Epoch {
		return g, p, vault.E(vault.State, vault.ReasonGrantRevoked, "grant %s ended with a suspension of its contractor", id)
	}
	p, err = s.prove(tx, g, org)
	return g, p, err
}

// prove checks the signatures behind a grant: on its terms, on the purpose that they name, on
// the admission of its contractor. Once for each state of the rows: who writes to the
// database can not widen a grant, not even a running one.
func (s *Service) prove(tx Tx, g vault.Grant, org vault.Contractor) (vault.Purpose, error) {
	authority := s.Authority()
	rows := g.Fingerprint()
	state := vault.DigestOf(append(rows[:], org.Text()...))
	if p, ok := s.proved.Known(authority, state); ok {
		return p, nil
	}
	d, sigs, err := tx.ContractorDecision(org.Name)
	if err != nil {
		return vault.Purpose{}, err
	}
	if err := s.proved.Admitted(authority, org, d, sigs); err != nil {
		return vault.Purpose{}, err
	}
	p, err := tx.PurposeVersion(g.Purpose.Name, g.Purpose.Version)
	if err != nil {
		return vault.Purpose{}, err
	}
	earlier := func(v int) (vault.Sanction, error) { return tx.PurposeVersion(p.Purpose.Name, v) }
	if err := errors.Join(s.proved.Sanctioned(authority, p, earlier), authority.Approved(g, p.Purpose)); err != nil {
		return vault.Purpose{}, err
	}
	s.proved.Keep(authority, state, p.Purpose)
	return p.Purpose, nil
}

// admit checks the record against the grant and counts it.
func (s *Service) admit(tx Tx, c vault.Caller, g vault.Grant, p vault.Purpose, h vault.Handle) (vault.Release, error) {
	r, err := tx.Record(g.HandleKey.Record(h))
	if vault.KindOf(err) == vault.NotFound || (err == nil && !g.Covers(p, r)) {
		return vault.Release{}, vault.E(vault.NotFound, vault.ReasonHandleUnknown, "no record of grant %s has handle %s", g.Grant, h)
	}
	if err != nil {
		return vault.Release{}, err
	}
	switch r.Key {
	case vault.KeyActive:
	case vault.KeyDestroying, vault.KeyDestroyed:
		return vault.Release{}, vault.E(vault.State, vault.ReasonKeyDestroyed, "the key of %s is destroyed", h)
	default:
		return vault.Release{}, vault.E(vault.Denied, vault.ReasonKeyRevoked, "the key of %s is revoked", h)
	}
	hidden, err := s.judge(tx, g, p).sees(r)
	if err := errors.Join(err, hidden); err != nil {
		return vault.Release{}, err
	}
	refetch, err := tx.CountRelease(g, p, r)
	if err != nil {
		return vault.Release{}, err
	}
	return vault.Release{At: tx.Now(), Grant: g.Grant, Contractor: g.Contractor, Caller: c, Record: r, Refetch: refetch}, nil
}

// exceeded counts a refusal for quota or rate, and gives it. With one too many the grant ends, by an
// event of that index: a grantee that goes on regardless is out of control, whoever it is.
func exceeded(tx Tx, g vault.Grant, why error) (index int64, refused error) {
	ended, err := tx.CountExcess(g.Grant, vault.MaxExcess)
	if err != nil {
		return -1, err
	}
	if !ended {
		return -1, why
	}
	if index, err = tx.Size(); err != nil {
		return -1, err
	}
	e := vault.NewEvent(vault.EventGrantSuspended, vault.Caller{}, tx.Now())
	e.Grant, e.Contractor, e.Reason = g.Grant.String(), g.Contractor, vault.ReasonOf(why)
	if err := tx.Append(e); err != nil {
		return -1, err
	}
	return index, vault.E(vault.State, vault.ReasonGrantSuspended, "grant %s ended by itself: more than %d calls were refused for its quota or rate, one after the other", g.Grant, vault.MaxExcess)
}

// refuse records a refusal and lets the transaction commit it. Failures that are no verdict
// (storage, for one) end the transaction instead.
func refuse(tx Tx, c vault.Caller, grant vault.ID, why error) error {
	switch vault.KindOf(why) {
	case vault.Denied, vault.State, vault.NotFound, vault.Exhausted:
	default:
		return why
	}
	e := vault.NewEvent(vault.EventReleaseRefused, c, tx.Now())
	e.Grant, e.Contractor, e.Reason = grant.String(), c.Org, vault.ReasonOf(why)
	return tx.Append(e)
}

// open gets ciphertext and data key side by side and opens the image.
func (s *Service) open(ctx context.Context, t vault.Token, rel vault.Release) (vault.Image, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	r := rel.Record
	var sealed, dek []byte
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() (err error) {
		if sealed, err = s.Blobs.Get(ctx, r.ID); vault.KindOf(err) == vault.NotFound {
			err = vault.E(vault.DataLoss, vault.ReasonDataLoss, "the stored image is missing").Because(err)
		}
		return err
	})
	both.Go(func() (err error) {
		dek, err = s.Keys.Unwrap(ctx, t, r.KeyName(), r.WrappedKey)
		return err
	})
	defer func() { clear(dek) }()
	if err := both.Wait(); err != nil {
		return vault.Image{}, fmt.Errorf("open: %w", err)
	}
	image, err := envelope.Open(r, dek, sealed)
	if err != nil {
		return vault.Image{}, fmt.Errorf("open: %w", err)
	}
	return vault.Image{Modality: r.Modality, ContentType: r.ContentType, Orientation: r.Orientation, Bytes: image, Checkpoint: rel.Checkpoint}, nil
}

// unsent takes a release back in the log.
func (s *Service) unsent(ctx context.Context, rel vault.Release, why error) error {
	_, err := s.Ledger.Update(ctx, func(tx Tx) error {
		e := vault.NewEvent(vault.EventReleaseUnsent, rel.Caller, tx.Now())
		e.Grant, e.Contractor, e.Record, e.Release = rel.Grant.String(), rel.Contractor, rel.Record.ID.String(), rel.Index
		if !errors.Is(why, context.Canceled) { // then the caller had left, or was cut off
			e.Reason = vault.ReasonOf(why)
		}
		return tx.Append(e)
	})
	return err
}
