package store

import (
	"context"

	"github.com/portcullis/portcullis/vault"
)

// Suspension gives a caller's suspension; NotFound if it is not suspended.
func (t *Tx) Suspension(id string) (vault.Suspension, error) {
	s := vault.Suspension{Caller: id}
	var at int64
	found, err := t.get("SELECT suspended_at, suspended_by FROM suspended_callers WHERE id = $1", []any{id}, &at, &s.By)
	if err == nil && !found {
		err = vault.E(vault.NotFound, vault.ReasonUnchanged, "%s is not suspended", id)
	}
	s.At = moment(at)
	return s, err
}

// Suspensions gives suspended callers in the order of their IDs, from the first after the one
// given.
func (t *Tx) Suspensions(after string, most int) (out []vault.Suspension, err error) {
	err = t.each("SELECT id, suspended_at, suspended_by FROM suspended_callers WHERE id > $1 ORDER BY id LIMIT $2", []any{after, most},
		func(scan func(...any) error) error {
			var s vault.Suspension
			var at int64
			err := scan(&s.Caller, &at, &s.By)
			s.At = moment(at)
			out = append(out, s)
			return err
		})
	return out, err
}

// SuspendCaller cuts off a caller that is not suspended yet.
func (t *Tx) SuspendCaller(s vault.Suspension) error {
	return t.exec("INSERT INTO suspended_callers (id, suspended_at, suspended_by) VALUES ($1, $2, $3)", s.Caller, micros(s.At), s.By)
}

// ReinstateCaller lets a caller in again. What ended with its suspension stays ended.
func (t *Tx) ReinstateCaller(id string) error {
	return t.exec("DELETE FROM suspended_callers WHERE id = $1", id)
}

// EndGrantsOf ends all grants of a grantee, and says how many.
func (t *Tx) EndGrantsOf(grantee string) (int64, error) {
	return t.changed(`UPDATE grants SET state = 'revoked'
		WHERE grantee = $1 AND state IN ('pending', 'approved', 'active') AND ends > $2`, grantee, micros(t.now))
}

// OwedOf gives grants of a grantee that ended before their time and of which Vault has
// still to be told.
func (t *Tx) OwedOf(grantee string, most int) ([]vault.ID, error) {
	return t.grantIDs(`SELECT id FROM grants WHERE grantee = $1 AND `+endedEarly+`
		AND (fence IN ('due', 'written') OR accessor <> '') ORDER BY id LIMIT $2`, grantee, most)
}

// VoidSignatures takes an admin's signatures off whatever still waits for signatures, and says
// how many. What they helped into force stays.
func (t *Tx) VoidSignatures(signer string) (int64, error) {
	return t.changed(`DELETE FROM signatures WHERE signer = $1 AND decision_id IN (
		SELECT id FROM decisions WHERE effective = 0 UNION ALL SELECT id FROM grants WHERE state = 'pending')`, signer)
}

// RestsOn gives what is in force on an admin's signature, at most so much of each.
func (t *Tx) RestsOn(signer string, most int) (r vault.Review, err error) {
	const signed = " IN (SELECT decision_id FROM signatures WHERE signer = $1)"
	r.Grants, err = t.grantIDs("SELECT id FROM grants WHERE id"+signed+
		" AND state IN ('approved', 'active') AND ends > $2 ORDER BY id LIMIT $3", signer, micros(t.now), most+1)
	names := func(query string) (out []string) {
		if err == nil {
			err = t.each(query+" ORDER BY name LIMIT $2", []any{signer, most + 1}, func(scan func(...any) error) error {
				var name string
				err := scan(&name)
				out = append(out, name)
				return err
			})
		}
		return out
	}
	r.Purposes = names("SELECT name FROM purposes AS p WHERE decision_id" + signed +
		" AND version = (SELECT MAX(version) FROM purposes WHERE name = p.name)")
	r.Contractors = names("SELECT name FROM contractors WHERE decision_id" + signed + " AND suspended = 0")
	r.More = len(r.Grants) > most || len(r.Purposes) > most || len(r.Contractors) > most
	r.Grants = r.Grants[:min(len(r.Grants), most)]
	r.Purposes, r.Contractors = r.Purposes[:min(len(r.Purposes), most)], r.Contractors[:min(len(r.Contractors), most)]
	return r, err
}

// Suspensions gives suspended callers in the order of their IDs, from the first after the one
// given.
func (s *Store) Suspensions(ctx context.Context, after string, most int) (out []vault.Suspension, err error) {
	err = s.View(ctx, func(t *Tx) (err error) {
		out, err = t.Suspensions(after, most)
		return err
	})
	return out, err
}
