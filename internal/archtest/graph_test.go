package archtest

import (
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// graph holds the packages of a module by their name ("./vault"), with what each imports.
type graph map[string]imports

// imports are the imports of a package's own files and of its test files, sorted, those of this module as "./vault".
type imports struct {
	code  []string
	tests []string
}

// load reads the import clauses of every Go file of the module in root. It reads files and does not ask the go
// command, because that leaves out what build tags and other systems would bring in, and because the test cache
// notices a changed file, but not what a child process has read.
func load(root string) (graph, error) {
	module, err := modulePath(filepath.Join(root, "go.mod"))
	if err != nil {
		return nil, err
	}
	g := graph{}
	err = filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return enter(root, file)
		}
		if filepath.Ext(file) != ".go" {
			return nil
		}
		rel, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		name := "./" + filepath.ToSlash(rel)
		p := g[name]
		list := &p.code
		if strings.HasSuffix(file, "_test.go") {
			list = &p.tests
		}
		*list, err = addImports(*list, module, file)
		g[name] = p
		return err
	})
	return g, err
}

// enter says whether the walk goes into a folder: not where the go command does not, and not into other modules.
func enter(root, dir string) error {
	if dir == root {
		return nil
	}
	base := filepath.Base(dir)
	if base == "testdata" || base == "vendor" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
		return filepath.SkipDir
	}
	switch _, err := os.Stat(filepath.Join(dir, "go.mod")); {
	case err == nil:
		return filepath.SkipDir
	case errors.Is(err, fs.ErrNotExist):
		return nil
	default:
		return err
	}
}

func modulePath(gomod string) (string, error) {
	text, err := os.ReadFile(gomod)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "module" {
			return strings.Trim(f[1], `"`), nil
		}
	}
	return "", fmt.Errorf("%s names no module", gomod)
}

func addImports(list []string, module, file string) ([]string, error) {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		return nil, err
	}
	for _, spec := range f.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if imported == module {
			imported = "./."
		} else if below, ok := strings.CutPrefix(imported, module+"/"); ok {
			imported = "./" + below
		}
		if at, found := slices.BinarySearch(list, imported); !found {
			list = slices.Insert(list, at, imported)
		}
	}
	return list, nil
}

// violations lists, in a stable order, every import that breaks a rule: who, what, by which way, which rule and why.
func violations(g graph, rules []rule) []string {
	var found []string
	for _, r := range rules {
		for name, p := range g {
			if !matchAny(r.in, name) || matchAny(r.except, name) {
				continue
			}
			for _, way := range g.ways(name, p, r) {
				last := way[len(way)-1]
				if matchAny(r.deny, last) && !matchAny(r.allow, last) {
					found = append(found, fmt.Sprintf("%s must not import %s (%s)\n\trule: %s\n\twhy:  %s",
						name, last, strings.Join(way, " -> "), r.name, r.why))
				}
			}
		}
	}
	slices.Sort(found)
	return found
}

// ways gives one shortest chain of imports from a package to each package that the rule looks at.
func (g graph) ways(name string, p imports, r rule) [][]string {
	direct := p.code
	if r.tests {
		direct = slices.Concat(p.code, p.tests)
	}
	seen := map[string]bool{name: true}
	var ways [][]string
	add := func(from []string, to []string) {
		for _, next := range to {
			if !seen[next] {
				seen[next] = true
				ways = append(ways, append(slices.Clone(from), next))
			}
		}
	}
	add([]string{name}, direct)
	for i := 0; r.transitive && i < len(ways); i++ {
		add(ways[i], g[ways[i][len(ways[i])-1]].code)
	}
	return ways
}

func matchAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return match(pattern, name) })
}

// match compares whole elements: "./vault/..." matches ./vault and ./vault/client, not ./vaultx.
func match(pattern, name string) bool {
	base, below := strings.CutSuffix(pattern, "/...")
	return name == base || below && strings.HasPrefix(name, base+"/")
}
