package vault_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Programs match reasons and people look them up, so each is one of its kind and says what
// to do.
func TestReasonsAreDistinctAndExplained(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "reason.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	form := regexp.MustCompile(`^[A-Z]+(_[A-Z]+)*$`)
	seen := map[string]string{}
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, spec := range g.Specs {
			v := spec.(*ast.ValueSpec)
			if len(v.Names) != 1 || len(v.Values) != 1 {
				t.Fatalf("%s: one constant on a line", v.Names[0])
			}
			name := v.Names[0].Name
			text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil || !form.MatchString(text) || len(text) > 63 {
				t.Errorf("%s is %q, not in the form of ErrorInfo.reason", name, text)
			}
			if typ, ok := v.Type.(*ast.Ident); !ok || typ.Name != "Reason" {
				t.Errorf("%s is no Reason", name)
			}
			if want := "Reason" + strings.ReplaceAll(text, "_", ""); !strings.EqualFold(name, want) {
				t.Errorf("%s is %q", name, text)
			}
			if other, ok := seen[text]; ok {
				t.Errorf("%s and %s are both %s", name, other, text)
			}
			seen[text] = name
			doc := strings.TrimSpace(v.Doc.Text())
			if rest, ok := strings.CutPrefix(doc, name+": "); !ok || len(rest) < 15 || !strings.HasSuffix(doc, ".") {
				t.Errorf("%s is explained by %q", name, doc)
			}
		}
	}
	if len(seen) < 50 {
		t.Errorf("%d reasons found", len(seen))
	}
}
