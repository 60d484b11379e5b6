package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/portcullis/portcullis/internal/imaging"
)

// config is the daemon's YAML file. Relative paths count from the file's directory.
type config struct {
	Listen      string `yaml:"listen"`       // host:port
	TrustDomain string `yaml:"trust_domain"` // of all SPIFFE IDs
	TLS         struct {
		Certificate string `yaml:"certificate"` // PEM: spiffe://<trust domain>/portcullisd
		Key         string `yaml:"key"`         // PEM
		Bundle      string `yaml:"bundle"`      // PEM: the authorities whose callers are admitted
	} `yaml:"tls"`
	Vault struct {
		Address     string `yaml:"address"`     // https://host:port
		CA          string `yaml:"ca"`          // PEM
		Mount       string `yaml:"mount"`       // of the transit engine
		Credentials string `yaml:"credentials"` // directory that setup wrote
	} `yaml:"vault"`
	Store struct {
		Path string `yaml:"path"` // SQLite file
	} `yaml:"store"`
	Blobs struct {
		Path string `yaml:"path"` // directory of ciphertext
	} `yaml:"blobs"`
	Images struct {
		MaxBytes  int64 `yaml:"max_bytes"`
		MaxPixels int64 `yaml:"max_pixels"`
	} `yaml:"images"`
	Log struct {
		Level string `yaml:"level"` // debug, info, warn or error
	} `yaml:"log"`

	sweepEvery time.Duration // tests do not wait as long as a service does
}

// The limits of images that a configuration may set.
const (
	defaultMaxBytes  = 8 << 20
	defaultMaxPixels = 50_000_000
	mostBytes        = 32 << 20
	mostPixels       = 500_000_000
)

// defaultConfig holds what a file may leave out.
func defaultConfig() config {
	var c config
	c.Vault.Mount = "portcullis"
	c.Images.MaxBytes, c.Images.MaxPixels = defaultMaxBytes, defaultMaxPixels
	c.Log.Level, c.sweepEvery = "info", sweepEvery
	return c
}

// loadConfig reads and checks a file. Unknown keys are refused.
func loadConfig(file string) (config, error) {
	c := defaultConfig()
	text, err := os.ReadFile(file)
	if err != nil {
		return c, fmt.Errorf("configuration: %w", err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&c); err != nil && err != io.EOF {
		return c, fmt.Errorf("configuration %s: %w", file, err)
	}
	for _, p := range []*string{&c.TLS.Certificate, &c.TLS.Key, &c.TLS.Bundle, &c.Vault.CA, &c.Vault.Credentials, &c.Store.Path, &c.Blobs.Path} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(file), *p)
		}
	}
	if err := c.check(); err != nil {
		return c, fmt.Errorf("configuration %s: %w", file, err)
	}
	return c, nil
}

func (c config) check() error {
	for _, f := range []struct{ name, value string }{
		{"listen", c.Listen}, {"trust_domain", c.TrustDomain},
		{"tls.certificate", c.TLS.Certificate}, {"tls.key", c.TLS.Key}, {"tls.bundle", c.TLS.Bundle},
		{"vault.address", c.Vault.Address}, {"vault.mount", c.Vault.Mount}, {"vault.credentials", c.Vault.Credentials},
		{"store.path", c.Store.Path}, {"blobs.path", c.Blobs.Path},
	} {
		if f.value == "" {
			return fmt.Errorf("%s: must not be empty", f.name)
		}
	}
	if c.Images.MaxBytes < 1 || c.Images.MaxBytes > mostBytes {
		return fmt.Errorf("images.max_bytes: must be from 1 to %d", mostBytes)
	}
	if c.Images.MaxPixels < 1 || c.Images.MaxPixels > mostPixels {
		return fmt.Errorf("images.max_pixels: must be from 1 to %d", mostPixels)
	}
	return nil
}

func (c config) limits() imaging.Limits {
	return imaging.Limits{MaxBytes: c.Images.MaxBytes, MaxPixels: c.Images.MaxPixels}
}
