package crashfs

import (
	"errors"
	"math/rand/v2"
	"testing"
)

// What was synced is there after every crash, and what was not may be there or not.
func TestCrash(t *testing.T) {
	y := NewTrace()
	f, err := y.Create("/a")
	if err != nil {
		t.Fatal(err)
	}
	y.Write(f, 0, []byte("durable"))
	y.Sync(f)
	if err := errors.Join(y.SyncDir("/"), y.Mkdir("/dir"), y.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	y.Write(f, 7, []byte(" or not"))
	if err := y.Rename("/a", "/dir/b"); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	seen := map[string]bool{}
	for range 200 {
		r := y.Replay(rng)
		r.Advance(y.Len())
		tree := r.Crash(AnyFate(rng))
		names := ""
		for _, p := range []string{"/a", "/dir/b"} {
			if e, err := tree.Find(p); err == nil {
				names += p + "=" + string(e.Data()) + " "
			}
		}
		if names == "" {
			t.Fatal("a rename lost the file")
		}
		seen[names] = true
	}
	for _, want := range []string{"/a=durable ", "/dir/b=durable or not ", "/a=durable /dir/b=durable "} {
		if !seen[want] {
			t.Errorf("%q never came, of %v", want, seen)
		}
	}
	y.Lose(f)
	y.Sync(f)
	lost := 0
	for range 50 {
		r := y.Replay(rng)
		r.Advance(y.Len())
		e, err := r.Crash(Kept).Find("/dir/b")
		if err != nil {
			t.Fatal(err)
		}
		if string(e.Data()) == "durable" {
			lost++
		}
	}
	if lost == 0 || lost == 50 {
		t.Errorf("of 50 syncs that failed %d lost what they were for", lost)
	}
}
