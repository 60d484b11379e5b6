package main

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

// reason is one row of the catalogue.
type reason struct {
	constant string   // ReasonGrantExpired
	name     string   // GRANT_EXPIRED
	meaning  string   // its comment
	kinds    []string // of the errors that bear it
}

func reasonsPage(src *source) ([]byte, error) {
	domain, err := src.load("vault")
	if err != nil {
		return nil, err
	}
	reasons := reasonsOf(domain)
	kinds := kindsOf(domain)
	if err := findKinds(src, reasons, kinds); err != nil {
		return nil, err
	}
	statuses, err := lookup(src, "internal/server", "kinds")
	if err != nil {
		return nil, err
	}
	status := map[string]string{}
	for kind, code := range statuses {
		status[kind] = upper(last(code))
	}
	command, err := src.load("cmd/portcullis")
	if err != nil {
		return nil, err
	}
	hints, err := lookup(src, "cmd/portcullis", "hints")
	if err != nil {
		return nil, err
	}
	named, err := lookup(src, "cmd/portcullis", "kindNames")
	if err != nil {
		return nil, err
	}

	var b bytes.Buffer
	b.WriteString(reasonsHead)
	t := newTable("kind", "gRPC status", "exit code", "tells")
	for _, k := range kinds {
		n, ok := named[k.name].(*ast.CompositeLit)
		if !ok || status[k.name] == "" {
			return nil, fmt.Errorf("kind %s has no status, or no name in the command line", k.name)
		}
		name, err := command.value(n.Elts[0])
		if err != nil {
			return nil, err
		}
		exit, err := command.value(n.Elts[1])
		if err != nil {
			return nil, err
		}
		t.row("`"+name+"`", status[k.name], exit, k.meaning)
	}
	t.WriteTo(&b)

	b.WriteString(eventsHead)
	t = newTable("event", "when", "kinds that it is written for")
	for _, e := range refusalEvents {
		recorded, err := recordedKinds(src, e.dir)
		if err != nil {
			return nil, err
		}
		var in []string
		for _, k := range recorded {
			in = append(in, status[k])
		}
		t.row("`"+e.event+"`", e.when, strings.Join(in, ", "))
	}
	t.WriteTo(&b)

	b.WriteString(reasonsMiddle)
	t = newTable("reason", "gRPC status", "what it means", "what to try, as the command line says it")
	for _, r := range reasons {
		if r.meaning == "" || len(r.kinds) == 0 || hints[r.constant] == nil {
			return nil, fmt.Errorf("%s has no comment, no hint, or is given by no code", r.constant)
		}
		var codes []string
		for _, k := range r.kinds {
			codes = append(codes, status[k])
		}
		hint, err := command.value(hints[r.constant])
		if err != nil {
			return nil, err
		}
		t.row("`"+r.name+"`", strings.Join(codes, ", "), r.meaning, hint)
	}
	t.WriteTo(&b)
	return b.Bytes(), nil
}

const reasonsHead = `# Reasons

<!-- Made by make generate of vault/reason.go and others; do not edit. -->

Every error of the service is a gRPC status with a ` + "`google.rpc.ErrorInfo`" + `: domain ` + "`portcullis`" + ` and one
of the reasons below. Reasons are stable, so programs may match them; messages are for people and may
change. An ` + "`INVALID_ARGUMENT`" + ` also names the fields in a ` + "`google.rpc.BadRequest`" + `, and ` + "`SERVER_BUSY`" + ` says
in a ` + "`google.rpc.RetryInfo`" + ` when to try again. The command line prints reason and hint, with
` + "`--output json`" + ` as one object, and ends with the kind's exit code; ` + "`portcullis reason NAME`" + ` says the hint again.

## Kinds

`

const eventsHead = `
## What is written to the audit log

A refusal is an event, with its reason, when policy or state said no. The rest is a failure or a
malformed request, and stands in the service's own log at most.

`

const reasonsMiddle = `
When an image had been authorized but nothing of it left, ` + "`release.unsent`" + ` says so, with the reason.
[formats.md](formats.md#events) has all events.

## All reasons

A few come with more than one status; then the reason says more than the status does.

`

// refusalEvents are the events of refusals. In each folder a function decides by the
// error's kind whether there is one.
var refusalEvents = []struct{ event, when, dir string }{
	{"call.refused", "a caller was turned away by role or standing, whatever the method; the same one at most once a minute", "internal/server"},
	{"grant.refused", "a request, approval or activation of a grant", "vault/grants"},
	{"release.refused", "listing or fetching under a grant", "vault/release"},
}

// reasonsOf gives the constants of type Reason, in their order.
func reasonsOf(domain *pkg) []*reason {
	var out []*reason
	constants(domain, func(v *ast.ValueSpec, kind string) {
		if kind != "Reason" {
			return
		}
		name, err := domain.value(v.Values[0])
		if err == nil {
			out = append(out, &reason{constant: v.Names[0].Name, name: name, meaning: text(v.Doc, v.Names[0].Name)})
		}
	})
	return out
}

// kind is a kind of errors.
type kind struct{ name, meaning string }

// kindsOf gives the constants of type Kind, in their order.
func kindsOf(domain *pkg) []kind {
	var out []kind
	constants(domain, func(v *ast.ValueSpec, k string) {
		if k == "Kind" {
			out = append(out, kind{v.Names[0].Name, text(v.Comment, v.Names[0].Name)})
		}
	})
	return out
}

// constants gives each constant of a package with the name of its type, which below iota is
// that of the one before.
func constants(p *pkg, each func(v *ast.ValueSpec, kind string)) {
	for _, f := range p.files {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			kind := ""
			for _, spec := range g.Specs {
				v := spec.(*ast.ValueSpec)
				if v.Type != nil || v.Values != nil {
					kind = last(v.Type)
				}
				each(v, kind)
			}
		}
	}
}

// lookup gives the entries of a map by the last names of its keys.
func lookup(src *source, dir, name string) (map[string]ast.Expr, error) {
	p, err := src.load(dir)
	if err != nil {
		return nil, err
	}
	lit, err := p.variable(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	out := map[string]ast.Expr{}
	for _, e := range lit.Elts {
		kv := e.(*ast.KeyValueExpr)
		out[last(kv.Key)] = kv.Value
	}
	return out, nil
}

// upper writes FailedPrecondition as FAILED_PRECONDITION.
func upper(code string) string {
	var b strings.Builder
	for i, r := range code {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String())
}

// findKinds finds, in all code that ships, the kinds of the errors that bear each reason.
func findKinds(src *source, reasons []*reason, kinds []kind) error {
	known := map[string]*reason{}
	for _, r := range reasons {
		known[r.constant] = r
	}
	rank := func(k string) int { return slices.IndexFunc(kinds, func(in kind) bool { return in.name == k }) }
	found := func(kind, reason ast.Expr) {
		r := known[last(reason)]
		if r != nil && rank(last(kind)) >= 0 && !slices.Contains(r.kinds, last(kind)) {
			r.kinds = append(r.kinds, last(kind))
		}
	}
	for _, top := range []string{"vault", "internal", "cmd/portcullisd"} {
		dirs, err := src.folders(top)
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			if strings.HasPrefix(dir, "vault/vaulttest") || dir == "internal/docgen" {
				continue
			}
			p, err := src.load(dir)
			if err != nil {
				return err
			}
			for _, f := range p.files {
				for _, d := range f.Decls {
					pairs(d, found)
				}
			}
		}
	}
	for _, r := range reasons {
		slices.SortFunc(r.kinds, func(a, b string) int { return rank(a) - rank(b) })
	}
	return nil
}

// pairs finds kinds and reasons that stand together: as neighbours among the arguments of a
// call, as fields of an Error, and where a function in the declaration makes an error of one
// kind with the reason that it is given.
func pairs(d ast.Decl, found func(kind, reason ast.Expr)) {
	type local struct {
		kind ast.Expr
		arg  int // where its reason stands
	}
	makers := map[string]local{}
	ast.Inspect(d, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			fn, ok := n.Rhs[0].(*ast.FuncLit)
			if !ok || len(n.Lhs) != 1 {
				break
			}
			var params []string
			for _, f := range fn.Type.Params.List {
				for _, name := range f.Names {
					params = append(params, name.Name)
				}
			}
			ast.Inspect(fn, func(in ast.Node) bool {
				if c, ok := in.(*ast.CallExpr); ok && last(c.Fun) == "E" && len(c.Args) > 1 {
					if arg := slices.Index(params, last(c.Args[1])); arg >= 0 {
						makers[last(n.Lhs[0])] = local{c.Args[0], arg}
					}
				}
				return true
			})
		case *ast.CallExpr:
			if m, ok := makers[last(n.Fun)]; ok && m.arg < len(n.Args) {
				found(m.kind, n.Args[m.arg])
			}
			for i := range len(n.Args) - 1 {
				found(n.Args[i], n.Args[i+1])
			}
		case *ast.CompositeLit:
			fields := map[string]ast.Expr{}
			for _, e := range n.Elts {
				if kv, ok := e.(*ast.KeyValueExpr); ok {
					fields[last(kv.Key)] = kv.Value
				}
			}
			if fields["Kind"] != nil && fields["Reason"] != nil {
				found(fields["Kind"], fields["Reason"])
			}
		}
		return true
	})
}

// recordedKinds gives the kinds of errors for which the function that records refusals in a
// folder writes an event: those it switches on, or the one it compares with.
func recordedKinds(src *source, dir string) ([]string, error) {
	p, err := src.load(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range p.files {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || (fn.Name.Name != "refuse" && fn.Name.Name != "refused") {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CaseClause:
					for _, e := range n.List {
						out = append(out, last(e))
					}
				case *ast.BinaryExpr:
					if call, ok := n.X.(*ast.CallExpr); ok && last(call.Fun) == "KindOf" {
						out = append(out, last(n.Y))
					}
				}
				return true
			})
		}
	}
	if len(out) == 0 {
		return nil, errors.New(dir + " has no function that records refusals by kind")
	}
	return out, nil
}
