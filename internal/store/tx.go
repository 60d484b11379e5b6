package store

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// Tx is one transaction, or one operation's part of it. It lives as long as the function
// that it was given to.
type Tx struct {
	ctx      context.Context // of the transaction; a Tx is an argument, never kept
	sql      *sql.Tx
	now      time.Time
	writable bool
	events   []entry // appended by the operation under way
	before   int     // events of the operations before it in the transaction
	moved    bool    // one of these operations changed which keys are active
}

// entry is one event on its way into the log.
type entry struct {
	kind string
	body []byte
}

// Now gives the time of the transaction.
func (t *Tx) Now() time.Time { return t.now }

func (t *Tx) exec(query string, args ...any) error {
	_, err := t.sql.ExecContext(t.ctx, query, args...)
	return away(err)
}

// changed executes and says how many rows were changed.
func (t *Tx) changed(query string, args ...any) (int64, error) {
	res, err := t.sql.ExecContext(t.ctx, query, args...)
	if err != nil {
		return 0, away(err)
	}
	n, err := res.RowsAffected()
	return n, away(err)
}

// get scans the one row of a query; found says whether there is one.
func (t *Tx) get(query string, args []any, dest ...any) (found bool, err error) {
	err = t.sql.QueryRowContext(t.ctx, query, args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, away(err)
}

// each calls fn for each row of a query.
func (t *Tx) each(query string, args []any, fn func(scan func(...any) error) error) error {
	rows, err := t.sql.QueryContext(t.ctx, query, args...)
	if err != nil {
		return away(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := fn(rows.Scan); err != nil {
			return away(err)
		}
	}
	return away(rows.Err())
}

// Append adds an event to the log, in the transaction. Its index is given at the commit.
func (t *Tx) Append(e vault.Event) error {
	if !t.writable {
		return vault.E(vault.Internal, vault.ReasonInternal, "internal error").Because(errors.New("append in a view"))
	}
	body, err := e.Encode()
	if err != nil {
		return vault.E(vault.Internal, vault.ReasonInternal, "internal error").Because(err)
	}
	t.events = append(t.events, entry{kind: string(e.Type), body: body})
	return nil
}

// Size is the index of the next event.
func (t *Tx) Size() (size int64, err error) {
	_, err = t.get("SELECT next FROM log_counter WHERE one = 1", nil, &size)
	return size + int64(t.before+len(t.events)), err
}

// flush writes the events of a transaction and raises the counter, last of all.
func (t *Tx) flush(events []entry) (first int64, err error) {
	if len(events) == 0 {
		return 0, nil
	}
	if _, err := t.get("SELECT next FROM log_counter WHERE one = 1", nil, &first); err != nil {
		return 0, err
	}
	for i, e := range events {
		if err := t.exec("INSERT INTO events (idx, type, body) VALUES ($1, $2, $3)", first+int64(i), e.kind, e.body); err != nil {
			return 0, err
		}
	}
	return first, t.exec("UPDATE log_counter SET next = $1 WHERE one = 1", first+int64(len(events)))
}

// Entry is one entry of the log: its bytes as first written.
type Entry struct {
	Index int64
	Body  []byte
}

// Events gives entries from an index on, in their order, of the given types only if any are
// given, and the size of the log.
func (t *Tx) Events(from int64, most int, types []string) (out []Entry, size int64, err error) {
	out, _, size, err = t.eventPage(from, most, math.MaxInt, types)
	return out, size, err
}

// eventPage gives entries as Events does, but ends a page before it has more than so many bytes
// (one entry is given in any case), and tells where the next one begins.
func (t *Tx) eventPage(from int64, most, bytes int, types []string) (out []Entry, next, size int64, err error) {
	if _, err := t.get("SELECT next FROM log_counter WHERE one = 1", nil, &size); err != nil {
		return nil, 0, 0, err
	}
	args := []any{from, most}
	only := ""
	if len(types) > 0 {
		only = " AND type IN (" + marks(3, len(types)) + ")"
		for _, k := range types {
			args = append(args, k)
		}
	}
	cut := false
	err = t.each("SELECT idx, body FROM events WHERE idx >= $1"+only+" ORDER BY idx LIMIT $2", args, func(scan func(...any) error) error {
		var e Entry
		if err := scan(&e.Index, &e.Body); err != nil {
			return err
		}
		if bytes -= len(e.Body); bytes < 0 && len(out) > 0 {
			cut = true
			return errEnough
		}
		out = append(out, e)
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	next = max(size, from)
	if cut || len(out) == most && most > 0 {
		next = out[len(out)-1].Index + 1
	}
	return out, next, size, err
}

// errEnough ends a loop over rows.
var errEnough = errors.New("enough")

// Standing refuses a suspended caller, and a contractor that is unknown or suspended.
func (t *Tx) Standing(c vault.Caller) error {
	var since int64
	found, err := t.get("SELECT suspended_at FROM suspended_callers WHERE id = $1", []any{c.ID}, &since)
	if err != nil {
		return err
	}
	if found {
		return vault.E(vault.Denied, vault.ReasonCallerSuspended, "%s is suspended since %s", c.ID, vault.FormatTime(moment(since)))
	}
	if c.Role != vault.RoleContractor {
		return nil
	}
	org, err := t.Contractor(c.Org)
	if vault.KindOf(err) == vault.NotFound {
		return vault.E(vault.Denied, vault.ReasonContractorUnknown, "contractor %s is not admitted; two admins apply it", c.Org)
	}
	if err != nil {
		return err
	}
	if org.Suspended {
		return vault.E(vault.Denied, vault.ReasonContractorSuspended, "contractor %s is suspended", c.Org)
	}
	return nil
}

// micros is how times are kept.
func micros(t time.Time) int64 { return t.UnixMicro() }

// moment reads what micros wrote.
func moment(us int64) time.Time { return time.UnixMicro(us).UTC() }

// marks gives n placeholders from $first on.
func marks(first, n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteByte('$')
		b.WriteString(strconv.Itoa(first + i))
	}
	return b.String()
}

func digest(b []byte) (d vault.Digest) {
	if len(b) == len(d) {
		copy(d[:], b)
	}
	return d
}
