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
legal_basis: PIA 2026-4, section 3
linkage: false
max_bytes: 2GiB
max_rate: 60
max_record_age: 30d
time_precision: hour
min_bucket: 7
approvers: [ann, bob, eve]
strict: true
live: true
retention_classes: [standard, evidence]
`

// leastPurpose has only what must be given.
const leastPurpose = `name: lane-audit
title: Check that lane cameras read plates right
legal_basis: PIA 2026-4, section 3
modalities: [plate]
sites: [anzalduas]
contractors: [acme-vision]
max_ttl: 4h
max_records: 500
max_bytes: 1
max_rate: 60
max_record_age: 30d
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
	got, err := parsePurposes("p.yaml", []byte(goodPurpose+"---\n"+leastPurpose+"---\n"+leastPurpose+"linkage: true\napprovers: any\n"))
	if err != nil || len(got) != 3 {
		t.Fatalf("%d purposes, %v", len(got), err)
	}
	want := vault.Purpose{
		Name: "lane-audit", Title: "Check that lane cameras read plates right", LegalBasis: "PIA 2026-4, section 3", Modalities: []vault.Modality{vault.Plate},
		Sites: []string{"anzalduas"}, Contractors: []string{"acme-vision"}, MaxTTL: 4 * time.Hour, MaxRecords: 500, MaxBytes: 2 << 30, MaxRate: 60,
		MaxRecordAge: 30 * 24 * time.Hour, Precision: vault.PrecisionHour, MinBucket: 7, Approvals: 3, Approvers: []string{"ann", "bob", "eve"},
		Strict: true, Live: true, Retention: []string{"evidence", "standard"},
	}
	if got[0].Text() != want.Text() {
		t.Errorf("got\n%swant\n%s", got[0].Text(), want.Text())
	}
	// What is left out allows the least, but that Vault counts.
	want.MaxBytes, want.Precision, want.MinBucket, want.Approvals, want.Approvers = 1, vault.PrecisionDay, 10, 2, nil
	want.Strict, want.Live, want.Retention = false, false, []string{"standard"}
	if got[1].Text() != want.Text() {
		t.Errorf("got\n%swant\n%s", got[1].Text(), want.Text())
	}
	want.Linkage, want.MinBucket = true, 0
	if got[2].Text() != want.Text() {
		t.Errorf("got\n%swant\n%s", got[2].Text(), want.Text())
	}
	for line := range strings.Lines(leastPurpose) {
		key, _, _ := strings.Cut(line, ":")
		if _, err := parsePurposes("p.yaml", []byte(strings.Replace(leastPurpose, line, "", 1))); err == nil || err.Error() != "p.yaml, document 1: missing: "+key {
			t.Errorf("without %s: %v", key, err)
		}
	}
	for name, c := range map[string]struct{ old, new, want string }{
		"unknown key":       {"title:", "titel:", `p.yaml: line 2: unknown key "titel"; did you mean title?`},
		"two unknown keys":  {"title:", "titel: x\nsize:", `line 2: unknown key "titel"; did you mean title?; line 3: unknown key "size"; did you mean sites?`},
		"a key cut short":   {"max_rate", "max_rat", "did you mean max_rate?"},
		"a key of parts":    {"title:", "[title]:", "line 2: a key is one word"},
		"a word as list":    {"[plate]", "plate", "line 3: modalities: a list is wanted, such as [plate]"},
		"words as list":     {"[anzalduas]", "the gate, the other", "line 4: sites: a list is wanted, such as [one, another]"},
		"list in list":      {"[anzalduas]", "[[anzalduas]]", "line 4: sites: text is wanted"},
		"keys as text":      {"name: lane-audit", "name: {is: lane-audit}", "line 1: name: text is wanted"},
		"a list of keys":    {goodPurpose, "- name: x\n", "line 1: a mapping of keys is wanted"},
		"bare text":         {goodPurpose, "lane-audit", "line 1: a mapping of keys is wanted"},
		"a huge number":     {"500", "99999999999999999999", `line 7: "99999999999999999999": a whole number is wanted`},
		"a large number":    {"500", "9999999999999999999", "line 7: max_records: the number is too large"},
		"several missing":   {goodPurpose, "name: x\nmax_bytes: 1\nsites: []\ntitle: x\nmax_rate: 0\nmodalities: [plate]\n", "p.yaml, document 1: missing: legal_basis, contractors, max_ttl, max_records, max_record_age"},
		"nothing":           {goodPurpose, "---\n", "p.yaml, document 1: missing: name, title, legal_basis, modalities, "},
		"zero approvals":    {"approvals: 3", "approvals: 0", "document 1: invalid request; purpose.approvals: must be from 1 to 5"},
		"no duration":       {"4h", "soon", "line 6: a duration such as 90m, 4h or 2d is wanted"},
		"bare number":       {"4h", "4", "line 6: a duration"},
		"list as duration":  {"4h", "[4h]", "line 6: a duration"},
		"too long":          {"4h", "8d", "purpose.max_ttl: must be from 1m to 7d, in whole seconds"},
		"too old":           {"30d", "1m", "purpose.max_record_age: must be from 1h to 36600d"},
		"modality":          {"[plate]", "[car]", "purpose.modalities"},
		"number as text":    {"500", "many", "line 7: max_records: a whole number is wanted"},
		"text as number":    {"500", `"500"`, "line 7: max_records: a whole number is wanted"},
		"text breaks lines": {"Check that", `"Check\nthat"`, "p.yaml"},
		"not YAML":          {"name:", "\tname", "p.yaml"},
		"yes for true":      {"linkage: false", "linkage: yes", "line 10: true or false is wanted"},
		"text for true":     {"linkage: false", `linkage: "true"`, "line 10: true or false is wanted"},
		"True for true":     {"linkage: false", "linkage: True", `line 10: "True": text that looks like something else`},
		"a title of true":   {"Check that lane cameras read plates right", "true", `line 2: "true": text that looks like something else`},
		"a size in bits":    {"2GiB", "2Gib", "line 11: a size such as 1048576, 500MiB, 2GiB or 10GB is wanted"},
		"a size of parts":   {"2GiB", "2.5GiB", "line 11: a size"},
		"a size as text":    {"2GiB", `"2GiB"`, "line 11: a size"},
		"a size too large":  {"2GiB", "9999999TiB", "line 11: a size"},
		"over the limit":    {"2GiB", "9TiB", "purpose.max_bytes: must be from 1 byte to 8TiB"},
		"no size":           {"2GiB", "0", "line 11: a size"},
		"a negative size":   {"2GiB", "-1", "line 11: a size"},
		"a list as size":    {"2GiB", "[1]", "line 11: a size"},
		"no approvers":      {"[ann, bob, eve]", "[]", "line 16: a list of admins' names is wanted, or any"},
		"one approver":      {"[ann, bob, eve]", "ann", "line 16: a list of admins' names"},
		"too few approvers": {"[ann, bob, eve]", "[ann, bob]", "purpose.approvers: must name at least 3 admins, as many as must approve; it names 2"},
		"a precision":       {"time_precision: hour", "time_precision: minute", "purpose.time_precision"},
		"no precision":      {"time_precision: hour", `time_precision: ""`, "purpose.time_precision"},
		"exact, unlinked":   {"time_precision: hour", "time_precision: exact", "exact times join a face to its plate"},
		"linked, bucketed":  {"linkage: false", "linkage: true", "purpose.min_bucket"},
		"no classes":        {"[standard, evidence]", "[]", "purpose.retention_classes"},
		"withdrawn":         {"live: true", "withdrawn: 1", `unknown key "withdrawn"`},
		"a version":         {"live: true", "version: 7", `unknown key "version"`},
		"a key twice":       {"approvals: 3", "approvals: 3\nname: other", `mapping key "name" already defined at line 1`},
		"part of a number":  {"approvals: 3", "approvals: 1.9", `line 8: "1.9": a whole number is wanted, and text`},
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
				t.Fatalf("got %v, want a usage error with %q", err, c.want)
			}
			if u.hint != `see "portcullis purpose apply --help"` {
				t.Errorf("hint %q", u.hint)
			}
		})
	}
	if _, err := parsePurposes("p.yaml", []byte(strings.Repeat(goodPurpose+"---\n", maxDocuments+1))); err == nil {
		t.Error("more documents than allowed were taken")
	}
}

func TestContractorYAML(t *testing.T) {
	got, err := parseContractors("c.yaml", []byte("name: acme\ntitle: Acme\n---\nname: other\ntitle: Other\n"))
	if err != nil || len(got) != 2 || got[0] != (vault.Contractor{Name: "acme", Title: "Acme", Group: "acme"}) {
		t.Errorf("got %+v, %v", got, err)
	}
	got, err = parseContractors("c.yaml", []byte("name: acme\ntitle: Acme\nconflict_group: holding\n"))
	if err != nil || got[0].Group != "holding" {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err = parseContractors("c.yaml", []byte("name: acme\ntitle: Acme\nconflict_group: Holding\n")); err == nil {
		t.Error("a malformed group was taken")
	}
	_, err = parseContractors("c.yaml", []byte("name: acme\ntitle: Acme\n---\nname: Acme\ntitle: x\n"))
	if err == nil || !strings.Contains(err.Error(), "document 2: invalid request; contractor.name") {
		t.Errorf("got %v", err)
	}
	if _, err := parseContractors("c.yaml", []byte("name: acme\ntitle: Acme\nepoch: 7\n")); err == nil {
		t.Error("an epoch was taken: it is not for the file to say")
	}
	var u *usageError
	if _, err := parseContractors("c.yaml", []byte("conflict_group: holding\n")); !errors.As(err, &u) ||
		err.Error() != "c.yaml, document 1: missing: name, title" || u.hint != `see "portcullis contractor apply --help"` {
		t.Errorf("got %v", err)
	}
}

// TestSizesAndDurationsReadBack: as they are shown.
func TestSizesAndDurationsReadBack(t *testing.T) {
	for n, want := range map[int64]string{1: "1", 1000: "1KB", 1024: "1KiB", 1_500_000: "1500KB", 1 << 30: "1GiB", 10_000_000_000: "10GB", 1 << 43: "8TiB", 1<<43 - 1: "8796093022207"} {
		if got := sizeText(n); got != want {
			t.Errorf("%d is %s", n, got)
		}
		if back, ok := parseSize(want); !ok || back != n {
			t.Errorf("%s is %d", want, back)
		}
	}
	for d, want := range map[time.Duration]string{24 * time.Hour: "1d", 36 * time.Hour: "36h", 90 * time.Minute: "1h30m", time.Minute: "1m", 30 * 24 * time.Hour: "30d", 61 * time.Second: "1m1s"} {
		if got := durationText(d); got != want {
			t.Errorf("%v is %s", d, got)
		}
		if back, err := parseDuration(want); err != nil || back != d {
			t.Errorf("%s is %v", want, back)
		}
	}
}
