package client

import (
	"context"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

// ReinstateCaller signs that a suspended caller, named by its SPIFFE ID, may call again, which
// takes two admins. confirm is shown what is to be signed.
func (c *Client) ReinstateCaller(ctx context.Context, id string, confirm func(d *pb.Decision) error) (*pb.SignDecisionResponse, error) {
	return c.decideConfirmed(ctx, &pb.ProposeDecisionRequest{Action: &pb.ProposeDecisionRequest_ReinstateCaller{ReinstateCaller: id}},
		vault.ReinstateCaller, func(body string) bool {
			at, err := vault.ParseTime(field(body, "suspended_at"))
			return err == nil && body == vault.Suspension{Caller: id, At: at}.Text()
		}, confirm)
}

// SuspendedCallers gives each caller that is suspended one by one, page by page. It is for
// admins and auditors.
func (c *Client) SuspendedCallers(ctx context.Context, each func(*pb.SuspendedCaller) error) error {
	for page := ""; ; {
		got, err := c.Admin.ListSuspendedCallers(ctx, &pb.ListSuspendedCallersRequest{PageToken: page})
		if err != nil {
			return err
		}
		for _, s := range got.SuspendedCallers {
			if err := each(s); err != nil {
				return err
			}
		}
		if page = got.NextPageToken; page == "" {
			return nil
		}
	}
}
