package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/portcullis/portcullis/internal/hcvault"
	"github.com/portcullis/portcullis/internal/store"
	"github.com/portcullis/portcullis/internal/tlog"
)

// Where the key is that signs the log's checkpoints.
const (
	signerFile  = "file"
	signerVault = "vault"
)

type treeLedger struct{ *store.Store }

func (l treeLedger) View(ctx context.Context, fn func(tlog.Tx) error) error {
	return l.Store.View(ctx, func(t *store.Tx) error { return fn(t) })
}

func (l treeLedger) Update(ctx context.Context, fn func(tlog.Tx) error) error {
	_, err := l.Store.Update(ctx, func(t *store.Tx) error { return fn(t) })
	return err
}

// origin names the log.
func (c config) origin() string {
	if c.Audit.Origin != "" {
		return c.Audit.Origin
	}
	return c.TrustDomain + "/portcullis"
}

// signTime is how long Vault may take to sign a checkpoint.
const signTime = 5 * time.Second

// logSigner gives what signs the log's checkpoints.
func logSigner(ctx context.Context, cfg config, hc *hcvault.Server) (*tlog.Signer, error) {
	if cfg.Audit.Signer == signerFile {
		return tlog.LoadKeyFile(cfg.Audit.Key, cfg.origin())
	}
	role, err := hcvault.LoadAppRole(cfg.Vault.Credentials, "log")
	if err != nil {
		return nil, err
	}
	key := hc.LogKey(role)
	public, err := key.Public(ctx)
	if err != nil {
		return nil, err
	}
	return tlog.NewSigner(cfg.origin(), public, func(message []byte) ([]byte, error) {
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), signTime)
		defer cancel()
		return key.Sign(within, message)
	})
}

// leading makes the log's tree grow.
type leading struct {
	cfg    config
	hc     *hcvault.Server
	store  *store.Store
	log    *slog.Logger
	leader atomic.Pointer[tlog.Leader] // nil until the signer is there
}

// newLeading makes a leader. A key in a file must be there; one at Vault may still be away.
func newLeading(ctx context.Context, cfg config, hc *hcvault.Server, st *store.Store, log *slog.Logger) (*leading, error) {
	l := &leading{cfg: cfg, hc: hc, store: st, log: log}
	if err := l.find(ctx); err != nil && (cfg.Audit.Signer == signerFile || errors.Is(err, fs.ErrNotExist)) {
		return nil, err
	} else if err != nil {
		log.Warn("the log's key at Vault can not be reached yet", "error", err)
	}
	return l, nil
}

// find gets the signer.
func (l *leading) find(ctx context.Context) error {
	signer, err := logSigner(ctx, l.cfg, l.hc)
	if err != nil {
		return err
	}
	l.leader.Store(&tlog.Leader{
		Ledger: treeLedger{l.store}, Signer: signer, Log: l.log, Clock: time.Now,
		Ship: l.cfg.Audit.Ship, ShipEvery: l.cfg.Audit.ShipEvery,
	})
	return nil
}

// refused says why the leader signs no more, if the log is not what it was.
func (l *leading) refused() error {
	if leader := l.leader.Load(); leader != nil {
		return leader.Refused()
	}
	return nil
}

// catchUp has the tree grow by what a daemon before left, so that the first look at the log does
// not find it behind. Run tells of what fails.
func (l *leading) catchUp(ctx context.Context, most time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	leader := l.leader.Load()
	for more := leader != nil; more; {
		var err error
		if more, err = leader.Step(ctx); err != nil {
			return
		}
	}
}

// Run makes the tree grow until ctx ends.
func (l *leading) Run(ctx context.Context) {
	for l.leader.Load() == nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
		if err := l.find(ctx); err != nil && ctx.Err() == nil {
			l.log.Debug("the log's key at Vault can not be reached yet", "error", err)
		}
	}
	l.leader.Load().Run(ctx, l.cfg.Audit.SignEvery)
}

// Close ships the newest checkpoint. Run must have returned.
func (l *leading) Close() error {
	if l == nil || l.leader.Load() == nil {
		return nil
	}
	return l.leader.Load().Close()
}

// verifyTree checks the log's tree against the events, and the checkpoints that were shipped.
func verifyTree(ctx context.Context, cfg config, hc *hcvault.Server, st *store.Store) (tlog.Verified, error) {
	signer, err := logSigner(ctx, cfg, hc)
	if err != nil {
		return tlog.Verified{}, err
	}
	var kept []tlog.Kept
	if cfg.Audit.Ship != "" {
		kept, err = tlog.LoadKept(cfg.Audit.Ship, signer.Verifier())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return tlog.Verified{}, err
		}
	}
	return tlog.Reader{Ledger: treeLedger{st}}.Verify(ctx, signer.Verifier(), kept, func(int64, int64) {})
}

func logKeyCommand(out io.Writer) *cobra.Command {
	var file string
	var create bool
	cmd := &cobra.Command{
		Use:   "log-key [--config FILE] [--create]",
		Short: "print the key by which everyone can check the audit log",
		Long: `Log-key prints the public key of the audit log, <origin>+<hash>+<key>. Give it to everyone
who keeps checkpoints or verifies exports: it stands in portcullis.yaml as log_key. It must
reach them in another way than from the service, which would choose a key of its own.

The signing key is in the file audit.key, or at Vault (audit.signer: vault). With --create the
file is made first, if it is not there. Back it up like the certificates: with another key
it is another log.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(file, os.Environ(), cmd.Flags())
			if err != nil {
				return err
			}
			if create && cfg.Audit.Signer == signerFile {
				if err := tlog.MakeKeyFile(cfg.Audit.Key); err != nil && !errors.Is(err, fs.ErrExist) {
					return err
				}
			}
			hc, err := hcvault.Dial(hcvault.Config{Addr: cfg.Vault.Address, CAFile: cfg.Vault.CA, Mount: cfg.Vault.Mount})
			if err != nil {
				return err
			}
			defer hc.Close()
			signer, err := logSigner(cmd.Context(), cfg, hc)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(out, signer.Key())
			return err
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "YAML file")
	cmd.Flags().BoolVar(&create, "create", false, "make the signing key's file if it is not there")
	configFlags(cmd.Flags())
	return cmd
}
