package main

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
)

// grantFacts writes a grant, with the terms of its purpose if they are known.
func grantFacts(t *grid, g *pb.Grant, p *pb.Purpose) {
	t.row("grant", g.GetName())
	t.row("state", standsWords(g))
	t.row("purpose", fmt.Sprintf("%s, version %d", bare(g.GetPurpose()), g.GetPurposeVersion()))
	if p != nil {
		t.row("", p.GetTitle()+" ("+p.GetLegalBasis()+")")
		t.row("", purposeWords(p))
	}
	t.row("grantee", g.GetGrantee())
	t.row("sites", strings.Join(g.GetScope().GetSites(), ","))
	t.row("modalities", modalities(g.GetScope().GetModalities()))
	t.row("captured", capturedWords(g.GetScope()))
	t.row("opened", "records "+quotaWords(g))
	t.row("", "bytes "+bytesWords(g))
	t.row("requested", when(g.GetRequestTime()))
	t.row("ends", endWords(g))
	if late := lateWords(g, p); late != "" {
		t.row("", late)
	}
	t.row("justification", g.GetJustification())
	var who []string
	for _, s := range g.GetApprovals() {
		who = append(who, fmt.Sprintf("%s at %s", person(s.Signer), when(s.SignTime)))
	}
	t.row("approvals", strings.TrimSuffix(fmt.Sprintf("%d of %d: %s", len(who), g.GetApprovalsRequired(), strings.Join(who, ", ")), ": "))
}

// purposeWords says what a grantee is told, and what else its purpose wants.
func purposeWords(p *pb.Purpose) string {
	out := []string{map[pb.TimePrecision]string{
		pb.TimePrecision_TIME_PRECISION_EXACT: "tells exact times", pb.TimePrecision_TIME_PRECISION_HOUR: "tells the hour",
		pb.TimePrecision_TIME_PRECISION_DAY: "tells the day", pb.TimePrecision_TIME_PRECISION_NONE: "tells no times",
	}[p.GetTimePrecision()]}
	if p.GetLinkage() {
		out = append(out, "and which face and plate are of one crossing")
	} else {
		out = append(out, fmt.Sprintf("shows records where %s share site and time", count(p.GetMinBucket(), "crossing")))
	}
	if out = append(out, fmt.Sprintf("at most %s a minute", count(p.GetMaxRate(), "record"))); p.GetStrict() {
		out = append(out, "Vault counts, too")
	}
	if p.GetLive() {
		out = append(out, "also of what is still to be captured")
	}
	out = append(out, "of retention class "+strings.Join(p.GetRetentionClasses(), " or "))
	return strings.Join(out, ", ")
}

// capturedWords says which records a scope covers, besides their sites and modalities.
func capturedWords(s *pb.Scope) string {
	window := fmt.Sprintf("from %s until before %s", when(s.GetStartTime()), when(s.GetEndTime()))
	switch {
	case s.GetLive():
		return "after the approval, as they come, " + window
	case len(s.GetRecords()) > 0:
		return fmt.Sprintf("%s of list %s, %s", count(len(s.GetRecords()), "record"), bare(s.GetRecordList()), window)
	case s.GetRecordList() != "":
		return fmt.Sprintf("the records of list %s, %s", bare(s.GetRecordList()), window)
	}
	return window
}

// previewFacts writes what approvers should know.
func previewFacts(t *grid, g *pb.Grant, terms *pb.Purpose, p *pb.Preview) {
	if p == nil {
		return
	}
	t.row("would open", fmt.Sprintf("%s of %s, on %s, as of now", count(p.Records, "record"), count(p.Crossings, "crossing"), count(p.Days, "day")))
	for _, s := range p.Sites {
		t.row("", s.Site+" "+modality(s.Modality), fmt.Sprintf("%s of %s, on %s", count(s.Records, "record"), count(s.Crossings, "crossing"), count(s.Days, "day")))
	}
	if p.RecordsWaiting > 0 {
		t.row("", fmt.Sprintf("of these %s not appear yet: the time that they share is not over%s", do(p.RecordsWaiting), waitingWords(g, terms)))
	}
	if p.RecordsHidden > 0 {
		t.row("", fmt.Sprintf("of these %s never appear: too few crossings share their site and time", do(p.RecordsHidden)))
	}
	first := heading("holds")
	for _, h := range p.Held {
		t.row(first(), bare(h.Contractor)+", "+bare(h.Purpose), fmt.Sprintf("%s %s, %s; %d of %s; until %s: %s",
			strings.Join(h.GetScope().GetSites(), ","), modalities(h.GetScope().GetModalities()), daysWords(h.GetScope()),
			h.RecordsReleased, count(h.MaxRecords, "record"), when(h.EndTime), bare(h.Grant)))
	}
	if len(p.Held) == 0 {
		t.row(first(), "nothing else that lives")
	}
	first = heading("has opened")
	for _, o := range p.Opened {
		t.row(first(), bare(o.Contractor)+", "+bare(o.Purpose), fmt.Sprintf("%s %s of %s: %s", o.Site, modality(o.Modality), count(o.Days, "day"), between(o.FirstDay, o.LastDay)))
	}
	if len(p.Opened) == 0 {
		t.row(first(), "nothing so far")
	}
	if p.Truncated {
		t.row("", "there is more that it holds or has opened than is shown here")
	}
	if p.EarlierGrant != "" {
		t.row("last grant", bare(p.EarlierGrant))
		first = heading("since then")
		for _, c := range p.Changes {
			t.row(first(), c.Field, fmt.Sprintf("was %s, now %s", shortened(c.Before), shortened(c.After)))
		}
		if len(p.Changes) == 0 {
			t.row(first(), "the same terms")
		}
	}
	not := map[pb.Grant_State]string{
		pb.Grant_STATE_PENDING: "approved now", pb.Grant_STATE_APPROVED: "activated now", pb.Grant_STATE_ACTIVE: "activated again now",
	}[g.GetState()]
	if not != "" && len(p.Refusals) > 0 {
		t.line("it could not be %s:", not)
		refusals(t, p.Refusals)
	}
}

// heading gives a word for the first row, and nothing for the others.
func heading(word string) func() string {
	return func() (w string) {
		w, word = word, ""
		return w
	}
}

// do writes a number of records with its verb.
func do(n int64) string {
	if n == 1 {
		return "1 record does"
	}
	return fmt.Sprintf("%d records do", n)
}

func between(first, last string) string {
	if first == last {
		return first
	}
	return first + " to " + last
}

// daysWords gives the days that a scope touches.
func daysWords(s *pb.Scope) string {
	day := func(t *timestamppb.Timestamp) string { return strings.SplitN(when(t), "T", 2)[0] }
	end := s.GetEndTime()
	if end != nil { // the end is no part of it
		end = timestamppb.New(end.AsTime().Add(-1))
	}
	return between(day(s.GetStartTime()), day(end))
}

// shortened cuts a list of IDs, which nobody reads.
func shortened(s string) string {
	const most = 60
	if n := strings.Count(s, ","); len(s) > most && n > 0 {
		return fmt.Sprintf("%s… (%d)", s[:most], n+1)
	}
	return s
}

// bytesWords says how much of images was opened under a grant and what is left.
func bytesWords(g *pb.Grant) string {
	s := fmt.Sprintf("%s of %s", about(g.GetBytesReleased()), about(g.GetMaxBytes()))
	if over(g) {
		return s
	}
	return fmt.Sprintf("%s, %s left", s, about(g.GetBytesRemaining()))
}

// about writes a number of bytes for a person: 200, 1.5 KiB, 2 GiB.
func about(n int64) string {
	units := []string{"KiB", "MiB", "GiB", "TiB"}
	if n < 1024 {
		return fmt.Sprint(n)
	}
	v, u := float64(n)/1024, 0
	for v >= 1023.95 && u < len(units)-1 {
		v, u = v/1024, u+1
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + " " + units[u]
}
