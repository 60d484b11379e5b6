package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

// eventTypes are the types that events can be chosen by.
var eventTypes = func() (out []string) {
	for _, t := range vault.EventTypes {
		out = append(out, string(t))
	}
	return out
}()

// checkTypes refuses a type that no event has: it would be waited for in vain.
func checkTypes(types []string) error {
	for _, t := range types {
		if !slices.Contains(eventTypes, t) {
			return &usageError{err: fmt.Errorf("--type %q: no such type%s", t, didYouMean(t, eventTypes)), hint: "they are: " + strings.Join(eventTypes, " ")}
		}
	}
	return nil
}

// eventJSON writes an event verbatim: no encoder touches its bytes.
func (a *app) eventJSON(e *pb.AuditEvent) error {
	if !json.Valid(e.Event) || bytes.ContainsAny(e.Event, "\r\n") {
		return fmt.Errorf("event %d is not JSON on one line", e.Index)
	}
	_, err := fmt.Fprintf(a.stdout, "{\"index\":%d,\"event\":%s}\n", e.Index, e.Event)
	return err
}

// eventLine writes an event for a person. Its columns have fixed widths, because a table
// that is still growing can not be measured.
func (a *app) eventLine(e *pb.AuditEvent) error {
	ev, err := vault.DecodeEvent(e.Event)
	if err != nil {
		_, err = fmt.Fprintf(a.stdout, "%8d  (%s)\n", e.Index, printable(err.Error()))
		return err
	}
	at := ev.At
	if t, err := vault.ParseTime(ev.At); err == nil {
		at = t.Format(time.RFC3339)
	}
	_, err = fmt.Fprintln(a.stdout, printable(fmt.Sprintf("%8d  %s  %-20s  %-28s  %s", e.Index, at, ev.Type, actor(ev.Actor), what(ev))))
	return err
}

// actor shortens a SPIFFE ID to its path.
func actor(id string) string {
	rest, ok := strings.CutPrefix(id, "spiffe://")
	if !ok {
		return id
	}
	if _, path, ok := strings.Cut(rest, "/"); ok {
		return path
	}
	return id
}

// what says in a few words what an event is about.
func what(e vault.Event) string {
	var parts []string
	add := func(format string, value any) { parts = append(parts, fmt.Sprintf(format, value)) }
	if e.Stored != nil {
		add("%s", e.Stored.KeyName)
	}
	if e.Decision != nil {
		add("%s", e.Decision.Kind)
		add("decision %s", e.Decision.ID)
		told := map[string]bool{"contractor": e.Contractor != "", "records": e.Count > 0}
		for _, key := range []string{"purpose", "version", "contractor", "site", "record", "records"} {
			if v := bodyField(e.Decision.Body, key); v != "" && !told[key] {
				add(key+" %s", v)
			}
		}
	}
	if e.Grant != "" {
		add("grant %s", e.Grant)
	}
	if e.Contractor != "" {
		add("contractor %s", e.Contractor)
	}
	if e.Caller != "" {
		add("%s", actor(e.Caller))
	}
	if e.Record != "" {
		add("record %s", e.Record)
	}
	if e.Refetch {
		add("%s", "again")
	}
	switch {
	case e.Count == 0:
	case e.Type == vault.EventContractorSuspended, e.Type == vault.EventCallerSuspended, e.Type == vault.EventPurposeWithdrawn:
		add("%s", count(e.Count, "grant"))
	default:
		add("%s", count(e.Count, "record"))
	}
	if e.Void > 0 {
		add("%s void", count(e.Void, "signature"))
	}
	if e.Type == vault.EventReleaseUnsent {
		add("release %d", e.Release)
	}
	if e.Reason != "" {
		add("%s", e.Reason)
	}
	for _, r := range e.Reasons {
		add("%s", r)
	}
	return strings.Join(parts, ", ")
}
