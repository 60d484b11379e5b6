package main

import (
	"strings"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

func TestParseTime(t *testing.T) {
	for in, want := range map[string]string{
		"2026-11-23":                     "2026-11-23T00:00:00.000000Z",
		"2026-11-23T14:30:00Z":           "2026-11-23T14:30:00.000000Z",
		"2026-11-23T14:30:00-06:00":      "2026-11-23T20:30:00.000000Z",
		"2026-11-23T14:30:00.123456789Z": "2026-11-23T14:30:00.123456Z",
		"23.11.2026":                     "",
		"2026-11-23T14:30":               "", // of which zone?
		"2026-02-30":                     "",
		"now":                            "",
		"":                               "",
	} {
		got, err := parseTime(in)
		switch {
		case want == "" && err == nil:
			t.Errorf("%q was taken as %s", in, vault.FormatTime(got))
		case want != "" && (err != nil || vault.FormatTime(got) != want):
			t.Errorf("%q is %s, %v; want %s", in, vault.FormatTime(got), err, want)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"90m": 90 * time.Minute, "2h": 2 * time.Hour, "2d": 48 * time.Hour, "1h30m": 90 * time.Minute,
		"2": -1, "d": -1, "1.5d": -1, "-1d": -1, "99999d": -1, "2w": -1, "": -1,
	} {
		got, err := parseDuration(in)
		if (err != nil) != (want == -1) || err == nil && got != want {
			t.Errorf("%q is %s, %v; want %s", in, got, err, want)
		}
	}
}

func TestGrantName(t *testing.T) {
	const id = "1f0c2a4e-7d53-4b1e-9a3f-0c7a8e6d5b21"
	for _, in := range []string{id, "grants/" + id} {
		name, got, err := grantName(in)
		if err != nil || name != "grants/"+id || got.String() != id {
			t.Errorf("%s: %s, %s, %v", in, name, got, err)
		}
	}
	// The ID becomes a file's name: nothing but a UUID may pass.
	for _, in := range []string{"", "grants/", "../" + id, "records/" + id, strings.ToUpper(id), "{" + id + "}", id + "/x"} {
		if name, _, err := grantName(in); err == nil {
			t.Errorf("%q was taken as %s", in, name)
		}
	}
}

func TestSelectionFlags(t *testing.T) {
	day := func(n int) timeFlag { return timeFlag{time.Date(2026, 11, n, 0, 0, 0, 0, time.UTC)} }
	id := idFlag(vault.NewID())
	for name, c := range map[string]struct {
		flags selectionFlags
		ok    bool
	}{
		"record":            {selectionFlags{record: id}, true},
		"site":              {selectionFlags{site: "a", from: day(1), until: day(2)}, true},
		"site and modality": {selectionFlags{site: "a", modality: "face", from: day(1), until: day(2)}, true},
		"nothing":           {selectionFlags{}, false},
		"both":              {selectionFlags{record: id, site: "a", from: day(1), until: day(2)}, false},
		"record, modality":  {selectionFlags{record: id, modality: "face"}, false},
		"record, window":    {selectionFlags{record: id, from: day(1)}, false},
		"no end":            {selectionFlags{site: "a", from: day(1)}, false},
		"window alone":      {selectionFlags{from: day(1), until: day(2)}, false},
		"backwards":         {selectionFlags{site: "a", from: day(2), until: day(1)}, false},
		"site's name":       {selectionFlags{site: "A", from: day(1), until: day(2)}, false},
	} {
		if _, err := c.flags.selection(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
