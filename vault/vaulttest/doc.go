// Package vaulttest is what tests of the domain's operations stand on: in-memory fakes of
// what holds keys and ciphertext, and the suites that the fakes and the real ones must pass
// alike.
//
// The fakes enforce what the real ones do, so that a test on them can trust a refusal, and
// give on demand what the real ones will not: failures at a chosen call, answers that get
// lost, races. A difference between a fake and the real thing, once found, becomes a case
// of the suite.
package vaulttest

import (
	"context"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// Blobs keeps ciphertext by record ID. All methods may be called at once. What cannot be
// done now is of kind Unavailable and reason BLOB_UNAVAILABLE.
type Blobs interface {
	// Put is durable on return. The same bytes again are no error; other bytes under an ID
	// that is taken are refused with kind Exists. After an error the blob can not be read.
	Put(ctx context.Context, id vault.ID, sealed []byte) error
	// Get gives what was put, in memory of its own. A missing blob is an error of kind
	// NotFound and reason DATA_LOSS.
	Get(ctx context.Context, id vault.ID) ([]byte, error)
	// Delete is durable on return. A missing blob is no error.
	Delete(ctx context.Context, id vault.ID) error
}

// Capture is what a credential for capture can do at HashiCorp Vault.
//
// All methods of this and the next three may be called at once. When Vault is sealed or
// away, or the context ends, the error is of kind Unavailable and reason VAULT_UNAVAILABLE.
// What is not of the form of a key name, a prefix, a contractor or an epoch never reaches
// Vault, and is of kind Invalid.
type Capture interface {
	// Wrap makes the transit key of that name and encrypts dek, 32 bytes, by it. A name that
	// exists is refused with kind Internal: Vault answers 403, as for a missing right.
	Wrap(ctx context.Context, keyName string, dek []byte) (wrapped string, err error)
}

// Release is what a grant token can do.
type Release interface {
	// Unwrap decrypts by the key of that name. The errors are
	//
	//	Denied, KEY_REFUSED    the token has ended, or its fence does not hold the key
	//	Denied, KEY_REVOKED    the key is revoked
	//	Denied, KEY_DESTROYED  the key is gone, and the token would do
	//	DataLoss, DATA_LOSS    wrapped is not what Wrap gave for this key
	Unwrap(ctx context.Context, t vault.Token, keyName, wrapped string) (dek []byte, err error)
}

// Grants is what a credential for grants can do.
type Grants interface {
	// Mint makes a token that opens what the grant's fence holds, and ends after ttl, cut to
	// whole seconds. Less than one is Invalid. In an epoch that is disabled it is refused with
	// kind Denied and reason CONTRACTOR_SUSPENDED. With uses above 0 it ends after that many
	// calls of Unwrap, refused ones included; with 0 they are not counted, and less is Invalid.
	Mint(ctx context.Context, grant vault.ID, contractor string, epoch int, ttl time.Duration, uses int64) (t vault.Token, accessor string, err error)
	// Uses says how many uses a token has left. One that has ended, or never was, has 0. One
	// whose uses are not counted is an error of kind Internal.
	Uses(ctx context.Context, accessor string) (left int64, err error)
	// RevokeToken ends a token. One that has ended, or never was, is no error.
	RevokeToken(ctx context.Context, accessor string) error
}

// Admin is what a credential for admins can do. What is done already is no error.
type Admin interface {
	// WriteFence lets tokens of the grant open by the keys within the fence, and by no others.
	WriteFence(ctx context.Context, grant vault.ID, f vault.Fence) error
	// CloseFence takes that away from all of them, at the next call, and makes WriteFence
	// refuse the grant from then on: State, GRANT_REVOKED.
	CloseFence(ctx context.Context, grant vault.ID) error
	// DeleteFence takes that away from all of them, too, and forgets the grant.
	DeleteFence(ctx context.Context, grant vault.ID) error
	// DisableContractor ends every token of a contractor's epoch. An epoch for which nothing
	// was ever minted has no entity at Vault: a Mint that comes after is not stopped by it.
	DisableContractor(ctx context.Context, contractor string, epoch int) error
	// RevokeKey makes what was wrapped by the key unreadable to every token. A key that is
	// gone opens nothing, so that is no error.
	RevokeKey(ctx context.Context, keyName string) error
	// RestoreKey undoes RevokeKey. If the key is gone, that is of kind State and reason
	// KEY_DESTROYED.
	RestoreKey(ctx context.Context, keyName string) error
	// DestroyKey deletes the key and returns once it is shown to be gone.
	DestroyKey(ctx context.Context, keyName string) error
	KeyExists(ctx context.Context, keyName string) (bool, error)
	// Keys gives the names of all keys.
	Keys(ctx context.Context) ([]string, error)
}
