package telemetry

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/capture"
	"github.com/portcullis/portcullis/vault/grants"
	"github.com/portcullis/portcullis/vault/release"
)

// ReleaseGate measures what passes a gate.
func (t *Telemetry) ReleaseGate(next release.Gate) release.Gate { return releaseGate{t, next} }

type releaseGate struct {
	t *Telemetry
	release.Gate
}

func (g releaseGate) Enter(rel vault.Release) (leave func(), err error) {
	left, err := g.Gate.Enter(rel)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	what := attribute.String("modality", string(rel.Record.Modality))
	g.t.releases.Add(ctx, 1, metric.WithAttributes(what, attribute.Bool("refetch", rel.Refetch)))
	g.t.released.Add(ctx, rel.Record.Size, metric.WithAttributes(what))
	g.t.sending.Add(ctx, 1)
	return func() {
		left()
		g.t.sending.Add(ctx, -1)
	}, nil
}

// Barrier is the closing side of a gate, as those operations need it that end access.
type Barrier interface {
	End(ctx context.Context, e vault.Ending) (vault.Barrier, error)
}

// Barriers measures how long endings take.
func (t *Telemetry) Barriers(next Barrier) Barrier { return barrier{t, next} }

type barrier struct {
	t    *Telemetry
	next Barrier
}

func (b barrier) End(ctx context.Context, e vault.Ending) (vault.Barrier, error) {
	ctx, span := b.t.tracer.Start(ctx, "barrier")
	start := time.Now()
	out, err := b.next.End(ctx, e)
	took := time.Since(start)
	result := attribute.String("outcome", outcome(err))
	b.t.barriers.Record(ctx, took.Seconds(), metric.WithAttributes(result))
	finish(span, result, err)
	return out, err
}

// CaptureLedger counts the images stored.
func (t *Telemetry) CaptureLedger(next capture.Ledger) capture.Ledger {
	return captureLedger{next, t}
}

type captureLedger struct {
	capture.Ledger
	t *Telemetry
}

func (l captureLedger) Update(ctx context.Context, fn func(capture.Tx) error) (int64, error) {
	var added []vault.Modality
	last, err := l.Ledger.Update(ctx, func(tx capture.Tx) error {
		added = nil // fn may run more than once
		return fn(adding{tx, &added})
	})
	if err == nil {
		for _, m := range added {
			l.t.stored.Add(ctx, 1, metric.WithAttributes(attribute.String("modality", string(m))))
		}
	}
	return last, err
}

type adding struct {
	capture.Tx
	added *[]vault.Modality
}

func (a adding) AddRecord(r vault.Record) error {
	err := a.Tx.AddRecord(r)
	if err == nil {
		*a.added = append(*a.added, r.Modality)
	}
	return err
}

// vaultCall measures one call of Vault. operation is one of a few names.
func (t *Telemetry) vaultCall(ctx context.Context, operation string, call func(context.Context) error) error {
	ctx, span := t.tracer.Start(ctx, "vault "+operation, trace.WithSpanKind(trace.SpanKindClient))
	start := time.Now()
	err := call(ctx)
	result := attribute.String("outcome", outcome(err))
	t.vaultCalls.Record(ctx, time.Since(start).Seconds(), metric.WithAttributes(attribute.String("operation", operation), result))
	finish(span, result, err)
	return err
}

func finish(span trace.Span, result attribute.KeyValue, err error) {
	span.SetAttributes(result)
	if err != nil {
		span.SetStatus(codes.Error, "")
	}
	span.End()
}

// CaptureKeys measures the wrapping of data keys.
func (t *Telemetry) CaptureKeys(next capture.Keys) capture.Keys { return captureKeys{t, next} }

type captureKeys struct {
	t *Telemetry
	capture.Keys
}

func (k captureKeys) Wrap(ctx context.Context, keyName string, dek []byte) (wrapped string, err error) {
	err = k.t.vaultCall(ctx, "wrap", func(ctx context.Context) (err error) {
		wrapped, err = k.Keys.Wrap(ctx, keyName, dek)
		return err
	})
	return wrapped, err
}

// ReleaseKeys measures the opening of data keys.
func (t *Telemetry) ReleaseKeys(next release.Keys) release.Keys { return releaseKeys{t, next} }

type releaseKeys struct {
	t *Telemetry
	release.Keys
}

func (k releaseKeys) Unwrap(ctx context.Context, token vault.Token, keyName, wrapped string) (dek []byte, err error) {
	err = k.t.vaultCall(ctx, "unwrap", func(ctx context.Context) (err error) {
		dek, err = k.Keys.Unwrap(ctx, token, keyName, wrapped)
		return err
	})
	return dek, err
}

// Fences measures the writing and deleting of fences.
func (t *Telemetry) Fences(next grants.Fences) grants.Fences { return fences{t, next} }

type fences struct {
	t *Telemetry
	grants.Fences
}

func (f fences) WriteFence(ctx context.Context, grant vault.ID, fence vault.Fence) error {
	return f.t.vaultCall(ctx, "write_fence", func(ctx context.Context) error { return f.Fences.WriteFence(ctx, grant, fence) })
}

func (f fences) DeleteFence(ctx context.Context, grant vault.ID) error {
	return f.t.vaultCall(ctx, "delete_fence", func(ctx context.Context) error { return f.Fences.DeleteFence(ctx, grant) })
}

// Tokens measures the minting and ending of grant tokens.
func (t *Telemetry) Tokens(next grants.Tokens) grants.Tokens { return tokens{t, next} }

type tokens struct {
	t *Telemetry
	grants.Tokens
}

func (k tokens) Mint(ctx context.Context, grant vault.ID, contractor string, epoch int, ttl time.Duration, uses int64) (token vault.Token, accessor string, err error) {
	err = k.t.vaultCall(ctx, "mint", func(ctx context.Context) (err error) {
		token, accessor, err = k.Tokens.Mint(ctx, grant, contractor, epoch, ttl, uses)
		return err
	})
	return token, accessor, err
}

func (k tokens) Uses(ctx context.Context, accessor string) (left int64, err error) {
	err = k.t.vaultCall(ctx, "token_uses", func(ctx context.Context) (err error) {
		left, err = k.Tokens.Uses(ctx, accessor)
		return err
	})
	return left, err
}

func (k tokens) RevokeToken(ctx context.Context, accessor string) error {
	return k.t.vaultCall(ctx, "revoke_token", func(ctx context.Context) error { return k.Tokens.RevokeToken(ctx, accessor) })
}

// BreachKeys measures the changes of keys and contractors.
func (t *Telemetry) BreachKeys(next breach.Keys) breach.Keys { return breachKeys{t, next} }

type breachKeys struct {
	t *Telemetry
	breach.Keys
}

func (k breachKeys) DisableContractor(ctx context.Context, contractor string, epoch int) error {
	return k.t.vaultCall(ctx, "disable_contractor", func(ctx context.Context) error {
		return k.Keys.DisableContractor(ctx, contractor, epoch)
	})
}

func (k breachKeys) RevokeKey(ctx context.Context, keyName string) error {
	return k.t.vaultCall(ctx, "revoke_key", func(ctx context.Context) error { return k.Keys.RevokeKey(ctx, keyName) })
}

func (k breachKeys) RestoreKey(ctx context.Context, keyName string) error {
	return k.t.vaultCall(ctx, "restore_key", func(ctx context.Context) error { return k.Keys.RestoreKey(ctx, keyName) })
}

func (k breachKeys) DestroyKey(ctx context.Context, keyName string) error {
	return k.t.vaultCall(ctx, "destroy_key", func(ctx context.Context) error { return k.Keys.DestroyKey(ctx, keyName) })
}
