package vault_test

import (
	"strings"
	"testing"

	"github.com/portcullis/portcullis/vault"
)

func TestRecordOfKey(t *testing.T) {
	id := vault.NewID()
	good := "north-gate-2.face.20190501." + id.String()
	if got, ok := vault.RecordOfKey(good); !ok || got != id {
		t.Errorf("%s gave %s, %v", good, got, ok)
	}
	for _, bad := range []string{
		"", "not-ours", id.String(), good + ".x", "x" + good[strings.Index(good, ".face")+5:], strings.Replace(good, "face", "iris", 1),
		strings.Replace(good, "north-gate-2", "North", 1), strings.Replace(good, "20190501", "2019", 1), strings.ToUpper(good), good[:len(good)-1],
	} {
		if got, ok := vault.RecordOfKey(bad); ok {
			t.Errorf("%q gave %s", bad, got)
		}
	}
}
