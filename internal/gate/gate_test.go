package gate

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/portcullis/portcullis/vault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// resets keeps how the gate asked for connections to be cut.
type resets struct {
	matches []func(vault.Caller) bool
}

func (r *resets) reset(match func(vault.Caller) bool) int {
	r.matches = append(r.matches, match)
	return 3
}

func newGate() (*Gate, *resets) {
	r := &resets{}
	return New(r.reset, time.Now), r
}

func workload(org, name string, conn uint64) vault.Caller {
	return vault.Caller{ID: "spiffe://example.org/contractor/" + org + "/" + name, Role: vault.RoleContractor, Org: org, Workload: name, Conn: conn}
}

var (
	grantA, grantB   = vault.NewID(), vault.NewID()
	recordX, recordY = vault.NewID(), vault.NewID()
)

func release(index int64, grant, record vault.ID, org string, conn uint64) vault.Release {
	return vault.Release{Index: index, At: time.Now(), Grant: grant, Contractor: org, Caller: workload(org, "w", conn), Record: vault.Record{ID: record}}
}

// enter demands that a release passes.
func enter(t *testing.T, g *Gate, r vault.Release) (leave func()) {
	t.Helper()
	leave, err := g.Enter(r)
	if err != nil {
		t.Fatal(err)
	}
	return leave
}

// refused demands that a release does not pass, for want of the kind.
func refused(t *testing.T, g *Gate, r vault.Release, k vault.Kind) {
	t.Helper()
	leave, err := g.Enter(r)
	if leave != nil || vault.KindOf(err) != k || vault.ReasonOf(err) != vault.ReasonAccessEnded {
		t.Errorf("release %d: error %v, want kind %d", r.Index, err, k)
	}
}

// end demands that an ending succeeds.
func end(t *testing.T, g *Gate, e vault.Ending) vault.Barrier {
	t.Helper()
	b, err := g.End(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAnEndingRefusesWhatWasAuthorizedBefore(t *testing.T) {
	for name, e := range map[string]vault.Ending{
		"grant":      {Grants: []vault.ID{vault.NewID(), grantA}},
		"contractor": {Contractor: "acme"},
		"record":     {Records: []vault.ID{recordX}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, _ := newGate()
				e.Index = 10
				if b := end(t, g, e); b.Index != 10 || b.Sends != 0 || b.Connections != 3 || b.Waited != 0 {
					t.Errorf("barrier %+v", b)
				}
				refused(t, g, release(9, grantA, recordX, "acme", 1), vault.State)
				refused(t, g, release(0, grantA, recordX, "acme", 1), vault.State)
				enter(t, g, release(11, grantA, recordX, "acme", 1))() // lawful again: a key restored since
				enter(t, g, release(9, grantB, recordY, "other", 2))()
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		g, _ := newGate()
		end(t, g, vault.Ending{Index: 10, Grants: []vault.ID{grantB}, Records: []vault.ID{recordY}, Grantees: []string{workload("acme", "w", 1).ID}})
		enter(t, g, release(9, grantA, recordX, "", 1))() // cut in any case, but not refused
		end(t, g, vault.Ending{Index: 12, Records: []vault.ID{recordX}})
		end(t, g, vault.Ending{Index: 11, Grants: []vault.ID{grantA}}) // endings may come out of order
		refused(t, g, release(9, grantB, recordX, "", 1), vault.State)
		refused(t, g, release(11, grantB, recordX, "", 1), vault.State)
		refused(t, g, release(10, grantA, recordY, "", 1), vault.State)
		enter(t, g, release(11, grantA, recordY, "", 1))()
	})
}

func TestEndWaitsForWhatItCovers(t *testing.T) {
	for name, e := range map[string]vault.Ending{
		"grant":      {Index: 10, Grants: []vault.ID{grantA}},
		"contractor": {Index: 10, Contractor: "acme"},
		"record":     {Index: 10, Records: []vault.ID{recordX}},
		"again":      {Index: 1 << 40, Grants: []vault.ID{grantA}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, r := newGate()
				first := enter(t, g, release(3, grantA, recordX, "acme", 5))
				second := enter(t, g, release(4, grantA, recordX, "acme", 6))
				other := enter(t, g, release(5, grantB, recordY, "other", 7))
				var b vault.Barrier
				var err error
				ended := false
				go func() {
					b, err = g.End(t.Context(), e)
					ended = true
				}()
				time.Sleep(time.Second)
				first()
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if ended {
					t.Fatal("End did not wait for the second send")
				}
				second()
				synctest.Wait()
				if !ended || err != nil {
					t.Fatalf("ended: %t, %v; a send of another grant must not hold it up", ended, err)
				}
				if b.Sends != 2 || b.Waited != 3*time.Second || b.Connections != 3 || b.Index != e.Index {
					t.Errorf("barrier %+v", b)
				}
				for conn, want := range map[uint64]bool{5: true, 6: true, 7: false, 8: false} {
					if got := r.matches[0](workload("third", "w", conn)); got != want {
						t.Errorf("connection %d cut: %t", conn, got)
					}
				}
				other()
			})
		})
	}
}

func TestASendAuthorizedAfterTheEndingIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, r := newGate()
		later := enter(t, g, release(11, grantA, recordX, "acme", 5))
		defer later()
		if b := end(t, g, vault.Ending{Index: 10, Records: []vault.ID{recordX}}); b.Sends != 0 || r.matches[0](workload("acme", "w", 5)) {
			t.Errorf("barrier %+v", b)
		}
	})
}

func TestWhoIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, r := newGate()
		end(t, g, vault.Ending{Index: 1, Contractor: "acme", Grantees: []string{workload("other", "reader", 0).ID}})
		end(t, g, vault.Ending{Index: 2, Grants: []vault.ID{grantA}})
		admin := vault.Caller{ID: "spiffe://example.org/admin/acme", Role: vault.RoleAdmin, Name: "acme", Org: "acme", Conn: 4}
		for _, c := range []struct {
			caller vault.Caller
			want   bool
		}{
			{workload("acme", "a", 1), true}, {workload("acme", "b", 2), true}, {workload("other", "reader", 3), true},
			{workload("other", "writer", 3), false}, {workload("acme-2", "a", 3), false}, {admin, false}, {vault.Caller{}, false},
		} {
			if got := r.matches[0](c.caller); got != c.want {
				t.Errorf("%s cut: %t, want %t", c.caller.ID, got, c.want)
			}
			if r.matches[1](c.caller) {
				t.Errorf("%s is cut by the ending of a grant that nobody uses", c.caller.ID)
			}
		}
	})
}

func TestStaleReleasesAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := newGate()
		r := release(1, grantA, recordX, "acme", 1)
		time.Sleep(stale)
		enter(t, g, r)()
		time.Sleep(time.Nanosecond)
		refused(t, g, r, vault.Unavailable)
	})
}

// Whoever was authorized before an ending never passes, however late: it meets the ending
// or is stale. Endings that nobody can meet any more take no memory.
func TestEndingsAreForgottenOnlyOnceNobodyMeetsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := newGate()
		before := release(9, grantA, recordX, "acme", 1) // authorized in the same instant
		end(t, g, vault.Ending{Index: 10, Grants: []vault.ID{grantA}})
		for range 700 {
			if _, err := g.Enter(before); err == nil {
				t.Fatalf("%s after the ending it passes", time.Since(before.At))
			}
			time.Sleep(time.Second)
		}
		enter(t, g, release(20, grantB, recordY, "acme", 1))()
		if len(g.endings) != 0 {
			t.Errorf("%d endings are kept after %s", len(g.endings), time.Since(before.At))
		}
		for i := range int64(1000) {
			end(t, g, vault.Ending{Index: 100 + i, Grants: []vault.ID{grantA}})
			time.Sleep(time.Second)
		}
		if most := int(remember/time.Second) + 2; len(g.endings) > most {
			t.Errorf("%d endings are kept, at most %d can be met", len(g.endings), most)
		}
		if stale >= remember {
			t.Error("a release may enter that no longer meets its ending")
		}
	})
}

func TestEndGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := newGate()
		leave := enter(t, g, release(1, grantA, recordX, "acme", 1))
		start := time.Now()
		b, err := g.End(t.Context(), vault.Ending{Index: 10, Grants: []vault.ID{grantA}})
		if vault.KindOf(err) != vault.Unavailable || time.Since(start) != patience || b.Sends != 1 {
			t.Errorf("%v after %s, barrier %+v", err, time.Since(start), b)
		}
		refused(t, g, release(9, grantA, recordX, "acme", 1), vault.State) // it holds all the same

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := g.End(ctx, vault.Ending{Index: 11, Contractor: "acme"}); vault.KindOf(err) != vault.Unavailable || !errors.Is(err, context.Canceled) {
			t.Errorf("caller gone: %v", err)
		}
		refused(t, g, release(9, grantB, recordX, "acme", 1), vault.State)
		leave()
		if b := end(t, g, vault.Ending{Index: 1 << 40, Contractor: "acme"}); b.Sends != 0 {
			t.Errorf("barrier %+v", b)
		}
	})
}

// Sends and endings at once: after End returned, nothing that it covers and that was
// authorized before it is under way, ever. Run with -race.
func TestNothingIsUnderWayAfterEnd(t *testing.T) {
	const senders, each = 24, 400
	grants := []vault.ID{vault.NewID(), vault.NewID(), vault.NewID()}
	records := []vault.ID{vault.NewID(), vault.NewID(), vault.NewID()}
	orgs := []string{"acme", "other"}
	var index atomic.Int64
	var over [3][3]atomic.Int64 // by what ended, and which: the newest index that is over
	const byGrant, byRecord, byOrg = 0, 1, 2
	g := New(func(func(vault.Caller) bool) int { return 0 }, time.Now)

	var passed, cut atomic.Int64
	// underWay fails when a send goes on that an ending which returned had ended.
	underWay := func(rel vault.Release, i, j, k int) {
		for _, end := range []int64{over[byGrant][i].Load(), over[byRecord][j].Load(), over[byOrg][k].Load()} {
			if rel.Index < end {
				t.Errorf("release %d is under way after ending %d returned", rel.Index, end)
			}
		}
	}
	var sending, ending sync.WaitGroup
	for n := range senders {
		sending.Go(func() {
			for m := range each {
				i, j, k := (n+m)%3, (n+m/3)%3, (n+m/9)%2
				rel := release(index.Add(1), grants[i], records[j], orgs[k], uint64(n))
				if m%4 == 0 {
					time.Sleep(time.Duration(m%7) * 20 * time.Microsecond) // opening takes its time
				}
				leave, err := g.Enter(rel)
				if err != nil {
					cut.Add(1)
					continue
				}
				passed.Add(1)
				for range 3 {
					underWay(rel, i, j, k)
					time.Sleep(20 * time.Microsecond)
				}
				underWay(rel, i, j, k)
				leave()
			}
		})
	}
	stop := make(chan struct{})
	for what := range 3 {
		ending.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				which := n % 3
				e := vault.Ending{Index: index.Add(1)}
				switch what {
				case byGrant:
					e.Grants = grants[which : which+1]
				case byRecord:
					e.Records = records[which : which+1]
				case byOrg:
					which = n % 2
					e.Contractor = orgs[which]
				}
				if _, err := g.End(t.Context(), e); err != nil {
					t.Error(err)
				}
				over[what][which].Store(e.Index)
				time.Sleep(300 * time.Microsecond)
			}
		})
	}
	sending.Wait()
	close(stop)
	ending.Wait()
	if len(g.sending) != 0 {
		t.Errorf("%d sends are left", len(g.sending))
	}
	if passed.Load() == 0 || cut.Load() == 0 {
		t.Errorf("%d passed, %d were cut: the test saw no race", passed.Load(), cut.Load())
	}
	t.Logf("%d passed, %d were cut", passed.Load(), cut.Load())
}
