package main

import (
	"fmt"
	"strings"
	"time"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
)

// over says that the service says that nothing can come of a grant any more. A state that
// this program does not know is not over.
func over(g *pb.Grant) bool {
	switch g.GetState() {
	case pb.Grant_STATE_DENIED, pb.Grant_STATE_RETIRED, pb.Grant_STATE_REVOKED, pb.Grant_STATE_EXPIRED, pb.Grant_STATE_LAPSED,
		pb.Grant_STATE_SUSPENDED:
		return true
	}
	return false
}

// standsWords says in words where a grant stands.
func standsWords(g *pb.Grant) string {
	state := word(g.GetState(), "STATE_")
	switch g.GetState() {
	case pb.Grant_STATE_PENDING:
		if missing := int(g.GetApprovalsRequired()) - len(g.GetApprovals()); missing > 0 {
			return fmt.Sprintf("%s: waits for %s of %d", state, count(missing, "admin"), g.GetApprovalsRequired())
		}
		return state
	case pb.Grant_STATE_APPROVED:
		return state + ": its grantee may activate it"
	case pb.Grant_STATE_ACTIVE:
		if g.GetRecordsRemaining() == 0 {
			return state + ": its quota is used up; what was opened may be opened again"
		}
		return state + ": its grantee may open images"
	case pb.Grant_STATE_DENIED:
		return state + " by an admin"
	case pb.Grant_STATE_RETIRED:
		return state + ": ended by its grantee"
	case pb.Grant_STATE_REVOKED:
		return state + ": ended by an admin, with the suspension of its grantee or contractor, or with its purpose's withdrawal"
	case pb.Grant_STATE_EXPIRED:
		return state + ": its time is over"
	case pb.Grant_STATE_LAPSED:
		return state + ": it was not approved in time"
	case pb.Grant_STATE_SUSPENDED:
		return state + ": ended by itself, for its grantee went on after it was refused for quota or rate"
	}
	return state
}

// quotaWords says what was opened under a grant and what is left.
func quotaWords(g *pb.Grant) string {
	s := fmt.Sprintf("%d of %d", g.GetRecordsReleased(), g.GetMaxRecords())
	if over(g) {
		return s
	}
	return fmt.Sprintf("%s, %d left", s, g.GetRecordsRemaining())
}

// leftWords says how much time a grant has, by the service's clock: this machine's may be wrong.
func leftWords(g *pb.Grant) string {
	if over(g) || g.GetTimeRemaining() == nil {
		return "-"
	}
	return span(g.GetTimeRemaining().AsDuration())
}

// endWords gives a grant's end, absolute and relative.
func endWords(g *pb.Grant) string {
	s := when(g.GetEndTime())
	if left := leftWords(g); left != "-" {
		s += " (" + left + " left)"
	}
	return s
}

// span writes a duration for a person: its two largest units, such as 2d3h, 1h59m, 59m30s, 12s.
func span(d time.Duration) string {
	if d < 0 {
		return "-" + span(-d)
	}
	if d < time.Second {
		return "0s"
	}
	var out strings.Builder
	parts := 0
	for _, u := range []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		n := d / u.size
		d -= n * u.size
		if n > 0 {
			fmt.Fprintf(&out, "%d%s", n, u.name)
		}
		if n > 0 || parts > 0 {
			parts++
		}
		if parts == 2 {
			break
		}
	}
	return out.String()
}
