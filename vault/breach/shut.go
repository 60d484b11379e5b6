package breach

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/portcullis/portcullis/vault"
)

// toShut is what a look has to check, or to do again.
type toShut struct {
	log    *verdict           // nil if only rows were asked
	epochs []vault.Contractor // each with an epoch that has ended
	grants []vault.ID         // of which Vault may have a policy
	ended  map[vault.ID]bool  // those of them that ended whatever their rows say

	keys  map[vault.ID]vault.KeyState // revoked or destroyed
	names map[vault.ID][]string       // of what Vault may have of these
	rows  map[vault.ID]keyRow         // of these
	back  []vault.ID                  // keys whose rows are not what the log says
	owed  []vault.ID                  // keys that are being shut: a look that failed may have begun it
}

// keyRow is what a record's row says of its key.
type keyRow struct {
	name  string
	state vault.KeyState
}

func newToShut() *toShut {
	return &toShut{
		ended: map[vault.ID]bool{}, keys: map[vault.ID]vault.KeyState{}, names: map[vault.ID][]string{}, rows: map[vault.ID]keyRow{},
	}
}

// shutAll looks at all that must be shut, by the rows or by the log: one list of keys, and one call
// for each revoked one that is in it. Measured on two cores that were busy with other work: 460 to
// 1,080 keys a second, with no gain from more than 8 at once.
func (r *Reconciler) shutAll(ctx context.Context, out *Shut) error {
	log, err := r.tell(ctx, out)
	if err != nil {
		return err
	}
	if err := r.standBack(ctx, log, out); err != nil {
		return err
	}
	todo := newToShut()
	todo.log = log
	if todo.grants, err = r.Vault.Fences(ctx); err != nil {
		return err
	}
	for id, g := range log.grants {
		todo.ended[id] = g.end != ""
	}
	if err := r.endedEpochs(ctx, todo, out); err != nil {
		return err
	}
	if err := r.shutRows(ctx, todo, out); err != nil {
		return err
	}
	for id := range log.keys {
		if err := r.believe(ctx, todo, id, out); err != nil {
			return err
		}
	}
	if err := r.nameKeys(ctx, todo); err != nil {
		return err
	}
	return r.shutAgain(ctx, todo, out)
}

// endedEpochs finds the epochs that ended.
func (r *Reconciler) endedEpochs(ctx context.Context, todo *toShut, out *Shut) error {
	last := map[string]int{}
	var orgs []vault.Contractor
	err := r.Ledger.View(ctx, func(tx StockTx) (err error) {
		orgs, err = tx.Contractors()
		return err
	})
	if vault.KindOf(err) == vault.DataLoss {
		out.skip("contractors: %v", err)
	} else if err != nil {
		return err
	}
	for _, c := range orgs {
		last[c.Name] = c.Epoch - 1
		if c.Suspended {
			last[c.Name] = c.Epoch
		}
	}
	for name, o := range todo.log.orgs {
		last[name] = max(last[name], slices.Max(append(o.epochs, 0)))
	}
	for name, until := range last {
		for epoch := 1; epoch <= until; epoch++ {
			todo.epochs = append(todo.epochs, vault.Contractor{Name: name, Epoch: epoch})
		}
	}
	return nil
}

// shutRows finds the keys that rows say are shut.
func (r *Reconciler) shutRows(ctx context.Context, todo *toShut, out *Shut) error {
	for after := ""; ; {
		var ids []string
		err := r.Ledger.View(ctx, func(tx StockTx) (err error) {
			ids, err = tx.IDsIn(after, page, vault.KeyRevoked, vault.KeyDestroyed)
			return err
		})
		if err != nil || len(ids) == 0 {
			return err
		}
		after = ids[len(ids)-1]
		for _, text := range ids {
			id, err := vault.ParseID("record", text)
			if err != nil {
				out.skip("the row of record %q is damaged", text)
				continue
			}
			row, err := r.keyRow(ctx, todo, id, out)
			if err != nil {
				return err
			}
			if row.state == vault.KeyRevoked || row.state == vault.KeyDestroyed {
				todo.keys[id] = row.state
			}
		}
	}
}

// keyRow reads the row of a record: empty if there is none, or none that can be read.
func (r *Reconciler) keyRow(ctx context.Context, todo *toShut, id vault.ID, out *Shut) (keyRow, error) {
	if row, known := todo.rows[id]; known {
		return row, nil
	}
	rec, err := r.record(ctx, id)
	switch vault.KindOf(err) {
	case vault.NotFound:
		out.skip("record %s has no row", id)
	case vault.DataLoss:
		out.skip("the row of record %s is damaged", id)
	default:
		if err != nil {
			return keyRow{}, err
		}
		todo.rows[id] = keyRow{name: rec.KeyName(), state: rec.Key}
	}
	return todo.rows[id], nil
}

// believe takes what the log says of a key, whatever its row does.
func (r *Reconciler) believe(ctx context.Context, todo *toShut, id vault.ID, out *Shut) error {
	told, ok := todo.log.keys[id]
	if !ok {
		return nil
	}
	row, err := r.keyRow(ctx, todo, id, out)
	if err != nil {
		return err
	}
	switch row.state {
	case vault.KeyDestroying:
		todo.owed = append(todo.owed, id)
	case vault.KeyRevoking, vault.KeyRevoked:
		if told.state == vault.KeyDestroyed {
			todo.back = append(todo.back, id)
		} else if row.state == vault.KeyRevoking {
			todo.owed = append(todo.owed, id)
		}
	case vault.KeyActive, vault.KeyRestoring:
		todo.back = append(todo.back, id)
	}
	if todo.keys[id] != vault.KeyDestroyed {
		todo.keys[id] = told.state
	}
	return nil
}

// nameKeys finds what Vault has of the keys: a name ends in its record's ID, so what a row says of
// site or day can not hide it.
func (r *Reconciler) nameKeys(ctx context.Context, todo *toShut) error {
	names, err := r.Keys.Keys(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if id, ok := vault.RecordOfKey(name); ok && todo.keys[id] != "" {
			todo.names[id] = append(todo.names[id], name)
		}
	}
	return nil
}

// vaultDid are the events that tell that Vault followed a decision.
func vaultDid(k vault.EventType) bool {
	return k == vault.EventVaultCaughtUp || k == vault.EventKeyDestroyed || k == vault.EventGrantExpired
}

// shutSince looks at what Vault did according to the log, from an index on. A row that says that a
// key is not shut is believed only if the log says so, too.
func (r *Reconciler) shutSince(ctx context.Context, from int64, out *Shut) error {
	todo := newToShut()
	records := map[vault.ID]bool{}
	_, err := r.eachEvent(ctx, from, out, vaultDid, func(e vault.Event) {
		for _, id := range recordsOf(e) {
			records[id] = true
		}
		if id, err := vault.ParseID("grant", e.Grant); err == nil && !todo.ended[id] {
			todo.grants, todo.ended[id] = append(todo.grants, id), true
		}
		org := vault.Contractor{Name: e.Contractor, Epoch: e.Epoch}
		if e.Epoch > 0 && !slices.Contains(todo.epochs, org) {
			todo.epochs = append(todo.epochs, org)
		}
	})
	if err != nil {
		return err
	}
	var doubtful []vault.ID
	for id := range records {
		row, err := r.keyRow(ctx, todo, id, out)
		if err != nil {
			return err
		}
		switch row.state {
		case vault.KeyRevoked, vault.KeyDestroyed:
			todo.keys[id], todo.names[id] = row.state, []string{row.name}
		case vault.KeyRevoking, vault.KeyDestroying:
			todo.owed = append(todo.owed, id)
		default:
			doubtful = append(doubtful, id)
		}
	}
	if len(doubtful) > 0 {
		if todo.log, err = r.tell(ctx, out); err != nil {
			return err
		}
		for _, id := range doubtful {
			if err := r.believe(ctx, todo, id, out); err != nil {
				return err
			}
		}
		clear(todo.names)
		if err := r.nameKeys(ctx, todo); err != nil {
			return err
		}
	}
	return r.shutAgain(ctx, todo, out)
}

// openKey is a key at Vault that must not be as it is.
type openKey struct {
	id   vault.ID
	name string
	shut bool // revoked, and is to be gone
}

// shutAgain makes sure at Vault. What fails keeps nothing else from being shut, unless Vault is away.
func (r *Reconciler) shutAgain(ctx context.Context, todo *toShut, out *Shut) error {
	// Entities and fences are few, and end the most.
	var failed error
	for _, c := range todo.epochs {
		err := r.Service.Keys.DisableContractor(ctx, c.Name, c.Epoch)
		if failed = errors.Join(failed, err); vault.KindOf(err) == vault.Unavailable {
			return failed
		}
	}
	damaged, err := r.Fences.Refence(ctx, todo.grants, todo.ended)
	for _, id := range damaged {
		out.skip("the row of grant %s is damaged", id)
	}
	if failed = errors.Join(failed, err); isAway(failed) {
		return failed
	}
	unsigned := map[vault.ID]bool{}
	denied, err := r.applied(ctx, todo.owed, out)
	for _, id := range denied {
		unsigned[id] = true
	}
	if failed = errors.Join(failed, err); isAway(failed) {
		return failed
	}
	wrong, err := r.inspect(ctx, todo)
	if err != nil {
		return errors.Join(failed, err)
	}
	again := map[vault.KeyState][]vault.ID{}
	seen := map[vault.ID]bool{}
	for _, id := range append(slices.Clone(todo.back), idsOf(wrong)...) {
		if !seen[id] && todo.rows[id].state != "" {
			state := todo.keys[id]
			again[state] = append(again[state], id)
		}
		seen[id] = true
	}
	for _, state := range []vault.KeyState{vault.KeyRevoked, vault.KeyDestroyed} {
		sortIDs(again[state])
		n, denied, err := r.undo(ctx, todo.log, state, again[state], out)
		out.Keys += n
		for _, id := range denied {
			unsigned[id] = true
		}
		if failed = errors.Join(failed, err); isAway(failed) {
			return failed
		}
	}
	return errors.Join(failed, r.shutByName(ctx, todo, wrong, unsigned, out))
}

func idsOf(keys []openKey) (ids []vault.ID) {
	for _, k := range keys {
		ids = append(ids, k.id)
	}
	return ids
}

// isAway says whether one of the errors is that something does not answer: then there is no use in
// going on.
func isAway(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return slices.ContainsFunc(joined.Unwrap(), isAway)
	}
	return vault.KindOf(err) == vault.Unavailable || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// inspect gives the keys that Vault has otherwise than they must be.
func (r *Reconciler) inspect(ctx context.Context, todo *toShut) (wrong []openKey, err error) {
	var keys []openKey
	for id, names := range todo.names {
		for _, name := range names {
			keys = append(keys, openKey{id: id, name: name})
		}
	}
	bad := make([]bool, len(keys))
	all, working := errgroup.WithContext(ctx)
	all.SetLimit(workers)
	for i := range keys {
		all.Go(func() error {
			k := &keys[i]
			found, shut, _, err := r.Keys.InspectKey(working, k.name)
			k.shut, bad[i] = shut, found && (todo.keys[k.id] == vault.KeyDestroyed || !shut)
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return nil, err
	}
	for i, k := range keys {
		if bad[i] {
			wrong = append(wrong, k)
		}
	}
	return wrong, nil
}

// shutByName revokes at Vault what no row leads to: of a record whose row is gone, damaged or tells
// of another key, or of one that the log calls destroyed and whose decision nobody signed.
func (r *Reconciler) shutByName(ctx context.Context, todo *toShut, wrong []openKey, unsigned map[vault.ID]bool, out *Shut) (failed error) {
	for _, k := range wrong {
		told := todo.log != nil && todo.log.keys[k.id].state != ""
		if k.shut || !told || (todo.rows[k.id].name == k.name && !unsigned[k.id]) {
			continue
		}
		unlock := r.Service.work.lock(k.id)
		err := r.Service.Keys.RevokeKey(ctx, k.name)
		unlock()
		if failed = errors.Join(failed, err); isAway(err) {
			return failed
		}
		if err == nil {
			out.Keys++
			out.skip("key %s is revoked by the log, and no row says so", k.name)
		}
	}
	return failed
}

// settled runs fn in one transaction on what the log says up to that very moment. What a look has
// read is some seconds old, and an admin may have decided otherwise since.
func (r *Reconciler) settled(ctx context.Context, log *verdict, out *Shut, which func(vault.EventType) bool, fn func(StockTx) error) error {
	errLate := errors.New("the log went on")
	for range 10 {
		next, err := r.eachEvent(ctx, log.next, out, func(k vault.EventType) bool { return keyEvents[k] || standEvents[k] }, log.take)
		if err != nil {
			return err
		}
		log.next = next
		_, err = r.Ledger.Update(ctx, func(tx StockTx) error {
			for next := log.next; ; {
				first := next
				_, err := tx.EachEvent(first, page, nil, func(index int64, body []byte) error {
					if next = index + 1; which(typeOf(body)) {
						return errLate
					}
					return nil
				})
				if err != nil {
					return err
				}
				if next == first {
					return fn(tx)
				}
			}
		})
		if !errors.Is(err, errLate) {
			return err
		}
	}
	return yield("admins go on deciding while it is looked at")
}

// undo has what a restore of Vault or of the ciphertext brought back, or what somebody wrote into
// rows, revoked or destroyed again. denied are those whose destruction nobody signed.
func (r *Reconciler) undo(ctx context.Context, log *verdict, want vault.KeyState, ids []vault.ID, out *Shut) (n int, denied []vault.ID, failed error) {
	to, from := vault.KeyRevoking, []vault.KeyState{vault.KeyRevoked}
	others := []vault.KeyState{vault.KeyRevoked, vault.KeyActive, vault.KeyRestoring}
	if want == vault.KeyDestroyed {
		to, from = vault.KeyDestroying, []vault.KeyState{vault.KeyDestroyed}
		others = append(others, vault.KeyDestroyed, vault.KeyRevoking)
	}
	for part := range slices.Chunk(ids, eventIDs) {
		var moved []vault.ID
		change := func(tx StockTx) error {
			moved = nil
			for _, id := range part {
				states, told := from, keyTold{}
				if log != nil {
					told = log.keys[id]
				}
				if told.state == want {
					states = others
				}
				ok, err := tx.SetKeyState(id, to, states...)
				if err == nil && ok && told.decision != (vault.ID{}) {
					err = tx.SetKeyDecision(id, told.decision)
				}
				if err != nil {
					return err
				}
				if ok {
					moved = append(moved, id)
				}
			}
			if len(moved) == 0 {
				return nil
			}
			return appendLong(tx, vault.NewEvent(vault.EventRestoreUndone, vault.Caller{}, tx.Now()), moved)
		}
		var err error
		if log == nil {
			_, err = r.Ledger.Update(ctx, change)
		} else {
			err = r.settled(ctx, log, out, func(k vault.EventType) bool { return keyEvents[k] }, change)
		}
		if err != nil {
			return n, denied, errors.Join(failed, err)
		}
		n += len(moved)
		refused, err := r.applied(ctx, moved, out)
		denied = append(denied, refused...)
		if failed = errors.Join(failed, err); isAway(failed) {
			return n, denied, failed
		}
	}
	return n, denied, failed
}

// applied has Vault do what the rows say. denied are those whose destruction nobody signed: who can
// write to the database called them destroyed, which is no reason to stop all others.
func (r *Reconciler) applied(ctx context.Context, ids []vault.ID, out *Shut) (denied []vault.ID, failed error) {
	for id, err := range r.Service.applyEach(ctx, ids, false) {
		if vault.KindOf(err) == vault.Denied {
			denied = append(denied, id)
			out.skip("record %s is said to be destroyed, which nobody signed", id)
			continue
		}
		failed = errors.Join(failed, fmt.Errorf("record %s: %w", id, err))
	}
	return denied, failed
}
