package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

// TestWhenRecordsAppear: the times that are told are those at which the service's own buckets open.
func TestWhenRecordsAppear(t *testing.T) {
	day := time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		precision pb.TimePrecision
		of        vault.Precision
	}{
		{pb.TimePrecision_TIME_PRECISION_HOUR, vault.PrecisionHour}, {pb.TimePrecision_TIME_PRECISION_DAY, vault.PrecisionDay},
		{pb.TimePrecision_TIME_PRECISION_NONE, vault.PrecisionNone},
	} {
		w, ok := appearsLate(&pb.Purpose{TimePrecision: c.precision, MinBucket: 5})
		if !ok {
			t.Fatalf("%s: nothing waits", c.of)
		}
		p := vault.Purpose{Precision: c.of}
		for now := day.Add(7 * time.Hour); now.Before(day.Add(32 * time.Hour)); now = now.Add(47 * time.Second) {
			// Of all that was captured until now, on time or late, the first to appear after now, and the last.
			var first, last time.Time
			for age := time.Duration(0); age < 26*time.Hour; age += time.Hour {
				for _, late := range []time.Duration{0, age} {
					r := vault.Record{CapturedAt: now.Add(-age), StoredAt: now.Add(late - age)}
					b, _ := p.Bucket(r)
					if b.Opens.After(now) && (first.IsZero() || b.Opens.Before(first)) {
						first = b.Opens
					}
					last = later(last, b.Opens)
				}
			}
			g := &pb.Grant{Scope: &pb.Scope{StartTime: timestamppb.New(day.AddDate(0, 0, -3))}}
			if got := w.next(g, now); !got.Equal(first) || w.opens(now) != last {
				t.Fatalf("%s, at %s: the next at %s, the last at %s; want %s, %s", c.of, now, got, w.opens(now), first, last)
			}
		}
	}
	if _, ok := appearsLate(&pb.Purpose{Linkage: true}); ok {
		t.Error("with linkage records wait")
	}
}

// TestWhatAppearsTooLate: a grant that ends before what it covers appears is told of.
func TestWhatAppearsTooLate(t *testing.T) {
	day := time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)
	at := func(h, m int) *timestamppb.Timestamp {
		return timestamppb.New(day.Add(time.Duration(h)*time.Hour + time.Duration(m)*time.Minute))
	}
	hourly := &pb.Purpose{TimePrecision: pb.TimePrecision_TIME_PRECISION_HOUR, MinBucket: 2}
	daily := &pb.Purpose{TimePrecision: pb.TimePrecision_TIME_PRECISION_DAY, MinBucket: 5}
	grant := func(from, until, end *timestamppb.Timestamp) *pb.Grant {
		return &pb.Grant{State: pb.Grant_STATE_APPROVED, Scope: &pb.Scope{StartTime: from, EndTime: until}, EndTime: end, ReadTime: at(12, 30)}
	}
	live := grant(at(12, 0), at(15, 0), at(15, 5))
	live.Scope.Live = true
	live.Approvals = []*pb.Signature{{SignTime: at(13, 59)}}
	for name, c := range map[string]struct {
		g       *pb.Grant
		p       *pb.Purpose
		late    string
		nothing string
	}{
		"all is over":       {grant(at(0, 0), at(12, 0), at(14, 0)), hourly, "", "2 crossings share it; the next at 2026-03-04T13:06:00Z"},
		"all in time":       {grant(at(0, 0), at(13, 0), at(13, 7)), hourly, "", "hour closes, and only"},
		"a part is late":    {grant(at(0, 0), at(13, 0), at(13, 5)), hourly, "from 2026-03-04T12:00:00Z on appears after", ", after this grant ends"},
		"today, by days":    {grant(at(0, 0), at(24, 0), at(15, 0)), daily, "nothing appears before this grant ends: under this purpose records appear about 6 minutes after their day closes, the first at 2026-03-05T00:06:00Z", "05T00:06:00Z, after this grant ends"},
		"with linkage":      {grant(at(0, 0), at(24, 0), at(15, 0)), &pb.Purpose{Linkage: true}, "", "nothing is there"},
		"live, approved at": {live, hourly, "nothing appears before this grant ends", "the next at 2026-03-04T15:06:00Z, after this grant ends"},
	} {
		if got := lateWords(c.g, c.p); !strings.Contains(got, c.late) || (got == "") != (c.late == "") {
			t.Errorf("%s: %q", name, got)
		}
		if got := nothingWords(c.g, c.p); !strings.Contains(got, c.nothing) {
			t.Errorf("%s: %q", name, got)
		}
	}
	over := grant(at(0, 0), at(24, 0), at(15, 0))
	over.State = pb.Grant_STATE_REVOKED
	if got := lateWords(over, daily); got != "" {
		t.Errorf("over: %q", got)
	}
	if got := waitingWords(grant(at(0, 0), at(24, 0), at(15, 0)), daily); got != "; the last appear by 2026-03-05T00:06:00Z, but this grant ends at 2026-03-04T15:00:00Z" {
		t.Errorf("waiting: %q", got)
	}
}
