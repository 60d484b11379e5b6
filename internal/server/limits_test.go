package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strconv"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/portcullis/portcullis/vault"
)

// TestBudget: what is taken at once stays within the total, no caller gets more than a
// share, who waits too long is told that the service is busy, and what is given back is
// there again.
func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		b := newBudget(100, 10, 10*time.Second)
		var held []*hold
		take := func(who string, n int64) error {
			h, err := b.take(ctx, who, n)
			if err == nil {
				held = append(held, h)
			}
			return err
		}
		for _, n := range []int64{10, 10, 5} {
			if err := take("a", n); err != nil {
				t.Fatal(err)
			}
		}
		begun := time.Now()
		err := take("a", 1) // over its share, while others have room
		if vault.ReasonOf(err) != vault.ReasonServerBusy || time.Since(begun) != 10*time.Second {
			t.Fatalf("over the share: %v after %s", err, time.Since(begun))
		}
		for i := range 7 {
			if err := take("b"+strconv.Itoa(i), 10); err != nil {
				t.Fatal(err)
			}
		}
		if err := take("c", 10); vault.ReasonOf(err) != vault.ReasonServerBusy {
			t.Fatalf("over the total: %v", err)
		}
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := b.take(gone, "c", 10); !errors.Is(err, context.Canceled) {
			t.Fatalf("a caller that left: %v", err)
		}
		served := make(chan error)
		go func() { served <- take("c", 10) }()
		synctest.Wait()
		held[0].shrinkTo(4) // 5 were free
		synctest.Wait()
		if err := <-served; err != nil {
			t.Fatalf("room was made: %v", err)
		}
		for _, h := range held {
			h.shrinkTo(0)
			h.shrinkTo(0)
		}
		if b.free != 100 || len(b.held) != 0 || b.waiting.Len() != 0 {
			t.Fatalf("%d free, held %v, %d waiting", b.free, b.held, b.waiting.Len())
		}
	})
}

// TestCallsAreCounted: one caller can not use up what all have.
func TestCallsAreCounted(t *testing.T) {
	var c count
	for i := range maxCallerCalls {
		if !c.add("a") {
			t.Fatalf("call %d is refused", i)
		}
	}
	if c.add("a") || !c.add("b") {
		t.Fatal("the limit of one caller is not its own")
	}
	for i := range maxCalls - maxCallerCalls - 1 {
		if !c.add(strconv.Itoa(i)) {
			t.Fatalf("call %d of others is refused", i)
		}
	}
	if c.add("c") {
		t.Fatal("more calls than the limit")
	}
	c.remove("a")
	if !c.add("c") {
		t.Fatal("a call that ended makes no room")
	}
}

// TestBusyTellsWhenToTryAgain: clients that know RetryInfo wait of themselves.
func TestBusyTellsWhenToTryAgain(t *testing.T) {
	s := status.Convert(toStatus(t.Context(), slog.New(slog.DiscardHandler), "m", busy("full")))
	if s.Code() != codes.ResourceExhausted || len(s.Details()) != 2 {
		t.Fatal(s)
	}
	if info, ok := s.Details()[0].(*errdetails.ErrorInfo); !ok || info.Reason != string(vault.ReasonServerBusy) {
		t.Error(s.Details()[0])
	}
	if retry, ok := s.Details()[1].(*errdetails.RetryInfo); !ok || retry.RetryDelay.AsDuration() != retryAfter {
		t.Error(s.Details()[1])
	}
}

// TestListener: connections over the limits are closed at once and counted; one that ends
// makes room.
func TestListener(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := Limit(inner, 3, 2, slog.New(slog.DiscardHandler))
	accepted := make(chan net.Conn, 10)
	go func() {
		defer close(accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	defer func() {
		l.Close()
		for c := range accepted {
			c.Close()
		}
	}()
	dial := func(from string) net.Conn {
		t.Helper()
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext(t.Context(), "tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	refused := func(from string) {
		t.Helper()
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext(t.Context(), "tcp", inner.Addr().String())
		if errors.Is(err, syscall.ECONNRESET) {
			return // closed before connect had returned
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadFull(c, make([]byte, 1))
		var timeout net.Error
		if err == nil || errors.As(err, &timeout) && timeout.Timeout() {
			t.Fatalf("still open: %v", err)
		}
	}
	dial("127.0.0.1")
	first := <-accepted
	dial("127.0.0.1")
	second := <-accepted
	defer second.Close()
	refused("127.0.0.1") // a third of its address
	dial("127.0.0.2")
	other := <-accepted
	defer other.Close()
	refused("127.0.0.3") // a fourth of all
	if n := l.Refused(); n != 2 {
		t.Fatalf("%d counted", n)
	}
	first.Close()
	first.Close() // counts once
	dial("127.0.0.1")
	again := <-accepted
	defer again.Close()
	refused("127.0.0.2")
	if got := network(&net.TCPAddr{IP: net.ParseIP("2001:db8::1:2:3:4")}); got.String() != "2001:db8::" {
		t.Errorf("an IPv6 address is counted with %s", got)
	}
}
