package main

import (
	"context"
	"slices"
	"strings"
	"time"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

// clockWarns is how far the two clocks may be apart before it is worth a word. From
// [vault.SignatureSkew] on signatures and new images are refused.
const clockWarns = 5 * time.Second

// service asks the service itself.
func (d *doctor) service(ctx context.Context) {
	// All that needs an answer.
	rest := []string{checkClock, checkStanding, checkParts, checkServing, checkVersion, checkStale, checkLogKey}
	s, err := d.app.dial()
	if err != nil {
		d.fail(checkClock, "see above", "%s", oneLine(err))
		d.skip("no answer", rest[1:]...)
		return
	}
	defer s.Close()
	o, err := d.app.look(ctx, s)
	if err != nil {
		body, _ := describe(err)
		next := hint(err, body)
		if next == "" || next == hintDoctor {
			next = "try again; if it stays so, the service's log has the cause"
		}
		d.fail(checkClock, next, "the service does not tell its time: %s", oneLine(err))
		d.skip("no answer", rest[1:]...)
		return
	}
	d.clock(seconds(o.Service.Offset), seconds(o.Service.Doubt), o.Service.Time)
	d.standing(o)
	d.parts(o.answer.GetParts(), o.Standing)
	if o.Service.Serving {
		d.ok(checkServing, "%s", count(len(o.Service.Services), "service"))
	} else {
		d.fail(checkServing, "what they stand on is above; if all of that is up, the service is starting or stopping: try again", "not served: %s", strings.Join(o.Service.down(), ", "))
	}
	d.version(o.Service.Version)
	d.stale(ctx, s, o)
	d.logKey(ctx, s, o)
}

func (d *doctor) clock(offset, doubt time.Duration, theirs string) {
	// The clocks are surely apart only by what the call's own time does not explain.
	sure := max(offset.Abs()-doubt, 0)
	const next = "set this machine's clock (a time service such as chrony keeps it); if it is right, tell whoever runs the service"
	switch {
	case sure >= vault.SignatureSkew:
		d.fail(checkClock, next, "%s: the service says %s; signatures and new images are refused", clockWords(offset, doubt), theirs)
	case sure >= clockWarns:
		d.warn(checkClock, next, "%s: the service says %s; from %s on signatures are refused", clockWords(offset, doubt), theirs, span(vault.SignatureSkew))
	default:
		d.ok(checkClock, "the service's clock and this one agree")
	}
}

func (d *doctor) standing(o *overview) {
	switch o.Standing {
	case "active":
		d.ok(checkStanding, "%s may call", o.Role)
	case "refused":
		next := hints[vault.Reason(o.StandingReason)]
		if next == "" {
			next = "ask an admin"
		}
		d.fail(checkStanding, next, "%s: every call but this one is refused", o.StandingReason)
	default:
		d.warn(checkStanding, "see the next check", "not known: the service's database does not answer")
	}
}

// partsNext says what to do about a part that is not up, by its name and state.
var partsNext = map[string]string{
	"vault down":    "on the service's side: is HashiCorp Vault running, and can portcullisd reach it at its vault.address? Until then nothing is stored or opened; suspending still works",
	"vault sealed":  "whoever holds the unseal keys must unseal HashiCorp Vault",
	"database down": "on the service's side: is the database at store.path readable, and its disk not full?",
	"lease down":    "this node has lost its lease in the database, so it releases nothing: is the database slow, or a clock wrong?",
	"log down":      "on the service's side: the log's tree is too far behind the events, or damaged, so nothing is released (LOG_BEHIND); docs/operations.md says what to do",
	"vault unknown": "the service has just started: try again",
	"lease unknown": "the service has just started: try again",
}

func (d *doctor) parts(parts []*pb.Part, standing string) {
	if standing == "refused" {
		d.skip("only who may call is told", checkParts)
		return
	}
	if len(parts) == 0 {
		d.warn(checkParts, "the service has just started: try again", "the service has not looked yet")
		return
	}
	var up []string
	down := slices.DeleteFunc(slices.Clone(parts), func(p *pb.Part) bool { return partWord(p) == "up" })
	for _, p := range parts {
		if partWord(p) == "up" {
			up = append(up, p.Name)
		}
	}
	if len(down) == 0 {
		d.ok(checkParts, "%s", strings.Join(up, ", "))
		return
	}
	for _, p := range down {
		next := partsNext[p.Name+" "+partWord(p)]
		if next == "" {
			next = hints[vault.Reason(p.Reason)]
		}
		if next == "" {
			next = "tell whoever runs the service"
		}
		name := p.Name
		if name == "vault" {
			name = "HashiCorp Vault"
		}
		what := map[string]string{"down": "does not answer the service", "sealed": "is sealed"}[partWord(p)]
		switch {
		case p.Name == "lease":
			what = "is lost"
		case p.Name == "log" && what != "":
			what = "does not keep up with the events"
		case p.Name == "restores" && what != "":
			name, what = "the check for restores", "does not pass ("+p.Reason+"): nothing is released or activated"
		}
		if what == "" {
			what = "was not looked at yet"
		}
		d.fail(checkParts, next, "%s %s", name, what)
	}
}

// version compares releases. Builds that carry no version are not worth a word.
func (d *doctor) version(theirs string) {
	mine := version()
	unknown := func(v string) bool { return v == "" || strings.HasPrefix(v, "(") }
	switch {
	case mine == theirs, unknown(mine), unknown(theirs):
		d.ok(checkVersion, "this is %s, the service is %s", mine, theirs)
	default:
		d.warn(checkVersion, "use the command line of the service's version", "this is %s, the service is %s", mine, theirs)
	}
}

// stale names kept tokens of grants that are over.
func (d *doctor) stale(ctx context.Context, s *session, o *overview) {
	if vault.Role(o.Role) != vault.RoleContractor {
		return
	}
	if o.Standing != "active" {
		d.skip("the service does not tell of grants", checkStale)
		return
	}
	held, err := heldTokens(ctx, s, nil)
	if err != nil {
		d.warn(checkStale, "try again", "the service did not say how the grants of the kept tokens are: %s", oneLine(err))
		return
	}
	var ended []string
	for _, h := range held {
		if h.grant != nil && over(h.grant) {
			ended = append(ended, h.id.String()+" "+h.State)
		}
	}
	if len(ended) > 0 {
		d.warn(checkStale, "they open nothing any more; \"portcullis status\" removes them", "%s of grants that are over: %s", count(len(ended), "token"), strings.Join(ended, ", "))
		return
	}
	d.ok(checkStale, "%d, none of a grant that is over", len(held))
}
