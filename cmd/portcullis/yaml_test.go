package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

const goodPurpose = `name: lane-audit
title: Check that lane cameras read plates right
modalities: [plate]
sites: [anzalduas]
contractors: [acme-vision]
max_ttl: 4h
max_records: 500
approvals: 3
`

// laughs is small and would have 10^9 sites.
const laughs = `a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]
b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]
c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]
d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]
e: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d]
f: &f [*e, *e, *e, *e, *e, *e, *e, *e, *e, *e]
g: &g [*f, *f, *f, *f, *f, *f, *f, *f, *f, *f]
h: &h [*g, *g, *g, *g, *g, *g, *g, *g, *g, *g]
sites: [*h, *h, *h, *h, *h, *h, *h, *h, *h, *h]
`

func TestPurposeYAML(t *testing.T) {
	got, err := parsePurposes("p.yaml", []byte(goodPurpose+"---\n"+strings.Replace(goodPurpose, "approvals: 3\n", "", 1)))
	if err != nil || len(got) != 2 {
		t.Fatalf("%d purposes, %v", len(got), err)
	}
	want := vault.Purpose{
		Name: "lane-audit", Title: "Check that lane cameras read plates right", Modalities: []vault.Modality{vault.Plate},
		Sites: []string{"anzalduas"}, Contractors: []string{"acme-vision"}, MaxTTL: 4 * time.Hour, MaxRecords: 500, Approvals: 3,
	}
	if got[0].Text() != want.Text() {
		t.Errorf("got\n%swant\n%s", got[0].Text(), want.Text())
	}
	if got[1].Approvals != 2 {
		t.Errorf("%d approvals when none are named, want 2", got[1].Approvals)
	}
	for name, c := range map[string]struct{ old, new, want string }{
		"unknown key":       {"title:", "titel:", `p.yaml: line 2: unknown key "titel"`},
		"zero approvals":    {"approvals: 3", "approvals: 0", "document 1: invalid request; purpose.approvals: must be from 1 to 5"},
		"no duration":       {"4h", "soon", "line 6: a duration such as 90m, 4h or 2d is wanted"},
		"bare number":       {"4h", "4", "line 6: a duration"},
		"list as duration":  {"4h", "[4h]", "line 6: a duration"},
		"too long":          {"4h", "8d", "purpose.max_ttl"},
		"modality":          {"[plate]", "[car]", "purpose.modalities"},
		"number as text":    {"500", "many", "line 7: does not take !!str `many` here"},
		"text breaks lines": {"Check that", `"Check\nthat"`, "p.yaml"},
		"not YAML":          {"name:", "\tname", "p.yaml"},
		"a key twice":       {"approvals: 3", "approvals: 3\nname: other", `mapping key "name" already defined at line 1`},
		"part of a number":  {"approvals: 3", "approvals: 1.9", `line 8: "1.9": text that looks like something else`},
		"exponent":          {"500", "5e2", `line 7: "5e2"`},
		"octal":             {"500", "0500", `line 7: "0500": a number has decimal digits alone`},
		"hexadecimal":       {"500", "0x1F4", `line 7: "0x1F4"`},
		"underscore":        {"500", "1_000", `line 7: "1_000"`},
		"a name of digits":  {"lane-audit", "007", `line 1: "007": a number has decimal digits alone, and text`},
		"a tag":             {"lane-audit", "!!binary YQ==", "line 1: the tag !!binary is not taken"},
		"a value missing":   {"approvals: 3", "approvals: ~", "line 8: a value is missing; leave the key out"},
		"an anchor":         {"[plate]", "&a [plate]", "line 3: anchors and aliases are not taken"},
		"merged keys":       {"name: lane-audit", "<<: {name: lane-audit}", "line 1: merged keys"},
		"laughs":            {goodPurpose, laughs, "anchors and aliases are not taken"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parsePurposes("p.yaml", []byte(strings.Replace(goodPurpose, c.old, c.new, 1)))
			var u *usageError
			if !errors.As(err, &u) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want a usage error with %q", err, c.want)
			}
		})
	}
	if _, err := parsePurposes("p.yaml", []byte(strings.Repeat(goodPurpose+"---\n", maxDocuments+1))); err == nil {
		t.Error("more documents than allowed were taken")
	}
}

func TestContractorYAML(t *testing.T) {
	got, err := parseContractors("c.yaml", []byte("name: acme\ntitle: Acme\n---\nname: other\ntitle: Other\n"))
	if err != nil || len(got) != 2 || got[0] != (vault.Contractor{Name: "acme", Title: "Acme"}) {
		t.Errorf("got %+v, %v", got, err)
	}
	_, err = parseContractors("c.yaml", []byte("name: acme\ntitle: Acme\n---\nname: Acme\ntitle: x\n"))
	if err == nil || !strings.Contains(err.Error(), "document 2: invalid request; contractor.name") {
		t.Errorf("got %v", err)
	}
	if _, err := parseContractors("c.yaml", []byte("name: acme\ntitle: Acme\nepoch: 7\n")); err == nil {
		t.Error("an epoch was taken: it is not for the file to say")
	}
}
