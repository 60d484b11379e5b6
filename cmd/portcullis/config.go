package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/portcullis/portcullis/internal/tlog"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
)

// configFile is the form of portcullis.yaml. Relative paths in it are relative to its folder.
// docs/configuration.md is made of these comments.
type configFile struct {
	// Server is the service's host:port.
	Server string `yaml:"server"`
	// ServerID is the SPIFFE ID that the service must prove.
	ServerID string `yaml:"server_id"`
	// Bundle is a PEM file: the authorities of the trust domain.
	Bundle string `yaml:"bundle"`
	// LogKey is the key of the service's audit log, which "portcullisd log-key" prints: with it
	// every checkpoint is checked. It must not come from the service itself.
	LogKey string `yaml:"log_key"`
	// DefaultProfile is used when neither --profile nor $PORTCULLIS_PROFILE names one.
	DefaultProfile string `yaml:"default_profile"`
	// Profiles are the identities that commands can act as, by name.
	Profiles map[string]identityFiles `yaml:"profiles"`
}

// identityFiles are the PEM files of one identity; docs/configuration.md has these comments, too.
type identityFiles struct {
	// Certificate is the caller's certificate, with its SPIFFE ID, and its intermediates.
	Certificate string `yaml:"certificate"`
	// Key is the certificate's key. It also signs an admin's decisions.
	Key string `yaml:"key"`
}

// profile is what a command needs to know of the configuration.
type profile struct {
	name   string
	file   string // the configuration file
	client client.Config
}

// logMemory is the file that remembers the newest checkpoint of the log, beside the
// configuration: all profiles see the same log.
func logMemory(file string) string { return filepath.Join(filepath.Dir(file), "log-seen") }

const (
	configName = "portcullis.yaml"
	hintConfig = "give --config FILE or set PORTCULLIS_CONFIG; \"portcullisd dev --dir DIR\" writes such a file"
)

// findConfig gives the configuration file's path. One that was named must be there.
func (a *app) findConfig() (string, error) {
	named := a.configFile
	if named == "" {
		named = a.getenv("PORTCULLIS_CONFIG")
	}
	if named != "" {
		return named, nil
	}
	places := []string{configName}
	if dir, err := os.UserConfigDir(); err == nil {
		places = append(places, filepath.Join(dir, "portcullis", configName))
	}
	for _, p := range places {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", &usageError{err: err}
		}
	}
	return "", &usageError{err: fmt.Errorf("no configuration file: looked for %s", strings.Join(places, " and ")), hint: hintConfig}
}

func readConfig(file string) (configFile, error) {
	b, err := readLimited(file, maxYAML)
	if err != nil {
		return configFile{}, &usageError{err: fmt.Errorf("configuration: %w", err), hint: hintConfig}
	}
	return parseConfig(file, b)
}

// parseConfig reads a configuration file and checks all of it.
func parseConfig(file string, b []byte) (cfg configFile, err error) {
	docs, err := decodeYAML[configFile](file, b)
	if err != nil {
		return cfg, err
	}
	bad := func(format string, args ...any) (configFile, error) {
		return configFile{}, usagef("%s: %s", file, fmt.Sprintf(format, args...))
	}
	if len(docs) != 1 {
		return bad("must hold one YAML document, it holds %d", len(docs))
	}
	cfg = docs[0]
	for _, f := range []struct{ key, value string }{{"server", cfg.Server}, {"server_id", cfg.ServerID}, {"bundle", cfg.Bundle}} {
		if f.value == "" {
			return bad("%s must not be empty", f.key)
		}
	}
	if err := serverAddress(cfg.Server); err != nil {
		return bad("server %q %v", cfg.Server, err)
	}
	if !strings.HasPrefix(cfg.ServerID, "spiffe://") {
		return bad("server_id must be a SPIFFE ID such as spiffe://example.org/portcullisd, not %q", cfg.ServerID)
	}
	if cfg.LogKey != "" {
		if _, err := tlog.ParseKey(cfg.LogKey); err != nil {
			return bad("log_key: %v", err)
		}
	}
	if len(cfg.Profiles) == 0 {
		return bad("profiles must name at least one")
	}
	dir := filepath.Dir(file)
	cfg.Bundle = below(dir, cfg.Bundle)
	for name, id := range cfg.Profiles {
		// A profile's name is also the name of the folder of its grant tokens.
		if vault.CheckName("profile", name) != nil {
			return bad("profile %q: a name is lower-case letters, digits and single hyphens, at most %d bytes", name, vault.MaxName)
		}
		if id.Certificate == "" || id.Key == "" {
			return bad("profile %q must have certificate and key", name)
		}
		cfg.Profiles[name] = identityFiles{Certificate: below(dir, id.Certificate), Key: below(dir, id.Key)}
	}
	if d := cfg.DefaultProfile; d != "" && !slices.Contains(cfg.names(), d) {
		return bad("default_profile %q is none of the profiles: %s", d, strings.Join(cfg.names(), ", "))
	}
	return cfg, nil
}

// serverAddress says what is wrong with a service's address.
func serverAddress(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" || strings.ContainsAny(s, "/ ") {
		return errors.New("must be host:port, such as vault.example:7443")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return errors.New("must be host:port, with a port from 1 to 65535")
	}
	return nil
}

func below(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

func (c configFile) names() []string { return slices.Sorted(maps.Keys(c.Profiles)) }

// loadProfile reads the configuration and picks the profile.
func (a *app) loadProfile() (profile, error) {
	file, err := a.findConfig()
	if err != nil {
		return profile{}, err
	}
	cfg, err := readConfig(file)
	if err != nil {
		return profile{}, err
	}
	name := a.profile
	for _, other := range []string{a.getenv("PORTCULLIS_PROFILE"), cfg.DefaultProfile} {
		if name == "" {
			name = other
		}
	}
	if name == "" && len(cfg.Profiles) == 1 {
		name = cfg.names()[0]
	}
	id, ok := cfg.Profiles[name]
	switch {
	case name == "":
		return profile{}, usagef("no profile chosen: give --profile, one of %s", strings.Join(cfg.names(), ", "))
	case !ok:
		return profile{}, usagef("no profile %q in %s: it has %s", name, file, strings.Join(cfg.names(), ", "))
	}
	return profile{name: name, file: file, client: client.Config{
		Address: cfg.Server, ServerID: cfg.ServerID, Bundle: cfg.Bundle, Certificate: id.Certificate, Key: id.Key,
		LogKey: cfg.LogKey, LogMemory: logMemory(file),
	}}, nil
}
