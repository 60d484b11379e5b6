package server

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	"github.com/portcullis/portcullis/vault"
)

// Measures is what may be told of calls. Its functions must not block.
type Measures struct {
	// Calls hears of each call from its beginning to its end. May be nil.
	Calls stats.Handler
	// Ended hears the role of a call's caller, empty if it has none, and how the call ended,
	// before that becomes a status. May be nil.
	Ended func(ctx context.Context, role vault.Role, err error)
}

func (m Measures) option() grpc.ServerOption {
	if m.Calls == nil {
		return grpc.EmptyServerOption{}
	}
	return grpc.StatsHandler(m.Calls)
}

// ended tells how a call ended.
func (a *api) ended(ctx context.Context, err error) {
	if a.Measures.Ended == nil {
		return
	}
	c, _ := a.Config.Caller(ctx) // who has no role has an empty one
	a.Measures.Ended(ctx, c.Role, err)
}
