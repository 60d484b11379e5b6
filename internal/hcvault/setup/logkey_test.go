package setup_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portcullis/portcullis/internal/hcvault"
	"github.com/portcullis/portcullis/internal/hcvault/setup"
)

// logKey is what Vault tells of the log's key at a mount.
type logKey struct {
	Type                 string
	Derived              bool
	Exportable           bool
	AllowPlaintextBackup bool  `json:"allow_plaintext_backup"`
	DeletionAllowed      bool  `json:"deletion_allowed"`
	AutoRotatePeriod     int64 `json:"auto_rotate_period"`
	LatestVersion        int   `json:"latest_version"`
	Keys                 map[string]any
}

// first is version 1 of the key, as Vault tells of it.
func (k logKey) first() map[string]any {
	m, _ := k.Keys["1"].(map[string]any) // keys of other types have no more than a time
	return m
}

func logKeyPath(mount string) string { return hcvault.LogMount(mount) + "/keys/" + hcvault.LogKeyName }

func readLogKey(t *testing.T, mount string) logKey {
	t.Helper()
	var got struct{ Data logKey }
	root(t, "GET", logKeyPath(mount), nil, &got)
	return got.Data
}

func TestLogKey(t *testing.T) {
	got := readLogKey(t, hcvault.DefaultMount)
	if got.Type != "ed25519" || got.Derived || got.Exportable || got.AllowPlaintextBackup || got.DeletionAllowed ||
		got.AutoRotatePeriod != 0 || got.LatestVersion != 1 || got.first()["public_key"] == "" {
		t.Fatalf("the log's key is %+v", got)
	}
	if err := call(t, dev.RootToken(), "DELETE", logKeyPath(hcvault.DefaultMount), nil, nil); err == nil {
		t.Error("not even root may delete it before it says so, and it was deleted")
	}
}

// Run never makes the log another one: not by a new key and not by a new version, also where somebody rotated it. What
// was loosened is tight again.
func TestRunLeavesLogKey(t *testing.T) {
	const mount = "again"
	o := opts
	o.Mount, o.OutDir = mount, filepath.Join(t.TempDir(), "credentials")
	again := func() logKey {
		t.Helper()
		if err := setup.Run(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		return readLogKey(t, mount)
	}
	defer func() { // the policies are of the mount that came last
		if err := setup.Run(t.Context(), opts); err != nil {
			t.Error(err)
		}
	}()
	first := again()
	if first.LatestVersion != 1 {
		t.Fatalf("a new key has version %d", first.LatestVersion)
	}
	root(t, "POST", logKeyPath(mount)+"/rotate", nil, nil)
	root(t, "POST", logKeyPath(mount)+"/config", body{"deletion_allowed": true, "auto_rotate_period": "1h"}, nil)
	for range 2 {
		got := again()
		if got.LatestVersion != 2 || got.first()["public_key"] != first.first()["public_key"] {
			t.Errorf("version %d, the first is %v, was %v", got.LatestVersion, got.first(), first.first())
		}
		if got.DeletionAllowed || got.AutoRotatePeriod != 0 {
			t.Errorf("still loose: %+v", got)
		}
	}
}

// A key that can not be the log's is left as it is, and nothing else is done.
func TestRunRefusesAnotherLogKey(t *testing.T) {
	for _, c := range []struct {
		mount string
		make  func(mount string)
		say   string
	}{
		{"kind-aes", func(m string) { root(t, "POST", logKeyPath(m), body{"type": "aes256-gcm96"}, nil) }, "aes256-gcm96"},
		{"kind-ecdsa", func(m string) { root(t, "POST", logKeyPath(m), body{"type": "ecdsa-p256"}, nil) }, "ecdsa-p256"},
		{"kind-derived", func(m string) { root(t, "POST", logKeyPath(m), body{"type": "ed25519", "derived": true}, nil) }, "derived"},
		{"kind-exportable", func(m string) { root(t, "POST", logKeyPath(m), body{"type": "ed25519", "exportable": true}, nil) }, "exported"},
		{"kind-backup", func(m string) {
			root(t, "POST", logKeyPath(m), body{"type": "ed25519", "allow_plaintext_backup": true}, nil)
		}, "backed up"},
		{"kind-raised", func(m string) {
			root(t, "POST", logKeyPath(m), body{"type": "ed25519"}, nil)
			root(t, "POST", logKeyPath(m)+"/rotate", nil, nil)
			root(t, "POST", logKeyPath(m)+"/config", body{"min_encryption_version": 2}, nil)
		}, "version 1"},
		{"kind-trimmed", func(m string) {
			root(t, "POST", logKeyPath(m), body{"type": "ed25519"}, nil)
			root(t, "POST", logKeyPath(m)+"/rotate", nil, nil)
			root(t, "POST", logKeyPath(m)+"/config", body{"min_encryption_version": 2, "min_decryption_version": 2}, nil)
			root(t, "POST", logKeyPath(m)+"/trim", body{"min_available_version": 2}, nil)
		}, "version 1"},
	} {
		t.Run(c.mount, func(t *testing.T) {
			root(t, "POST", "sys/mounts/"+hcvault.LogMount(c.mount), body{"type": "transit"}, nil)
			c.make(c.mount)
			was := readLogKey(t, c.mount)
			o := opts
			o.Mount, o.OutDir = c.mount, filepath.Join(t.TempDir(), "credentials")
			if err := setup.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), c.say) {
				t.Errorf("set-up says %v, want something of %q", err, c.say)
			}
			if now := readLogKey(t, c.mount); now.Type != was.Type || now.LatestVersion != was.LatestVersion || now.Exportable != was.Exportable {
				t.Errorf("the key was %+v and is %+v", was, now)
			}
			if _, err := os.Stat(o.OutDir); !os.IsNotExist(err) {
				t.Errorf("credentials were made all the same (%v)", err)
			}
		})
	}
	root(t, "POST", "sys/mounts/"+hcvault.LogMount("other"), body{"type": "kv"}, nil)
	o := opts
	o.Mount = "other"
	if err := setup.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "kv") {
		t.Errorf("an engine of another kind: %v", err)
	}
}
