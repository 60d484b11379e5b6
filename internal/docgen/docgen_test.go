package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPages holds the pages against the code, and shows that a page that was changed, or is
// not there, is told.
func TestPages(t *testing.T) {
	if err := run(filepath.Join("..", ".."), true); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for _, dir := range []string{"vault", "internal", "cmd"} {
		if err := os.CopyFS(filepath.Join(root, dir), os.DirFS(filepath.Join("..", "..", dir))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "docs"), 0o700); err != nil {
		t.Fatal(err)
	}
	change := func(file, old, new string) {
		t.Helper()
		file = filepath.Join(root, file)
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.Replace(string(b), old, new, 1)
		if changed == string(b) {
			t.Fatalf("%s does not hold %q", file, old)
		}
		if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := run(root, true); err == nil {
		t.Error("pages that are not there pass")
	}
	if err := run(root, false); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ file, old, new, want string }{
		{"vault/reason.go", "the grant was not activated.", "nobody activated it.", "nobody activated it."},
		{"cmd/portcullis/hints.go", `"request a new grant"`, `"ask for another one"`, "ask for another one"},
		{"internal/server/status.go", "codes.Aborted", "codes.OutOfRange", "OUT_OF_RANGE"},
		{"cmd/portcullisd/config.go", `"path of the transit mount"`, `"where transit is"`, "where transit is"},
		{"vault/purpose.go", "MaxQuota      = 1_000_000", "MaxQuota      = 2_000_000", "2000000"},
	} {
		change(c.file, c.old, c.new)
		if err := run(root, true); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s was changed, and the check says %v", c.file, err)
		}
		change(c.file, c.new, c.old)
		if err := run(root, true); err != nil {
			t.Fatal(err)
		}
	}
	change("cmd/portcullis/hints.go", "vault.ReasonKeyRefused:", "\"OTHER\":")
	if err := run(root, false); err == nil || !strings.Contains(err.Error(), "ReasonKeyRefused") {
		t.Errorf("a reason without a hint: %v", err)
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^)#\s]*)(#[^)\s]*)?\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	noSlug  = regexp.MustCompile(`[^a-z0-9 _-]`)
)

// TestLinks follows the links between the pages, and from them into the tree.
func TestLinks(t *testing.T) {
	root := filepath.Join("..", "..")
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(files) < 10 {
		t.Fatalf("pages: %v, %v", files, err)
	}
	read := func(file string) string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, file := range append(files, filepath.Join(root, "README.md")) {
		for _, m := range link.FindAllStringSubmatch(read(file), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			to := file
			if m[1] != "" {
				to = filepath.Join(filepath.Dir(file), m[1])
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			if m[2] == "" {
				continue
			}
			found := false
			for _, h := range heading.FindAllStringSubmatch(read(to), -1) {
				slug := strings.ReplaceAll(noSlug.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-")
				found = found || m[2] == "#"+slug
			}
			if !found {
				t.Errorf("%s: %s has no heading %s", file, to, m[2])
			}
		}
	}
}

func TestPairs(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "x.go", `package x
func f() error {
	refuse := func(cause error, r vault.Reason) error { return vault.E(vault.State, r, "no") }
	if x { return refuse(nil, vault.ReasonB) }
	if y { return wrap(vault.Denied, vault.ReasonC, nil) }
	if z { return &vault.Error{Kind: vault.Invalid, Reason: vault.ReasonD} }
	return vault.E(vault.NotFound, vault.ReasonA, "none")
}`, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range f.Decls {
		pairs(d, func(kind, reason ast.Expr) {
			if r := last(reason); strings.HasPrefix(r, "Reason") {
				got = append(got, last(kind)+" "+r)
			}
		})
	}
	for _, want := range []string{"State ReasonB", "Denied ReasonC", "Invalid ReasonD", "NotFound ReasonA"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s was not found; found %v", want, got)
		}
	}
}

func TestWritten(t *testing.T) {
	for d, want := range map[time.Duration]string{
		7 * 24 * time.Hour: "7 days", time.Minute: "1 minute", 90 * time.Second: "90 seconds", 20 * time.Millisecond: "20ms",
	} {
		if got := duration(d); got != want {
			t.Errorf("%d is written %q, want %q", d, got, want)
		}
	}
	if got := size("131072"); got != "131072 (128 KiB)" {
		t.Error(got)
	}
	if got := cell("a|b <c> `<d>`"); got != "a\\|b &lt;c&gt; `<d>`" {
		t.Error(got)
	}
	if got := upper("FailedPrecondition"); got != "FAILED_PRECONDITION" {
		t.Error(got)
	}
}
