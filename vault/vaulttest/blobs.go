package vaulttest

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// MemoryBlobs keeps ciphertext in memory. Its ops are Put, Get, Delete and List.
type MemoryBlobs struct {
	Faults
	clock func() time.Time

	mu    sync.Mutex
	blobs map[vault.ID]memoryBlob
}

type memoryBlob struct {
	data []byte
	put  time.Time
}

// NewBlobs makes an empty store that answers. clock gives the times of Puts.
func NewBlobs(clock func() time.Time) *MemoryBlobs {
	return &MemoryBlobs{
		Faults: newFaults(vault.ReasonBlobUnavailable, "Put", "Get", "Delete", "List"),
		clock:  clock, blobs: map[vault.ID]memoryBlob{},
	}
}

// Put is as in [Blobs].
func (m *MemoryBlobs) Put(ctx context.Context, id vault.ID, sealed []byte) error {
	return do(ctx, &m.Faults, "Put", func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		known, taken := m.blobs[id]
		if taken && !bytes.Equal(known.data, sealed) {
			return vault.E(vault.Exists, vault.ReasonInternal, "another blob has this ID").Because(fs.ErrExist)
		}
		if !taken {
			m.blobs[id] = memoryBlob{bytes.Clone(sealed), m.clock()}
		}
		return nil
	})
}

// Get is as in [Blobs].
func (m *MemoryBlobs) Get(ctx context.Context, id vault.ID) ([]byte, error) {
	return call(ctx, &m.Faults, "Get", func() ([]byte, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		b, ok := m.blobs[id]
		if !ok {
			return nil, vault.E(vault.NotFound, vault.ReasonDataLoss, "no blob has this ID").Because(fs.ErrNotExist)
		}
		return bytes.Clone(b.data), nil
	})
}

// Delete is as in [Blobs].
func (m *MemoryBlobs) Delete(ctx context.Context, id vault.ID) error {
	return do(ctx, &m.Faults, "Delete", func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.blobs, id)
		return nil
	})
}

// List calls fn for each blob, in the order of IDs. An error of fn ends the list and is
// returned.
func (m *MemoryBlobs) List(ctx context.Context, fn func(id vault.ID, size int64, modified time.Time) error) error {
	return do(ctx, &m.Faults, "List", func() error {
		type entry struct {
			id   vault.ID
			size int64
			put  time.Time
		}
		var all []entry
		m.mu.Lock()
		for id, b := range m.blobs {
			all = append(all, entry{id, int64(len(b.data)), b.put})
		}
		m.mu.Unlock()
		slices.SortFunc(all, func(a, b entry) int { return bytes.Compare(a.id[:], b.id[:]) })
		for _, e := range all {
			if err := fn(e.id, e.size, e.put); err != nil {
				return err
			}
		}
		return nil
	})
}

// Tamper replaces what is kept under the ID by what change makes of it, as somebody could
// who writes to the store past us. It panics if there is no such blob.
func (m *MemoryBlobs) Tamper(id vault.ID, change func([]byte) []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.blobs[id]
	if !ok {
		panic(fmt.Sprintf("vaulttest: no blob %s to tamper with", id))
	}
	b.data = bytes.Clone(change(bytes.Clone(b.data)))
	m.blobs[id] = b
}
