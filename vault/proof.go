package vault

import "time"

// Sanction is one version of a purpose, and the decision that sanctioned it.
type Sanction struct {
	Purpose    Purpose
	Decision   Decision
	Signatures []Signature
}

// Sanctioned proves that a purpose is what admins signed: two of them, or one if it only
// tightens the version that it names as the one before, which earlier gives and which is proved
// alike.
func (a Authority) Sanctioned(s Sanction, earlier func(version int) (Sanction, error)) error {
	return a.sanctioned(s, earlier, func(Sanction) bool { return false })
}

// sanctioned ends at the first version that was proved before.
func (a Authority) sanctioned(s Sanction, earlier func(version int) (Sanction, error), proved func(Sanction) bool) error {
	for {
		if proved(s) {
			return nil
		}
		err := a.Decided(s.Decision, s.Signatures, LooseningSigners)
		if err == nil {
			return a.inForce(s, nil)
		}
		if a.Decided(s.Decision, s.Signatures, 1) != nil || s.Purpose.Version < 2 {
			return a.inForce(s, err)
		}
		before, failed := earlier(s.Purpose.Version - 1)
		if failed != nil && KindOf(failed) != NotFound {
			return failed
		}
		if failed != nil || before.Purpose.Name != s.Purpose.Name || before.Purpose.Version != s.Purpose.Version-1 ||
			s.Purpose.Replaces != before.Purpose.Digest() || !s.Purpose.Tightens(before.Purpose) {
			return a.inForce(s, err)
		}
		if err := a.inForce(s, nil); err != nil {
			return err
		}
		s = before
	}
}

// inForce says whether the decision is over the purpose as it stands.
func (a Authority) inForce(s Sanction, why error) error {
	return decidedOn(s.Decision, ApplyPurpose, s.Purpose.Text(), "purpose "+s.Purpose.Name, why)
}

// Admitted proves that a contractor, in its epoch, is what admins signed.
func (a Authority) Admitted(c Contractor, d Decision, sigs []Signature) error {
	return decidedOn(d, ApplyContractor, c.Text(), "contractor "+c.Name, a.Decided(d, sigs, LooseningSigners))
}

// decidedOn says whether a decision is of the kind, with the body that what is stored gives, and
// was signed as it should: signed tells what speaks against that.
func decidedOn(d Decision, k DecisionKind, body, what string, signed error) error {
	if signed == nil && d.Kind == k && d.Body == body {
		return nil
	}
	return E(Denied, ReasonDecisionTampered, "%s is not what admins signed", what).Because(signed)
}

// Approved proves that a grant is what its approvers signed, and that the purpose which its
// terms name, itself proved, allows it and them: how many must approve, and who may, is the
// purpose's to say, not the grant's.
func (a Authority) Approved(g Grant, p Purpose) error {
	c, err := ParseCaller(a.TrustDomain, g.Grantee)
	if err == nil {
		err = a.Decided(g.Decision(), g.Signatures, max(g.Approvals, p.Approvals), g.Grantee)
	}
	if err == nil {
		err = p.Allows(g.Contractor, g.Terms, g.asked())
	}
	for _, s := range g.Signatures {
		if err == nil {
			err = a.mayApprove(p, s)
		}
	}
	if err == nil && c.Org == g.Contractor {
		return nil
	}
	return E(Denied, ReasonGrantTampered, "grant %s is not what its approvers signed", g.Grant).Because(err)
}

// mayApprove says whether the purpose lets the signer of a signature approve.
func (a Authority) mayApprove(p Purpose, s Signature) error {
	c, err := ParseCaller(a.TrustDomain, s.Signer)
	if err != nil {
		return err
	}
	return p.AllowsApprover(c)
}

// asked is when a grant was asked for, at the latest: nobody signs what was not there yet,
// and the time of a signature is signed, that of the request is not. A signer's clock may be
// [SignatureSkew] slow.
func (g Grant) asked() time.Time {
	at := g.RequestedAt
	for _, s := range g.Signatures {
		if latest := s.SignedAt.Add(SignatureSkew); latest.Before(at) {
			at = latest
		}
	}
	return at
}
