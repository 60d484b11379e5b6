package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portcullis/portcullis/internal/envelope"
)

// thief plays who has the service's whole disk, then also the contractor's token.
func (d *demo) thief(s *scene) {
	s.say("Somebody copies the database and all ciphertext, and tries to open them.")
	var err error
	d.loot, err = steal(s.ctx, d.service, filepath.Join(d.dir, "thief"))
	s.try(err)
	n := len(d.faces) + len(d.plates)
	s.check(len(d.loot.records) == n, fmt.Sprintf("stolen: %d records with their encrypted keys, %.1f MB of ciphertext", len(d.loot.records), float64(d.loot.bytes)/1e6),
		fmt.Sprintf("the thief must find %d records, not %d", n, len(d.loot.records)))
	s.check(d.loot.packed >= d.loot.bytes, "the ciphertext is noise: it does not compress by a single byte",
		fmt.Sprintf("the ciphertext is no noise: %d bytes compress to %d", d.loot.bytes, d.loot.packed))
	if s.err != nil {
		return
	}
	face, err := d.loot.of("face")
	s.try(err)
	plate, err := d.loot.of("plate")
	s.try(err)

	s.say("The keys lie encrypted in that database, and only Vault decrypts them. So the thief asks Vault: with nothing, with an invented token, " +
		"and with each of the three credentials that the daemon itself holds, alone.")
	s.vaultRefuses("without a token", "", plate)
	s.vaultRefuses("with an invented token", "hvs.CAESIJ-made-up-by-a-thief", plate)
	for _, name := range []string{"capture", "grants", "admin"} {
		token, err := d.hashi.login(s.ctx, d.credential(name))
		s.try(err)
		s.vaultRefuses("with the daemon's "+name+" credential", token, plate)
	}

	s.say("The grants credential can have Vault make tokens, but only for grants that admins have approved. (Whoever has the grants and the admin credential " +
		"together could make a grant at Vault, so a stolen daemon must be answered by new credentials.)")
	s.mintRefused("root")
	s.mintRefused("portcullis-admin")

	s.say("Worse: the thief also has the contractor's live grant token, and uses it at Vault directly, past Portcullis. " +
		"It opens what the grant covers, plates of this site and day (Vault's own log names each such call), and nothing more:")
	s.vaultOpens("a plate that the grant covers", d.token, plate)
	s.vaultRefuses("a face, with its key from the stolen database", d.token, face)
	other := plate
	other.key = strings.Replace(plate.key, site, "south-gate", 1)
	s.vaultRefuses("a plate of another site", d.token, other)
}

// vaultRefuses asks Vault directly to open a data key, which must fail with 403.
func (s *scene) vaultRefuses(what, token string, r stolen) {
	s.vault(what, token, r, func(a answer) bool { return a.status == http.StatusForbidden }, "refused by Vault")
}

// vaultOpens asks Vault directly to open a data key, which must succeed: without it, a
// refusal beside it would show nothing.
func (s *scene) vaultOpens(what, token string, r stolen) {
	s.vault(what, token, r, func(a answer) bool { return len(a.dataKey()) == envelope.KeySize }, "opened by Vault")
	if s.err == nil {
		s.direct++
	}
}

// mintRefused tries to make a token of a policy that is no grant's.
func (s *scene) mintRefused(policy string) {
	if s.err != nil {
		return
	}
	token, err := s.hashi.login(s.ctx, s.credential("grants"))
	s.try(err)
	if s.err != nil {
		return
	}
	a, err := s.hashi.mint(s.ctx, token, policy)
	s.try(err)
	s.check(a.status >= 400 && a.status < 500 && a.Auth.ClientToken == "", fmt.Sprintf("a token of the policy %q: refused by Vault (%d)", policy, a.status),
		fmt.Sprintf("a token of the policy %q must be refused; the status is %d", policy, a.status))
}

// credential names the file of one of the daemon's credentials at Vault.
func (d *demo) credential(name string) string {
	return filepath.Join(d.service, "credentials", name+".json")
}

func (s *scene) vault(what, token string, r stolen, as func(answer) bool, good string) {
	if s.err != nil {
		return
	}
	a, err := s.hashi.unwrap(s.ctx, token, r.key, r.wrapped)
	s.try(err)
	s.check(as(a), fmt.Sprintf("%s: %s (%d)", what, good, a.status),
		fmt.Sprintf("%s: must be %s, but the status is %d, a data key came: %t, and Vault says %q", what, good, a.status, a.dataKey() != nil, a.Errors))
}

// forgery writes to the database past the service.
func (d *demo) forgery(s *scene) {
	s.say("Somebody who can write to the database gives out a grant that no admin has signed: a new request, set by hand to \"approved\", " +
		"and to \"Vault is to be told\".")
	var got grantAnswer
	s.run(&got, "contractor", d.request(purpose, "plate", mostPlates, "work order 4713")...)
	pending := strings.TrimPrefix(got.Grant.Name, "grants/")
	s.forged(pending, []column{{"state", "approved"}, {"fence", "due"}}, func() {
		s.refused("GRANT_TAMPERED", "contractor", "grant", "activate", pending)
	})
	s.say("Then they widen a grant that is good and running: from plates to faces too.")
	s.forged(d.grant, []column{{"modalities", "face,plate"}}, func() {
		s.refused("GRANT_TAMPERED", "contractor", "fetch", d.grant, "--out", "contractor/forged")
	})
	s.say("The approvers' signatures are over the exact terms, so every change shows. Set back, the good grant works again:")
	var again fetched
	s.run(&again, "contractor", "fetch", d.grant, "--out", "contractor/again", "--handle", d.handle)
	s.check(again.Fetched == 1, "it opens what it opened before", "the grant that was set back must open its record")
	s.refused("GRANT_PENDING", "contractor", "grant", "activate", pending)
}

// forged changes columns of a grant, plays, and sets them back.
func (s *scene) forged(grant string, columns []column, play func()) {
	if s.err != nil {
		return
	}
	var set []string
	for _, c := range columns {
		set = append(set, fmt.Sprintf("%s = '%v'", c.name, c.value))
	}
	s.tell.command(typed("sqlite3", "service/facts.db", fmt.Sprintf("UPDATE grants SET %s WHERE id = '%s'", strings.Join(set, ", "), grant)))
	db := filepath.Join(s.service, "facts.db")
	before, err := forge(s.ctx, db, grant, columns)
	if err != nil {
		s.try(err)
		return
	}
	play()
	_, err = forge(s.ctx, db, grant, before)
	s.try(err)
}

// downloaders is how many copies of the contractor's program fetch at once.
const downloaders = 3

// revoke ends the first grant while the contractor is downloading.
func (d *demo) revoke(s *scene) {
	stands, err := d.hashi.fence(s.ctx, d.grant)
	s.try(err)
	if s.err == nil && !stands {
		s.fail("Vault must have a policy for the running grant")
	}
	if s.err != nil {
		return
	}
	s.say("The contractor downloads the plates again and again, with %d programs at once. Meanwhile alice ends the grant.", downloaders)
	ctx, cancel := context.WithTimeout(s.ctx, callTimeout)
	defer cancel()
	var came atomic.Int64
	var all sync.WaitGroup
	ends := make([]result, downloaders)
	fails := make([]error, downloaders)
	s.tell.command(typed("portcullis", "--profile", "contractor", "fetch", d.grant, "--out", "contractor/round-N") + "   (in the background, over and over)")
	for i := range downloaders {
		all.Go(func() { ends[i], fails[i] = d.download(ctx, i, &came) })
	}
	enough := int64(3 * len(d.plates))
	for came.Load() < enough && ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond)
	}
	var got grantAnswer
	s.run(&got, "alice", "grant", "revoke", d.grant, "--note", "incident 12")
	all.Wait()
	for i := range ends {
		s.try(fails[i])
		s.check(ends[i].reason == "GRANT_REVOKED", fmt.Sprintf("program %d was stopped: %s", i+1, ends[i].reason),
			fmt.Sprintf("program %d must be stopped by GRANT_REVOKED, not by %q (%s)", i+1, ends[i].reason, ends[i].said))
	}
	s.endedWell(got.Barrier)
	s.say("The command line has thrown the dead token away. Here is one that kept a copy of it:")
	s.try(d.putBack())
	s.refused("GRANT_REVOKED", "contractor", "fetch", d.grant, "--out", "contractor/late")
	if s.err != nil {
		return
	}
	stands, err = d.hashi.fence(s.ctx, d.grant)
	s.try(err)
	s.check(!stands, "and the policy that let Vault honour the grant allows nothing any more", "the policy of the revoked grant still stands in Vault")
	plate, err := d.loot.of("plate")
	s.try(err)
	s.vaultRefuses("the same token at Vault directly, for the plate that it opened before", d.token, plate)

	s.say("Did anything leave after the revocation? The log has one order for everything:")
	var before, after int
	for _, e := range s.events("record.released", "grant.revoked") {
		switch {
		case s.err != nil || e.Event.Type != "record.released" || e.Event.Grant != d.grant:
		case e.Index < got.Barrier.EventIndex:
			before++
		default:
			after++
		}
	}
	s.check(after == 0 && before > len(d.plates)+int(came.Load()), fmt.Sprintf("%d releases of this grant before entry %d, which revoked it; none after", before, index(got.Barrier)),
		fmt.Sprintf("%d releases stand before the revocation, %d after it, and %d pictures had come", before, after, came.Load()))
}

// index gives the log entry of an ending.
func index(b *barrier) int64 {
	if b == nil {
		return -1
	}
	return b.EventIndex
}

// download fetches the grant's images over and over until the service refuses. A connection
// that the service cuts is no answer yet: like any program, it tries again and is told why.
func (d *demo) download(ctx context.Context, i int, came *atomic.Int64) (r result, err error) {
	for round := 0; ; round++ {
		out := fmt.Sprintf("contractor/round-%d-%d", i, round)
		if r, err = d.call(ctx, "contractor", "fetch", d.grant, "--out", out); err != nil {
			return r, err
		}
		if r.code == exitRefused {
			return r, nil
		}
		if r.code == exitOK {
			came.Add(int64(len(d.plates)))
		}
	}
}

// putBack puts a copy of the first grant's token where the command line keeps it, at once for
// those who read it.
func (d *demo) putBack() error {
	f, err := os.CreateTemp(d.dir, "token-") // of mode 0600
	if err != nil {
		return err
	}
	_, err = f.WriteString(d.token + "\n")
	return errors.Join(err, f.Close(), os.Rename(f.Name(), d.kept))
}

// endedWell checks what an ending says of itself.
func (s *scene) endedWell(b *barrier) {
	if s.err != nil {
		return
	}
	if b == nil {
		s.fail("the answer does not say how access ended")
		return
	}
	waited, err := time.ParseDuration(b.Waited)
	s.try(err)
	s.check(b.VaultDone, fmt.Sprintf("when the command came back, everything under way had ended (%d connections reset, %d transfers cut, %s), and Vault enforced it too",
		b.Connections, b.Sends, waited.Round(time.Microsecond)), "Vault must enforce the ending when the command comes back")
}

// breach suspends the contractor.
func (d *demo) breach(s *scene) {
	s.say("News comes that %s was hacked. It holds a fresh, valid grant:", contractor)
	grant, token := s.newGrant(mostPlates, "work order 4714")
	var got fetched
	s.run(&got, "contractor", "fetch", grant, "--out", "contractor/fresh")
	d.note(grant, got)
	plate, err := d.loot.of("plate")
	s.try(err)
	s.check(got.Fetched == len(d.plates), "it works", "the fresh grant must open all plates")
	s.vaultOpens("its token at Vault directly", token, plate)

	s.say("One command by one admin, no list of grants to go through:")
	var cut struct {
		Ended   int `json:"grants_ended"`
		Barrier *barrier
	}
	s.run(&cut, "alice", "contractor", "suspend", contractor, "--note", "incident 12")
	s.check(cut.Ended >= 1, fmt.Sprintf("suspended; %d open grants and requests ended with it", cut.Ended), "the suspension must end the open grants")
	s.endedWell(cut.Barrier)
	s.refused("CONTRACTOR_SUSPENDED", "contractor", "fetch", grant, "--out", "contractor/hacked")
	s.refused("CONTRACTOR_SUSPENDED", "contractor", d.request(purpose, "plate", 1, "work order 4715")...)
	s.vaultRefuses("its token at Vault directly, past Portcullis", token, plate)
}
