package vaulttest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/portcullis/portcullis/vault"
)

// TestBlobs shows that what open gives keeps ciphertext as [Blobs] says. open is called for
// each case; the stores may share what they stand on.
func TestBlobs(t *testing.T, open func(t *testing.T) Blobs) {
	for name, test := range map[string]func(*testing.T, Blobs){
		"a blob reads back":                   blobReadsBack,
		"sizes":                               blobSizes,
		"memory is not shared":                blobMemory,
		"a missing blob":                      blobMissing,
		"the same blob again":                 blobAgain,
		"another blob under the same ID":      blobTaken,
		"delete":                              blobDelete,
		"IDs are whole":                       blobIDs,
		"a context that is done":              blobContext,
		"many at once":                        blobsAtOnce,
		"the same at once":                    blobSameAtOnce,
		"others under one ID at once":         blobRace,
		"a reader sees all or nothing":        blobWhole,
		"put and delete of one ID, many once": blobPutDelete,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func blobReadsBack(t *testing.T, b Blobs) {
	id, data := vault.NewID(), []byte("sealed")
	mustPut(t, b, id, data)
	mustHold(t, b, id, data)
	mustHold(t, b, id, data) // reading takes nothing away
}

func blobSizes(t *testing.T, b Blobs) {
	for _, n := range []int{0, 1, 4095, 4096, 4097, 1 << 20, 8<<20 + 32} {
		id, data := vault.NewID(), noise(n)
		mustPut(t, b, id, data)
		mustHold(t, b, id, data)
	}
}

func blobMemory(t *testing.T, b Blobs) {
	id, data := vault.NewID(), []byte("sealed")
	mustPut(t, b, id, data)
	data[0] = 'S'
	mustHold(t, b, id, []byte("sealed"))
	got, err := b.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	got[0] = 'S'
	mustHold(t, b, id, []byte("sealed"))
}

func blobMissing(t *testing.T, b Blobs) {
	mustMiss(t, b, vault.NewID())
	mustMiss(t, b, vault.ID{})
}

func blobAgain(t *testing.T, b Blobs) {
	id, data := vault.NewID(), []byte("sealed")
	mustPut(t, b, id, data)
	mustPut(t, b, id, data)
	mustHold(t, b, id, data)
}

func blobTaken(t *testing.T, b Blobs) {
	id, data := vault.NewID(), []byte("sealed")
	mustPut(t, b, id, data)
	for _, other := range []string{"Sealed", "seale", "sealed!", ""} {
		if err := b.Put(t.Context(), id, []byte(other)); vault.KindOf(err) != vault.Exists {
			t.Fatalf("put %q over it: %v, want kind Exists", other, err)
		}
		mustHold(t, b, id, data)
	}
}

func blobDelete(t *testing.T, b Blobs) {
	id, beside := vault.NewID(), vault.NewID()
	beside[0] = id[0] // the nearest that a store can lay it
	mustPut(t, b, id, []byte("sealed"))
	mustPut(t, b, beside, []byte("beside"))
	for range 2 {
		mustDelete(t, b, id)
		mustMiss(t, b, id)
	}
	mustDelete(t, b, vault.NewID())
	mustHold(t, b, beside, []byte("beside"))
	mustPut(t, b, id, []byte("other bytes"))
	mustHold(t, b, id, []byte("other bytes"))
}

func blobIDs(t *testing.T, b Blobs) {
	id := vault.NewID()
	mustPut(t, b, id, []byte("one"))
	for i := range id {
		other := id
		other[i] ^= 1
		mustMiss(t, b, other)
		mustPut(t, b, other, []byte{byte(i)})
		mustHold(t, b, other, []byte{byte(i)})
	}
	mustHold(t, b, id, []byte("one"))
}

func blobContext(t *testing.T, b Blobs) {
	done, cancel := context.WithCancel(t.Context())
	cancel()
	id, kept := vault.NewID(), vault.NewID()
	mustPut(t, b, kept, []byte("kept"))
	_, getErr := b.Get(done, kept)
	for op, err := range map[string]error{"Put": b.Put(done, id, []byte("x")), "Get": getErr, "Delete": b.Delete(done, kept)} {
		if vault.KindOf(err) != vault.Unavailable || vault.ReasonOf(err) != vault.ReasonBlobUnavailable || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want Unavailable, BLOB_UNAVAILABLE and the context's own error", op, err)
		}
	}
	mustMiss(t, b, id)
	mustHold(t, b, kept, []byte("kept"))
}

func blobsAtOnce(t *testing.T, b Blobs) {
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 8 {
				id, data := vault.NewID(), noise(1000)
				if err := b.Put(t.Context(), id, data); err != nil {
					t.Errorf("put: %v", err)
				}
				if got, err := b.Get(t.Context(), id); err != nil || !bytes.Equal(got, data) {
					t.Errorf("got %d bytes, %v", len(got), err)
				}
				if err := b.Delete(t.Context(), id); err != nil {
					t.Errorf("delete: %v", err)
				}
			}
		})
	}
	all.Wait()
}

func blobSameAtOnce(t *testing.T, b Blobs) {
	id, data := vault.NewID(), noise(100_000)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			if err := b.Put(t.Context(), id, data); err != nil {
				t.Errorf("put: %v", err)
			}
		})
	}
	all.Wait()
	mustHold(t, b, id, data)
}

func blobRace(t *testing.T, b Blobs) {
	for range 10 {
		id := vault.NewID()
		var won atomic.Pointer[[]byte]
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				data := bytes.Repeat([]byte{byte(i)}, 1000+i)
				switch err := b.Put(t.Context(), id, data); {
				case err == nil:
					if !won.CompareAndSwap(nil, &data) {
						t.Error("two different blobs were taken under one ID")
					}
				case vault.KindOf(err) != vault.Exists:
					t.Errorf("put: %v, want kind Exists", err)
				}
			})
		}
		all.Wait()
		if won.Load() == nil {
			t.Fatal("none was taken")
		}
		mustHold(t, b, id, *won.Load())
	}
}

func blobWhole(t *testing.T, b Blobs) {
	id, data := vault.NewID(), noise(1<<20)
	var put sync.WaitGroup
	put.Go(func() { mustPut(t, b, id, data) })
	for range 200 {
		got, err := b.Get(t.Context(), id)
		if err == nil {
			if !bytes.Equal(got, data) {
				t.Errorf("a reader saw %d bytes of %d", len(got), len(data))
			}
			break
		}
		if vault.KindOf(err) != vault.NotFound {
			t.Errorf("a reader saw %v", err)
		}
	}
	put.Wait()
	mustHold(t, b, id, data)
}

func blobPutDelete(t *testing.T, b Blobs) {
	id, data := vault.NewID(), noise(1000)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 8 {
				if err := b.Put(t.Context(), id, data); err != nil {
					t.Errorf("put: %v", err)
				}
				if err := b.Delete(t.Context(), id); err != nil {
					t.Errorf("delete: %v", err)
				}
			}
		})
	}
	all.Wait()
	mustMiss(t, b, id) // the last to return was a Delete
}

// The must functions report by Errorf, because some are called off the test's goroutine.

func mustPut(t *testing.T, b Blobs, id vault.ID, data []byte) {
	t.Helper()
	if err := b.Put(t.Context(), id, data); err != nil {
		t.Errorf("put %d bytes: %v", len(data), err)
	}
}

func mustDelete(t *testing.T, b Blobs, id vault.ID) {
	t.Helper()
	if err := b.Delete(t.Context(), id); err != nil {
		t.Errorf("delete: %v", err)
	}
}

func mustHold(t *testing.T, b Blobs, id vault.ID, want []byte) {
	t.Helper()
	if got, err := b.Get(t.Context(), id); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v; want %d bytes", len(got), err, len(want))
	}
}

func mustMiss(t *testing.T, b Blobs, id vault.ID) {
	t.Helper()
	got, err := b.Get(t.Context(), id)
	if vault.KindOf(err) != vault.NotFound || vault.ReasonOf(err) != vault.ReasonDataLoss || got != nil {
		t.Errorf("got %d bytes, %v; want kind NotFound and reason DATA_LOSS", len(got), err)
	}
}

// noise gives n bytes that look random and are always the same.
func noise(n int) []byte {
	b := make([]byte, 0, n+sha256.Size)
	for block := (vault.Digest{}); len(b) < n; {
		block = vault.DigestOf(block[:])
		b = append(b, block[:]...)
	}
	return b[:n]
}
