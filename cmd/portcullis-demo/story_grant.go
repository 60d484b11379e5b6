package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// grantAnswer is what commands on a grant answer.
type grantAnswer struct {
	Grant struct {
		Name, State string
		Approvals   []struct{ Signer string }
		Released    int64 `json:"records_released,string"`
	}
	TokenFile string `json:"token_file"`
	Barrier   *barrier
}

// barrier says how access ended.
type barrier struct {
	Connections int    `json:"connections_reset"`
	Sends       int    `json:"sends_ended"`
	Waited      string // such as "0.004s"
	EventIndex  int64  `json:"event_index,string"`
	VaultDone   bool   `json:"vault_done"`
}

// request gives the words of a request.
func (d *demo) request(purpose, modality string, most int, why string) []string {
	return []string{
		"grant", "request", "--purpose", purpose, "--site", site, "--modality", modality,
		"--from", d.from, "--until", d.until, "--max-records", strconv.Itoa(most), "--for", "30m", "--justification", why,
	}
}

// approve takes a proper request through its approvals.
func (d *demo) approve(s *scene) {
	s.say("Now the contractor asks for what was agreed: plates of this site, of two hours, for thirty minutes.")
	var got grantAnswer
	s.run(&got, "contractor", d.request(purpose, "plate", mostPlates, "work order 4711")...)
	d.grant = strings.TrimPrefix(got.Grant.Name, "grants/")
	s.check(got.Grant.State == "STATE_PENDING", "the grant waits for two admins", "a new grant must be pending, not "+got.Grant.State)
	s.preview()

	s.say("It can not approve its own request:")
	s.refused("ROLE_NOT_ALLOWED", "contractor", "grant", "approve", d.grant, "--yes")
	s.say("One admin signs. That is not enough: nothing can be activated, and nothing opened.")
	s.run(&got, "alice", "grant", "approve", d.grant, "--yes")
	s.check(got.Grant.State == "STATE_PENDING" && len(got.Grant.Approvals) == 1, "signed by alice; still pending",
		"one approval of two must leave the grant pending, not "+got.Grant.State)
	s.refused("ALREADY_SIGNED", "alice", "grant", "approve", d.grant, "--yes")
	s.refused("GRANT_PENDING", "contractor", "grant", "activate", d.grant)
	s.refused("GRANT_PENDING", "contractor", "fetch", d.grant, "--out", "contractor/plates")

	s.say("The second admin signs the very same terms, and the contractor activates the grant. " +
		"Its token is one of Vault's own, which Vault itself ends when the grant does.")
	s.run(&got, "bob", "grant", "approve", d.grant, "--yes")
	s.check(got.Grant.State == "STATE_APPROVED", "signed by bob: approved", "two approvals must approve the grant, not leave it "+got.Grant.State)
	d.token = s.activate(d.grant)
}

// activate activates a grant and gives its token.
func (s *scene) activate(grant string) string {
	var got grantAnswer
	s.run(&got, "contractor", "grant", "activate", grant)
	s.check(got.Grant.State == "STATE_ACTIVE", "active", "the grant must be active, not "+got.Grant.State)
	if s.err != nil {
		return ""
	}
	b, err := os.ReadFile(got.TokenFile)
	s.try(err)
	if grant == s.grant {
		s.kept = got.TokenFile
	}
	return string(bytes.TrimSpace(b))
}

// newGrant takes a request for plates through two approvals, in short, and activates it.
func (s *scene) newGrant(most int, why string) (grant, token string) {
	var got grantAnswer
	s.run(&got, "contractor", s.request(purpose, "plate", most, why)...)
	grant = strings.TrimPrefix(got.Grant.Name, "grants/")
	for _, admin := range []string{"alice", "bob"} {
		s.run(&got, admin, "grant", "approve", grant, "--yes")
	}
	return grant, s.activate(grant)
}

// fetched is what fetch answers.
type fetched struct {
	Fetched int
	Images  []struct{ Handle, Modality, File string }
}

// note remembers what the contractor received, for the comparison with the log.
func (d *demo) note(grant string, f fetched) {
	for _, img := range f.Images {
		d.opened[grant] = append(d.opened[grant], img.Handle)
	}
}

// handles lists the handles of a grant.
func (s *scene) handles(grant string) (out []string) {
	var got struct {
		Records []struct{ Handle, Modality string }
	}
	s.run(&got, "contractor", "records", "list", "--grant", grant)
	for _, r := range got.Records {
		if r.Modality != "MODALITY_PLATE" {
			s.fail("the grant is of plates, and lists a record of %s", r.Modality)
		}
		out = append(out, r.Handle)
	}
	return out
}

// fetch opens all plates and compares them with the originals.
func (d *demo) fetch(s *scene) {
	s.say("The contractor sees handles, not record numbers: they mean nothing outside this grant, and tell no order and no lane.")
	handles := s.handles(d.grant)
	s.check(len(handles) == len(d.plates), fmt.Sprintf("%d plates, no face", len(handles)),
		fmt.Sprintf("the grant must list the %d plates, not %d records", len(d.plates), len(handles)))
	var got fetched
	s.run(&got, "contractor", "fetch", d.grant, "--out", "contractor/plates")
	if s.err != nil {
		return
	}
	d.note(d.grant, got)
	d.handle = handles[0]
	pictures, err := s.received(got)
	s.try(err)
	same, err := newGallery(d.plates)
	s.try(err)
	strangers, err := same.strangers(pictures)
	s.try(err)
	s.check(len(pictures) == len(d.plates) && len(strangers) == 0,
		fmt.Sprintf("%d pictures, every pixel as the camera took it", len(pictures)),
		fmt.Sprintf("%d of %d pictures came, and these show something else: %v", len(pictures), len(d.plates), strangers))

	before, err := metadataOf(d.plates)
	s.try(err)
	after, err := metadataOf(pictures)
	s.try(err)
	s.check(len(after) == 0, fmt.Sprintf("and nothing else: of %d notes that the camera had written into the files (%s), none is left", len(before), kinds(before)),
		fmt.Sprintf("the pictures still carry %s", kinds(after)))
}

// received reads the pictures that a fetch wrote.
func (d *demo) received(f fetched) (out []picture, err error) {
	for _, img := range f.Images {
		path := img.File
		if !filepath.IsAbs(path) {
			path = filepath.Join(d.dir, path)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		out = append(out, picture{filepath.Base(path), b})
	}
	return out, nil
}

// metadataOf names all metadata in pictures. The camera's own words count wherever they stand.
func metadataOf(pictures []picture) (all []string, err error) {
	for _, p := range pictures {
		found, err := metadataIn(p.bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		if len(found) == 0 && bytes.Contains(p.bytes, []byte(confession)) {
			found = []string{"the camera's words"}
		}
		all = append(all, found...)
	}
	return all, nil
}

// kinds lists what there is, each kind once.
func kinds(found []string) string {
	seen := map[string]bool{}
	var out []string
	for _, f := range found {
		if !seen[f] {
			seen[f] = true
			out = append(out, f)
		}
	}
	if len(out) == 0 {
		return "none at all"
	}
	return strings.Join(out, ", ")
}

// quota lets a grant run out.
func (d *demo) quota(s *scene) {
	s.say("A grant also says how many. This one allows %d records, and the contractor helps itself to all %d:", smallQuota, len(d.plates))
	grant, _ := s.newGrant(smallQuota, "work order 4712")
	r := s.refused("QUOTA_EXCEEDED", "contractor", "fetch", grant, "--out", "contractor/bulk")
	if s.err != nil {
		return
	}
	var got fetched
	s.decode(r, &got)
	d.note(grant, got)
	pictures, err := filepath.Glob(filepath.Join(d.dir, "contractor", "bulk", "plate-*"))
	s.try(err)
	s.check(got.Fetched == smallQuota && len(pictures) == smallQuota, fmt.Sprintf("%d pictures left, and not one more", smallQuota),
		fmt.Sprintf("exactly %d pictures may leave; %d did, and %d files lie there", smallQuota, got.Fetched, len(pictures)))
}
