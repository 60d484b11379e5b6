package main

import (
	"context"
	"sync"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
)

const (
	// markEvery is how often Vault's mark moves on. Of what Vault did since, a copy of it may
	// know nothing and bear the same mark, so that is looked at again each time.
	markEvery = 15 * time.Second
	// firstLook is how long a start waits for the first look. Then the daemon serves all the
	// same, but for releases and activations: suspending must work while Vault is away.
	firstLook = 5 * time.Second
	// checkedFor is how long the answer of the database is taken for granted.
	checkedFor = 250 * time.Millisecond
	// clockMargin is by how much the clocks of two nodes may differ.
	clockMargin = time.Second
)

// watchRestores looks every second whether Vault or the database were restored from a copy, and
// shuts again what that opened. looked is closed after the first time. Above a Vault that belongs
// to another database the daemon ends. It returns when ctx ends.
func (d *daemon) watchRestores(ctx context.Context, every time.Duration, looked chan<- struct{}) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var deep time.Time // of the last look that was more than a glance, and succeeded
	var why vault.Reason
	for {
		depth := breach.LookMark
		if time.Since(deep) >= every {
			depth = breach.LookSince
		}
		out, err := d.stock.Look(ctx, depth)
		if err == nil {
			d.looked.Store(true)
		}
		switch now := vault.ReasonOf(err); {
		case ctx.Err() != nil:
		case err != nil:
			deep = time.Time{}
			if now == "" {
				now = vault.ReasonInternal
			}
			if now == vault.ReasonOtherDatabase {
				select {
				case d.foreign <- err:
				default: // it was told before
				}
			}
			if now != why {
				d.log.Error("nothing is released until Vault and the database are checked for a restore", "reason", now, "error", err)
			}
			why = now
		default:
			if depth != breach.LookMark || out.Restored {
				deep = time.Now()
			}
			if why != "" {
				d.log.Info("Vault and the database are checked; releases go on")
			}
			why = ""
		}
		if out.Restored {
			d.log.Warn("Vault was restored from a copy: all grant tokens have ended there, grantees activate again", "grants", out.Tokens, "done", err == nil)
		}
		if out.Keys > 0 {
			d.log.Warn("keys were open or there that must not be; they are shut again", "keys", out.Keys)
		}
		for _, what := range out.Skipped {
			d.log.Error("left out while Vault and the database were checked for a restore: run portcullisd fsck", "what", what)
		}
		if out.Unsaved != nil {
			d.log.Error("how far the log has come can not be remembered beside the ciphertext: an older database may not be found out", "error", out.Unsaved)
		}
		if looked != nil {
			close(looked)
			looked = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// checks remembers for a moment what the database said of the last look.
type checks struct {
	mu  sync.Mutex
	at  time.Time
	err error
}

// checked says whether releases may rest on the last look that a process with the admin role
// took: Unavailable if not. A process with that role rests on none from before its own first one,
// for it may stand above another Vault than the process did that wrote it down.
func (d *daemon) checked(ctx context.Context) error {
	c := &d.checks
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.at.IsZero() && time.Since(c.at) < checkedFor {
		return c.err
	}
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	m, err := d.store.Marked(ctx)
	if err != nil {
		return err // perhaps the caller's own leaving: nothing to remember
	}
	c.at, c.err = time.Now(), nil
	switch {
	case c.at.Before(m.Good.Add(-clockMargin)) && (d.stock == nil || d.looked.Load()):
	case m.Reason == vault.ReasonLogRolledBack:
		c.err = vault.E(vault.Unavailable, m.Reason, "the service's database is older than it was: nothing is released before the newest one is restored")
	case m.Reason == vault.ReasonOtherDatabase:
		c.err = vault.E(vault.Unavailable, m.Reason, "HashiCorp Vault belongs to another database than the service's: nothing is released")
	case m.Reason == vault.ReasonVaultUnavailable:
		c.err = vault.E(vault.Unavailable, m.Reason, "Vault is sealed or away")
	default:
		c.err = vault.E(vault.Unavailable, vault.ReasonVaultUnchecked, "nobody has made sure lately that neither Vault nor the database was restored from a copy; try again")
	}
	return c.err
}
