package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/portcullis/portcullis/certs"
	"github.com/portcullis/portcullis/internal/devvault"
	"github.com/portcullis/portcullis/internal/hcvault/setup"
	"github.com/portcullis/portcullis/internal/tlog"
	"github.com/portcullis/portcullis/vault/release"
)

// The identities of the development profiles.
const (
	devDomain = "portcullis.example"
	devSite   = "north-gate"
	devOrg    = "acme-vision"
)

var devProfiles = []struct{ name, path string }{
	{"lane", "/capture/" + devSite + "/lane-1"},
	{"contractor", "/contractor/" + devOrg + "/matcher"},
	{"alice", "/admin/alice"},
	{"bob", "/admin/bob"},
	{"auditor", "/auditor/auditor"},
}

func devCommand(out, logs io.Writer) *cobra.Command {
	var dir, listen string
	var signEvery time.Duration
	cmd := &cobra.Command{
		Use:   "dev --dir DIR",
		Short: "run everything in the foreground, to try Portcullis",
		Long: `Dev runs the embedded default in the foreground: a real HashiCorp Vault as a child
process, SQLite, a directory of ciphertext and development certificates, all kept below
DIR. It writes DIR/portcullis.yaml with the profiles lane, contractor, alice, bob and
auditor, and prints ready.

It is for development only: the Vault's unseal key and the certificates' authority lie
beside the data.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return dev(cmd.Context(), dir, listen, signEvery, out, logs)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "directory for all data; made if it is absent (required)")
	cmd.Flags().StringVar(&listen, "listen", "", "address to listen on (default: that of the last run, or a free loopback port)")
	cmd.Flags().DurationVar(&signEvery, "audit.sign_every", tlog.DefaultEvery, "how often the log's tree grows, from 10ms to 5s")
	if err := cmd.MarkFlagRequired("dir"); err != nil {
		panic(err) // the flag stands above
	}
	return cmd
}

func dev(ctx context.Context, dir, listen string, signEvery time.Duration, out, logs io.Writer) (err error) {
	// What is wrong with it shows before a Vault is set up.
	if most := release.DefaultMaxLag / 2; signEvery < leastSign || signEvery > most {
		return misconfigured{fmt.Errorf("--audit.sign_every is %s, and must be from %s to %s", signEvery, leastSign, most)}
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	log, err := logger(logs, "warn")
	if err != nil {
		return err
	}
	hc, err := devvault.Start(ctx, filepath.Join(dir, "vault"), devvault.Options{Log: logs})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, hc.Stop(context.WithoutCancel(ctx))) }()
	cfg, err := prepareDev(ctx, dir, hc)
	if err != nil {
		return err
	}
	cfg.Audit.SignEvery = signEvery
	if cfg.Listen = listen; listen == "" {
		cfg.Listen = lastAddress(dir)
	}
	d, err := start(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	cfg.Listen = d.Addr()
	if err := writeDevFiles(dir, cfg); err != nil {
		return err
	}
	if err := nextSteps(out, dir); err != nil {
		return err
	}
	return d.Wait(ctx)
}

// prepareDev readies Vault and certificates, and gives the daemon's configuration.
func prepareDev(ctx context.Context, dir string, hc *devvault.Server) (config, error) {
	cfg := defaultConfig()
	cfg.TrustDomain = devDomain
	cfg.Vault.Address, cfg.Vault.CA = hc.Addr(), hc.CACert()
	cfg.Vault.Credentials = filepath.Join(dir, "credentials")
	cfg.Store.Path, cfg.Blobs.Path = filepath.Join(dir, "facts.db"), filepath.Join(dir, "blobs")
	err := setup.Run(ctx, setup.Options{
		Addr: hc.Addr(), CAFile: hc.CACert(), Token: hc.RootToken(), Mount: cfg.Vault.Mount,
		AuditFile: hc.AuditLog(), OutDir: cfg.Vault.Credentials,
	})
	if err != nil {
		return cfg, err
	}
	cfg.Audit.Key, cfg.Audit.Ship = filepath.Join(dir, "log.key"), filepath.Join(dir, "checkpoints")
	if err := tlog.MakeKeyFile(cfg.Audit.Key); err != nil && !errors.Is(err, fs.ErrExist) {
		return cfg, err
	}
	authority, err := certs.Open(filepath.Join(dir, "certs"), devDomain)
	if err != nil {
		return cfg, err
	}
	pair, err := authority.Issue("portcullisd", authority.ServerID(), certs.LocalServer)
	if err != nil {
		return cfg, err
	}
	cfg.TLS.Certificate, cfg.TLS.Key, cfg.TLS.Bundle = pair.Cert, pair.Key, authority.Bundle()
	for _, p := range devProfiles {
		if _, err := authority.Issue(p.name, "spiffe://"+devDomain+p.path, certs.Leaf{}); err != nil {
			return cfg, err
		}
	}
	return cfg, nil
}

// clientConfig is the form of the command line's file.
type clientConfig struct {
	Server         string                   `yaml:"server"`
	ServerID       string                   `yaml:"server_id"`
	Bundle         string                   `yaml:"bundle"`
	LogKey         string                   `yaml:"log_key"`
	DefaultProfile string                   `yaml:"default_profile,omitempty"`
	Profiles       map[string]clientProfile `yaml:"profiles"`
}

type clientProfile struct {
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
}

// lastAddress is where the last run listened, if that is free, or else any free port of
// the loopback interface.
func lastAddress(dir string) string {
	const free = "127.0.0.1:0"
	var last clientConfig
	text, err := os.ReadFile(filepath.Join(dir, "portcullis.yaml"))
	if err != nil || yaml.Unmarshal(text, &last) != nil || last.Server == "" {
		return free
	}
	lis, err := net.Listen("tcp", last.Server)
	if err != nil {
		return free
	}
	lis.Close()
	return last.Server
}

// writeDevFiles writes the files of the daemon and of the command line, and examples of
// what admins apply, which are left alone once they are there.
func writeDevFiles(dir string, cfg config) error {
	signer, err := tlog.LoadKeyFile(cfg.Audit.Key, cfg.origin())
	if err != nil {
		return err
	}
	client := clientConfig{
		Server: cfg.Listen, ServerID: "spiffe://" + devDomain + "/portcullisd", Bundle: "certs/ca.pem", LogKey: signer.Key(),
		Profiles: map[string]clientProfile{},
	}
	for _, p := range devProfiles {
		client.Profiles[p.name] = clientProfile{Certificate: "certs/" + p.name + ".pem", Key: "certs/" + p.name + ".key"}
	}
	daemonYAML, err := cfg.yaml()
	if err != nil {
		return err
	}
	clientYAML, err := yaml.Marshal(client)
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{"portcullis.yaml": clientYAML, "portcullisd.yaml": daemonYAML} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{"contractor.yaml": devContractor, "purpose.yaml": devPurpose} {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		_, err = f.WriteString(text)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

const devContractor = `name: ` + devOrg + `
title: an example of a subcontractor
`

const devPurpose = `name: plate-reader-check
title: check that lane cameras read plates right
legal_basis: an example; name the law or order here
modalities: [plate]
sites: [` + devSite + `]
contractors: [` + devOrg + `]
max_ttl: 4h
max_records: 100
max_bytes: 1GiB
max_rate: 10000
max_record_age: 90d
approvals: 2
# With linkage records appear at once. Without it, which is what to begin with in earnest, they appear
# when their hour or day has closed and ten cars or more were there.
linkage: true
time_precision: exact
# The window of a request may reach beyond today.
live: true
`

var next = template.Must(template.New("next").Parse(`
Portcullis runs. In another terminal:

  alias p='{{.Portcullis}} --config {{.Dir}}/portcullis.yaml'

{{.Steps}}
ready
`))

// nextSteps tells what to type next, and that the daemon is ready.
func nextSteps(out io.Writer, dir string) error {
	bin := "portcullis"
	if self, err := os.Executable(); err == nil {
		if beside := filepath.Join(filepath.Dir(self), "portcullis"); fileExists(beside) {
			bin = beside
		}
	}
	all := []struct{ do, why string }{
		{"alice       contractor apply " + dir + "/contractor.yaml", "two admins admit a contractor"},
		{"bob         contractor apply " + dir + "/contractor.yaml", ""},
		{"alice       purpose apply " + dir + "/purpose.yaml", "and sanction a purpose"},
		{"bob         purpose apply " + dir + "/purpose.yaml", ""},
		{"lane        capture --modality plate PICTURES", "a lane stores pictures"},
		{"contractor  grant request --help", "then a contractor asks for a grant"},
	}
	width := 0
	for _, s := range all {
		width = max(width, len(s.do))
	}
	var steps, b strings.Builder
	for _, s := range all {
		line := "  p --profile " + s.do
		if s.why != "" {
			line += strings.Repeat(" ", width-len(s.do)) + "  # " + s.why
		}
		fmt.Fprintln(&steps, line)
	}
	if err := next.Execute(&b, map[string]string{"Portcullis": bin, "Dir": dir, "Steps": steps.String()}); err != nil {
		return err
	}
	_, err := fmt.Fprint(out, b.String())
	return err
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
