package archtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestImports holds the whole module against the rules.
func TestImports(t *testing.T) {
	g, err := load(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := g["./vault"]; !ok {
		t.Fatal("the module was not read: ./vault is missing")
	}
	for _, v := range violations(g, rules) {
		t.Error(v)
	}
}

// TestEachRuleCanFail plays one import against the table; want names the rules that refuse it, none if it is fine.
func TestEachRuleCanFail(t *testing.T) {
	const status, vaultAPI = "google.golang.org/grpc/status", "github.com/hashicorp/vault/api"
	cases := []struct {
		from, to string
		want     []string
	}{
		{"./vault", "./internal/envelope", []string{"the domain knows nobody"}},
		{"./vault", "./vault/release", []string{"the domain knows nobody"}},
		{"./vault", "os", []string{"the domain does no input or output"}},
		{"./vault", "net/http", []string{"the domain does no input or output"}},
		{"./vault", "database/sql", []string{"the domain does no input or output"}},
		{"./vault", "time", nil},
		{"./vault", "net/url", nil},
		{"./vault/grants", "./vault/breach", []string{"operations stand alone"}},
		{"./vault/breach", "./internal/store", []string{"operations stand alone"}},
		{"./vault/grants", "./internal/envelope", []string{"operations stand alone"}},
		{"./vault/grants", "./vault", nil},
		{"./vault/capture", "./internal/store", []string{"capture knows the domain, the sealed image and the image checks"}},
		{"./vault/capture", "./internal/imaging", nil},
		{"./vault/capture", "./vault/release", []string{"capture knows the domain, the sealed image and the image checks", "capture cannot open"}},
		{"./vault/release", "./internal/imaging", []string{"release knows the domain and the sealed image"}},
		{"./vault/release", "./internal/envelope", nil},
		{"./vault/release", "./vault/grants", []string{"release knows the domain and the sealed image", "release cannot mint"}},
		{"./vault/release", "./internal/hcvault", []string{"release knows the domain and the sealed image", "release cannot mint"}},
		{"./internal/envelope", "./internal/store", []string{"the sealed image and the image checks know only the domain"}},
		{"./internal/imaging", "os", []string{"the sealed image and the image checks know only the domain"}},
		{"./internal/envelope", "./vault", nil},
		{"./internal/hcvault/setup", "./vault/grants", []string{"adapters know the domain alone"}},
		{"./internal/store", "./vault/release", []string{"adapters know the domain alone"}},
		{"./internal/gate", "./internal/server", []string{"adapters know the domain alone"}},
		{"./internal/blob", "./vault", nil},
		{"./internal/replay", "./internal/store", []string{"the verdict is independent"}},
		{"./internal/replay", "./vault", nil},
		{"./internal/store", status, []string{"only the server knows gRPC status"}},
		{"./internal/server", status, nil},
		{"./vault/client", status, nil},
		{"./internal/identity", "google.golang.org/grpc/metadata", []string{"identity knows of gRPC only credentials and peer"}},
		{"./internal/identity", "google.golang.org/grpc/credentials", nil},
		{"./internal/identity", "google.golang.org/grpc/peer", nil},
		{"./cmd/portcullisd", vaultAPI, []string{"only hcvault talks to HashiCorp Vault"}},
		{"./internal/hcvault/setup", vaultAPI, nil},
		{"./internal/hcvault", "github.com/hashicorp/vault/sdk/logical", []string{"nothing of HashiCorp Vault itself is linked"}},
		{"./internal/store", "./proto/portcullis/v1", []string{"the API's messages stay at the edge"}},
		{"./vault/client", "./proto/portcullis/v1", nil},
		{"./vault/client", "./internal/identity", []string{"the SDK is public"}},
		{"./vault/client", "./internal/tlog", nil},
		{"./internal/tlog", "./vault", []string{"the log's tree knows nobody"}},
		{"./internal/tlog", "net", []string{"the log's tree knows nobody"}},
		{"./internal/store", "./internal/tlog", nil},
		{"./vault/wire", "./internal/store", []string{"wire only translates"}},
		{"./internal/devvault", "testing", []string{"test code does not ship"}},
		{"./cmd/portcullisd", "./vault/vaulttest", []string{"test code does not ship"}},
		{"./vault/vaulttest", "testing", nil},
		{"./internal/blob", "./internal/crashfs", []string{"test code does not ship"}},
		{"./vaultx", "os", nil},
	}
	failed := map[string]bool{}
	for _, c := range cases {
		g := graph{c.from: {code: []string{c.to}}}
		for _, name := range c.want {
			failed[name] = true
		}
		expect(t, g, c.from+" -> "+c.to, c.want)
	}
	for _, r := range rules {
		if !failed[r.name] {
			t.Errorf("no case here shows that the rule %q can fail", r.name)
		}
		if r.why == "" {
			t.Errorf("the rule %q does not say why", r.name)
		}
	}
}

// TestReach shows which rules look through packages in between, and which bind test files.
func TestReach(t *testing.T) {
	through := graph{
		"./vault/release":     {code: []string{"./vault", "./internal/envelope"}},
		"./internal/envelope": {code: []string{"./vault"}},
		"./vault":             {code: []string{"./internal/deep"}},
		"./internal/deep":     {code: []string{"./vault/grants"}},
	}
	found := violations(through, rules)
	way := "./vault/release -> ./vault -> ./internal/deep -> ./vault/grants"
	if !strings.Contains(strings.Join(found, "\n"), "./vault/release must not import ./vault/grants ("+way+")") {
		t.Errorf("the way from release to grants was not reported:\n%s", strings.Join(found, "\n"))
	}

	tests := graph{"./vault/grants": {tests: []string{"testing", "./vault/vaulttest", "google.golang.org/grpc/codes", "os"}}}
	expect(t, tests, "imports of tests", nil)
	tests = graph{"./vault/grants": {tests: []string{"github.com/hashicorp/vault/sdk/logical"}}}
	expect(t, tests, "a test that links Vault", []string{"nothing of HashiCorp Vault itself is linked"})
	loop := graph{"./vault/client": {code: []string{"./proto/a"}}, "./proto/a": {code: []string{"./vault/client"}}}
	expect(t, loop, "a loop", nil)
}

func expect(t *testing.T, g graph, what string, want []string) {
	t.Helper()
	found := violations(g, rules)
	if len(found) != len(want) {
		t.Errorf("%s: %d violations, want %d:\n%s", what, len(found), len(want), strings.Join(found, "\n"))
	}
	for _, name := range want {
		if !strings.Contains(strings.Join(found, "\n"), "rule: "+name+"\n") {
			t.Errorf("%s: no violation of %q:\n%s", what, name, strings.Join(found, "\n"))
		}
	}
}

// TestLoad reads a module from disk: all files whatever their build tags, tests apart, other modules not at all.
func TestLoad(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":                   "// ours\nmodule example.org/m\n\ngo 1.26\n",
		"vault/a.go":               "package vault\n\nimport \"example.org/m/internal/x\"\n",
		"vault/b.go":               "//go:build never\n\npackage vault\n\nimport _ \"os\"\n",
		"vault/a_test.go":          "package vault_test\n\nimport \"testing\"\n",
		"vault/testdata/c.go":      "package c\n\nimport \"net\"\n",
		"internal/x/x_windows.go":  "package x\n\nimport \"example.org/mother\"\n",
		"tools/vault/go.mod":       "module example.org/m/tools/vault\n",
		"tools/vault/main.go":      "package main\n\nimport \"github.com/hashicorp/vault\"\n",
		"docs/not-go/example.text": "import \"os\"",
	} {
		file := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	g, err := load(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(g) != 2 {
		t.Errorf("%d packages, want 2: %v", len(g), g)
	}
	if got := strings.Join(g["./vault"].code, " "); got != "./internal/x os" {
		t.Errorf("vault imports %q", got)
	}
	if got := strings.Join(g["./vault"].tests, " "); got != "testing" {
		t.Errorf("vault's tests import %q", got)
	}
	if got := strings.Join(g["./internal/x"].code, " "); got != "example.org/mother" {
		t.Errorf("internal/x imports %q: another module with a like name is not ours", got)
	}
}
