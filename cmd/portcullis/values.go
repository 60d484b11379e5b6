package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

// format is how answers are written.
type format string

const (
	table      format = "table"
	jsonOutput format = "json"
)

var _ pflag.Value = (*format)(nil)

func (f *format) String() string { return string(*f) }
func (f *format) Type() string   { return "FORM" }
func (f *format) Set(s string) error {
	switch format(s) {
	case table, jsonOutput:
		*f = format(s)
		return nil
	}
	return fmt.Errorf("must be table or json")
}

// timeFlag is a time that a person gives: RFC 3339, or a date, which means its midnight in UTC.
type timeFlag struct{ time.Time }

var _ pflag.Value = (*timeFlag)(nil)

func (t *timeFlag) String() string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
func (t *timeFlag) Type() string { return "TIME" }
func (t *timeFlag) Set(s string) (err error) {
	t.Time, err = parseTime(s)
	return err
}

func parseTime(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return vault.Micro(t), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time: write 2026-11-23T14:30:00Z, or 2026-11-23 for that midnight in UTC", s)
}

// durationFlag is a duration that a person gives.
type durationFlag time.Duration

var _ pflag.Value = (*durationFlag)(nil)

func (d *durationFlag) String() string {
	if *d == 0 {
		return ""
	}
	return time.Duration(*d).String()
}
func (d *durationFlag) Type() string { return "DURATION" }
func (d *durationFlag) Set(s string) error {
	v, err := parseDuration(s)
	*d = durationFlag(v)
	return err
}

// parseDuration reads what time.ParseDuration does, and days such as 2d.
func parseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	} else if d, err := time.ParseDuration(s); err == nil {
		return d, nil
	}
	return 0, fmt.Errorf("%q is not a duration: write 90m, 4h or 2d", s)
}

// modalitiesFlag is a list of modalities.
type modalitiesFlag []vault.Modality

var _ pflag.Value = (*modalitiesFlag)(nil)

func (m *modalitiesFlag) String() string {
	var out []string
	for _, v := range *m {
		out = append(out, string(v))
	}
	return strings.Join(out, ",")
}
func (m *modalitiesFlag) Type() string { return "face|plate[,…]" }
func (m *modalitiesFlag) Set(s string) error {
	for _, one := range strings.Split(s, ",") {
		if vault.CheckModality("", vault.Modality(one)) != nil {
			return fmt.Errorf("must be face, plate or face,plate")
		}
		*m = append(*m, vault.Modality(one))
	}
	return nil
}

// classFlag is a retention class.
type classFlag string

var _ pflag.Value = (*classFlag)(nil)

func (c *classFlag) String() string { return string(*c) }
func (c *classFlag) Type() string   { return "NAME" }
func (c *classFlag) Set(s string) error {
	if vault.CheckName("", s) != nil {
		return fmt.Errorf("must be lower-case letters and digits, parts joined by single hyphens, at most %d bytes, such as us-citizen", vault.MaxName)
	}
	*c = classFlag(s)
	return nil
}

// modalityFlag is one modality, or none.
type modalityFlag vault.Modality

var _ pflag.Value = (*modalityFlag)(nil)

func (m *modalityFlag) String() string { return string(*m) }
func (m *modalityFlag) Type() string   { return "face|plate" }
func (m *modalityFlag) Set(s string) error {
	if vault.CheckModality("", vault.Modality(s)) != nil {
		return fmt.Errorf("must be face or plate")
	}
	*m = modalityFlag(s)
	return nil
}

// idFlag is a UUID, or none.
type idFlag vault.ID

var _ pflag.Value = (*idFlag)(nil)

func (i *idFlag) String() string {
	if *i == (idFlag{}) {
		return ""
	}
	return vault.ID(*i).String()
}
func (i *idFlag) Type() string { return "UUID" }
func (i *idFlag) Set(s string) error {
	for _, collection := range []string{wire.Records, wire.Grants, wire.Lists} {
		s = strings.TrimPrefix(s, collection+"/")
	}
	id, err := vault.ParseID("", s)
	if err != nil || id == (vault.ID{}) {
		return fmt.Errorf("must be a UUID such as 123e4567-e89b-42d3-a456-426614174000")
	}
	*i = idFlag(id)
	return nil
}

// grantName reads a grant as people give it, "grants/<uuid>" or the UUID alone, and gives
// the former.
func grantName(s string) (string, vault.ID, error) {
	id, err := vault.ParseID("grant", strings.TrimPrefix(s, wire.Grants+"/"))
	if err != nil {
		return "", id, usagef("%q is not a grant: give grants/ and a UUID, or the UUID alone, as \"grant list\" shows it", s)
	}
	return wire.Name(wire.Grants, id), id, nil
}

// slugName reads a name with or without its collection, and gives it with.
func slugName(collection, what, s string) (string, error) {
	slug := strings.TrimPrefix(s, collection+"/")
	if err := vault.CheckName(what, slug); err != nil {
		return "", &usageError{err: err}
	}
	return collection + "/" + slug, nil
}

// required marks flags that a command can not do without.
func required(c *cobra.Command, flags ...string) {
	for _, f := range flags {
		if err := c.MarkFlagRequired(f); err != nil {
			panic(err) // no such flag: a mistake in this program
		}
	}
}
