package store

import (
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/portcullis/portcullis/vault"
)

const grantColumns = `id, state, contractor, purpose, purpose_version, purpose_digest, grantee, epoch, sites, modalities,
	captured_from, captured_until, max_records, ends, approvals, justification, requested_at, released, handle_key, token_digest, accessor,
	max_bytes, live, list, records, released_bytes`

func scanGrant(scan func(...any) error) (g vault.Grant, err error) {
	var id, sites, modalities, list, records string
	var from, until, ends, requested int64
	var purposeDigest, handleKey, tokenDigest []byte
	err = scan(&id, &g.State, &g.Contractor, &g.Purpose.Name, &g.Purpose.Version, &purposeDigest, &g.Grantee, &g.Epoch,
		&sites, &modalities, &from, &until, &g.MaxRecords, &ends, &g.Approvals, &g.Justification, &requested,
		&g.Released, &handleKey, &tokenDigest, &g.Accessor, &g.MaxBytes, &g.Scope.Live, &list, &records, &g.ReleasedBytes)
	if err != nil {
		return g, unscanned("grant", err)
	}
	if g.Grant, err = uuid.Parse(id); err != nil || len(handleKey) != len(g.HandleKey) {
		return g, vault.E(vault.DataLoss, vault.ReasonDataLoss, "the grant's row is damaged").Because(err)
	}
	g.Scope.Sites = strings.Split(sites, ",")
	for _, m := range strings.Split(modalities, ",") {
		g.Scope.Modalities = append(g.Scope.Modalities, vault.Modality(m))
	}
	if list != "" {
		if g.Scope.List, err = rowID(list); err != nil {
			return g, err
		}
		if g.Scope.Records, err = splitIDs(records); err != nil {
			return g, err
		}
	}
	g.Scope.From, g.Scope.Until, g.Ends, g.RequestedAt = moment(from), moment(until), moment(ends), moment(requested)
	g.Purpose.Digest, g.TokenDigest = digest(purposeDigest), digest(tokenDigest)
	g.Terms.Justification = vault.DigestOf([]byte(g.Justification))
	copy(g.HandleKey[:], handleKey)
	return g, nil
}

// grantList gives the grants of a query's rest, each with its signatures.
func (t *Tx) grantList(rest string, args ...any) (out []vault.Grant, err error) {
	err = t.each("SELECT "+grantColumns+" FROM grants "+rest, args, func(scan func(...any) error) error {
		g, err := scanGrant(scan)
		out = append(out, g)
		return err
	})
	for i := range out {
		if err == nil {
			out[i].Signatures, err = t.signatures(out[i].Grant)
		}
	}
	return out, err
}

func (t *Tx) oneGrant(where string, args ...any) (vault.Grant, error) {
	found, err := t.grantList("WHERE "+where, args...)
	if err != nil {
		return vault.Grant{}, err
	}
	if len(found) == 0 {
		return vault.Grant{}, vault.E(vault.NotFound, vault.ReasonGrantUnknown, "there is no such grant")
	}
	return found[0], nil
}

// Grant gives a grant with its signatures; NotFound if there is none.
func (t *Tx) Grant(id vault.ID) (vault.Grant, error) { return t.oneGrant("id = $1", id.String()) }

// GrantByRequest gives the grant that a workload requested under a request ID.
func (t *Tx) GrantByRequest(grantee string, request vault.ID) (vault.Grant, error) {
	return t.oneGrant("grantee = $1 AND request_id = $2", grantee, request.String())
}

// Grants gives grants, newest first: those before the one given, of one contractor if it is
// not empty, in one of the states if any are given.
func (t *Tx) Grants(contractor string, states []vault.GrantState, before vault.ID, most int) ([]vault.Grant, error) {
	args := []any{most}
	where := "WHERE TRUE"
	if contractor != "" {
		args = append(args, contractor)
		where += " AND contractor = " + marks(len(args), 1)
	}
	if len(states) > 0 {
		where += " AND state IN (" + marks(len(args)+1, len(states)) + ")"
		for _, s := range states {
			args = append(args, string(s))
		}
	}
	if before != (vault.ID{}) {
		args = append(args, before.String())
		where += " AND (requested_at, id) < (SELECT requested_at, id FROM grants WHERE id = " + marks(len(args), 1) + ")"
	}
	return t.grantList(where+" ORDER BY requested_at DESC, id DESC LIMIT $1", args...)
}

// AddGrant adds a requested grant.
func (t *Tx) AddGrant(g vault.Grant, request vault.ID) error {
	modalities := make([]string, len(g.Scope.Modalities))
	for i, m := range g.Scope.Modalities {
		modalities[i] = string(m)
	}
	return t.exec("INSERT INTO grants ("+grantColumns+", request_id, fence) VALUES ("+marks(1, 28)+")",
		g.Grant.String(), string(g.State), g.Contractor, g.Purpose.Name, g.Purpose.Version, g.Purpose.Digest[:], g.Grantee, g.Epoch,
		strings.Join(g.Scope.Sites, ","), strings.Join(modalities, ","), micros(g.Scope.From), micros(g.Scope.Until),
		g.MaxRecords, micros(g.Ends), g.Approvals, g.Justification, micros(g.RequestedAt), g.Released, g.HandleKey[:],
		[]byte{}, "", g.MaxBytes, g.Scope.Live, idText(g.Scope.List), joinIDs(g.Scope.Records), g.ReleasedBytes, request.String(), string(vault.FenceNone))
}

// SetGrantState sets where a grant stands.
func (t *Tx) SetGrantState(id vault.ID, s vault.GrantState) error {
	return t.exec("UPDATE grants SET state = $1 WHERE id = $2", string(s), id.String())
}

// SetGrantToken keeps the digest and accessor of a grant's newest token.
func (t *Tx) SetGrantToken(id vault.ID, d vault.Digest, accessor string) error {
	return t.exec("UPDATE grants SET token_digest = $1, accessor = $2 WHERE id = $3", d[:], accessor, id.String())
}

// UsesLeft gives how many uses of a grant that Vault counts stand in no token: -1 as long as it
// never counted any.
func (t *Tx) UsesLeft(id vault.ID) (left int64, err error) {
	_, err = t.get("SELECT uses_left FROM grants WHERE id = $1", []any{id.String()}, &left)
	return left, err
}

// SetUsesLeft keeps how many uses stand in no token.
func (t *Tx) SetUsesLeft(id vault.ID, left int64) error {
	return t.exec("UPDATE grants SET uses_left = $1 WHERE id = $2", left, id.String())
}

// FenceState says what Vault has been told of a grant.
func (t *Tx) FenceState(id vault.ID) (s vault.FenceState, err error) {
	_, err = t.get("SELECT fence FROM grants WHERE id = $1", []any{id.String()}, &s)
	return s, err
}

// SetFenceState keeps what Vault has been told of a grant.
func (t *Tx) SetFenceState(id vault.ID, s vault.FenceState) error {
	return t.exec("UPDATE grants SET fence = $1 WHERE id = $2", string(s), id.String())
}

// OweToken keeps the accessor of a token that Vault has to end although its grant goes on.
func (t *Tx) OweToken(id vault.ID, accessor string) error {
	return t.exec("INSERT INTO earlier_tokens (grant_id, accessor) VALUES ($1, $2) ON CONFLICT DO NOTHING", id.String(), accessor)
}

// OwedTokens gives the accessors of a grant that OweToken kept.
func (t *Tx) OwedTokens(id vault.ID) (accessors []string, err error) {
	err = t.each("SELECT accessor FROM earlier_tokens WHERE grant_id = $1", []any{id.String()}, func(scan func(...any) error) error {
		var a string
		err := scan(&a)
		accessors = append(accessors, a)
		return err
	})
	return accessors, err
}

// DropAccessor forgets the accessor of a token that ended.
func (t *Tx) DropAccessor(id vault.ID, accessor string) error {
	if err := t.exec("DELETE FROM earlier_tokens WHERE grant_id = $1 AND accessor = $2", id.String(), accessor); err != nil {
		return err
	}
	return t.exec("UPDATE grants SET accessor = '' WHERE id = $1 AND accessor = $2", id.String(), accessor)
}

// endedEarly is the condition of grants that ended before their time.
const endedEarly = "state IN ('denied', 'retired', 'revoked', 'lapsed', 'suspended')"

// TokensDue gives grants of which Vault has still to end a token: the newest of an ended
// one, and earlier ones of any. The order is random, as in FencesDue.
func (t *Tx) TokensDue(now time.Time, most int) ([]vault.ID, error) {
	return t.grantIDs(`SELECT id FROM (
		SELECT id FROM grants WHERE accessor <> '' AND (ends <= $1 OR `+endedEarly+`)
		UNION SELECT grant_id FROM earlier_tokens) ORDER BY RANDOM() LIMIT $2`, micros(now), most)
}

// FencesDue gives grants whose fence is to be written or, once they have ended, removed. The
// order is random: some that fail each time must not keep the others from their turn.
func (t *Tx) FencesDue(now time.Time, most int) ([]vault.ID, error) {
	return t.grantIDs(`SELECT id FROM grants WHERE fence = 'due'
		OR (fence = 'written' AND (ends <= $1 OR `+endedEarly+`))
		OR (fence = 'closed' AND ends <= $1) ORDER BY RANDOM() LIMIT $2`, micros(now), most)
}

func (t *Tx) grantIDs(query string, args ...any) (out []vault.ID, err error) {
	err = t.each(query, args, func(scan func(...any) error) error {
		var text string
		if err := scan(&text); err != nil {
			return err
		}
		id, err := rowID(text)
		out = append(out, id)
		return err
	})
	return out, err
}

// rateMicros is how long a grant's releases are counted together for its rate.
const rateMicros = 60 * 1_000_000

// CountRelease counts a record against the quotas of its grant, once however often it leaves, and
// against the rate of its purpose each time. The conditions stand in the statement, so that an
// ending that commits first wins. It keeps what the contractor has opened, for [vault.ConflictRule].
func (t *Tx) CountRelease(g vault.Grant, p vault.Purpose, r vault.Record) (refetch bool, err error) {
	fresh, err := t.changed("INSERT INTO released (grant_id, record_id) VALUES ($1, $2) ON CONFLICT DO NOTHING", g.Grant.String(), r.ID.String())
	if err != nil {
		return false, err
	}
	n, err := t.changed(`UPDATE grants SET released = released + $1, released_bytes = released_bytes + $4,
		excess = CASE WHEN $1 = 1 OR minute_began <= $3 - $6 THEN 0 ELSE excess END,
		minute_count = CASE WHEN minute_began <= $3 - $6 THEN 1 ELSE minute_count + 1 END,
		minute_began = CASE WHEN minute_began <= $3 - $6 THEN $3 ELSE minute_began END
		WHERE id = $2 AND state = 'active' AND ends > $3 AND released + $1 <= max_records AND released_bytes + $4 <= max_bytes
		AND (minute_began <= $3 - $6 OR minute_count < $5)
		AND epoch = (SELECT epoch FROM contractors WHERE name = grants.contractor AND suspended = 0)`,
		fresh, g.Grant.String(), micros(t.now), fresh*r.Size, p.MaxRate, int64(rateMicros))
	if err == nil && n == 1 { // again also for what had left before: it is opened now
		err = t.opened(g, p, r)
	}
	if err != nil || n == 1 {
		return fresh == 0, err
	}
	// The caller may commit its refusal, so the row must go whatever the reason.
	if fresh == 1 {
		if err := t.exec("DELETE FROM released WHERE grant_id = $1 AND record_id = $2", g.Grant.String(), r.ID.String()); err != nil {
			return false, err
		}
	}
	return false, t.notCounted(g.Grant, fresh, fresh*r.Size, p.MaxRate)
}

// notCounted says why a release was not counted.
func (t *Tx) notCounted(id vault.ID, fresh, size, rate int64) error {
	g, err := t.Grant(id)
	if err != nil {
		return err
	}
	if err := g.Open(t.now); err != nil {
		return err
	}
	var began, count int64
	if _, err := t.get("SELECT minute_began, minute_count FROM grants WHERE id = $1", []any{id.String()}, &began, &count); err != nil {
		return err
	}
	wait := began + rateMicros - micros(t.now)
	switch {
	case g.Released+fresh > g.MaxRecords:
		return vault.E(vault.Exhausted, vault.ReasonQuotaExceeded, "grant %s has opened all %d records of its quota; request another for more", id, g.MaxRecords)
	case g.ReleasedBytes+size > g.MaxBytes:
		return vault.E(vault.Exhausted, vault.ReasonBytesExceeded, "grant %s has %d of its %d bytes left, too few for this image", id, g.MaxBytes-g.ReleasedBytes, g.MaxBytes)
	case wait > 0 && count >= rate:
		e := vault.E(vault.Exhausted, vault.ReasonRateExceeded, "grant %s may open %d records a minute", id, rate)
		e.After = time.Duration(wait) * time.Microsecond
		return e
	}
	return vault.E(vault.State, vault.ReasonGrantRevoked, "grant %s ended with a suspension of its contractor", id)
}

// CountExcess counts a refusal for quota or rate. With the one beyond most since the last release
// the grant ends by itself, and CountExcess says so.
func (t *Tx) CountExcess(id vault.ID, most int) (suspended bool, err error) {
	if err := t.exec("UPDATE grants SET excess = excess + 1 WHERE id = $1", id.String()); err != nil {
		return false, err
	}
	n, err := t.changed("UPDATE grants SET state = 'suspended' WHERE id = $1 AND state = 'active' AND excess > $2", id.String(), most)
	return n == 1, err
}

// EndGrantsFor ends all grants of a purpose and gives them.
func (t *Tx) EndGrantsFor(purpose string) ([]vault.ID, error) {
	const live = "purpose = $1 AND state IN ('pending', 'approved', 'active') AND ends > $2"
	ids, err := t.grantIDs("SELECT id FROM grants WHERE "+live, purpose, micros(t.now))
	if err != nil {
		return nil, err
	}
	return ids, t.exec("UPDATE grants SET state = 'revoked' WHERE "+live, purpose, micros(t.now))
}

// LapseDue gives pending grants that were asked for at or before a time.
func (t *Tx) LapseDue(before time.Time, most int) ([]vault.ID, error) {
	return t.grantIDs("SELECT id FROM grants WHERE state = 'pending' AND requested_at <= $1 LIMIT $2", micros(before), most)
}
