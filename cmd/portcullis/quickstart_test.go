package main

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	_ "modernc.org/sqlite"

	"github.com/portcullis/portcullis/certs"
	"github.com/portcullis/portcullis/internal/devvault"
	"github.com/portcullis/portcullis/internal/tlog"
)

// trial is the folder of the development daemon in the quickstarts.
const trial = "/tmp/portcullis"

// TestQuickstarts does what docs/quickstart-*.md say, in the order of a newcomer: each block
// marked sh, as it stands there, in a shell that ends at the first error. Questions are
// answered with yes. Blocks marked otherwise (console, text, yaml, ini) are not run.
func TestQuickstarts(t *testing.T) {
	d := startDaemon(t)
	n := newNewcomer(t)
	for _, role := range []string{"capture", "admin", "contractor", "integrator", "auditor"} {
		page := n.page("quickstart-" + role + ".md")
		if role == "capture" && !strings.Contains(page, "bin/portcullisd dev --dir "+trial) {
			t.Errorf("the page of %s starts no daemon", role)
		}
		for _, program := range blocks(page, "go") {
			n.write("store.go", program)
		}
		client := readFile(t, filepath.Join("..", "portcullisd", "testdata", "node", "client.mjs"))
		for _, snippet := range blocks(page, "js") {
			if !strings.Contains(client, snippet) {
				t.Errorf("a block of quickstart-%s.md is not in client.mjs, which is tested", role)
			}
		}
		n.does(role, map[string]string{trial: d.dir}, blocks(page, "sh")...)
	}
	t.Run("operator", func(t *testing.T) {
		n.t = t
		n.operates()
	})
}

// operates sets a Vault up as docs/quickstart-operator.md says, runs a service on it, backs
// up while it runs, loses everything, restores, and finds what was backed up.
func (n *newcomer) operates() {
	t := n.t
	hc, err := devvault.Start(t.Context(), filepath.Join(n.dir, "hc"), devvault.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := hc.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	n.env = append(n.env, "VAULT_ADDR="+hc.Addr(), "VAULT_CACERT="+hc.CACert(), "VAULT_TOKEN="+hc.RootToken())
	etc, data := filepath.Join(n.dir, "etc"), filepath.Join(n.dir, "var")
	// What the page does as root and with an authority of the reader's.
	authority, err := certs.Open(etc, "agency.example")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := authority.Issue("portcullisd", authority.ServerID(), certs.LocalServer); err != nil {
		t.Fatal(err)
	}
	profiles := map[string]any{}
	for name, path := range map[string]string{"lane": "/capture/north-gate/lane-1", "alice": "/admin/alice"} {
		pair, err := authority.Issue(name, "spiffe://agency.example"+path, certs.Leaf{})
		if err != nil {
			t.Fatal(err)
		}
		profiles[name] = map[string]any{"certificate": pair.Cert, "key": pair.Key}
	}
	for _, dir := range []string{data, filepath.Join(n.dir, "shipped")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	n.write("etc/vault-ca.pem", readFile(t, hc.CACert()))
	elsewhere := map[string]string{
		"/etc/portcullis": etc, "/var/lib/portcullis": data, "/var/log/vault": n.dir, "127.0.0.1:8443": "127.0.0.1:0",
		"/mnt/checkpoints": filepath.Join(n.dir, "shipped"),
	}
	steps := blocks(n.page("quickstart-operator.md"), "sh")
	if len(steps) != 6 {
		t.Fatalf("the page has %d blocks; this test knows six: Vault, configuration, backup, restore, credential, roles", len(steps))
	}
	n.does("operator", elsewhere, steps[0], steps[1])
	if _, err := tlog.ParseKey(strings.TrimSpace(readFile(t, filepath.Join(n.dir, "log-key.txt")))); err != nil {
		t.Error(err)
	}

	if err := pictures(filepath.Join(n.dir, "pics"), "operator"); err != nil {
		t.Fatal(err)
	}
	window := "--site north-gate --from $(date -u -d yesterday +%F) --until $(date -u -d tomorrow +%F)"
	stop := n.serves(authority, profiles)
	n.does("operator", nil, "portcullis --profile lane capture pics")
	n.does("operator", elsewhere, steps[5]) // now that the capture role has made the folder of ciphertext
	n.does("operator", elsewhere, steps[2])
	n.does("operator", nil, "portcullis --profile lane capture --modality face --captured-at file pics/face")
	stop()
	for _, lost := range []string{"facts.db", "blobs"} {
		if err := os.RemoveAll(filepath.Join(data, lost)); err != nil {
			t.Fatal(err)
		}
	}
	n.does("operator", elsewhere, "mkdir -m 700 /var/lib/portcullis/blobs", steps[3])
	stop = n.serves(authority, profiles)
	out := n.does("operator", nil, "portcullis --profile alice key list "+window, "portcullis --profile lane capture pics")
	if got := strings.Count(out, " active "); got != 5 {
		t.Errorf("%d keys are active after the restore, want 5\n%s", got, out)
	}
	if !strings.Contains(out, "0 stored, 0 repeated, 5 known") {
		t.Errorf("the restored service does not know its pictures:\n%s", out)
	}
	stop()

	credential := func(role string) string { return readFile(t, filepath.Join(etc, "vault", role+".json")) }
	grants, admin := credential("grants"), credential("admin")
	n.does("operator", elsewhere, steps[4])
	if credential("grants") == grants || credential("admin") != admin {
		t.Error("the credential grants is the old one, or another was replaced as well")
	}
	stop = n.serves(authority, profiles)
	n.does("operator", nil, "portcullis --profile lane capture pics --modality plate --captured-at file")
	stop()
}

// serves starts the operator's service and points the command line at it. stop ends it.
func (n *newcomer) serves(authority *certs.Authority, profiles map[string]any) (stop func()) {
	n.t.Helper()
	cmd := exec.Command(filepath.Join(n.dir, "bin", "portcullisd"), "serve", "--config", filepath.Join(n.dir, "etc", "portcullisd.yaml"))
	cmd.Dir, cmd.Env = n.dir, n.env
	logs, err := cmd.StderrPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			n.t.Errorf("the service ended with %v", err)
		}
	}
	n.t.Cleanup(stop)
	for lines := bufio.NewScanner(logs); lines.Scan(); {
		var line struct{ Msg, Address string }
		if json.Unmarshal(lines.Bytes(), &line) != nil || line.Msg != "serving" {
			n.t.Logf("%s", lines.Text())
			continue
		}
		go func() { _, _ = io.Copy(io.Discard, logs) }() // ends with the process
		text, err := yaml.Marshal(map[string]any{
			"server": line.Address, "server_id": authority.ServerID(), "bundle": authority.Bundle(), "profiles": profiles,
			"log_key": strings.TrimSpace(readFile(n.t, filepath.Join(n.dir, "log-key.txt"))),
		})
		if err != nil {
			n.t.Fatal(err)
		}
		n.write("portcullis.yaml", string(text))
		return stop
	}
	n.t.Fatal("the service does not serve")
	return nil
}

// newcomer types what the pages say.
type newcomer struct {
	t   *testing.T
	dir string
	env []string
}

func newNewcomer(t *testing.T) *newcomer {
	t.Helper()
	n := &newcomer{t: t, dir: t.TempDir()}
	bin := filepath.Join(n.dir, "bin")
	if out, err := exec.Command("go", "build", "-o", bin+string(filepath.Separator), ".", "../portcullisd").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	hc, err := devvault.Find()
	if err != nil {
		t.Fatal(err)
	}
	grpcurl := exec.Command("go", "tool", "-C", filepath.Join("..", "..", "tools", "grpcurl"), "-n", "grpcurl")
	grpcurl.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "CGO_ENABLED=0")
	path, err := grpcurl.Output()
	if err != nil {
		t.Fatalf("build grpcurl: %v", err)
	}
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"bin/sqlite3": self, "bin/vault": hc, "bin/grpcurl": strings.TrimSpace(string(path)),
		// What of the checkout the pages name.
		"go.mod": root + "/go.mod", "go.sum": root + "/go.sum", "proto": root + "/proto", "vault": root + "/vault", "internal": root + "/internal",
	} {
		if err := os.Symlink(target, filepath.Join(n.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	n.env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+n.dir,
		"GOCACHE="+goEnv(t, "GOCACHE"), "GOMODCACHE="+goEnv(t, "GOMODCACHE"), "GOWORK=off")
	return n
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (n *newcomer) page(name string) string {
	n.t.Helper()
	return readFile(n.t, filepath.Join("..", "..", "docs", name))
}

func (n *newcomer) write(name, text string) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.dir, name), []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

var block = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

// blocks gives the blocks of a page that are marked with the word.
func blocks(page, word string) []string {
	var out []string
	for _, m := range block.FindAllStringSubmatch(page, -1) {
		if m[1] == word {
			out = append(out, m[2])
		}
	}
	return out
}

// does runs blocks in one shell, with folders elsewhere than the page says. It gives what
// they print.
func (n *newcomer) does(role string, elsewhere map[string]string, blocks ...string) string {
	n.t.Helper()
	script := "portcullis() { command portcullis --yes \"$@\"; }\nset -x\n" + strings.Join(blocks, "\n")
	for said, is := range elsewhere {
		script = strings.ReplaceAll(script, said, is)
	}
	ctx, cancel := context.WithTimeout(n.t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir, cmd.Env = n.dir, n.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		n.t.Fatalf("quickstart-%s.md: %v\n%s", role, err, out)
	}
	n.t.Logf("quickstart-%s.md:\n%s", role, out)
	return string(out)
}

// sqlite does for the pages what the program sqlite3 does, which not every machine has:
// sqlite3 FILE SQL.
func sqlite() {
	db, err := sql.Open("sqlite", os.Args[1])
	if err == nil {
		_, err = db.Exec(os.Args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sqlite3:", err)
		os.Exit(1)
	}
}
