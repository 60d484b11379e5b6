package vaulttest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/portcullis/portcullis/vault"
)

// Faults makes the calls of a fake fail on demand. An op is the name of a method, such as
// "Put"; one that the fake does not have panics, since such a fault would never show. All
// methods may be called at once, and from a hook.
type Faults struct {
	ops  []string
	away vault.Reason // of the error when it is down

	mu     sync.Mutex
	down   bool
	before map[string]fault
	after  map[string]fault
	calls  map[string]int
	hook   func(ctx context.Context, op string)
}

// fault is an error for the next n calls, or for all if n is negative.
type fault struct {
	n   int
	err error
}

func newFaults(away vault.Reason, ops ...string) Faults {
	return Faults{ops: ops, away: away, before: map[string]fault{}, after: map[string]fault{}, calls: map[string]int{}}
}

// Fail makes the next n calls of op fail with err, without any effect. A negative n means
// all calls, and 0 none any more.
func (f *Faults) Fail(op string, n int, err error) { f.plan(f.before, op, n, err) }

// FailAfter makes the next n calls of op that succeed answer err all the same: the effect is
// there, but its answer got lost.
func (f *Faults) FailAfter(op string, n int, err error) { f.plan(f.after, op, n, err) }

func (f *Faults) plan(faults map[string]fault, op string, n int, err error) {
	f.known(op)
	f.mu.Lock()
	defer f.mu.Unlock()
	faults[op] = fault{n, err}
}

// Down makes every call fail as if nobody answered, until Down(false).
func (f *Faults) Down(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
}

// Hook sets a function to be called at the start of each call, before faults and effects: to
// delay, or to let something else happen first. The fake is not locked meanwhile. nil takes
// it away.
func (f *Faults) Hook(hook func(ctx context.Context, op string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

// Calls says how many calls of op there were, failed ones included.
func (f *Faults) Calls(op string) int {
	f.known(op)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

func (f *Faults) known(op string) {
	if !slices.Contains(f.ops, op) {
		panic(fmt.Sprintf("vaulttest: no op %q; there are %q", op, f.ops))
	}
}

// call runs an op under its faults.
func call[T any](ctx context.Context, f *Faults, op string, effect func() (T, error)) (T, error) {
	var none T
	f.known(op)
	f.mu.Lock()
	f.calls[op]++
	hook := f.hook
	f.mu.Unlock()
	if hook != nil {
		hook(ctx, op)
	}
	if err := ctx.Err(); err != nil {
		return none, f.unavailable().Because(err)
	}
	if err := f.due(f.before, op); err != nil {
		return none, err
	}
	v, err := effect()
	if err != nil {
		return none, err
	}
	if err := f.due(f.after, op); err != nil {
		return none, err
	}
	return v, nil
}

// due gives the error that a call has to fail with, and counts it.
func (f *Faults) due(faults map[string]fault, op string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return f.unavailable()
	}
	plan := faults[op]
	if plan.n == 0 {
		return nil
	}
	if plan.n > 0 {
		plan.n--
		faults[op] = plan
	}
	return plan.err
}

func (f *Faults) unavailable() *vault.Error {
	return vault.E(vault.Unavailable, f.away, "it does not answer; try again")
}

// do is call for ops without a result.
func do(ctx context.Context, f *Faults, op string, effect func() error) error {
	_, err := call(ctx, f, op, func() (struct{}, error) { return struct{}{}, effect() })
	return err
}
