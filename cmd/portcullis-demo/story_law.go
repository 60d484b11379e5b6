package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// serviceLog is where the daemon writes its own log.
func (d *demo) serviceLog() string { return filepath.Join(d.dir, "portcullisd.log") }

// unsanctioned asks for what no purpose allows.
func (d *demo) unsanctioned(s *scene) {
	s.say("The story that Portcullis was built against: a contractor takes travellers' faces to train an algorithm, which nobody agreed to. " +
		"Here it has to ask, and the purpose that it may ask under does not allow faces:")
	s.refused("PURPOSE_MODALITY", "contractor", d.request(purpose, "face", 100, "to train matching")...)
	s.say("Nor does it help to make a purpose up.")
	s.refused("PURPOSE_UNKNOWN", "contractor", d.request("train-matching", "face", 100, "to train matching")...)
	s.alerted("PURPOSE_MODALITY", "PURPOSE_UNKNOWN")
}

// alerted checks that the audit log has the contractor's refusals, and that whoever watches the
// service is warned of them.
func (s *scene) alerted(reasons ...string) {
	logged := map[string]bool{}
	for _, e := range s.events("grant.refused") {
		logged[e.Event.Reason] = true
	}
	text, err := os.ReadFile(s.serviceLog())
	s.try(err)
	warned := alerts(string(text), contractor)
	for _, r := range reasons {
		if !logged[r] || !warned[r] {
			s.fail("the audit log must have %s (%t), and the service must have warned of it (%t)", r, logged[r], warned[r])
		}
	}
	s.check(true, fmt.Sprintf("the audit log has it, and the service warns whoever watches it: \"alert\":true, %s", strings.Join(reasons, ", ")), "")
}

// alerts gives the reasons of all alerts about a contractor in the service's own log.
func alerts(text, contractor string) map[string]bool {
	out := map[string]bool{}
	for line := range strings.Lines(text) {
		var l struct {
			Alert              bool
			Reason, Contractor string
		}
		if json.Unmarshal([]byte(line), &l) == nil && l.Alert && l.Contractor == contractor {
			out[l.Reason] = true
		}
	}
	return out
}

// preview looks at the first grant as an approver does.
func (s *scene) preview() {
	s.say("What would it open? An admin sees that before signing, and what the company holds and has opened by now:")
	var got struct {
		Preview struct {
			Records      int64 `json:"records,string"`
			Held, Opened []json.RawMessage
			Refusals     []json.RawMessage
		}
	}
	s.run(&got, "alice", "grant", "show", s.grant)
	p := got.Preview
	s.check(p.Records == int64(len(s.plates)) && len(p.Held)+len(p.Opened)+len(p.Refusals) == 0,
		fmt.Sprintf("%d records; the company holds nothing else, and has opened nothing so far", p.Records),
		fmt.Sprintf("it must open the %d plates, for a company that has nothing; alice is shown %+v", len(s.plates), p))
}

// facePurpose is a second purpose, as good as the first, of the other half.
const facePurpose = `name: face-camera-check
title: check that lane cameras catch faces
legal_basis: an example; name the law or order here
modalities: [face]
sites: [` + site + `]
contractors: [` + contractor + `]
max_ttl: 4h
max_records: 100
max_bytes: 1GiB
max_rate: 10000
max_record_age: 90d
linkage: true
time_precision: exact
live: true
`

// halves asks for the faces of the day whose plates the contractor has, under a purpose that allows faces.
func (d *demo) halves(s *scene) {
	s.say("So the company finds a use for faces that is good as well, and two admins sanction it: \"face-camera-check\", faces alone.")
	s.try(os.WriteFile(filepath.Join(d.service, "faces.yaml"), []byte(facePurpose), 0o600))
	s.twoSign("purpose", "faces.yaml", "the purpose is sanctioned")
	s.say("Each purpose by itself is harmless. Together they give who was in which car, and that nobody has sanctioned. " +
		"The company has opened plates of this site and day, so their faces are closed to it, for good, and to its affiliates:")
	s.refused("CONFLICT_RULE", "contractor", d.request("face-camera-check", "face", 100, "work order 4720")...)
	s.alerted("CONFLICT_RULE")

	s.say("Of a day of which it has no plate it may ask for faces. (--explain only says what would speak against it.)")
	var got struct{ Refusals []json.RawMessage }
	day := func(back int) string {
		return time.Now().UTC().AddDate(0, 0, -back).Format(time.DateOnly)
	}
	s.run(&got, "contractor", "grant", "request", "--purpose", "face-camera-check", "--site", site, "--modality", "face",
		"--from", day(4), "--until", day(3), "--max-records", "100", "--for", "30m", "--justification", "work order 4721", "--explain")
	s.check(len(got.Refusals) == 0, "nothing speaks against it", fmt.Sprintf("nothing must speak against it, not %s", got.Refusals))
}
