package store

import (
	"github.com/portcullis/portcullis/vault"
)

// Records gives records of any state, in the order of their IDs, from the first after the
// one given.
func (t *Tx) Records(after vault.ID, most int) (out []vault.Record, err error) {
	err = t.each("SELECT "+recordColumns+" FROM records WHERE id > $1 ORDER BY id LIMIT $2", []any{idText(after), most},
		func(scan func(...any) error) error {
			r, err := scanRecord(scan)
			out = append(out, r)
			return err
		})
	return out, err
}

// EachEvent gives entries of the log from an index on to fn, in their order, of the given
// types only if any are given, and returns the size of the log.
func (t *Tx) EachEvent(from int64, most int, types []string, fn func(index int64, body []byte) error) (size int64, err error) {
	entries, size, err := t.Events(from, most, types)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if err := fn(e.Index, e.Body); err != nil {
			return 0, err
		}
	}
	return size, nil
}

// Quarantined gives all that is in quarantine, longest there first.
func (t *Tx) Quarantined() (out []vault.Orphan, err error) {
	err = t.each("SELECT kind, name, record_id, since FROM quarantine ORDER BY since, kind, name", nil, func(scan func(...any) error) error {
		var o vault.Orphan
		var id string
		var since int64
		if err := scan(&o.Kind, &o.Name, &id, &since); err != nil {
			return err
		}
		o.Since = moment(since)
		o.Record, err = rowID(id)
		out = append(out, o)
		return err
	})
	return out, err
}

// Quarantine notes that something no record names is put aside. It changes nothing if it
// was noted before.
func (t *Tx) Quarantine(o vault.Orphan) error {
	return t.exec("INSERT INTO quarantine (kind, name, record_id, since) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
		string(o.Kind), o.Name, o.Record.String(), micros(o.Since))
}

// EndQuarantine forgets all that is noted of a record's blob and key.
func (t *Tx) EndQuarantine(record vault.ID) error {
	return t.exec("DELETE FROM quarantine WHERE record_id = $1", record.String())
}

// Destroyed notes for good that the blob and key of an ID that no record bears were destroyed, and
// forgets what is noted of its quarantine. A record of that ID is refused from then on.
func (t *Tx) Destroyed(record vault.ID) error {
	if err := t.exec("INSERT INTO destroyed_orphans (record_id) VALUES ($1) ON CONFLICT DO NOTHING", record.String()); err != nil {
		return err
	}
	return t.EndQuarantine(record)
}

// notQuarantined refuses a record whose blob or key was put aside meanwhile, or even destroyed.
func (t *Tx) notQuarantined(id vault.ID) error {
	var one int
	found, err := t.get(`SELECT 1 FROM quarantine WHERE record_id = $1
		UNION ALL SELECT 1 FROM destroyed_orphans WHERE record_id = $1 LIMIT 1`, []any{id.String()}, &one)
	if err == nil && found {
		err = vault.E(vault.Conflict, vault.ReasonStoreOvertaken, "storing took so long that its key was put aside; store the image again")
	}
	return err
}
