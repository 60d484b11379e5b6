package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

func TestUpdateGivesItsOwnLastIndex(t *testing.T) {
	s := open(t)
	if last := must(t, s, func(*Tx) error { return nil }); last != -1 {
		t.Errorf("no event: last %d", last)
	}
	for i, want := range []int64{0, 3, 5} { // 1, 3 and 2 events
		last := must(t, s, func(tx *Tx) error {
			for range []int{1, 3, 2}[i] {
				if err := storeRecord(someRecord())(tx); err != nil {
					return err
				}
			}
			return nil
		})
		if last != want {
			t.Errorf("last %d, want %d", last, want)
		}
	}
	checkLog(t, s)
}

func TestUpdateGivesTheTransactionsTime(t *testing.T) {
	c := newClock()
	s := openWith(t, c)
	want := vault.Micro(c.now())
	must(t, s, func(tx *Tx) error {
		if !tx.Now().Equal(want) || tx.Now().Nanosecond()%1000 != 0 {
			t.Errorf("time %s, want %s", tx.Now(), want)
		}
		return nil
	})
}

// blocked holds the writer until release is called, so that what comes meanwhile shares a
// transaction.
func blocked(t *testing.T, s *Store) (release func()) {
	t.Helper()
	in, out, done := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		_, err := s.Update(context.Background(), func(*Tx) error {
			close(in)
			<-out
			return nil
		})
		done <- err
	}()
	<-in
	return func() {
		close(out)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// waiting returns once n operations wait for the writer.
func waiting(t *testing.T, s *Store, n int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); len(s.ops) < n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d operations wait, want %d", len(s.ops), n)
		}
	}
}

// Operations that share a transaction fail each for itself: what was refused, panicked or was
// given up leaves neither rows nor events, and its neighbours commit.
func TestOperationsOfABatchAreApart(t *testing.T) {
	s := open(t)
	release := blocked(t, s)
	gone, cancel := context.WithCancel(t.Context())
	type outcome struct {
		id   vault.ID
		last int64
		err  error
		want error // nil, errRefused, context.Canceled, or errPanic
	}
	errPanic := errors.New("panic")
	out := make([]outcome, 60)
	var all sync.WaitGroup
	for i := range out {
		o := &out[i]
		r := someRecord()
		o.id, o.want = r.ID, []error{nil, errRefused, nil, errPanic, context.Canceled}[i%5]
		ctx := t.Context()
		if o.want == context.Canceled {
			ctx = gone
		}
		all.Go(func() {
			o.last, o.err = s.Update(ctx, func(tx *Tx) error {
				if err := storeRecord(r)(tx); err != nil {
					return err
				}
				switch o.want {
				case errPanic:
					panic("at the worst time")
				default:
					return o.want
				}
			})
		})
	}
	waiting(t, s, len(out))
	cancel()
	release()
	all.Wait()
	indexes := checkLog(t, s)
	for i, o := range out {
		index, there := indexes[o.id.String()]
		switch {
		case o.want == nil && (o.err != nil || !there || index != o.last):
			t.Errorf("operation %d: %v, last %d, at %d", i, o.err, o.last, index)
		case o.want == errPanic && vault.KindOf(o.err) != vault.Internal, o.want != nil && o.want != errPanic && !errors.Is(o.err, o.want):
			t.Errorf("operation %d: %v, want %v", i, o.err, o.want)
		case o.want != nil && (there || o.last != -1):
			t.Errorf("operation %d was refused, and left something at %d (last %d)", i, index, o.last)
		}
	}
	if len(indexes) != 24 {
		t.Errorf("%d committed, want 24", len(indexes))
	}
	must(t, s, storeRecord(someRecord())) // a panic did not take the writer down
	// Its value may hold a secret, so it goes no further.
	if err := out[3].err; vault.ReasonOf(err) != vault.ReasonInternal || bytes.Contains([]byte(err.Error()), []byte("worst time")) {
		t.Errorf("panic: %v", err)
	}
}

// The order of the log is the order of the commits, and each caller hears of its own event.
func TestLogOrderIsCommitOrder(t *testing.T) {
	s := open(t)
	const writers, each = 64, 25
	var seen sync.Map // record to last
	var newest atomic.Int64
	newest.Store(-1)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for n := range each {
				before := newest.Load() // acknowledged before this begins
				r := someRecord()
				last, err := s.Update(t.Context(), func(tx *Tx) error {
					if n%7 == 3 {
						_ = tx.Append(note(tx, vault.NewID()))
						return errRefused
					}
					return storeRecord(r)(tx)
				})
				if n%7 == 3 {
					if !errors.Is(err, errRefused) || last != -1 {
						t.Errorf("refused: last %d, %v", last, err)
					}
					continue
				}
				if err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
				if last <= before {
					t.Errorf("index %d came after %d was acknowledged", last, before)
				}
				seen.Store(r.ID.String(), last)
				for {
					n := newest.Load()
					if last <= n || newest.CompareAndSwap(n, last) {
						break
					}
				}
			}
		})
	}
	all.Wait()
	indexes := checkLog(t, s)
	n := 0
	seen.Range(func(id, last any) bool {
		n++
		if indexes[id.(string)] != last {
			t.Errorf("record %s is at %d, its caller heard %d", id, indexes[id.(string)], last)
		}
		return true
	})
	if n != len(indexes) || n != writers*(each-4) {
		t.Errorf("%d acknowledged, %d in the log, want %d", n, len(indexes), writers*(each-4))
	}
}

func TestUpdateAndContexts(t *testing.T) {
	s := open(t)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 50 {
		last, err := s.Update(gone, func(*Tx) error {
			t.Error("it ran, though its caller had left")
			return nil
		})
		if !errors.Is(err, context.Canceled) || last != -1 {
			t.Fatalf("last %d, %v", last, err)
		}
	}
	// Once it runs, leaving does not undo it: whether it is committed must be known.
	ctx, cancel := context.WithCancel(t.Context())
	r := someRecord()
	last, err := s.Update(ctx, func(tx *Tx) error {
		cancel()
		return storeRecord(r)(tx)
	})
	if err != nil || last != 0 {
		t.Errorf("left while it ran: last %d, %v", last, err)
	}
	if err := s.View(gone, func(*Tx) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("view: %v", err)
	}
	checkLog(t, s)
}

func TestViewCanNotWrite(t *testing.T) {
	s := open(t)
	r := someRecord()
	must(t, s, storeRecord(r))
	for name, fn := range map[string]func(*Tx) error{
		"add":     func(tx *Tx) error { return tx.AddRecord(someRecord()) },
		"change":  func(tx *Tx) error { return tx.DestroyRecord(r.ID) },
		"delete":  func(tx *Tx) error { return tx.exec("DELETE FROM records") },
		"counter": func(tx *Tx) error { _, err := tx.flush([]entry{{"x", []byte("x")}}); return err },
		"pragma":  func(tx *Tx) error { return errors.Join(tx.exec("PRAGMA query_only = 0"), tx.AddRecord(someRecord())) },
	} {
		if err := s.View(t.Context(), fn); err == nil {
			t.Errorf("%s: a view wrote", name)
		}
	}
	wantReason(t, s.View(t.Context(), func(tx *Tx) error { return tx.Append(note(tx, r.ID)) }), vault.Internal, vault.ReasonInternal)
	checkLog(t, s)
	if got := view(t, s, func(tx *Tx) (vault.Record, error) { return tx.Record(r.ID) }); got != r {
		t.Errorf("%+v\nis now\n%+v", r, got)
	}
}

// A view sees one state, whatever is committed meanwhile.
func TestViewSeesOneState(t *testing.T) {
	s := open(t)
	must(t, s, storeRecord(someRecord()))
	if err := s.View(t.Context(), func(tx *Tx) error {
		_, before, err := tx.Events(0, 10, nil)
		if err != nil {
			return err
		}
		must(t, s, storeRecord(someRecord()))
		entries, after, err := tx.Events(0, 10, nil)
		if before != 1 || after != 1 || len(entries) != 1 {
			t.Errorf("size %d, then %d with %d entries", before, after, len(entries))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestEventsAreKeptVerbatim(t *testing.T) {
	s := open(t)
	var want [][]byte
	kinds := []vault.EventType{vault.EventRecordStored, vault.EventGrantRefused, vault.EventRecordReleased}
	for i := range 9 {
		must(t, s, func(tx *Tx) error {
			e := vault.NewEvent(kinds[i%3], vault.Caller{ID: "spiffe://example.org/admin/ann"}, tx.Now())
			e.Terms = fmt.Sprintf("<&> \"%d\" é\x00\n", i)
			b, err := e.Encode()
			want = append(want, b)
			return errors.Join(err, tx.Append(e))
		})
	}
	indexes, bodies, _, size, err := s.Events(t.Context(), 0, 100, nil)
	if err != nil || size != 9 || len(bodies) != 9 {
		t.Fatalf("%d of %d events, %v", len(bodies), size, err)
	}
	for i := range want {
		if indexes[i] != int64(i) || !bytes.Equal(bodies[i], want[i]) {
			t.Errorf("event %d (%d) is %s, was %s", i, indexes[i], bodies[i], want[i])
		}
	}
	for _, c := range []struct {
		from  int64
		most  int
		types []string
		want  string
	}{
		{3, 2, nil, "[3 4]"}, {8, 5, nil, "[8]"}, {9, 5, nil, "[]"}, {0, 0, nil, "[]"},
		{0, 9, []string{"grant.refused"}, "[1 4 7]"}, {2, 2, []string{"record.released", "grant.refused"}, "[2 4]"}, {0, 9, []string{"none' OR 1=1 --"}, "[]"},
	} {
		indexes, _, _, size, err := s.Events(t.Context(), c.from, c.most, c.types)
		if got := fmt.Sprint(indexes); err != nil || got != c.want || size != 9 {
			t.Errorf("from %d, %d of %q: %s of %d, %v; want %s", c.from, c.most, c.types, got, size, err, c.want)
		}
	}
}

func TestAnEventTooLongIsRefusedWithItsRows(t *testing.T) {
	s := open(t)
	_, err := s.Update(t.Context(), func(tx *Tx) error {
		e := note(tx, vault.NewID())
		e.Terms = string(make([]byte, vault.MaxEvent))
		return errors.Join(tx.AddRecord(someRecord()), tx.Append(e))
	})
	wantReason(t, err, vault.Internal, vault.ReasonInternal)
	checkLog(t, s)
}

// Whoever hears no error is in the database, whoever hears one is not.
func TestCloseWhileWriting(t *testing.T) {
	for round := range 5 {
		c := newClock()
		path := t.TempDir() + "/p.db"
		s := openFile(t, path, c)
		var acked, failed sync.Map
		var all sync.WaitGroup
		for range 48 {
			all.Go(func() {
				for {
					r := someRecord()
					last, err := s.Update(t.Context(), storeRecord(r))
					if err != nil {
						failed.Store(r.ID.String(), true)
						if last != -1 {
							t.Errorf("last %d with an error", last)
						}
						wantReason(t, err, vault.Unavailable, vault.ReasonShuttingDown)
						return
					}
					acked.Store(r.ID.String(), last)
				}
			})
		}
		time.Sleep(time.Duration(20+round*15) * time.Millisecond)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		all.Wait()
		indexes := checkLog(t, openFile(t, path, c))
		n := 0
		acked.Range(func(id, last any) bool {
			n++
			if index, ok := indexes[id.(string)]; !ok || index != last {
				t.Errorf("acknowledged record %s is at %d (%t), its caller heard %d", id, index, ok, last)
			}
			return true
		})
		failed.Range(func(id, _ any) bool {
			if _, ok := indexes[id.(string)]; ok {
				t.Errorf("record %s is there, though its caller heard an error", id)
			}
			return true
		})
		if n != len(indexes) || n == 0 {
			t.Errorf("%d acknowledged, %d in the log", n, len(indexes))
		}
	}
}

func TestAClosedStoreIsUnavailable(t *testing.T) {
	s := open(t)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		_, err := s.Update(t.Context(), func(*Tx) error { return nil })
		wantReason(t, err, vault.Unavailable, vault.ReasonShuttingDown)
	}
	wantReason(t, s.View(t.Context(), func(*Tx) error { return nil }), vault.Unavailable, vault.ReasonStoreUnavailable)
}
