package breach

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/portcullis/portcullis/vault"
)

// Fault is a kind of damage that a check finds.
type Fault string

// The faults.
const (
	FaultBlobMissing   Fault = "blob_missing"   // a record's ciphertext is not there
	FaultBlobChanged   Fault = "blob_changed"   // it is not what was stored
	FaultBlobLeft      Fault = "blob_left"      // the record is destroyed, its ciphertext is not
	FaultKeyMissing    Fault = "key_missing"    // Vault lacks a record's key
	FaultKeyShut       Fault = "key_shut"       // Vault refuses a key that is active here
	FaultKeyOpen       Fault = "key_open"       // Vault opens a key that is revoked here
	FaultKeyLeft       Fault = "key_left"       // the record is destroyed, its key is not
	FaultWrappedKey    Fault = "wrapped_key"    // the row lacks the wrapped key, or has one though destroyed
	FaultEventMissing  Fault = "event_missing"  // a record that no event tells of
	FaultEventTwice    Fault = "event_twice"    // more than one event tells of it
	FaultEventDiffers  Fault = "event_differs"  // the event tells something else than the row
	FaultRecordMissing Fault = "record_missing" // an event tells of a record that is not there
	FaultLogDamaged    Fault = "log_damaged"    // an entry can not be read, or indexes have a gap
	FaultLogRolledBack Fault = "log_rolled_back"
)

// Damage is one finding: something that must not be.
type Damage struct {
	Fault  Fault  `json:"fault"`
	Record string `json:"record,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// maxListed is how many findings and orphans a report lists; all are counted.
const maxListed = 10_000

// Report is what a check found.
type Report struct {
	Records  int            `json:"records"`
	Active   int            `json:"active"` // of the records, those whose keys are
	Blobs    int            `json:"blobs"`  // whose bytes were compared
	Keys     int            `json:"keys"`   // that Vault was asked about
	Events   int64          `json:"events"` // in the log
	Stored   int            `json:"stored"` // of the events, those that tell of a stored record
	Faults   map[Fault]int  `json:"faults"`
	Damage   []Damage       `json:"damage"`
	Orphans  []vault.Orphan `json:"-"`
	Blobless int            `json:"orphan_keys"`  // keys that no record names
	Keyless  int            `json:"orphan_blobs"` // ciphertext that no record names
	Aside    int            `json:"quarantined"`  // IDs of which something is in quarantine
	Foreign  int            `json:"foreign_keys"`
}

// Sound says whether nothing is damaged. Orphans are no damage: a crash leaves them.
func (r *Report) Sound() bool { return len(r.Faults) == 0 }

func (r *Report) add(f Fault, id vault.ID, format string, args ...any) {
	r.Faults[f]++
	if len(r.Damage) == maxListed {
		return
	}
	d := Damage{Fault: f, Detail: fmt.Sprintf(format, args...)}
	if id != (vault.ID{}) {
		d.Record = id.String()
	}
	r.Damage = append(r.Damage, d)
}

// told is what the log says of a record.
type told struct {
	facts vault.StoredFacts
	times int
}

// Check holds records, ciphertext, Vault's keys and the log against each other. It changes
// nothing. It opens nothing either: ciphertext is compared by its hash. It takes as long as
// it takes to read all ciphertext, and keeps about 1 KB per record in memory.
func (r *Reconciler) Check(ctx context.Context) (*Report, error) {
	rep := &Report{Faults: map[Fault]int{}, Damage: []Damage{}}
	if _, err := r.compareLog(ctx); vault.ReasonOf(err) == vault.ReasonLogRolledBack {
		rep.add(FaultLogRolledBack, vault.ID{}, "%v", err)
	} else if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	all, working := errgroup.WithContext(ctx)
	all.SetLimit(workers)
	rows := map[vault.ID]vault.StoredFacts{}
	st, err := r.scan(ctx, func(rec vault.Record, s seen) error {
		rows[rec.ID] = *rec.Facts()
		rep.Records++
		if rec.Key == vault.KeyActive {
			rep.Active++
		}
		if s.aside || s.noted {
			mu.Lock()
			rep.Aside++
			mu.Unlock()
		}
		all.Go(func() error { return r.checkRecord(working, rec, rep, &mu) })
		return working.Err()
	})
	if failed := all.Wait(); failed != nil {
		return nil, failed
	}
	if err != nil {
		return nil, err
	}
	for id := range st.blobs {
		rep.Keyless++
		rep.Orphans = append(rep.Orphans, vault.Orphan{Kind: vault.OrphanBlob, Name: id.String(), Record: id})
	}
	for id := range st.aside {
		if len(st.noted[id]) == 0 {
			rep.Aside++
		}
	}
	rep.Aside += len(st.noted)
	for name, id := range st.keys {
		if !isNoted(st.noted[id], name) {
			rep.Blobless++
			rep.Orphans = append(rep.Orphans, vault.Orphan{Kind: vault.OrphanKey, Name: name, Record: id})
		}
	}
	rep.Foreign = len(st.foreign)
	return rep, r.checkLog(ctx, rep, rows)
}

func isNoted(rows []vault.Orphan, name string) bool {
	for _, o := range rows {
		if o.Name == name {
			return true
		}
	}
	return false
}

func (r *Reconciler) checkRecord(ctx context.Context, rec vault.Record, rep *Report, mu *sync.Mutex) error {
	found, shut, _, err := r.Keys.InspectKey(ctx, rec.KeyName())
	if err != nil {
		return err
	}
	sealed, blobErr := r.Blobs.Get(ctx, rec.ID)
	kind := vault.KindOf(blobErr)
	if blobErr != nil && kind != vault.NotFound && kind != vault.DataLoss {
		return blobErr
	}
	now, err := r.record(ctx, rec.ID)
	if err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	rep.Keys++
	if now.Key != rec.Key {
		return nil // an admin's work on it is under way: neither state need hold
	}
	wrapped := rec.WrappedKey != ""
	switch rec.Key {
	case vault.KeyDestroyed:
		if found {
			rep.add(FaultKeyLeft, rec.ID, "%s", rec.KeyName())
		}
		if kind != vault.NotFound || blobErr == nil {
			rep.add(FaultBlobLeft, rec.ID, "")
		}
		if wrapped {
			rep.add(FaultWrappedKey, rec.ID, "the row of a destroyed record has one")
		}
		return nil
	case vault.KeyDestroying:
		return nil // half of it may be gone
	case vault.KeyActive:
		if found && shut {
			rep.add(FaultKeyShut, rec.ID, "%s", rec.KeyName())
		}
	case vault.KeyRevoked:
		if found && !shut {
			rep.add(FaultKeyOpen, rec.ID, "%s", rec.KeyName())
		}
	}
	if !found {
		rep.add(FaultKeyMissing, rec.ID, "%s", rec.KeyName())
	}
	if !wrapped {
		rep.add(FaultWrappedKey, rec.ID, "the row has none")
	}
	switch {
	case blobErr != nil && kind == vault.NotFound:
		rep.add(FaultBlobMissing, rec.ID, "")
	case blobErr != nil:
		rep.add(FaultBlobChanged, rec.ID, "it is longer than any that is kept")
	default:
		rep.Blobs++
		if got := vault.DigestOf(sealed); got != rec.SealedHash {
			rep.add(FaultBlobChanged, rec.ID, "%s, stored was %s", got, rec.SealedHash)
		}
	}
	return nil
}

// checkLog reads the whole log and holds what it tells of stored records against the rows.
func (r *Reconciler) checkLog(ctx context.Context, rep *Report, rows map[vault.ID]vault.StoredFacts) error {
	log := map[vault.ID]*told{}
	for next := int64(0); ; {
		first := next
		var size int64
		err := r.Ledger.View(ctx, func(tx StockTx) (err error) {
			next = first
			size, err = tx.EachEvent(next, page, nil, func(index int64, body []byte) error {
				if index != next {
					rep.add(FaultLogDamaged, vault.ID{}, "events %d to %d are missing", next, index-1)
				}
				next = index + 1
				rep.tell(log, index, body)
				return nil
			})
			return err
		})
		if err != nil {
			return err
		}
		if next == first {
			if rep.Events = size; size != next {
				rep.add(FaultLogDamaged, vault.ID{}, "the log counts %d events and has %d", size, next)
			}
			break
		}
	}
	for id, facts := range rows {
		switch t := log[id]; {
		case t == nil:
			rep.add(FaultEventMissing, id, "")
		case t.times > 1:
			rep.add(FaultEventTwice, id, "%d events", t.times)
		case !reflect.DeepEqual(t.facts, facts):
			rep.add(FaultEventDiffers, id, "event %+v, row %+v", t.facts, facts)
		}
		delete(log, id)
	}
	// What is left in the log was stored while the rows were read, or has lost its row.
	for id := range log {
		if _, err := r.record(ctx, id); vault.KindOf(err) == vault.NotFound {
			rep.add(FaultRecordMissing, id, "")
		} else if err != nil {
			return err
		}
	}
	return nil
}

// tell takes in one event of the log.
func (r *Report) tell(log map[vault.ID]*told, index int64, body []byte) {
	e, err := vault.DecodeEvent(body)
	if err != nil {
		r.add(FaultLogDamaged, vault.ID{}, "event %d: %v", index, err)
		return
	}
	if e.Type != vault.EventRecordStored {
		return
	}
	if e.Stored == nil {
		r.add(FaultLogDamaged, vault.ID{}, "event %d tells of no record", index)
		return
	}
	id, err := vault.ParseID("record", e.Stored.Record)
	if err != nil {
		r.add(FaultLogDamaged, vault.ID{}, "event %d: %v", index, err)
		return
	}
	r.Stored++
	if log[id] == nil {
		facts := *e.Stored
		facts.Class = cmp.Or(facts.Class, vault.DefaultClass) // stored before there were classes
		log[id] = &told{facts: facts}
	}
	log[id].times++
}
