package client

import (
	"context"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

// RecordKeys gives each record of a selection with the state of its key, page by page. It
// is for admins.
func (c *Client) RecordKeys(ctx context.Context, sel vault.Selection, each func(*pb.RecordKey) error) error {
	for page := ""; ; {
		got, err := c.Admin.ListRecordKeys(ctx, &pb.ListRecordKeysRequest{Selection: wire.Selection(sel), PageToken: page})
		if err != nil {
			return err
		}
		for _, r := range got.Records {
			if err := each(r); err != nil {
				return err
			}
		}
		if page = got.NextPageToken; page == "" {
			return nil
		}
	}
}
