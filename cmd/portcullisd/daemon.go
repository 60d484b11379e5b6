package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/portcullis/portcullis/internal/blob"
	"github.com/portcullis/portcullis/internal/gate"
	"github.com/portcullis/portcullis/internal/hcvault"
	"github.com/portcullis/portcullis/internal/identity"
	"github.com/portcullis/portcullis/internal/server"
	"github.com/portcullis/portcullis/internal/store"
	"github.com/portcullis/portcullis/internal/tlog"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/capture"
	"github.com/portcullis/portcullis/vault/grants"
	"github.com/portcullis/portcullis/vault/release"
)

const (
	// sweepEvery is how often Vault is given what it is still owed: fences of ended grants
	// go at the latest this long after they ended, while their tokens end at once.
	sweepEvery = 15 * time.Second
	// maxEnded is how many grants that ended by themselves wait for Vault to follow at once. The
	// sweep finds those beyond.
	maxEnded = 100
	// drainFor is how long calls under way may take once the daemon is to stop.
	drainFor = 10 * time.Second
)

// daemon is a running service.
type daemon struct {
	log    *slog.Logger
	lis    net.Listener
	grpc   *grpc.Server
	health *server.Health
	store  *store.Store
	hc     *hcvault.Server
	node   *gate.Node      // whatever the roles: connections of every process are cut
	grants *grants.Service // nil without the grants and admin roles
	breach *breach.Service // nil without the admin role
	stock  *reconciling    // nil without the admin role
	tree   *leading        // nil without the admin role
	ended  chan vault.ID   // grants that ended by themselves, for Vault to follow

	maxLag time.Duration // of the log's tree

	measuring *measuring
	parts     parts
	checks    checks
	looked    atomic.Bool // for a restore, since this process started, with success

	stop    context.CancelFunc // ends what runs in the background
	running sync.WaitGroup
	served  chan error // what Serve returned
	foreign chan error // Vault belongs to another database
	once    sync.Once
	closed  error
}

// start wires a service and serves. When it returns without error, calls are taken.
func start(ctx context.Context, cfg config, log *slog.Logger) (*daemon, error) {
	if err := noCoreDumps(); err != nil {
		return nil, err
	}
	if err := cfg.inspect(); err != nil {
		return nil, err
	}
	files, err := identity.LoadFiles(cfg.TLS.Certificate, cfg.TLS.Key, cfg.TLS.Bundle)
	if err != nil {
		return nil, err
	}
	hc, err := hcvault.Dial(hcvault.Config{Addr: cfg.Vault.Address, CAFile: cfg.Vault.CA, Mount: cfg.Vault.Mount})
	if err != nil {
		return nil, err
	}
	open := blob.OpenInUse // of a directory that the process with the capture role has made
	if slices.Contains(cfg.roles(), roleCapture) {
		open = blob.OpenDir
	}
	blobs, err := open(cfg.Blobs.Path)
	if err != nil {
		return nil, err
	}
	st, err := store.Open(ctx, cfg.Store.Path, cfg.seams.facts())
	if err != nil {
		return nil, err
	}
	lis, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen: %w", err), st.Close())
	}

	creds := identity.NewServer(files, cfg.TrustDomain, identity.Options{Refused: func(addr string, err error) {
		level := slog.LevelWarn
		if errors.Is(err, identity.ErrSilent) {
			level = slog.LevelDebug // a probe of the port, which monitoring sends all day
		}
		log.Log(context.Background(), level, "connection not admitted", "address", addr, "error", err)
	}})
	d := &daemon{log: log, lis: lis, store: st, hc: hc, maxLag: cfg.Audit.MaxLag, served: make(chan error, 1), foreign: make(chan error, 1), ended: make(chan vault.ID, maxEnded)}
	api := server.Config{
		Facts: st, Tree: tlog.Reader{Ledger: treeLedger{st}}, Credentials: creds, Caller: identity.CallerFrom, Log: log, Clock: cfg.seams.facts(),
		Version: version(), Parts: d.partsNow, Checked: d.checked, MaxImage: cfg.Images.MaxBytes, ReceiveTime: cfg.receiveTime,
	}
	if err := d.offer(ctx, cfg, &api, files, creds, blobs); err != nil {
		return nil, errors.Join(err, lis.Close(), st.Close())
	}
	if d.stock != nil {
		// What the process before found does not hold: anything may have been restored since.
		if err := d.stock.Withdraw(ctx); err != nil {
			return nil, errors.Join(err, lis.Close(), st.Close())
		}
	}
	if d.measuring, err = measure(ctx, cfg, log, &api, st); err != nil {
		return nil, errors.Join(err, lis.Close(), st.Close())
	}
	d.grpc, d.health = server.New(api)
	d.setHealth(ctx, false, false, false) // until it has looked
	limited := server.Limit(lis, server.MaxConnections, server.MaxConnectionsEach, log)
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	d.stop = stop
	if d.tree != nil {
		d.tree.catchUp(ctx, firstLook) // so that the first look knows whether the log is what it was
	}
	if d.stock != nil {
		looked := make(chan struct{})
		d.running.Go(func() { d.watchRestores(background, cfg.markEvery, looked) })
		select {
		case <-looked:
		case <-time.After(firstLook):
		case <-ctx.Done():
		}
		select {
		case err := <-d.foreign:
			stop()
			d.running.Wait()
			hc.Close()
			return nil, errors.Join(err, lis.Close(), d.measuring.Close(), st.Close())
		default: // or Wait tells of it
		}
	}
	if d.tree != nil {
		d.running.Go(func() { d.tree.Run(background) })
	}
	d.running.Go(func() { d.watchHealth(background) })
	d.running.Go(func() { d.sweep(background, cfg.sweepEvery) })
	if d.grants != nil {
		d.running.Go(func() { d.disarm(background) })
	}
	if d.stock != nil {
		d.running.Go(func() { d.stock.Run(background, cfg.sweepEvery) })
	}
	d.running.Go(func() { d.node.Run(background) })
	d.running.Go(func() { d.served <- d.grpc.Serve(limited) })
	return d, nil
}

// offer makes the operations of the daemon's roles, each with no more than its credential.
func (d *daemon) offer(ctx context.Context, cfg config, api *server.Config, files *identity.Files, creds *identity.Server, blobs *blob.Dir) (err error) {
	authority := func() vault.Authority {
		return vault.Authority{TrustDomain: cfg.TrustDomain, Roots: files.Roots()}
	}
	has := func(role string) bool { return slices.Contains(cfg.roles(), role) }
	credential := func(role string) (a hcvault.AppRole) {
		if err == nil {
			a, err = hcvault.LoadAppRole(cfg.Vault.Credentials, role)
		}
		return a
	}
	g := gate.New(creds.Reset, time.Now)
	if d.node, err = gate.Join(ctx, g, d.store, time.Now, d.log); err != nil {
		return err
	}
	barrier := gate.NewNodes(d.store, d.node, time.Now)
	if has(roleRelease) {
		api.Release = &release.Service{
			Ledger: releaseLedger{d.store}, Keys: d.hc.Release(), Blobs: blobs, Gate: g, Barrier: barrier, Authority: authority,
			Ended: d.follow, MaxLag: cfg.Audit.MaxLag,
		}
	}
	if has(roleCapture) {
		api.Capture = &capture.Service{
			Ledger: captureLedger{d.store}, Keys: d.hc.Capture(credential(roleCapture)), Blobs: blobs,
			Limits: cfg.limits(), Window: capture.DefaultWindow,
		}
	}
	if has(roleGrants) || has(roleAdmin) {
		d.grants = &grants.Service{
			Ledger: grantsLedger{d.store}, Gate: barrier, Authority: authority, Log: d.log, ConflictMemory: cfg.Policy.ConflictMemory,
		}
		api.Grants = d.grants
	}
	if has(roleGrants) {
		d.grants.Tokens = d.hc.Grants(credential(roleGrants))
	}
	if has(roleAdmin) {
		admin := d.hc.Admin(credential(roleAdmin))
		d.grants.Fences = admin
		d.breach = &breach.Service{
			Ledger: breachLedger{d.store}, Keys: admin, Blobs: blobs,
			Gate: barrier, Disarm: d.grants, Authority: authority, Attest: attester{files}, Checked: d.checked, Log: d.log,
		}
		d.stock = &reconciling{
			Reconciler: reconciler(d.breach, d.grants, d.store, admin, blobs, cfg),
			every:      cfg.Reconcile.Every, log: d.log,
		}
		api.Breach, api.Stock = d.breach, d.stock.Reconciler
		if err == nil {
			if d.tree, err = newLeading(ctx, cfg, d.hc, d.store, d.log); err == nil {
				d.stock.Tree = d.tree.refused
			}
		}
	}
	return err
}

// Addr is where the daemon listens.
func (d *daemon) Addr() string { return d.lis.Addr().String() }

// Wait serves until ctx ends, then closes. It returns early when serving fails.
func (d *daemon) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return d.Close()
	case err := <-d.served:
		return errors.Join(err, d.Close())
	case err := <-d.foreign:
		return errors.Join(err, d.Close())
	}
}

// Close lets calls under way finish, for a while, and stops. What was acknowledged is
// durable already.
func (d *daemon) Close() error {
	d.once.Do(func() {
		d.health.Shutdown()
		drained := make(chan struct{})
		d.running.Go(func() {
			d.grpc.GracefulStop()
			close(drained)
		})
		select {
		case <-drained:
		case <-time.After(drainFor):
			d.grpc.Stop()
		}
		d.stop()
		d.running.Wait()
		var withdrawn error
		if d.stock != nil {
			// Nobody looks any more: what comes to stand here now is not what was looked at.
			ctx, cancel := context.WithTimeout(context.Background(), storeTime)
			withdrawn = d.stock.Withdraw(ctx)
			cancel()
		}
		d.hc.Close()
		d.closed = errors.Join(withdrawn, d.measuring.Close(), d.tree.Close(), d.store.Close())
	})
	return d.closed
}

// sweep gives Vault what it is owed, at once and then regularly.
func (d *daemon) sweep(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		var err error
		if d.breach != nil {
			err = d.breach.Sweep(ctx)
		}
		if d.grants != nil {
			err = errors.Join(err, d.grants.Sweep(ctx))
		}
		if d.breach != nil {
			err = errors.Join(err, d.owed(ctx))
		}
		if err != nil && ctx.Err() == nil {
			d.log.Warn("vault is still owed something; trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// follow has Vault follow a grant that ended by itself as soon as this process can. Elsewhere, and
// when too many wait already, the sweep does.
func (d *daemon) follow(grant vault.ID) {
	select {
	case d.ended <- grant:
	default:
	}
}

// disarm has Vault follow what ended by itself, until ctx ends.
func (d *daemon) disarm(ctx context.Context) {
	for {
		select {
		case grant := <-d.ended:
			if err := d.grants.Disarm(ctx, grant); err != nil && ctx.Err() == nil {
				d.log.Warn("vault has still to follow the end of a grant", "grant", grant, "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// attester signs with the key of the daemon's certificate.
type attester struct{ files *identity.Files }

func (a attester) Attest(text string) (string, error) {
	pair := a.files.Certificate()
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return "", errors.New("attest: the key of the service's certificate can not sign")
	}
	return vault.Attest(text, key, pair.Certificate)
}

// The operations see of a transaction what they need, and no more.
type (
	captureLedger struct{ *store.Store }
	grantsLedger  struct{ *store.Store }
	releaseLedger struct{ *store.Store }
	breachLedger  struct{ *store.Store }
)

func (l captureLedger) Update(ctx context.Context, fn func(capture.Tx) error) (int64, error) {
	return l.Store.Update(ctx, func(t *store.Tx) error { return fn(t) })
}

func (l captureLedger) View(ctx context.Context, fn func(capture.Tx) error) error {
	return l.Store.View(ctx, func(t *store.Tx) error { return fn(t) })
}

func (l grantsLedger) Update(ctx context.Context, fn func(grants.Tx) error) (int64, error) {
	return l.Store.Update(ctx, func(t *store.Tx) error { return fn(t) })
}

func (l grantsLedger) View(ctx context.Context, fn func(grants.Tx) error) error {
	return l.Store.View(ctx, func(t *store.Tx) error { return fn(t) })
}

func (l releaseLedger) Update(ctx context.Context, fn func(release.Tx) error) (int64, error) {
	return l.Store.Update(ctx, func(t *store.Tx) error { return fn(t) })
}

func (l releaseLedger) View(ctx context.Context, fn func(release.Tx) error) error {
	return l.Store.View(ctx, func(t *store.Tx) error { return fn(t) })
}

func (l releaseLedger) Scan(ctx context.Context, fn func(release.Tx) error) error {
	return l.Store.Scan(ctx, func(t *store.Tx) error { return fn(t) })
}

func (l grantsLedger) Scan(ctx context.Context, fn func(grants.Tx) error) error {
	return l.Store.Scan(ctx, func(t *store.Tx) error { return fn(t) })
}

func (l breachLedger) Update(ctx context.Context, fn func(breach.Tx) error) (int64, error) {
	return l.Store.Update(ctx, func(t *store.Tx) error { return fn(t) })
}

func (l breachLedger) View(ctx context.Context, fn func(breach.Tx) error) error {
	return l.Store.View(ctx, func(t *store.Tx) error { return fn(t) })
}
