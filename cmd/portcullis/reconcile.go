package main

import (
	"context"

	"github.com/spf13/cobra"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
)

func (a *app) reconcileCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "reconcile", Short: "compare records, ciphertext and Vault's keys now (admin)", Args: exactly(0),
		Long: `Reconcile does at once what the service does at start and regularly: what a restore of Vault or
of ciphertext brought back is revoked, destroyed, disabled and closed again, and ciphertext and
keys that no record names are put aside, reversibly. It opens no image. With some 100,000 records
it takes a minute. "portcullisd fsck" looks closer, at every ciphertext.`,
		Example: "  portcullis --profile alice reconcile",
	}
	c.RunE = a.call(func(ctx context.Context, s *session, _ []string) error {
		got, err := s.Admin.Reconcile(ctx, &pb.ReconcileRequest{})
		if err != nil {
			return err
		}
		return a.show(got, func(t *grid) {
			t.line("%s compared", count(got.Records, "record"))
			if got.VaultRestored {
				t.line("Vault was restored from a copy: the tokens of %s ended, and grantees activate again", count(got.TokensEnded, "grant"))
			}
			t.line("shut again after a restore: %d", got.Undone)
			t.line("put aside: %d, taken back: %d, destroyed after quarantine: %d, still aside: %d", got.Quarantined, got.Returned, got.Destroyed, got.Waiting)
			t.line("too young to tell: %d; keys of others: %d", got.Young, got.Foreign)
		})
	})
	return c
}
