package wire

import (
	"fmt"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

var precisions = map[vault.Precision]pb.TimePrecision{
	vault.PrecisionExact: pb.TimePrecision_TIME_PRECISION_EXACT,
	vault.PrecisionHour:  pb.TimePrecision_TIME_PRECISION_HOUR,
	vault.PrecisionDay:   pb.TimePrecision_TIME_PRECISION_DAY,
	vault.PrecisionNone:  pb.TimePrecision_TIME_PRECISION_NONE,
}

// Precision writes a precision.
func Precision(p vault.Precision) pb.TimePrecision { return precisions[p] }

// ParsePrecision reads a precision; an unspecified one is refused.
func ParsePrecision(field string, p pb.TimePrecision) (vault.Precision, error) {
	for d, w := range precisions {
		if w == p {
			return d, nil
		}
	}
	return "", vault.InvalidField(field, "must be TIME_PRECISION_EXACT, _HOUR, _DAY or _NONE")
}

// Purpose writes a purpose.
func Purpose(p vault.Purpose) *pb.Purpose {
	out := &pb.Purpose{
		Name: Purposes + "/" + p.Name, Version: int32(p.Version), Withdrawn: p.Withdrawn,
		Title: p.Title, LegalBasis: p.LegalBasis,
		Modalities: writeModalities(p.Modalities), Linkage: p.Linkage, Sites: p.Sites,
		MaxTtl: durationpb.New(p.MaxTTL), MaxRecords: p.MaxRecords, MaxBytes: p.MaxBytes, MaxRate: p.MaxRate,
		MaxRecordAge: durationpb.New(p.MaxRecordAge), TimePrecision: Precision(p.Precision), MinBucket: int32(p.MinBucket),
		Approvals: int32(p.Approvals), Approvers: p.Approvers, Strict: p.Strict, Live: p.Live, RetentionClasses: p.Retention,
	}
	if p.Replaces != (vault.Digest{}) {
		out.Replaces = p.Replaces.String()
	}
	for _, c := range p.Contractors {
		out.Contractors = append(out.Contractors, Contractors+"/"+c)
	}
	return out
}

// ParsePurpose reads a purpose. Its fields are present, not checked further.
func ParsePurpose(in *pb.Purpose) (p vault.Purpose, err error) {
	if in == nil {
		return p, vault.InvalidField("purpose", "must not be empty")
	}
	p = vault.Purpose{
		Version: int(in.Version), Withdrawn: in.Withdrawn, Title: in.Title, LegalBasis: in.LegalBasis,
		Linkage: in.Linkage, MaxRecords: in.MaxRecords, MaxBytes: in.MaxBytes, MaxRate: in.MaxRate, MinBucket: int(in.MinBucket),
		Approvals: int(in.Approvals), Strict: in.Strict, Live: in.Live,
	}
	if p.Name, err = ParseSlug("purpose.name", Purposes, in.Name); err != nil {
		return p, err
	}
	if in.Replaces != "" {
		if p.Replaces, err = ParseDigest("purpose.replaces", in.Replaces); err != nil {
			return p, err
		}
	}
	if p.Modalities, err = parseModalities("purpose.modalities", in.Modalities); err != nil {
		return p, err
	}
	for _, l := range []struct {
		field string
		to    *[]string
		from  []string
	}{
		{"purpose.sites", &p.Sites, in.Sites}, {"purpose.approvers", &p.Approvers, in.Approvers},
		{"purpose.retention_classes", &p.Retention, in.RetentionClasses},
	} {
		if *l.to, err = bounded(l.field, l.from); err != nil {
			return p, err
		}
	}
	contractors, err := bounded("purpose.contractors", in.Contractors)
	if err != nil {
		return p, err
	}
	for i, c := range contractors {
		name, err := ParseSlug(fmt.Sprintf("purpose.contractors[%d]", i), Contractors, c)
		if err != nil {
			return p, err
		}
		p.Contractors = append(p.Contractors, name)
	}
	if p.Precision, err = ParsePrecision("purpose.time_precision", in.TimePrecision); err != nil {
		return p, err
	}
	if p.MaxTTL, err = ParseDuration("purpose.max_ttl", in.MaxTtl); err != nil {
		return p, err
	}
	p.MaxRecordAge, err = ParseDuration("purpose.max_record_age", in.MaxRecordAge)
	return p, err
}

// Contractor writes a contractor.
func Contractor(c vault.Contractor) *pb.Contractor {
	out := &pb.Contractor{
		Name: Contractors + "/" + c.Name, Title: c.Title, Epoch: int32(c.Epoch), State: pb.Contractor_STATE_ACTIVE,
		ConflictGroup: c.Normal().Group,
	}
	if c.Suspended {
		out.State = pb.Contractor_STATE_SUSPENDED
	}
	return out
}

// ParseContractor reads what a client may say of a contractor: its name, title and group, which is
// its own when none is named.
func ParseContractor(in *pb.Contractor) (c vault.Contractor, err error) {
	if in == nil {
		return c, vault.InvalidField("contractor", "must not be empty")
	}
	c.Title, c.Group = in.Title, in.ConflictGroup
	c.Name, err = ParseSlug("contractor.name", Contractors, in.Name)
	return c.Normal(), err
}
