package main

import (
	"strings"
	"testing"
	"time"
)

// TestWaitingShows: a fetch that waits for a rate says so, where a person or a log can see it.
func TestWaitingShows(t *testing.T) {
	for _, c := range []struct {
		name  string
		bar   bool
		json  bool
		times int
	}{{"a person", true, false, 2}, {"a log", false, false, 1}, {"a program", false, true, 0}} {
		var out strings.Builder
		a := &app{stderr: &out, showBar: c.bar}
		if c.json {
			a.output = jsonOutput
		}
		bar := a.bar("fetching", 3)
		wait := a.waiting(bar)
		bar.addSized(10)
		for _, d := range []time.Duration{42*time.Second + 300*time.Millisecond, time.Millisecond} {
			wait(d)
		}
		bar.addSized(10)
		bar.done()
		if n := strings.Count(out.String(), "waiting 42s: the purpose allows no more"); (n > 0) != (c.times > 0) {
			t.Errorf("%s: %q", c.name, out.String())
		}
		if n := strings.Count(out.String(), "waiting 1s:"); (n > 0) != (c.times > 1) {
			t.Errorf("%s: %q", c.name, out.String())
		}
	}
}
