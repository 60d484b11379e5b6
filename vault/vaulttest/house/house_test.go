package house_test

import (
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

// TestHousesAreApart: each has a database of its own, empty at first, which a restart keeps.
func TestHousesAreApart(t *testing.T) {
	one, other := house.New(t), house.New(t)
	one.Record("north", vault.Face, time.Minute)
	if got := other.Ask("SELECT COUNT(*) FROM records") + other.Ask("SELECT next FROM log_counter"); got != "00" {
		t.Errorf("another house has %s records and events", got)
	}
	one.Restart()
	if got := one.Ask("SELECT COUNT(*) FROM records"); got != "1" || len(one.Events()) != 1 {
		t.Errorf("%s records after a restart", got)
	}
}
