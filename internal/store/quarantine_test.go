package store

import (
	"slices"
	"testing"

	"github.com/portcullis/portcullis/vault"
)

func TestQuarantine(t *testing.T) {
	s := open(t)
	r := someRecord()
	since := r.StoredAt
	in := []vault.Orphan{
		{Kind: vault.OrphanBlob, Name: r.ID.String(), Record: r.ID, Since: since},
		{Kind: vault.OrphanKey, Name: r.KeyName(), Record: r.ID, Since: since},
	}
	for range 2 { // a second note changes nothing
		for _, o := range in {
			must(t, s, func(tx *Tx) error { return tx.Quarantine(o) })
			o.Since = since.AddDate(1, 0, 0)
			must(t, s, func(tx *Tx) error { return tx.Quarantine(o) })
		}
		if got := view(t, s, (*Tx).Quarantined); !slices.Equal(got, in) {
			t.Fatalf("%+v\nreads back as\n%+v", in, got)
		}
	}
	_, err := s.Update(t.Context(), storeRecord(r))
	wantReason(t, err, vault.Conflict, vault.ReasonStoreOvertaken)
	must(t, s, func(tx *Tx) error { return tx.EndQuarantine(vault.NewID()) })
	if got := view(t, s, (*Tx).Quarantined); len(got) != 2 {
		t.Fatal(got)
	}
	must(t, s, func(tx *Tx) error { return tx.EndQuarantine(r.ID) })
	must(t, s, storeRecord(r))
	if got := view(t, s, (*Tx).Quarantined); len(got) != 0 {
		t.Fatal(got)
	}
}

// TestDestroyedOrphanIsNeverStored: also once nothing of it is in quarantine any more.
func TestDestroyedOrphanIsNeverStored(t *testing.T) {
	s := open(t)
	r := someRecord()
	must(t, s, func(tx *Tx) error {
		return tx.Quarantine(vault.Orphan{Kind: vault.OrphanBlob, Name: r.ID.String(), Record: r.ID, Since: r.StoredAt})
	})
	for range 2 {
		must(t, s, func(tx *Tx) error { return tx.Destroyed(r.ID) })
	}
	if got := view(t, s, (*Tx).Quarantined); len(got) != 0 {
		t.Error(got)
	}
	_, err := s.Update(t.Context(), storeRecord(r))
	wantReason(t, err, vault.Conflict, vault.ReasonStoreOvertaken)
	must(t, s, storeRecord(someRecord()))
}

func TestRecordsPage(t *testing.T) {
	s := open(t)
	var want []vault.ID
	for range 7 {
		r := someRecord()
		must(t, s, storeRecord(r))
		want = append(want, r.ID)
	}
	want = sortedIDs(want)
	var got []vault.ID
	for after := (vault.ID{}); ; {
		page := view(t, s, func(tx *Tx) ([]vault.Record, error) { return tx.Records(after, 3) })
		if len(page) == 0 {
			break
		}
		got = append(got, ids(page, recordID)...)
		after = page[len(page)-1].ID
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
