package grants_test

import (
	"context"
	"testing"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/grants"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

// readings counts the versions of purposes that the service reads.
type readings struct {
	grants.Ledger
	n int
}

type readingTx struct {
	grants.Tx
	r *readings
}

func (r *readings) Update(ctx context.Context, fn func(grants.Tx) error) (int64, error) {
	return r.Ledger.Update(ctx, func(tx grants.Tx) error { return fn(readingTx{tx, r}) })
}

func (tx readingTx) PurposeVersion(name string, version int) (vault.Sanction, error) {
	tx.r.n++
	return tx.Tx.PurposeVersion(name, version)
}

// TestChainIsWalkedOnce: a purpose that one admin tightened again and again is proved from its first
// version on once, and not with each request again while the database's only writer waits.
func TestChainIsWalkedOnce(t *testing.T) {
	s := open(t)
	p := house.Tuning()
	alice := s.Alice()
	for range 30 {
		p.MaxBytes--
		d := s.Propose(breach.Action{Purpose: &p})
		_, _, err := s.Breach.Sign(t.Context(), alice.Caller, d.ID, alice.Sign(d.Decision))
		s.NoError(err)
	}
	r := &readings{Ledger: s.Grants.Ledger}
	s.Grants.Ledger = r
	for _, want := range []int{30, 0, 0} {
		r.n = 0
		s.NoError(s.asked(s.acme))
		if r.n != want {
			t.Errorf("%d earlier versions were read, want %d", r.n, want)
		}
	}
}

func BenchmarkAffiliates(b *testing.B) {
	s := house.New(b)
	s.Open()
	names := make([]string, 200)
	for i := range names {
		names[i] = "org-" + string(rune('a'+i/26)) + string(rune('a'+i%26))
	}
	s.Admit(names...)
	acme := s.Caller("contractor/acme/tuning")
	for b.Loop() {
		if _, err := s.Grants.Explain(b.Context(), acme, house.Ask()); err != nil {
			b.Fatal(err)
		}
	}
}
