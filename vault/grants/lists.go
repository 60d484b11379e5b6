package grants

import (
	"context"
	"slices"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// ListRequest is a list of records that an admin wants to make.
type ListRequest struct {
	ID         vault.ID // names the request at its admin
	Contractor string
	Records    []vault.ID
}

func (r ListRequest) check() error {
	if r.ID == (vault.ID{}) {
		return vault.InvalidField("request_id", "must not be empty")
	}
	if err := vault.CheckName("record_list.contractor", r.Contractor); err != nil {
		return err
	}
	if n := len(r.Records); n < 1 || n > vault.MaxRecordList {
		return vault.InvalidField("record_list.records", "must name 1 to %d records, not %d", vault.MaxRecordList, n)
	}
	return nil
}

// CreateList makes a list of records for a contractor, which may then ask for a grant of it.
// The records must be there, and fit into one scope. The same request again gives the same list.
func (s *Service) CreateList(ctx context.Context, c vault.Caller, r ListRequest) (l vault.RecordList, err error) {
	if err := r.check(); err != nil {
		return l, err
	}
	records := vault.SortIDs(r.Records)
	_, err = s.Ledger.Update(ctx, func(tx Tx) (err error) {
		if err := tx.Standing(c); err != nil {
			return err
		}
		if l, err = tx.RecordListByRequest(c.ID, r.ID); err == nil {
			if l.Contractor != r.Contractor || !slices.Equal(l.Records, records) {
				return vault.E(vault.Exists, vault.ReasonRequestIDReused, "request_id %s was used for another list of this admin", r.ID)
			}
			return nil
		}
		if vault.KindOf(err) != vault.NotFound {
			return err
		}
		if _, err := tx.Contractor(r.Contractor); err != nil {
			return err
		}
		found, err := tx.RecordsOf(records)
		if err != nil {
			return err
		}
		if len(found) < len(records) {
			return vault.E(vault.NotFound, vault.ReasonRecordUnknown, "there is no record %s", missing(records, found))
		}
		// Of all precisions that of days makes the widest scope.
		scope := vault.PrecisionDay.ListScope(vault.NewID(), found)
		if scope.Check() != nil {
			return vault.InvalidField("record_list.records", "must be of at most %d sites and %d days, from first to last: these are of %d sites and %d days",
				vault.MaxListed, vault.MaxWindowDays, len(scope.Sites), scope.Until.Sub(scope.From)/(24*time.Hour))
		}
		l = vault.RecordList{ID: scope.List, Contractor: r.Contractor, Records: records, By: c.ID, At: tx.Now()}
		if err := tx.AddRecordList(l, r.ID); err != nil {
			return err
		}
		e := vault.NewEvent(vault.EventListCreated, c, tx.Now())
		e.List, e.Contractor, e.Count, e.Digest = l.ID.String(), l.Contractor, int64(len(records)), vault.DigestOfIDs(records).String()
		for _, id := range records {
			e.Records = append(e.Records, id.String())
		}
		return tx.Append(e)
	})
	return l, err
}

// missing gives the first of the IDs that is no record's.
func missing(ids []vault.ID, found []vault.Record) vault.ID {
	for _, id := range ids {
		if !slices.ContainsFunc(found, func(r vault.Record) bool { return r.ID == id }) {
			return id
		}
	}
	return vault.ID{}
}

// List gives a list of records: it is not for contractors.
func (s *Service) List(ctx context.Context, c vault.Caller, id vault.ID) (l vault.RecordList, err error) {
	err = s.Ledger.View(ctx, func(tx Tx) (err error) {
		if err := tx.Standing(c); err != nil {
			return err
		}
		l, err = tx.RecordList(id)
		return err
	})
	return l, err
}
