package vaulttest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// HCVault stands in for HashiCorp Vault with all our credentials at once: [Capture],
// [Release], [Grants] and [Admin]. Its ops are the methods of those.
type HCVault struct {
	Faults
	clock func() time.Time

	mu       sync.Mutex
	keys     map[string]*transitKey
	fences   map[vault.ID]*vault.Fence // nil once closed
	tokens   map[string]grantToken     // by accessor
	entities map[entity]bool           // made by the first Mint; true once disabled
}

// transitKey is a named key; its versions count from 1.
type transitKey struct {
	versions []cipher.AEAD
	least    int // min_decryption_version
}

type grantToken struct {
	secret vault.Token
	grant  vault.ID
	entity entity
	ends   time.Time
	// counted says whether left counts; the token is gone at its last use.
	counted bool
	left    int64
}

// entity is a contractor in one epoch.
type entity struct {
	contractor string
	epoch      int
}

// NewHCVault makes one without keys that answers. clock says when tokens end.
func NewHCVault(clock func() time.Time) *HCVault {
	return &HCVault{
		Faults: newFaults(vault.ReasonVaultUnavailable,
			"Wrap", "Unwrap", "Mint", "Uses", "RevokeToken", "WriteFence", "CloseFence", "DeleteFence", "DisableContractor",
			"RevokeKey", "RestoreKey", "DestroyKey", "KeyExists", "Keys", "InspectKey"),
		clock: clock, keys: map[string]*transitKey{}, fences: map[vault.ID]*vault.Fence{},
		tokens: map[string]grantToken{}, entities: map[entity]bool{},
	}
}

// Wrap is as in [Capture].
func (v *HCVault) Wrap(ctx context.Context, keyName string, dek []byte) (string, error) {
	return call(ctx, &v.Faults, "Wrap", func() (string, error) {
		v.mu.Lock()
		defer v.mu.Unlock()
		if err := checkKey(keyName); err != nil {
			return "", err
		}
		if len(dek) != 32 {
			return "", vault.E(vault.Internal, vault.ReasonInternal, "a data key has 32 bytes, not %d", len(dek))
		}
		if v.keys[keyName] != nil {
			return "", vault.E(vault.Internal, vault.ReasonInternal, "Vault refused")
		}
		k := &transitKey{least: 1}
		k.rotate()
		v.keys[keyName] = k
		return "vault:v1:" + base64.StdEncoding.EncodeToString(k.versions[0].Seal(nil, nil, dek, nil)), nil
	})
}

func (k *transitKey) rotate() {
	block, err := aes.NewCipher(random(32))
	if err != nil {
		panic(fmt.Sprintf("aes with a 32-byte key: %v", err)) // cannot be
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(fmt.Sprintf("gcm: %v", err)) // cannot be
	}
	k.versions = append(k.versions, aead)
}

// Unwrap is as in [Release].
func (v *HCVault) Unwrap(ctx context.Context, t vault.Token, keyName, wrapped string) ([]byte, error) {
	return call(ctx, &v.Faults, "Unwrap", func() ([]byte, error) {
		v.mu.Lock()
		defer v.mu.Unlock()
		if err := checkKey(keyName); err != nil {
			return nil, err
		}
		rest, ok := strings.CutPrefix(wrapped, "vault:v")
		lost := vault.E(vault.DataLoss, vault.ReasonDataLoss, "the wrapped key does not prove intact")
		if !wrappedForm.MatchString(wrapped) {
			return nil, lost // it does not reach Vault, which would count a use
		}
		if !v.allows(t, keyName) {
			return nil, vault.E(vault.Denied, vault.ReasonKeyRefused, "the token does not open this key")
		}
		k := v.keys[keyName]
		if k == nil {
			return nil, vault.E(vault.Denied, vault.ReasonKeyDestroyed, "the key is gone")
		}
		number, text, found := strings.Cut(rest, ":")
		version, err := strconv.Atoi(number)
		if !ok || !found || err != nil || version > len(k.versions) {
			return nil, lost
		}
		if version < k.least {
			return nil, vault.E(vault.Denied, vault.ReasonKeyRevoked, "the key is revoked")
		}
		sealed, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, lost
		}
		dek, err := k.versions[version-1].Open(nil, nil, sealed, nil)
		if err != nil {
			return nil, lost
		}
		return dek, nil
	})
}

// allows says whether the token lives and its fence holds the key. To ask is a use of the
// token, also when the answer is no.
func (v *HCVault) allows(secret vault.Token, keyName string) bool {
	for accessor, t := range v.tokens {
		if t.secret != secret || !v.clock().Before(t.ends) {
			continue
		}
		if t.counted {
			if t.left--; t.left > 0 {
				v.tokens[accessor] = t
			} else {
				delete(v.tokens, accessor) // this use still goes
			}
		}
		f := v.fences[t.grant]
		return !v.entities[t.entity] && f != nil && (slices.Contains(f.Names, keyName) ||
			slices.ContainsFunc(f.Prefixes, func(p string) bool { return strings.HasPrefix(keyName, p) }))
	}
	return false
}

// Mint is as in [Grants].
func (v *HCVault) Mint(ctx context.Context, grant vault.ID, contractor string, epoch int, ttl time.Duration, uses int64) (vault.Token, string, error) {
	type minted struct {
		token    vault.Token
		accessor string
	}
	m, err := call(ctx, &v.Faults, "Mint", func() (minted, error) {
		v.mu.Lock()
		defer v.mu.Unlock()
		e := entity{contractor, epoch}
		if err := e.check(); err != nil {
			return minted{}, err
		}
		if ttl < time.Second || ttl > vault.MaxTTL {
			return minted{}, vault.InvalidField("ttl", "must be from 1s to %s", vault.MaxTTL)
		}
		ttl = ttl.Truncate(time.Second) // as Vault counts
		if uses < 0 {
			return minted{}, vault.InvalidField("uses", "must not be negative")
		}
		if v.entities[e] {
			return minted{}, vault.E(vault.Denied, vault.ReasonContractorSuspended, "contractor %s is disabled in epoch %d", contractor, epoch)
		}
		v.entities[e] = false
		m := minted{vault.TokenOf("hvs." + base64.RawURLEncoding.EncodeToString(random(69))), base64.RawURLEncoding.EncodeToString(random(18))}
		v.tokens[m.accessor] = grantToken{secret: m.token, grant: grant, entity: e, ends: v.clock().Add(ttl), counted: uses > 0, left: uses}
		return m, nil
	})
	return m.token, m.accessor, err
}

// Uses is as in [Grants].
func (v *HCVault) Uses(ctx context.Context, accessor string) (int64, error) {
	return call(ctx, &v.Faults, "Uses", func() (int64, error) {
		v.mu.Lock()
		defer v.mu.Unlock()
		if accessor == "" {
			return 0, vault.InvalidField("accessor", "must not be empty")
		}
		t, ok := v.tokens[accessor]
		if !ok || !v.clock().Before(t.ends) {
			return 0, nil
		}
		if !t.counted {
			return 0, vault.E(vault.Internal, vault.ReasonInternal, "Vault does not count the uses of this grant's token")
		}
		return t.left, nil
	})
}

// RevokeToken is as in [Grants].
func (v *HCVault) RevokeToken(ctx context.Context, accessor string) error {
	return do(ctx, &v.Faults, "RevokeToken", func() error {
		v.mu.Lock()
		defer v.mu.Unlock()
		if accessor == "" {
			return vault.InvalidField("accessor", "must not be empty")
		}
		delete(v.tokens, accessor)
		return nil
	})
}

// WriteFence is as in [Admin].
func (v *HCVault) WriteFence(ctx context.Context, grant vault.ID, f vault.Fence) error {
	return do(ctx, &v.Faults, "WriteFence", func() error {
		if n := f.Paths(); n == 0 || n > vault.MaxPrefixes {
			return vault.InvalidField("fence", "has %d prefixes and names; 1 to %d are allowed", n, vault.MaxPrefixes)
		}
		for _, p := range f.Prefixes {
			if !prefixForm.MatchString(p) {
				return vault.InvalidField("key_prefixes", "must be <site>.<modality>. and at least one digit of the day")
			}
		}
		for _, name := range f.Names {
			if err := checkKey(name); err != nil {
				return err
			}
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		if now, known := v.fences[grant]; known && now == nil {
			return vault.E(vault.State, vault.ReasonGrantRevoked, "Vault knows grant %s as ended", grant)
		}
		v.fences[grant] = &vault.Fence{Prefixes: slices.Clone(f.Prefixes), Names: slices.Clone(f.Names)}
		return nil
	})
}

// CloseFence is as in [Admin].
func (v *HCVault) CloseFence(ctx context.Context, grant vault.ID) error {
	return do(ctx, &v.Faults, "CloseFence", func() error {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.fences[grant] = nil
		return nil
	})
}

// DeleteFence is as in [Admin].
func (v *HCVault) DeleteFence(ctx context.Context, grant vault.ID) error {
	return do(ctx, &v.Faults, "DeleteFence", func() error {
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.fences, grant)
		return nil
	})
}

// DisableContractor is as in [Admin].
func (v *HCVault) DisableContractor(ctx context.Context, contractor string, epoch int) error {
	return do(ctx, &v.Faults, "DisableContractor", func() error {
		v.mu.Lock()
		defer v.mu.Unlock()
		e := entity{contractor, epoch}
		if err := e.check(); err != nil {
			return err
		}
		if _, ok := v.entities[e]; ok {
			v.entities[e] = true
		}
		return nil
	})
}

// RevokeKey is as in [Admin].
func (v *HCVault) RevokeKey(ctx context.Context, keyName string) error {
	return do(ctx, &v.Faults, "RevokeKey", func() error {
		return v.change(keyName, func(k *transitKey) error {
			if k != nil && k.least == 1 {
				k.rotate()
				k.least = len(k.versions)
			}
			return nil
		})
	})
}

// RestoreKey is as in [Admin].
func (v *HCVault) RestoreKey(ctx context.Context, keyName string) error {
	return do(ctx, &v.Faults, "RestoreKey", func() error {
		return v.change(keyName, func(k *transitKey) error {
			if k == nil {
				return vault.E(vault.State, vault.ReasonKeyDestroyed, "the record's key is destroyed")
			}
			k.least = 1
			return nil
		})
	})
}

// change works on a key, nil if it is gone, under the lock.
func (v *HCVault) change(keyName string, change func(*transitKey) error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := checkKey(keyName); err != nil {
		return err
	}
	return change(v.keys[keyName])
}

// DestroyKey is as in [Admin].
func (v *HCVault) DestroyKey(ctx context.Context, keyName string) error {
	return do(ctx, &v.Faults, "DestroyKey", func() error {
		return v.change(keyName, func(*transitKey) error {
			delete(v.keys, keyName)
			return nil
		})
	})
}

// KeyExists is as in [Admin].
func (v *HCVault) KeyExists(ctx context.Context, keyName string) (bool, error) {
	return call(ctx, &v.Faults, "KeyExists", func() (bool, error) {
		var exists bool
		err := v.change(keyName, func(k *transitKey) error {
			exists = k != nil
			return nil
		})
		return exists, err
	})
}

// Keys is as in [Admin]; the names are sorted.
func (v *HCVault) Keys(ctx context.Context) ([]string, error) {
	return call(ctx, &v.Faults, "Keys", func() ([]string, error) {
		v.mu.Lock()
		defer v.mu.Unlock()
		return slices.Sorted(maps.Keys(v.keys)), nil
	})
}

// InspectKey is as the admin role's: whether the key is there, whether it is revoked. It tells no
// time of its making.
func (v *HCVault) InspectKey(ctx context.Context, keyName string) (found, revoked bool, made time.Time, err error) {
	err = do(ctx, &v.Faults, "InspectKey", func() error {
		return v.change(keyName, func(k *transitKey) error {
			found, revoked = k != nil, k != nil && k.least > 1
			return nil
		})
	})
	return found, revoked, made, err
}

// What a key name, or the beginning of one, looks like: see vault.Record.KeyName.
var (
	keyForm    = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*\.(face|plate)\.[0-9]{8}\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	prefixForm = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*\.(face|plate)\.([0-9]{1,7}|[0-9]{8}\.)$`)
	// wrappedForm is how what Wrap gave begins.
	wrappedForm = regexp.MustCompile(`^vault:v[1-9][0-9]{0,8}:`)
)

func checkKey(s string) error {
	if !keyForm.MatchString(s) {
		return vault.InvalidField("key_name", "must be <site>.<modality>.<yyyymmdd>.<record ID>")
	}
	return nil
}

func (e entity) check() error {
	if err := vault.CheckName("contractor", e.contractor); err != nil {
		return err
	}
	if e.epoch < 1 {
		return vault.InvalidField("epoch", "must be 1 or more")
	}
	return nil
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails: it ends the process instead
	return b
}
