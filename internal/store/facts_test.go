package store

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

func ids[V any](in []V, id func(V) vault.ID) (out []vault.ID) {
	for _, v := range in {
		out = append(out, id(v))
	}
	return out
}

func recordID(r vault.Record) vault.ID { return r.ID }

func sortedIDs(in []vault.ID) []vault.ID {
	out := slices.Clone(in)
	slices.SortFunc(out, func(a, b vault.ID) int { return slices.Compare(a[:], b[:]) })
	return out
}

func TestRecords(t *testing.T) {
	s := open(t)
	full, bare := someRecord(), someRecord()
	bare.CrossingID, bare.Modality = vault.ID{}, vault.Plate
	must(t, s, func(tx *Tx) error { return errors.Join(tx.AddRecord(full), tx.AddRecord(bare)) })
	for _, want := range []vault.Record{full, bare} {
		if got := view(t, s, func(tx *Tx) (vault.Record, error) { return tx.Record(want.ID) }); got != want {
			t.Errorf("%+v\nreads back as\n%+v", want, got)
		}
		if got := view(t, s, func(tx *Tx) (vault.Record, error) { return tx.RecordByRequest(want.Device, want.RequestID) }); got != want {
			t.Errorf("by request: %+v", got)
		}
	}
	for _, read := range []func(*Tx) (vault.Record, error){
		func(tx *Tx) (vault.Record, error) { return tx.Record(vault.NewID()) },
		func(tx *Tx) (vault.Record, error) { return tx.RecordByRequest(full.Device+"x", full.RequestID) },
		func(tx *Tx) (vault.Record, error) { return tx.RecordByRequest(full.Device, bare.ID) },
	} {
		err := s.View(t.Context(), func(tx *Tx) error { _, err := read(tx); return err })
		wantReason(t, err, vault.NotFound, vault.ReasonRecordUnknown)
	}
	again := someRecord()
	again.RequestID = full.RequestID
	if _, err := s.Update(t.Context(), storeRecord(again)); err == nil {
		t.Error("a device's request ID was stored twice")
	}
}

// scoped adds records in and around a scope, and gives the scope and the IDs in it.
func scoped(t *testing.T, s *Store) (vault.Scope, []vault.ID) {
	t.Helper()
	from := time.Date(2026, 3, 1, 6, 0, 0, 0, time.UTC)
	scope := vault.Scope{Sites: []string{"north", "south"}, Modalities: []vault.Modality{vault.Face}, From: from, Until: from.Add(48 * time.Hour)}
	var in []vault.ID
	must(t, s, func(tx *Tx) error {
		for i := range 120 {
			r := someRecord()
			r.Site = scope.Sites[i%2]
			r.CapturedAt = from.Add(time.Duration(i) * 48 * time.Hour / 120)
			if i%3 == 0 {
				r.CrossingID = vault.ID{}
			} else if i%3 == 1 {
				r.CrossingID = vault.ID{1, byte(i / 30)}
			}
			switch i % 10 {
			case 3:
				r.Site = "north-2"
			case 4:
				r.Modality = vault.Plate
			case 5:
				r.CapturedAt = from.Add(-time.Microsecond)
			case 6:
				r.CapturedAt = scope.Until
			case 7:
				r.Key = []vault.KeyState{vault.KeyRevoked, vault.KeyRevoking, vault.KeyRestoring, vault.KeyDestroying, vault.KeyDestroyed}[i/10%5]
			default:
				in = append(in, r.ID)
			}
			if err := tx.AddRecord(r); err != nil {
				return err
			}
		}
		return nil
	})
	return scope, sortedIDs(in)
}

func TestRecordsInScopePages(t *testing.T) {
	s := open(t)
	scope, want := scoped(t, s)
	for _, most := range []int{1, 7, 60, 61, 1000} {
		var got []vault.ID
		var after vault.ID
		for {
			page := view(t, s, func(tx *Tx) ([]vault.Record, error) { return tx.RecordsInScope(scope, after, most) })
			if len(page) == 0 {
				break
			}
			if len(page) > most {
				t.Fatalf("%d records of at most %d", len(page), most)
			}
			for _, r := range page {
				if !scope.Covers(r) || r.Key != vault.KeyActive {
					t.Errorf("record %+v is not of the scope", r)
				}
			}
			got = append(got, ids(page, recordID)...)
			if after = got[len(got)-1]; len(got) > len(want) {
				break // the same ones again
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d: %d records, want %d, in the order of their IDs", most, len(got), len(want))
		}
	}
}

func TestSelect(t *testing.T) {
	s := open(t)
	scope, _ := scoped(t, s)
	all := view(t, s, func(tx *Tx) (out []vault.Record, err error) {
		err = tx.each("SELECT "+recordColumns+" FROM records", nil, func(scan func(...any) error) error {
			r, err := scanRecord(scan)
			out = append(out, r)
			return err
		})
		return out, err
	})
	window := vault.Selection{Site: "north", From: scope.From, Until: scope.Until}
	faces := window
	faces.Modality = vault.Face
	one := vault.Selection{Record: all[17].ID}
	for _, sel := range []vault.Selection{window, faces, one, {Record: vault.NewID()}, {Site: "nowhere", From: scope.From, Until: scope.Until}} {
		for _, states := range [][]vault.KeyState{nil, {vault.KeyActive}, {vault.KeyRevoked, vault.KeyDestroyed}, {"odd"}} {
			var want []vault.ID
			for _, r := range all {
				in := r.ID == sel.Record
				if sel.Record == (vault.ID{}) {
					in = r.Site == sel.Site && (sel.Modality == "" || sel.Modality == r.Modality) && !r.CapturedAt.Before(sel.From) && r.CapturedAt.Before(sel.Until)
				}
				if in && (states == nil || slices.Contains(states, r.Key)) {
					want = append(want, r.ID)
				}
			}
			want = sortedIDs(want)
			for _, most := range []int{1000, 2} {
				got := view(t, s, func(tx *Tx) ([]vault.ID, error) { return tx.Select(sel, most, states...) })
				if want := want[:min(most, len(want))]; !slices.Equal(got, want) {
					t.Errorf("%+v in %q, at most %d: %d records, want %d", sel, states, most, len(got), len(want))
				}
			}
			if states != nil {
				continue
			}
			var paged []vault.ID
			for after := (vault.ID{}); ; after = paged[len(paged)-1] {
				page := view(t, s, func(tx *Tx) ([]vault.Record, error) { return tx.Selected(sel, after, 3) })
				if paged = append(paged, ids(page, recordID)...); len(page) < 3 || len(paged) > len(want) {
					break
				}
			}
			if !slices.Equal(paged, want) {
				t.Errorf("%+v in pages: %d records, want %d", sel, len(paged), len(want))
			}
		}
	}
}

func TestKeyStates(t *testing.T) {
	s := open(t)
	r := someRecord()
	must(t, s, func(tx *Tx) error { return tx.AddRecord(r) })
	for _, c := range []struct {
		to    vault.KeyState
		from  []vault.KeyState
		moved bool
		now   vault.KeyState
	}{
		{vault.KeyRevoked, []vault.KeyState{vault.KeyRevoking}, false, vault.KeyActive},
		{vault.KeyRevoking, []vault.KeyState{vault.KeyRestoring, vault.KeyActive}, true, vault.KeyRevoking},
		{vault.KeyRevoking, []vault.KeyState{vault.KeyActive}, false, vault.KeyRevoking},
		{vault.KeyActive, nil, false, vault.KeyRevoking},
		{vault.KeyRevoked, []vault.KeyState{vault.KeyRevoking}, true, vault.KeyRevoked},
		{vault.KeyDestroying, []vault.KeyState{vault.KeyActive, vault.KeyRevoking, vault.KeyRevoked}, true, vault.KeyDestroying},
	} {
		var moved bool
		must(t, s, func(tx *Tx) (err error) {
			moved, err = tx.SetKeyState(r.ID, c.to, c.from...)
			return err
		})
		now := view(t, s, func(tx *Tx) (vault.Record, error) { return tx.Record(r.ID) }).Key
		if moved != c.moved || now != c.now {
			t.Errorf("to %s if %q: moved %t, now %s; want %t, %s", c.to, c.from, moved, now, c.moved, c.now)
		}
	}
	must(t, s, func(tx *Tx) error {
		moved, err := tx.SetKeyState(vault.NewID(), vault.KeyActive, vault.KeyActive)
		if moved {
			t.Error("a record that is not there was moved")
		}
		return err
	})
}

func TestKeysDue(t *testing.T) {
	s := open(t)
	var want []vault.ID
	must(t, s, func(tx *Tx) error {
		for i := range 30 {
			r := someRecord()
			r.Key = []vault.KeyState{vault.KeyActive, vault.KeyRevoking, vault.KeyRevoked, vault.KeyRestoring, vault.KeyDestroying, vault.KeyDestroyed}[i%6]
			if i%6 == 1 || i%6 == 3 || i%6 == 4 {
				want = append(want, r.ID)
			}
			if err := tx.AddRecord(r); err != nil {
				return err
			}
		}
		return nil
	})
	var got []vault.ID
	var after vault.ID
	for {
		page := view(t, s, func(tx *Tx) ([]vault.Record, error) { return tx.KeysDue(after, 4) })
		if len(page) == 0 {
			break
		}
		got = append(got, ids(page, recordID)...)
		if after = got[len(got)-1]; len(got) > len(want) {
			break // the same ones again
		}
	}
	if !slices.Equal(got, sortedIDs(want)) {
		t.Errorf("%d due, want %d", len(got), len(want))
	}
}

// A destroyed record's wrapped key is gone from the files, not only from the row.
func TestDestroyedKeysLeaveTheFiles(t *testing.T) {
	path := t.TempDir() + "/p.db"
	s := openFile(t, path, newClock())
	gone, kept := someRecord(), someRecord()
	must(t, s, func(tx *Tx) error { return errors.Join(tx.AddRecord(gone), tx.AddRecord(kept)) })
	must(t, s, func(tx *Tx) error { return tx.DestroyRecord(gone.ID) })
	if got := view(t, s, func(tx *Tx) (vault.Record, error) { return tx.Record(gone.ID) }); got.WrappedKey != "" {
		t.Errorf("wrapped key %q", got.WrappedKey)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if inFiles(t, path, gone.WrappedKey) {
		t.Error("the wrapped key stands in the files still")
	}
	if !inFiles(t, path, kept.WrappedKey) {
		t.Error("another record's wrapped key is gone")
	}
}

func TestDecisions(t *testing.T) {
	c := newClock()
	s := openWith(t, c)
	expires := vault.Micro(c.now()).Add(time.Hour)
	d := vault.Proposal{
		Decision: vault.Decision{ID: vault.NewID(), Kind: vault.ApplyPurpose, Body: "a: b\n", Expires: expires},
		Payload:  []byte{0, 1, 255}, Need: 2,
	}
	must(t, s, func(tx *Tx) error { return tx.AddDecision(d) })
	read := func() vault.Proposal {
		return view(t, s, func(tx *Tx) (vault.Proposal, error) { return tx.Decision(d.ID) })
	}
	if got := read(); !reflect.DeepEqual(got, d) {
		t.Errorf("%+v\nreads back as\n%+v", d, got)
	}
	late := vault.Signature{Signer: "a", SignedAt: expires, Bytes: []byte{0, 1}, Chain: [][]byte{{0, 255}, {1}}}
	early := vault.Signature{Signer: "b", SignedAt: expires.Add(-time.Minute), Bytes: []byte{2}, Chain: [][]byte{{3}}}
	must(t, s, func(tx *Tx) error { return errors.Join(tx.AddSignature(d.ID, late), tx.AddSignature(d.ID, early)) })
	if got := read().Signatures; !reflect.DeepEqual(got, []vault.Signature{early, late}) {
		t.Errorf("signatures %+v", got)
	}
	if _, err := s.Update(t.Context(), func(tx *Tx) error { return tx.AddSignature(d.ID, late) }); err == nil {
		t.Error("one signer's two signatures were kept")
	}

	open := func(k vault.DecisionKind, body string) error {
		return s.View(t.Context(), func(tx *Tx) error {
			got, err := tx.OpenDecision(k, body)
			if err == nil && got.ID != d.ID {
				t.Errorf("another decision, %s", got.ID)
			}
			return err
		})
	}
	if err := open(d.Kind, d.Body); err != nil {
		t.Error(err)
	}
	wantReason(t, open(d.Kind, d.Body+"x"), vault.NotFound, vault.ReasonDecisionUnknown)
	wantReason(t, open(vault.DestroyKeys, d.Body), vault.NotFound, vault.ReasonDecisionUnknown)
	c.add(time.Hour)
	wantReason(t, open(d.Kind, d.Body), vault.NotFound, vault.ReasonDecisionUnknown)
	c.add(-time.Hour)
	must(t, s, func(tx *Tx) error { return tx.SetEffective(d.ID) })
	if !read().Effective {
		t.Error("it is not in force")
	}
	wantReason(t, open(d.Kind, d.Body), vault.NotFound, vault.ReasonDecisionUnknown)
	wantReason(t, s.View(t.Context(), func(tx *Tx) error { _, err := tx.Decision(vault.NewID()); return err }), vault.NotFound, vault.ReasonDecisionUnknown)
}

func TestPurposes(t *testing.T) {
	s := open(t)
	ds := map[string]vault.ID{}
	want := map[string]vault.Purpose{}
	must(t, s, func(tx *Tx) error {
		for _, v := range []int{1, 2, 10, 9} { // as numbers, not as text
			for _, name := range []string{"upkeep", "a-study"} {
				if name == "a-study" && v > 2 {
					continue
				}
				d := vault.Proposal{Decision: vault.Decision{ID: vault.NewID(), Kind: vault.ApplyPurpose, Body: fmt.Sprint(v), Expires: tx.Now()}, Payload: []byte("x")}
				p := vault.Purpose{Name: name, Version: v, Title: "é <&>", Modalities: []vault.Modality{vault.Plate}, Sites: []string{"a"},
					Contractors: []string{"acme"}, MaxTTL: time.Hour, MaxRecords: 1 << 40, Approvals: 2, LegalBasis: "Order 12", Linkage: true, MaxBytes: 1 << 43,
					MaxRate: 7, MaxRecordAge: time.Hour, Precision: vault.PrecisionDay, MinBucket: 3, Approvers: []string{"ann"}, Strict: true, Live: true,
					Retention: []string{vault.DefaultClass}, Withdrawn: v == 10, Replaces: vault.DigestOf([]byte(name))}
				if v >= want[name].Version {
					ds[name], want[name] = d.ID, p
				}
				if err := errors.Join(tx.AddDecision(d), tx.AddPurpose(p, d.ID), tx.AddSignature(d.ID, vault.Signature{Signer: "a", SignedAt: tx.Now(), Bytes: []byte{1}, Chain: [][]byte{{1}}})); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err := s.View(t.Context(), func(tx *Tx) error {
		for name, p := range want {
			got, err := tx.Purpose(name)
			if err != nil || !reflect.DeepEqual(got.Purpose, p) || got.Decision.ID != ds[name] || len(got.Signatures) != 1 || got.Purpose.Digest() != p.Digest() {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
		}
		if first, err := tx.PurposeVersion("upkeep", 1); err != nil || first.Purpose.Version != 1 || first.Decision.Body != "1" {
			t.Errorf("version 1: %+v, %v", first, err)
		}
		_, err := tx.Purpose("none")
		wantReason(t, err, vault.NotFound, vault.ReasonPurposeUnknown)
		_, err = tx.PurposeVersion("upkeep", 3)
		wantReason(t, err, vault.NotFound, vault.ReasonPurposeUnknown)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Purposes(t.Context()); err != nil || !reflect.DeepEqual(got, []vault.Purpose{want["a-study"], want["upkeep"]}) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := s.Update(t.Context(), func(tx *Tx) error { return tx.AddPurpose(want["upkeep"], vault.NewID()) }); err == nil {
		t.Error("a version of a purpose was replaced")
	}
}

func TestContractorsAndEpochs(t *testing.T) {
	s := open(t)
	acme := vault.Contractor{Name: "acme", Title: "Acme", Group: "holding", Epoch: 1}
	put := func(c vault.Contractor) {
		t.Helper()
		must(t, s, func(tx *Tx) error { return tx.PutContractor(c, vault.NewID()) })
	}
	due := func() []vault.Contractor {
		return view(t, s, func(tx *Tx) ([]vault.Contractor, error) { return tx.ContractorsDue() })
	}
	disabled := func() bool { return view(t, s, func(tx *Tx) (bool, error) { return tx.Disabled("acme") }) }
	put(vault.Contractor{Name: "zeta", Title: "Zeta", Epoch: 1})
	put(acme)
	if got, err := s.Contractors(t.Context()); err != nil || len(got) != 2 || got[0] != acme {
		t.Errorf("%+v, %v", got, err)
	}
	if len(due()) != 0 || disabled() {
		t.Error("something is due before a suspension")
	}
	must(t, s, func(tx *Tx) error { _, err := tx.SuspendContractor("acme"); return err })
	acme.Suspended = true
	if got := due(); !slices.Equal(got, []vault.Contractor{acme}) || disabled() {
		t.Errorf("due %+v", got)
	}
	must(t, s, func(tx *Tx) error { return tx.SetDisabled("acme", 1) })
	if len(due()) != 0 || !disabled() {
		t.Error("it is due still")
	}
	acme.Suspended, acme.Epoch = false, 2 // reinstated
	put(acme)
	if disabled() || len(due()) != 0 {
		t.Error("a new epoch counts as disabled")
	}
	must(t, s, func(tx *Tx) error { _, err := tx.SuspendContractor("acme"); return err })
	if len(due()) != 1 || disabled() {
		t.Error("the second suspension is not due")
	}
	wantReason(t, s.View(t.Context(), func(tx *Tx) error { _, err := tx.Contractor("none"); return err }), vault.NotFound, vault.ReasonContractorUnknown)
}

func TestStanding(t *testing.T) {
	s := open(t)
	must(t, s, func(tx *Tx) error {
		return errors.Join(tx.PutContractor(vault.Contractor{Name: "acme", Epoch: 1}, vault.NewID()),
			tx.PutContractor(vault.Contractor{Name: "bad", Epoch: 1, Suspended: true}, vault.NewID()),
			tx.exec("INSERT INTO suspended_callers (id, suspended_at) VALUES ($1, $2)", "spiffe://example.org/admin/eve", micros(tx.Now())))
	})
	for _, c := range []struct {
		caller vault.Caller
		want   vault.Reason
	}{
		{vault.Caller{ID: "x", Role: vault.RoleContractor, Org: "acme"}, ""},
		{vault.Caller{ID: "x", Role: vault.RoleContractor, Org: "bad"}, vault.ReasonContractorSuspended},
		{vault.Caller{ID: "x", Role: vault.RoleContractor, Org: "none"}, vault.ReasonContractorUnknown},
		{vault.Caller{ID: "spiffe://example.org/admin/ann", Role: vault.RoleAdmin, Name: "ann"}, ""},
		{vault.Caller{ID: "spiffe://example.org/admin/eve", Role: vault.RoleAdmin, Name: "eve"}, vault.ReasonCallerSuspended},
		{vault.Caller{ID: "c", Role: vault.RoleCapture}, ""},
	} {
		err := s.Standing(t.Context(), c.caller)
		if c.want == "" && err != nil {
			t.Errorf("%+v: %v", c.caller, err)
		} else if c.want != "" {
			wantReason(t, err, vault.Denied, c.want)
		}
	}
}
