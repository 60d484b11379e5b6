package store

import (
	"errors"
	"fmt"
	"time"

	"github.com/portcullis/portcullis/internal/tlog"
	"github.com/portcullis/portcullis/vault"
)

// Leaves gives the bytes of events from an index on, up to the first that is missing: most of
// them at the most, and no more, but for the first, than so many bytes.
func (t *Tx) Leaves(from int64, most, bytes int) (out [][]byte, err error) {
	next := from
	err = t.each("SELECT idx, body FROM events WHERE idx >= $1 ORDER BY idx LIMIT $2", []any{from, most}, func(scan func(...any) error) error {
		var index int64
		var body []byte
		if err := scan(&index, &body); err != nil {
			return err
		}
		if bytes -= len(body); index != next || bytes < 0 && len(out) > 0 {
			return errEnough
		}
		out = append(out, body)
		next++
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return out, err
}

// SignedCheckpoint gives the newest checkpoint of the log, nil when there is none yet.
func (t *Tx) SignedCheckpoint() (signed []byte, err error) {
	_, err = t.get("SELECT checkpoint FROM log_tree WHERE one = 1", nil, &signed)
	return signed, err
}

// Tile gives the hashes that are stored for a tile of the log's tree, nil when there are none.
func (t *Tx) Tile(level int, index int64) (hashes []byte, err error) {
	_, err = t.get("SELECT hashes FROM log_tiles WHERE level = $1 AND idx = $2", []any{level, index}, &hashes)
	return hashes, err
}

// GrowTree puts tiles and a checkpoint, which is of the size, in place of the checkpoint had,
// nil for none. It does nothing, and says so, when there is another by now.
func (t *Tx) GrowTree(had []byte, size int64, signed []byte, tiles []tlog.Tile) (bool, error) {
	query := "UPDATE log_tree SET size = $1, checkpoint = $2 WHERE one = 1 AND checkpoint = $3"
	args := []any{size, signed, had}
	if had == nil {
		query, args = "INSERT INTO log_tree (one, size, checkpoint) VALUES (1, $1, $2) ON CONFLICT DO NOTHING", args[:2]
	}
	n, err := t.changed(query, args...)
	if n == 0 || err != nil {
		return false, err
	}
	for _, tile := range tiles {
		err := t.exec("INSERT INTO log_tiles (level, idx, hashes) VALUES ($1, $2, $3) ON CONFLICT (level, idx) DO UPDATE SET hashes = excluded.hashes",
			tile.Level, tile.Index, tile.Data)
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// LogLag says how long the oldest event that is not in the tree has been waiting, 0 when all
// are, and gives the newest checkpoint, nil when there is none.
func (t *Tx) LogLag() (lag time.Duration, signed []byte, err error) {
	var events, hashed int64
	var waiting []byte
	_, err = t.get(`SELECT c.next, COALESCE(t.size, 0), t.checkpoint, e.body FROM log_counter c LEFT JOIN log_tree t ON t.one = 1
		LEFT JOIN events e ON e.idx = COALESCE(t.size, 0) WHERE c.one = 1`, nil, &events, &hashed, &signed, &waiting)
	if err != nil {
		return 0, nil, err
	}
	// The size that counts is the signed one: the column only finds the event.
	if size, err := tlog.SizeOf(signed); err != nil || size != hashed {
		return 0, nil, damaged(fmt.Errorf("the tree's size is %d, its checkpoint's %d: %w", hashed, size, err))
	}
	if events == hashed {
		return 0, signed, nil
	}
	e, err := vault.DecodeEvent(waiting)
	if err != nil {
		return 0, nil, damaged(err)
	}
	at, err := vault.ParseTime(e.At)
	if err != nil {
		return 0, nil, damaged(err)
	}
	return t.now.Sub(at).Abs(), signed, nil // a clock that was set back must not hide a lag
}

func damaged(err error) error {
	return vault.E(vault.DataLoss, vault.ReasonDataLoss, "an event of the log can not be read").Because(fmt.Errorf("log: %w", err))
}
