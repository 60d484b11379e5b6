// Package house assembles the operations for their tests: the real database and the real gate
// over fakes of HashiCorp Vault and of the blob store, a clock that tests turn, and people
// with certificates.
package house

import (
	"context"
	"database/sql"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis/portcullis/internal/gate"
	"github.com/portcullis/portcullis/internal/imaging"
	"github.com/portcullis/portcullis/internal/store"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/capture"
	"github.com/portcullis/portcullis/vault/grants"
	"github.com/portcullis/portcullis/vault/release"
	"github.com/portcullis/portcullis/vault/vaulttest"
)

// Start is what the clock shows at first.
var Start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// House is a Portcullis without a network. Its methods may be called at once, but for Restart.
type House struct {
	testing.TB
	Clock *Clock
	Vault *vaulttest.HCVault
	Blobs *vaulttest.MemoryBlobs

	Store   *store.Store
	Gate    *gate.Gate
	Capture *capture.Service
	Grants  *grants.Service
	Release *release.Service
	Breach  *breach.Service

	people people
	path   string

	mu        sync.Mutex
	trace     []string
	left      int // calls until everything is gone; negative: never
	before    func(ctx context.Context, op string)
	connected []vault.Caller
	cut       []vault.Caller
	onReset   func()
}

// Clock shows what it is told to.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// Now gives the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance turns the clock.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// New builds an empty house in a directory of its own.
func New(t testing.TB) *House {
	t.Helper()
	h := &House{TB: t, Clock: &Clock{now: Start}, left: -1, path: filepath.Join(t.TempDir(), "facts.db")}
	h.people = newPeople(t)
	h.Vault, h.Blobs = vaulttest.NewHCVault(h.Clock.Now), vaulttest.NewBlobs(h.Clock.Now)
	hook := func(ctx context.Context, op string) {
		if h.enter(ctx, op) != nil {
			h.Vault.Down(true)
			h.Blobs.Down(true)
		}
	}
	h.Vault.Hook(hook)
	h.Blobs.Hook(hook)
	empty, err := empty()
	h.NoError(err)
	h.NoError(os.WriteFile(h.path, empty, 0o600))
	h.open()
	t.Cleanup(func() { h.Store.Close() })
	return h
}

// empty gives the file of a database with the newest schema and nothing in it: making it once
// saves each house the migrations.
var empty = sync.OnceValues(func() (file []byte, err error) {
	dir, err := os.MkdirTemp("", "house")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "facts.db")
	st, err := store.Open(context.Background(), path, time.Now)
	if err != nil {
		return nil, err
	}
	if err := st.Close(); err != nil { // it writes back what is in the log ahead
		return nil, err
	}
	return os.ReadFile(path)
})

func (h *House) open() {
	h.Helper()
	st, err := store.Open(context.Background(), h.path, h.Clock.Now)
	h.NoError(err)
	h.Store, h.Gate = st, gate.New(h.reset, h.Clock.Now)
	log := slog.New(slog.DiscardHandler)
	h.Capture = &capture.Service{
		Ledger: ledger[capture.Tx]{h, st}, Keys: h.Vault, Blobs: h.Blobs,
		Limits: imaging.Limits{}, Window: capture.DefaultWindow,
	}
	h.Grants = &grants.Service{
		Ledger: ledger[grants.Tx]{h, st}, Fences: h.Vault, Tokens: h.Vault, Gate: h.Gate, Authority: h.Authority, Log: log,
	}
	h.Release = &release.Service{
		Ledger: ledger[release.Tx]{h, st}, Keys: h.Vault, Blobs: h.Blobs, Gate: h.Gate, Barrier: h.Gate, Authority: h.Authority,
		MaxLag: math.MaxInt64, // nobody makes the tree grow
	}
	h.Breach = &breach.Service{
		Ledger: ledger[breach.Tx]{h, st}, Keys: h.Vault, Blobs: h.Blobs, Gate: h.Gate, Disarm: h.Grants,
		Authority: h.Authority, Attest: attester{h}, Log: log,
	}
}

// Restart drops the services and all that they had in memory and opens the database anew.
// Whatever was down is up again.
func (h *House) Restart() {
	h.Helper()
	h.NoError(h.Store.Close())
	h.mu.Lock()
	h.left, h.before = -1, nil
	h.mu.Unlock()
	h.Vault.Down(false)
	h.Blobs.Down(false)
	h.open()
}

// CrashAfter lets n more calls to Vault, the blob store and the database's writer through.
// All after them fail without effect, as they do for a process that is no more.
func (h *House) CrashAfter(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.left = n
}

// Crashed says whether a call was kept back since CrashAfter.
func (h *House) Crashed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.left == 0 && len(h.trace) > 0 && h.trace[len(h.trace)-1] == "crash"
}

// Before sets a function to be called before each call to Vault, to the blob store and to the
// database's writer ("Update"), with the name of the operation. nil takes it away.
func (h *House) Before(fn func(ctx context.Context, op string)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before = fn
}

// Once calls fn before the next call of op, and never again.
func (h *House) Once(op string, fn func()) {
	var done atomic.Bool // not a sync.Once: fn may call the same op
	h.Before(func(_ context.Context, o string) {
		if o == op && done.CompareAndSwap(false, true) {
			fn()
		}
	})
}

// Trace gives the calls since the last Trace, in their order.
func (h *House) Trace() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := h.trace
	h.trace = nil
	return out
}

func (h *House) enter(ctx context.Context, op string) error {
	h.mu.Lock()
	if h.left == 0 {
		h.trace = append(h.trace, "crash")
		h.mu.Unlock()
		return vault.E(vault.Unavailable, vault.ReasonShuttingDown, "crashed")
	}
	if h.left > 0 {
		h.left--
	}
	h.trace = append(h.trace, op)
	before := h.before
	h.mu.Unlock()
	if before != nil {
		before(ctx, op)
	}
	return nil
}

// ledger shows operations the part T of a transaction that is theirs.
type ledger[T any] struct {
	h     *House
	store *store.Store
}

func (l ledger[T]) Update(ctx context.Context, fn func(T) error) (int64, error) {
	if err := l.h.enter(ctx, "Update"); err != nil {
		return -1, err
	}
	return l.store.Update(ctx, func(t *store.Tx) error { return fn(any(t).(T)) })
}

func (l ledger[T]) View(ctx context.Context, fn func(T) error) error {
	return l.store.View(ctx, func(t *store.Tx) error { return fn(any(t).(T)) })
}

func (l ledger[T]) Scan(ctx context.Context, fn func(T) error) error {
	return l.store.Scan(ctx, func(t *store.Tx) error { return fn(any(t).(T)) })
}

// Connect adds a connection of the caller, which the gate may cut.
func (h *House) Connect(c vault.Caller) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.connected = append(h.connected, c)
}

// OnReset sets what happens when the gate cuts connections.
func (h *House) OnReset(fn func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.onReset = fn
}

// Cut gives the callers whose connections the gate cut.
func (h *House) Cut() []vault.Caller {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.cut)
}

func (h *House) reset(match func(vault.Caller) bool) int {
	h.mu.Lock()
	n := 0
	h.connected = slices.DeleteFunc(h.connected, func(c vault.Caller) bool {
		if !match(c) {
			return false
		}
		h.cut = append(h.cut, c)
		n++
		return true
	})
	fn := h.onReset
	h.mu.Unlock()
	if fn != nil {
		fn()
	}
	return n
}

// Logged is an event and its place in the log.
type Logged struct {
	Index int64
	vault.Event
}

// Events gives the log, of the given types only if any are given.
func (h *House) Events(types ...vault.EventType) (out []Logged) {
	h.Helper()
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = string(t)
	}
	indexes, bodies, _, _, err := h.Store.Events(context.Background(), 0, 1_000_000, names)
	h.NoError(err)
	for i, b := range bodies {
		e, err := vault.DecodeEvent(b)
		h.NoError(err)
		out = append(out, Logged{indexes[i], e})
	}
	return out
}

// Last gives the newest event.
func (h *House) Last() Logged {
	h.Helper()
	all := h.Events()
	if len(all) == 0 {
		h.Fatal("the log is empty")
	}
	return all[len(all)-1]
}

// SQL changes the database behind the service's back, and says how many rows it changed.
func (h *House) SQL(query string, args ...any) int64 {
	h.Helper()
	db, err := sql.Open("sqlite", "file:"+h.path+"?_pragma=busy_timeout(10000)")
	h.NoError(err)
	defer db.Close()
	res, err := db.Exec(query, args...)
	h.NoError(err)
	n, err := res.RowsAffected()
	h.NoError(err)
	return n
}

// Ask gives the one value of a query.
func (h *House) Ask(query string, args ...any) (v string) {
	h.Helper()
	db, err := sql.Open("sqlite", "file:"+h.path+"?_pragma=busy_timeout(10000)")
	h.NoError(err)
	defer db.Close()
	h.NoError(db.QueryRow(query, args...).Scan(&v))
	return v
}

// Path is the database's file.
func (h *House) Path() string { return h.path }

// NoError ends the test if there is an error. Not to be called off the test's goroutine.
func (h *House) NoError(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// Check marks the test as failed if there is an error, and goes on.
func (h *House) Check(err error) {
	h.Helper()
	if err != nil {
		h.Error(err)
	}
}

// Refused says that an error is of a kind and reason.
func (h *House) Refused(err error, k vault.Kind, r vault.Reason) {
	h.Helper()
	if err == nil || vault.KindOf(err) != k || vault.ReasonOf(err) != r {
		h.Errorf("kind %v, reason %q, %v; want kind %v and reason %q", vault.KindOf(err), vault.ReasonOf(err), err, k, r)
	}
}
