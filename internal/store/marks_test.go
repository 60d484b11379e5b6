package store

import (
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

func TestMarked(t *testing.T) {
	s := open(t)
	if m := view(t, s, (*Tx).Marked); m.Mark != (vault.Mark{}) || m.Next != (vault.Mark{}) || m.Good.After(time.Unix(0, 0)) {
		t.Errorf("at first: %+v", m)
	}
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	first := vault.Mark{}.After()
	want := vault.Marked{
		Database: vault.NewID(),
		Mark:     first, Begun: first.After(), Next: first.After(), Log: 3, NextLog: 5, Claimed: at, Generation: 7, Good: at.Add(time.Second), Reason: vault.ReasonLogRolledBack,
	}
	must(t, s, func(tx *Tx) error { return tx.SetMarked(want) })
	if got := view(t, s, (*Tx).Marked); got != want {
		t.Errorf("%+v reads back as %+v", want, got)
	}
	must(t, s, func(tx *Tx) error { return tx.exec("UPDATE vault_mark SET mark = 'junk'") })
	if err := s.View(t.Context(), func(tx *Tx) error { _, err := tx.Marked(); return err }); vault.KindOf(err) != vault.DataLoss {
		t.Errorf("junk: %v", err)
	}
}

func TestForgetTokens(t *testing.T) {
	s := open(t)
	live, ended := someGrant(vault.GrantActive), someGrant(vault.GrantRevoked)
	for _, g := range []vault.Grant{live, ended} {
		addGrant(t, s, g)
		must(t, s, func(tx *Tx) error {
			if err := tx.SetGrantToken(g.Grant, vault.DigestOf([]byte("t")), "accessor"); err != nil {
				return err
			}
			return tx.SetFenceState(g.Grant, vault.FenceWritten)
		})
	}
	must(t, s, func(tx *Tx) error {
		n, err := tx.ForgetTokens()
		if n != 1 {
			t.Errorf("%d had a token", n)
		}
		return err
	})
	for g, want := range map[vault.ID]vault.FenceState{live.Grant: vault.FenceDue, ended.Grant: vault.FenceWritten} {
		got := view(t, s, func(tx *Tx) (vault.Grant, error) { return tx.Grant(g) })
		fence := view(t, s, func(tx *Tx) (vault.FenceState, error) { return tx.FenceState(g) })
		if forgot := got.Accessor == "" && got.TokenDigest == (vault.Digest{}); forgot != (g == live.Grant) || fence != want {
			t.Errorf("grant %v: %+v, fence %s", g == live.Grant, got, fence)
		}
	}
}
