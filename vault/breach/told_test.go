package breach_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

// TestLogSaysWhatIsShut: whatever somebody wrote into the rows.
func TestLogSaysWhatIsShut(t *testing.T) {
	for name, sql := range map[string][]string{
		"state":    {"UPDATE records SET key_state = 'active'"},
		"restored": {"UPDATE records SET key_state = 'restoring'"},
		"moved":    {"UPDATE records SET key_state = 'active', site = 'south', captured_at = captured_at + 864000000000"},
		"no rows":  {"DELETE FROM records"},
		"damaged":  {"UPDATE records SET key_state = 'active', captured_at = 'x'"},
		"types":    {"UPDATE records SET key_state = 'active'", "UPDATE events SET type = 'records.listed'"},
	} {
		t.Run(name, func(t *testing.T) {
			w := watch(t, 3)
			w.revoke(house.One(w.records[0]))
			sel := house.One(w.records[1])
			w.Decide(breach.Action{Destroy: &sel})
			gone := w.records[1]
			w.look(breach.LookSince)
			// The copy has both keys, open. The house's Vault makes another one of the name.
			w.NoError(w.hc.RestoreKey(ctx(), w.records[0].KeyName()))
			_, err := w.hc.Wrap(ctx(), gone.KeyName(), make([]byte, 32))
			w.NoError(err)
			for _, q := range sql {
				w.SQL(q)
			}
			w.vault.restore(w.older)
			out, err := w.Look(ctx(), breach.LookMark)
			if err != nil || !out.Restored || w.vault.open() {
				t.Fatalf("%+v, %v", out, err)
			}
			if !w.revoked(w.records[0].KeyName()) {
				t.Error("the revoked key is open")
			}
			if names, err := w.hc.Keys(ctx()); err != nil || (slices.Contains(names, gone.KeyName()) && !w.revoked(gone.KeyName())) {
				t.Error("the destroyed key is open", err)
			}
			if w.revoked(w.records[2].KeyName()) {
				t.Error("an active key is shut")
			}
			if name == "state" || name == "restored" || name == "types" {
				if got := w.KeyState(w.records[0].ID); got != vault.KeyRevoked {
					t.Error("its row says", got)
				}
				if got := w.KeyState(gone.ID); got != vault.KeyDestroyed {
					t.Error("the other's says", got)
				}
				if len(w.Events(vault.EventRestoreUndone)) == 0 {
					t.Error("the log does not tell")
				}
			}
		})
	}
}

// TestLawfullyRestoredStaysOpen: two admins restored it, before or while the log is read.
func TestLawfullyRestoredStaysOpen(t *testing.T) {
	w := watch(t, 2)
	w.revoke(house.All())
	w.look(breach.LookSince)
	w.restore(house.One(w.records[0]))
	w.vault.on("Keys", func() { w.restore(house.One(w.records[1])) })
	for _, how := range []breach.Depth{breach.LookAll, breach.LookSince, breach.LookAll} {
		w.look(how)
		w.keys(vault.KeyActive)
	}
	if e := w.Events(vault.EventRestoreUndone); len(e) > 0 {
		t.Errorf("%+v", e)
	}
}

// TestSameMarkAndRows: also where the marks tell of no restore, a row alone opens nothing.
func TestSameMarkAndRows(t *testing.T) {
	w := watch(t, 2)
	w.revoke(house.One(w.records[0]))
	w.NoError(w.hc.RestoreKey(ctx(), w.records[0].KeyName()))
	w.SQL("UPDATE records SET key_state = 'active'")
	if out := w.look(breach.LookSince); out.Keys == 0 || out.Restored {
		t.Errorf("%+v", out)
	}
	w.keys(vault.KeyRevoked, vault.KeyActive)
}

// TestLogSaysWhoIsSuspended: rows that let somebody in again are set back.
func TestLogSaysWhoIsSuspended(t *testing.T) {
	w := watch(t, 1)
	other := w.Caller("contractor/acme/other")
	g, _ := w.Active(other)
	w.vault.fences = []vault.ID{g.Grant, w.grant.Grant}
	_, _, err := w.Grants.Revoke(ctx(), w.Alice().Caller, w.grant.Grant, "")
	w.NoError(err)
	_, err = w.Breach.SuspendCaller(ctx(), w.Alice().Caller, other.ID, "")
	w.NoError(err)
	_, err = w.Breach.Suspend(ctx(), w.Alice().Caller, "acme", "")
	w.NoError(err)
	w.SQL("UPDATE contractors SET suspended = 0")
	w.SQL("DELETE FROM suspended_callers")
	w.SQL("UPDATE grants SET state = 'active'")
	fence := func() error { return w.hc.WriteFence(ctx(), g.Grant, vault.Fence{Prefixes: []string{"north.plate.2"}}) }
	w.NoError(w.hc.DeleteFence(ctx(), g.Grant)) // as it is in the copy
	w.NoError(fence())
	w.look(breach.LookAll)
	if w.Ask("SELECT suspended FROM contractors WHERE name = 'acme'") != "1" || w.Ask("SELECT COUNT(*) FROM suspended_callers") != "1" ||
		w.Ask("SELECT COUNT(*) FROM grants WHERE state = 'active'") != "0" {
		t.Error("rows are as they were written")
	}
	if err := fence(); vault.ReasonOf(err) != vault.ReasonGrantRevoked {
		t.Error("its fence is not closed:", err)
	}
	n := len(w.Events())
	if w.look(breach.LookAll); len(w.Events()) != n {
		t.Error("it is told again")
	}
}

// TestOneBadRowStopsNothing.
func TestOneBadRowStopsNothing(t *testing.T) {
	w := watch(t, 3)
	w.revoke(house.One(w.records[0]))
	w.revoke(house.One(w.records[1]))
	_, _, err := w.Grants.Revoke(ctx(), w.Alice().Caller, w.grant.Grant, "")
	w.NoError(err)
	bad, _ := w.Active(w.acme)
	w.vault.fences = []vault.ID{bad.Grant, w.grant.Grant}
	w.SQL("DELETE FROM records WHERE id = ?", w.records[0].ID.String())
	w.SQL("UPDATE grants SET ends = 'x' WHERE id = ?", bad.Grant.String())
	w.NoError(w.hc.RestoreKey(ctx(), w.records[1].KeyName()))
	for _, how := range []breach.Depth{breach.LookSince, breach.LookAll} {
		out := w.look(how)
		if !w.releases() || !strings.Contains(strings.Join(out.Skipped, "\n"), w.records[0].ID.String()) {
			t.Errorf("%+v", out)
		}
		if how == breach.LookAll && !strings.Contains(strings.Join(out.Skipped, "\n"), bad.Grant.String()) {
			t.Errorf("%+v", out)
		}
	}
	if !w.revoked(w.records[1].KeyName()) {
		t.Error("the rest is not shut")
	}
}

// TestTellIsLinear: what reading a long log costs. Shown by -v.
func TestTellIsLinear(t *testing.T) {
	w := watch(t, 1)
	w.revoke(house.All())
	w.SQL(`WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99999)
		INSERT INTO events (idx, type, body) SELECT (SELECT next FROM log_counter) + i, 'keys.revoked',
			(SELECT body FROM events WHERE type = 'keys.revoked' LIMIT 1) FROM n`)
	w.SQL("UPDATE log_counter SET next = next + 100000")
	start := time.Now()
	w.look(breach.LookAll)
	t.Logf("100,000 events, each of them about a key: %s", time.Since(start))
	w.keys(vault.KeyRevoked)
}
