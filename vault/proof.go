package vault

import "time"

// Sanctioned proves that a purpose is what admins signed.
func (a Authority) Sanctioned(p Purpose, d Decision, sigs []Signature) error {
	return a.inForce(d, sigs, ApplyPurpose, p.Text(), "purpose "+p.Name)
}

// Admitted proves that a contractor, in its epoch, is what admins signed.
func (a Authority) Admitted(c Contractor, d Decision, sigs []Signature) error {
	return a.inForce(d, sigs, ApplyContractor, c.Text(), "contractor "+c.Name)
}

// inForce proves that enough admins signed a decision of the kind, with the body that what
// is stored gives.
func (a Authority) inForce(d Decision, sigs []Signature, k DecisionKind, body, what string) error {
	err := a.Decided(d, sigs, LooseningSigners)
	if err == nil && d.Kind == k && d.Body == body {
		return nil
	}
	return E(Denied, ReasonDecisionTampered, "%s is not what admins signed", what).Because(err)
}

// Approved proves that a grant is what its approvers signed, and that the purpose which its
// terms name, itself proved, allows it: how many must approve is the purpose's to say, not
// the grant's.
func (a Authority) Approved(g Grant, p Purpose) error {
	c, err := ParseCaller(a.TrustDomain, g.Grantee)
	if err == nil {
		err = a.Decided(g.Decision(), g.Signatures, g.Approvals, g.Grantee)
	}
	if err == nil {
		err = p.Allows(g.Contractor, g.Terms, g.asked())
	}
	if err == nil && c.Org == g.Contractor {
		return nil
	}
	return E(Denied, ReasonGrantTampered, "grant %s is not what its approvers signed", g.Grant).Because(err)
}

// asked is when a grant was asked for, at the latest: nobody signs what was not there yet,
// and the time of a signature is signed, that of the request is not.
func (g Grant) asked() time.Time {
	at := g.RequestedAt
	for _, s := range g.Signatures {
		if s.SignedAt.Before(at) {
			at = s.SignedAt
		}
	}
	return at
}
