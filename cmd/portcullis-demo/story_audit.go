package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// event is one line of the log.
type event struct {
	Index int64
	Event struct {
		Type, At, Grant, Contractor, Record, Reason string
		Release                                     int64
		Stored                                      *struct{ Record, Modality string }
	}
}

// events reads the log, of these types or all.
func (s *scene) events(types ...string) (out []event) {
	if s.err != nil {
		return nil
	}
	args := []string{"audit", "events"}
	if len(types) > 0 {
		args = append(args, "--type", strings.Join(types, ","))
	}
	s.tell.command(typed(append([]string{"portcullis", "--profile", "auditor"}, args...)...))
	r, err := s.call(s.ctx, "auditor", args...)
	s.try(err)
	if s.err == nil && r.code != exitOK {
		s.fail("the auditor must be able to read the log; exit code %d: %s", r.code, r.said)
	}
	for dec := json.NewDecoder(bytes.NewReader(r.stdout)); s.err == nil; {
		var e event
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			s.fail("the log does not read as JSON: %w", err)
			return nil
		}
		out = append(out, e)
	}
	return out
}

// departure is one record that left under one grant.
type departure struct {
	record, grant, contractor string
	first                     time.Time
	times                     int
}

// departures folds the log to what left: each record once for each grant, in the order of
// first leaving.
func departures(log []event) ([]departure, error) {
	back := map[int64]bool{} // releases of which nothing was sent
	for _, e := range log {
		if e.Event.Type == "release.unsent" {
			back[e.Event.Release] = true
		}
	}
	var out []departure
	at := map[[2]string]int{}
	for _, e := range log {
		if e.Event.Type != "record.released" || back[e.Index] {
			continue
		}
		when, err := time.Parse(time.RFC3339Nano, e.Event.At)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", e.Index, err)
		}
		key := [2]string{e.Event.Record, e.Event.Grant}
		i, ok := at[key]
		if !ok {
			i = len(out)
			at[key] = i
			out = append(out, departure{e.Event.Record, e.Event.Grant, e.Event.Contractor, when, 0})
		}
		out[i].times++
	}
	return out, nil
}

// audit reads the log and tells exactly what left.
func (d *demo) audit(s *scene) {
	s.say("The question that took months in the real case. The auditor reads the log, in which every release was written before a byte left.")
	log := s.events()
	counts := map[string]int{}
	shows := map[string]string{} // modality by record
	for i, e := range log {
		counts[e.Event.Type]++
		if e.Index != int64(i) {
			s.fail("the log has entry %d where %d must stand", e.Index, i)
		}
		if st := e.Event.Stored; st != nil {
			shows[st.Record] = st.Modality
		}
	}
	s.check(counts["grant.refused"] > 0 && counts["release.refused"] > 0, fmt.Sprintf("%d entries, without a gap, refusals included:", len(log)), "the log must also tell of what was refused")
	left, err := departures(log)
	s.try(err)
	if s.err != nil {
		return
	}
	s.tell.lines(table(func(row func(...any)) {
		for _, t := range slices.Sorted(maps.Keys(counts)) {
			row(counts[t], t)
		}
	}))
	s.reasonsLogged(log)
	d.compare(s, left, shows)
	d.compareVault(s, counts)
	look, err := newSearcher(slices.Concat(d.faces, d.plates))
	s.try(err)
	s.say("And after all this traffic, the same search of the disk as before:")
	s.nothingReadable(look)
	s.say("The auditor can read all of it, and do nothing else:")
	s.refused("ROLE_NOT_ALLOWED", "auditor", "contractor", "suspend", contractor)
}

// reasonsLogged checks that the log has every kind of refusal of this story.
func (s *scene) reasonsLogged(log []event) {
	seen := map[string]bool{}
	for _, e := range log {
		seen[e.Event.Reason] = true
	}
	want := []string{
		"PURPOSE_MODALITY", "PURPOSE_UNKNOWN", "GRANT_PENDING", "QUOTA_EXCEEDED", "GRANT_TAMPERED", "GRANT_REVOKED",
		"CONTRACTOR_SUSPENDED", "KEY_REVOKED", "KEY_DESTROYED",
	}
	for _, r := range want {
		if !seen[r] {
			s.fail("the log has no refusal for %s", r)
		}
	}
	s.check(true, "among the refusals: "+strings.Join(want, ", "), "")
}

// compareVault holds the log against Vault's own. A release whose image was not sent may
// have been decrypted or not.
func (d *demo) compareVault(s *scene, counts map[string]int) {
	if s.err != nil {
		return
	}
	s.say("A token that is used at Vault directly does not pass Portcullis, so its log can not know. Vault's own log does:")
	n, err := decryptions(filepath.Join(d.service, "vault", "audit.log"), d.hashi.mount)
	s.try(err)
	unsent := counts["release.unsent"]
	sent := counts["record.released"] - unsent
	s.check(n >= sent+d.direct && n <= sent+d.direct+unsent,
		fmt.Sprintf("%d decryptions: %d releases, %d that were cut off before their picture left, and the %d direct calls of this demonstration", n, sent, n-sent-d.direct, d.direct),
		fmt.Sprintf("Vault's log has %d decryptions; %d releases, %d cut off, and %d direct calls do not explain that", n, sent, unsent, d.direct))
}

// decryptions counts the successful decryptions in Vault's audit log.
func decryptions(file, mount string) (n int, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(b) {
		var e struct {
			Type, Error string
			Request     struct{ Path string }
		}
		if err := json.Unmarshal(line, &e); err != nil {
			return 0, fmt.Errorf("vault's audit log: %w", err)
		}
		if e.Type == "response" && e.Error == "" && strings.HasPrefix(e.Request.Path, mount+"/decrypt/") {
			n++
		}
	}
	return n, nil
}

// compare holds the log against what the contractor really received, and shows it.
func (d *demo) compare(s *scene, left []departure, shows map[string]string) {
	byGrant := map[string]int{}
	records := map[string]bool{}
	for _, l := range left {
		byGrant[l.grant]++
		records[l.record] = true
		if shows[l.record] != "plate" {
			s.fail("record %s left, and is %q: only plates may", l.record, shows[l.record])
		}
	}
	received := 0
	for grant, handles := range d.opened {
		n := len(slices.Compact(slices.Sorted(slices.Values(handles))))
		received += n
		if byGrant[grant] != n {
			s.fail("under grant %s the log has %d records, and the contractor received %d", grant, byGrant[grant], n)
		}
	}
	s.check(len(left) == received, fmt.Sprintf("the log and the contractor's own folders agree: %d plates left, under %d grants, %d times one record under one grant; no face", len(records), len(byGrant), received),
		fmt.Sprintf("the log tells of %d departures, and the contractor received %d", len(left), received))
	if s.err != nil {
		return
	}
	s.say("Exactly these:")
	s.tell.lines(table(func(row func(...any)) {
		row("RECORD", "LEFT TO", "UNDER GRANT", "FIRST", "TIMES")
		for _, l := range left {
			row(l.record, l.contractor, l.grant[:8]+"…", l.first.Format("15:04:05.000"), l.times)
		}
	}))
}

// table lays out rows in columns.
func table(fill func(row func(...any))) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fill(func(cells ...any) {
		text := make([]string, len(cells))
		for i, c := range cells {
			text[i] = fmt.Sprint(c)
		}
		fmt.Fprintln(w, strings.Join(text, "\t"))
	})
	w.Flush() // a strings.Builder takes everything
	return b.String()
}
