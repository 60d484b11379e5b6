package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// keepEndings is how long endings are kept: much longer than a node without a lease could
// still have something under way.
const keepEndings = time.Hour

// Renew gives a node its lease until a time.
func (s *Store) Renew(ctx context.Context, node string, until time.Time) error {
	_, err := s.Update(ctx, func(t *Tx) error {
		if err := t.exec("DELETE FROM nodes WHERE lease < $1", micros(t.now.Add(-keepEndings))); err != nil {
			return err
		}
		return t.exec("INSERT INTO nodes (id, lease) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET lease = $2", node, micros(until))
	})
	return err
}

// Leave ends a node's lease.
func (s *Store) Leave(ctx context.Context, node string) error {
	_, err := s.Update(ctx, func(t *Tx) error { return t.exec("DELETE FROM nodes WHERE id = $1", node) })
	return err
}

// AddEnding tells all nodes of an ending. It gives the ending's number.
func (s *Store) AddEnding(ctx context.Context, e vault.Ending) (number int64, err error) {
	body, err := json.Marshal(e)
	if err != nil {
		return 0, err
	}
	_, err = s.Update(ctx, func(t *Tx) error {
		before := micros(t.now.Add(-keepEndings))
		if err := t.exec("DELETE FROM confirmations WHERE ending IN (SELECT number FROM endings WHERE ended_at < $1)", before); err != nil {
			return err
		}
		if err := t.exec("DELETE FROM endings WHERE ended_at < $1", before); err != nil {
			return err
		}
		_, err := t.get("INSERT INTO endings (body, ended_at) VALUES ($1, $2) RETURNING number", []any{body, micros(t.now)}, &number)
		return err
	})
	return number, err
}

// LastEnding gives the number of the newest ending, 0 when there is none.
func (s *Store) LastEnding(ctx context.Context) (number int64, err error) {
	err = s.Glance(ctx, func(t *Tx) error {
		_, err := t.get("SELECT COALESCE(MAX(number), 0) FROM endings", nil, &number)
		return err
	})
	return number, err
}

// EndingsAfter gives the endings behind a number, in their order.
func (s *Store) EndingsAfter(ctx context.Context, after int64) (numbers []int64, endings []vault.Ending, err error) {
	err = s.Glance(ctx, func(t *Tx) error {
		return t.each("SELECT number, body FROM endings WHERE number > $1 ORDER BY number", []any{after}, func(scan func(...any) error) error {
			var n int64
			var body []byte
			if err := scan(&n, &body); err != nil {
				return err
			}
			var e vault.Ending
			if err := json.Unmarshal(body, &e); err != nil {
				return err
			}
			numbers, endings = append(numbers, n), append(endings, e)
			return nil
		})
	})
	return numbers, endings, err
}

// Confirm says that nothing of an ending is under way at a node.
func (s *Store) Confirm(ctx context.Context, number int64, node string, b vault.Barrier) error {
	_, err := s.Update(ctx, func(t *Tx) error {
		return t.exec("INSERT INTO confirmations (ending, node, connections, sends) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
			number, node, b.Connections, b.Sends)
	})
	return err
}

// Confirmed says how many nodes, of those whose lease has not ended at the time given, have
// still to confirm an ending, and what the others did about it.
func (s *Store) Confirmed(ctx context.Context, number int64, at time.Time) (missing int, b vault.Barrier, err error) {
	err = s.Glance(ctx, func(t *Tx) error {
		if _, err := t.get(`SELECT COUNT(*) FROM nodes WHERE lease >= $1
			AND id NOT IN (SELECT node FROM confirmations WHERE ending = $2)`, []any{micros(at), number}, &missing); err != nil {
			return err
		}
		_, err := t.get("SELECT COALESCE(SUM(connections), 0), COALESCE(SUM(sends), 0) FROM confirmations WHERE ending = $1",
			[]any{number}, &b.Connections, &b.Sends)
		return err
	})
	return missing, b, err
}
