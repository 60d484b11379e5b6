package store

import (
	"slices"
	"strings"

	"github.com/portcullis/portcullis/vault"
)

// within is the condition of a scope, with its arguments.
func within(s vault.Scope) (string, []any) {
	args := []any{micros(s.From), micros(s.Until)}
	for _, site := range s.Sites {
		args = append(args, site)
	}
	for _, m := range s.Modalities {
		args = append(args, string(m))
	}
	where := "captured_at >= $1 AND captured_at < $2 AND site IN (" + marks(3, len(s.Sites)) +
		") AND modality IN (" + marks(3+len(s.Sites), len(s.Modalities)) + ") AND key_state = 'active'"
	if s.List != (vault.ID{}) {
		where += " AND id IN (" + marks(len(args)+1, len(s.Records)) + ")"
		for _, id := range s.Records {
			args = append(args, id.String())
		}
	}
	return where, args
}

// EachInScope calls fn for each record of a scope whose key is active, in any order. Of the
// record there are the ID, site, modality, class, crossing and times alone.
func (t *Tx) EachInScope(s vault.Scope, fn func(vault.Record)) error {
	where, args := within(s)
	var id, crossing string
	var captured, stored int64
	var r vault.Record
	return t.each("SELECT id, site, modality, class, crossing_id, captured_at, stored_at FROM records WHERE "+where, args, func(scan func(...any) error) (err error) {
		if err := scan(&id, &r.Site, &r.Modality, &r.Class, &crossing, &captured, &stored); err != nil {
			return unscanned("record", err)
		}
		if r.ID, err = rowID(id); err != nil {
			return err
		}
		r.CrossingID = vault.ID{}
		if crossing != "" {
			if r.CrossingID, err = rowID(crossing); err != nil {
				return err
			}
		}
		r.CapturedAt, r.StoredAt = moment(captured), moment(stored)
		fn(r)
		return nil
	})
}

// Crossings counts the crossings of a bucket that have records whose keys are active, up to most: a
// record without a crossing counts as one.
func (t *Tx) Crossings(b vault.Bucket, classes []string, most int) (n int64, err error) {
	args := []any{b.Site, string(b.Modality), micros(b.From), micros(b.Until), micros(b.Below), most}
	where := "site = $1 AND modality = $2 AND captured_at >= $3 AND captured_at < $4 AND stored_at < $5 AND key_state = 'active'"
	if !b.After.IsZero() {
		args = append(args, micros(b.After))
		where += " AND stored_at >= $7"
	}
	where += " AND class IN (" + marks(len(args)+1, len(classes)) + ")"
	for _, c := range classes {
		args = append(args, c)
	}
	_, err = t.get("SELECT COUNT(*) FROM (SELECT DISTINCT COALESCE(NULLIF(crossing_id, ''), id) FROM records WHERE "+where+" LIMIT $6)", args, &n)
	return n, err
}

// keyEvents are those after which keys are active no more, or begin to become so again.
var keyEvents = []string{
	string(vault.EventKeysRevoked), string(vault.EventKeysRestored), string(vault.EventKeysDestroying), string(vault.EventRestoreUndone),
}

// KeysChanged gives the index behind the newest event that changed which keys are active, 0 when
// there is none: while it is the same, so are they. It is -1 while a change is under way: in this
// transaction, or until Vault has followed.
func (t *Tx) KeysChanged() (at int64, err error) {
	if t.moved || movesKeys(t.events) {
		return -1, nil
	}
	// Each by itself, so that the index gives it without a look at the others of its type.
	newest := make([]string, len(keyEvents))
	for i, kind := range keyEvents {
		newest[i] = "SELECT MAX(idx) + 1 AS n FROM events WHERE type = '" + kind + "'"
	}
	var working bool
	_, err = t.get("SELECT EXISTS (SELECT 1 FROM records WHERE key_state IN ('revoking', 'restoring', 'destroying')), "+
		"COALESCE(MAX(n), 0) FROM ("+strings.Join(newest, " UNION ALL ")+") AS newest", nil, &working, &at)
	if working {
		at = -1
	}
	return at, err
}

func movesKeys(events []entry) bool {
	return slices.ContainsFunc(events, func(e entry) bool { return slices.Contains(keyEvents, e.kind) })
}

// dayMicros is one day in the unit of captured_at.
const dayMicros = 24 * 60 * 60 * 1_000_000

// Covered counts what a scope covers, of these retention classes: in all, and by site and modality. A
// record without a crossing counts as one.
func (t *Tx) Covered(s vault.Scope, classes []string) (all vault.Covered, parts []vault.Covered, err error) {
	where, args := within(s)
	where += " AND class IN (" + marks(len(args)+1, len(classes)) + ")"
	for _, c := range classes {
		args = append(args, c)
	}
	args = append(args, int64(dayMicros))
	counts := "COUNT(*), COUNT(DISTINCT COALESCE(NULLIF(crossing_id, ''), id)), COUNT(DISTINCT captured_at / " + marks(len(args), 1) + ")"
	if _, err := t.get("SELECT "+counts+" FROM records WHERE "+where, args, &all.Records, &all.Crossings, &all.Days); err != nil {
		return all, nil, err
	}
	err = t.each("SELECT site, modality, "+counts+" FROM records WHERE "+where+" GROUP BY site, modality ORDER BY site, modality", args,
		func(scan func(...any) error) error {
			var c vault.Covered
			err := scan(&c.Site, &c.Modality, &c.Records, &c.Crossings, &c.Days)
			parts = append(parts, c)
			return err
		})
	return all, parts, err
}

// AddRecordList adds a list of records.
func (t *Tx) AddRecordList(l vault.RecordList, request vault.ID) error {
	return t.exec("INSERT INTO record_lists (id, contractor, records, created_by, created_at, request_id) VALUES ($1, $2, $3, $4, $5, $6)",
		l.ID.String(), l.Contractor, joinIDs(l.Records), l.By, micros(l.At), request.String())
}

// RecordList gives a list of records; NotFound if there is none.
func (t *Tx) RecordList(id vault.ID) (vault.RecordList, error) {
	return t.recordList("id = $1", id.String())
}

// RecordListByRequest gives the list that an admin made under a request ID.
func (t *Tx) RecordListByRequest(admin string, request vault.ID) (vault.RecordList, error) {
	return t.recordList("created_by = $1 AND request_id = $2", admin, request.String())
}

func (t *Tx) recordList(where string, args ...any) (l vault.RecordList, err error) {
	var id, records string
	var at int64
	found, err := t.get("SELECT id, contractor, records, created_by, created_at FROM record_lists WHERE "+where, args,
		&id, &l.Contractor, &records, &l.By, &at)
	if err != nil {
		return l, err
	}
	if !found {
		return l, vault.E(vault.NotFound, vault.ReasonListUnknown, "there is no such list of records")
	}
	l.At = moment(at)
	if l.ID, err = rowID(id); err != nil {
		return l, err
	}
	l.Records, err = splitIDs(records)
	return l, err
}

func joinIDs(ids []vault.ID) string {
	out := make([]byte, 0, 37*len(ids))
	for i, id := range ids {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, id.String()...)
	}
	return string(out)
}

// splitIDs reads what joinIDs wrote.
func splitIDs(text string) (out []vault.ID, err error) {
	if text == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		id, err := rowID(part)
		if err != nil {
			return nil, err
		}
		out = append(out, id)
	}
	return out, nil
}
