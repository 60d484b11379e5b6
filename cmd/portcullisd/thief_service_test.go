package main

import (
	"crypto"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

// door is the service as it is met by whoever has a certificate, or none. It does not retry.
type door struct {
	th      *burglar
	grants  pb.GrantServiceClient
	release pb.ReleaseServiceClient
}

// door knocks at the processes that answer contractors.
func (th *burglar) door(as *tls.Certificate) *door {
	config := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true} // a thief trusts anybody
	if as != nil {
		config.Certificates = []tls.Certificate{*as}
	}
	dial := func(role string) *grpc.ClientConn {
		c, err := grpc.NewClient("passthrough:///"+th.at[role], grpc.WithTransportCredentials(credentials.NewTLS(config)))
		noError(th.t, err)
		th.t.Cleanup(func() { c.Close() })
		return c
	}
	return &door{th, pb.NewGrantServiceClient(dial(roleGrants)), pb.NewReleaseServiceClient(dial(roleRelease))}
}

func (d *door) activate(h *held) (vault.Token, error) {
	got, err := d.grants.ActivateGrant(d.th.t.Context(), &pb.ActivateGrantRequest{Name: h.name})
	if err != nil {
		return vault.Token{}, err
	}
	return vault.TokenOf(got.GrantToken), nil
}

// fetch asks for a record under a grant. The handle it makes by itself, from the grant's row.
func (d *door) fetch(of deed, t vault.Token, record vault.ID) (opened bool, why string) {
	h := of.handles.Handle(record).String()
	got, err := d.release.FetchImage(d.th.t.Context(), &pb.FetchImageRequest{Grant: "grants/" + of.id, GrantToken: t.Reveal(), Handle: h})
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			why = info.Reason
		}
	}
	return err == nil && d.th.take(record, got.Image.Data), why
}

// ofRecord are refusals of one record. What is refused otherwise is refused for all: nobody looked at the record.
var ofRecord = []string{
	string(vault.ReasonHandleUnknown), string(vault.ReasonKeyRefused), string(vault.ReasonKeyRevoked), string(vault.ReasonKeyDestroyed),
	string(vault.ReasonDataLoss), string(vault.ReasonQuotaExceeded), string(vault.ReasonBytesExceeded), string(vault.ReasonRateExceeded),
	string(vault.ReasonBucketOpen), string(vault.ReasonBucketSmall),
}

// through opens under a grant what it can through the service.
func (th *burglar) through(d *door, h *held, t vault.Token) {
	th.t.Helper()
	of := th.deed(h)
	open := func(r vault.Record) bool { opened, _ := d.fetch(of, t, r.ID); return opened }
	shown := map[vault.ID]bool{}
	listing, err := d.release.ListRecords(th.t.Context(), &pb.ListRecordsRequest{Grant: h.name, GrantToken: t.Reveal()})
	for _, v := range listing.GetRecords() {
		handle, err := vault.ParseHandle("handle", v.Handle)
		noError(th.t, err)
		shown[of.handles.Record(handle)] = true
	}
	if err != nil {
		if opened, why := d.fetch(of, t, th.listed[0]); !opened && !slices.Contains(ofRecord, why) {
			return
		}
	}
	th.try(slices.DeleteFunc(slices.Clone(th.records), func(r vault.Record) bool { return !shown[r.ID] || th.has(r.ID) }), open)
	th.sample(open)
}

// kept are the tables that a thief forges and the test sets back, besides that of records, which are many. The log is
// not among them.
var kept = []string{
	"grants", "signatures", "decisions", "purposes", "contractors", "released", "opened", "record_lists",
	"earlier_tokens", "suspended_callers",
}

// keepRows remembers the rows of the kept tables and of others, and gives what writes them again.
func (s *scene) keepRows(others ...string) (restore func()) {
	s.t.Helper()
	attach := fmt.Sprintf("ATTACH '%s/rows-%s.db' AS was", s.folder, vault.NewID())
	keep, back := []string{attach, "BEGIN"}, []string{attach, "BEGIN IMMEDIATE"}
	for _, table := range append(kept[:len(kept):len(kept)], others...) {
		keep = append(keep, "CREATE TABLE was."+table+" AS SELECT * FROM main."+table)
		back = append(back, "DELETE FROM main."+table, "INSERT INTO main."+table+" SELECT * FROM was."+table)
	}
	s.statements(append(keep, "COMMIT")...)
	return func() {
		s.t.Helper()
		s.statements(append(back, "COMMIT")...)
	}
}

// statements runs statements on one connection.
func (s *scene) statements(all ...string) {
	s.t.Helper()
	db := openSQL(s.t, s.cfg.Store.Path)
	defer db.Close()
	conn, err := db.Conn(s.t.Context())
	noError(s.t, err)
	defer conn.Close()
	for _, text := range all {
		if _, err := conn.ExecContext(s.t.Context(), text); err != nil {
			s.t.Fatalf("%s: %v", text, err)
		}
	}
}

// forgery is rows that a thief writes: statements in which {NAME} stands for a value.
type forgery struct {
	name string
	sql  []string
	wait bool                          // until the service has given Vault what the rows say that it owes
	by   func(th *burglar, mine *held) // writes rows that take more than SQL; may be nil
}

// forge writes the rows, each of which must change something.
func (s *scene) forge(f forgery, values map[string]string) {
	s.t.Helper()
	db := openSQL(s.t, s.cfg.Store.Path)
	defer db.Close()
	for _, text := range f.sql {
		for name, value := range values {
			text = strings.ReplaceAll(text, "{"+name+"}", value)
		}
		res, err := db.ExecContext(s.t.Context(), text)
		var n int64
		if err == nil {
			n, err = res.RowsAffected()
		}
		if err != nil || n == 0 {
			s.t.Fatalf("forgery %q: %s: changed %d rows: %v", f.name, text, n, err)
		}
	}
	if f.wait {
		s.sweepAll()
	}
}

// values are what forgeries are made of: the thief's own request, others' grants, a token it chose.
func (th *burglar) values(mine *held) map[string]string {
	t := th.t
	t.Helper()
	db := openSQL(t, th.cfg.Store.Path)
	defer db.Close()
	var body []byte
	noError(t, db.QueryRowContext(t.Context(), "SELECT body FROM purposes WHERE name = 'wide'").Scan(&body))
	var easy vault.Purpose // sanctioned by the thief, for one approval
	noError(t, json.Unmarshal(body, &easy))
	easy.Approvals = 1
	easier, err := json.Marshal(easy)
	noError(t, err)
	easy.Version, easy.Replaces = 2, vault.Digest{}
	newer, err := json.Marshal(easy)
	noError(t, err)
	var first vault.Purpose
	noError(t, json.Unmarshal(easier, &first))
	first2, easy2 := first.Digest(), easy.Digest()
	digest := th.chosen.Digest()
	var everything []string
	for _, r := range th.records {
		everything = append(everything, r.ID.String())
	}
	return map[string]string{
		"MINE": id(mine.name), "ME": "spiffe://" + devDomain + mine.path(), "ORG": mine.org, "CHOSEN": fmt.Sprintf("x'%x'", digest[:]),
		"PREFIX": id(th.grants["prefix-co"].name), "LIST": id(th.grants["list-co"].name),
		"BODY": string(easier), "BODY2": string(newer), "DIGEST": fmt.Sprintf("x'%x'", first2[:]), "DIGEST2": fmt.Sprintf("x'%x'", easy2[:]),
		"BOB": "spiffe://" + devDomain + bob, "ALL": strings.Join(everything, ","),
		"FIRST": fmt.Sprint(th.days[0].UnixMicro()), "LAST": fmt.Sprint(th.days[4].Add(24 * time.Hour).UnixMicro()),
		"NOON": fmt.Sprint(th.days[1].Add(12 * time.Hour).UnixMicro()), "DAY": fmt.Sprint(th.days[1].UnixMicro()),
	}
}

const (
	activate1 = "UPDATE grants SET state = 'active', fence = 'written', token_digest = {CHOSEN} WHERE id = '{MINE}'"
	approve1  = "UPDATE grants SET state = 'approved', fence = 'due' WHERE id = '{MINE}'"
	unused1   = "UPDATE grants SET released = 0, released_bytes = 0, minute_count = 0, excess = 0 WHERE id = '{MINE}'"
	unused2   = "DELETE FROM released WHERE grant_id = '{MINE}'"
	copied1   = "INSERT OR REPLACE INTO signatures SELECT '{MINE}', signer, signed_at, signature, chain FROM signatures WHERE decision_id = '{PREFIX}'"
)

// forgedGrants let somebody in who has a request of all that there is, which one of two admins signed.
var forgedGrants = []forgery{
	{"active, with a token of the thief's choice", []string{activate1}, false, nil},
	{"approved", []string{approve1}, true, nil},
	{"approvals copied from another grant", []string{copied1, approve1}, true, nil},
	{"approvals copied from another grant, and active", []string{copied1, activate1}, false, nil},
	{"the one approval, under the other admin's name too", []string{
		"INSERT INTO signatures SELECT decision_id, '{BOB}', signed_at, signature, chain FROM signatures WHERE decision_id = '{MINE}'", approve1}, true, nil},
	{"one approval wanted", []string{"UPDATE grants SET approvals = 1 WHERE id = '{MINE}'", approve1}, true, nil},
	{"one approval wanted by the purpose", []string{
		"UPDATE purposes SET body = '{BODY}' WHERE name = 'wide'", "UPDATE grants SET approvals = 1, purpose_digest = {DIGEST} WHERE id = '{MINE}'", approve1}, true, nil},
	{"one approval wanted by a newer version of the purpose", []string{
		"INSERT INTO purposes SELECT name, 2, '{BODY2}', decision_id FROM purposes WHERE name = 'wide'",
		"UPDATE grants SET approvals = 1, purpose_version = 2, purpose_digest = {DIGEST2} WHERE id = '{MINE}'", approve1}, true, nil},
	{"the request's decision counts as made", []string{"UPDATE decisions SET need = 0, effective = 1", approve1}, false, nil},
	{"another's live grant given to the thief", []string{
		"UPDATE grants SET grantee = '{ME}', contractor = '{ORG}', token_digest = {CHOSEN} WHERE id = '{PREFIX}'"}, false, nil},
	{"another's live grant, with the thief's terms", []string{`UPDATE grants SET (grantee, contractor, sites, modalities, captured_from, captured_until, max_records) =
		(SELECT grantee, contractor, sites, modalities, captured_from, captured_until, max_records FROM grants WHERE id = '{MINE}'),
		token_digest = {CHOSEN} WHERE id = '{PREFIX}'`}, false, nil},
	{"a list of everything, for the thief", []string{
		"UPDATE record_lists SET contractor = '{ORG}', records = '{ALL}'",
		"UPDATE grants SET grantee = '{ME}', contractor = '{ORG}', records = '{ALL}', token_digest = {CHOSEN} WHERE id = '{LIST}'"}, false, nil},
	{"the thief made an affiliate, and nothing opened yet", []string{
		"UPDATE contractors SET conflict_group = 'prefix-co' WHERE name = '{ORG}'", "DELETE FROM opened", approve1}, false, nil},
	{"an admission copied from another contractor", []string{
		"UPDATE contractors SET decision_id = (SELECT decision_id FROM contractors WHERE name = 'prefix-co') WHERE name = '{ORG}'", approve1}, false, nil},
}

// widened give a grantee more than its live grant allows.
var widened = []forgery{
	{"the quota not used yet", []string{unused1, unused2}, true, nil},
	{"a larger quota", []string{"UPDATE grants SET max_records = 5000, max_bytes = max_bytes * 2 WHERE id = '{MINE}'"}, false, nil},
	{"all sites", []string{unused1, unused2, "UPDATE grants SET sites = 'north-gate,south-gate' WHERE id = '{MINE}'"}, false, nil},
	{"both modalities", []string{unused1, unused2, "UPDATE grants SET modalities = 'face,plate' WHERE id = '{MINE}'"}, false, nil},
	{"all days", []string{unused1, unused2, "UPDATE grants SET captured_from = {FIRST}, captured_until = {LAST} WHERE id = '{MINE}'"}, false, nil},
	{"everything, and the fence to be written", []string{unused1, unused2, `UPDATE grants SET sites = 'north-gate,south-gate', modalities = 'face,plate', captured_from = {FIRST},
		captured_until = {LAST}, fence = 'due' WHERE id = '{MINE}'`}, true, nil},
	{"a longer life", []string{"UPDATE grants SET ends = ends + 3600000000 WHERE id = '{MINE}'"}, false, nil},
	{"a list of everything", []string{
		unused1, unused2, "UPDATE grants SET list = (SELECT id FROM record_lists), records = '{ALL}' WHERE id = '{MINE}'", "UPDATE record_lists SET records = '{ALL}'"}, false, nil},
	{"records of the morning moved into the window", []string{
		unused1, unused2, "UPDATE records SET captured_at = captured_at + 43200000000 WHERE captured_at >= {DAY} AND captured_at < {NOON} AND site = 'north-gate' AND modality = 'plate'"}, false, nil},
	{"other records moved into the scope", []string{
		unused1, unused2, "UPDATE records SET site = 'north-gate', modality = 'plate', captured_at = {NOON} WHERE (site = 'south-gate' OR modality = 'face') AND captured_at % 86400000000 > 72000000000"}, false, nil},
	{"other records' keys under the names of those in scope", []string{
		`UPDATE records SET wrapped_key = (SELECT o.wrapped_key FROM records o WHERE o.site = 'south-gate' LIMIT 1) WHERE site = 'north-gate'`}, false, nil},
	{"nothing opened yet, by any contractor", []string{"DELETE FROM opened"}, false, nil},
}

// revived are an ended grant that goes on.
var revived = []forgery{
	{"active again", []string{
		"UPDATE contractors SET suspended = 0", "UPDATE grants SET state = 'active', fence = 'written', ends = MAX(ends, 1000000 * (unixepoch() + 3600)) WHERE id = '{MINE}'"}, false, nil},
	{"approved again", []string{
		"UPDATE contractors SET suspended = 0", "UPDATE grants SET state = 'approved', fence = 'due' WHERE id = '{MINE}'"}, true, nil},
	{"approved again, of the contractor's new epoch", []string{
		"UPDATE contractors SET suspended = 0, disabled_epoch = 0, epoch = epoch + 1 WHERE name = '{ORG}'",
		"UPDATE grants SET state = 'approved', fence = 'due', epoch = epoch + 1, accessor = '' WHERE id = '{MINE}'"}, true, nil},
	{"approved again, of the contractor's old epoch", []string{
		"UPDATE contractors SET suspended = 0, disabled_epoch = 0, epoch = 1 WHERE name = '{ORG}'",
		"UPDATE grants SET state = 'approved', fence = 'due', accessor = '', ends = MAX(ends, 1000000 * (unixepoch() + 3600)) WHERE id = '{MINE}'"}, true, nil},
}

// tamper tries forgeries one after the other, each with these certificates and tokens, and sets the rows back.
// What it comes to it shows to the service, and past it, to Vault as well.
func (th *burglar) tamper(forgeries []forgery, mine *held, past bool, tokens []vault.Token, as ...*tls.Certificate) {
	th.t.Helper()
	values := th.values(mine)
	var doors []*door
	for _, c := range as {
		doors = append(doors, th.door(c))
	}
	targets := []*held{mine}
	if mine.org == "thief-co" {
		targets = append(targets, th.grants["prefix-co"], th.grants["list-co"])
	}
	for _, f := range forgeries {
		var others []string
		if strings.Contains(strings.Join(f.sql, ";"), "UPDATE records SET") {
			others = []string{"records"}
		}
		restore := th.keepRows(others...)
		before := th.count()
		if f.by != nil {
			f.by(th, mine)
		}
		th.forge(f, values)
		th.read()
		for _, d := range doors {
			all := append([]vault.Token{th.chosen}, tokens...)
			for _, h := range targets {
				for _, t := range all {
					th.through(d, h, t)
				}
				if !past && !f.wait { // a new token instead of a good one, each time
					continue
				}
				t, err := d.activate(h)
				if err != nil {
					continue
				}
				th.reopened[h] = true
				all = append(all, t)
				th.through(d, h, t)
				if past {
					th.sweep(t.Reveal())
				}
			}
		}
		th.wrote = th.wrote || f.wait // the service may close the fence of a grant that is not what was signed
		restore()
		if th.reopened[mine] {
			th.open(mine)
			tokens = []vault.Token{mine.token}
		}
		th.read()
		if n := th.count() - before; n > 0 {
			th.t.Logf("     %s: %d images more", f.name, n)
		}
	}
}

// signFalsely signs a request in the names of admins, with keys and certificates of the thief's.
func (th *burglar) signFalsely(mine *held, as func(admin string) *tls.Certificate) {
	t := th.t
	t.Helper()
	got, err := th.to(roleGrants, mine.path()).Grants.GetGrant(t.Context(), &pb.GetGrantRequest{Name: mine.name})
	noError(t, err)
	terms, err := wire.ParseTerms(got.Grant)
	noError(t, err)
	db := openSQL(t, th.cfg.Store.Path)
	defer db.Close()
	for _, admin := range []string{alice, bob} {
		pair := as(admin)
		sig, err := vault.Sign(terms.Decision(), pair.PrivateKey.(crypto.Signer), pair.Certificate, time.Now())
		noError(t, err)
		chain, err := json.Marshal(sig.Chain)
		noError(t, err)
		_, err = db.ExecContext(t.Context(), "INSERT OR REPLACE INTO signatures (decision_id, signer, signed_at, signature, chain) VALUES (?, ?, ?, ?, ?)",
			terms.Grant.String(), "spiffe://"+devDomain+admin, sig.SignedAt.UnixMicro(), sig.Bytes, string(chain))
		noError(t, err)
	}
}

// falselySigned are the thief's request with signatures in the names of both admins.
var falselySigned = []forgery{
	{name: "signed by admins of another authority", sql: []string{approve1}, wait: true, by: func(th *burglar, mine *held) {
		th.signFalsely(mine, th.forgedIdentity)
	}},
	{name: "signed by the thief's own certificate", sql: []string{approve1}, wait: true, by: func(th *burglar, mine *held) {
		th.signFalsely(mine, func(string) *tls.Certificate { return th.identity(mine.path()) })
	}},
}
