package breach

import (
	"sync"

	"github.com/portcullis/portcullis/vault"
)

// keyLocks lets one at a time work on a record's key, so that an earlier decision's change can
// not land after a later one's. Keys of other records do not wait for it: a revocation is
// not held up by a long destruction. Its zero value is good.
type keyLocks struct {
	mu   sync.Mutex
	held map[vault.ID]*keyLock
}

type keyLock struct {
	mu    sync.Mutex
	users int // that hold it or wait for it
}

// lock waits for the record's key. unlock must be called once.
func (l *keyLocks) lock(id vault.ID) (unlock func()) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[vault.ID]*keyLock{}
	}
	k := l.held[id]
	if k == nil {
		k = &keyLock{}
		l.held[id] = k
	}
	k.users++
	l.mu.Unlock()
	k.mu.Lock()
	return func() {
		k.mu.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		if k.users--; k.users == 0 {
			delete(l.held, id)
		}
	}
}
