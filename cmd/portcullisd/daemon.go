package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/portcullis/portcullis/internal/blob"
	"github.com/portcullis/portcullis/internal/gate"
	"github.com/portcullis/portcullis/internal/hcvault"
	"github.com/portcullis/portcullis/internal/identity"
	"github.com/portcullis/portcullis/internal/server"
	"github.com/portcullis/portcullis/internal/store"
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
	// drainFor is how long calls under way may take once the daemon is to stop.
	drainFor = 10 * time.Second
)

// daemon is a running service.
type daemon struct {
	log    *slog.Logger
	lis    net.Listener
	grpc   *grpc.Server
	health *health.Server
	store  *store.Store
	hc     *hcvault.Server
	grants *grants.Service
	breach *breach.Service

	stop    context.CancelFunc // ends the sweeper
	running sync.WaitGroup
	served  chan error // what Serve returned
	once    sync.Once
	closed  error
}

// start wires a service and serves. When it returns without error, calls are taken.
func start(ctx context.Context, cfg config, log *slog.Logger) (*daemon, error) {
	if err := noCoreDumps(); err != nil {
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
	var roles [3]hcvault.AppRole
	for i, name := range []string{"capture", "grants", "admin"} {
		if roles[i], err = hcvault.LoadAppRole(cfg.Vault.Credentials, name); err != nil {
			return nil, err
		}
	}
	blobs, err := blob.OpenDir(cfg.Blobs.Path)
	if err != nil {
		return nil, err
	}
	st, err := store.Open(ctx, cfg.Store.Path, time.Now)
	if err != nil {
		return nil, err
	}
	lis, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen: %w", err), st.Close())
	}

	creds := identity.NewServer(files, cfg.TrustDomain, identity.Options{Refused: func(addr string, err error) {
		log.Warn("connection refused", "address", addr, "error", err)
	}})
	authority := func() vault.Authority {
		return vault.Authority{TrustDomain: cfg.TrustDomain, Roots: files.Roots()}
	}
	barrier := gate.New(creds.Reset, time.Now)
	admin := hc.Admin(roles[2])
	d := &daemon{
		log: log, lis: lis, store: st, hc: hc, served: make(chan error, 1),
		grants: &grants.Service{
			Ledger: grantsLedger{st}, Fences: admin, Tokens: hc.Grants(roles[1]),
			Gate: barrier, Authority: authority, Log: log,
		},
		breach: &breach.Service{
			Ledger: breachLedger{st}, Keys: admin, Blobs: blobs,
			Gate: barrier, Authority: authority, Attest: attester{files}, Log: log,
		},
	}
	d.grpc, d.health = server.New(server.Config{
		Capture: &capture.Service{
			Ledger: captureLedger{st}, Keys: hc.Capture(roles[0]), Blobs: blobs,
			Limits: cfg.limits(), Window: capture.DefaultWindow,
		},
		Grants: d.grants,
		Release: &release.Service{
			Ledger: releaseLedger{st}, Keys: hc.Release(), Blobs: blobs, Gate: barrier, Authority: authority,
		},
		Breach: d.breach, Facts: st,
		Credentials: creds, Caller: identity.CallerFrom, Log: log, Clock: time.Now, Version: version(), MaxImage: cfg.Images.MaxBytes,
	})
	sweeping, stop := context.WithCancel(context.WithoutCancel(ctx))
	d.stop = stop
	d.running.Go(func() { d.sweep(sweeping, cfg.sweepEvery) })
	d.running.Go(func() { d.served <- d.grpc.Serve(lis) })
	return d, nil
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
		d.hc.Close()
		d.closed = d.store.Close()
	})
	return d.closed
}

// sweep gives Vault what it is owed, at once and then regularly.
func (d *daemon) sweep(ctx context.Context, every time.Duration) {
	d.health.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := errors.Join(d.breach.Sweep(ctx), d.grants.Sweep(ctx)); err != nil && ctx.Err() == nil {
			d.log.Warn("vault is still owed something; trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
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

func (l breachLedger) Update(ctx context.Context, fn func(breach.Tx) error) (int64, error) {
	return l.Store.Update(ctx, func(t *store.Tx) error { return fn(t) })
}

func (l breachLedger) View(ctx context.Context, fn func(breach.Tx) error) error {
	return l.Store.View(ctx, func(t *store.Tx) error { return fn(t) })
}
