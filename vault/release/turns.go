package release

import (
	"context"
	"errors"
	"sync"

	"github.com/portcullis/portcullis/vault"
)

// turns lets few at once do what is dear, and of each contractor one: others must not wait for
// whoever asks the most. Its zero value is good.
type turns struct {
	mu   sync.Mutex
	all  chan struct{}
	held map[string]*contractorTurn
}

type contractorTurn struct {
	turn  chan struct{}
	users int // that hold it or wait for it
}

// enter waits for a turn. leave must be called once.
func (t *turns) enter(ctx context.Context, contractor string) (leave func(), err error) {
	t.mu.Lock()
	if t.all == nil {
		t.all, t.held = make(chan struct{}, maxScans), map[string]*contractorTurn{}
	}
	own := t.held[contractor]
	if own == nil {
		own = &contractorTurn{turn: make(chan struct{}, 1)}
		t.held[contractor] = own
	}
	own.users++
	t.mu.Unlock()
	forget := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if own.users--; own.users == 0 {
			delete(t.held, contractor)
		}
	}
	// The contractor's first: what waits there keeps nobody else from a turn.
	if err := take(ctx, own.turn); err != nil {
		forget()
		return nil, err
	}
	if err := take(ctx, t.all); err != nil {
		<-own.turn
		forget()
		return nil, err
	}
	return func() {
		<-t.all
		<-own.turn
		forget()
	}, nil
}

// errBusy says that a turn did not come in time.
var errBusy = errors.New("no turn in time")

// take waits for a turn: until there is room in the channel.
func take(ctx context.Context, turn chan<- struct{}) error {
	ctx, cancel := context.WithTimeoutCause(ctx, turnWait, errBusy)
	defer cancel()
	select {
	case turn <- struct{}{}:
		return nil
	case <-ctx.Done():
	}
	if err := context.Cause(ctx); !errors.Is(err, errBusy) {
		return err
	}
	return vault.E(vault.Exhausted, vault.ReasonServerBusy, "the service is at its limit of listings under way; try again in a moment")
}
