// Package wire writes the domain's words as messages of the API, and reads them back. Both
// the service and its clients use it, so that what an admin signs is what the service meant.
package wire

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

// The collections of resource names.
const (
	Grants      = "grants"
	Records     = "records"
	Purposes    = "purposes"
	Contractors = "contractors"
	Decisions   = "decisions"
)

// Name writes a resource name, such as "grants/<uuid>".
func Name(collection string, id fmt.Stringer) string { return collection + "/" + id.String() }

// ParseName reads the ID out of a resource name.
func ParseName(field, collection, name string) (vault.ID, error) {
	id, ok := strings.CutPrefix(name, collection+"/")
	if !ok {
		return vault.ID{}, vault.InvalidField(field, "must be %s/ and a UUID", collection)
	}
	return vault.ParseID(field, id)
}

// ParseSlug reads the name out of a resource name such as "purposes/<name>".
func ParseSlug(field, collection, name string) (string, error) {
	slug, ok := strings.CutPrefix(name, collection+"/")
	if !ok {
		return "", vault.InvalidField(field, "must be %s/ and a name", collection)
	}
	return slug, vault.CheckName(field, slug)
}

var modalities = map[vault.Modality]pb.Modality{
	vault.Face:  pb.Modality_MODALITY_FACE,
	vault.Plate: pb.Modality_MODALITY_PLATE,
}

// Modality writes a modality.
func Modality(m vault.Modality) pb.Modality { return modalities[m] }

// ParseModality reads a modality; an unspecified one is refused.
func ParseModality(field string, m pb.Modality) (vault.Modality, error) {
	for d, p := range modalities {
		if p == m {
			return d, nil
		}
	}
	return "", vault.InvalidField(field, "must be MODALITY_FACE or MODALITY_PLATE")
}

func writeModalities(in []vault.Modality) (out []pb.Modality) {
	for _, m := range in {
		out = append(out, Modality(m))
	}
	return out
}

func parseModalities(field string, in []pb.Modality) (out []vault.Modality, err error) {
	if len(in) > 2 {
		return nil, vault.InvalidField(field, "names %d modalities; there are two", len(in))
	}
	for i, m := range in {
		d, err := ParseModality(fmt.Sprintf("%s[%d]", field, i), m)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// parseSites bounds a list of sites before it is sorted and freed of doubles.
func parseSites(field string, in []string) ([]string, error) {
	if len(in) > vault.MaxListed {
		return nil, vault.InvalidField(field, "names %d; at most %d are allowed", len(in), vault.MaxListed)
	}
	return in, nil
}

// ParseTime reads a time, cut to the microsecond; a missing one is refused.
func ParseTime(field string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, vault.InvalidField(field, "must not be empty")
	}
	if err := t.CheckValid(); err != nil {
		return time.Time{}, vault.InvalidField(field, "is not a valid time")
	}
	return vault.Micro(t.AsTime()), nil
}

// ParseDuration reads a duration; a missing one is refused.
func ParseDuration(field string, d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, vault.InvalidField(field, "must not be empty")
	}
	if err := d.CheckValid(); err != nil {
		return 0, vault.InvalidField(field, "is not a valid duration")
	}
	return d.AsDuration(), nil
}

// Scope writes a scope.
func Scope(s vault.Scope) *pb.Scope {
	return &pb.Scope{
		Sites: s.Sites, Modalities: writeModalities(s.Modalities),
		StartTime: timestamppb.New(s.From), EndTime: timestamppb.New(s.Until),
	}
}

// ParseScope reads a scope. Its fields are present, not checked further.
func ParseScope(in *pb.Scope) (s vault.Scope, err error) {
	if in == nil {
		return s, vault.InvalidField("scope", "must not be empty")
	}
	if s.Sites, err = parseSites("scope.sites", in.Sites); err != nil {
		return s, err
	}
	if s.Modalities, err = parseModalities("scope.modalities", in.Modalities); err != nil {
		return s, err
	}
	if s.From, err = ParseTime("scope.start_time", in.StartTime); err != nil {
		return s, err
	}
	s.Until, err = ParseTime("scope.end_time", in.EndTime)
	return s, err
}

// Selection writes a selection.
func Selection(s vault.Selection) *pb.Selection {
	if s.Record != (vault.ID{}) {
		return &pb.Selection{Record: Name(Records, s.Record)}
	}
	return &pb.Selection{
		Site: s.Site, Modality: Modality(s.Modality),
		StartTime: timestamppb.New(s.From), EndTime: timestamppb.New(s.Until),
	}
}

// ParseSelection reads a selection. Its fields are present, not checked further.
func ParseSelection(in *pb.Selection) (s vault.Selection, err error) {
	if in == nil {
		return s, vault.InvalidField("selection", "must not be empty")
	}
	if in.Record != "" {
		if s.Record, err = ParseName("selection.record", Records, in.Record); err != nil {
			return s, err
		}
		if s.Record == (vault.ID{}) { // which in the domain means that none is named
			return s, vault.InvalidField("selection.record", "names no record")
		}
	}
	s.Site = in.Site
	if in.Modality != pb.Modality_MODALITY_UNSPECIFIED {
		if s.Modality, err = ParseModality("selection.modality", in.Modality); err != nil {
			return s, err
		}
	}
	if s.Record != (vault.ID{}) && in.StartTime == nil && in.EndTime == nil {
		return s, nil
	}
	if s.From, err = ParseTime("selection.start_time", in.StartTime); err != nil {
		return s, err
	}
	s.Until, err = ParseTime("selection.end_time", in.EndTime)
	return s, err
}

// Purpose writes a purpose.
func Purpose(p vault.Purpose) *pb.Purpose {
	out := &pb.Purpose{
		Name: Purposes + "/" + p.Name, Version: int32(p.Version), Title: p.Title,
		Modalities: writeModalities(p.Modalities), Sites: p.Sites,
		MaxTtl: durationpb.New(p.MaxTTL), MaxRecords: p.MaxRecords, Approvals: int32(p.Approvals),
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
		Version: int(in.Version), Title: in.Title,
		MaxRecords: in.MaxRecords, Approvals: int(in.Approvals),
	}
	if p.Name, err = ParseSlug("purpose.name", Purposes, in.Name); err != nil {
		return p, err
	}
	if p.Sites, err = parseSites("purpose.sites", in.Sites); err != nil {
		return p, err
	}
	if p.Modalities, err = parseModalities("purpose.modalities", in.Modalities); err != nil {
		return p, err
	}
	if len(in.Contractors) > vault.MaxListed {
		return p, vault.InvalidField("purpose.contractors", "names %d; at most %d are allowed", len(in.Contractors), vault.MaxListed)
	}
	for i, c := range in.Contractors {
		name, err := ParseSlug(fmt.Sprintf("purpose.contractors[%d]", i), Contractors, c)
		if err != nil {
			return p, err
		}
		p.Contractors = append(p.Contractors, name)
	}
	p.MaxTTL, err = ParseDuration("purpose.max_ttl", in.MaxTtl)
	return p, err
}

// Contractor writes a contractor.
func Contractor(c vault.Contractor) *pb.Contractor {
	out := &pb.Contractor{Name: Contractors + "/" + c.Name, Title: c.Title, Epoch: int32(c.Epoch), State: pb.Contractor_STATE_ACTIVE}
	if c.Suspended {
		out.State = pb.Contractor_STATE_SUSPENDED
	}
	return out
}

// ParseContractor reads what a client may say of a contractor: its name and title.
func ParseContractor(in *pb.Contractor) (c vault.Contractor, err error) {
	if in == nil {
		return c, vault.InvalidField("contractor", "must not be empty")
	}
	c.Title = in.Title
	c.Name, err = ParseSlug("contractor.name", Contractors, in.Name)
	return c, err
}

// Barrier writes a barrier.
func Barrier(b vault.Barrier) *pb.Barrier {
	return &pb.Barrier{
		ConnectionsReset: int32(b.Connections), SendsEnded: int32(b.Sends), Waited: durationpb.New(b.Waited),
		EventIndex: b.Index, VaultDone: b.VaultDone,
	}
}
