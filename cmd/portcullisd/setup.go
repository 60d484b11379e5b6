package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portcullis/portcullis/internal/hcvault/setup"
)

func setupCommand(out io.Writer) *cobra.Command {
	var o setup.Options
	cmd := &cobra.Command{
		Use:   "setup --address URL --audit-file FILE --out DIR < TOKEN",
		Short: "prepare a HashiCorp Vault: mount, policies, roles, audit device; safe to repeat",
		Long: `Setup prepares a HashiCorp Vault for Portcullis: a transit mount of its own, a second
one with the key that can sign the audit log, the policies and AppRoles of the daemon's
four credentials, the role of grant tokens, and a file audit device if none is on. It is
safe to repeat.

It reads an operator's Vault token from standard input and keeps it nowhere. DIR gets one
file for each credential: capture.json, grants.json, admin.json and log.json.

The log's key, <mount>-log/checkpoints, is always made, so that one set-up serves every
configuration. The daemon signs by it when audit.signer is vault; only then does it need
log.json. Setup never rotates or replaces that key: with another it would be another log.
A key by that name that can not be it (another type, exportable) is an error.

  vault token create -field=token -ttl=10m | portcullisd setup \
      --address https://vault.internal:8200 --ca vault-ca.pem \
      --audit-file /var/log/vault/audit.log --out /etc/portcullis/vault`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			line, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 1024)).ReadString('\n')
			if o.Token = strings.TrimSpace(line); o.Token == "" {
				return fmt.Errorf("no Vault token on standard input: %w", err)
			}
			if err := setup.Run(cmd.Context(), o); err != nil {
				return err
			}
			fmt.Fprintf(out, "Vault is ready; the credentials are in %s\n", o.OutDir)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Addr, "address", "", "Vault's address, https://host:port (required)")
	f.StringVar(&o.CAFile, "ca", "", "PEM file of the authority of Vault's certificate")
	f.StringVar(&o.Mount, "mount", "portcullis", "path of the transit mount")
	f.StringVar(&o.AuditFile, "audit-file", "", "file for Vault's audit device, if none is on yet")
	f.StringSliceVar(&o.TokenCIDRs, "release-cidr", nil, "addresses from which grant tokens may be used: those of the release nodes")
	f.StringVar(&o.OutDir, "out", "", "directory for the credentials (required)")
	for _, name := range []string{"address", "out"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // the flags stand above
		}
	}
	return cmd
}
