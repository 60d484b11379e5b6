package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/portcullis/portcullis/internal/devservice"
)

// start starts daemon and Vault, and asks each profile who it is.
func (d *demo) start(s *scene) {
	s.say("Portcullis keeps pictures of faces and licence plates so that they can be used for what was agreed, and for nothing else. " +
		"What follows is real: a HashiCorp Vault, the Portcullis daemon, and commands that prove who they are by certificates. " +
		"Every ✓ is something that was checked; the first ✗ ends the demonstration.")
	s.tell.command(typed("portcullisd", "dev", "--dir", "service"))
	began := time.Now()
	daemon, err := devservice.Start(s.ctx, d.daemonBin(), d.service, d.serviceLog(), d.env)
	if err != nil {
		s.try(err)
		return
	}
	d.daemon = daemon
	d.hashi, err = openHashi(d.service)
	s.try(err)
	s.check(true, fmt.Sprintf("Vault and the daemon serve after %.1f s", time.Since(began).Seconds()), "")

	s.say("Five people and machines take part. Each has a certificate, and with it a role; there are no passwords.")
	for _, p := range []struct{ profile, id, what string }{
		{"lane", "spiffe://portcullis.example/capture/" + site + "/lane-1", "a camera: stores pictures, opens none"},
		{"alice", "spiffe://portcullis.example/admin/alice", "an admin: decides, and sees no picture"},
		{"bob", "spiffe://portcullis.example/admin/bob", "another admin"},
		{"auditor", "spiffe://portcullis.example/auditor/auditor", "reads the log, and nothing else"},
	} {
		s.knownAs(p.profile, p.id, p.what)
	}
	s.say("The fifth is a company's program, which will ask to open pictures. Its certificate is good, but nobody has admitted the company:")
	s.refused("CONTRACTOR_UNKNOWN", "contractor", "whoami")
}

// knownAs checks whom the service takes a profile for.
func (s *scene) knownAs(profile, id, what string) {
	var me struct{ ID string }
	s.run(&me, profile, "whoami")
	s.check(me.ID == id, me.ID+" ("+what+")", fmt.Sprintf("the service takes %s for %q, not for %q", profile, me.ID, id))
}

// applied is what an apply command answers.
type applied struct {
	Results []struct {
		Name     string
		Decision struct{ State string }
	}
}

// inForce says whether the one thing that was applied is in force.
func (a applied) inForce() bool {
	return len(a.Results) == 1 && a.Results[0].Decision.State == "STATE_EFFECTIVE"
}

// open says whether it waits for another signature.
func (a applied) open() bool {
	return len(a.Results) == 1 && a.Results[0].Decision.State == "STATE_OPEN"
}

// sanction admits the contractor and sanctions the purpose.
func (d *demo) sanction(s *scene) {
	s.say("Nobody may ask for anything until two admins have admitted the contractor %s, and sanctioned a purpose: "+
		"%q, which allows plates, no faces, of the site %s. Each signs with a key of their own. One alone is not enough.", contractor, purpose, site)
	s.twoSign("contractor", "contractor.yaml", "the contractor is admitted")
	s.knownAs("contractor", "spiffe://portcullis.example/contractor/"+contractor+"/matcher", "may ask, for its own company")
	s.twoSign("purpose", "purpose.yaml", "the purpose is sanctioned")
}

// twoSign lets alice, then bob, apply a file.
func (s *scene) twoSign(noun, file, done string) {
	var first, second applied
	s.run(&first, "alice", noun, "apply", "service/"+file)
	s.check(first.open(), "signed by alice; not yet in force: it waits for another admin", "one admin's signature must leave it open")
	s.run(&second, "bob", noun, "apply", "service/"+file)
	s.check(second.inForce(), "signed by bob: "+done, "two admins' signatures must put it in force")
}

// storedImage is one line of what capture answers.
type storedImage struct {
	File, Status string
	Image        *struct {
		Record  string
		KeyName string `json:"key_name"`
	}
}

// store stores the pictures and compares the keys with Vault's own list.
func (d *demo) store(s *scene) {
	n := len(d.faces) + len(d.plates)
	s.say("The lane stores %d faces and %d plates. Each is cleaned of what the camera wrote beside the picture (place, time, names), "+
		"encrypted under a key of its own, and kept as ciphertext; the keys stay in Vault.", len(d.faces), len(d.plates))
	keys := map[string]bool{}
	for _, kind := range []string{"face", "plate"} {
		s.capture(kind, keys)
	}
	s.check(len(keys) == n, fmt.Sprintf("%d pictures stored, under %d different keys", n, len(keys)),
		fmt.Sprintf("%d pictures must have %d different keys, not %d", n, n, len(keys)))
	if s.err != nil {
		return
	}
	s.say("Does Vault see it the same way? Its own list of keys, compared with what Portcullis tells an admin:")
	atVault, err := d.hashi.keys(s.ctx)
	s.try(err)
	slices.Sort(atVault)
	listed := s.keyStates("")
	names := slices.Sorted(maps.Keys(listed))
	s.check(slices.Equal(atVault, names) && slices.Equal(names, slices.Sorted(maps.Keys(keys))),
		fmt.Sprintf("equal: %d keys in Vault, one for each record, and no other", len(atVault)),
		fmt.Sprintf("Vault holds %d keys, Portcullis lists %d, and %d pictures were stored", len(atVault), len(names), len(keys)))
}

// capture stores the camera's pictures of one kind and adds their keys.
func (s *scene) capture(kind string, keys map[string]bool) {
	if s.err != nil {
		return
	}
	args := []string{"capture", "camera/" + kind, "--modality", kind}
	s.tell.command(typed(append([]string{"portcullis", "--profile", "lane"}, args...)...))
	r, err := s.call(s.ctx, "lane", args...)
	s.try(err)
	for dec := json.NewDecoder(bytes.NewReader(r.stdout)); s.err == nil; {
		var line storedImage
		if err := dec.Decode(&line); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			s.fail("the answer does not read as JSON: %w", err)
			return
		}
		if line.Status != "stored" || line.Image == nil {
			s.fail("%s is %s, not stored", line.File, line.Status)
			return
		}
		keys[line.Image.KeyName] = true
	}
	if s.err == nil && r.code != exitOK {
		s.fail("storing ended with exit code %d: %s %s", r.code, r.reason, r.said)
	}
}

// keyStates gives what an admin sees: the states of keys by their names, of one modality or
// of all.
func (s *scene) keyStates(modality string) map[string]string {
	args := append([]string{"key", "list"}, s.selection(modality)...)
	var listed struct {
		Records []struct {
			KeyName  string `json:"key_name"`
			KeyState string `json:"key_state"`
		}
	}
	s.run(&listed, "alice", args...)
	out := map[string]string{}
	for _, r := range listed.Records {
		out[r.KeyName] = r.KeyState
	}
	return out
}

// selection names all records of the demonstration, or those of one modality.
func (d *demo) selection(modality string) []string {
	out := []string{"--site", site, "--from", d.from, "--until", d.until}
	if modality != "" {
		out = append(out, "--modality", modality)
	}
	return out
}

// search looks for readable pictures in all files of the service.
func (d *demo) search(s *scene) {
	all := slices.Concat(d.faces, d.plates)
	look, err := newSearcher(all)
	s.try(err)
	if s.err != nil {
		return
	}
	s.say("All files of the service, those of Vault included, are searched for the beginnings of JPEG and PNG files, " +
		"and for pieces of every stored picture. First, a test of the search itself, on the camera's own folder:")
	r, err := look.searchTree(s.ctx, s.dir+"/camera")
	s.try(err)
	s.check(r.pictures() == len(all), fmt.Sprintf("the search finds %d of %d pictures where they lie open", r.pictures(), len(all)),
		fmt.Sprintf("the search finds only %d of %d pictures where they lie open", r.pictures(), len(all)))
	s.nothingReadable(look)
}

// nothingReadable searches the service's directory.
func (s *scene) nothingReadable(look *searcher) {
	if s.err != nil {
		return
	}
	r, err := look.searchTree(s.ctx, s.service)
	s.try(err)
	bad := ""
	if len(r.finds) > 0 {
		bad = fmt.Sprintf("%d readable pieces on the disk; the first: %s", len(r.finds), r.finds[0])
	}
	if r.files == 0 {
		bad = "there are no files to search"
	}
	s.check(bad == "", fmt.Sprintf("none in the %d files of the service (%.1f MB)", r.files, float64(r.bytes)/1e6), bad)
}
