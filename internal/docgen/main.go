// Command docgen owns the pages of docs/ that are made of the code: the catalogue of reasons
// and the reference of the configuration. It reads the source, so what a page says and what
// the code says cannot part.
//
//	go run ./internal/docgen          write the pages anew (make generate)
//	go run ./internal/docgen -check   say whether they are up to date (make check)
//
// It runs in the module's root folder.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// pages are the files that it writes, below the root, each with what makes it.
var pages = []struct {
	path string
	make func(*source) ([]byte, error)
}{
	{"docs/reasons.md", reasonsPage},
	{"docs/configuration.md", configurationPage},
}

func main() {
	check := flag.Bool("check", false, "change nothing; fail if a page is not up to date")
	flag.Parse()
	if err := run(".", *check); err != nil {
		fmt.Fprintln(os.Stderr, "docgen:", err)
		os.Exit(1)
	}
}

// run writes the pages of the module at root, or checks them.
func run(root string, check bool) error {
	src := newSource(root)
	for _, p := range pages {
		want, err := p.make(src)
		if err != nil {
			return fmt.Errorf("%s: %w", p.path, err)
		}
		file := filepath.Join(root, p.path)
		if !check {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				return err
			}
			continue
		}
		got, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("%s is not up to date: run make generate\n%s", p.path, firstDifference(string(got), string(want)))
		}
	}
	return nil
}

// firstDifference shows where two texts part.
func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	n := 0
	for n < len(g) && n < len(w) && g[n] == w[n] {
		n++
	}
	line := func(in []string) string {
		if n < len(in) {
			return in[n]
		}
		return "(the end)"
	}
	return fmt.Sprintf("line %d\n  is:        %s\n  should be: %s", n+1, line(g), line(w))
}

// table is a Markdown table.
type table struct{ bytes.Buffer }

func newTable(columns ...string) *table {
	t := &table{}
	t.row(columns...)
	t.WriteString(strings.Repeat("|---", len(columns)) + "|\n")
	return t
}

func (t *table) row(cells ...string) {
	for _, c := range cells {
		t.WriteString("| " + cell(c) + " ")
	}
	t.WriteString("|\n")
}

var (
	oneLine = strings.NewReplacer("|", `\|`, "\n", " ")
	noHTML  = strings.NewReplacer("<", "&lt;", ">", "&gt;")
)

// cell keeps a text in its cell, and <words> of it from being taken for HTML, which between
// backquotes they are not.
func cell(text string) string {
	parts := strings.Split(oneLine.Replace(text), "`")
	for i := range parts {
		if i%2 == 0 {
			parts[i] = noHTML.Replace(parts[i])
		}
	}
	return strings.Join(parts, "`")
}
