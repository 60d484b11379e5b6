package grants

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// Request is what a contractor asks for.
type Request struct {
	ID      vault.ID // names the request at its workload
	Purpose string
	// Scope is a window; or Live with sites and modalities, of which the service makes the window;
	// or a List, of which it makes all the rest.
	Scope         vault.Scope
	MaxRecords    int64
	MaxBytes      int64 // 0 for as many as the purpose allows
	TTL           time.Duration
	Justification string
}

// MaxJustification is the longest justification, in bytes.
const MaxJustification = 500

func (r Request) check() error {
	if err := vault.CheckName("purpose", r.Purpose); err != nil {
		return err
	}
	if err := r.checkScope(); err != nil {
		return err
	}
	if r.MaxRecords < 1 || r.MaxRecords > vault.MaxQuota {
		return vault.InvalidField("max_records", "must be from 1 to %d", vault.MaxQuota)
	}
	if r.MaxBytes < 0 || r.MaxBytes > vault.MaxBytes {
		return vault.InvalidField("max_bytes", "must be from 1 to %d, or 0 for as many as the purpose allows", int64(vault.MaxBytes))
	}
	if r.TTL < vault.MinTTL || r.TTL > vault.MaxTTL || r.TTL%time.Second != 0 {
		return vault.InvalidField("ttl", "must be whole seconds, from %s to %s", vault.MinTTL, vault.MaxTTL)
	}
	return vault.CheckText("justification", r.Justification, MaxJustification, false)
}

// checkScope checks what of the scope there is already.
func (r Request) checkScope() error {
	s := r.Scope
	switch {
	case s.List != (vault.ID{}):
		if s.Live || len(s.Records)+len(s.Sites)+len(s.Modalities) > 0 || !s.From.IsZero() || !s.Until.IsZero() {
			return vault.InvalidField("scope", "names either record_list or sites, modalities and times, not both")
		}
		return nil
	case s.Live:
		if !s.From.IsZero() || !s.Until.IsZero() {
			return vault.InvalidField("scope", "names no times when it is live: its window is the grant's life")
		}
		// The precision of the purpose makes the window no longer than by one day on each side.
		s.From = time.Unix(0, 0)
		s.Until = s.From.Add(24 * time.Hour)
		return s.Check()
	}
	if err := s.Check(); err != nil {
		return err
	}
	return checkPaths(s)
}

// checkPaths says whether Vault's policy has room for the scope.
func checkPaths(s vault.Scope) error {
	if s.List != (vault.ID{}) {
		return nil // a list has no more records than a policy has paths
	}
	if n := len(s.KeyPrefixes()); n > vault.MaxPrefixes {
		return vault.InvalidField("scope", "needs %d paths in Vault's policy; at most %d are allowed: name fewer sites or a window of whole months", n, vault.MaxPrefixes)
	}
	return nil
}

// asks says whether a grant is what the request asked for. What the service adds to a scope is
// no part of that.
func (r Request) asks(g vault.Grant) bool {
	if g.Purpose.Name != r.Purpose || g.MaxRecords != r.MaxRecords || g.MaxBytes != r.MaxBytes ||
		g.Justification != r.Justification || g.Ends.Sub(g.RequestedAt) != r.TTL ||
		g.Scope.List != r.Scope.List || g.Scope.Live != r.Scope.Live {
		return false
	}
	if r.Scope.List != (vault.ID{}) {
		return true
	}
	want := vault.Terms{Scope: r.Scope}.Normal().Scope
	return slices.Equal(g.Scope.Sites, want.Sites) && slices.Equal(g.Scope.Modalities, want.Modalities) &&
		(want.Live || (g.Scope.From.Equal(want.From) && g.Scope.Until.Equal(want.Until)))
}

// terms are what the request asks for, without what the service adds.
func (r Request) terms(c vault.Caller, now time.Time) vault.Terms {
	return vault.Terms{
		Purpose: vault.PurposeRef{Name: r.Purpose}, Grantee: c.ID, Scope: r.Scope, MaxRecords: r.MaxRecords, MaxBytes: r.MaxBytes,
		Ends: now.Add(r.TTL), Justification: vault.DigestOf([]byte(r.Justification)),
	}.Normal()
}

// Request asks for a grant. What policy forbids is refused, with the reason and an event.
func (s *Service) Request(ctx context.Context, c vault.Caller, r Request) (g vault.Grant, err error) {
	if r.ID == (vault.ID{}) {
		return g, vault.InvalidField("request_id", "must not be empty")
	}
	if err := r.check(); err != nil {
		return g, err
	}
	var refused error
	_, err = s.Ledger.Update(ctx, func(tx Tx) error {
		refused = nil
		known, err := tx.GrantByRequest(c.ID, r.ID)
		if err == nil {
			g = known
			return again(tx, r, known)
		}
		if vault.KindOf(err) != vault.NotFound {
			return err
		}
		var against []error
		if g, against, err = s.draft(tx, c, r); err != nil {
			return err
		}
		if len(against) > 0 {
			g, refused = vault.Grant{}, against[0]
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

// again says whether a request that came before under the same ID is this one.
func again(tx Tx, r Request, known vault.Grant) error {
	p, err := tx.PurposeVersion(known.Purpose.Name, known.Purpose.Version)
	if err != nil {
		return err
	}
	if r.Scope = p.Purpose.Captured(r.Scope, known.RequestedAt); r.MaxBytes == 0 {
		r.MaxBytes = p.Purpose.MaxBytes
	}
	if !r.asks(known) {
		return vault.E(vault.Exists, vault.ReasonRequestIDReused, "request_id %s was used for another request of this workload", r.ID)
	}
	return nil
}

// Explain gives all that speaks against a request, none when it would be taken now. Nothing is
// asked for, but an event tells of the question and its answer, once a minute for a caller and the
// same reasons: nobody looks for gaps in policy unseen, nor fills the log by looking. Of other
// contractors the caller learns what it and its affiliates hold and have opened, and no more. It
// needs no request ID.
func (s *Service) Explain(ctx context.Context, c vault.Caller, r Request) (against []error, err error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	var now time.Time
	if err := s.Ledger.View(ctx, func(tx Tx) (err error) {
		now = tx.Now()
		_, against, err = s.draft(tx, c, r)
		return err
	}); err != nil {
		return nil, err
	}
	var found []vault.Reason
	for _, err := range against {
		if reason := vault.ReasonOf(err); !slices.Contains(found, reason) {
			found = append(found, reason)
		}
	}
	if k := asked(c, found); s.questions.due(k, now) {
		if _, err := s.Ledger.Update(ctx, func(tx Tx) error {
			e := vault.NewEvent(vault.EventGrantExplained, c, tx.Now())
			e.Contractor, e.Terms, e.Reasons = c.Org, r.terms(c, now).Text(), found
			return tx.Append(e)
		}); err != nil {
			s.questions.forget(k)
			return nil, err
		}
	}
	return against, nil
}

// draft makes the grant that a request asks for, and gives all that speaks against it. err is
// what is no verdict: a request that is malformed, or storage that fails.
func (s *Service) draft(tx Tx, c vault.Caller, r Request) (g vault.Grant, against []error, err error) {
	verdict := func(err error) (vault.Grant, []error, error) {
		if !decides(err) {
			return g, nil, err
		}
		return g, []error{err}, nil
	}
	if err := tx.Standing(c); err != nil {
		return verdict(err)
	}
	org, err := s.contractor(tx, c.Org)
	if err != nil {
		return verdict(err)
	}
	p, err := s.purpose(tx, r.Purpose)
	if err != nil {
		return verdict(err)
	}
	if !slices.Contains(p.Contractors, c.Org) {
		// It is others': nothing more is told of it.
		return g, p.Refusals(c.Org, vault.Terms{Purpose: ref(p), Approvals: p.Approvals, Scope: nowhere(p, tx.Now())}, tx.Now()), nil
	}
	now := tx.Now()
	g = vault.Grant{
		Terms: r.terms(c, now),
		State: vault.GrantPending, Contractor: c.Org, Justification: r.Justification, RequestedAt: now,
	}
	g.Grant, g.Epoch, g.Approvals, g.Purpose = vault.NewID(), org.Epoch, p.Approvals, ref(p)
	if g.MaxBytes == 0 {
		g.MaxBytes = p.MaxBytes
	}
	if _, err := rand.Read(g.HandleKey[:]); err != nil {
		return g, nil, err
	}
	var listed []error
	if g.Scope, listed, err = s.scope(tx, c.Org, p, r.Scope, now, g.Ends); err != nil {
		return g, nil, err
	}
	known := len(g.Scope.Sites) > 0
	if !known { // a list that is unknown; what is wrong besides is told all the same
		g.Scope = nowhere(p, now)
	}
	if against = append(p.Refusals(c.Org, g.Terms, now), listed...); !known {
		return g, against, nil
	}
	if err := s.apart(tx, p, g, anyLive); err != nil {
		if !decides(err) {
			return g, nil, err
		}
		against = append(against, err)
	}
	return g, against, nil
}

func ref(p vault.Purpose) vault.PurposeRef {
	return vault.PurposeRef{Name: p.Name, Version: p.Version, Digest: p.Digest()}
}

// nowhere is a scope of which no rule of a purpose speaks.
func nowhere(p vault.Purpose, now time.Time) vault.Scope {
	return vault.Scope{From: p.Precision.Floor(now), Until: p.Precision.Floor(now)}
}

// decides says whether an error is a verdict on what was asked, and not a failure to come to one.
func decides(err error) bool {
	switch vault.KindOf(err) {
	case vault.Denied, vault.State, vault.NotFound:
		return true
	}
	return false
}

// scope gives what a grant of the purpose, that ends then, would cover of what is wanted. What
// speaks against a list comes besides; of an unknown one there is no scope.
func (s *Service) scope(tx Tx, org string, p vault.Purpose, want vault.Scope, now, ends time.Time) (out vault.Scope, against []error, err error) {
	switch {
	case want.List != (vault.ID{}):
		if out, against, err = listed(tx, org, p, want.List); err != nil || len(out.Sites) == 0 {
			return out, against, err
		}
	case want.Live:
		if out = p.Precision.LiveScope(want, now, ends); !out.From.Before(out.Until) {
			step, first := vault.PrecisionDay, p.Precision.Ceil(out.From.Add(1))
			if p.Precision == vault.PrecisionHour {
				step = p.Precision
			}
			if p.Live {
				return out, nil, vault.InvalidField("ttl", "is too short: a live grant of purpose %s covers whole %ss in UTC, the first of which ends at %s",
					p.Name, step, vault.FormatTime(first))
			}
			out.Until = first // no length of life would do: the purpose says why
		}
	default:
		return p.Captured(want, now), nil, nil
	}
	out = vault.Terms{Scope: out}.Normal().Scope
	if err := out.Check(); err != nil {
		return out, nil, err
	}
	return out, against, checkPaths(out)
}

// listed gives the scope of a list, and all that speaks against granting it.
func listed(tx Tx, org string, p vault.Purpose, id vault.ID) (out vault.Scope, against []error, err error) {
	l, err := tx.RecordList(id)
	if vault.KindOf(err) == vault.NotFound || (err == nil && l.Contractor != org) {
		return out, []error{vault.E(vault.NotFound, vault.ReasonListUnknown, "list %s is unknown, or not yours", id)}, nil
	}
	if err != nil {
		return out, nil, err
	}
	records, err := tx.RecordsOf(l.Records)
	if err != nil {
		return out, nil, err
	}
	if len(records) < len(l.Records) {
		// Which of them is not the contractor's to know.
		return out, []error{vault.E(vault.NotFound, vault.ReasonRecordUnknown, "list %s names records that there are not", id)}, nil
	}
	var classes []string
	for _, r := range records {
		if err := p.AllowsRecord(r); err != nil && !slices.Contains(classes, r.Class) {
			classes, against = append(classes, r.Class), append(against, err)
		}
	}
	out = p.Precision.ListScope(id, records)
	return out, append(against, crowded(p, records)...), nil
}

// crowded refuses a list of which a bucket has too few crossings whose keys are active, for such
// records never appear: whoever is given a list sees no others that they could be taken for.
func crowded(p vault.Purpose, records []vault.Record) []error {
	for _, n := range p.CrossingsOf(records) {
		if n < int64(p.MinBucket) {
			return []error{vault.E(vault.Denied, vault.ReasonBucketSmall, "purpose %s (version %d) shows records only where %d crossings of the list share site and time", p.Name, p.Version, p.MinBucket)}
		}
	}
	return nil
}

// purpose gives the newest version of a purpose, proved to be what admins sanctioned.
func (s *Service) purpose(tx Tx, name string) (vault.Purpose, error) {
	p, err := tx.Purpose(name)
	if err != nil {
		return p.Purpose, err
	}
	return p.Purpose, s.sanctioned(tx, p)
}

func (s *Service) sanctioned(tx Tx, p vault.Sanction) error {
	return s.proved.Sanctioned(s.Authority(), p, func(v int) (vault.Sanction, error) { return tx.PurposeVersion(p.Purpose.Name, v) })
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
	return c, s.proved.Admitted(s.Authority(), c, d, sigs)
}
