package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/portcullis/portcullis/internal/blob"
	"github.com/portcullis/portcullis/internal/hcvault"
	"github.com/portcullis/portcullis/internal/identity"
	"github.com/portcullis/portcullis/internal/logmark"
	"github.com/portcullis/portcullis/internal/store"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/grants"
)

const (
	// markFile is the file, in the directory of ciphertext, that remembers how far the log had come.
	markFile = "log-remembered"
)

type stockLedger struct{ *store.Store }

func (l stockLedger) Update(ctx context.Context, fn func(breach.StockTx) error) (int64, error) {
	return l.Store.Update(ctx, func(t *store.Tx) error { return fn(t) })
}

func (l stockLedger) View(ctx context.Context, fn func(breach.StockTx) error) error {
	return l.Store.View(ctx, func(t *store.Tx) error { return fn(t) })
}

// reconciler wires one beside a service.
func reconciler(s *breach.Service, fences *grants.Service, st *store.Store, admin *hcvault.Admin, blobs *blob.Dir, cfg config) *breach.Reconciler {
	return &breach.Reconciler{
		Service: s, Ledger: stockLedger{st}, Keys: admin, Vault: admin, Fences: fences, Blobs: blobs,
		Mark:  logmark.File{Path: filepath.Join(cfg.Blobs.Path, markFile)},
		Grace: cfg.Reconcile.Grace, Keep: cfg.Reconcile.Keep,
	}
}

// reconciling is when a daemon reconciles.
type reconciling struct {
	*breach.Reconciler
	log   *slog.Logger
	every time.Duration
	last  time.Time // of the last one that succeeded
}

// Run reconciles at start, or once Vault is there, and then regularly: it tries every so often
// whether it is time. It returns when ctx ends.
func (r *reconciling) Run(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := r.step(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn("records, ciphertext and keys are still to be reconciled; trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (r *reconciling) step(ctx context.Context) error {
	if !r.last.IsZero() && time.Since(r.last) < r.every {
		return nil
	}
	done, err := r.Reconcile(ctx)
	if vault.ReasonOf(err) == vault.ReasonReconciling {
		return nil // an admin asked for one
	}
	if err != nil {
		return err
	}
	r.last = time.Now()
	for _, what := range done.Skipped {
		r.log.Error("left out while Vault and the database were checked for a restore: run portcullisd fsck", "what", what)
	}
	r.log.Info("reconciled", "records", done.Records, "young", done.Young, "quarantined", done.Quarantined, "waiting", done.Waiting,
		"returned", done.Returned, "destroyed", done.Destroyed, "undone", done.Undone, "foreign_keys", done.Foreign)
	return nil
}

// fsckOptions are what fsck is told beside the configuration.
type fsckOptions struct {
	repair      bool
	grace, keep time.Duration
	output      string
}

// errDamaged makes fsck exit with 1 when it found damage.
var errDamaged = errors.New("something is damaged")

func fsckCommand(out io.Writer) *cobra.Command {
	var file string
	var o fsckOptions
	cmd := &cobra.Command{
		Use:   "fsck [--config FILE] [--repair] [flags]",
		Short: "hold records, ciphertext, Vault's keys and the log against each other",
		Long: `Fsck reads everything and says what does not fit: ciphertext that is missing or changed,
keys that Vault lacks or that open although they are revoked, records without their event
and events without their record. It opens no image. It exits with 1 when something is
damaged. Ciphertext and keys that no record names are no damage: a crash leaves them.
It also checks the log's tree against the events, and against the checkpoints in audit.ship.

With --repair it does what is safe: it puts orphans older than --grace aside, reversibly,
destroys those that were aside for --keep, takes back what a record names again, and has
keys that a restore brought back revoked or destroyed again. It refuses when the log is
shorter than it was. What was damaged otherwise must come from a backup.

It may run beside the daemon, on a node that has the admin credential.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(file, os.Environ(), cmd.Flags())
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("grace") {
				o.grace = cfg.Reconcile.Grace
			}
			if !cmd.Flags().Changed("keep") {
				o.keep = cfg.Reconcile.Keep
			}
			if err := o.check(); err != nil {
				return err
			}
			return fsck(cmd.Context(), cfg, o, out)
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "config", "", "YAML file")
	f.BoolVar(&o.repair, "repair", false, "do what is safe, then check")
	f.DurationVar(&o.grace, "grace", breach.DefaultGrace, "how old an orphan must be to be put aside, instead of reconcile.grace; 10m at least")
	f.DurationVar(&o.keep, "keep", breach.DefaultKeep, "how long orphans stay aside before they are destroyed, instead of reconcile.keep; 24h at least")
	f.StringVar(&o.output, "output", "table", "table or json")
	configFlags(f)
	return cmd
}

// check holds the times to the least that a configuration may name: fsck runs beside a daemon, and
// an image that is being stored has no record yet.
func (o fsckOptions) check() error {
	if o.grace < leastGrace || o.keep < leastKeep {
		return fmt.Errorf("--grace must be %s at least, and --keep %s: what is younger may be an image that is being stored", leastGrace, leastKeep)
	}
	return nil
}

func fsck(ctx context.Context, cfg config, o fsckOptions, out io.Writer) (err error) {
	if o.output != "table" && o.output != "json" {
		return misconfigured{fmt.Errorf("--output %q is none of table and json", o.output)}
	}
	if o.grace < 0 || o.keep < 0 {
		return misconfigured{errors.New("--grace and --keep must not be negative")}
	}
	if _, err := os.Stat(cfg.Store.Path); err != nil {
		return fmt.Errorf("database: %w", err) // opening would make an empty one
	}
	files, err := identity.LoadFiles(cfg.TLS.Certificate, cfg.TLS.Key, cfg.TLS.Bundle)
	if err != nil {
		return err
	}
	role, err := hcvault.LoadAppRole(cfg.Vault.Credentials, "admin")
	if err != nil {
		return err
	}
	hc, err := hcvault.Dial(hcvault.Config{Addr: cfg.Vault.Address, CAFile: cfg.Vault.CA, Mount: cfg.Vault.Mount})
	if err != nil {
		return err
	}
	defer hc.Close()
	blobs, err := blob.OpenInUse(cfg.Blobs.Path)
	if err != nil {
		return err
	}
	st, err := store.Open(ctx, cfg.Store.Path, time.Now)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	admin := hc.Admin(role)
	log := slog.New(slog.DiscardHandler)
	authority := func() vault.Authority { return vault.Authority{TrustDomain: cfg.TrustDomain, Roots: files.Roots()} }
	fences := &grants.Service{Ledger: grantsLedger{st}, Fences: admin, Authority: authority, Log: log}
	r := reconciler(&breach.Service{
		Ledger: breachLedger{st}, Keys: admin, Blobs: blobs, Disarm: fences, Log: log, Attest: attester{files}, Authority: authority,
	}, fences, st, admin, blobs, cfg)
	r.Grace, r.Keep = o.grace, o.keep
	var done *breach.Reconciled
	var repair error
	if o.repair {
		d, err := r.Reconcile(ctx)
		done, repair = &d, err
	}
	rep, err := r.Check(ctx)
	if err != nil {
		return errors.Join(repair, err)
	}
	tree, err := verifyTree(ctx, cfg, hc, st)
	if err != nil {
		return errors.Join(repair, err)
	}
	if err := printFsck(out, o.output, done, rep, tree); err != nil {
		return errors.Join(repair, err)
	}
	if repair != nil {
		return fmt.Errorf("repair: %w", repair)
	}
	if !rep.Sound() || len(tree.Findings) > 0 {
		return errDamaged
	}
	return nil
}
