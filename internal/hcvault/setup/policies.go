package setup

import (
	"strings"

	"github.com/portcullis/portcullis/internal/hcvault"
)

// The policies are HCL and not its JSON form, in which Vault 1.21.0 loses booleans: [true] would allow any value.
//
// An allowed list of values alone does not hold either: Vault takes "" for an empty list, of which every element is
// allowed. So each such list is joined by denied_parameters with "". The tests try both against a real Vault.

// capturePolicy makes keys and wraps by them. Encrypting by a key that exists would need update. No parameter but
// plaintext: type and exportable would make keys of other kinds.
const capturePolicy = `
path "MOUNT/encrypt/*" {
  capabilities       = ["create"]
  allowed_parameters = { "plaintext" = [] }
}
`

// grantsPolicy mints grant tokens by the token role, which bounds policies, aliases and life, looks them up and ends
// them. How often a token may be used (num_uses) it is free to say: what it may leave out needs no bound.
const grantsPolicy = `
path "auth/token/create/portcullis-grant" {
  capabilities        = ["update"]
  required_parameters = ["policies", "entity_alias", "explicit_max_ttl"]
  allowed_parameters  = {
    "policies"          = []
    "ttl"               = []
    "explicit_max_ttl"  = []
    "entity_alias"      = ["portcullis-c-*"]
    "renewable"         = [false]
    "no_default_policy" = [true]
    "num_uses"          = []
  }
  denied_parameters = {
    "policies"          = [""]
    "entity_alias"      = [""]
    "explicit_max_ttl"  = ["", "0", 0]
    "renewable"         = [""]
    "no_default_policy" = [""]
  }
}
path "auth/token/revoke-accessor" {
  capabilities       = ["update"]
  allowed_parameters = { "accessor" = [] }
}
path "auth/token/lookup-accessor" {
  capabilities       = ["update"]
  allowed_parameters = { "accessor" = [] }
}
`

// adminPolicy writes fences, works on keys, disables contractors, and ends all grant tokens at once: after a restore of
// Vault some may be back that had ended. That one path wants sudo at Vault. Reading sys/auth/token needs sudo at Vault; it
// tells the token mount's accessor, without which no entity is found by its alias.
const adminPolicy = `
path "sys/policies/acl" {
  capabilities = ["list"]
}
path "sys/policies/acl/portcullis-grant-*" {
  capabilities       = ["create", "update", "read", "delete"]
  allowed_parameters = { "policy" = [] }
}
path "sys/leases/revoke-prefix/auth/token/create/portcullis-grant" {
  capabilities       = ["update", "sudo"]
  allowed_parameters = { "sync" = [true] }
  denied_parameters  = { "sync" = ["", false] }
}
path "MOUNT/keys" {
  capabilities = ["list"]
}
path "MOUNT/keys/+" {
  capabilities = ["read", "delete"]
}
path "MOUNT/keys/+/rotate" {
  capabilities      = ["update"]
  denied_parameters = { "*" = [] }
}
path "MOUNT/keys/+/config" {
  capabilities       = ["update"]
  allowed_parameters = {
    "min_decryption_version" = []
    "min_encryption_version" = []
    "deletion_allowed"       = []
  }
}
path "MOUNT/keys/+/trim" {
  capabilities       = ["update"]
  allowed_parameters = { "min_available_version" = [] }
}
path "MOUNT/rewrap/+" {
  capabilities       = ["update"]
  allowed_parameters = { "ciphertext" = [] }
}
path "sys/auth/token" {
  capabilities = ["read", "sudo"]
}
path "identity/lookup/entity" {
  capabilities        = ["update"]
  required_parameters = ["alias_name", "alias_mount_accessor"]
  allowed_parameters  = { "alias_name" = ["portcullis-c-*"], "alias_mount_accessor" = [] }
  denied_parameters   = { "alias_name" = [""] }
}
path "identity/entity/id/+" {
  capabilities        = ["update"]
  required_parameters = ["disabled"]
  allowed_parameters  = { "disabled" = [true] }
  denied_parameters   = { "disabled" = ["", false] }
}
`

// logPolicy signs the log's checkpoints, by that one key, and reads its public half. Nothing else of signing: a batch,
// another form of the signature, or a context would be asked for by other parameters or at a longer path.
const logPolicy = `
path "LOGMOUNT/sign/LOGKEY" {
  capabilities        = ["update"]
  required_parameters = ["input", "key_version"]
  allowed_parameters  = { "input" = [], "key_version" = [] }
}
path "LOGMOUNT/keys/LOGKEY" {
  capabilities = ["read"]
}
`

// role is a Vault credential: an AppRole and a policy of the same name, and the file in OutDir.
type role struct {
	name, file, policy string
}

func roles(mount string) []role {
	names := strings.NewReplacer("LOGMOUNT", hcvault.LogMount(mount), "LOGKEY", hcvault.LogKeyName, "MOUNT", mount)
	at := func(policy string) string { return strings.TrimSpace(names.Replace(policy)) + "\n" }
	return []role{
		{hcvault.CaptureRole, "capture", at(capturePolicy)},
		{hcvault.GrantsRole, "grants", at(grantsPolicy)},
		{hcvault.AdminRole, "admin", at(adminPolicy)},
		{hcvault.LogRole, "log", at(logPolicy)},
	}
}
