package main

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestPlayCountsTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var edges []time.Duration
		var calls atomic.Int64
		got, err := play(t.Context(), 4, time.Second, func() { edges = append(edges, time.Since(began)) },
			repeat(func(ctx context.Context, _ int) error {
				calls.Add(1)
				return sleep(ctx, 70*time.Millisecond)
			}))
		if err != nil {
			t.Fatal(err)
		}
		// Of each client, the operations that end from 0.3 s on and before 1.3 s: the 5th, at
		// 0.35 s, to the 18th, at 1.26 s. The 19th ends later and is the last.
		if want := 4 * 14; len(got) != want {
			t.Errorf("%d operations count, want %d", len(got), want)
		}
		if n := calls.Load(); n != 4*19 {
			t.Errorf("%d calls were made, want %d", n, 4*19)
		}
		for _, d := range got {
			if d != 70*time.Millisecond {
				t.Fatalf("a latency is %s, want 70 ms", d)
			}
		}
		if len(edges) != 2 || edges[0] != warm || edges[1] != warm+time.Second {
			t.Errorf("the window's ends are %v", edges)
		}
	})
}

func TestPlayEndsWithAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, broken := time.Now(), errors.New("broken")
		_, err := play(t.Context(), 3, time.Minute, func() {}, repeat(func(_ context.Context, client int) error {
			if client == 1 && time.Since(began) > time.Second {
				return broken
			}
			time.Sleep(10 * time.Millisecond) // deaf to its context
			return nil
		}))
		if !errors.Is(err, broken) {
			t.Errorf("play gives %v, want the client's error", err)
		}
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("the others went on for %s", d)
		}
	})
}

func TestPlayEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := play(ctx, 3, time.Minute, func() {}, repeat(func(context.Context, int) error {
			time.Sleep(10 * time.Millisecond)
			return nil
		}))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("play gives %v", err)
		}
	})
}

func TestPlayIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, err := play(t.Context(), 1, time.Second, func() {}, repeat(func(ctx context.Context, _ int) error {
			<-ctx.Done() // an operation that hangs
			return ctx.Err()
		}))
		if d := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || d > time.Minute {
			t.Errorf("play gives %v after %s", err, d)
		}
	})
}
