package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/portcullis/portcullis/internal/store"
	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

const (
	// lookEvery is how often the daemon looks whether what it stands on still does.
	lookEvery = time.Second
	// storeTime is how long the database may take to answer one small question.
	storeTime = 2 * time.Second
)

// needsVault names the services that are of no use while Vault is sealed or away: they wrap
// data keys, mint tokens and unwrap. What admins do to tighten, and the audit log, go on.
var needsVault = map[string]bool{
	pb.CaptureService_ServiceDesc.ServiceName: true,
	pb.GrantService_ServiceDesc.ServiceName:   true,
	pb.ReleaseService_ServiceDesc.ServiceName: true,
}

// watchHealth tells the health service, until ctx ends, which of the daemon's services can do
// their work; the empty name stands for all of them together. Draining comes from Close,
// after which the health service takes nothing more.
func (d *daemon) watchHealth(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	vaultWas, storeWas, logWas := true, true, true
	for {
		vaultErr, storeErr, logErr := d.look(ctx)
		if ctx.Err() != nil {
			return
		}
		vaultWas = d.changed("vault", vaultWas, vaultErr)
		storeWas = d.changed("database", storeWas, storeErr)
		logWas = d.changed("log", logWas, logErr)
		d.setHealth(ctx, vaultErr == nil, storeErr == nil, logErr == nil)
		d.parts.looked(vaultErr, storeErr, logErr, d.checked(ctx), time.Now())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look asks Vault and the database, side by side: one that hangs must not hide the other. The
// log is away when its tree is too far behind, or can not be asked.
func (d *daemon) look(ctx context.Context) (vaultErr, storeErr, logErr error) {
	answered := make(chan error)
	go func() { answered <- d.hc.Health(ctx) }()
	within, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	storeErr = d.store.Glance(within, func(tx *store.Tx) error {
		lag, _, err := tx.LogLag()
		if vault.KindOf(err) == vault.DataLoss {
			logErr, err = err, nil
		}
		if d.measuring.Lag(lag); lag > d.maxLag {
			logErr = fmt.Errorf("the tree is %s behind", lag.Round(time.Second))
		}
		return err
	})
	return <-answered, storeErr, errors.Join(storeErr, logErr)
}

// changed logs that a part went away or came back, and says whether it is there.
func (d *daemon) changed(part string, was bool, err error) bool {
	switch {
	case was && err != nil:
		d.log.Error("a part does not answer; services that need it are not serving", "part", part, "error", err)
	case !was && err == nil:
		d.log.Info("a part answers again", "part", part)
	}
	return err == nil
}

// setHealth says of each service that this process offers whether it can do its work. Release
// can not while this node holds no lease, while nobody has made sure that nothing was restored,
// and while the log does not keep up.
func (d *daemon) setHealth(ctx context.Context, vaultUp, storeUp, logUp bool) {
	all := true
	for name := range d.grpc.GetServiceInfo() {
		if name == healthpb.Health_ServiceDesc.ServiceName {
			continue
		}
		up := storeUp && (vaultUp || !needsVault[name])
		if name == pb.ReleaseService_ServiceDesc.ServiceName {
			up = up && logUp && d.node.Leased() && d.checked(ctx) == nil
		}
		all = all && up
		d.health.SetServingStatus(name, serving(up))
	}
	d.health.SetServingStatus("", serving(all))
}

func serving(up bool) healthpb.HealthCheckResponse_ServingStatus {
	if up {
		return healthpb.HealthCheckResponse_SERVING
	}
	return healthpb.HealthCheckResponse_NOT_SERVING
}
