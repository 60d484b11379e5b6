package grants

import (
	"context"
	"fmt"
	"sync"

	"github.com/portcullis/portcullis/vault"
)

// fences lets one at a time change a grant's policy at Vault, so that its writing can not land
// after its removal. Other grants do not wait for it, nor does who has no time left. Its zero
// value is good.
type fences struct {
	mu   sync.Mutex
	held map[vault.ID]*fenceLock
}

type fenceLock struct {
	turn  chan struct{}
	users int // that hold it or wait for it
}

// lock waits for the grant's policy. unlock must be called once.
func (f *fences) lock(ctx context.Context, id vault.ID) (unlock func(), err error) {
	f.mu.Lock()
	if f.held == nil {
		f.held = map[vault.ID]*fenceLock{}
	}
	l := f.held[id]
	if l == nil {
		l = &fenceLock{turn: make(chan struct{}, 1)}
		f.held[id] = l
	}
	l.users++
	f.mu.Unlock()
	forget := func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(f.held, id)
		}
	}
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		forget()
		return nil, fmt.Errorf("wait for the policy of grant %s: %w", id, ctx.Err())
	}
	return func() {
		<-l.turn
		forget()
	}, nil
}
