package store

import (
	"context"

	"github.com/portcullis/portcullis/vault"
)

// Standing refuses a suspended caller, and a contractor that is unknown or suspended.
func (s *Store) Standing(ctx context.Context, c vault.Caller) error {
	return s.Glance(ctx, func(t *Tx) error { return t.Standing(c) })
}

// Purposes gives the newest version of each purpose, by name.
func (s *Store) Purposes(ctx context.Context) (out []vault.Purpose, err error) {
	err = s.View(ctx, func(t *Tx) (err error) {
		out, err = t.Purposes()
		return err
	})
	return out, err
}

// Contractors gives all contractors, by name.
func (s *Store) Contractors(ctx context.Context) (out []vault.Contractor, err error) {
	err = s.View(ctx, func(t *Tx) (err error) {
		out, err = t.Contractors()
		return err
	})
	return out, err
}

// Grants gives grants, newest first: those before the one given, of one contractor if it is
// not empty, in one of the states if any are given.
func (s *Store) Grants(ctx context.Context, contractor string, states []vault.GrantState, before vault.ID, most int) (out []vault.Grant, err error) {
	err = s.View(ctx, func(t *Tx) (err error) {
		out, err = t.Grants(contractor, states, before, most)
		return err
	})
	return out, err
}

// maxEventPage is about how many bytes of events a page has: far below the largest answer that
// a client takes.
const maxEventPage = 4 << 20

// Events gives the log's entries from an index on, in their order, of the given types only if
// any are given: the index and the bytes of each. next is where the following page begins,
// size the size of the log: there may be more as long as next is below it.
func (s *Store) Events(ctx context.Context, from int64, most int, types []string) (indexes []int64, bodies [][]byte, next, size int64, err error) {
	err = s.View(ctx, func(t *Tx) error {
		entries, n, all, err := t.eventPage(from, most, maxEventPage, types)
		for _, e := range entries {
			indexes, bodies = append(indexes, e.Index), append(bodies, e.Body)
		}
		next, size = n, all
		return err
	})
	return indexes, bodies, next, size, err
}

// Record adds an event that tells of no change of state. It is durable on return.
func (s *Store) Record(ctx context.Context, e vault.Event) error {
	_, err := s.Update(ctx, func(t *Tx) error { return t.Append(e) })
	return err
}
