package main

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/portcullis/portcullis/vault"
)

// purposeFile is the form of a purpose in YAML. What has no safe default must be given.
type purposeFile struct {
	Name         string           `yaml:"name" must:"1"`
	Title        string           `yaml:"title" must:"1"`
	LegalBasis   string           `yaml:"legal_basis" must:"1"`
	Modalities   []vault.Modality `yaml:"modalities" must:"1"`
	Linkage      yamlSwitch       `yaml:"linkage"`
	Sites        []string         `yaml:"sites" must:"1"`
	Contractors  []string         `yaml:"contractors" must:"1"`
	MaxTTL       yamlDuration     `yaml:"max_ttl" must:"1"`
	MaxRecords   int64            `yaml:"max_records" must:"1"`
	MaxBytes     yamlSize         `yaml:"max_bytes" must:"1"`
	MaxRate      int64            `yaml:"max_rate" must:"1"`
	MaxRecordAge yamlDuration     `yaml:"max_record_age" must:"1"`
	Precision    *vault.Precision `yaml:"time_precision"`
	MinBucket    *int             `yaml:"min_bucket"`
	Approvals    *int             `yaml:"approvals"`
	Approvers    yamlApprovers    `yaml:"approvers"`
	Strict       yamlSwitch       `yaml:"strict"`
	Live         yamlSwitch       `yaml:"live"`
	Retention    []string         `yaml:"retention_classes"`
}

// The defaults of a purpose: all on the strict side, but strict itself, which costs speed.
const (
	defaultApprovals = 2
	defaultPrecision = vault.PrecisionDay
	defaultMinBucket = vault.DefaultMinBucket // without linkage
)

// yamlSize is bytes as people write them: 1048576, 500MiB, 10GB.
type yamlSize int64

var sizeForm = regexp.MustCompile(`^([1-9][0-9]{0,15})([KMGT]i?B)?$`)

var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40}, {"TB", 1e12}, {"GiB", 1 << 30}, {"GB", 1e9}, {"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"KB", 1e3}, {"", 1},
}

// UnmarshalYAML reads a size.
func (s *yamlSize) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode && n.Style == 0 {
		if v, ok := parseSize(n.Value); ok {
			*s = yamlSize(v)
			return nil
		}
	}
	return fmt.Errorf("line %d: a size such as 1048576, 500MiB, 2GiB or 10GB is wanted", n.Line)
}

func parseSize(s string) (int64, bool) {
	m := sizeForm.FindStringSubmatch(s)
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return 0, false
	}
	for _, u := range sizeUnits {
		if u.name == m[2] && n <= math.MaxInt64/u.bytes {
			return n * u.bytes, true
		}
	}
	return 0, false
}

// sizeText writes a size as parseSize reads it, in the largest unit that leaves nothing over.
func sizeText(n int64) string {
	for _, u := range sizeUnits {
		if n >= u.bytes && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// durationText writes a duration as parseDuration reads it: whole days as such.
func durationText(d time.Duration) string {
	if day := 24 * time.Hour; d >= day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

// yamlApprovers are names of admins, or the word any: none are then named.
type yamlApprovers []string

// anybody is what stands for no approvers in particular.
const anybody = "any"

// UnmarshalYAML reads names, or any.
func (a *yamlApprovers) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode && n.Value == anybody {
		*a = nil
		return nil
	}
	var names []string
	if n.Kind != yaml.SequenceNode || n.Decode(&names) != nil || len(names) == 0 {
		return fmt.Errorf("line %d: a list of admins' names is wanted, or any", n.Line)
	}
	*a = names
	return nil
}

func parsePurposes(file string, b []byte) (out []vault.Purpose, err error) {
	defer explained(&err, "purpose apply")
	docs, err := decodeYAML[purposeFile](file, b)
	if err != nil {
		return nil, err
	}
	out = make([]vault.Purpose, len(docs))
	for i, d := range docs {
		p := d.purpose()
		if err := checkPurpose(p); err != nil {
			return nil, inDocument(file, i, err)
		}
		out[i] = p.Normal()
	}
	return out, nil
}

// checkPurpose is [vault.Purpose.Check], with limits in the units that a file has.
func checkPurpose(p vault.Purpose) error {
	err := p.Check()
	var e *vault.Error
	if !errors.As(err, &e) || len(e.Fields) != 1 {
		return err
	}
	switch field := e.Fields[0].Name; field {
	case "purpose.max_ttl":
		return vault.InvalidField(field, "must be from %s to %s, in whole seconds", durationText(vault.MinTTL), durationText(vault.MaxTTL))
	case "purpose.max_record_age":
		return vault.InvalidField(field, "must be from %s to %s, in whole seconds", durationText(vault.MinRecordAge), durationText(vault.MaxRecordAge))
	case "purpose.max_bytes":
		return vault.InvalidField(field, "must be from 1 byte to %s", sizeText(vault.MaxBytes))
	}
	return err
}

func (d purposeFile) purpose() vault.Purpose {
	p := vault.Purpose{
		Name: d.Name, Title: d.Title, LegalBasis: d.LegalBasis, Modalities: d.Modalities, Linkage: bool(d.Linkage),
		Sites: d.Sites, Contractors: d.Contractors, MaxTTL: time.Duration(d.MaxTTL), MaxRecords: d.MaxRecords,
		MaxBytes: int64(d.MaxBytes), MaxRate: d.MaxRate, MaxRecordAge: time.Duration(d.MaxRecordAge), Precision: defaultPrecision,
		Approvals: defaultApprovals, Approvers: d.Approvers, Strict: bool(d.Strict), Live: bool(d.Live), Retention: d.Retention,
	}
	if d.Precision != nil {
		p.Precision = *d.Precision
	}
	switch {
	case d.MinBucket != nil:
		p.MinBucket = *d.MinBucket
	case !p.Linkage:
		p.MinBucket = defaultMinBucket
	}
	if d.Approvals != nil {
		p.Approvals = *d.Approvals
	}
	if p.Retention == nil {
		p.Retention = []string{vault.DefaultClass}
	}
	return p
}

// purposeLine is one field of a purpose, as its file has it.
type purposeLine struct{ key, value string }

// purposeLines gives all of a purpose but its name and version, in the order of its canonical form.
func purposeLines(p vault.Purpose) []purposeLine {
	yes := func(b bool) string { return strconv.FormatBool(b) }
	whole := func(n int64) string { return strconv.FormatInt(n, 10) }
	var modalities []string
	for _, m := range p.Modalities {
		modalities = append(modalities, string(m))
	}
	approvers := anybody
	if len(p.Approvers) > 0 {
		approvers = strings.Join(p.Approvers, ", ")
	}
	return []purposeLine{
		{"withdrawn", yes(p.Withdrawn)}, {"title", p.Title}, {"legal_basis", p.LegalBasis},
		{"modalities", strings.Join(modalities, ", ")}, {"linkage", yes(p.Linkage)}, {"sites", strings.Join(p.Sites, ", ")},
		{"contractors", strings.Join(p.Contractors, ", ")}, {"max_ttl", durationText(p.MaxTTL)}, {"max_records", whole(p.MaxRecords)},
		{"max_bytes", sizeText(p.MaxBytes)}, {"max_rate", whole(p.MaxRate)}, {"max_record_age", durationText(p.MaxRecordAge)},
		{"time_precision", string(p.Precision)}, {"min_bucket", whole(int64(p.MinBucket))}, {"approvals", whole(int64(p.Approvals))},
		{"approvers", approvers}, {"strict", yes(p.Strict)}, {"live", yes(p.Live)}, {"retention_classes", strings.Join(p.Retention, ", ")},
	}
}
