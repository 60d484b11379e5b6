package main

import (
	"strings"
	"testing"
)

func TestErrorOf(t *testing.T) {
	stderr := "You are about to sign:\n  | grant: x\n" +
		`{"error":{"kind":"denied","reason":"ALREADY_SIGNED","message":"signed twice","fields":[]}}` + "\n"
	if reason, said := errorOf(stderr); reason != "ALREADY_SIGNED" || said != "signed twice" {
		t.Errorf("%q, %q", reason, said)
	}
	if reason, said := errorOf("panic: boom\n"); reason != "" || said != "panic: boom" {
		t.Errorf("%q, %q", reason, said)
	}
}

func TestDepartures(t *testing.T) {
	at := func(index int64, kind, record, grant string, release int64) (e event) {
		e.Index, e.Event.Type, e.Event.Record, e.Event.Grant, e.Event.Release = index, kind, record, grant, release
		e.Event.At = "2026-11-23T10:00:00.000000Z"
		return e
	}
	left, err := departures([]event{
		at(0, "record.stored", "r1", "", 0),
		at(1, "record.released", "r1", "g1", 0),
		at(2, "record.released", "r2", "g1", 0), // taken back by 3
		at(3, "release.unsent", "r2", "g1", 2),
		at(4, "record.released", "r1", "g1", 0),
		at(5, "record.released", "r1", "g2", 0),
	})
	if err != nil || len(left) != 2 {
		t.Fatalf("%+v, %v", left, err)
	}
	if left[0].grant != "g1" || left[0].times != 2 || left[1].grant != "g2" || left[1].times != 1 {
		t.Errorf("%+v", left)
	}
}

func TestTyped(t *testing.T) {
	got := typed("portcullis", "--note", "incident 12", "", `it's "so"`, "a/b.yaml")
	if want := `portcullis --note "incident 12" "" 'it'\''s "so"' a/b.yaml`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestWrap(t *testing.T) {
	text := strings.Repeat("word ", 40) + strings.Repeat("x", 60)
	lines := wrap(text, 30)
	if strings.Join(lines, " ") != text {
		t.Errorf("words were lost: %q", lines)
	}
	for _, l := range lines[:len(lines)-1] {
		if len(l) > 30 {
			t.Errorf("%q is longer than 30", l)
		}
	}
}

// Without a terminal nothing but text may come out.
func TestTellerWithoutColour(t *testing.T) {
	var b strings.Builder
	tell := &teller{w: &b}
	tell.title("A step")
	tell.command("portcullis whoami")
	tell.good("done")
	tell.bad("not done")
	if strings.Contains(b.String(), "\x1b") {
		t.Errorf("%q", b.String())
	}
	if tell.checks != 1 || tell.steps != 1 {
		t.Errorf("%d checks, %d steps", tell.checks, tell.steps)
	}
}

func TestBrief(t *testing.T) {
	in := "certificate\n" + strings.Repeat("destroyed: key\n", 9) + "signature: " + strings.Repeat("A", 200) + "\n"
	out := brief(in)
	if strings.Count(out, "destroyed:") != 2 || !strings.Contains(out, "…\nsignature: AAA") || len(out) > 250 {
		t.Errorf("%s", out)
	}
}

func TestAlerts(t *testing.T) {
	got := alerts(`Vault serves
{"level":"WARN","msg":"refused","alert":true,"reason":"PURPOSE_SITE","contractor":"acme"}
{"level":"WARN","msg":"refused","alert":true,"reason":"PURPOSE_AGE","contractor":"other"}
{"level":"WARN","msg":"refused","reason":"QUOTA_EXCEEDED","contractor":"acme"}
`, "acme")
	if len(got) != 1 || !got["PURPOSE_SITE"] {
		t.Errorf("%v", got)
	}
}
