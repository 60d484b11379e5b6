package client

import (
	"context"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// Health says of each service that the process at the other end offers, by its full name such
// as portcullis.v1.GrantService, whether it can do its work now. The empty name stands for all
// of them together. It needs no standing, and no database at the other end.
func (c *Client) Health(ctx context.Context) (map[string]bool, error) {
	got, err := healthpb.NewHealthClient(c.conn).List(ctx, &healthpb.HealthListRequest{})
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for name, s := range got.GetStatuses() {
		out[name] = s.GetStatus() == healthpb.HealthCheckResponse_SERVING
	}
	return out, nil
}
