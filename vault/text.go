package vault

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

func sorted[T ~string](in []T) []T {
	out := slices.Clone(in)
	slices.Sort(out)
	return slices.Compact(out)
}

func join[T ~string](in []T) string {
	parts := make([]string, len(in))
	for i, s := range in {
		parts[i] = string(s)
	}
	return strings.Join(parts, ",")
}

// lines writes "key: value" lines. The values were checked to hold no line break.
func lines(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		b.WriteString(pairs[i] + ": " + pairs[i+1] + "\n")
	}
	return b.String()
}

func checkModalities(field string, in []Modality) error {
	if len(in) == 0 {
		return InvalidField(field, "must name face, plate or both")
	}
	if len(in) > 2 {
		return InvalidField(field, "names %d modalities; there are two", len(in))
	}
	for _, m := range in {
		if err := CheckModality(field, m); err != nil {
			return err
		}
	}
	return nil
}

func checkNames(field string, in []string) error {
	if len(in) == 0 {
		return InvalidField(field, "must name at least one")
	}
	if len(in) > MaxListed {
		return InvalidField(field, "names %d; at most %d are allowed", len(in), MaxListed)
	}
	for i, s := range in {
		if err := CheckName(fmt.Sprintf("%s[%d]", field, i), s); err != nil {
			return err
		}
	}
	return nil
}

// SortIDs gives the IDs in order and without doubles.
func SortIDs(in []ID) []ID {
	out := slices.Clone(in)
	slices.SortFunc(out, func(a, b ID) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(out)
}

func idList(ids []ID) string {
	parts := make([]string, len(ids))
	for i, id := range ids {
		parts[i] = id.String()
	}
	return strings.Join(parts, ",")
}
