package client

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"google.golang.org/grpc/credentials"
)

// alertWait is how long a connection that broke is asked for its alert, which lies there already
// or never comes.
const alertWait = time.Second

// alerted lets connections say why the service ended them. With TLS 1.3 a client sends before
// the service has looked at its certificate. If that is refused, a client that is still
// sending hears of a broken pipe, while the reason has arrived and nobody reads it.
type alerted struct {
	credentials.TransportCredentials
}

func (a alerted) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := a.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		return nil, nil, err
	}
	return alertConn{conn}, info, nil
}

func (a alerted) Clone() credentials.TransportCredentials {
	return alerted{a.TransportCredentials.Clone()}
}

type alertConn struct{ net.Conn }

// Write gives the service's alert for its error if there is one. What else was to be read is
// lost, as the connection is.
func (c alertConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		return n, err
	}
	if c.SetReadDeadline(time.Now().Add(alertWait)) != nil {
		return n, err
	}
	for unread := make([]byte, 4096); ; {
		if _, readErr := c.Read(unread); readErr != nil {
			// So crypto/tls marks an alert that the other side sent.
			if op := new(net.OpError); errors.As(readErr, &op) && op.Op == "remote error" {
				return n, readErr
			}
			return n, err
		}
	}
}
