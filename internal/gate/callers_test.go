package gate

import (
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// TestEndingOfCallers: whatever these callers have under way ends, also under a grant that
// nobody names, and all their connections are cut but the one that is spared.
func TestEndingOfCallers(t *testing.T) {
	cut := make(chan func(vault.Caller) bool, 1)
	g := New(func(match func(vault.Caller) bool) int { cut <- match; return 1 }, time.Now)
	mine, other := workload("acme", "w", 7), workload("acme", "other", 8)
	admin := vault.Caller{ID: "spiffe://example.org/admin/ann", Role: vault.RoleAdmin, Conn: 9, Addr: "127.0.0.1:1"}
	leave := enter(t, g, release(3, grantA, recordX, "acme", 7))
	ended := make(chan vault.Barrier, 1)
	go func() {
		ended <- end(t, g, vault.Ending{Index: 5, Callers: []string{mine.ID, admin.ID}, Spare: admin.Addr})
	}()
	match := <-cut
	select {
	case <-ended:
		t.Fatal("the barrier did not wait for a send under way")
	case <-time.After(20 * time.Millisecond):
	}
	leave()
	if b := <-ended; b.Sends != 1 {
		t.Errorf("barrier %+v", b)
	}
	refused(t, g, release(4, grantB, recordY, "acme", 7), vault.State)
	enter(t, g, release(6, grantB, recordY, "acme", 7))()
	elsewhere := admin
	elsewhere.Addr = "127.0.0.1:2"
	for c, want := range map[vault.Caller]bool{mine: true, other: false, admin: false, elsewhere: true} {
		if got := match(c); got != want {
			t.Errorf("%s at %s is cut: %v", c.ID, c.Addr, got)
		}
	}
	byOther := release(4, grantB, recordY, "acme", 8)
	byOther.Caller = other
	enter(t, g, byOther)()
}
