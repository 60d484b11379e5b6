package main

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/portcullis/portcullis/vault"
)

// maxMisfits is how many things an error names that do not fit in one document.
const maxMisfits = 5

// misfits are what does not fit the form of a file, in words for whoever wrote it.
type misfits struct {
	said    []string
	missing []string
}

// fitYAML compares a document with the form that it is to be read into: keys that the form does
// not have, values of another shape, and keys that are missing though the form's tag "must" wants
// them. What reads itself, such as a duration, says itself what is wrong with it.
func fitYAML(doc *yaml.Node, form reflect.Type) *misfits {
	m := &misfits{}
	n := doc
	if n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
		n = n.Content[0]
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		n = &yaml.Node{Kind: yaml.MappingNode, Line: n.Line} // an empty one, which lacks all
	}
	m.fit(n, form, "")
	return m
}

func (m *misfits) add(n *yaml.Node, key, format string, args ...any) {
	if len(m.said) == maxMisfits {
		return
	}
	if key != "" {
		key += ": "
	}
	m.said = append(m.said, fmt.Sprintf("line %d: %s%s", n.Line, key, fmt.Sprintf(format, args...)))
}

var readsItself = reflect.TypeFor[yaml.Unmarshaler]()

func (m *misfits) fit(n *yaml.Node, form reflect.Type, key string) {
	if reflect.PointerTo(form).Implements(readsItself) {
		return
	}
	switch form.Kind() {
	case reflect.Pointer:
		m.fit(n, form.Elem(), key)
	case reflect.Struct:
		m.fitStruct(n, form, key)
	case reflect.Map:
		if n.Kind != yaml.MappingNode {
			m.add(n, key, "a mapping of keys is wanted")
			return
		}
		for i := 1; i < len(n.Content); i += 2 {
			m.fit(n.Content[i], form.Elem(), key)
		}
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			m.add(n, key, "a list is wanted, such as [%s]", listed(n))
			return
		}
		for _, c := range n.Content {
			m.fit(c, form.Elem(), key)
		}
	case reflect.Int, reflect.Int64:
		if n.Kind != yaml.ScalarNode || n.Tag != "!!int" {
			m.add(n, key, "a whole number is wanted")
		} else if _, err := strconv.ParseInt(n.Value, 10, form.Bits()); err != nil {
			m.add(n, key, "the number is too large")
		}
	case reflect.String:
		if n.Kind != yaml.ScalarNode {
			m.add(n, key, "text is wanted")
		}
	}
}

func (m *misfits) fitStruct(n *yaml.Node, form reflect.Type, key string) {
	if n.Kind != yaml.MappingNode {
		m.add(n, key, "a mapping of keys is wanted")
		return
	}
	types, known := map[string]reflect.Type{}, []string{}
	for f := range form.Fields() {
		k, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		types[k], known = f.Type, append(known, k)
	}
	has := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		t := types[k.Value]
		switch {
		case k.Kind != yaml.ScalarNode:
			m.add(k, key, "a key is one word")
		case t == nil:
			near := ""
			if len(k.Value) <= vault.MaxName {
				near = didYouMean(k.Value, likely(k.Value, known))
			}
			m.add(k, key, "unknown key %.64q%s", k.Value, near)
		default:
			has[k.Value] = true
			m.fit(v, t, k.Value)
		}
	}
	for f := range form.Fields() {
		if k := f.Tag.Get("yaml"); f.Tag.Get("must") != "" && !has[k] {
			m.missing = append(m.missing, k)
		}
	}
}

// likely gives the keys that begin as what was typed does, as hardly anybody mistypes the first
// letter; all of them if none does.
func likely(typed string, known []string) []string {
	var out []string
	for _, k := range known {
		if typed != "" && k != "" && k[0] == typed[0] {
			out = append(out, k)
		}
	}
	if out == nil {
		return known
	}
	return out
}

// listed gives an item for a list, from what stands where the list should be.
func listed(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode && vault.CheckName("", n.Value) == nil {
		return n.Value
	}
	return "one, another"
}
