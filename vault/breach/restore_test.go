package breach_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis/portcullis/internal/blob"
	"github.com/portcullis/portcullis/internal/store"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/capture"
	"github.com/portcullis/portcullis/vault/vaulttest"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

type stockLedger struct{ *store.Store }

func (l stockLedger) Update(ctx context.Context, fn func(breach.StockTx) error) (int64, error) {
	return l.Store.Update(ctx, func(t *store.Tx) error { return fn(t) })
}

func (l stockLedger) View(ctx context.Context, fn func(breach.StockTx) error) error {
	return l.Store.View(ctx, func(t *store.Tx) error { return fn(t) })
}

// remembered is what is kept of the log beside the ciphertext; fails is why nothing can be.
type remembered struct {
	size  int64
	last  string
	fails error
}

func (l *remembered) Load() (int64, string, error) { return l.size, l.last, nil }

func (l *remembered) Save(size int64, last string) error {
	if l.fails == nil {
		l.size, l.last = size, last
	}
	return l.fails
}

// copied is a Vault that can be restored from a copy: its marks, and whether tokens that a restore
// brought back open anything. Its keys are the house's.
type copied struct {
	*vaulttest.HCVault
	mu      sync.Mutex
	marks   [2]vault.Mark
	zombies bool
	ended   int             // calls of EndTokens
	before  func(op string) // of each call
	fences  []vault.ID
}

func (v *copied) enter(op string) {
	v.mu.Lock()
	fn := v.before
	v.mu.Unlock()
	if fn != nil {
		fn(op)
	}
}

// on calls fn once, before the next op.
func (v *copied) on(op string, fn func()) {
	var done atomic.Bool // not a sync.Once: fn may look, too
	v.mu.Lock()
	defer v.mu.Unlock()
	v.before = func(o string) {
		if o == op && done.CompareAndSwap(false, true) {
			fn()
		}
	}
}

func (v *copied) ReadMarks(context.Context) (newest, before vault.Mark, err error) {
	v.enter("ReadMarks")
	v.mu.Lock()
	defer v.mu.Unlock()
	one, two := v.marks[0], v.marks[1]
	if two == vault.Unreadable || (one != vault.Unreadable && two.Number > one.Number) {
		one, two = two, one
	}
	return one, two, nil
}

func (v *copied) WriteMark(_ context.Context, m vault.Mark) error {
	v.enter("WriteMark")
	v.mu.Lock()
	defer v.mu.Unlock()
	i := 0
	if v.marks[1].Number < v.marks[0].Number {
		i = 1
	}
	v.marks[i] = m
	return nil
}

func (v *copied) EndTokens(context.Context) error {
	v.enter("EndTokens")
	v.mu.Lock()
	defer v.mu.Unlock()
	v.zombies = false
	v.ended++
	return nil
}

func (v *copied) Fences(context.Context) ([]vault.ID, error) { return v.fences, nil }

func (v *copied) Keys(ctx context.Context) ([]string, error) {
	v.enter("Keys")
	return v.HCVault.Keys(ctx)
}

func (v *copied) InspectKey(ctx context.Context, name string) (found, revoked bool, made time.Time, err error) {
	v.enter("InspectKey")
	return v.HCVault.InspectKey(ctx, name)
}

// copy gives what a snapshot holds, and restore puts it in Vault's place.
func (v *copied) copy() [2]vault.Mark {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.marks
}

func (v *copied) restore(marks [2]vault.Mark) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.marks, v.zombies = marks, true
}

func (v *copied) open() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.zombies
}

// watched is a scene with a Vault that can be restored, which has been looked at twice.
type watched struct {
	*scene
	vault *copied
	hc    *vaulttest.HCVault
	log   *remembered
	*breach.Reconciler
	older [2]vault.Mark // a snapshot from before the second look
}

func watch(t *testing.T, records int) *watched {
	s := open(t, records)
	w := &watched{scene: s, vault: &copied{HCVault: s.Vault}, hc: s.Vault, log: &remembered{}}
	w.Reconciler = w.process()
	w.look(breach.LookAll)
	w.older = w.vault.copy()
	w.look(breach.LookSince)
	if w.vault.copy() == w.older {
		t.Fatal("the mark stands still")
	}
	return w
}

// process is another process with the admin role.
func (w *watched) process() *breach.Reconciler {
	return &breach.Reconciler{
		Service: w.Breach, Ledger: stockLedger{w.Store}, Keys: w.vault, Vault: w.vault, Fences: w.Grants, Blobs: nil, Mark: w.log,
		Grace: time.Hour, Keep: time.Hour,
	}
}

func (w *watched) look(how breach.Depth) breach.Shut {
	w.Helper()
	out, err := w.Look(ctx(), how)
	w.NoError(err)
	return out
}

func (w *watched) revoked(keyName string) bool {
	w.Helper()
	_, revoked, _, err := w.hc.InspectKey(ctx(), keyName)
	w.NoError(err)
	return revoked
}

func (w *watched) releases() bool {
	w.Helper()
	m, err := w.Store.Marked(ctx())
	w.NoError(err)
	return m.Good.After(w.Clock.Now())
}

// found shows that a restore was not concealed: at the latest the second look from now on ends
// the tokens that it brought back, and until then nothing is released.
func (w *watched) found() {
	w.Helper()
	for range 3 {
		if w.vault.open() && w.releases() {
			if _, err := w.Look(ctx(), breach.LookMark); err == nil && w.vault.open() {
				w.Fatal("tokens that a restore brought back live, and releases go on")
			}
		}
		_, err := w.Look(ctx(), breach.LookSince)
		w.NoError(err)
	}
	if w.vault.open() || w.vault.ended == 0 {
		w.Error("the restore was not found")
	}
	if !w.releases() {
		w.Error("releases do not go on")
	}
}

// TestRestoreBeneathALook: whenever during a look Vault is restored, it shows.
func TestRestoreBeneathALook(t *testing.T) {
	for _, how := range []breach.Depth{breach.LookSince, breach.LookAll} {
		for _, first := range []string{"whole", "restored"} {
			for _, op := range []string{"ReadMarks", "WriteMark", "Keys", "InspectKey", "EndTokens"} {
				for n := range 6 {
					t.Run(fmt.Sprint(how, first, op, n), func(t *testing.T) {
						w := watch(t, 1)
						w.revoke(house.All())
						if first == "restored" {
							w.vault.restore(w.older)
						}
						hit, calls := false, 0
						w.vault.mu.Lock()
						w.vault.before = func(o string) {
							if o == op {
								if calls++; calls == n+1 {
									hit = true
									w.vault.restore(w.older)
								}
							}
						}
						w.vault.mu.Unlock()
						_, err := w.Look(ctx(), how)
						w.vault.mu.Lock()
						w.vault.before = nil
						w.vault.mu.Unlock()
						if err != nil {
							t.Log(err)
						}
						if hit || first == "restored" {
							w.found()
						}
					})
				}
			}
		}
	}
}

// TestSameMarkBeneathALook: a copy that has the same mark as the database, restored once a look has
// seen that a key is shut, does not leave the key open for good.
func TestSameMarkBeneathALook(t *testing.T) {
	w := watch(t, 2)
	same := w.vault.copy()
	w.revoke(house.One(w.records[0]))
	calls := 0
	w.vault.before = func(op string) {
		if op == "WriteMark" {
			if calls++; calls == 2 { // what is to be checked was
				w.NoError(w.hc.RestoreKey(ctx(), w.records[0].KeyName()))
				w.vault.restore(same)
			}
		}
	}
	w.look(breach.LookSince)
	w.vault.before = nil
	w.look(breach.LookSince)
	w.keys(vault.KeyRevoked, vault.KeyActive)
}

// TestOlderLookLetsNothingGo: one that began before another found a restore.
func TestOlderLookLetsNothingGo(t *testing.T) {
	for name, same := range map[string]bool{"two processes": false, "one": true} {
		t.Run(name, func(t *testing.T) {
			w := watch(t, 2)
			p, q := w.Reconciler, w.process()
			if same {
				q = p
			}
			inKeys, goOn, inEnd, goEnd := make(chan bool), make(chan bool), make(chan bool), make(chan bool)
			var one, two atomic.Bool
			w.vault.before = func(op string) {
				switch op {
				case "Keys":
					if one.CompareAndSwap(false, true) {
						inKeys <- true
						<-goOn
					}
				case "EndTokens":
					if two.CompareAndSwap(false, true) {
						inEnd <- true
						<-goEnd
					}
				}
			}
			older := make(chan error, 1)
			go func() { _, err := p.Look(ctx(), breach.LookAll); older <- err }()
			<-inKeys
			w.vault.restore(w.older)
			newer := make(chan error, 1)
			go func() { _, err := q.Look(ctx(), breach.LookMark); newer <- err }()
			if same { // it withdraws before it waits for the other
				for w.releases() {
					time.Sleep(time.Millisecond)
				}
				close(goOn)
				if err := <-older; err == nil {
					t.Error("the older look succeeded")
				}
				<-inEnd
			} else {
				<-inEnd
				close(goOn)
				if err := <-older; err == nil {
					t.Error("the older look succeeded")
				}
			}
			if w.releases() {
				t.Error("releases go on before the tokens have ended")
			}
			close(goEnd)
			w.NoError(<-newer)
			w.found()
		})
	}
}

// TestGlanceDoesNotWait: while a long look goes on, releases do, too.
func TestGlanceDoesNotWait(t *testing.T) {
	w := watch(t, 1)
	w.vault.on("Keys", func() {
		for range 6 {
			w.Clock.Advance(8 * time.Second)
			for _, how := range []breach.Depth{breach.LookMark, breach.LookSince} {
				if _, err := w.Look(ctx(), how); err != nil {
					t.Error(err)
				}
			}
			if !w.releases() {
				t.Fatal("releases stopped")
			}
		}
	})
	w.look(breach.LookAll)
}

// TestWithdrawnUntilLookedAt: not even a look that began before a start lets releases go on, nor one
// that only compares.
func TestWithdrawnUntilLookedAt(t *testing.T) {
	w := watch(t, 1)
	w.vault.on("Keys", func() { w.NoError(w.process().Withdraw(ctx())) })
	if _, err := w.Look(ctx(), breach.LookAll); vault.ReasonOf(err) != vault.ReasonVaultUnchecked || w.releases() {
		t.Error(err, w.releases())
	}
	calls := 0
	w.vault.before = func(op string) {
		if op == "WriteMark" {
			calls++
		}
	}
	w.look(breach.LookMark)
	if !w.releases() || calls != 2 {
		t.Errorf("after a withdrawal it wrote %d marks", calls)
	}
}

// TestFullDisk: what can not be remembered beside the ciphertext is told of, and stops nothing.
func TestFullDisk(t *testing.T) {
	w := watch(t, 1)
	w.log.fails = errors.New("no space left on device")
	for range 3 {
		w.revoke(house.All())
		w.Clock.Advance(15 * time.Second)
		if out := w.look(breach.LookSince); !errors.Is(out.Unsaved, w.log.fails) || !w.releases() {
			t.Errorf("%+v", out)
		}
		w.restore(house.All())
	}
}

// TestUnreadableMark is taken for a restore, once.
func TestUnreadableMark(t *testing.T) {
	for i := range 2 {
		w := watch(t, 1)
		w.vault.marks[i] = vault.Unreadable
		out := w.look(breach.LookMark)
		if !out.Restored || w.vault.ended != 1 || !w.releases() {
			t.Errorf("%+v, %d", out, w.vault.ended)
		}
		if out := w.look(breach.LookAll); out.Restored {
			t.Error("and again")
		}
	}
}

// TestCutShortLook: a process that dies at any step of a look leaves nothing that the next one takes
// for a restore, and nothing that conceals one.
func TestCutShortLook(t *testing.T) {
	for _, restored := range []bool{false, true} {
		for n := range 12 {
			w := watch(t, 1)
			if restored {
				w.vault.restore(w.older)
			}
			within, die := context.WithCancel(ctx())
			steps := 0
			w.vault.before = func(string) {
				if steps++; steps == n+1 {
					die()
				}
			}
			_, err := w.Look(within, breach.LookSince)
			die()
			w.vault.before = nil
			t.Logf("restored %v, step %d of %d: %v", restored, n, steps, err)
			if restored {
				w.Reconciler = w.process()
				w.Clock.Advance(30 * time.Second) // its claim
				w.found()
				continue
			}
			w.Reconciler = w.process()
			for range 2 {
				if out, err := w.Look(ctx(), breach.LookSince); err != nil || out.Restored {
					t.Errorf("step %d: %+v, %v", n, out, err)
				}
			}
		}
	}
}

// TestNobodySignedIt: a key that somebody wrote to be destroyed is told of, whichever of many it is,
// and a key that fails is not taken for one.
func TestNobodySignedIt(t *testing.T) {
	w := watch(t, 4)
	sel := house.One(w.records[0])
	w.Decide(breach.Action{Destroy: &sel})
	w.SQL("UPDATE records SET key_state = 'destroyed' WHERE id <> ?", w.records[0].ID.String())
	_, err := w.hc.Wrap(ctx(), w.records[0].KeyName(), make([]byte, 32))
	w.NoError(err)
	w.hc.Fail("DestroyKey", 1, vaultRefused())
	if out, err := w.Look(ctx(), breach.LookAll); err == nil || w.releases() {
		t.Errorf("%+v, %v", out, err)
	}
	out := w.look(breach.LookAll)
	if names, err := w.hc.Keys(ctx()); err != nil || slices.Contains(names, w.records[0].KeyName()) || len(names) != 3 {
		t.Errorf("%v, %v, %+v", names, err, out)
	}
}

type slowWrap struct {
	capture.Keys
	meanwhile func()
}

func (w slowWrap) Wrap(ctx context.Context, name string, dek []byte) (string, error) {
	w.meanwhile()
	return w.Keys.Wrap(ctx, name, dek)
}

// TestDestroyedWhileItIsStored: an image that a repair without patience destroyed is not acknowledged.
func TestDestroyedWhileItIsStored(t *testing.T) {
	w := watch(t, 0)
	dir, err := blob.OpenDir(t.TempDir())
	w.NoError(err)
	w.Blobs, w.Grace, w.Keep = dir, 0, 0
	w.Breach.Blobs, w.Capture.Blobs = dir, dir
	w.Clock.Advance(time.Since(w.Clock.Now())) // the file's time is the real one
	w.Capture.Keys = slowWrap{w.hc, func() {
		for range 2 {
			w.Clock.Advance(time.Minute)
			_, err := w.Reconcile(ctx())
			w.NoError(err)
		}
	}}
	got, _, err := w.Capture.Store(ctx(), w.Caller("capture/north/lane-1"), w.Shot(vault.Plate, 0))
	w.Refused(err, vault.Conflict, vault.ReasonStoreOvertaken)
	if _, lost := dir.Get(ctx(), got.ID); err == nil && lost != nil {
		t.Error("acknowledged, and lost:", lost)
	}
}
