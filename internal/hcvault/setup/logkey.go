package setup

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/portcullis/portcullis/internal/hcvault"
	"github.com/portcullis/portcullis/internal/hcvault/transport"
)

// transitKey is what Vault tells of a key.
type transitKey struct {
	Type                 string         `json:"type"`
	Derived              bool           `json:"derived"`
	Exportable           bool           `json:"exportable"`
	PlaintextBackup      bool           `json:"allow_plaintext_backup"`
	DeletionAllowed      bool           `json:"deletion_allowed"`
	AutoRotate           int64          `json:"auto_rotate_period"` // seconds
	MinEncryptionVersion int            `json:"min_encryption_version"`
	Keys                 map[string]any `json:"keys"`
}

// logKey makes the key that signs the log's checkpoints, in an engine of its own, unless it is there. It never rotates
// or replaces one: with another key it would be another log. A key that can not be the log's is an error.
func (op *operator) logKey(ctx context.Context, o Options) error {
	mount := hcvault.LogMount(o.Mount)
	if err := op.ensure(ctx, "sys/mounts", mount, "transit", "Portcullis: the key that signs the audit log"); err != nil {
		return err
	}
	path := mount + "/keys/" + hcvault.LogKeyName
	key, err := op.readKey(ctx, path)
	var refused *transport.Error
	if errors.As(err, &refused) && refused.Absent() {
		in := map[string]any{"type": hcvault.LogKeyType, "exportable": false, "allow_plaintext_backup": false}
		if err := op.do(ctx, http.MethodPost, path, in, nil); err != nil {
			return err
		}
		key, err = op.readKey(ctx, path) // another set-up may have been first
	}
	if err != nil {
		return err
	}
	if err := key.check(); err != nil {
		return fmt.Errorf("the key %s at %s/: %w", hcvault.LogKeyName, mount, err)
	}
	if !key.DeletionAllowed && key.AutoRotate == 0 {
		return nil
	}
	return op.do(ctx, http.MethodPost, path+"/config", map[string]any{"deletion_allowed": false, "auto_rotate_period": 0}, nil)
}

func (op *operator) readKey(ctx context.Context, path string) (transitKey, error) {
	var got struct {
		Data transitKey `json:"data"`
	}
	err := op.do(ctx, http.MethodGet, path, nil, &got)
	return got.Data, err
}

// check says whether the key can be the log's. What it finds, set-up does not put right: most of it can not be.
func (k transitKey) check() error {
	switch _, first := k.Keys["1"]; {
	case k.Type != hcvault.LogKeyType || k.Derived:
		return fmt.Errorf("it is of type %s (derived: %t), and must be a plain %s", k.Type, k.Derived, hcvault.LogKeyType)
	case k.Exportable, k.PlaintextBackup:
		return errors.New("it can be exported or backed up in the clear, so it may be elsewhere as well")
	case !first, k.MinEncryptionVersion > 1:
		return errors.New("its version 1, which signs the log, can not be used")
	}
	return nil
}
