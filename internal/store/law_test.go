package store

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

var classes = []string{"us-citizen", vault.DefaultClass}

// TestEachInScope gives each record of a scope once, with what is told of it; of a list, the
// records that stand in it.
func TestEachInScope(t *testing.T) {
	s := open(t)
	scope, want := scoped(t, s)
	each := func(scope vault.Scope) (out []vault.Record) {
		t.Helper()
		if err := s.View(t.Context(), func(tx *Tx) error {
			return tx.EachInScope(scope, func(r vault.Record) { out = append(out, r) })
		}); err != nil {
			t.Fatal(err)
		}
		return out
	}
	got := each(scope)
	if !slices.Equal(sortedIDs(ids(got, recordID)), want) {
		t.Errorf("%d records, want %d", len(got), len(want))
	}
	for _, r := range got {
		full := view(t, s, func(tx *Tx) (vault.Record, error) { return tx.Record(r.ID) })
		told := vault.Record{ID: full.ID, Site: full.Site, Modality: full.Modality, Class: full.Class, CrossingID: full.CrossingID, CapturedAt: full.CapturedAt, StoredAt: full.StoredAt}
		if r != told {
			t.Fatalf("%+v is told as %+v", full, r)
		}
	}
	list := scope
	list.List, list.Records = vault.NewID(), []vault.ID{want[3], want[5], vault.NewID()}
	if got := sortedIDs(ids(each(list), recordID)); !slices.Equal(got, sortedIDs(list.Records[:2])) {
		t.Errorf("of the list: %v", got)
	}
}

// TestCovered counts a scope in all and by site and modality, and of some classes alone.
func TestCovered(t *testing.T) {
	s := open(t)
	scope, in := scoped(t, s)
	must(t, s, func(tx *Tx) error {
		return tx.exec("UPDATE records SET class = 'minors' WHERE id = $1", in[0].String())
	})
	type part struct {
		site string
		m    vault.Modality
	}
	crossings, days := map[part]map[vault.ID]bool{}, map[part]map[string]bool{}
	records := map[part]int64{}
	for _, id := range in[1:] {
		r := view(t, s, func(tx *Tx) (vault.Record, error) { return tx.Record(id) })
		for _, p := range []part{{}, {r.Site, r.Modality}} {
			if crossings[p] == nil {
				crossings[p], days[p] = map[vault.ID]bool{}, map[string]bool{}
			}
			records[p]++
			crossing := r.CrossingID
			if crossing == (vault.ID{}) {
				crossing = r.ID // one of its own
			}
			crossings[p][crossing] = true
			days[p][r.CapturedAt.Format(time.DateOnly)] = true
		}
	}
	want := func(p part) vault.Covered {
		return vault.Covered{Site: p.site, Modality: p.m, Records: records[p], Crossings: int64(len(crossings[p])), Days: int64(len(days[p]))}
	}
	if err := s.View(t.Context(), func(tx *Tx) error {
		all, parts, err := tx.Covered(scope, classes)
		if all != want(part{}) || all.Days != 3 {
			t.Errorf("in all %+v, want %+v", all, want(part{}))
		}
		if w := []vault.Covered{want(part{"north", vault.Face}), want(part{"south", vault.Face})}; !slices.Equal(parts, w) {
			t.Errorf("%+v, want %+v", parts, w)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// TestCrossings counts those of a bucket: by their IDs, of its classes, captured and stored
// within it, whose keys are active.
func TestCrossings(t *testing.T) {
	s := open(t)
	hour := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	b := vault.Bucket{Site: "north", Modality: vault.Face, From: hour, Until: hour.Add(time.Hour), Below: hour.Add(65 * time.Minute)}
	crossing := vault.NewID()
	must(t, s, func(tx *Tx) error {
		for _, change := range []func(*vault.Record){
			func(r *vault.Record) { r.CrossingID = crossing },
			func(r *vault.Record) { r.CrossingID = crossing },
			func(r *vault.Record) { r.CrossingID, r.Key = crossing, vault.KeyRevoked },
			func(r *vault.Record) { r.CrossingID = vault.ID{} },
			func(r *vault.Record) { r.CrossingID = vault.ID{} },
			func(r *vault.Record) { r.StoredAt = b.Below.Add(-time.Microsecond) },
			func(r *vault.Record) { r.CapturedAt = b.Until.Add(-time.Microsecond) },
			// And none of these.
			func(r *vault.Record) { r.Key = vault.KeyRevoking },
			func(r *vault.Record) { r.Key = vault.KeyRevoked },
			func(r *vault.Record) { r.Key = vault.KeyRestoring },
			func(r *vault.Record) { r.Key = vault.KeyDestroyed },
			func(r *vault.Record) { r.Site = "south" },
			func(r *vault.Record) { r.Modality = vault.Plate },
			func(r *vault.Record) { r.Class = "minors" },
			func(r *vault.Record) { r.CapturedAt = b.From.Add(-time.Microsecond) },
			func(r *vault.Record) { r.CapturedAt = b.Until },
			func(r *vault.Record) { r.StoredAt = b.Below },
		} {
			r := someRecord()
			r.CapturedAt, r.StoredAt = hour, hour
			change(&r)
			if err := tx.AddRecord(r); err != nil {
				return err
			}
		}
		return nil
	})
	count := func(b vault.Bucket, most int) int64 {
		return view(t, s, func(tx *Tx) (int64, error) { return tx.Crossings(b, classes, most) })
	}
	if n := count(b, 100); n != 5 {
		t.Errorf("%d crossings, want 5", n)
	}
	if n := count(b, 4); n != 4 {
		t.Errorf("%d crossings of at most 4", n)
	}
	late := b
	late.After, late.Below = b.Below, b.Below.Add(time.Hour)
	if n := count(late, 100); n != 1 {
		t.Errorf("%d late ones, want 1", n)
	}
}

// TestKeysChanged: each change of which keys are active counts, and none while it is under way.
func TestKeysChanged(t *testing.T) {
	s := open(t)
	changed := func(want int64) {
		t.Helper()
		if at := view(t, s, (*Tx).KeysChanged); at != want {
			t.Errorf("changed at %d, want %d", at, want)
		}
	}
	var last int64
	happens := func(types ...vault.EventType) {
		t.Helper()
		must(t, s, func(tx *Tx) error {
			for _, kind := range types {
				if err := tx.Append(vault.NewEvent(kind, vault.Caller{}, tx.Now())); err != nil {
					return err
				}
				last++
			}
			return nil
		})
	}
	changed(0)
	happens(vault.EventRecordStored, vault.EventGrantRevoked, vault.EventVaultCaughtUp)
	changed(0)
	for _, kind := range []vault.EventType{vault.EventKeysRevoked, vault.EventKeysRestored, vault.EventKeysDestroying, vault.EventRestoreUndone, vault.EventKeysRevoked} {
		happens(kind)
		changed(last)
		at := last
		happens(vault.EventRecordStored, vault.EventKeyDestroyed)
		changed(at)
	}
	r := someRecord()
	must(t, s, func(tx *Tx) error { return tx.AddRecord(r) })
	at := view(t, s, (*Tx).KeysChanged)
	move := func(to, from vault.KeyState) {
		t.Helper()
		must(t, s, func(tx *Tx) error { _, err := tx.SetKeyState(r.ID, to, from); return err })
	}
	from := vault.KeyActive
	for _, to := range []vault.KeyState{vault.KeyRevoking, vault.KeyRestoring, vault.KeyDestroying} {
		move(to, from)
		changed(-1)
		from = to
	}
	move(vault.KeyActive, from)
	changed(at)
	// What an operation has changed is not durable yet, whether its own or that of one before it
	// in the transaction; one that failed has changed nothing.
	appends := func(tx *Tx) error {
		return tx.Append(vault.NewEvent(vault.EventKeysRevoked, vault.Caller{}, tx.Now()))
	}
	reads := func(want int64) func(*Tx) error {
		return func(tx *Tx) error {
			if got, err := tx.KeysChanged(); err != nil || got != want {
				t.Errorf("within a transaction: %d, %v; want %d", got, err, want)
			}
			return nil
		}
	}
	failed := errors.New("failed")
	together := func(fns ...func(*Tx) error) {
		t.Helper()
		var batch []*op
		for _, fn := range fns {
			batch = append(batch, &op{ctx: t.Context(), fn: fn})
		}
		if err := s.commitBatch(batch); err != nil {
			t.Fatal(err)
		}
	}
	together(func(tx *Tx) error { return errors.Join(appends(tx), reads(-1)(tx), failed) }, reads(at))
	together(appends, reads(-1), func(*Tx) error { return failed }, reads(-1))
	together(reads(view(t, s, (*Tx).KeysChanged)))
	if now := view(t, s, (*Tx).KeysChanged); now <= at {
		t.Errorf("changed at %d, before at %d", now, at)
	}
}

func TestRecordLists(t *testing.T) {
	s := open(t)
	l := vault.RecordList{ID: vault.NewID(), Contractor: "acme", Records: vault.SortIDs([]vault.ID{vault.NewID(), vault.NewID(), vault.NewID()}), By: "ann", At: ended}
	request := vault.NewID()
	must(t, s, func(tx *Tx) error { return tx.AddRecordList(l, request) })
	for name, read := range map[string]func(*Tx) (vault.RecordList, error){
		"by ID":      func(tx *Tx) (vault.RecordList, error) { return tx.RecordList(l.ID) },
		"by request": func(tx *Tx) (vault.RecordList, error) { return tx.RecordListByRequest("ann", request) },
	} {
		if got := view(t, s, read); !reflect.DeepEqual(got, l) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for _, read := range []func(*Tx) (vault.RecordList, error){
		func(tx *Tx) (vault.RecordList, error) { return tx.RecordList(request) },
		func(tx *Tx) (vault.RecordList, error) { return tx.RecordListByRequest("bob", request) },
	} {
		wantReason(t, s.View(t.Context(), func(tx *Tx) error { _, err := read(tx); return err }), vault.NotFound, vault.ReasonListUnknown)
	}
	if _, err := s.Update(t.Context(), func(tx *Tx) error {
		again := l
		again.ID = vault.NewID()
		return tx.AddRecordList(again, request)
	}); err == nil {
		t.Error("one request made two lists")
	}
	must(t, s, func(tx *Tx) error { return tx.exec("UPDATE record_lists SET records = 'x'") })
	wantReason(t, s.View(t.Context(), func(tx *Tx) error { _, err := tx.RecordList(l.ID); return err }), vault.DataLoss, vault.ReasonDataLoss)
}

// TestScopesReadBack: a grant's scope of each kind, and its bytes.
func TestScopesReadBack(t *testing.T) {
	s := open(t)
	live, list := someGrant(vault.GrantPending), someGrant(vault.GrantPending)
	live.Scope.Live, live.MaxBytes = true, 7
	list.Scope.List, list.Scope.Records = vault.NewID(), vault.SortIDs([]vault.ID{vault.NewID(), vault.NewID()})
	for _, g := range []vault.Grant{live, list} {
		addGrant(t, s, g)
		if got := grantOf(t, s, g.Grant); !reflect.DeepEqual(got, g) || got.Text() != g.Text() {
			t.Errorf("%+v\nreads back as\n%+v", g, got)
		}
	}
	must(t, s, func(tx *Tx) error { return tx.exec("UPDATE grants SET records = records || ',x' WHERE list <> ''") })
	wantReason(t, s.View(t.Context(), func(tx *Tx) error { _, err := tx.Grant(list.Grant); return err }), vault.DataLoss, vault.ReasonDataLoss)
}
