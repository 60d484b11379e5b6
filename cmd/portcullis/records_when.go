package main

import (
	"context"
	"fmt"
	"time"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

// appearing is when records of a purpose without linkage come to be seen.
type appearing struct {
	precision vault.Precision // hour, or day also where no times are told
	step      time.Duration
	least     int32 // how many crossings must share site and time
}

// appearingLag is how long after the end of their hour or day records appear.
const appearingLag = vault.BucketLate + vault.BucketSettle

// appearsLate says whether and how records of a purpose wait. Of one that is not known nothing is said.
func appearsLate(p *pb.Purpose) (w appearing, ok bool) {
	if p == nil || p.GetLinkage() {
		return w, false
	}
	w = appearing{vault.PrecisionDay, 24 * time.Hour, p.GetMinBucket()}
	if p.GetTimePrecision() == pb.TimePrecision_TIME_PRECISION_HOUR {
		w.precision, w.step = vault.PrecisionHour, time.Hour
	}
	return w, true
}

// opens gives when what is captured at t appears, and what came in late by t at the latest.
func (w appearing) opens(t time.Time) time.Time {
	return w.precision.Floor(t).Add(w.step + appearingLag)
}

// begins gives the time of capture at which a grant begins. A live one does so with its approval.
func (w appearing) begins(g *pb.Grant) time.Time {
	from := g.GetScope().GetStartTime().AsTime()
	if !g.GetScope().GetLive() {
		return from
	}
	var at time.Time
	for _, s := range g.GetApprovals() {
		if t := s.GetSignTime().AsTime(); t.After(at) {
			at = t
		}
	}
	if g.GetState() == pb.Grant_STATE_PENDING {
		at = g.GetReadTime().AsTime()
	}
	return later(from, w.precision.Ceil(at))
}

// next gives the first time after now at which anything that a grant covers can appear.
func (w appearing) next(g *pb.Grant, now time.Time) time.Time {
	return later(w.opens(now.Add(-appearingLag)), w.opens(w.begins(g)))
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// rule says in words when records appear.
func (w appearing) rule() string {
	return fmt.Sprintf("under this purpose records appear about %d minutes after their %s closes", appearingLag/time.Minute, w.precision)
}

// nothingWords says why a grant lists nothing, as far as its purpose and the service's clock tell:
// not whether anything is there.
func nothingWords(g *pb.Grant, p *pb.Purpose) string {
	w, ok := appearsLate(p)
	if !ok {
		return "nothing is there"
	}
	next := w.next(g, g.GetReadTime().AsTime())
	s := fmt.Sprintf("nothing appears yet, or nothing is there: %s, and only where %s share it; the next at %s",
		w.rule(), count(w.least, "crossing"), next.Format(time.RFC3339))
	if !next.Before(g.GetEndTime().AsTime()) {
		s += ", after this grant ends"
	}
	return s
}

// lateWords says what of a grant's window appears only after its end; empty when nothing does, or
// the grant is over.
func lateWords(g *pb.Grant, p *pb.Purpose) string {
	w, ok := appearsLate(p)
	if !ok || over(g) {
		return ""
	}
	from, until, end := w.begins(g), g.GetScope().GetEndTime().AsTime(), g.GetEndTime().AsTime()
	// What is captured before it appears while the grant lives.
	switch last := w.precision.Floor(end.Add(-appearingLag - 1)); {
	case !from.Before(until):
		return ""
	case !last.After(from):
		return fmt.Sprintf("nothing appears before this grant ends: %s, the first at %s", w.rule(), w.opens(from).Format(time.RFC3339))
	case last.Before(until):
		return fmt.Sprintf("what is captured from %s on appears after this grant ends: %s", last.Format(time.RFC3339), w.rule())
	}
	return ""
}

// waitingWords says by when what waits now has appeared.
func waitingWords(g *pb.Grant, p *pb.Purpose) string {
	w, ok := appearsLate(p)
	if !ok || g.GetReadTime() == nil {
		return ""
	}
	last := w.opens(g.GetReadTime().AsTime())
	s := "; the last appear by " + last.Format(time.RFC3339)
	if end := g.GetEndTime().AsTime(); !last.Before(end) {
		s += ", but this grant ends at " + when(g.GetEndTime())
	}
	return s
}

// sayNothing tells why a listing is empty. Where the process at this address is that of releases
// alone, nothing is known of it.
func (a *app) sayNothing(ctx context.Context, s *session, grant string) {
	got, err := s.Grants.GetGrant(ctx, &pb.GetGrantRequest{Name: grant})
	if err != nil || got.GetPurposeTerms() == nil {
		return
	}
	a.aside("%s", nothingWords(got.Grant, got.PurposeTerms))
}

// aside writes a line beside the answer, for people: on standard error, which is the error's alone
// for a script that said so.
func (a *app) aside(format string, args ...any) {
	if !a.quiet() {
		fmt.Fprintln(a.stderr, printable(fmt.Sprintf(format, args...)))
	}
}
