package vault

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Limits of what a purpose or scope may name.
const (
	MaxTTL        = 7 * 24 * time.Hour         // longest life of a grant
	MinTTL        = time.Minute                // shortest life of a grant
	MaxQuota      = 1_000_000                  // records
	MaxBytes      = 1 << 43                    // of images in the clear: MaxQuota of 8 MiB
	MaxRate       = 100_000                    // records a minute
	MinRecordAge  = time.Hour                  // the least that a purpose's MaxRecordAge may be
	MaxRecordAge  = 100 * 366 * 24 * time.Hour // the most
	MaxBucket     = 10_000                     // crossings that a bucket must have
	MaxListed     = 64                         // sites of a purpose or scope, contractors, approvers and classes of a purpose
	MaxApprovals  = 5
	MaxTitle      = 200 // bytes, also of a legal basis
	MaxWindowDays = 366 // days that a scope's window may touch
)

// DefaultMinBucket is how many crossings a time bucket must have where a purpose without
// linkage names no number: whoever joins a face to a plate by time alone then guesses right in
// one of ten cases at most.
const DefaultMinBucket = 10

// Purpose is a sanctioned use, declared by admins and versioned. A grant names one version.
// It is law: what it does not allow is refused, whoever asks.
type Purpose struct {
	Name      string
	Version   int    // 1 and up; given when the purpose is proposed
	Replaces  Digest // of the version before, which this one changes; zero for the first
	Withdrawn bool   // nothing is granted or opened for it any more

	Title      string
	LegalBasis string // the law or order that allows the use

	Modalities []Modality
	// Linkage lets a grantee know which face and plate are of one crossing.
	Linkage     bool
	Sites       []string
	Contractors []string
	MaxTTL      time.Duration // longest life of a grant
	MaxRecords  int64         // distinct records of a grant
	MaxBytes    int64         // of those records' images in the clear
	// MaxRate is how many records may leave in one minute, counted again or not. A minute begins with
	// the first record after the last one ended, so that within a moment up to twice as many leave
	// where two minutes meet.
	MaxRate      int64
	MaxRecordAge time.Duration // between a record's capture and the request, cut down to the precision's step
	Precision    Precision     // how exactly times of capture are told
	// MinBucket is how many crossings whose keys are active must share a site and time bucket for the
	// records of it to appear; 0 with linkage.
	MinBucket int
	Approvals int      // how many admins must approve each grant
	Approvers []string // names of the admins who may; any when empty
	// Strict lets Vault count, too: a grant's token opens as many keys as the grant has records.
	Strict bool
	// Live allows grants of records that are still to be captured. Without it a window is cut at
	// the time of the request: see [Purpose.Captured].
	Live bool
	// Retention are the retention classes whose records it may see.
	Retention []string
}

// Normal gives p with its lists sorted and without doubles: the form that is hashed.
func (p Purpose) Normal() Purpose {
	p.Modalities = sorted(p.Modalities)
	p.Sites = sorted(p.Sites)
	p.Contractors = sorted(p.Contractors)
	p.Approvers = sorted(p.Approvers)
	p.Retention = sorted(p.Retention)
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
	if err := CheckText("purpose.legal_basis", p.LegalBasis, MaxTitle, false); err != nil {
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
	if len(p.Approvers) > 0 {
		if err := checkNames("purpose.approvers", p.Approvers); err != nil {
			return err
		}
	}
	if err := checkNames("purpose.retention_classes", p.Retention); err != nil {
		return err
	}
	if err := p.Precision.Check("purpose.time_precision"); err != nil {
		return err
	}
	switch {
	case p.MaxTTL < MinTTL || p.MaxTTL > MaxTTL || p.MaxTTL%time.Second != 0:
		return InvalidField("purpose.max_ttl", "must be whole seconds, from %s to %s", MinTTL, MaxTTL)
	case p.MaxRecords < 1 || p.MaxRecords > MaxQuota:
		return InvalidField("purpose.max_records", "must be from 1 to %d", int64(MaxQuota))
	case p.MaxBytes < 1 || p.MaxBytes > MaxBytes:
		return InvalidField("purpose.max_bytes", "must be from 1 to %d", int64(MaxBytes))
	case p.MaxRate < 1 || p.MaxRate > MaxRate:
		return InvalidField("purpose.max_rate", "must be from 1 to %d records a minute", int64(MaxRate))
	case p.MaxRecordAge < MinRecordAge || p.MaxRecordAge > MaxRecordAge || p.MaxRecordAge%time.Second != 0:
		return InvalidField("purpose.max_record_age", "must be whole seconds, from %s to %d days", MinRecordAge, MaxRecordAge/(24*time.Hour))
	case p.Approvals < 1 || p.Approvals > MaxApprovals:
		return InvalidField("purpose.approvals", "must be from 1 to %d", MaxApprovals)
	case len(p.Approvers) > 0 && len(sorted(p.Approvers)) < p.Approvals:
		return InvalidField("purpose.approvers", "must name at least %d admins, as many as must approve; it names %d", p.Approvals, len(sorted(p.Approvers)))
	case p.Linkage && p.MinBucket != 0:
		return InvalidField("purpose.min_bucket", "must be 0 with linkage, which tells of each crossing by itself")
	case !p.Linkage && (p.MinBucket < 2 || p.MinBucket > MaxBucket):
		return InvalidField("purpose.min_bucket", "must be from 2 to %d without linkage", MaxBucket)
	case !p.Linkage && p.Precision == PrecisionExact:
		return InvalidField("purpose.time_precision", "must be hour, day or none without linkage: exact times join a face to its plate")
	}
	return nil
}

// purposeField is one field of a purpose that admins sign.
type purposeField struct {
	name string
	text func(Purpose) string
	// loosens says whether p allows in this field what old did not, or can not be told from that.
	loosens func(old, p Purpose) bool
}

// purposeFields are all fields but the name and version, in the order of the canonical form. A
// field that is not here is neither signed nor compared.
var purposeFields = []purposeField{
	{"withdrawn", flag(func(p Purpose) bool { return p.Withdrawn }), func(old, p Purpose) bool { return old.Withdrawn && !p.Withdrawn }},
	// Other words are another use: nobody can tell whether it is less.
	{"title", func(p Purpose) string { return p.Title }, func(old, p Purpose) bool { return old.Title != p.Title }},
	{"legal_basis", func(p Purpose) string { return p.LegalBasis }, func(old, p Purpose) bool { return old.LegalBasis != p.LegalBasis }},
	{"modalities", list(func(p Purpose) []Modality { return p.Modalities }), func(old, p Purpose) bool { return widens(old.Modalities, p.Modalities) }},
	{"linkage", flag(func(p Purpose) bool { return p.Linkage }), func(old, p Purpose) bool { return p.Linkage && !old.Linkage }},
	{"sites", list(func(p Purpose) []string { return p.Sites }), func(old, p Purpose) bool { return widens(old.Sites, p.Sites) }},
	{"contractors", list(func(p Purpose) []string { return p.Contractors }), func(old, p Purpose) bool { return widens(old.Contractors, p.Contractors) }},
	{"max_ttl_seconds", number(func(p Purpose) int64 { return int64(p.MaxTTL / time.Second) }), func(old, p Purpose) bool { return p.MaxTTL > old.MaxTTL }},
	{"max_records", number(func(p Purpose) int64 { return p.MaxRecords }), func(old, p Purpose) bool { return p.MaxRecords > old.MaxRecords }},
	{"max_bytes", number(func(p Purpose) int64 { return p.MaxBytes }), func(old, p Purpose) bool { return p.MaxBytes > old.MaxBytes }},
	{"max_rate", number(func(p Purpose) int64 { return p.MaxRate }), func(old, p Purpose) bool { return p.MaxRate > old.MaxRate }},
	{"max_record_age_seconds", number(func(p Purpose) int64 { return int64(p.MaxRecordAge / time.Second) }), func(old, p Purpose) bool { return p.MaxRecordAge > old.MaxRecordAge }},
	{"time_precision", func(p Purpose) string { return string(p.Precision) }, func(old, p Purpose) bool {
		// Coarser is looser, too, where wider buckets hold crossings enough that narrower ones did
		// not, or where "until now" means the end of a wider step.
		return p.Precision.finer(old.Precision) || (p.Precision.step() != old.Precision.step() && (!old.Linkage || !old.Live))
	}},
	{"min_bucket", number(func(p Purpose) int64 { return int64(p.MinBucket) }), func(old, p Purpose) bool { return p.MinBucket < old.MinBucket }},
	{"approvals", number(func(p Purpose) int64 { return int64(p.Approvals) }), func(old, p Purpose) bool { return p.Approvals < old.Approvals }},
	{"approvers", list(func(p Purpose) []string { return p.Approvers }), func(old, p Purpose) bool {
		// None named is any.
		return len(old.Approvers) > 0 && (len(p.Approvers) == 0 || widens(old.Approvers, p.Approvers))
	}},
	{"strict", flag(func(p Purpose) bool { return p.Strict }), func(old, p Purpose) bool { return old.Strict && !p.Strict }},
	{"live", flag(func(p Purpose) bool { return p.Live }), func(old, p Purpose) bool { return p.Live && !old.Live }},
	{"retention_classes", list(func(p Purpose) []string { return p.Retention }), func(old, p Purpose) bool { return widens(old.Retention, p.Retention) }},
}

func flag(get func(Purpose) bool) func(Purpose) string {
	return func(p Purpose) string { return strconv.FormatBool(get(p)) }
}

func number(get func(Purpose) int64) func(Purpose) string {
	return func(p Purpose) string { return strconv.FormatInt(get(p), 10) }
}

func list[T ~string](get func(Purpose) []T) func(Purpose) string {
	return func(p Purpose) string { return join(sorted(get(p))) }
}

// widens says whether any of now is not among old.
func widens[T comparable](old, now []T) bool {
	return slices.ContainsFunc(now, func(v T) bool { return !slices.Contains(old, v) })
}

// Text is the purpose in its one canonical form, lines of "key: value".
func (p Purpose) Text() string {
	replaces := "none"
	if p.Replaces != (Digest{}) {
		replaces = p.Replaces.String()
	}
	pairs := []string{"purpose", p.Name, "version", fmt.Sprint(p.Version), "replaces", replaces}
	for _, f := range purposeFields {
		pairs = append(pairs, f.name, f.text(p))
	}
	return lines(pairs...)
}

// Digest hashes [Purpose.Text].
func (p Purpose) Digest() Digest { return DigestOf([]byte(p.Text())) }

// Change is one field in which two versions of a purpose differ.
type Change struct {
	Field         string // as in the canonical form
	Before, After string
	Loosens       bool // it takes two admins
}

// Changes gives the fields in which p differs from old, in the order of the canonical form.
func (p Purpose) Changes(old Purpose) (out []Change) {
	for _, f := range purposeFields {
		if before, after := f.text(old), f.text(p); before != after {
			out = append(out, Change{Field: f.name, Before: before, After: after, Loosens: f.loosens(old, p)})
		}
	}
	return out
}

// Tightens says whether p allows nothing that old did not: one admin may sign it in its place.
func (p Purpose) Tightens(old Purpose) bool {
	return !slices.ContainsFunc(p.Changes(old), func(c Change) bool { return c.Loosens })
}
