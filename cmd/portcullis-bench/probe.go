package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/portcullis/portcullis/internal/blob"
	"github.com/portcullis/portcullis/internal/envelope"
	"github.com/portcullis/portcullis/internal/imaging"
	"github.com/portcullis/portcullis/internal/store"
	"github.com/portcullis/portcullis/vault"
)

// probe does the service's parts one by one, with the service's own code and on the same
// disk, while nothing else is at work: what they cost when nobody is in the way.
type probe struct {
	dir   string
	blobs *blob.Dir
	facts *store.Store
	byKey map[probeKey]*parts
}

type probeKey struct{ clients, size int }

// parts are the probe's samples. Those of one caller at a time are latencies; those of
// many at once are times for each operation.
type parts struct {
	sync, put, commit, seal, open []time.Duration
	putCrowd, commitCrowd         []time.Duration
}

// probes is how many samples of each part a round takes.
const probes = 12

func newProbe(ctx context.Context, dir string) (*probe, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	blobs, err := blob.OpenDir(filepath.Join(dir, "blobs"))
	if err != nil {
		return nil, err
	}
	facts, err := store.Open(ctx, filepath.Join(dir, "facts.db"), time.Now)
	if err != nil {
		return nil, err
	}
	return &probe{dir: dir, blobs: blobs, facts: facts, byKey: map[probeKey]*parts{}}, nil
}

func (p *probe) close() error { return p.facts.Close() }

// run takes samples for images of that size, alone and with so many callers at once.
func (p *probe) run(ctx context.Context, clients int, raw []byte, size int, at time.Time) error {
	k := probeKey{clients, size}
	if p.byKey[k] == nil {
		p.byKey[k] = &parts{}
	}
	got := p.byKey[k]
	for range probes {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := p.once(ctx, got, raw, at); err != nil {
			return err
		}
	}
	crowd := max(probes, 2*clients)
	for _, c := range []struct {
		into *[]time.Duration
		do   func() error
	}{
		{&got.putCrowd, func() error { return p.blobs.Put(ctx, vault.NewID(), raw) }},
		{&got.commitCrowd, func() error { return p.commit(ctx, probeRecord(at)) }},
	} {
		began := time.Now()
		group := &errgroup.Group{}
		group.SetLimit(clients)
		for range crowd {
			group.Go(c.do)
		}
		if err := group.Wait(); err != nil {
			return err
		}
		*c.into = append(*c.into, time.Since(began)/time.Duration(crowd))
	}
	return sleep(ctx, settle)
}

func (p *probe) once(ctx context.Context, into *parts, raw []byte, at time.Time) error {
	rec, dek := probeRecord(at), envelope.NewKey()
	var sealed []byte
	for _, part := range []struct {
		into *[]time.Duration
		do   func() error
	}{
		{&into.seal, func() error {
			clean, err := imaging.Clean(raw, imaging.Limits{})
			if err == nil {
				sealed, err = envelope.Seal(rec, dek, clean.Bytes)
			}
			return err
		}},
		{&into.sync, p.sync},
		{&into.put, func() error { return p.blobs.Put(ctx, rec.ID, sealed) }},
		{&into.commit, func() error { return p.commit(ctx, rec) }},
		{&into.open, func() error {
			sealed, err := p.blobs.Get(ctx, rec.ID)
			if err == nil {
				_, err = envelope.Open(rec, dek, sealed)
			}
			return err
		}},
	} {
		began := time.Now()
		if err := part.do(); err != nil {
			return err
		}
		*part.into = append(*part.into, time.Since(began))
	}
	return nil
}

// sync makes one small file durable.
func (p *probe) sync() (err error) {
	f, err := os.OpenFile(filepath.Join(p.dir, "sync"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close() // what matters is synced
	if _, err := f.Write(make([]byte, 4096)); err != nil {
		return err
	}
	return f.Sync()
}

// commit writes a record and its event in one transaction, as a store does.
func (p *probe) commit(ctx context.Context, rec vault.Record) error {
	_, err := p.facts.Update(ctx, func(t *store.Tx) error {
		rec.StoredAt = t.Now()
		if err := t.AddRecord(rec); err != nil {
			return err
		}
		e := vault.NewEvent(vault.EventRecordStored, vault.Caller{ID: rec.Device}, t.Now())
		e.Stored = rec.Facts()
		return t.Append(e)
	})
	return err
}

func probeRecord(at time.Time) vault.Record {
	return vault.Record{
		ID: vault.NewID(), Site: site, Lane: lane, Modality: vault.Plate, Class: vault.DefaultClass, CapturedAt: at, ContentType: "image/jpeg",
		Orientation: 1, Device: "probe", RequestID: vault.NewID(), Key: vault.KeyActive,
	}
}

// of gives the samples for images of a size, with so many clients.
func (p *probe) of(clients, size int) *parts { return p.byKey[probeKey{clients, size}] }

// syncs gives the middle of all samples of one small file made durable.
func (p *probe) syncs() time.Duration {
	var all []time.Duration
	for _, parts := range p.byKey {
		all = slices.Concat(all, parts.sync)
	}
	return median(all)
}
