package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
)

// show writes an answer: as JSON, or as the table that rows fills.
func (a *app) show(m proto.Message, rows func(t *grid)) error {
	if a.output != jsonOutput {
		return a.showTable(rows)
	}
	b, err := messageJSON(m)
	if err != nil {
		return err
	}
	return a.showJSON(b)
}

func (a *app) showTable(rows func(t *grid)) error {
	t := &grid{w: tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)}
	rows(t)
	return t.w.Flush()
}

// messageJSON gives a message as JSON. Scripts find every field but the messages that are absent.
func messageJSON(m proto.Message) (json.RawMessage, error) {
	b, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("write the answer as JSON: %w", err)
	}
	// protojson puts in spaces at random, so that nobody relies on them.
	var out bytes.Buffer
	err = json.Compact(&out, b)
	return out.Bytes(), err
}

// showJSON writes one object, indented.
func (a *app) showJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// lineJSON writes one object of a stream, on one line.
func (a *app) lineJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// grid is a table that is being written.
type grid struct{ w *tabwriter.Writer }

// row writes cells. What the service sent can not steer the terminal.
func (t *grid) row(cells ...any) {
	text := make([]string, len(cells))
	for i, c := range cells {
		text[i] = printable(fmt.Sprint(c))
	}
	fmt.Fprintln(t.w, strings.Join(text, "\t"))
}

// line writes text across the columns.
func (t *grid) line(format string, args ...any) {
	fmt.Fprintln(t.w, printable(fmt.Sprintf(format, args...)))
}

// text writes lines, each after a mark.
func (t *grid) text(mark, s string) {
	for line := range strings.Lines(s) {
		fmt.Fprintln(t.w, mark+printable(strings.TrimSuffix(line, "\n")))
	}
}

// printable puts a sign in the place of what is not printable text.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// when writes a time for a table.
func when(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return t.AsTime().UTC().Format(time.RFC3339)
}

// short writes a duration for a person.
func short(d *durationpb.Duration) string {
	v := d.AsDuration()
	if v < time.Second {
		return fmt.Sprintf("%d ms", v.Milliseconds())
	}
	text := v.Round(10 * time.Millisecond).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

// count writes a number with its noun.
func count[N int | int32 | int64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// barrier says in words how access ended.
func barrier(b *pb.Barrier) string {
	then := "Vault enforces it"
	if !b.GetVaultDone() {
		then = "Vault is away, and enforces it by itself once it is back"
	}
	return underWay(b) + "; " + then
}

// underWay is the part of barrier that is not about Vault.
func underWay(b *pb.Barrier) string {
	return fmt.Sprintf("nothing is under way any more: %s reset, %s ended, after %s",
		count(b.GetConnectionsReset(), "connection"), count(b.GetSendsEnded(), "send"), short(b.GetWaited()))
}

// word gives an enum's value for a table: STATE_ACTIVE as active.
func word(e fmt.Stringer, prefix string) string {
	return strings.ToLower(strings.TrimPrefix(e.String(), prefix))
}

func modality(m pb.Modality) string { return word(m, "MODALITY_") }

func modalities(in []pb.Modality) string {
	out := make([]string, len(in))
	for i, m := range in {
		out[i] = modality(m)
	}
	return strings.Join(out, ",")
}

// bare takes the collection off a resource name.
func bare(name string) string {
	_, id, ok := strings.Cut(name, "/")
	if !ok {
		return name
	}
	return id
}

// person gives an admin's short name from a SPIFFE ID.
func person(id string) string { return id[strings.LastIndexByte(id, '/')+1:] }
