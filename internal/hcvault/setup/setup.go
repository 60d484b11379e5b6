// Package setup prepares a Vault for Portcullis: engines, the key that signs the audit log, audit device, policies,
// roles and their credentials.
package setup

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/portcullis/portcullis/internal/hcvault"
	"github.com/portcullis/portcullis/internal/hcvault/transport"
	"github.com/portcullis/portcullis/vault"
)

// Options say which Vault, as whom, and how.
type Options struct {
	Addr   string // https://host:port
	CAFile string // PEM; the only authorities that are trusted
	Token  string // of an operator who may do all that [Run] does
	Mount  string // of the transit engine; empty means "portcullis"

	// TokenCIDRs are the addresses of the release nodes as Vault sees them. A grant token is refused from elsewhere.
	// Empty: from anywhere.
	TokenCIDRs []string

	// AuditFile is where Vault, not this process, writes its audit log, if it has no file device yet.
	AuditFile string

	// OutDir takes the credentials, one file for each role, so that a process can be given its own alone.
	OutDir string

	// CacheKeys is how many record keys Vault holds in memory, at about 10 KB each; 0 means 20,000, which is about
	// 200 MB. Without a bound Vault keeps every key that it ever used.
	CacheKeys int
}

const (
	defaultCacheKeys = 20_000
	minCacheKeys     = 10 // Vault's own
	// tokenTTL is the life of a role's own token. It logs in again after two thirds.
	tokenTTL = "1h"
)

// Run prepares the Vault. It may be repeated at any time: what stands as it should is left alone or written again
// alike, and credentials in OutDir that still work are kept. What it finds mounted in another way, and a key of the log
// that can not be it, it does not touch: that is an error.
//
// The log's key is made whether or not the daemon is told to sign by it: so that is a matter of its configuration alone,
// and a key that nobody uses harms nobody.
func Run(ctx context.Context, o Options) error {
	if o.Mount == "" {
		o.Mount = hcvault.DefaultMount
	}
	if o.CacheKeys == 0 {
		o.CacheKeys = defaultCacheKeys
	}
	if err := o.check(); err != nil {
		return fmt.Errorf("set up Vault: %w", err)
	}
	c, err := transport.New(transport.Config{Addr: o.Addr, CAFile: o.CAFile, Timeout: 30 * time.Second, Conns: 2})
	if err != nil {
		return fmt.Errorf("set up Vault: %w", err)
	}
	defer c.Close()
	op := &operator{c, o.Token}
	steps := []struct {
		what string
		do   func(context.Context, Options) error
	}{
		{"audit device", op.audit}, // first, so that it sees the rest
		{"transit engine", op.transit},
		{"log's key", op.logKey},
		{"AppRole logins", op.approle},
		{"token role", op.tokenRole},
		{"roles", op.roles},
	}
	for _, s := range steps {
		if err := s.do(ctx, o); err != nil {
			return fmt.Errorf("set up Vault: %s: %w", s.what, err)
		}
	}
	return nil
}

func (o Options) check() error {
	if err := hcvault.CheckMount(o.Mount); err != nil {
		return err
	}
	if o.Token == "" {
		return errors.New("the token of an operator is needed")
	}
	if o.OutDir == "" {
		return errors.New("a directory for the credentials is needed")
	}
	if o.CacheKeys < minCacheKeys {
		return fmt.Errorf("a cache of %d keys: Vault wants at least %d", o.CacheKeys, minCacheKeys)
	}
	for _, s := range o.TokenCIDRs {
		if _, err := netip.ParsePrefix(s); err != nil {
			if _, err := netip.ParseAddr(s); err != nil {
				return fmt.Errorf("%q is no address and no range such as 10.1.2.0/24", s)
			}
		}
	}
	return nil
}

// operator makes calls with the operator's token.
type operator struct {
	calls *transport.Client
	token string
}

func (op *operator) do(ctx context.Context, method, path string, in, out any) error {
	if err := op.calls.Do(ctx, op.token, method, path, in, out); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

type mounted struct {
	Type    string            `json:"type"`
	Options map[string]string `json:"options"`
}

// list reads what is mounted at sys/mounts, sys/auth or sys/audit, by path with a trailing slash.
func (op *operator) list(ctx context.Context, path string) (map[string]mounted, error) {
	var got struct {
		Data map[string]mounted `json:"data"`
	}
	err := op.do(ctx, http.MethodGet, path, nil, &got)
	return got.Data, err
}

// audit insists on a file device that hashes. Vault then refuses every call that it cannot record.
func (op *operator) audit(ctx context.Context, o Options) error {
	devices, err := op.list(ctx, "sys/audit")
	if err != nil {
		return err
	}
	found := false
	for path, d := range devices {
		if d.Options["log_raw"] == "true" {
			return fmt.Errorf("device %s writes secrets in the clear (log_raw); disable it first", path)
		}
		found = found || d.Type == "file"
	}
	if found {
		return nil
	}
	if o.AuditFile == "" {
		return errors.New("vault has no file device, and no file for one was given")
	}
	return op.do(ctx, http.MethodPut, "sys/audit/"+hcvault.DefaultMount, map[string]any{
		"type":        "file",
		"description": "Portcullis compares each decrypt with its releases",
		"options":     map[string]string{"file_path": o.AuditFile, "log_raw": "false", "hmac_accessor": "true"},
	}, nil)
}

// ensure mounts an engine unless it stands.
func (op *operator) ensure(ctx context.Context, table, path, kind, description string) error {
	all, err := op.list(ctx, table)
	if err != nil {
		return err
	}
	if m, ok := all[path+"/"]; ok {
		if m.Type != kind {
			return fmt.Errorf("%s/ is of type %s, not %s", path, m.Type, kind)
		}
		return nil
	}
	return op.do(ctx, http.MethodPost, table+"/"+path, map[string]string{"type": kind, "description": description}, nil)
}

func (op *operator) transit(ctx context.Context, o Options) error {
	if err := op.ensure(ctx, "sys/mounts", o.Mount, "transit", "Portcullis: a key for each record"); err != nil {
		return err
	}
	return op.do(ctx, http.MethodPost, o.Mount+"/cache-config", map[string]int{"size": o.CacheKeys}, nil)
}

// logins tells a mount that an earlier run made from one that others made, and use.
const logins = "logins of services"

func (op *operator) approle(ctx context.Context, _ Options) error {
	if err := op.ensure(ctx, "sys/auth", "approle", "approle", logins); err != nil {
		return err
	}
	var got struct {
		Data struct {
			Description string `json:"description"`
		} `json:"data"`
	}
	if err := op.do(ctx, http.MethodGet, "sys/auth/approle/tune", nil, &got); err != nil || got.Data.Description != logins {
		return err
	}
	// Otherwise whoever knows a role's ID, which is no secret, keeps the service from logging in with five wrong
	// secrets. Secrets of 122 random bits want no such lock.
	return op.do(ctx, http.MethodPost, "sys/auth/approle/tune", map[string]any{"user_lockout_config": map[string]bool{"lockout_disable": true}}, nil)
}

// tokenRole makes the role by which grant tokens are minted.
func (op *operator) tokenRole(ctx context.Context, o Options) error {
	cidrs := o.TokenCIDRs
	if cidrs == nil {
		cidrs = []string{} // null would leave those of an earlier run
	}
	return op.do(ctx, http.MethodPost, "auth/token/roles/"+hcvault.TokenRole, map[string]any{
		"orphan":                  true,
		"renewable":               false,
		"token_type":              "service", // a batch token cannot be revoked
		"token_no_default_policy": true,
		"allowed_policies_glob":   []string{hcvault.FencePrefix + "*"},
		"allowed_entity_aliases":  []string{hcvault.AliasPrefix + "*"},
		"token_bound_cidrs":       cidrs,
		"token_num_uses":          0, // each token says itself how often it may be used; the role would cut it
		// Whoever steals the credential that mints cannot make tokens that outlive the longest grant.
		"token_explicit_max_ttl": fmt.Sprintf("%ds", int64(vault.MaxTTL/time.Second)),
	}, nil)
}

func (op *operator) roles(ctx context.Context, o Options) error {
	if err := makeDir(o.OutDir); err != nil {
		return err
	}
	for _, r := range roles(o.Mount) {
		if err := op.do(ctx, http.MethodPut, "sys/policies/acl/"+r.name, map[string]string{"policy": r.policy}, nil); err != nil {
			return err
		}
		// Service tokens: they can be revoked, and only they can mint.
		err := op.do(ctx, http.MethodPost, "auth/approle/role/"+r.name, map[string]any{
			"token_policies":          []string{r.name},
			"token_no_default_policy": true,
			"token_type":              "service",
			"token_ttl":               tokenTTL,
			"token_max_ttl":           tokenTTL,
			"bind_secret_id":          true,
			"secret_id_num_uses":      0, // without end: a service must come back after a restart by itself
			"secret_id_ttl":           0,
		}, nil)
		if err != nil {
			return err
		}
		if err := op.credential(ctx, o.OutDir, r); err != nil {
			return err
		}
	}
	return nil
}
