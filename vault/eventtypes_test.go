package vault

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"
)

// TestEventTypes holds the list of types against the constants.
func TestEventTypes(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "event.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	listed := map[EventType]bool{}
	for _, e := range EventTypes {
		if listed[e] {
			t.Errorf("%s is listed twice", e)
		}
		listed[e] = true
	}
	found := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); !ok || id.Name != "EventType" {
			return true
		}
		for _, v := range spec.Values {
			text, err := strconv.Unquote(v.(*ast.BasicLit).Value)
			if err != nil || !listed[EventType(text)] {
				t.Errorf("%s is not listed", text)
			}
			found++
		}
		return true
	})
	if found != len(listed) {
		t.Errorf("%d constants, %d listed", found, len(listed))
	}
}
