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
	Lists       = "lists"
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

// bounded refuses a list that is too long before it is sorted and freed of doubles.
func bounded(field string, in []string) ([]string, error) {
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
	out := &pb.Scope{
		Sites: s.Sites, Modalities: writeModalities(s.Modalities),
		StartTime: timestamppb.New(s.From), EndTime: timestamppb.New(s.Until), Live: s.Live,
	}
	if s.List != (vault.ID{}) {
		out.RecordList = Name(Lists, s.List)
	}
	for _, id := range s.Records {
		out.Records = append(out.Records, Name(Records, id))
	}
	return out
}

// ParseScope reads a scope. Its fields are present, not checked further.
func ParseScope(in *pb.Scope) (s vault.Scope, err error) {
	if s, err = parseScope(in); err != nil {
		return s, err
	}
	if s.From, err = ParseTime("scope.start_time", in.StartTime); err != nil {
		return s, err
	}
	s.Until, err = ParseTime("scope.end_time", in.EndTime)
	return s, err
}

// Wanted writes the scope that a request names, as [ParseWanted] reads it.
func Wanted(s vault.Scope) *pb.Scope {
	out := Scope(s)
	if s.Live || s.List != (vault.ID{}) {
		out.StartTime, out.EndTime = nil, nil
	}
	return out
}

// ParseWanted reads the scope that a request names: of a live one, or one of a list, the service
// adds the rest.
func ParseWanted(in *pb.Scope) (vault.Scope, error) {
	s, err := parseScope(in)
	switch {
	case err != nil:
		return s, err
	case len(s.Records) > 0:
		return s, vault.InvalidField("scope.records", "must be empty: an admin makes the list")
	case s.List != (vault.ID{}):
		if len(s.Sites) > 0 || len(s.Modalities) > 0 || s.Live || in.StartTime != nil || in.EndTime != nil {
			return s, vault.InvalidField("scope", "names either record_list or sites, modalities and times, not both")
		}
		return s, nil
	case s.Live:
		if in.StartTime != nil || in.EndTime != nil {
			return s, vault.InvalidField("scope", "names no times when it is live: its window is the grant's life")
		}
		return s, nil
	}
	return ParseScope(in)
}

// parseScope reads all of a scope but its times.
func parseScope(in *pb.Scope) (s vault.Scope, err error) {
	if in == nil {
		return s, vault.InvalidField("scope", "must not be empty")
	}
	if s.Sites, err = bounded("scope.sites", in.Sites); err != nil {
		return s, err
	}
	if s.Modalities, err = parseModalities("scope.modalities", in.Modalities); err != nil {
		return s, err
	}
	s.Live = in.Live
	if in.RecordList != "" {
		if s.List, err = ParseName("scope.record_list", Lists, in.RecordList); err != nil {
			return s, err
		}
		if s.List == (vault.ID{}) { // which in the domain means that none is named
			return s, vault.InvalidField("scope.record_list", "names no list")
		}
	}
	s.Records, err = ParseRecords("scope.records", in.Records)
	return s, err
}

// ParseRecords reads names of records, at most as many as a list may have.
func ParseRecords(field string, in []string) (out []vault.ID, err error) {
	if len(in) > vault.MaxRecordList {
		return nil, vault.InvalidField(field, "names %d; at most %d are allowed", len(in), vault.MaxRecordList)
	}
	for i, name := range in {
		id, err := ParseName(fmt.Sprintf("%s[%d]", field, i), Records, name)
		if err != nil {
			return nil, err
		}
		out = append(out, id)
	}
	return out, nil
}

// RecordList writes a list of records.
func RecordList(l vault.RecordList) *pb.RecordList {
	out := &pb.RecordList{Name: Name(Lists, l.ID), Contractor: Contractors + "/" + l.Contractor, CreatedBy: l.By, CreateTime: timestamppb.New(l.At)}
	for _, id := range l.Records {
		out.Records = append(out.Records, Name(Records, id))
	}
	return out
}

// ParseRecordList reads what an admin may say of a list: its contractor and records.
func ParseRecordList(in *pb.RecordList) (l vault.RecordList, err error) {
	if in == nil {
		return l, vault.InvalidField("record_list", "must not be empty")
	}
	if l.Contractor, err = ParseSlug("record_list.contractor", Contractors, in.Contractor); err != nil {
		return l, err
	}
	l.Records, err = ParseRecords("record_list.records", in.Records)
	return l, err
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

// Barrier writes a barrier.
func Barrier(b vault.Barrier) *pb.Barrier {
	return &pb.Barrier{
		ConnectionsReset: int32(b.Connections), SendsEnded: int32(b.Sends), Waited: durationpb.New(b.Waited),
		EventIndex: b.Index, VaultDone: b.VaultDone,
	}
}
