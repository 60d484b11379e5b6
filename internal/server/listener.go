package server

import (
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// MaxConnections is how many connections there may be at once.
	MaxConnections = 1024
	// MaxConnectionsEach is how many of them one address may have; of IPv6, one network of
	// 64 bits, which is what a single subscriber gets.
	MaxConnectionsEach = 256

	tellEvery = 10 * time.Second // how often the log tells of refused connections
)

// Listener takes TCP connections up to a limit, in total and of each address. What is over
// it is closed at once, before a byte is read, so a client sees its connection reset. All
// methods may be called concurrently.
type Listener struct {
	net.Listener
	all, each int
	log       *slog.Logger

	mu      sync.Mutex
	open    map[netip.Addr]int
	total   int
	refused int64
	told    time.Time
}

// Limit bounds the connections of a TCP listener.
func Limit(lis net.Listener, all, each int, log *slog.Logger) *Listener {
	return &Listener{Listener: lis, all: all, each: each, log: log, open: map[netip.Addr]int{}}
}

// Refused says how many connections were closed because there were too many.
func (l *Listener) Refused() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused
}

// Accept gives the next connection within the limits. It is a TCP connection that can be
// reset.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tcp, ok := c.(*net.TCPConn)
		if !ok {
			return c, nil // the transport credentials refuse it
		}
		from := network(tcp.RemoteAddr())
		if l.admit(from) {
			return &limited{TCPConn: tcp, left: func() { l.leave(from) }}, nil
		}
		_ = tcp.SetLinger(0) // nothing of it shall linger in the kernel
		_ = tcp.Close()
	}
}

func (l *Listener) admit(from netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total < l.all && l.open[from] < l.each {
		l.total++
		l.open[from]++
		return true
	}
	l.refused++
	if now := time.Now(); now.Sub(l.told) >= tellEvery {
		l.told = now
		l.log.Warn("connections refused: too many", "address", from.String(), "open", l.total,
			"open_from_address", l.open[from], "refused_so_far", l.refused)
	}
	return false
}

func (l *Listener) leave(from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.open[from]--; l.open[from] == 0 {
		delete(l.open, from)
	}
}

// network gives whom an address is counted with.
func network(a net.Addr) netip.Addr {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return ip
}

// limited is a connection that counts until it is closed.
type limited struct {
	*net.TCPConn
	once sync.Once
	left func()
}

// Close closes the connection and makes room for another.
func (c *limited) Close() error {
	err := c.TCPConn.Close()
	c.once.Do(c.left)
	return err
}
