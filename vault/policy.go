package vault

import (
	"fmt"
	"slices"
	"time"
)

// Sees says whether the purpose may see records of this one's retention class.
func (p Purpose) Sees(r Record) bool { return slices.Contains(p.Retention, r.Class) }

// Allows says whether the purpose lets its contractor org have a grant of these terms, asked
// for at the time given. The error is Denied, the first of [Purpose.Refusals].
func (p Purpose) Allows(org string, t Terms, at time.Time) error {
	if refused := p.Refusals(org, t, at); len(refused) > 0 {
		return refused[0]
	}
	return nil
}

// Refusals gives all that speaks against a grant of these terms, each Denied with a reason of
// its own. What others hold is no part of it: see [ConflictRule].
func (p Purpose) Refusals(org string, t Terms, at time.Time) (out []error) {
	deny := func(r Reason, format string, args ...any) {
		out = append(out, E(Denied, r, "purpose %s (version %d) %s", p.Name, p.Version, fmt.Sprintf(format, args...)))
	}
	if p.Withdrawn {
		deny(ReasonPurposeWithdrawn, "was withdrawn")
	}
	if t.Purpose.Version != p.Version || t.Purpose.Digest != p.Digest() {
		deny(ReasonPurposeChanged, "is not the version that the grant's terms name")
	}
	if !slices.Contains(p.Contractors, org) {
		deny(ReasonPurposeContractor, "does not allow contractor %s", org)
	}
	for _, m := range t.Scope.Modalities {
		if !slices.Contains(p.Modalities, m) {
			deny(ReasonPurposeModality, "does not allow %s images; it allows %s", m, join(p.Modalities))
		}
	}
	if len(sorted(t.Scope.Modalities)) > 1 && !p.Linkage {
		deny(ReasonPurposeLinkage, "does not allow faces and plates in one grant: it has no linkage")
	}
	for _, s := range t.Scope.Sites {
		if !slices.Contains(p.Sites, s) {
			deny(ReasonPurposeSite, "does not allow site %s; it allows %s", s, join(p.Sites))
		}
	}
	if d := t.Ends.Sub(at); d > p.MaxTTL {
		deny(ReasonPurposeDuration, "allows grants of at most %s; %s were asked for", p.MaxTTL, d)
	}
	if t.MaxRecords > p.MaxRecords {
		deny(ReasonPurposeQuota, "allows at most %d records; %d were asked for", p.MaxRecords, t.MaxRecords)
	}
	if t.MaxBytes > p.MaxBytes {
		deny(ReasonPurposeBytes, "allows at most %d bytes of images; %d were asked for", p.MaxBytes, t.MaxBytes)
	}
	// Cut upwards: a coarser precision must not reach further back.
	if oldest := p.Precision.Ceil(at.Add(-p.MaxRecordAge)); t.Scope.From.Before(oldest) {
		deny(ReasonPurposeAge, "allows records captured from %s on", FormatTime(oldest))
	}
	if !t.Scope.From.Equal(p.Precision.Floor(t.Scope.From)) || !t.Scope.Until.Equal(p.Precision.Floor(t.Scope.Until)) {
		deny(ReasonPurposeWindow, "tells times to %s: the window must begin and end on a whole %s in UTC", precisionWords[p.Precision].told, precisionWords[p.Precision].whole)
	}
	if !p.Live && (t.Scope.Live || t.Scope.List == (ID{}) && t.Scope.Until.After(p.Precision.Ceil(at))) {
		deny(ReasonPurposeLive, "does not allow records that are still to be captured")
	}
	if t.Approvals < p.Approvals {
		deny(ReasonApprovalsMissing, "wants %d approvals; the terms name %d", p.Approvals, t.Approvals)
	}
	return out
}

// Captured cuts a scope to what was captured by now, and the rest of the step of the precision,
// unless the purpose allows live grants. What nothing would be left of stays as it is, and so does
// a list, whose records are there.
func (p Purpose) Captured(s Scope, now time.Time) Scope {
	if end := p.Precision.Ceil(now); !p.Live && !s.Live && s.List == (ID{}) && s.Until.After(end) && s.From.Before(end) {
		s.Until = end
	}
	return s
}

var precisionWords = map[Precision]struct{ told, whole string }{
	PrecisionExact: {"the microsecond", "microsecond"},
	PrecisionHour:  {"the hour", "hour"},
	PrecisionDay:   {"the day", "day"},
	PrecisionNone:  {"nobody", "day"},
}

// AllowsRecord says whether the purpose may see a record that a list names. The error is Denied.
func (p Purpose) AllowsRecord(r Record) error {
	if !p.Sees(r) {
		return E(Denied, ReasonPurposeClass, "purpose %s (version %d) does not allow records of retention class %s", p.Name, p.Version, r.Class)
	}
	return nil
}

// AllowsApprover says whether the purpose lets this admin approve its grants. The error is
// Denied.
func (p Purpose) AllowsApprover(c Caller) error {
	if len(p.Approvers) > 0 && !slices.Contains(p.Approvers, c.Name) {
		return E(Denied, ReasonPurposeApprover, "purpose %s (version %d) is approved by %s, not by %s", p.Name, p.Version, join(p.Approvers), c.Name)
	}
	return nil
}

// Claim is what a contractor may open under a live grant, or has opened under any: images of
// sites and modalities on days. It is counted in whole days in UTC.
type Claim struct {
	Contractor  string
	Grant       ID // zero for what was opened
	Purpose     string
	Linkage     bool // of the purpose's version that it was granted for
	Sites       []string
	Modalities  []Modality
	From, Until time.Time
}

// Claims gives what a grant of these terms would claim for org.
func (p Purpose) Claims(org string, t Terms) Claim {
	return Claim{
		Contractor: org, Grant: t.Grant, Purpose: p.Name, Linkage: p.Linkage,
		Sites: t.Scope.Sites, Modalities: t.Scope.Modalities, From: t.Scope.From, Until: t.Scope.Until,
	}
}

// ConflictRule is the rule that keeps faces and plates apart (a Chinese wall, after Brewer and Nash):
// one contractor, its affiliates with it, does not come to both the faces and the plates of one
// site and day, unless all of them under one purpose that allows linkage. held is what they hold
// and have opened. The error is Denied.
func ConflictRule(want Claim, held []Claim) error {
	for _, h := range held {
		if h.Grant != (ID{}) && h.Grant == want.Grant {
			continue
		}
		if h.Purpose == want.Purpose && h.Linkage && want.Linkage {
			continue
		}
		site, shared := overlap(want, h)
		if !shared || !slices.ContainsFunc(want.Modalities, func(m Modality) bool { return slices.Contains(h.Modalities, other(m)) }) {
			continue
		}
		day := want.From
		if h.From.After(day) {
			day = h.From
		}
		how := "has opened"
		if h.Grant != (ID{}) {
			how = "may open"
		}
		return E(Denied, ReasonConflictRule, "%s %s the other half of site %s on %s, under purpose %s: faces and plates come together only under one purpose with linkage",
			h.Contractor, how, site, day.UTC().Format(time.DateOnly), h.Purpose)
	}
	return nil
}

// overlap gives a site of which both claims name a common day.
func overlap(a, b Claim) (string, bool) {
	for _, s := range a.Sites {
		if slices.Contains(b.Sites, s) {
			day := PrecisionDay
			return s, day.Floor(a.From).Before(day.Ceil(b.Until)) && day.Floor(b.From).Before(day.Ceil(a.Until))
		}
	}
	return "", false
}

func other(m Modality) Modality {
	if m == Face {
		return Plate
	}
	return Face
}
