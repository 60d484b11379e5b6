package main

import (
	"bytes"
	"errors"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/portcullis/portcullis/vault"
)

// yamlSeeds are good files and bad ones.
var yamlSeeds = []string{
	goodPurpose, leastPurpose, leastPurpose + "linkage: true\ntime_precision: exact\napprovers: any\n", goodPurpose + "---\n" + goodPurpose, goodConfig, "name: a\ntitle: b\n", "name: a\ntitle: b\n---\nname: \"c\"\ntitle: 'd'\n",
	"---\n---\n", "a: &a [*a]\n", "? {}\n: 1", "<<: {name: x}\n", "!!binary x", laughs, "%YAML 1.1\n--- >\n x\n",
	strings.Replace(goodPurpose, "500", "0500", 1), strings.Replace(goodPurpose, "3", "1.9", 1), strings.Replace(goodPurpose, "4h", "1d", 1),
	strings.Replace(goodPurpose, "2GiB", "10GB", 1), strings.Replace(goodPurpose, "2GiB", "1048576", 1), strings.Replace(goodPurpose, "strict: true", "strict: yes", 1),
	strings.Replace(goodPurpose, "2GiB", "99999999999TiB", 1), strings.Replace(goodPurpose, "[ann, bob, eve]", "[any, bob, eve]", 1),
	strings.Replace(goodPurpose, "title: Check", "title: |-\n  Check", 1), strings.Replace(goodPurpose, "sites: [anzalduas]", "sites:\n- anzalduas\n- \"b\"\n# no\n", 1),
}

// FuzzPurposeYAML: a file is refused with a usage error, or taken as it reads. What is taken
// is well-formed, says nothing twice and nothing unknown, and written out anew it means the
// same, text for text.
func FuzzPurposeYAML(f *testing.F) {
	for _, s := range yamlSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		taken, err := parsePurposes("f", b)
		runtime.ReadMemStats(&after)
		// A node of YAML has some 200 bytes, and the shortest in a file has two; the rest is
		// for buffers and for errors, of which each wrong value gives one.
		if used, most := after.TotalAlloc-before.TotalAlloc, uint64(1<<20+1000*len(b)); used > most {
			t.Errorf("%d bytes of memory for a file of %d; %d are enough", used, len(b), most)
		}
		if err != nil {
			refused(t, err)
			return
		}
		plain(t, b, len(taken), "name title legal_basis modalities linkage sites contractors max_ttl max_records max_bytes max_rate max_record_age "+
			"time_precision min_bucket approvals approvers strict live retention_classes")
		var anew bytes.Buffer
		enc := yaml.NewEncoder(&anew)
		for _, p := range taken {
			if err := p.Check(); err != nil || !reflect.DeepEqual(p, p.Normal()) {
				t.Errorf("taken, but malformed or not in normal form: %+v, %v", p, err)
			}
			size := yaml.Node{Kind: yaml.ScalarNode, Value: sizeText(p.MaxBytes)}
			out := map[string]any{
				"name": p.Name, "title": p.Title, "legal_basis": p.LegalBasis, "modalities": p.Modalities, "linkage": p.Linkage, "sites": p.Sites,
				"contractors": p.Contractors, "max_ttl": durationText(p.MaxTTL), "max_records": p.MaxRecords, "max_bytes": &size, "max_rate": p.MaxRate,
				"max_record_age": durationText(p.MaxRecordAge), "time_precision": p.Precision, "min_bucket": p.MinBucket, "approvals": p.Approvals,
				"strict": p.Strict, "live": p.Live, "retention_classes": p.Retention, "approvers": "any",
			}
			if len(p.Approvers) > 0 {
				out["approvers"] = p.Approvers
			}
			if err := enc.Encode(out); err != nil {
				t.Fatal(err)
			}
		}
		again, err := parsePurposes("f", anew.Bytes())
		if err != nil || !reflect.DeepEqual(again, taken) {
			t.Fatalf("%+v\nwritten out\n%s\nreads as %+v, %v", taken, anew.Bytes(), again, err)
		}
		for i := range taken {
			if again[i].Text() != taken[i].Text() || strings.Count(taken[i].Text(), "\n") != 22 {
				t.Errorf("text\n%s\nbecame\n%s", taken[i].Text(), again[i].Text())
			}
		}
	})
}

// FuzzConfigYAML is the same for the other forms: contractors, the configuration, and bare
// durations.
func FuzzConfigYAML(f *testing.F) {
	for _, s := range append(yamlSeeds, "90m", "2d", "-1d", "1.5h", "65536d", "1d1h", "1e9h", "9223372036854775807ns") {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		wholeDuration(t, string(b))
		orgs, err := parseContractors("f", b)
		if err != nil {
			refused(t, err)
		} else {
			plain(t, b, len(orgs), "name title conflict_group")
		}
		for _, o := range orgs {
			if err := o.Check(); err != nil || strings.Count(o.Text(), "\n") != 4 {
				t.Errorf("taken, but malformed: %v", err)
			}
		}
		cfg, err := parseConfig("f", b)
		if err != nil {
			refused(t, err)
			return
		}
		plain(t, b, 1, "")
		for name := range cfg.Profiles {
			if err := vault.CheckName("profile", name); err != nil {
				t.Errorf("taken, but malformed: %v", err)
			}
		}
	})
}

// wholeDuration: what reads as a duration is written by Go as the same one.
func wholeDuration(t *testing.T, s string) {
	t.Helper()
	d, err := parseDuration(s)
	if err != nil {
		return
	}
	if again, err := parseDuration(d.String()); err != nil || again != d {
		t.Errorf("%q is %v, which reads as %v, %v", s, d, again, err)
	}
	if strings.HasSuffix(s, "d") && (d < 0 || d%(24*time.Hour) != 0) {
		t.Errorf("%q is %v", s, d)
	}
}

// refused says that err is one that people can act on.
func refused(t *testing.T, err error) {
	t.Helper()
	var u *usageError
	if !errors.As(err, &u) || !strings.HasPrefix(err.Error(), "f") {
		t.Errorf("not a usage error that names the file: %v", err)
	}
}

// plain reads a file that was taken once more, as anything, and fails if it holds what must
// not be taken. keys are those of the form, any when empty.
func plain(t *testing.T, b []byte, want int, keys string) {
	t.Helper()
	dec := yaml.NewDecoder(bytes.NewReader(b))
	n := 0
	for ; ; n++ {
		var doc map[string]any
		if dec.Decode(&doc) != nil {
			break
		}
		for key, value := range doc {
			if keys != "" && !strings.Contains(" "+keys+" ", " "+key+" ") {
				t.Errorf("an unknown key was taken: %q", key)
			}
			if v, isFloat := value.(float64); isFloat {
				t.Errorf("%s: %v was taken for a whole number", key, v)
			}
		}
	}
	if n != want {
		t.Errorf("%d documents read as %d", n, want)
	}
	if bytes.Contains(b, []byte("*")) && bytes.Contains(b, []byte("&")) {
		dec := yaml.NewDecoder(bytes.NewReader(b))
		for {
			var node yaml.Node
			if dec.Decode(&node) != nil {
				return
			}
			noAlias(t, &node)
		}
	}
}

func noAlias(t *testing.T, n *yaml.Node) {
	t.Helper()
	if n.Kind == yaml.AliasNode {
		t.Errorf("line %d: an alias was taken", n.Line)
		return // what it stands for may hold it
	}
	for _, c := range n.Content {
		noAlias(t, c)
	}
}
