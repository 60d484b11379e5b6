package main

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const module = "github.com/portcullis/portcullis"

// source reads the packages of the module, each once.
type source struct {
	root  string
	fset  *token.FileSet
	std   types.Importer
	known map[string]*pkg // by folder below the root
}

// pkg is a package: its files without tests, and what is known of their types. What they
// import from outside of the module is not looked at, but for package time, so not every
// expression has a type. All constants have a value.
type pkg struct {
	files []*ast.File
	types *types.Package
	info  *types.Info
}

func newSource(root string) *source {
	return &source{root: root, fset: token.NewFileSet(), std: importer.Default(), known: map[string]*pkg{}}
}

// load reads the package in a folder below the root.
func (s *source) load(dir string) (*pkg, error) {
	if p := s.known[dir]; p != nil {
		return p, nil
	}
	entries, err := os.ReadDir(filepath.Join(s.root, dir))
	if err != nil {
		return nil, err
	}
	p := &pkg{info: &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}}
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			f, err := parser.ParseFile(s.fset, filepath.Join(s.root, dir, name), nil, parser.ParseComments)
			if err != nil {
				return nil, err
			}
			p.files = append(p.files, f)
		}
	}
	s.known[dir] = p
	conf := types.Config{Importer: s, Error: func(error) {}} // of what lies outside
	p.types, _ = conf.Check(module+"/"+dir, s.fset, p.files, p.info)
	return p, nil
}

// Import finds what a package of the module imports.
func (s *source) Import(path string) (*types.Package, error) {
	if dir, ok := strings.CutPrefix(path, module+"/"); ok && !strings.HasPrefix(dir, "proto/") {
		p, err := s.load(dir)
		if err != nil {
			return nil, err
		}
		if p.types != nil {
			return p.types, nil
		}
	}
	if path == "time" {
		return s.std.Import(path)
	}
	return nil, fmt.Errorf("%s is not looked at", path)
}

// folders gives the folders below dir that hold Go.
func (s *source) folders(dir string) ([]string, error) {
	var out []string
	err := filepath.WalkDir(filepath.Join(s.root, dir), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		if e.Name() == "testdata" {
			return fs.SkipDir
		}
		if gofiles, _ := filepath.Glob(filepath.Join(path, "*.go")); len(gofiles) > 0 {
			rel, err := filepath.Rel(s.root, path)
			if err != nil {
				return err
			}
			out = append(out, filepath.ToSlash(rel))
		}
		return nil
	})
	return out, err
}

// constant gives the value of a constant as a person writes it.
func (s *source) constant(dir, name string) (string, error) {
	p, err := s.load(dir)
	if err != nil {
		return "", err
	}
	c, ok := p.types.Scope().Lookup(name).(*types.Const)
	if !ok {
		return "", fmt.Errorf("%s has no constant %s", dir, name)
	}
	return written(c.Type(), c.Val())
}

// value gives the value of a constant expression.
func (p *pkg) value(e ast.Expr) (string, error) {
	tv := p.info.Types[e]
	if tv.Value == nil {
		return "", fmt.Errorf("%s is not constant", types.ExprString(e))
	}
	return written(tv.Type, tv.Value)
}

// typed gives the value of a constant expression as it is typed: 1h, not 1 hour.
func (p *pkg) typed(e ast.Expr) (string, error) {
	tv := p.info.Types[e]
	if tv.Value == nil || tv.Type.String() != "time.Duration" {
		return p.value(e)
	}
	n, _ := constant.Int64Val(tv.Value)
	s := time.Duration(n).String()
	for _, none := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, none) {
			s = strings.TrimSuffix(s, none[1:])
		}
	}
	return s, nil
}

func written(t types.Type, v constant.Value) (string, error) {
	switch {
	case t.String() == "time.Duration":
		n, _ := constant.Int64Val(v)
		return duration(time.Duration(n)), nil
	case v.Kind() == constant.String:
		return constant.StringVal(v), nil
	case v.Kind() == constant.Int:
		n, _ := constant.Int64Val(v)
		return strconv.FormatInt(n, 10), nil
	}
	return "", fmt.Errorf("a value of type %s was not expected", t)
}

// duration writes 7 days, 5 minutes, 20ms.
func duration(d time.Duration) string {
	for _, u := range []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		if n := d / u.size; n > 0 && d%u.size == 0 {
			if n == 1 {
				return "1 " + u.name
			}
			return fmt.Sprintf("%d %ss", n, u.name)
		}
	}
	return d.String()
}

// size adds to a number of bytes what it is in powers of two.
func size(bytes string) string {
	n, err := strconv.ParseInt(bytes, 10, 64)
	for _, u := range []struct {
		shift int
		name  string
	}{{30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
		if err == nil && n >= 1<<u.shift && n%(1<<u.shift) == 0 {
			return fmt.Sprintf("%s (%d %s)", bytes, n>>u.shift, u.name)
		}
	}
	return bytes
}

// variable gives the composite value of a package's variable.
func (p *pkg) variable(name string) (*ast.CompositeLit, error) {
	for _, f := range p.files {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range g.Specs {
				v, ok := spec.(*ast.ValueSpec)
				if !ok || len(v.Values) != 1 || v.Names[0].Name != name {
					continue
				}
				if c, ok := v.Values[0].(*ast.CompositeLit); ok {
					return c, nil
				}
			}
		}
	}
	return nil, fmt.Errorf("no variable %s was found", name)
}

// structure gives a package's struct.
func (p *pkg) structure(name string) (*ast.StructType, error) {
	for _, f := range p.files {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range g.Specs {
				if t, ok := spec.(*ast.TypeSpec); ok && t.Name.Name == name {
					if s, ok := t.Type.(*ast.StructType); ok {
						return s, nil
					}
				}
			}
		}
	}
	return nil, fmt.Errorf("no struct %s was found", name)
}

// last gives the last name of vault.Denied, Denied and the like.
func last(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

// text gives a comment on one line, without the name that it begins with.
func text(c *ast.CommentGroup, name string) string {
	t := strings.Join(strings.Fields(c.Text()), " ")
	if after, ok := strings.CutPrefix(t, name); ok {
		t = after
		for _, between := range []string{":", " is ", " are "} {
			t = strings.TrimPrefix(t, between)
		}
	}
	return strings.TrimSpace(t)
}
