package breach

import (
	"context"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// StockKeys tells which keys Vault has.
type StockKeys interface {
	// Keys gives the names of all keys in the mount.
	Keys(ctx context.Context) ([]string, error)
	// InspectKey says whether Vault has the key, whether it is revoked, and when it was made.
	InspectKey(ctx context.Context, keyName string) (found, revoked bool, made time.Time, err error)
}

// StockBlobs keeps ciphertext and its quarantine. What changes something is durable on
// return, and idempotent: what is missing is no error.
type StockBlobs interface {
	Get(ctx context.Context, id vault.ID) ([]byte, error)
	// List calls fn for each blob that is not in quarantine.
	List(ctx context.Context, fn func(id vault.ID, size int64, modified time.Time) error) error
	// Quarantine puts a blob aside, Return takes it back, Discard removes it from there.
	Quarantine(ctx context.Context, id vault.ID) error
	Return(ctx context.Context, id vault.ID) error
	Discard(ctx context.Context, id vault.ID) error
	// NoteKey notes, outside the database, that the quarantine shut the key of an ID, and
	// KeyNoted says so. Return and Discard end the note.
	NoteKey(ctx context.Context, id vault.ID) error
	KeyNoted(ctx context.Context, id vault.ID) (bool, error)
	// Quarantined calls fn for each blob that is put aside.
	Quarantined(ctx context.Context, fn func(id vault.ID) error) error
}

// StockTx is one transaction on the facts.
type StockTx interface {
	Now() time.Time
	// Record gives a record; NotFound if there is none.
	Record(id vault.ID) (vault.Record, error)
	// Records gives records of any state, in the order of their IDs, from the first after the
	// one given.
	Records(after vault.ID, most int) ([]vault.Record, error)
	// SetKeyState moves a record's key to a state if it is in one of those from, and says
	// whether it was.
	SetKeyState(id vault.ID, to vault.KeyState, from ...vault.KeyState) (bool, error)
	// Quarantined gives all that is noted as put aside.
	Quarantined() ([]vault.Orphan, error)
	// Quarantine notes that an orphan is put aside. A record of its ID is then refused.
	Quarantine(o vault.Orphan) error
	// EndQuarantine forgets what is noted of a record's blob and key.
	EndQuarantine(record vault.ID) error
	// Destroyed does so, too, and has a record of that ID refused for good.
	Destroyed(record vault.ID) error
	// EachEvent gives entries of the log from an index on, of some types if any are given, and
	// returns the size of the log.
	EachEvent(from int64, most int, types []string, fn func(index int64, body []byte) error) (size int64, err error)
	Append(e vault.Event) error

	// IDsIn gives the IDs, as they are written, of records whose keys are in one of the states, in
	// their order, from the first after the one given.
	IDsIn(after string, most int, states ...vault.KeyState) ([]string, error)
	// SetKeyDecision keeps which decision restores or destroys a record's key.
	SetKeyDecision(id, decision vault.ID) error
	Contractors() ([]vault.Contractor, error)
	Contractor(name string) (vault.Contractor, error)
	// SuspendContractor ends the contractor's epoch and all its grants, and says how many.
	SuspendContractor(name string) (grants int64, err error)
	// Purpose gives the newest version of a purpose, PurposeVersion one of them.
	Purpose(name string) (vault.Sanction, error)
	PurposeVersion(name string, version int) (vault.Sanction, error)
	AddPurpose(p vault.Purpose, decision vault.ID) error
	// EndGrantsFor ends all grants of a purpose and gives them.
	EndGrantsFor(purpose string) ([]vault.ID, error)
	// Suspension gives a caller's suspension; NotFound if it is not suspended.
	Suspension(id string) (vault.Suspension, error)
	SuspendCaller(s vault.Suspension) error
	// EndGrantsOf ends all grants of a grantee, VoidSignatures takes an admin's signatures off
	// what still waits for some; each says how many.
	EndGrantsOf(grantee string) (int64, error)
	VoidSignatures(signer string) (int64, error)
	// Grant gives a grant; NotFound if there is none, DataLoss if its row is damaged.
	Grant(id vault.ID) (vault.Grant, error)
	SetGrantState(id vault.ID, s vault.GrantState) error
	Marked() (vault.Marked, error)
	SetMarked(m vault.Marked) error
	// ForgetTokens says of grants that run that they have no token and no fence yet, and gives
	// how many had a token.
	ForgetTokens() (int64, error)
}

// StockLedger keeps the facts and the log.
type StockLedger interface {
	// Update runs fn in one transaction, durable on return. fn may run more than once.
	Update(ctx context.Context, fn func(StockTx) error) (last int64, err error)
	// View runs fn on a consistent state. It writes nothing.
	View(ctx context.Context, fn func(StockTx) error) error
}

// LogMark remembers, outside the database, how far the log had come.
type LogMark interface {
	// Load gives the size and the digest of the last event; 0 if nothing is remembered.
	Load() (size int64, last string, err error)
	// Save is durable on return. It changes nothing if more is remembered already.
	Save(size int64, last string) error
}

// page is how many rows one view reads.
const page = 1000

// seen is what there is of one record.
type seen struct {
	key, blob, aside bool // in Vault, in the store, in its quarantine, when they were listed
	noted            bool // in the table of what is put aside
}

// stock is what there is, and after a scan what of it no record names.
type stock struct {
	now     time.Time
	keys    map[string]vault.ID
	foreign []string // keys whose names are none of ours
	blobs   map[vault.ID]time.Time
	aside   map[vault.ID]bool
	noted   map[vault.ID][]vault.Orphan
	records int
}

// scan lists keys and blobs, then gives each record with what there is of it. In this
// order, so that what is stored meanwhile is never taken for an orphan: of a record that is
// committed after the lists were made, nothing is in them.
func (r *Reconciler) scan(ctx context.Context, each func(vault.Record, seen) error) (*stock, error) {
	st := &stock{keys: map[string]vault.ID{}, blobs: map[vault.ID]time.Time{}, aside: map[vault.ID]bool{}, noted: map[vault.ID][]vault.Orphan{}}
	names, err := r.Keys.Keys(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if id, ok := vault.RecordOfKey(name); ok {
			st.keys[name] = id
		} else {
			st.foreign = append(st.foreign, name)
		}
	}
	err = r.Blobs.List(ctx, func(id vault.ID, _ int64, modified time.Time) error {
		st.blobs[id] = modified
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = r.Blobs.Quarantined(ctx, func(id vault.ID) error {
		st.aside[id] = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = r.Ledger.View(ctx, func(tx StockTx) error {
		st.now = tx.Now()
		rows, err := tx.Quarantined()
		for _, o := range rows {
			st.noted[o.Record] = append(st.noted[o.Record], o)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return st, r.eachRecord(ctx, func(rec vault.Record) error {
		_, key := st.keys[rec.KeyName()]
		_, blob := st.blobs[rec.ID]
		s := seen{key: key, blob: blob, aside: st.aside[rec.ID], noted: len(st.noted[rec.ID]) > 0}
		delete(st.keys, rec.KeyName())
		delete(st.blobs, rec.ID)
		delete(st.aside, rec.ID)
		delete(st.noted, rec.ID)
		st.records++
		return each(rec, s)
	})
}

// eachRecord gives every record, page by page: fn runs outside of any transaction.
func (r *Reconciler) eachRecord(ctx context.Context, fn func(vault.Record) error) error {
	for after := (vault.ID{}); ; {
		var records []vault.Record
		err := r.Ledger.View(ctx, func(tx StockTx) (err error) {
			records, err = tx.Records(after, page)
			return err
		})
		if err != nil || len(records) == 0 {
			return err
		}
		for _, rec := range records {
			if err := fn(rec); err != nil {
				return err
			}
		}
		after = records[len(records)-1].ID
	}
}

// logEnd is where the log ended when it was last seen, and where it ends now.
type logEnd struct {
	known, size int64
	newest      string // digest of the last event; of use if size is more than known
}

const rolledBack = "it is an older database or another; nothing is released, put aside or destroyed by it; restore the newest one, or, to accept the loss, stop the daemons, remove the file log-remembered beside the ciphertext and move that of audit.ship aside"

// compareLog says whether the database's log goes on from where it was when last seen.
// LOG_ROLLED_BACK when it does not: then this is an older database, or another, and what it
// does not name may still be somebody's record.
func (r *Reconciler) compareLog(ctx context.Context) (end logEnd, err error) {
	if r.Tree != nil {
		if err := r.Tree(); err != nil {
			return end, vault.E(vault.State, vault.ReasonLogRolledBack, "the log was rewritten, so its tree is not signed any more: "+rolledBack).Because(err)
		}
	}
	known, last, err := r.Mark.Load()
	if err != nil {
		return end, err
	}
	end.known = known
	var there string
	err = r.Ledger.View(ctx, func(tx StockTx) (err error) {
		if end.size, err = tx.EachEvent(max(known-1, 0), 1, nil, func(_ int64, body []byte) error {
			there = vault.DigestOf(body).String()
			return nil
		}); err != nil || end.size <= known {
			return err
		}
		_, err = tx.EachEvent(end.size-1, 1, nil, func(_ int64, body []byte) error {
			end.newest = vault.DigestOf(body).String()
			return nil
		})
		return err
	})
	switch {
	case err != nil:
		return end, err
	case end.size < known:
		return end, vault.E(vault.State, vault.ReasonLogRolledBack, "the database's log has %d events and had %d: "+rolledBack, end.size, known)
	case known > 0 && there != last:
		return end, vault.E(vault.State, vault.ReasonLogRolledBack, "event %d of the database's log is not the one that was there: "+rolledBack, known-1)
	}
	return end, nil
}

// saveLog remembers where the log ended.
func (r *Reconciler) saveLog(end logEnd) error {
	if end.size <= end.known {
		return nil
	}
	return r.Mark.Save(end.size, end.newest)
}
