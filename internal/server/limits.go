package server

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// The server's limits, in place of grpc's own, which are none or very large. Together they
// bound what callers can make the process hold, in bytes:
//
//   - requests on their way or worked on: requestBudget, and while an image is cleaned and
//     sealed up to two more copies of it;
//   - requests that wait for their turn: maxCalls × windowSize, which is 512 MiB;
//   - images on their way out: fetchBudget, and on each connection what the client has not
//     read of at most maxStreams answers.
const (
	maxStreams    = 256       // calls at once on one connection
	maxHeaders    = 16 << 10  // bytes of a call's headers
	maxOverhead   = 256 << 10 // bytes of a request besides the image
	windowSize    = 256 << 10 // bytes a client may have on its way in a call that waits
	connWindow    = 16 << 20  // and on a connection
	writeBuffer   = 32 << 10  // bytes gathered before a write
	idle          = 30 * time.Minute
	keepaliveTime = time.Minute
	keepaliveWait = 20 * time.Second
	keepaliveMin  = 20 * time.Second // who pings more often than this is disconnected

	maxCalls       = 2048 // calls at once on all connections
	maxCallerCalls = 512  // and of one caller

	requestBudget = 512 << 20 // bytes of requests at once
	fetchBudget   = 1 << 30   // bytes of images on their way out at once
	callersShare  = 4         // one caller gets at most a fourth of a budget

	// busyAfter is how long a call waits for its turn before it is refused. Waiting costs
	// the service little: flow control keeps the request at the client.
	busyAfter = 10 * time.Second
	// retryAfter is what a refused client is told to wait.
	retryAfter = time.Second
	// receiveTime is how long a request may take to arrive: 8 MiB at 600 kbit/s.
	receiveTime = 2 * time.Minute
)

// largestMessage gives the size of the largest request read, in bytes. It is over that of
// the largest image by a fourth, so that an image somewhat too large still arrives and the
// error can name its field; what is larger grpc refuses by its announced length, unread.
func largestMessage(maxImage int64) int64 { return maxImage + maxImage/4 + maxOverhead }

func busy(what string) *vault.Error {
	return vault.E(vault.Exhausted, vault.ReasonServerBusy, "%s; try again in a moment", what)
}

// budget is a number of bytes that calls share. No caller holds more than its share, so one
// that is slow or hostile leaves room for the others. Whoever waits gets its turn in order,
// but for callers that hold their share already.
type budget struct {
	wait time.Duration

	mu      sync.Mutex
	free    int64
	share   int64
	held    map[string]int64 // by caller
	waiting list.List        // of *turn
}

type turn struct {
	who   string
	n     int64
	ready chan struct{}
}

// newBudget makes a budget of total bytes out of which at least one call of largest bytes
// can be served.
func newBudget(total, largest int64, wait time.Duration) *budget {
	return &budget{
		wait: wait, free: max(total, largest), share: max(total/callersShare, largest), held: map[string]int64{},
	}
}

// take waits for n bytes. They are the caller's until given back.
func (b *budget) take(ctx context.Context, who string, n int64) (*hold, error) {
	b.mu.Lock()
	t := &turn{who: who, n: n, ready: make(chan struct{})}
	at := b.waiting.PushBack(t)
	b.serve()
	b.mu.Unlock()
	h := &hold{budget: b, who: who, n: n}
	select {
	case <-t.ready:
		return h, nil
	default:
	}
	limit := time.NewTimer(b.wait)
	defer limit.Stop()
	var err error
	select {
	case <-t.ready:
		return h, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-limit.C:
		err = busy("the service is at its limit of requests under way")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-t.ready: // in the same moment
		return h, nil
	default:
	}
	b.waiting.Remove(at)
	b.serve() // it may have been in the way
	return nil, err
}

// serve gives turns. The lock is held.
func (b *budget) serve() {
	for at := b.waiting.Front(); at != nil; {
		t, here := at.Value.(*turn), at
		at = at.Next()
		if b.held[t.who]+t.n > b.share {
			continue
		}
		if t.n > b.free {
			return // smaller ones behind it must not starve it
		}
		b.free -= t.n
		b.held[t.who] += t.n
		b.waiting.Remove(here)
		close(t.ready)
	}
}

// hold is what one call has of a budget. It is used by one goroutine.
type hold struct {
	budget *budget
	who    string
	n      int64
}

// shrinkTo gives back what is over n bytes.
func (h *hold) shrinkTo(n int64) {
	if h == nil || n >= h.n {
		return
	}
	b := h.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free += h.n - n
	if b.held[h.who] -= h.n - n; b.held[h.who] == 0 {
		delete(b.held, h.who)
	}
	h.n = n
	b.serve()
}

// count is how many calls are under way, in total and of each caller.
type count struct {
	mu       sync.Mutex
	all      int
	byCaller map[string]int
}

func (c *count) add(who string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all >= maxCalls || c.byCaller[who] >= maxCallerCalls {
		return false
	}
	if c.byCaller == nil {
		c.byCaller = map[string]int{}
	}
	c.all++
	c.byCaller[who]++
	return true
}

func (c *count) remove(who string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if c.byCaller[who]--; c.byCaller[who] == 0 {
		delete(c.byCaller, who)
	}
}
