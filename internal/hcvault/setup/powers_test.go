package setup_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/portcullis/portcullis/internal/hcvault"
	"github.com/portcullis/portcullis/internal/hcvault/transport"
	"github.com/portcullis/portcullis/vault"
)

type body = map[string]any

// try is one plain request to Vault, and whether it may succeed. Else Vault must answer 403; what the policy lets
// through and only the token role refuses is answered by 400.
type try struct {
	what         string
	method, path string
	in           body
	may          bool
}

// TestPowers plays the thief of each credential alone. docs/vault-powers.md tells the outcome.
func TestPowers(t *testing.T) {
	h := newThief(t)
	key, wrapped := h.store("power.face.20190105")
	doomed, _ := h.store("power.face.20190105")
	beside := map[string][2]string{}
	for what, prefix := range map[string]string{"day": "power.face.20190110", "site": "power-2.face.20190105", "modality": "power.plate.20190105"} {
		k, w := h.store(prefix)
		beside[what] = [2]string{k, w}
	}
	victim := h.grantToken("power-co", "power.face.2019010")
	fence := hcvault.FencePrefix + vault.NewID().String()
	root(t, "PUT", "sys/policies/acl/"+fence, body{"policy": `path "portcullis/decrypt/power.face.2019010*" { capabilities = ["update"] }`}, nil)

	var mount struct{ Data struct{ Accessor string } }
	root(t, "GET", "sys/auth/token", nil, &mount)
	var ent struct{ Data struct{ ID string } }
	root(t, "POST", "identity/lookup/entity", body{"alias_name": "portcullis-c-power-co-1", "alias_mount_accessor": mount.Data.Accessor}, &ent)
	var operator struct {
		Auth struct {
			ClientToken string `json:"client_token"`
			Accessor    string `json:"accessor"`
		}
	}
	root(t, "POST", "auth/token/create", body{"policies": []string{"root"}, "ttl": "5m"}, &operator)

	fresh := func() string { return "power.face.20190105." + vault.NewID().String() }
	dek := base64.StdEncoding.EncodeToString(make([]byte, 32))
	mint := func(change body) body {
		in := body{"policies": []string{fence}, "entity_alias": "portcullis-c-power-co-1", "explicit_max_ttl": "60s", "ttl": "60s"}
		for k, v := range change {
			if in[k] = v; v == nil {
				delete(in, k)
			}
		}
		return in
	}
	const mintPath, otherPolicy = "auth/token/create/portcullis-grant", `path "*" { capabilities = ["read"] }`
	with := func(id string) string { return "identity/entity/id/" + id }
	logMount := hcvault.LogMount(hcvault.DefaultMount)
	root(t, "POST", logMount+"/keys/other", body{"type": "ed25519"}, nil)
	root(t, "POST", logMount+"/keys/lent", body{"type": "ed25519", "exportable": true}, nil)

	// What none of them may, beside its own table.
	nobody := []try{
		{"export a key", "GET", "portcullis/export/encryption-key/" + key, nil, false},
		{"back a key up", "GET", "portcullis/backup/" + key, nil, false},
		{"restore a key", "POST", "portcullis/restore/" + fresh(), body{"backup": "x"}, false},
		{"make a data key", "POST", "portcullis/datakey/plaintext/" + key, body{}, false},
		{"make an exportable key", "POST", "portcullis/keys/" + fresh(), body{"exportable": true}, false},
		{"import a key", "POST", "portcullis/keys/" + fresh() + "/import", body{"ciphertext": "x"}, false},
		{"let a key be exported", "POST", "portcullis/keys/" + key + "/config", body{"exportable": true}, false},
		{"let a key be backed up", "POST", "portcullis/keys/" + key + "/config", body{"allow_plaintext_backup": true}, false},
		{"encrypt by a key that exists", "POST", "portcullis/encrypt/" + key, body{"plaintext": dek}, false},
		{"decrypt many at once", "POST", "portcullis/decrypt/" + key, body{"batch_input": []body{{"ciphertext": wrapped}}}, false},
		{"change the cache", "POST", "portcullis/cache-config", body{"size": 10}, false},
		{"remove the engine", "DELETE", "sys/mounts/portcullis", nil, false},
		{"mount an engine", "POST", "sys/mounts/mine", body{"type": "transit"}, false},
		{"list mounts", "GET", "sys/mounts", nil, false},
		{"switch the audit off", "DELETE", "sys/audit/portcullis", nil, false},
		{"list audit devices", "GET", "sys/audit", nil, false},
		{"write its own policies", "PUT", "sys/policies/acl/portcullis-capture", body{"policy": otherPolicy}, false},
		{"write the policy of grants", "PUT", "sys/policies/acl/portcullis-grants", body{"policy": otherPolicy}, false},
		{"write another policy", "PUT", "sys/policies/acl/mine", body{"policy": otherPolicy}, false},
		{"write a policy by the old path", "PUT", "sys/policy/" + fence, body{"policy": otherPolicy}, false},
		{"read another policy", "GET", "sys/policies/acl/default", nil, false},
		{"mint a plain token", "POST", "auth/token/create", body{}, false},
		{"mint an orphan", "POST", "auth/token/create-orphan", body{}, false},
		{"change the token role", "POST", "auth/token/roles/portcullis-grant", body{"allowed_policies_glob": "*"}, false},
		{"make a secret ID", "POST", "auth/approle/role/portcullis-admin/secret-id", body{}, false},
		{"change a role", "POST", "auth/approle/role/portcullis-capture", body{"token_policies": "root"}, false},
		{"list accessors", "LIST", "auth/token/accessors", nil, false},
		{"look itself up", "GET", "auth/token/lookup-self", nil, false},
		{"renew itself", "POST", "auth/token/renew-self", body{}, false},
		{"use its cubbyhole", "PUT", "cubbyhole/x", body{"x": "y"}, false},
		{"write an alias", "POST", "identity/entity-alias", body{"name": "mine", "canonical_id": ent.Data.ID, "mount_accessor": mount.Data.Accessor}, false},
		{"make an entity", "POST", "identity/entity", body{"name": "mine", "policies": "root"}, false},
		{"enable an entity", "POST", with(ent.Data.ID), body{"disabled": false}, false},
		{"enable an entity by nothing", "POST", with(ent.Data.ID), body{"disabled": ""}, false},
		{"give an entity policies", "POST", with(ent.Data.ID), body{"disabled": true, "policies": "root"}, false},
		{"read an entity", "GET", with(ent.Data.ID), nil, false},
		{"delete an entity", "DELETE", with(ent.Data.ID), nil, false},
		{"end all tokens", "PUT", "sys/leases/revoke-prefix/auth/token/create", body{"sync": true}, false},
		{"end all logins", "PUT", "sys/leases/revoke-prefix/auth/approle/login", body{"sync": true}, false},
		{"end tokens by force", "PUT", "sys/leases/revoke-force/auth/token/create/portcullis-grant", body{}, false},
		{"take a snapshot", "GET", "sys/storage/raft/snapshot", nil, false},
		{"seal", "PUT", "sys/seal", body{}, false},
		{"read raw storage", "GET", "sys/raw/core/keyring", nil, false},
		{"rotate the log's key", "POST", logMount + "/keys/checkpoints/rotate", nil, false},
		{"delete the log's key", "DELETE", logMount + "/keys/checkpoints", nil, false},
		{"let the log's key be deleted", "POST", logMount + "/keys/checkpoints/config", body{"deletion_allowed": true}, false},
		{"retire the log's key", "POST", logMount + "/keys/checkpoints/config", body{"min_encryption_version": 1}, false},
		{"trim the log's key", "POST", logMount + "/keys/checkpoints/trim", body{"min_available_version": 1}, false},
		{"export the log's key", "GET", logMount + "/export/signing-key/checkpoints", nil, false},
		{"back the log's key up", "GET", logMount + "/backup/checkpoints", nil, false},
		{"put another key in its place", "POST", logMount + "/restore/checkpoints", body{"backup": "x", "force": true}, false},
		{"list the keys beside the log's", "LIST", logMount + "/keys", nil, false},
		{"make a key beside the log's", "POST", logMount + "/keys/mine", body{"type": "ed25519"}, false},
		{"sign by a key beside the log's", "POST", logMount + "/sign/other", body{"input": dek, "key_version": 1}, false},
		{"make a key by encrypting there", "POST", logMount + "/encrypt/mine", body{"plaintext": dek}, false},
		{"remove the log's engine", "DELETE", "sys/mounts/" + logMount, nil, false},
		{"write the policy of the log", "PUT", "sys/policies/acl/portcullis-log", body{"policy": otherPolicy}, false},
		{"make a secret ID of the log's", "POST", "auth/approle/role/portcullis-log/secret-id", body{}, false},
	}
	// What none but the log's may.
	signing := []try{
		{"sign as the log", "POST", logMount + "/sign/checkpoints", body{"input": dek, "key_version": 1}, false},
		{"read the log's public key", "GET", logMount + "/keys/checkpoints", nil, false},
	}

	tables := []struct {
		name, token string
		tries       []try
	}{
		{"capture", login(t, "capture"), []try{
			{"make a key and wrap", "POST", "portcullis/encrypt/" + fresh(), body{"plaintext": dek}, true},
			{"open", "POST", "portcullis/decrypt/" + key, body{"ciphertext": wrapped}, false},
			{"make an RSA key", "POST", "portcullis/encrypt/" + fresh(), body{"plaintext": dek, "type": "rsa-4096"}, false},
			{"make a derived key", "POST", "portcullis/encrypt/" + fresh(), body{"plaintext": dek, "derived": true, "context": "eA=="}, false},
			{"make a convergent key", "POST", "portcullis/encrypt/" + fresh(), body{"plaintext": dek, "convergent_encryption": true}, false},
			{"make a key with associated data", "POST", "portcullis/encrypt/" + fresh(), body{"plaintext": dek, "associated_data": "eA=="}, false},
			{"wrap many at once", "POST", "portcullis/encrypt/" + fresh(), body{"batch_input": []body{{"plaintext": dek}}}, false},
			{"rewrap", "POST", "portcullis/rewrap/" + key, body{"ciphertext": wrapped}, false},
			{"read a key's facts", "GET", "portcullis/keys/" + key, nil, false},
			{"list keys", "LIST", "portcullis/keys", nil, false},
			{"rotate", "POST", "portcullis/keys/" + key + "/rotate", nil, false},
			{"delete a key", "DELETE", "portcullis/keys/" + key, nil, false},
			{"write a fence", "PUT", "sys/policies/acl/" + fence, body{"policy": otherPolicy}, false},
			{"mint", "POST", mintPath, mint(nil), false},
			{"revoke a token", "POST", "auth/token/revoke-accessor", body{"accessor": operator.Auth.Accessor}, false},
			{"look an accessor up", "POST", "auth/token/lookup-accessor", body{"accessor": operator.Auth.Accessor}, false},
			{"end all grant tokens", "PUT", "sys/leases/revoke-prefix/auth/token/create/portcullis-grant", body{"sync": true}, false},
			{"disable a contractor", "POST", with(ent.Data.ID), body{"disabled": true}, false},
		}},
		{"grants", login(t, "grants"), []try{
			{"mint for a fence that stands", "POST", mintPath, mint(nil), true},
			{"mint a token of so many uses", "POST", mintPath, mint(body{"num_uses": 3}), true},
			{"look an accessor up", "POST", "auth/token/lookup-accessor", body{"accessor": operator.Auth.Accessor}, true},
			{"look a token up by the accessor's path", "POST", "auth/token/lookup-accessor", body{"accessor": operator.Auth.Accessor, "token": victim}, false},
			{"revoke by accessor", "POST", "auth/token/revoke-accessor", body{"accessor": "unknown"}, true},
			{"open", "POST", "portcullis/decrypt/" + key, body{"ciphertext": wrapped}, false},
			{"make a key", "POST", "portcullis/encrypt/" + fresh(), body{"plaintext": dek}, false},
			{"rewrap", "POST", "portcullis/rewrap/" + key, body{"ciphertext": wrapped}, false},
			{"list keys", "LIST", "portcullis/keys", nil, false},
			{"delete a key", "DELETE", "portcullis/keys/" + key, nil, false},
			{"write a fence", "PUT", "sys/policies/acl/" + fence, body{"policy": otherPolicy}, false},
			{"read a fence", "GET", "sys/policies/acl/" + fence, nil, false},
			{"list fences", "LIST", "sys/policies/acl", nil, false},
			{"mint without alias", "POST", mintPath, mint(body{"entity_alias": nil}), false},
			{"mint with an empty alias", "POST", mintPath, mint(body{"entity_alias": ""}), false},
			{"mint with commas for an alias", "POST", mintPath, mint(body{"entity_alias": ","}), false},
			{"mint with another alias", "POST", mintPath, mint(body{"entity_alias": "operator"}), false},
			{"mint with two aliases", "POST", mintPath, mint(body{"entity_alias": []string{"portcullis-c-power-co-1", "operator"}}), false},
			{"mint without end", "POST", mintPath, mint(body{"explicit_max_ttl": nil}), false},
			{"mint with an end of 0", "POST", mintPath, mint(body{"explicit_max_ttl": "0"}), false},
			{"mint with an empty end", "POST", mintPath, mint(body{"explicit_max_ttl": ""}), false},
			{"mint without policies", "POST", mintPath, mint(body{"policies": nil}), false},
			{"mint with root", "POST", mintPath, mint(body{"policies": []string{"root"}}), false},
			{"mint with the default policy", "POST", mintPath, mint(body{"policies": []string{fence, "default"}}), false},
			{"mint with its own policy", "POST", mintPath, mint(body{"policies": []string{hcvault.GrantsRole}}), false},
			{"mint with the admin's policy", "POST", mintPath, mint(body{"policies": []string{fence, hcvault.AdminRole}}), false},
			{"mint a renewable token", "POST", mintPath, mint(body{"renewable": true}), false},
			{"mint a batch token", "POST", mintPath, mint(body{"type": "batch"}), false},
			{"mint a periodic token", "POST", mintPath, mint(body{"period": "1h"}), false},
			{"mint a token of its choice", "POST", mintPath, mint(body{"id": "chosen"}), false},
			{"mint a child", "POST", mintPath, mint(body{"no_parent": false}), false},
			{"mint with less than no uses", "POST", mintPath, mint(body{"num_uses": -1}), false},
			{"revoke by token", "POST", "auth/token/revoke", body{"token": victim}, false},
			{"look a token up", "POST", "auth/token/lookup", body{"token": victim}, false},
			{"find an entity", "POST", "identity/lookup/entity", body{"alias_name": "portcullis-c-power-co-1", "alias_mount_accessor": mount.Data.Accessor}, false},
			{"disable a contractor", "POST", with(ent.Data.ID), body{"disabled": true}, false},
			{"end all grant tokens", "PUT", "sys/leases/revoke-prefix/auth/token/create/portcullis-grant", body{"sync": true}, false},
		}},
		{"grant token", victim, []try{
			{"open in scope", "POST", "portcullis/decrypt/" + key, body{"ciphertext": wrapped}, true},
			{"open another day", "POST", "portcullis/decrypt/" + beside["day"][0], body{"ciphertext": beside["day"][1]}, false},
			{"open another site", "POST", "portcullis/decrypt/" + beside["site"][0], body{"ciphertext": beside["site"][1]}, false},
			{"open another modality", "POST", "portcullis/decrypt/" + beside["modality"][0], body{"ciphertext": beside["modality"][1]}, false},
			{"open with other parameters", "POST", "portcullis/decrypt/" + key, body{"ciphertext": wrapped, "context": ""}, false},
			{"look an accessor up", "POST", "auth/token/lookup-accessor", body{"accessor": operator.Auth.Accessor}, false},
			{"make a key in scope", "POST", "portcullis/encrypt/" + fresh(), body{"plaintext": dek}, false},
			{"rewrap in scope", "POST", "portcullis/rewrap/" + key, body{"ciphertext": wrapped}, false},
			{"read a key's facts", "GET", "portcullis/keys/" + key, nil, false},
			{"list keys", "LIST", "portcullis/keys", nil, false},
			{"mint", "POST", mintPath, mint(nil), false},
			{"write its fence", "PUT", "sys/policies/acl/" + fence, body{"policy": otherPolicy}, false},
			{"read its fence", "GET", "sys/policies/acl/" + fence, nil, false},
			{"revoke by accessor", "POST", "auth/token/revoke-accessor", body{"accessor": operator.Auth.Accessor}, false},
			{"revoke itself", "POST", "auth/token/revoke-self", body{}, false},
			{"end all grant tokens", "PUT", "sys/leases/revoke-prefix/auth/token/create/portcullis-grant", body{"sync": true}, false},
			{"wrap an answer", "POST", "sys/wrapping/wrap", body{"x": "y"}, false},
			{"ask what it may", "POST", "sys/capabilities-self", body{"path": "portcullis/decrypt/" + key}, false},
		}},
		{"admin", login(t, "admin"), []try{
			{"write a fence", "PUT", "sys/policies/acl/portcullis-grant-power", body{"policy": `path "portcullis/decrypt/power.face.2019*" { capabilities = ["update"] }`}, true},
			{"read a fence", "GET", "sys/policies/acl/portcullis-grant-power", nil, true},
			{"delete a fence", "DELETE", "sys/policies/acl/portcullis-grant-power", nil, true},
			{"list fences", "LIST", "sys/policies/acl", nil, true},
			{"list keys", "LIST", "portcullis/keys", nil, true},
			{"read a key's facts", "GET", "portcullis/keys/" + key, nil, true},
			{"rewrap", "POST", "portcullis/rewrap/" + key, body{"ciphertext": wrapped}, true},
			{"rotate", "POST", "portcullis/keys/" + doomed + "/rotate", nil, true},
			{"raise the minimum", "POST", "portcullis/keys/" + doomed + "/config", body{"min_decryption_version": 2, "min_encryption_version": 2}, true},
			{"trim", "POST", "portcullis/keys/" + doomed + "/trim", body{"min_available_version": 2}, true},
			{"allow deletion", "POST", "portcullis/keys/" + doomed + "/config", body{"deletion_allowed": true}, true},
			{"delete a key", "DELETE", "portcullis/keys/" + doomed, nil, true},
			{"open", "POST", "portcullis/decrypt/" + key, body{"ciphertext": wrapped}, false},
			{"make a key by wrapping", "POST", "portcullis/encrypt/" + fresh(), body{"plaintext": dek}, false},
			{"rewrap many at once", "POST", "portcullis/rewrap/" + key, body{"batch_input": []body{{"ciphertext": wrapped}}}, false},
			{"rotate by itself later", "POST", "portcullis/keys/" + key + "/config", body{"auto_rotate_period": "1h"}, false},
			{"mint", "POST", mintPath, mint(nil), false},
			{"revoke a token", "POST", "auth/token/revoke-accessor", body{"accessor": operator.Auth.Accessor}, false},
			{"look an accessor up", "POST", "auth/token/lookup-accessor", body{"accessor": operator.Auth.Accessor}, false},
			{"write another auth mount", "POST", "sys/auth/token/tune", body{"max_lease_ttl": "1s"}, false},
			{"remove the token mount", "DELETE", "sys/auth/token", nil, false},
			{"find a contractor", "POST", "identity/lookup/entity", body{"alias_name": "portcullis-c-power-co-1", "alias_mount_accessor": mount.Data.Accessor}, true},
			{"find another entity", "POST", "identity/lookup/entity", body{"alias_name": "operator", "alias_mount_accessor": mount.Data.Accessor}, false},
			{"find an entity by ID", "POST", "identity/lookup/entity", body{"id": ent.Data.ID}, false},
			{"disable a contractor", "POST", with(ent.Data.ID), body{"disabled": true}, true},
			{"end all grant tokens some time later", "PUT", "sys/leases/revoke-prefix/auth/token/create/portcullis-grant", body{"sync": false}, false},
		}},
		{"log", login(t, "log"), []try{
			{"sign", "POST", logMount + "/sign/checkpoints", body{"input": dek, "key_version": 1}, true},
			{"read the public key", "GET", logMount + "/keys/checkpoints", nil, true},
			{"sign by whatever version", "POST", logMount + "/sign/checkpoints", body{"input": dek}, false},
			{"sign many at once", "POST", logMount + "/sign/checkpoints", body{"input": dek, "key_version": 1, "batch_input": []body{{"input": dek}}}, false},
			{"sign in another form", "POST", logMount + "/sign/checkpoints", body{"input": dek, "key_version": 1, "prehashed": true}, false},
			{"sign with a context", "POST", logMount + "/sign/checkpoints", body{"input": dek, "key_version": 1, "context": "eA=="}, false},
			{"sign by another hash", "POST", logMount + "/sign/checkpoints/sha2-512", body{"input": dek, "key_version": 1}, false},
			{"sign by a key of its own", "POST", logMount + "/sign/mine", body{"input": dek, "key_version": 1}, false},
			{"sign by a record's key", "POST", "portcullis/sign/" + key, body{"input": dek, "key_version": 1}, false},
			{"verify by Vault", "POST", logMount + "/verify/checkpoints", body{"input": dek, "signature": "vault:v1:eA=="}, false},
			{"read another key", "GET", logMount + "/keys/other", nil, false},
			{"export a key that may be", "GET", logMount + "/export/signing-key/lent", nil, false},
			{"encrypt by the log's key", "POST", logMount + "/encrypt/checkpoints", body{"plaintext": dek}, false},
			{"decrypt by the log's key", "POST", logMount + "/decrypt/checkpoints", body{"ciphertext": wrapped}, false},
			{"write the log's key anew", "POST", logMount + "/keys/checkpoints", body{"type": "ed25519"}, false},
			{"open", "POST", "portcullis/decrypt/" + key, body{"ciphertext": wrapped}, false},
			{"make a record key", "POST", "portcullis/encrypt/" + fresh(), body{"plaintext": dek}, false},
			{"rewrap", "POST", "portcullis/rewrap/" + key, body{"ciphertext": wrapped}, false},
			{"read a record key's facts", "GET", "portcullis/keys/" + key, nil, false},
			{"list record keys", "LIST", "portcullis/keys", nil, false},
			{"rotate a record key", "POST", "portcullis/keys/" + key + "/rotate", nil, false},
			{"delete a record key", "DELETE", "portcullis/keys/" + key, nil, false},
			{"write a fence", "PUT", "sys/policies/acl/" + fence, body{"policy": otherPolicy}, false},
			{"read a fence", "GET", "sys/policies/acl/" + fence, nil, false},
			{"list fences", "LIST", "sys/policies/acl", nil, false},
			{"mint", "POST", mintPath, mint(nil), false},
			{"revoke a token", "POST", "auth/token/revoke-accessor", body{"accessor": operator.Auth.Accessor}, false},
			{"look an accessor up", "POST", "auth/token/lookup-accessor", body{"accessor": operator.Auth.Accessor}, false},
			{"find a contractor", "POST", "identity/lookup/entity", body{"alias_name": "portcullis-c-power-co-1", "alias_mount_accessor": mount.Data.Accessor}, false},
			{"disable a contractor", "POST", with(ent.Data.ID), body{"disabled": true}, false},
			{"end all grant tokens", "PUT", "sys/leases/revoke-prefix/auth/token/create/portcullis-grant", body{"sync": true}, false},
		}},
	}
	for _, who := range tables {
		t.Run(who.name, func(t *testing.T) {
			tries := append(who.tries, nobody...)
			if who.name != "log" {
				tries = append(tries, signing...)
			}
			for _, tr := range tries {
				err := call(t, who.token, tr.method, tr.path, tr.in, nil)
				if tr.may {
					if err != nil {
						t.Errorf("%s may %s: %v", who.name, tr.what, err)
					}
					continue
				}
				if st := transport.Status(err); st != 403 && !(st == 400 && strings.HasPrefix(tr.what, "mint with")) {
					t.Errorf("%s: %s may not, and Vault answers: %v", who.name, tr.what, err)
				}
			}
		})
	}
	// After all that: nobody has enabled the contractor again, and the operator's token lives.
	if err := call(t, victim, "POST", "portcullis/decrypt/"+key, body{"ciphertext": wrapped}, nil); transport.Status(err) != 403 {
		t.Errorf("the contractor that the admin disabled opens: %v", err)
	}
	// Ending all grant tokens is the admin's, and ends no others.
	if err := call(t, login(t, "admin"), "PUT", "sys/leases/revoke-prefix/auth/token/create/portcullis-grant", body{"sync": true}, nil); err != nil {
		t.Errorf("admin may end all grant tokens: %v", err)
	}
	if err := call(t, operator.Auth.ClientToken, "GET", "auth/token/lookup-self", nil, nil); err != nil {
		t.Errorf("the operator's token is gone: %v", err)
	}
}

// Vault takes a string with a comma for the name of one policy, which nobody has. Were it to split it, the role's
// glob would see the first part alone.
func TestMintWithCommaInPolicy(t *testing.T) {
	var got struct {
		Auth struct {
			ClientToken string   `json:"client_token"`
			Policies    []string `json:"policies"`
		}
	}
	in := body{
		"policies": hcvault.FencePrefix + "x," + hcvault.AdminRole, "entity_alias": "portcullis-c-comma-1", "explicit_max_ttl": "60s",
	}
	if err := call(t, login(t, "grants"), "POST", "auth/token/create/portcullis-grant", in, &got); err != nil {
		return // a Vault that refuses it is as good
	}
	if len(got.Auth.Policies) != 1 {
		t.Errorf("policies %q", got.Auth.Policies)
	}
	if err := call(t, got.Auth.ClientToken, "LIST", "portcullis/keys", nil, nil); transport.Status(err) != 403 {
		t.Errorf("the token has the admin's rights: %v", err)
	}
}

// TestMintTakesNoOtherParameter tries every parameter that this Vault says it has for a new token. A newer Vault with
// another one is told by this test.
func TestMintTakesNoOtherParameter(t *testing.T) {
	const path = "auth/token/create/" + hcvault.TokenRole
	var specs struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]any `json:"properties"`
			} `json:"schemas"`
		} `json:"components"`
	}
	root(t, "GET", "sys/internal/specs/openapi", nil, &specs)
	allowed := map[string]any{
		"policies": []string{hcvault.FencePrefix + "x"}, "entity_alias": "portcullis-c-params-1", "explicit_max_ttl": "60s",
		"ttl": "60s", "renewable": false, "no_default_policy": true, "num_uses": 3,
	}
	token := login(t, "grants")
	if err := call(t, token, "POST", path, allowed, nil); err != nil {
		t.Fatal(err)
	}
	tried := 0
	for name := range specs.Components.Schemas["TokenCreateAgainstRoleRequest"].Properties {
		if _, ok := allowed[name]; ok {
			continue
		}
		tried++
		for _, value := range []any{"1", 1, true, false, "", nil, map[string]string{"a": "b"}} {
			in := body{name: value}
			for k, v := range allowed {
				in[k] = v
			}
			if err := call(t, token, "POST", path, in, nil); transport.Status(err) != 403 {
				t.Errorf("grants may not mint with %s = %v: %v", name, value, err)
			}
		}
	}
	if tried < 7 { // display_name, id, lease, meta, no_parent, period, type
		t.Errorf("Vault names only %d parameters beside ours", tried)
	}
}
