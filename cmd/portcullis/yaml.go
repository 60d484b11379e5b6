package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/portcullis/portcullis/vault"
)

// Limits of the YAML files that people write.
const (
	maxYAML      = 1 << 20 // bytes
	maxDocuments = 100
)

// readLimited reads a file of at most most bytes.
func readLimited(file string, most int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, ownWords(err)
	}
	defer f.Close()
	return readAll(file, f, most)
}

func readAll(name string, r io.Reader, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(b)) > most {
		return nil, fmt.Errorf("%s has more than %d bytes", name, most)
	}
	return b, nil
}

// decodeYAML reads all documents of a file into values of one form. An unknown key is an
// error, with its line, and so is whatever does not mean what it seems to: see plainYAML.
func decodeYAML[T any](file string, b []byte) ([]T, error) {
	if len(b) > maxYAML {
		return nil, usagef("%s has more than %d bytes", file, maxYAML)
	}
	// Two readings, as nodes do not know of unknown keys.
	nodes, dec := yaml.NewDecoder(bytes.NewReader(b)), yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	var docs []T
	for {
		var node yaml.Node
		err := nodes.Decode(&node)
		if err == nil {
			err = plainYAML(&node)
		}
		var doc T
		var form *misfits
		if err == nil {
			if form = fitYAML(&node, reflect.TypeFor[T]()); len(form.said) > 0 {
				return nil, usagef("%s: %s", file, strings.Join(form.said, "; "))
			}
			err = dec.Decode(&doc)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, usagef("%s: %s", file, explainYAML(err))
		}
		if len(docs) == maxDocuments {
			return nil, usagef("%s: holds more than %d documents", file, maxDocuments)
		}
		if len(form.missing) > 0 {
			return nil, inDocument(file, len(docs), fmt.Errorf("missing: %s", strings.Join(form.missing, ", ")))
		}
		docs = append(docs, doc)
	}
	if len(docs) == 0 {
		return nil, usagef("%s: is empty", file)
	}
	return docs, nil
}

var decimal = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)

// plainYAML refuses what people do not expect of a file that others sign: aliases and merged
// keys, which repeat one place at another; tags; and plain words that YAML takes for
// something else, such as 0500 for 320. The package would even take 1.9 for 1.
func plainYAML(n *yaml.Node) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("line %d: %s", n.Line, fmt.Sprintf(format, args...))
	}
	switch {
	case n.Kind == yaml.DocumentNode && len(n.Content) == 1 && n.Content[0].Tag == "!!null" && n.Content[0].Value == "":
		return nil // an empty one, which lacks all that it should have
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return bad("anchors and aliases are not taken; write it out")
	case n.Style&yaml.TaggedStyle != 0:
		return bad("the tag %s is not taken", n.Tag)
	case n.Kind == yaml.ScalarNode:
		switch n.Tag {
		case "!!str":
		case "!!int":
			if !decimal.MatchString(n.Value) {
				return bad("%q: a number has decimal digits alone, and text that looks like one stands in quotes", n.Value)
			}
		case "!!float":
			return bad("%q: a whole number is wanted, and text that looks like a number stands in quotes", n.Value)
		case "!!merge":
			return bad("merged keys (<<) are not taken; write them out")
		case "!!null":
			return bad("a value is missing; leave the key out if there is none")
		default:
			return bad("%q: text that looks like something else stands in quotes", n.Value)
		}
	}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 1 && switches[n.Content[i-1].Value] && c.Tag == "!!bool" && (c.Value == "true" || c.Value == "false") &&
			c.Style == 0 && c.Anchor == "" {
			continue
		}
		if err := plainYAML(c); err != nil {
			return err
		}
	}
	return nil
}

// switches are the keys, of any form, whose values are true or false.
var switches = map[string]bool{"linkage": true, "strict": true, "live": true}

// yamlSwitch is true or false, and nothing that YAML takes for that, such as yes.
type yamlSwitch bool

// UnmarshalYAML reads true or false.
func (s *yamlSwitch) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" || (n.Value != "true" && n.Value != "false") {
		return fmt.Errorf("line %d: true or false is wanted", n.Line)
	}
	*s = n.Value == "true"
	return nil
}

// explainYAML says what the YAML package says, without its name. What does not fit the form
// [fitYAML] has found before.
func explainYAML(err error) string {
	var t *yaml.TypeError
	if errors.As(err, &t) {
		return strings.Join(t.Errors[:min(maxMisfits, len(t.Errors))], "; ")
	}
	return strings.TrimPrefix(err.Error(), "yaml: ")
}

// yamlDuration is a duration as people write it: 90m, 4h, 2d.
type yamlDuration time.Duration

// UnmarshalYAML reads a duration.
func (d *yamlDuration) UnmarshalYAML(n *yaml.Node) error {
	v, err := parseDuration(n.Value)
	if err != nil || n.Kind != yaml.ScalarNode {
		return fmt.Errorf("line %d: a duration such as 90m, 4h or 2d is wanted", n.Line)
	}
	*d = yamlDuration(v)
	return nil
}

// contractorFile is the form of a contractor in YAML.
type contractorFile struct {
	Name  string `yaml:"name" must:"1"`
	Title string `yaml:"title" must:"1"`
	Group string `yaml:"conflict_group"` // its own name when left out
}

func parseContractors(file string, b []byte) (out []vault.Contractor, err error) {
	defer explained(&err, "contractor apply")
	docs, err := decodeYAML[contractorFile](file, b)
	if err != nil {
		return nil, err
	}
	out = make([]vault.Contractor, len(docs))
	for i, d := range docs {
		out[i] = vault.Contractor{Name: d.Name, Title: d.Title, Group: d.Group}.Normal()
		if err := out[i].Check(); err != nil {
			return nil, inDocument(file, i, err)
		}
	}
	return out, nil
}

// inDocument names the document, as people count, in what a check says.
func inDocument(file string, i int, err error) error {
	return &usageError{err: fmt.Errorf("%s, document %d: %w", file, i+1, err)}
}

// explained has the error of a file point to the command whose help explains such files.
func explained(err *error, command string) {
	var u *usageError
	if errors.As(*err, &u) && u.hint == "" {
		u.hint = fmt.Sprintf("see %q", "portcullis "+command+" --help")
	}
}
