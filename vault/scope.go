package vault

import (
	"slices"
	"time"
)

// MaxRecordList is the most records of a list: each is a path in the policy at Vault.
const MaxRecordList = MaxPrefixes

// Scope says which records a grant covers: sites × modalities × capture window, of these only
// those captured from the approval on, or only those of a list.
type Scope struct {
	Sites       []string
	Modalities  []Modality
	From, Until time.Time // captured at or after From and before Until
	// Live covers records captured after the approval alone, as they come.
	Live bool
	// List is the list that an admin made for the contractor, Records what stands in it: at
	// most [MaxRecordList]. Sites, modalities and window are then no wider than the records need.
	// Contractors never learn the IDs.
	List    ID
	Records []ID
}

// Check says whether s is well-formed.
func (s Scope) Check() error {
	if err := checkNames("scope.sites", s.Sites); err != nil {
		return err
	}
	if err := checkModalities("scope.modalities", s.Modalities); err != nil {
		return err
	}
	if err := checkWindow("scope", s.From, s.Until); err != nil {
		return err
	}
	if s.Until.Sub(s.From) > MaxWindowDays*24*time.Hour {
		return InvalidField("scope.end_time", "is more than %d days after start_time", MaxWindowDays)
	}
	if s.Live && s.List != (ID{}) {
		return InvalidField("scope", "is either live or of a list")
	}
	if (s.List == (ID{})) != (len(s.Records) == 0) || len(s.Records) > MaxRecordList {
		return InvalidField("scope.records", "must be 1 to %d of a list", MaxRecordList)
	}
	return nil
}

// normal gives s in the form that is signed.
func (s Scope) normal() Scope {
	s.Sites, s.Modalities = sorted(s.Sites), sorted(s.Modalities)
	s.From, s.Until = Micro(s.From), Micro(s.Until)
	s.Records = SortIDs(s.Records)
	return s
}

// Covers says whether the record lies in the scope. Of a live one the approval's time counts as
// well: see [Grant.Covers].
func (s Scope) Covers(r Record) bool {
	return slices.Contains(s.Sites, r.Site) && slices.Contains(s.Modalities, r.Modality) &&
		!r.CapturedAt.Before(s.From) && r.CapturedAt.Before(s.Until) &&
		(s.List == (ID{}) || slices.Contains(s.Records, r.ID))
}

// LiveScope gives the window of a live scope asked for now, for a grant that ends then. It has no
// length where the grant ends within the step of the precision.
func (p Precision) LiveScope(s Scope, now, ends time.Time) Scope {
	s.Live, s.From, s.Until = true, p.Ceil(now), p.Floor(ends)
	return s
}

// ListScope gives the scope of a list: no wider than its records and the step of the precision.
func (p Precision) ListScope(list ID, records []Record) Scope {
	s := Scope{List: list}
	for i, r := range records {
		s.Sites, s.Modalities, s.Records = append(s.Sites, r.Site), append(s.Modalities, r.Modality), append(s.Records, r.ID)
		from, until := p.Floor(r.CapturedAt), p.Floor(r.CapturedAt).Add(p.step())
		if i == 0 || from.Before(s.From) {
			s.From = from
		}
		if until.After(s.Until) {
			s.Until = until
		}
	}
	return s.normal()
}
