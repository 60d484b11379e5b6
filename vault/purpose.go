package vault

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Limits of what a purpose or scope may name.
const (
	MaxTTL        = 7 * 24 * time.Hour // longest life of a grant
	MinTTL        = time.Minute        // shortest life of a grant
	MaxQuota      = 1_000_000          // records
	MaxListed     = 64                 // sites of a purpose or scope, contractors of a purpose
	MaxApprovals  = 5
	MaxTitle      = 200 // bytes
	MaxWindowDays = 366 // days that a scope's window may touch
)

// Purpose is a sanctioned use, declared by admins and versioned. A grant names one version.
type Purpose struct {
	Name        string
	Version     int // 1 and up; given when the purpose is proposed
	Title       string
	Modalities  []Modality
	Sites       []string
	Contractors []string
	MaxTTL      time.Duration
	MaxRecords  int64
	Approvals   int // how many admins must approve each grant
}

// Normal gives p with its lists sorted and without doubles: the form that is hashed.
func (p Purpose) Normal() Purpose {
	p.Modalities = sorted(p.Modalities)
	p.Sites = sorted(p.Sites)
	p.Contractors = sorted(p.Contractors)
	return p
}

// Check says whether p is well-formed.
func (p Purpose) Check() error {
	if err := CheckName("purpose.name", p.Name); err != nil {
		return err
	}
	if err := CheckText("purpose.title", p.Title, MaxTitle, false); err != nil {
		return err
	}
	if err := checkModalities("purpose.modalities", p.Modalities); err != nil {
		return err
	}
	if err := checkNames("purpose.sites", p.Sites); err != nil {
		return err
	}
	if err := checkNames("purpose.contractors", p.Contractors); err != nil {
		return err
	}
	switch {
	case p.MaxTTL < MinTTL || p.MaxTTL > MaxTTL || p.MaxTTL%time.Second != 0:
		return InvalidField("purpose.max_ttl", "must be whole seconds, from %s to %s", MinTTL, MaxTTL)
	case p.MaxRecords < 1 || p.MaxRecords > MaxQuota:
		return InvalidField("purpose.max_records", "must be from 1 to %d", int64(MaxQuota))
	case p.Approvals < 1 || p.Approvals > MaxApprovals:
		return InvalidField("purpose.approvals", "must be from 1 to %d", MaxApprovals)
	}
	return nil
}

// Text is the purpose in its one canonical form, lines of "key: value".
func (p Purpose) Text() string {
	p = p.Normal()
	return lines(
		"purpose", p.Name,
		"version", fmt.Sprint(p.Version),
		"title", p.Title,
		"modalities", join(p.Modalities),
		"sites", join(p.Sites),
		"contractors", join(p.Contractors),
		"max_ttl_seconds", fmt.Sprint(int64(p.MaxTTL/time.Second)),
		"max_records", fmt.Sprint(p.MaxRecords),
		"approvals", fmt.Sprint(p.Approvals),
	)
}

// Digest hashes [Purpose.Text].
func (p Purpose) Digest() Digest { return DigestOf([]byte(p.Text())) }

// Allows says whether the purpose lets its contractor org have a grant of these terms,
// asked for at the time given. The error is Denied, with the reason.
func (p Purpose) Allows(org string, t Terms, at time.Time) error {
	deny := func(r Reason, format string, args ...any) error {
		return E(Denied, r, "purpose %s (version %d) %s", p.Name, p.Version, fmt.Sprintf(format, args...))
	}
	if t.Purpose.Version != p.Version || t.Purpose.Digest != p.Digest() {
		return deny(ReasonPurposeChanged, "is not the version that the grant's terms name")
	}
	if !slices.Contains(p.Contractors, org) {
		return deny(ReasonPurposeContractor, "does not allow contractor %s", org)
	}
	for _, m := range t.Scope.Modalities {
		if !slices.Contains(p.Modalities, m) {
			return deny(ReasonPurposeModality, "does not allow %s images; it allows %s", m, join(p.Modalities))
		}
	}
	for _, s := range t.Scope.Sites {
		if !slices.Contains(p.Sites, s) {
			return deny(ReasonPurposeSite, "does not allow site %s; it allows %s", s, join(p.Sites))
		}
	}
	if d := t.Ends.Sub(at); d > p.MaxTTL {
		return deny(ReasonPurposeDuration, "allows grants of at most %s; %s were asked for", p.MaxTTL, d)
	}
	if t.MaxRecords > p.MaxRecords {
		return deny(ReasonPurposeQuota, "allows at most %d records; %d were asked for", p.MaxRecords, t.MaxRecords)
	}
	if t.Approvals < p.Approvals {
		return deny(ReasonApprovalsMissing, "wants %d approvals; the terms name %d", p.Approvals, t.Approvals)
	}
	return nil
}

// Contractor is an organisation that may ask for grants.
type Contractor struct {
	Name      string // the <org> of its workloads' SPIFFE IDs
	Title     string
	Suspended bool
	Epoch     int // 1 and up; a suspension ends an epoch, and grants of an ended epoch never revive
}

// Check says whether c is well-formed.
func (c Contractor) Check() error {
	if err := CheckName("contractor.name", c.Name); err != nil {
		return err
	}
	return CheckText("contractor.title", c.Title, MaxTitle, false)
}

// Text is what admins sign to admit the contractor.
func (c Contractor) Text() string {
	return lines("contractor", c.Name, "title", c.Title, "epoch", fmt.Sprint(c.Epoch))
}

func sorted[T ~string](in []T) []T {
	out := slices.Clone(in)
	slices.Sort(out)
	return slices.Compact(out)
}

func join[T ~string](in []T) string {
	parts := make([]string, len(in))
	for i, s := range in {
		parts[i] = string(s)
	}
	return strings.Join(parts, ",")
}

// lines writes "key: value" lines. The values were checked to hold no line break.
func lines(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		b.WriteString(pairs[i] + ": " + pairs[i+1] + "\n")
	}
	return b.String()
}

func checkModalities(field string, in []Modality) error {
	if len(in) == 0 {
		return InvalidField(field, "must name face, plate or both")
	}
	if len(in) > 2 {
		return InvalidField(field, "names %d modalities; there are two", len(in))
	}
	for _, m := range in {
		if err := CheckModality(field, m); err != nil {
			return err
		}
	}
	return nil
}

func checkNames(field string, in []string) error {
	if len(in) == 0 {
		return InvalidField(field, "must name at least one")
	}
	if len(in) > MaxListed {
		return InvalidField(field, "names %d; at most %d are allowed", len(in), MaxListed)
	}
	for i, s := range in {
		if err := CheckName(fmt.Sprintf("%s[%d]", field, i), s); err != nil {
			return err
		}
	}
	return nil
}
