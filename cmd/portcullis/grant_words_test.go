package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

// TestEveryStateHasWords: a grant in any state is told of in words, and every state that is over
// ends a wait with a reason of its own, which also lets go of the kept token.
func TestEveryStateHasWords(t *testing.T) {
	seen := map[vault.Reason]bool{}
	for n, name := range pb.Grant_State_name {
		state := pb.Grant_State(n)
		if state == pb.Grant_STATE_UNSPECIFIED {
			continue
		}
		g := &pb.Grant{State: state, ApprovalsRequired: 2}
		if words := standsWords(g); !strings.Contains(words, " ") {
			t.Errorf("%s: %q", name, words)
		}
		done, err := settled(g, "approved")
		if over(g) != (err != nil) || done != (state != pb.Grant_STATE_PENDING) {
			t.Errorf("%s: over %t, done %t, %v", name, over(g), done, err)
		}
		if err == nil {
			continue
		}
		if r := vault.ReasonOf(err); seen[r] || endings[r] != word(state, "STATE_") {
			t.Errorf("%s ends a wait for %q", name, r)
		} else {
			seen[r] = true
		}
	}
	if len(seen) != len(endings) {
		t.Errorf("%d states end a wait; %d reasons are known for endings", len(seen), len(endings))
	}
}

func TestBytesInWords(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", 200: "200", 1023: "1023", 1024: "1 KiB", 1536: "1.5 KiB", 1<<20 - 1: "1 MiB", 1 << 20: "1 MiB", 5 << 30: "5 GiB", 1 << 43: "8 TiB",
	} {
		if got := about(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func TestDaysInWords(t *testing.T) {
	day := time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)
	for want, s := range map[string]*pb.Scope{
		"2026-03-04":               {StartTime: timestamppb.New(day.Add(time.Hour)), EndTime: timestamppb.New(day.AddDate(0, 0, 1))},
		"2026-03-04 to 2026-03-05": {StartTime: timestamppb.New(day), EndTime: timestamppb.New(day.AddDate(0, 0, 1).Add(time.Microsecond))},
	} {
		if got := daysWords(s); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestTooShortNamesItsFlag: a life that is too short for a live grant is mended by a flag, which is
// named with how long would do.
func TestTooShortNamesItsFlag(t *testing.T) {
	for _, c := range []struct{ field, says, want string }{
		{"ttl", "is too short: a live grant of purpose p covers whole hours in UTC, the first of which ends at 2026-03-04T14:00:00.000000Z", "--for must reach past 2026-03-04T14:00:00.000000Z"},
		{"ttl", "must be whole seconds, from 1m0s to 24h0m0s", "that is --for"},
		{"max_records", "must be from 1 to 10", hints[vault.ReasonInvalidField]},
	} {
		err := asFlags(vault.InvalidField(c.field, "%s", c.says))
		body, code := describe(err)
		if got := hint(err, body); got != c.want || code != exitUsage {
			t.Errorf("%s: %q, exit code %d", c.says, got, code)
		}
	}
}
