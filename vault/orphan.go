package vault

import (
	"strings"
	"time"
)

// OrphanKind says what an orphan is.
type OrphanKind string

// The kinds of orphans.
const (
	OrphanBlob OrphanKind = "blob"
	OrphanKey  OrphanKind = "key"
)

// Orphan is ciphertext, or a key in HashiCorp Vault, that no record names.
type Orphan struct {
	Kind   OrphanKind
	Name   string // of a blob its record's ID, of a key its name
	Record ID     // that it would belong to
	Since  time.Time
}

// RecordOfKey gives the record ID that a key's name ends in; ok says whether it ends in one.
func RecordOfKey(keyName string) (id ID, ok bool) {
	parts := strings.Split(keyName, ".")
	if len(parts) != 4 || CheckName("site", parts[0]) != nil || CheckModality("modality", Modality(parts[1])) != nil || len(parts[2]) != 8 {
		return ID{}, false
	}
	id, err := ParseID("key_name", parts[3])
	return id, err == nil
}
