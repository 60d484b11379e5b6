package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"

	"github.com/portcullis/portcullis/internal/hcvault"
	"github.com/portcullis/portcullis/internal/identity"
	"github.com/portcullis/portcullis/internal/imaging"
	"github.com/portcullis/portcullis/internal/tlog"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/release"
)

// config is what the daemon is told. Every setting can stand in the YAML file, in an
// environment variable and in a flag; the later of these wins.
type config struct {
	Listen      string `koanf:"listen"`
	TrustDomain string `koanf:"trust_domain"`
	Roles       string `koanf:"roles"`
	TLS         struct {
		Certificate string `koanf:"certificate"`
		Key         string `koanf:"key"`
		Bundle      string `koanf:"bundle"`
	} `koanf:"tls"`
	Vault struct {
		Address     string `koanf:"address"`
		CA          string `koanf:"ca"`
		Mount       string `koanf:"mount"`
		Credentials string `koanf:"credentials"`
	} `koanf:"vault"`
	Store struct {
		Path string `koanf:"path"`
	} `koanf:"store"`
	Blobs struct {
		Path string `koanf:"path"`
	} `koanf:"blobs"`
	Images struct {
		MaxBytes  int64 `koanf:"max_bytes"`
		MaxPixels int64 `koanf:"max_pixels"`
	} `koanf:"images"`
	Policy struct {
		ConflictMemory time.Duration `koanf:"conflict_memory"`
	} `koanf:"policy"`
	Reconcile struct {
		Grace time.Duration `koanf:"grace"`
		Keep  time.Duration `koanf:"keep"`
		Every time.Duration `koanf:"every"`
	} `koanf:"reconcile"`
	Audit struct {
		Origin    string        `koanf:"origin"`
		Signer    string        `koanf:"signer"`
		Key       string        `koanf:"key"`
		SignEvery time.Duration `koanf:"sign_every"`
		MaxLag    time.Duration `koanf:"max_lag"`
		Ship      string        `koanf:"ship"`
		ShipEvery time.Duration `koanf:"ship_every"`
	} `koanf:"audit"`
	Log struct {
		Level string `koanf:"level"`
	} `koanf:"log"`
	Metrics struct {
		Listen string `koanf:"listen"`
	} `koanf:"metrics"`

	// Tests do not wait as long as a service does.
	sweepEvery  time.Duration
	markEvery   time.Duration
	receiveTime time.Duration // 0: the server's own
	seams       *seams        // nil outside of tests
}

// setting describes one key of the configuration. docs/configuration.md is made of these.
type setting struct {
	key   string
	help  string
	def   any               // holds when nothing is said, of the field's type
	at    func(*config) any // a pointer to its field
	path  bool              // relative ones count from the file's directory
	none  bool              // may be empty
	roles []string          // those that need it; all of them if none stands here
}

var settings = []setting{
	{key: "listen", help: "address to listen on, host:port", def: "127.0.0.1:8443", at: func(c *config) any { return &c.Listen }},
	{key: "trust_domain", help: "trust domain of all SPIFFE IDs", at: func(c *config) any { return &c.TrustDomain }},
	{key: "roles", help: "what this process does, of capture,grants,release,admin: it loads the Vault credentials of these alone",
		def: roleCapture + "," + roleGrants + "," + roleRelease + "," + roleAdmin, at: func(c *config) any { return &c.Roles }},
	{key: "tls.certificate", help: "PEM file: the service's certificate, SPIFFE ID spiffe://<trust domain>/portcullisd", path: true,
		at: func(c *config) any { return &c.TLS.Certificate }},
	{key: "tls.key", help: "PEM file: its key", path: true, at: func(c *config) any { return &c.TLS.Key }},
	{key: "tls.bundle", help: "PEM file: the authorities whose callers are admitted", path: true, at: func(c *config) any { return &c.TLS.Bundle }},
	{key: "vault.address", help: "HashiCorp Vault, https://host:port", at: func(c *config) any { return &c.Vault.Address }},
	{key: "vault.ca", help: "PEM file: the authorities of Vault's certificate", path: true, at: func(c *config) any { return &c.Vault.CA }},
	{key: "vault.mount", help: "path of the transit mount", def: "portcullis", at: func(c *config) any { return &c.Vault.Mount }},
	{key: "vault.credentials", help: "directory of the credentials that setup wrote: <role>.json of this process's roles", path: true,
		roles: []string{roleCapture, roleGrants, roleAdmin}, at: func(c *config) any { return &c.Vault.Credentials }},
	{key: "store.path", help: "SQLite file of facts and log", path: true, at: func(c *config) any { return &c.Store.Path }},
	{key: "blobs.path", help: "directory of the ciphertext", path: true, at: func(c *config) any { return &c.Blobs.Path }},
	{key: "images.max_bytes", help: "largest image taken, in bytes", def: int64(defaultMaxBytes), roles: []string{roleCapture},
		at: func(c *config) any { return &c.Images.MaxBytes }},
	{key: "images.max_pixels", help: "largest image taken, in pixels", def: int64(defaultMaxPixels), roles: []string{roleCapture},
		at: func(c *config) any { return &c.Images.MaxPixels }},
	{key: "policy.conflict_memory", help: "how long what a contractor has opened counts under the conflict rule, 24h or more; 0s for ever",
		def: time.Duration(0), roles: []string{roleGrants, roleAdmin}, at: func(c *config) any { return &c.Policy.ConflictMemory }},
	{key: "reconcile.grace", help: "how old ciphertext or a key without a record must be to be put aside, from 10m to 168h: longer than any store takes",
		def: breach.DefaultGrace, roles: []string{roleAdmin}, at: func(c *config) any { return &c.Reconcile.Grace }},
	{key: "reconcile.keep", help: "how long they stay aside before they are destroyed, from 24h to 8760h",
		def: breach.DefaultKeep, roles: []string{roleAdmin}, at: func(c *config) any { return &c.Reconcile.Keep }},
	{key: "reconcile.every", help: "how often the daemon reconciles, from 10m to 168h; it does at start, too",
		def: 24 * time.Hour, roles: []string{roleAdmin}, at: func(c *config) any { return &c.Reconcile.Every }},
	{key: "audit.origin", help: "name of the audit log and of its key; <trust domain>/portcullis if empty", none: true,
		at: func(c *config) any { return &c.Audit.Origin }},
	{key: "audit.signer", help: "where the key is that signs the log's checkpoints: file or vault", def: signerFile, roles: []string{roleAdmin},
		at: func(c *config) any { return &c.Audit.Signer }},
	{key: "audit.key", help: "PEM file: that key, Ed25519, if the signer is file; portcullisd log-key --create makes it", path: true, none: true,
		roles: []string{roleAdmin}, at: func(c *config) any { return &c.Audit.Key }},
	{key: "audit.sign_every", help: "how often the log's tree is checked, takes up new events and is signed, from 10ms to half of audit.max_lag",
		def: tlog.DefaultEvery, roles: []string{roleAdmin}, at: func(c *config) any { return &c.Audit.SignEvery }},
	{key: "audit.max_lag", help: "how far the log's tree may be behind the events while images are released, from 1s to 10m",
		def: release.DefaultMaxLag, roles: []string{roleRelease}, at: func(c *config) any { return &c.Audit.MaxLag }},
	{key: "audit.ship", help: "file that signed checkpoints are appended to: keep it where whoever writes to the database can not; none if empty", path: true, none: true,
		roles: []string{roleAdmin}, at: func(c *config) any { return &c.Audit.Ship }},
	{key: "audit.ship_every", help: "how often one is appended while the log grows, from 1s to 24h", def: tlog.DefaultShipEvery,
		roles: []string{roleAdmin}, at: func(c *config) any { return &c.Audit.ShipEvery }},
	{key: "log.level", help: "what the log tells: debug, info, warn or error, and what is graver", def: "info", at: func(c *config) any { return &c.Log.Level }},
	{key: "metrics.listen", help: "address of the page of metrics, host:port, plain HTTP: keep it on loopback; none if empty", none: true,
		at: func(c *config) any { return &c.Metrics.Listen }},
}

// The limits of images that a configuration may set.
const (
	defaultMaxBytes  = 8 << 20
	defaultMaxPixels = 50_000_000
	mostBytes        = 32 << 20
	mostPixels       = 500_000_000
)

// leastMemory is the least that the conflict rule may remember: it counts in days.
const leastMemory = 24 * time.Hour

// The least times after which what no record names is put aside, and destroyed.
const (
	leastGrace = 10 * time.Minute
	leastKeep  = 24 * time.Hour
)

// leastSign is the least time between two steps of the log's tree.
const leastSign = 10 * time.Millisecond

// The roles of a process. Each has a credential of its own at Vault, but for release, which
// has none.
const (
	roleCapture = "capture"
	roleGrants  = "grants"
	roleRelease = "release"
	roleAdmin   = "admin"
)

var allRoles = []string{roleCapture, roleGrants, roleRelease, roleAdmin}

func (c config) roles() []string { return strings.Split(c.Roles, ",") }

// needs says whether a role of the process needs the setting.
func (c config) needs(s setting) bool {
	return s.roles == nil || slices.ContainsFunc(c.roles(), func(r string) bool { return slices.Contains(s.roles, r) })
}

// defaultConfig holds what may be left out.
func defaultConfig() config {
	var c config
	for _, s := range settings {
		if s.def != nil {
			reflect.ValueOf(s.at(&c)).Elem().Set(reflect.ValueOf(s.def))
		}
	}
	c.sweepEvery, c.markEvery = sweepEvery, markEvery
	return c
}

// configFlags adds a flag for each setting.
func configFlags(f *pflag.FlagSet) {
	defaults := defaultConfig()
	for _, s := range settings {
		switch at := s.at(&defaults).(type) {
		case *string:
			f.String(s.key, *at, s.help)
		case *int64:
			f.Int64(s.key, *at, s.help)
		case *time.Duration:
			f.Duration(s.key, *at, s.help)
		}
	}
}

// envPrefix begins the environment variables of the daemon. Two underscores stand for a
// dot: PORTCULLISD_TLS__KEY is tls.key.
const envPrefix = "PORTCULLISD_"

// envName gives the environment variable of a key.
func envName(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "__"))
}

// envKey gives the key of an environment variable.
func envKey(name string) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, envPrefix), "__", "."))
}

// loadConfig reads the file (if one is named), the environment and the flags, each over the
// one before, and checks the whole. A key that is none is refused, wherever it stands. Files that
// the configuration names are for [config.inspect] to look at.
func loadConfig(path string, environ []string, flags *pflag.FlagSet) (config, error) {
	c, err := readConfig(path, environ, flags)
	if err == nil {
		err = c.check()
	}
	if err != nil {
		return c, misconfigured{err}
	}
	return c, nil
}

func readConfig(path string, environ []string, flags *pflag.FlagSet) (config, error) {
	c := defaultConfig()
	k := koanf.New(".")
	if path != "" {
		if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
			return c, fmt.Errorf("configuration %s: %w", path, err)
		}
		if err := unknownKeys(path, k.Keys()); err != nil {
			return c, err
		}
		for _, s := range settings {
			if p := k.String(s.key); s.path && p != "" && !filepath.IsAbs(p) {
				if err := k.Set(s.key, filepath.Join(filepath.Dir(path), p)); err != nil {
					return c, fmt.Errorf("configuration %s: %w", path, err)
				}
			}
		}
	}
	if err := unknownVariables(environ); err != nil {
		return c, err
	}
	err := k.Load(env.Provider(".", env.Opt{
		Prefix:      envPrefix,
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			return envKey(name), value
		},
	}), nil)
	if err != nil {
		return c, fmt.Errorf("environment: %w", err)
	}
	if flags != nil {
		given := posflag.ProviderWithFlag(flags, ".", k, func(f *pflag.Flag) (string, any) {
			if !isSetting(f.Name) || !f.Changed {
				return "", nil
			}
			return f.Name, posflag.FlagVal(flags, f)
		})
		if err := k.Load(given, nil); err != nil {
			return c, fmt.Errorf("flags: %w", err)
		}
	}
	err = k.UnmarshalWithConf("", &c, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		Result: &c, TagName: "koanf", WeaklyTypedInput: true, ErrorUnused: true,
		DecodeHook: mapstructure.StringToTimeDurationHookFunc(),
	}})
	if err != nil {
		lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' })
		return c, fmt.Errorf("configuration: %s", strings.Join(lines, " "))
	}
	return c, nil
}

// check looks at the values alone.
func (c config) check() error {
	var errs []error
	for _, s := range settings {
		if at, ok := s.at(&c).(*string); ok && *at == "" && !s.none && c.needs(s) {
			errs = append(errs, fmt.Errorf("configuration: %s must not be empty (or %s, or --%s)", s.key, envName(s.key), s.key))
		}
	}
	for i, r := range c.roles() {
		if c.Roles != "" && !slices.Contains(allRoles, r) {
			errs = append(errs, fmt.Errorf("configuration: roles: there is no role %q; there are %s", r, strings.Join(allRoles, ",")))
		} else if slices.Contains(c.roles()[:i], r) {
			errs = append(errs, fmt.Errorf("configuration: roles: %s stands there twice", r))
		}
	}
	for _, f := range []struct {
		key, is string
		check   func(string) error
	}{
		{"listen", c.Listen, checkAddress},
		{"metrics.listen", c.Metrics.Listen, checkAddress},
		{"trust_domain", c.TrustDomain, identity.CheckTrustDomain},
		{"vault.address", c.Vault.Address, hcvault.CheckAddress},
		{"vault.mount", c.Vault.Mount, hcvault.CheckMount},
	} {
		if err := f.check(f.is); f.is != "" && err != nil {
			errs = append(errs, fmt.Errorf("configuration: %s: %w", f.key, err))
		}
	}
	if c.Audit.Signer != "" && c.Audit.Signer != signerFile && c.Audit.Signer != signerVault {
		errs = append(errs, fmt.Errorf("configuration: audit.signer is %q, and must be %s or %s", c.Audit.Signer, signerFile, signerVault))
	}
	if slices.Contains(c.roles(), roleAdmin) && c.Audit.Signer == signerFile && c.Audit.Key == "" {
		errs = append(errs, fmt.Errorf("configuration: audit.key must name the file of the log's signing key (or %s, or --audit.key); portcullisd log-key --create makes it", envName("audit.key")))
	}
	if c.TrustDomain != "" && identity.CheckTrustDomain(c.TrustDomain) == nil {
		if err := tlog.CheckOrigin(c.origin()); err != nil {
			errs = append(errs, fmt.Errorf("configuration: audit.origin: %w", err))
		}
	}
	if c.Images.MaxBytes < 1 || c.Images.MaxBytes > mostBytes {
		errs = append(errs, fmt.Errorf("configuration: images.max_bytes must be from 1 to %d", mostBytes))
	}
	if c.Images.MaxPixels < 1 || c.Images.MaxPixels > mostPixels {
		errs = append(errs, fmt.Errorf("configuration: images.max_pixels must be from 1 to %d", mostPixels))
	}
	for _, d := range []struct {
		key         string
		is          time.Duration
		least, most time.Duration
		text        string
	}{
		{"audit.max_lag", c.Audit.MaxLag, time.Second, 10 * time.Minute, "from 1s to 10m, such as 10s"},
		{"audit.ship_every", c.Audit.ShipEvery, time.Second, 24 * time.Hour, "from 1s to 24h, such as 1m"},
		{"reconcile.grace", c.Reconcile.Grace, leastGrace, 7 * 24 * time.Hour, "from 10m to 168h, such as 1h"},
		{"reconcile.keep", c.Reconcile.Keep, leastKeep, 365 * 24 * time.Hour, "from 24h to 8760h, such as 168h"},
		{"reconcile.every", c.Reconcile.Every, 10 * time.Minute, 7 * 24 * time.Hour, "from 10m to 168h, such as 24h"},
	} {
		if d.is < d.least || d.is > d.most {
			errs = append(errs, fmt.Errorf("configuration: %s is %s, and must be %s", d.key, d.is, d.text))
		}
	}
	// A tree that grows later than that would stop releases although all is well.
	if d, most := c.Audit.SignEvery, c.Audit.MaxLag/2; d < leastSign || d > most {
		errs = append(errs, fmt.Errorf("configuration: audit.sign_every is %s, and must be from %s to half of audit.max_lag, which is %s", d, leastSign, most))
	}
	if d := c.Policy.ConflictMemory; d != 0 && d < leastMemory {
		errs = append(errs, fmt.Errorf("configuration: policy.conflict_memory is %s, and must be 24h or more, or 0s for ever", d))
	}
	if _, err := logger(io.Discard, c.Log.Level); c.Log.Level != "" && err != nil {
		errs = append(errs, fmt.Errorf("configuration: %w", err))
	}
	return errors.Join(errs...)
}

// yaml gives the configuration as a file.
func (c config) yaml() ([]byte, error) {
	values := map[string]any{}
	for _, s := range settings {
		switch at := s.at(&c).(type) {
		case *string:
			values[s.key] = *at
		case *int64:
			values[s.key] = *at
		case *time.Duration:
			values[s.key] = at.String()
		}
	}
	k := koanf.New(".")
	if err := k.Load(confmap.Provider(values, "."), nil); err != nil {
		return nil, err
	}
	return k.Marshal(yaml.Parser())
}

func (c config) limits() imaging.Limits {
	return imaging.Limits{MaxBytes: c.Images.MaxBytes, MaxPixels: c.Images.MaxPixels}
}
