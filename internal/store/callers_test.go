package store

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

func TestSuspensions(t *testing.T) {
	s := open(t)
	at := time.Date(2026, 3, 1, 6, 0, 0, 1000, time.UTC)
	const admin = "spiffe://example.org/admin/eve"
	var want []vault.Suspension
	for i := range 5 {
		want = append(want, vault.Suspension{Caller: fmt.Sprintf("spiffe://example.org/auditor/a%d", i), At: at.Add(time.Duration(i) * time.Second), By: admin})
	}
	must(t, s, func(tx *Tx) error {
		return errors.Join(tx.SuspendCaller(want[3]), tx.SuspendCaller(want[0]), tx.SuspendCaller(want[4]), tx.SuspendCaller(want[1]), tx.SuspendCaller(want[2]))
	})
	var got []vault.Suspension
	for after := ""; ; {
		page, err := s.Suspensions(t.Context(), after, 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		got, after = append(got, page...), page[len(page)-1].Caller
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("pages give\n%v, want\n%v", got, want)
	}
	if one := view(t, s, func(tx *Tx) (vault.Suspension, error) { return tx.Suspension(want[2].Caller) }); one != want[2] {
		t.Errorf("one is %+v", one)
	}
	if _, err := s.Update(t.Context(), func(tx *Tx) error { return tx.SuspendCaller(want[0]) }); err == nil {
		t.Error("a caller was suspended twice")
	}
	must(t, s, func(tx *Tx) error { return tx.ReinstateCaller(want[2].Caller) })
	err := s.View(t.Context(), func(tx *Tx) error { _, err := tx.Suspension(want[2].Caller); return err })
	wantReason(t, err, vault.NotFound, vault.ReasonUnchanged)
}

// TestRestsOnIsCut: a long review says that it is not whole.
func TestRestsOnIsCut(t *testing.T) {
	s := open(t)
	const admin = "spiffe://example.org/admin/eve"
	must(t, s, func(tx *Tx) (err error) {
		for i := range 4 {
			d := vault.NewID()
			err = errors.Join(err, tx.PutContractor(vault.Contractor{Name: fmt.Sprintf("org-%d", i), Suspended: i == 3, Epoch: 1}, d),
				tx.AddSignature(d, vault.Signature{Signer: admin, SignedAt: time.Unix(1, 0), Bytes: []byte{1}}))
		}
		return err
	})
	for most, want := range map[int]string{2: "[org-0 org-1] true", 3: "[org-0 org-1 org-2] false"} {
		r := view(t, s, func(tx *Tx) (vault.Review, error) { return tx.RestsOn(admin, most) })
		if got := fmt.Sprint(r.Contractors, r.More); got != want {
			t.Errorf("at most %d: %s, want %s", most, got, want)
		}
	}
	if r := view(t, s, func(tx *Tx) (vault.Review, error) { return tx.RestsOn("spiffe://example.org/admin/ann", 2) }); r.Contractors != nil || r.More {
		t.Errorf("on another's signature: %+v", r)
	}
}
