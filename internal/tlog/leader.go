package tlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxLeaves and maxLeafBytes bound what one step adds to the tree, in entries and in bytes
	// of entries: what it keeps in memory, and how long its transaction takes.
	maxLeaves    = 4096
	maxLeafBytes = 8 << 20
	// DefaultEvery is how often a leader looks for new events. A checkpoint is behind by at
	// most this, the signing and a transaction.
	DefaultEvery = 100 * time.Millisecond
	// DefaultShipEvery is how often a checkpoint is shipped while the log grows.
	DefaultShipEvery = time.Minute
)

// Ledger is where events and tree are kept, side by side in one database.
type Ledger interface {
	// View runs fn on one consistent state.
	View(ctx context.Context, fn func(Tx) error) error
	// Update runs fn in one transaction; what it wrote is durable on return without error. fn
	// may run more than once.
	Update(ctx context.Context, fn func(Tx) error) error
}

// Tx is one transaction.
type Tx interface {
	Tiles
	// Size is the number of events.
	Size() (int64, error)
	// Leaves gives the bytes of events from an index on, up to the first that is missing: most
	// of them at the most, and no more, but for the first, than so many bytes.
	Leaves(from int64, most, bytes int) ([][]byte, error)
	// SignedCheckpoint gives the newest checkpoint, nil when there is none.
	SignedCheckpoint() ([]byte, error)
	// GrowTree puts tiles and a checkpoint, which is of the size, in place of the checkpoint had,
	// nil for none. It does nothing, and says so, when there is another by now.
	GrowTree(had []byte, size int64, signed []byte, tiles []Tile) (bool, error)
}

// Leader makes the tree grow: it hashes the events in the order of their commits, and signs.
// Several leaders, in several processes, do no harm: each step holds only if the tree is
// still what it began with. A crash at any instant leaves the tree as it was before a step or
// after it.
type Leader struct {
	Ledger Ledger
	Signer *Signer
	Log    *slog.Logger
	Clock  func() time.Time

	// Ship is a file that checkpoints are appended to, at most one each ShipEvery; none when it
	// is empty. A log that does not begin with the last one there is not signed any more.
	Ship      string
	ShipEvery time.Duration

	mu        sync.Mutex
	newest    []byte // signed; the last that this leader saw
	seen      Checkpoint
	edge      *Edge // of newest
	shipped   time.Time
	unshipped bool

	refused atomic.Pointer[error] // why the last step signed nothing: the log is not what it was
}

// Refused says why this leader signs no more: an ErrRewritten or ErrDamaged of the last step. It
// is nil while all is well, and when the last step failed otherwise.
func (l *Leader) Refused() error {
	if err := l.refused.Load(); err != nil {
		return *err
	}
	return nil
}

// errShip says that the tree grew, and its checkpoint could not be appended to the file.
var errShip = errors.New("the newest checkpoint was not shipped")

// Run makes the tree grow until ctx ends.
func (l *Leader) Run(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	failing := false
	for {
		more, err := l.Step(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errShip) {
			l.Log.Error("the log's tree grows, but its checkpoints do not reach the file that keeps them; trying again", "error", err)
			err = nil
		}
		switch {
		case err != nil && !failing:
			l.Log.Error("the log's tree does not grow; releases stop when it is too far behind", "error", err)
		case err == nil && failing:
			l.Log.Info("the log's tree grows again")
		}
		failing = err != nil
		if more && err == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Step adds what events there are, up to a limit, and says whether there are more. An error
// in whose chain is ErrRewritten says that the database is not the one that it was; ErrDamaged
// that its tiles do not fit its checkpoint. In both cases nothing is signed.
func (l *Leader) Step(ctx context.Context) (more bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	more, err = l.step(ctx)
	switch {
	case errors.Is(err, ErrRewritten) || errors.Is(err, ErrDamaged):
		l.refused.Store(&err)
	case err == nil || errors.Is(err, errShip): // another failure tells nothing about the log
		l.refused.Store(nil)
	}
	return more, err
}

func (l *Leader) step(ctx context.Context) (more bool, err error) {
	var size int64
	var leaves [][]byte
	var had []byte
	err = l.Ledger.View(ctx, func(tx Tx) error {
		signed, err := tx.SignedCheckpoint()
		if err != nil {
			return err
		}
		if err := l.takeUp(signed, tx); err != nil {
			return err
		}
		had = signed
		if size, err = tx.Size(); err != nil {
			return err
		}
		if size < l.seen.Size {
			return fmt.Errorf("%w: it has %d events, its tree has %d", ErrRewritten, size, l.seen.Size)
		}
		if size > l.seen.Size {
			leaves, err = tx.Leaves(l.seen.Size, maxLeaves, maxLeafBytes)
			if err == nil && len(leaves) == 0 {
				return fmt.Errorf("%w: there are %d events, and number %d is missing", ErrDamaged, size, l.seen.Size)
			}
		}
		return err
	})
	if err != nil {
		return false, err
	}
	if len(leaves) == 0 && had != nil {
		return false, l.ship(false)
	}
	edge := l.edge.clone()
	var tiles []Tile
	for _, b := range leaves {
		tiles = append(tiles, edge.Append(LeafHash(b))...)
	}
	tiles = append(tiles, edge.Partial()...)
	c := Checkpoint{Origin: l.Signer.Name(), Size: edge.Size(), Root: edge.Root()}
	signed, err := c.Sign(l.Signer)
	if err != nil {
		return false, err
	}
	var grown bool
	err = l.Ledger.Update(ctx, func(tx Tx) (err error) {
		grown, err = tx.GrowTree(had, c.Size, signed, tiles)
		return err
	})
	if err != nil || !grown {
		return false, err // if another leader was first, its tree is taken up by the next step
	}
	l.newest, l.seen, l.edge = signed, c, edge
	l.unshipped = true
	return c.Size < size, l.ship(false)
}

// takeUp makes sure that the tree in the database is the one that this leader knows, or one
// that begins with it.
func (l *Leader) takeUp(signed []byte, tx Tx) error {
	if l.edge != nil && bytes.Equal(signed, l.newest) {
		return nil
	}
	if l.edge == nil {
		l.seen = Checkpoint{Origin: l.Signer.Name(), Root: emptyRoot}
		if l.Ship != "" {
			last, err := Shipped(l.Ship)
			if err != nil {
				return err
			}
			if last != nil {
				if l.seen, err = Open(last, l.Signer.Verifier()); err != nil {
					return fmt.Errorf("the last checkpoint in %s: %w", l.Ship, err)
				}
			}
		}
	}
	c := Checkpoint{Origin: l.Signer.Name(), Root: emptyRoot}
	if signed != nil {
		var err error
		if c, err = Open(signed, l.Signer.Verifier()); err != nil {
			return fmt.Errorf("%w: the database's checkpoint: %w", ErrDamaged, err)
		}
	}
	if c.Size < l.seen.Size {
		return fmt.Errorf("%w: the database's tree has %d entries, a checkpoint of %d was signed before", ErrRewritten, c.Size, l.seen.Size)
	}
	edge, err := LoadEdge(c, tx)
	if err != nil {
		return err
	}
	proof, err := ProveConsistency(c, l.seen.Size, c.Size, tx)
	if err != nil {
		return err
	}
	if err := CheckConsistency(l.seen, c, proof); err != nil {
		return fmt.Errorf("%w: %w, which was signed before", ErrRewritten, err)
	}
	// What another process signed, or this one before it was killed, may not have been shipped.
	l.unshipped = l.unshipped || c.Size > l.seen.Size
	l.newest, l.seen, l.edge = signed, c, edge
	return nil
}

// ship appends the newest checkpoint to the file, if it is time.
func (l *Leader) ship(now bool) error {
	if l.Ship == "" || !l.unshipped || !now && l.Clock().Sub(l.shipped) < l.ShipEvery {
		return nil
	}
	l.shipped = l.Clock() // or tried: a file that can not be written is not tried more often
	if err := Ship(l.Ship, l.newest); err != nil {
		return fmt.Errorf("%w: %w", errShip, err)
	}
	l.unshipped = false
	return nil
}

// Close ships the newest checkpoint. Run must have returned.
func (l *Leader) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ship(true)
}
