package store

import (
	"context"
	"strings"

	"github.com/portcullis/portcullis/vault"
)

// Marked gives what is known of Vault's mark.
func (t *Tx) Marked() (m vault.Marked, err error) {
	var database, mark, begun, next string
	var claimed, good int64
	_, err = t.get("SELECT database, mark, begun, next, log, next_log, claimed, generation, good_until, reason FROM vault_mark WHERE one = 1", nil,
		&database, &mark, &begun, &next, &m.Log, &m.NextLog, &claimed, &m.Generation, &good, &m.Reason)
	if err != nil {
		return m, err
	}
	m.Claimed, m.Good = moment(claimed), moment(good)
	if m.Mark, err = vault.ParseMark(mark); err == nil {
		m.Begun, err = vault.ParseMark(begun)
	}
	if err == nil {
		m.Next, err = vault.ParseMark(next)
	}
	if err == nil && database != "" {
		m.Database, err = vault.ParseID("database", database)
	}
	if err != nil {
		err = vault.E(vault.DataLoss, vault.ReasonDataLoss, "the row of Vault's mark is damaged").Because(err)
	}
	return m, err
}

// SetMarked keeps what is known of Vault's mark.
func (t *Tx) SetMarked(m vault.Marked) error {
	return t.exec(`UPDATE vault_mark SET mark = $1, begun = $2, next = $3, log = $4, next_log = $5, claimed = $6, generation = $7,
		good_until = $8, reason = $9, database = $10 WHERE one = 1`,
		m.Mark.String(), m.Begun.String(), m.Next.String(), m.Log, m.NextLog, micros(m.Claimed), m.Generation, micros(m.Good), string(m.Reason), idText(m.Database))
}

// Marked gives what is known of Vault's mark.
func (s *Store) Marked(ctx context.Context) (m vault.Marked, err error) {
	err = s.Glance(ctx, func(t *Tx) (err error) {
		m, err = t.Marked()
		return err
	})
	return m, err
}

// ForgetTokens says of all grants that run that they have no token, and that Vault has still
// to be given their fences; no earlier token is owed an end. It gives how many had a token.
func (t *Tx) ForgetTokens() (n int64, err error) {
	const living = " WHERE state IN ('approved', 'active') AND ends > $1"
	if _, err = t.get("SELECT COUNT(*) FROM grants"+living+" AND accessor <> ''", []any{micros(t.now)}, &n); err != nil {
		return 0, err
	}
	if err := t.exec("DELETE FROM earlier_tokens"); err != nil {
		return 0, err
	}
	return n, t.exec("UPDATE grants SET token_digest = x'', accessor = '', fence = CASE fence WHEN 'written' THEN 'due' ELSE fence END"+living, micros(t.now))
}

// RecordsIn gives records whose keys are in one of the states, in the order of their IDs, from
// the first after the one given.
func (t *Tx) RecordsIn(after vault.ID, most int, states ...vault.KeyState) (out []vault.Record, err error) {
	err = t.each("SELECT "+recordColumns+" FROM records WHERE key_state IN ("+quoted(states)+") AND id > $1 ORDER BY id LIMIT $2",
		[]any{idText(after), most}, func(scan func(...any) error) error {
			r, err := scanRecord(scan)
			out = append(out, r)
			return err
		})
	return out, err
}

// IDsIn gives the IDs, as they are written, of records whose keys are in one of the states, in
// their order, from the first after the one given: also those of rows that are damaged.
func (t *Tx) IDsIn(after string, most int, states ...vault.KeyState) (out []string, err error) {
	err = t.each("SELECT id FROM records WHERE key_state IN ("+quoted(states)+") AND id > $1 ORDER BY id LIMIT $2",
		[]any{after, most}, func(scan func(...any) error) error {
			var id string
			err := scan(&id)
			out = append(out, id)
			return err
		})
	return out, err
}

// quoted gives states as a statement's own text, so that partial indexes serve.
func quoted(states []vault.KeyState) string {
	in := make([]string, len(states))
	for i, s := range states {
		in[i] = "'" + string(s) + "'"
	}
	return strings.Join(in, ", ")
}
