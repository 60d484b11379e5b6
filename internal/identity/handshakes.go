package identity

import (
	"fmt"
	"net"
	"sync"
)

// Limits of handshakes under way at once. A handshake costs the service two signatures'
// worth of work and some 20 KB, before the client has proved who it is.
const (
	MaxHandshakes     = 256 // in total
	MaxHandshakesEach = 64  // from one IP address, so that it leaves room for others
)

// handshakes counts those under way.
type handshakes struct {
	mu   sync.Mutex
	all  int
	from map[string]int // by IP address
}

// begin takes a place, which the returned function gives back, or refuses.
func (h *handshakes) begin(a net.Addr) (end func(), err error) {
	ip, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return nil, fmt.Errorf("admit connection: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all >= MaxHandshakes || h.from[ip] >= MaxHandshakesEach {
		return nil, fmt.Errorf("admit connection: too many handshakes at once: %d, %d of this address", h.all, h.from[ip])
	}
	if h.from == nil {
		h.from = map[string]int{}
	}
	h.all++
	h.from[ip]++
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.all--
		if h.from[ip]--; h.from[ip] == 0 {
			delete(h.from, ip)
		}
	}, nil
}
