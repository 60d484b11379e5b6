package vaulttest

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

func clockAt(start time.Time) (clock func() time.Time, advance func(time.Duration)) {
	var mu sync.Mutex
	now := start
	return func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return now
		}, func(d time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			now = now.Add(d)
		}
}

func TestFakeHCVault(t *testing.T) {
	TestHCVault(t, func(*testing.T) HCVaultUnderTest {
		clock, advance := clockAt(time.Unix(1_550_000_000, 0))
		return NewHCVault(clock).AsUnderTest(advance)
	})
}

func TestFakeBlobs(t *testing.T) {
	TestBlobs(t, func(*testing.T) Blobs { return NewBlobs(time.Now) })
}

func TestListAndTamper(t *testing.T) {
	at := time.Unix(1_550_000_000, 0)
	b := NewBlobs(func() time.Time { return at })
	ids := []vault.ID{{1}, {2}, {3}}
	for i := range ids {
		mustPut(t, b, ids[len(ids)-1-i], make([]byte, 3-i))
	}
	b.Tamper(ids[1], func(old []byte) []byte { return append(old, 'x') })
	mustHold(t, b, ids[1], []byte{0, 0, 'x'})
	var got []vault.ID
	stop := errors.New("stop")
	err := b.List(t.Context(), func(id vault.ID, size int64, modified time.Time) error {
		got = append(got, id)
		if !modified.Equal(at) || size != []int64{1, 3}[len(got)-1] {
			t.Errorf("%s: %d bytes at %v", id, size, modified)
		}
		if len(got) == 2 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || len(got) != 2 || got[0] != ids[0] || got[1] != ids[1] {
		t.Errorf("listed %v, %v", got, err)
	}
	// Every op is known to the faults, and down.
	b.Down(true)
	if err := b.List(t.Context(), nil); vault.KindOf(err) != vault.Unavailable || vault.ReasonOf(err) != vault.ReasonBlobUnavailable {
		t.Errorf("list of a store that is down: %v", err)
	}
}

func TestFaults(t *testing.T) {
	b, id, broken := NewBlobs(time.Now), vault.NewID(), errors.New("broken")
	put := func() error { return b.Put(t.Context(), id, []byte("x")) }

	b.Fail("Put", 2, broken)
	for i := range 2 {
		if err := put(); !errors.Is(err, broken) {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	mustMiss(t, b, id)
	if err := put(); err != nil {
		t.Fatalf("call after the faults: %v", err)
	}
	mustDelete(t, b, id)

	b.FailAfter("Put", 1, broken)
	if err := put(); !errors.Is(err, broken) {
		t.Fatalf("a lost answer: %v", err)
	}
	mustHold(t, b, id, []byte("x"))

	b.Fail("Get", -1, broken)
	for range 5 {
		if _, err := b.Get(t.Context(), id); !errors.Is(err, broken) {
			t.Fatalf("always: %v", err)
		}
	}
	b.Fail("Get", 0, nil)
	mustHold(t, b, id, []byte("x"))
	if n := b.Calls("Put"); n != 4 {
		t.Errorf("%d puts, want 4", n)
	}
}

func TestHookCanChangeTheFake(t *testing.T) {
	clock, _ := clockAt(time.Now())
	v := NewHCVault(clock)
	b := bench{t, v.AsUnderTest(nil)}
	w := b.wrap(keyName("20190501"))
	token := b.grant(w.name)
	v.Hook(func(ctx context.Context, op string) {
		if op == "Unwrap" { // it gets in between
			b.ok("revoke", v.RevokeKey(ctx, w.name))
		}
	})
	b.refuses("revoked by the hook", token, w, vault.Denied, vault.ReasonKeyRevoked)
	v.Hook(nil)
	b.ok("restore", v.RestoreKey(t.Context(), w.name))
	b.opens(token, w)
}

func TestUnknownOpPanics(t *testing.T) {
	for name, plan := range map[string]func(){
		"Fail":  func() { NewBlobs(time.Now).Fail("Unwrap", 1, errors.New("x")) },
		"Calls": func() { NewHCVault(time.Now).Calls("Put") },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic: the fault would never show")
				}
			}()
			plan()
		})
	}
}

func TestNoise(t *testing.T) {
	if a, b := noise(100), noise(101); len(a) != 100 || !bytes.Equal(a, b[:100]) || bytes.Equal(a[:32], a[32:64]) {
		t.Errorf("%x\n%x", a, b)
	}
}
