package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// keyWork is what commands on keys answer.
type keyWork struct {
	Decision struct{ State string }
	KeyWork  *struct {
		Records     int64 `json:"records,string"`
		Barrier     *barrier
		Certificate string
	} `json:"key_work"`
}

// keys reinstates the contractor, then revokes, restores and destroys keys.
func (d *demo) keys(s *scene) {
	s.say("The contractor has cleaned up, and two admins take it back. Its old grants stay dead; it asks anew.")
	s.twoSign("contractor", "contractor.yaml", "the contractor is back")
	s.try(d.putBack())
	s.refused("GRANT_REVOKED", "contractor", "fetch", d.grant, "--out", "contractor/old")
	grant, token := s.newGrant(mostPlates, "work order 4716")
	handles := s.handles(grant)
	plate, err := d.loot.of("plate")
	s.try(err)
	if s.err != nil {
		return
	}
	one := []string{"fetch", grant, "--handle", handles[0], "--out"}
	fetchTo := func(folder string) []string { return append(one[:len(one):len(one)], folder) }

	s.say("Then doubts about the plates of that day. While it is unclear what is safe, one admin takes the keys themselves away. The grant is live, and opens nothing:")
	var got keyWork
	s.run(&got, "alice", append(append([]string{"key", "revoke"}, d.selection("plate")...), "--note", "incident 12")...)
	s.changed(got, len(d.plates), "keys revoked")
	s.refused("KEY_REVOKED", "contractor", fetchTo("contractor/revoked")...)
	s.vaultClosed("the live token at Vault directly", token, plate)

	s.say("It was a false alarm. Undoing it takes two:")
	got = keyWork{}
	restore := append(append([]string{"key", "restore"}, d.selection("plate")...), "--yes")
	s.run(&got, "alice", restore...)
	s.check(got.Decision.State == "STATE_OPEN", "signed by alice; still revoked", "one admin's signature must not restore keys")
	s.refused("KEY_REVOKED", "contractor", fetchTo("contractor/revoked")...)
	got = keyWork{}
	s.run(&got, "bob", restore...)
	s.changed(got, len(d.plates), "signed by bob: keys restored")
	var back fetched
	s.run(&back, "contractor", fetchTo("contractor/restored")...)
	d.note(grant, back)
	s.check(back.Fetched == 1, "the grant opens its pictures again", "a restored key must open its record")
	s.vaultOpens("and so does the token at Vault directly", token, plate)

	s.say("In the end everything of that day is to go for good. Two admins destroy the keys: what was stored becomes noise, here, " +
		"in every backup of the ciphertext, and in the thief's copy.")
	destroy := append(append([]string{"key", "destroy"}, d.selection("")...), "--yes", "--certificate", "certificate.txt")
	got = keyWork{}
	s.run(&got, "alice", destroy...)
	s.check(got.Decision.State == "STATE_OPEN", "signed by alice; nothing is destroyed yet", "one admin's signature must not destroy keys")
	a, err := d.hashi.key(s.ctx, plate.key)
	s.try(err)
	s.check(a.status == http.StatusOK, "the key is still in Vault (200)", fmt.Sprintf("the key must still be in Vault, which answers %d", a.status))
	got = keyWork{}
	s.run(&got, "bob", destroy...)
	s.changed(got, len(d.faces)+len(d.plates), "signed by bob: keys destroyed")
	s.gone(grant, fetchTo("contractor/destroyed"), plate)
}

// changed checks that a command changed as many keys as it should, in Vault too.
func (s *scene) changed(got keyWork, want int, what string) {
	if s.err != nil {
		return
	}
	w := got.KeyWork
	if w == nil || w.Records != int64(want) || w.Barrier == nil || !w.Barrier.VaultDone {
		s.fail("the keys of %d records must have changed, in Vault too; the answer says %+v", want, w)
		return
	}
	s.check(true, fmt.Sprintf("%s: %d records, in Vault too", what, w.Records), "")
}

// vaultClosed asks Vault directly to open a data key, which must fail, however it says so.
func (s *scene) vaultClosed(what, token string, r stolen) {
	s.vault(what, token, r, func(a answer) bool { return a.status >= 400 && a.status < 500 && a.dataKey() == nil }, "refused by Vault")
}

// gone checks that the keys are gone everywhere, and shows the certificate.
func (s *scene) gone(grant string, fetch []string, plate stolen) {
	s.refused("KEY_DESTROYED", "contractor", fetch...)
	for name, state := range s.keyStates("") {
		if state != "destroyed" {
			s.fail("key %s is %s, not destroyed", name, state)
		}
	}
	if s.err != nil {
		return
	}
	for _, r := range s.loot.records {
		a, err := s.hashi.key(s.ctx, r.key)
		s.try(err)
		if s.err == nil && a.status != http.StatusNotFound {
			s.fail("Vault must answer 404 for %s, not %d", r.key, a.status)
		}
	}
	s.check(true, fmt.Sprintf("Vault, asked as root for each of the %d keys: 404", len(s.loot.records)), "")
	s.vaultClosed("the thief comes back, with yesterday's copy and Vault's root token", s.hashi.root, plate)
	left, err := blobs(filepath.Join(s.service, "blobs"))
	s.try(err)
	s.check(len(left) == 0, "no ciphertext is left on the disk", fmt.Sprintf("%d sealed pictures are left on the disk", len(left)))

	text, err := os.ReadFile(filepath.Join(s.dir, "certificate.txt"))
	s.try(err)
	listed := strings.Count(string(text), "\ndestroyed: ")
	s.check(listed == len(s.loot.records) && strings.Contains(string(text), "\nsignature: "),
		fmt.Sprintf("the certificate, signed by the service, names all %d keys and says what it does not cover:", listed),
		fmt.Sprintf("the certificate must name %d keys and be signed; it names %d", len(s.loot.records), listed))
	if s.err == nil {
		s.tell.lines(brief(string(text)))
	}
}

// brief shortens a certificate for the screen: two of its keys, and no long line.
func brief(text string) string {
	var b strings.Builder
	keys := 0
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "destroyed: ") {
			if keys++; keys == 3 {
				b.WriteString("…\n")
			}
			if keys >= 3 {
				continue
			}
		}
		if r := []rune(strings.TrimSuffix(line, "\n")); len(r) > lineWidth {
			line = string(r[:lineWidth-1]) + "…\n"
		}
		b.WriteString(line)
	}
	return b.String()
}
