package store

import (
	"slices"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

func TestWork(t *testing.T) {
	c := newClock()
	s := openWith(t, c)
	work := func(most int) vault.Work {
		t.Helper()
		w, err := s.Work(t.Context(), most)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	if w := work(5); w.OpenCount != 0 || len(w.Open) != 0 || len(w.Keys) != 0 {
		t.Errorf("an empty database has work: %+v", w)
	}
	var open []vault.ID // newest first
	for i := range 6 {
		c.add(time.Minute)
		d := vault.Proposal{
			Decision: vault.Decision{ID: vault.NewID(), Kind: vault.ApplyPurpose, Body: "a: b\n", Expires: vault.Micro(c.now()).Add(time.Hour)},
			Payload:  []byte{0}, Need: 2,
		}
		if i == 0 {
			d.Expires = vault.Micro(c.now()).Add(time.Minute) // will have expired
		}
		must(t, s, func(tx *Tx) error { return tx.AddDecision(d) })
		switch i {
		case 0:
		case 3:
			must(t, s, func(tx *Tx) error { return tx.SetEffective(d.ID) })
		default:
			open = slices.Insert(open, 0, d.ID)
		}
	}
	must(t, s, func(tx *Tx) error {
		return tx.AddSignature(open[0], vault.Signature{Signer: "a", SignedAt: c.now(), Bytes: []byte{1}, Chain: [][]byte{{1}}})
	})
	must(t, s, func(tx *Tx) error {
		for i := range 21 {
			r := someRecord()
			r.Key = []vault.KeyState{vault.KeyActive, vault.KeyRevoking, vault.KeyRevoked, vault.KeyRestoring, vault.KeyDestroying, vault.KeyDestroyed, vault.KeyRevoking}[i%7]
			if err := tx.AddRecord(r); err != nil {
				return err
			}
		}
		return nil
	})
	w := work(3)
	if w.OpenCount != 4 || !slices.Equal(ids(w.Open, func(p vault.Proposal) vault.ID { return p.ID }), open[:3]) || len(w.Open[0].Signatures) != 1 {
		t.Errorf("open: %d, %+v", w.OpenCount, w.Open)
	}
	if len(w.Keys) != 3 || w.Keys[vault.KeyRevoking] != 6 || w.Keys[vault.KeyRestoring] != 3 || w.Keys[vault.KeyDestroying] != 3 {
		t.Errorf("keys: %v", w.Keys)
	}
}
