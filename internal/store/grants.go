package store

import (
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/portcullis/portcullis/vault"
)

const grantColumns = `id, state, contractor, purpose, purpose_version, purpose_digest, grantee, epoch, sites, modalities,
	captured_from, captured_until, max_records, ends, approvals, justification, requested_at, released, handle_key, token_digest, accessor`

func scanGrant(scan func(...any) error) (g vault.Grant, err error) {
	var id, sites, modalities string
	var from, until, ends, requested int64
	var purposeDigest, handleKey, tokenDigest []byte
	err = scan(&id, &g.State, &g.Contractor, &g.Purpose.Name, &g.Purpose.Version, &purposeDigest, &g.Grantee, &g.Epoch,
		&sites, &modalities, &from, &until, &g.MaxRecords, &ends, &g.Approvals, &g.Justification, &requested,
		&g.Released, &handleKey, &tokenDigest, &g.Accessor)
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
	return t.exec("INSERT INTO grants ("+grantColumns+", request_id, fence) VALUES ("+marks(1, 23)+")",
		g.Grant.String(), string(g.State), g.Contractor, g.Purpose.Name, g.Purpose.Version, g.Purpose.Digest[:], g.Grantee, g.Epoch,
		strings.Join(g.Scope.Sites, ","), strings.Join(modalities, ","), micros(g.Scope.From), micros(g.Scope.Until),
		g.MaxRecords, micros(g.Ends), g.Approvals, g.Justification, micros(g.RequestedAt), g.Released, g.HandleKey[:],
		[]byte{}, "", request.String(), string(vault.FenceNone))
}

// SetGrantState sets where a grant stands.
func (t *Tx) SetGrantState(id vault.ID, s vault.GrantState) error {
	return t.exec("UPDATE grants SET state = $1 WHERE id = $2", string(s), id.String())
}

// SetGrantToken keeps the digest and accessor of a grant's newest token.
func (t *Tx) SetGrantToken(id vault.ID, d vault.Digest, accessor string) error {
	return t.exec("UPDATE grants SET token_digest = $1, accessor = $2 WHERE id = $3", d[:], accessor, id.String())
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

// TokensDue gives grants of which Vault has still to end a token: the newest of an ended
// one, and earlier ones of any. The order is random, as in FencesDue.
func (t *Tx) TokensDue(now time.Time, most int) ([]vault.ID, error) {
	return t.grantIDs(`SELECT id FROM (
		SELECT id FROM grants WHERE accessor <> '' AND (ends <= $1 OR state IN ('denied', 'retired', 'revoked'))
		UNION SELECT grant_id FROM earlier_tokens) ORDER BY RANDOM() LIMIT $2`, micros(now), most)
}

// FencesDue gives grants whose fence is to be written or, once they have ended, removed. The
// order is random: some that fail each time must not keep the others from their turn.
func (t *Tx) FencesDue(now time.Time, most int) ([]vault.ID, error) {
	return t.grantIDs(`SELECT id FROM grants WHERE fence = 'due'
		OR (fence = 'written' AND (ends <= $1 OR state IN ('denied', 'retired', 'revoked')))
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

// CountRelease counts a record against its grant's quota, once however often it leaves. The
// conditions stand in the statement, so that an ending that commits first wins.
func (t *Tx) CountRelease(grant, record vault.ID) (refetch bool, err error) {
	fresh, err := t.changed("INSERT INTO released (grant_id, record_id) VALUES ($1, $2) ON CONFLICT DO NOTHING", grant.String(), record.String())
	if err != nil {
		return false, err
	}
	n, err := t.changed(`UPDATE grants SET released = released + $1
		WHERE id = $2 AND state = 'active' AND ends > $3 AND released + $1 <= max_records
		AND epoch = (SELECT epoch FROM contractors WHERE name = grants.contractor AND suspended = 0)`,
		fresh, grant.String(), micros(t.now))
	if err != nil || n == 1 {
		return fresh == 0, err
	}
	// The caller may commit its refusal, so the row must go whatever the reason.
	if fresh == 1 {
		if err := t.exec("DELETE FROM released WHERE grant_id = $1 AND record_id = $2", grant.String(), record.String()); err != nil {
			return false, err
		}
	}
	g, err := t.Grant(grant)
	if err != nil {
		return false, err
	}
	if err := g.Open(t.now); err != nil {
		return false, err
	}
	if g.Released+fresh > g.MaxRecords {
		return false, vault.E(vault.Exhausted, vault.ReasonQuotaExceeded, "grant %s has opened all %d records of its quota; request another for more", grant, g.MaxRecords)
	}
	return false, vault.E(vault.State, vault.ReasonGrantRevoked, "grant %s ended with a suspension of its contractor", grant)
}
