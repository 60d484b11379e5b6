package client

import (
	"context"
	"fmt"

	"golang.org/x/mod/sumdb/note"

	"github.com/portcullis/portcullis/internal/tlog"
	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

// ErrLogRewritten is in the chain of errors that say that the service's audit log is not the
// one that was seen before: it was rewritten, or rolled back. The two signed checkpoints that
// prove it are kept; keep them, and tell the agency's auditors.
var ErrLogRewritten = tlog.ErrRewritten

// Checkpoint says what the audit log was at one time.
type Checkpoint struct {
	Origin string // names the log
	Size   int64  // events
	Root   [32]byte
	Signed []byte // as the service signed it
}

// logWatch checks each checkpoint that comes against the log's key and against what was seen
// before. It is nil when the configuration names no key.
type logWatch struct {
	key    note.Verifier
	memory tlog.Memory
}

func (c Config) logWatch() (*logWatch, error) {
	if c.LogKey == "" {
		return nil, nil
	}
	key, err := tlog.ParseKey(c.LogKey)
	if err != nil {
		return nil, err
	}
	return &logWatch{key: key, memory: tlog.Memory{Path: c.LogMemory, Write: replaceFile}}, nil
}

// ErrNoLogKey says that [Config].LogKey is missing.
var ErrNoLogKey = vault.E(vault.Invalid, vault.ReasonInvalidField, "the configuration has no key of the audit log, so nothing of it can be checked")

// seen checks a checkpoint that came with an answer. Without a key of the log nothing is
// checked.
func (c *Client) seen(ctx context.Context, signed []byte) error {
	if c.log == nil || len(signed) == 0 {
		return nil
	}
	_, err := c.check(ctx, signed)
	return err
}

func (c *Client) check(ctx context.Context, signed []byte) (Checkpoint, error) {
	got, err := c.log.memory.Check(ctx, signed, c.log.key, c.prove)
	return Checkpoint{got.Origin, got.Size, got.Root, signed}, err
}

// prove asks for the proof that the log of size to begins with that of size from.
func (c *Client) prove(ctx context.Context, from, to int64) ([]tlog.Hash, error) {
	got, err := c.Audit.GetConsistencyProof(ctx, &pb.GetConsistencyProofRequest{FirstSize: from, SecondSize: to})
	if vault.KindOf(err) == vault.Invalid {
		return nil, fmt.Errorf("%w: %w", ErrLogRewritten, err) // it has less than it had
	}
	if err != nil {
		return nil, err
	}
	return hashes(got.Hashes)
}

func hashes(in [][]byte) (out []tlog.Hash, err error) {
	for _, b := range in {
		if len(b) != len(tlog.Hash{}) {
			return nil, wrong("a hash of %d bytes", len(b))
		}
		out = append(out, tlog.Hash(b))
	}
	return out, nil
}

// Checkpoint asks for the newest checkpoint of the audit log, and checks it: its signature by
// [Config].LogKey, and that the log still begins with what was seen before, of which
// [Config].LogMemory keeps the newest. ErrLogRewritten says that it does not.
func (c *Client) Checkpoint(ctx context.Context) (Checkpoint, error) {
	if c.log == nil {
		return Checkpoint{}, ErrNoLogKey
	}
	got, err := c.Audit.GetCheckpoint(ctx, &pb.GetCheckpointRequest{})
	if err != nil {
		return Checkpoint{}, err
	}
	return c.check(ctx, got.Checkpoint)
}

// ProveEvent gives an event's bytes, after it has proved to be in the log of the newest
// checkpoint, which is given with it.
func (c *Client) ProveEvent(ctx context.Context, index int64) (event []byte, at Checkpoint, err error) {
	if at, err = c.Checkpoint(ctx); err != nil {
		return nil, at, err
	}
	if index < 0 || index >= at.Size {
		return nil, at, vault.InvalidField("index", "must be from 0 to %d: the newest checkpoint has %d events", at.Size-1, at.Size)
	}
	got, err := c.Audit.ListEvents(ctx, &pb.ListEventsRequest{StartIndex: index, PageSize: 1})
	if err != nil {
		return nil, at, err
	}
	if len(got.Events) != 1 || got.Events[0].Index != index {
		return nil, at, wrong("no event %d", index)
	}
	proof, err := c.Audit.GetInclusionProof(ctx, &pb.GetInclusionProofRequest{Index: index, Size: at.Size})
	if err != nil {
		return nil, at, err
	}
	path, err := hashes(proof.Hashes)
	if err != nil {
		return nil, at, err
	}
	event = got.Events[0].Event
	return event, at, tlog.CheckEntry(tlog.Checkpoint{Origin: at.Origin, Size: at.Size, Root: at.Root}, index, event, path)
}

// ExportLog brings a directory up to the newest checkpoint of the audit log, in the layout of
// C2SP tlog-tiles. Every event has proved to belong to the checkpoint when it returns without
// error. What the directory has already is not asked for again. step hears how many events
// are done, of all.
func (c *Client) ExportLog(ctx context.Context, dir string, step func(done, all int64)) (Checkpoint, error) {
	if c.log == nil {
		return Checkpoint{}, ErrNoLogKey
	}
	at, err := c.Checkpoint(ctx)
	if err != nil {
		return at, err
	}
	_, err = tlog.Dir(dir).Export(ctx, exported{c, at.Signed}, c.log.key, step)
	return at, err
}

// exported is the service's log as an export sees it, at a checkpoint.
type exported struct {
	*Client
	signed []byte
}

func (e exported) Checkpoint(context.Context) ([]byte, error) { return e.signed, nil }

func (e exported) Entries(ctx context.Context, from, to int64, each func(entry []byte) error) error {
	for from < to {
		got, err := e.Audit.ListEvents(ctx, &pb.ListEventsRequest{StartIndex: from, PageSize: int32(min(to-from, 1000))})
		if err != nil {
			return err
		}
		if len(got.Events) == 0 {
			return fmt.Errorf("%w: the service gives no event from %d on, of %d", tlog.ErrDamaged, from, to)
		}
		for _, ev := range got.Events {
			if ev.Index != from {
				return fmt.Errorf("%w: the service gives event %d where %d is due", tlog.ErrDamaged, ev.Index, from)
			}
			if err := each(ev.Event); err != nil {
				return err
			}
			from++
		}
	}
	return nil
}

func (e exported) Tile(ctx context.Context, _ int64, level int, index int64, width int) ([]byte, error) {
	got, err := e.Audit.GetTile(ctx, &pb.GetTileRequest{Level: int32(level), Index: index, Width: int32(width)})
	return got.GetHashes(), err
}
