package store

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/portcullis/portcullis/vault"
)

const recordColumns = "id, site, lane, modality, captured_at, crossing_id, content_type, orientation, size, device, request_id, stored_at, wrapped_key, sealed_hash, key_state, class"

func scanRecord(scan func(...any) error) (r vault.Record, err error) {
	var id, crossing, request string
	var captured, stored int64
	var hash []byte
	err = scan(&id, &r.Site, &r.Lane, &r.Modality, &captured, &crossing, &r.ContentType, &r.Orientation, &r.Size,
		&r.Device, &request, &stored, &r.WrappedKey, &hash, &r.Key, &r.Class)
	if err != nil {
		return r, unscanned("record", err)
	}
	r.CapturedAt, r.StoredAt, r.SealedHash = moment(captured), moment(stored), digest(hash)
	for _, f := range []struct {
		to   *vault.ID
		from string
	}{{&r.ID, id}, {&r.CrossingID, crossing}, {&r.RequestID, request}} {
		if f.from == "" {
			continue
		}
		if *f.to, err = uuid.Parse(f.from); err != nil {
			return r, vault.E(vault.DataLoss, vault.ReasonDataLoss, "the record's row is damaged").Because(err)
		}
	}
	return r, nil
}

// unscanned is the error of a row that can not be read: somebody wrote something else into it.
func unscanned(of string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return vault.E(vault.DataLoss, vault.ReasonDataLoss, "the %s's row is damaged", of).Because(err)
}

// idText writes an ID, the zero one as the empty text.
func idText(id vault.ID) string {
	if id == (vault.ID{}) {
		return ""
	}
	return id.String()
}

// rowID reads the ID of a row.
func rowID(text string) (vault.ID, error) {
	id, err := uuid.Parse(text)
	if err != nil {
		return id, vault.E(vault.DataLoss, vault.ReasonDataLoss, "a row's ID is damaged").Because(err)
	}
	return id, nil
}

// AddRecord adds a record. One whose blob or key was put into quarantine meanwhile is
// refused, so that nothing is acknowledged that does not open.
func (t *Tx) AddRecord(r vault.Record) error {
	if err := t.notQuarantined(r.ID); err != nil {
		return err
	}
	return t.exec("INSERT INTO records ("+recordColumns+") VALUES ("+marks(1, 16)+")",
		r.ID.String(), r.Site, r.Lane, string(r.Modality), micros(r.CapturedAt), idText(r.CrossingID), r.ContentType,
		r.Orientation, r.Size, r.Device, r.RequestID.String(), micros(r.StoredAt), r.WrappedKey, r.SealedHash[:], string(r.Key), r.Class)
}

// record gives the one record that a condition names.
func (t *Tx) record(where string, args ...any) (r vault.Record, err error) {
	found := false
	err = t.each("SELECT "+recordColumns+" FROM records WHERE "+where, args, func(scan func(...any) error) (err error) {
		found = true
		r, err = scanRecord(scan)
		return err
	})
	if err == nil && !found {
		err = vault.E(vault.NotFound, vault.ReasonRecordUnknown, "there is no such record")
	}
	return r, err
}

// Record gives a record; NotFound if there is none.
func (t *Tx) Record(id vault.ID) (vault.Record, error) { return t.record("id = $1", id.String()) }

// RecordsOf gives those of the records that there are, in any order.
func (t *Tx) RecordsOf(ids []vault.ID) (out []vault.Record, err error) {
	const chunk = 500 // placeholders of one statement
	for part := range slices.Chunk(ids, chunk) {
		args := make([]any, len(part))
		for i, id := range part {
			args[i] = id.String()
		}
		err := t.each("SELECT "+recordColumns+" FROM records WHERE id IN ("+marks(1, len(args))+")", args, func(scan func(...any) error) error {
			r, err := scanRecord(scan)
			out = append(out, r)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// RecordByRequest gives the record that a device stored under a request ID.
func (t *Tx) RecordByRequest(device string, request vault.ID) (vault.Record, error) {
	return t.record("device = $1 AND request_id = $2", device, request.String())
}

// RecordsInScope gives the records of a scope whose keys are active, in the order of their
// IDs, from the first after the one given.
func (t *Tx) RecordsInScope(s vault.Scope, after vault.ID, most int) (out []vault.Record, err error) {
	where, args := within(s)
	n := len(args)
	args = append(args, idText(after), most)
	err = t.each("SELECT "+recordColumns+" FROM records WHERE "+where+
		" AND id > "+marks(n+1, 1)+" ORDER BY id LIMIT "+marks(n+2, 1), args, func(scan func(...any) error) error {
		r, err := scanRecord(scan)
		out = append(out, r)
		return err
	})
	return out, err
}

// selected is the condition of a selection, with its arguments.
func selected(s vault.Selection) (string, []any) {
	if s.Record != (vault.ID{}) {
		return "id = $1", []any{s.Record.String()}
	}
	where, args := "site = $1 AND captured_at >= $2 AND captured_at < $3", []any{s.Site, micros(s.From), micros(s.Until)}
	if s.Modality != "" {
		where, args = where+" AND modality = $4", append(args, string(s.Modality))
	}
	return where, args
}

// Select gives the records of a selection whose keys are in one of the states (any, if none
// is given), in the order of their IDs.
func (t *Tx) Select(s vault.Selection, most int, states ...vault.KeyState) (out []vault.ID, err error) {
	where, args := selected(s)
	if len(states) > 0 {
		where += " AND key_state IN (" + marks(len(args)+1, len(states)) + ")"
		for _, k := range states {
			args = append(args, string(k))
		}
	}
	args = append(args, most)
	err = t.each("SELECT id FROM records WHERE "+where+" ORDER BY id LIMIT "+marks(len(args), 1), args, func(scan func(...any) error) error {
		var text string
		if err := scan(&text); err != nil {
			return err
		}
		id, err := rowID(text)
		out = append(out, id)
		return err
	})
	return out, err
}

// Selected gives records of a selection, in the order of their IDs, from the first after the
// one given.
func (t *Tx) Selected(s vault.Selection, after vault.ID, most int) (out []vault.Record, err error) {
	where, args := selected(s)
	n := len(args)
	args = append(args, idText(after), most)
	err = t.each("SELECT "+recordColumns+" FROM records WHERE "+where+" AND id > "+marks(n+1, 1)+" ORDER BY id LIMIT "+marks(n+2, 1), args,
		func(scan func(...any) error) error {
			r, err := scanRecord(scan)
			out = append(out, r)
			return err
		})
	return out, err
}

// SetKeyState moves a record's key to a state if it is in one of those from, and says
// whether it was.
func (t *Tx) SetKeyState(id vault.ID, to vault.KeyState, from ...vault.KeyState) (bool, error) {
	args := []any{string(to), id.String(), micros(t.now)}
	for _, k := range from {
		args = append(args, string(k))
	}
	n, err := t.changed(`UPDATE records SET key_state = $1, revoked_at = CASE WHEN $1 = 'revoking' THEN $3 ELSE revoked_at END
		WHERE id = $2 AND key_state IN (`+marks(4, len(from))+")", args...)
	return n == 1, err
}

// SetKeyDecision keeps which decision restores or destroys a record's key.
func (t *Tx) SetKeyDecision(id, decision vault.ID) error {
	return t.exec("UPDATE records SET key_decision = $1 WHERE id = $2", decision.String(), id.String())
}

// KeyDecision gives the decision that restores or destroys a record's key, zero if there is
// none, and when the key was revoked last.
func (t *Tx) KeyDecision(id vault.ID) (decision vault.ID, revoked time.Time, err error) {
	var text string
	var at int64
	if _, err := t.get("SELECT key_decision, revoked_at FROM records WHERE id = $1", []any{id.String()}, &text, &at); err != nil || text == "" {
		return decision, moment(at), err
	}
	decision, err = rowID(text)
	return decision, moment(at), err
}

// DestroyRecord forgets the wrapped key of a record.
func (t *Tx) DestroyRecord(id vault.ID) error {
	return t.exec("UPDATE records SET wrapped_key = '' WHERE id = $1", id.String())
}

// KeysDue gives records whose keys are revoking, restoring or destroying.
func (t *Tx) KeysDue(after vault.ID, most int) (out []vault.Record, err error) {
	err = t.each("SELECT "+recordColumns+` FROM records
		WHERE key_state IN ('revoking', 'restoring', 'destroying') AND id > $1 ORDER BY id LIMIT $2`,
		[]any{idText(after), most}, func(scan func(...any) error) error {
			r, err := scanRecord(scan)
			out = append(out, r)
			return err
		})
	return out, err
}

// Grantees gives the workloads that opened any of the records under a grant.
func (t *Tx) Grantees(records []vault.ID) (out []string, err error) {
	const chunk = 500 // placeholders of one statement
	seen := map[string]bool{}
	for len(records) > 0 {
		n := min(chunk, len(records))
		args := make([]any, n)
		for i, id := range records[:n] {
			args[i] = id.String()
		}
		records = records[n:]
		err := t.each("SELECT DISTINCT g.grantee FROM released r JOIN grants g ON g.id = r.grant_id WHERE r.record_id IN ("+marks(1, n)+")",
			args, func(scan func(...any) error) error {
				var id string
				err := scan(&id)
				if !seen[id] {
					out, seen[id] = append(out, id), true
				}
				return err
			})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}
