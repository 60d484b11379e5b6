package hcvault

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/portcullis/portcullis/internal/hcvault/transport"
	"github.com/portcullis/portcullis/vault"
)

// key is what Vault tells of a key; nothing of it is secret.
type key struct {
	Latest     int `json:"latest_version"`
	MinDecrypt int `json:"min_decryption_version"`
	MinKept    int `json:"min_available_version"` // versions before it were trimmed; 0 if none was
}

// oldest is the version by which the record's data key is wrapped. A record is wrapped once, by version 1; whoever
// wraps it anew trims the versions before.
func (k key) oldest() int { return max(1, k.MinKept) }

func (k key) revoked() bool { return k.MinDecrypt > k.oldest() }

// find reads a key. Only here is absence proved: Vault answers 404 without a text. Deletes and updates of a missing
// key answer 400 with many texts, and a missing mount 404 with one.
func (a *Admin) find(ctx context.Context, name string) (k key, ok bool, err error) {
	var got struct {
		Data key `json:"data"`
	}
	err = a.session.do(ctx, http.MethodGet, a.session.srv.path("keys", name), nil, &got)
	var answer *transport.Error
	if errors.As(err, &answer) && answer.Absent() {
		return key{}, false, nil
	}
	if err == nil && got.Data.Latest < 1 {
		err = errors.New("the answer is not that of a key")
	}
	return got.Data, err == nil, err
}

func (a *Admin) config(ctx context.Context, name string, in map[string]any) error {
	return a.session.do(ctx, http.MethodPost, a.session.srv.path("keys", name, "config"), in, nil)
}

// KeyExists says whether Vault has the key.
func (a *Admin) KeyExists(ctx context.Context, keyName string) (bool, error) {
	if err := checkKey(keyName); err != nil {
		return false, err
	}
	_, ok, err := a.find(ctx, keyName)
	return ok, translate("find key "+keyName, err)
}

// RevokeKey makes what was wrapped by the key unreadable to every token, until RestoreKey. It is durable on return.
// Idempotent, also after a half-done run. A key that is absent opens nothing: that is a success. One goroutine at a
// time may work on a key.
func (a *Admin) RevokeKey(ctx context.Context, keyName string) error {
	if err := checkKey(keyName); err != nil {
		return err
	}
	return translate("revoke key "+keyName, a.revoke(ctx, keyName))
}

func (a *Admin) revoke(ctx context.Context, name string) error {
	k, ok, err := a.find(ctx, name)
	if err != nil || !ok || k.revoked() {
		return err
	}
	if k.Latest == k.oldest() { // else an earlier run, or an earlier revocation, has rotated
		if err := a.session.do(ctx, http.MethodPost, a.session.srv.path("keys", name, "rotate"), nil, nil); err != nil {
			return err
		}
		k.Latest++
	}
	if err := a.config(ctx, name, map[string]any{"min_decryption_version": k.Latest}); err != nil {
		return err
	}
	k, ok, err = a.find(ctx, name)
	if err == nil && ok && !k.revoked() {
		err = errors.New("the key still opens")
	}
	return err
}

// RestoreKey undoes RevokeKey. Idempotent. State KEY_DESTROYED if the key is gone.
func (a *Admin) RestoreKey(ctx context.Context, keyName string) error {
	if err := checkKey(keyName); err != nil {
		return err
	}
	what := "restore key " + keyName
	k, ok, err := a.find(ctx, keyName)
	switch {
	case err != nil:
		return translate(what, err)
	case !ok:
		return vault.E(vault.State, vault.ReasonKeyDestroyed, "the record's key is destroyed")
	case !k.revoked():
		return nil
	}
	return translate(what, a.config(ctx, keyName, map[string]any{"min_decryption_version": k.oldest()}))
}

// DestroyKey deletes the key and returns nil once a read has shown it gone. Idempotent.
func (a *Admin) DestroyKey(ctx context.Context, keyName string) error {
	if err := checkKey(keyName); err != nil {
		return err
	}
	return translate("destroy key "+keyName, a.destroy(ctx, keyName))
}

func (a *Admin) destroy(ctx context.Context, name string) error {
	_, ok, err := a.find(ctx, name)
	if err != nil || !ok {
		return err
	}
	// Whatever these two answer, for another one may be deleting as well: the read decides.
	err = a.config(ctx, name, map[string]any{"deletion_allowed": true})
	if err == nil {
		err = a.session.do(ctx, http.MethodDelete, a.session.srv.path("keys", name), nil, nil)
	}
	_, ok, rerr := a.find(ctx, name)
	switch {
	case rerr != nil:
		return rerr
	case !ok:
		return nil
	case err == nil:
		err = errors.New("vault deleted it and still has it")
	}
	return fmt.Errorf("the key is still there: %w", err)
}
