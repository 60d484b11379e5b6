// Package hcvault does Portcullis' work at HashiCorp Vault: record keys, grant tokens, fences and contractors.
//
// Each Vault credential has a type of its own, so what a process can do shows in what it holds: [Capture] makes keys
// and wraps by them, [Release] holds no credential and opens with the token that its caller brings, [Grants] mints
// and ends grant tokens, [Admin] writes fences and works on keys and contractors. Package setup prepares a Vault so
// that each credential alone can do no more than that.
//
// Nothing is read from the environment, and no call is repeated by itself, except after a refusal (403) that a new
// login or, of one that only reads, some milliseconds may cure: what Vault refused it has not done.
package hcvault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/portcullis/portcullis/internal/hcvault/transport"
	"github.com/portcullis/portcullis/vault"
)

// DefaultMount is where Portcullis' transit engine stands if nothing else is said.
const DefaultMount = "portcullis"

// Config says which Vault, and how to talk to it.
type Config struct {
	Addr    string        // https://host:port
	CAFile  string        // PEM; the only authorities that are trusted
	Mount   string        // of the transit engine; empty means [DefaultMount]
	Timeout time.Duration // of one call, the login that it needs included; 0 means 10 s
	Conns   int           // most connections at once; 0 means 64, where wrapping was fastest on two cores
}

// Server is one Vault. It holds no credential. Safe for concurrent use, as are all types that it makes.
type Server struct {
	calls *transport.Client
	probe *transport.Client // of Health: its one connection does not wait behind the work
	mount string
	most  time.Duration // of a call and its login

	now    func() time.Time
	ctx    context.Context // of logins, which outlive the call that asked for them; ends by Close
	cancel context.CancelFunc
	logins sync.WaitGroup
}

var mountForm = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// CheckMount says whether s can be the name of the transit mount.
func CheckMount(s string) error {
	if len(s) > 64 || !mountForm.MatchString(s) {
		return fmt.Errorf("mount %q: must be lower-case letters, digits and single hyphens, at most 64", s)
	}
	return nil
}

// CheckAddress says whether s can be the address of a Vault: https://host:port.
func CheckAddress(s string) error { return transport.CheckAddress(s) }

// Dial prepares to talk to a Vault. It does not connect yet: a Vault that is away shows with the first call.
func Dial(cfg Config) (*Server, error) {
	if cfg.Mount == "" {
		cfg.Mount = DefaultMount
	}
	if err := CheckMount(cfg.Mount); err != nil {
		return nil, err
	}
	c, err := transport.New(transport.Config{Addr: cfg.Addr, CAFile: cfg.CAFile, Timeout: cfg.Timeout, Conns: cfg.Conns})
	if err != nil {
		return nil, err
	}
	probe, err := transport.New(transport.Config{Addr: cfg.Addr, CAFile: cfg.CAFile, Timeout: probeTimeout, Conns: 1})
	if err != nil {
		return nil, err
	}
	s := &Server{calls: c, probe: probe, mount: cfg.Mount, most: c.Timeout(), now: time.Now}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Close ends logins under way, waits for them and drops idle connections. Calls under way go on.
func (s *Server) Close() {
	s.cancel()
	s.logins.Wait()
	s.calls.Close()
	s.probe.Close()
}

// probeTimeout bounds one look at Vault's health. An open Vault answers in about a millisecond.
const probeTimeout = 2 * time.Second

// Health says whether Vault takes calls: nil, or Unavailable when it is sealed, not initialised or does not answer.
// It shows no credential and changes nothing. A standby counts as healthy, for it leads to the active one.
func (s *Server) Health(ctx context.Context) error {
	err := s.probe.Do(ctx, "", http.MethodGet, "sys/health", nil, nil)
	switch transport.Status(err) {
	case http.StatusTooManyRequests, 473: // a standby, a performance standby
		return nil
	}
	return translate("look at Vault's health", err)
}

// translate gives an error of Vault its kind. what says what was tried; it goes to the log alone.
//
// Unavailable: the call did not reach an open Vault, or its answer did not reach us; it may or may not have been done.
// Internal: Vault answered and refused our own credential or call, which repeating does not cure.
func translate(what string, err error) error {
	if err == nil {
		return nil
	}
	var known *vault.Error
	if errors.As(err, &known) {
		return err
	}
	cause := fmt.Errorf("%s: %w", what, err)
	switch st := transport.Status(err); {
	case st == 0, st >= 500, st == http.StatusTooManyRequests, st == http.StatusPreconditionFailed,
		st >= 300 && st < 400, // a standby that knows no leader
		st == 472, st == 473:  // standbys of other clusters
		return vault.E(vault.Unavailable, vault.ReasonVaultUnavailable, "Vault is sealed or away").Because(cause)
	}
	return vault.E(vault.Internal, vault.ReasonInternal, "Vault refused").Because(cause)
}

// keyForm is that of vault.Record.KeyName: <site>.<modality>.<yyyymmdd>.<record ID>.
var (
	keyForm    = regexp.MustCompile(`^([a-z0-9-]+)\.(face|plate)\.[0-9]{8}\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	prefixForm = regexp.MustCompile(`^([a-z0-9-]+)\.(face|plate)\.([0-9]{1,7}|[0-9]{8}\.)$`)
)

// checkKey says whether s is the name of a record's key. A name becomes part of a path, so nothing else may pass.
func checkKey(s string) error {
	if m := keyForm.FindStringSubmatch(s); m == nil || vault.CheckName("site", m[1]) != nil {
		return vault.InvalidField("key_name", "must be <site>.<modality>.<yyyymmdd>.<record ID>")
	}
	return nil
}

// checkPrefix says whether s begins key names of one site and modality: it is cut off within the day, or after it.
func checkPrefix(s string) error {
	if m := prefixForm.FindStringSubmatch(s); m == nil || vault.CheckName("site", m[1]) != nil {
		return vault.InvalidField("key_prefixes", "must be <site>.<modality>. and at least one digit of the day")
	}
	return nil
}

// Names of what stands in Vault; package setup writes them there.
const (
	CaptureRole = "portcullis-capture"
	GrantsRole  = "portcullis-grants"
	AdminRole   = "portcullis-admin"
	TokenRole   = "portcullis-grant"    // the token role by which grant tokens are made
	FencePrefix = "portcullis-grant-"   // of policies: one for each grant, named by its ID
	AliasPrefix = "portcullis-c-"       // of entity aliases: one for each epoch of a contractor
	approleAuth = "auth/approle/login"  // where AppRoles log in
	tokenMount  = "sys/auth/token"      // tells the accessor of the token mount
	entityByID  = "identity/entity/id/" // disabled here
	lookup      = "identity/lookup/entity"
)

func fenceName(grant vault.ID) string { return FencePrefix + grant.String() }

// alias names the entity of one epoch of a contractor. The epoch is digits alone, so no two of them share a name.
func alias(contractor string, epoch int) (string, error) {
	if err := vault.CheckName("contractor", contractor); err != nil {
		return "", err
	}
	if epoch < 1 {
		return "", vault.InvalidField("epoch", "must be 1 or more")
	}
	return fmt.Sprintf("%s%s-%d", AliasPrefix, contractor, epoch), nil
}

func (s *Server) path(parts ...string) string { return s.mount + "/" + strings.Join(parts, "/") }
