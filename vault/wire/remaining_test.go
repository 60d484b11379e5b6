package wire_test

import (
	"testing"
	"time"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

// TestGrantShowsWhatIsLeft: while it lives, the rest of its quota and time by the service's
// clock; once it is over, nothing, whatever its terms were.
func TestGrantShowsWhatIsLeft(t *testing.T) {
	for _, c := range []struct {
		state    vault.GrantState
		released int64
		left     time.Duration
		records  int64
		rest     time.Duration
	}{
		{vault.GrantPending, 0, time.Hour, 5, time.Hour},
		{vault.GrantActive, 3, time.Microsecond, 2, time.Microsecond},
		{vault.GrantActive, 5, time.Hour, 0, time.Hour},
		{vault.GrantActive, 6, time.Hour, 0, time.Hour}, // never less than nothing
		{vault.GrantActive, 3, 0, 0, 0},
		{vault.GrantApproved, 0, -time.Hour, 0, 0},
		{vault.GrantRevoked, 3, time.Hour, 0, 0},
		{vault.GrantRetired, 3, time.Hour, 0, 0},
		{vault.GrantDenied, 0, time.Hour, 0, 0},
	} {
		g := vault.Grant{State: c.state, RequestedAt: now.Add(-time.Hour), Released: c.released, Terms: vault.Terms{MaxRecords: 5, Ends: now.Add(c.left)}}
		m := wire.Grant(g, now)
		if m.RecordsRemaining != c.records || m.TimeRemaining.AsDuration() != c.rest || !m.ReadTime.AsTime().Equal(now) {
			t.Errorf("%+v shows %d records and %s left, as of %s", c, m.RecordsRemaining, m.TimeRemaining.AsDuration(), m.ReadTime.AsTime())
		}
		if over := m.State != pb.Grant_STATE_PENDING && m.State != pb.Grant_STATE_APPROVED && m.State != pb.Grant_STATE_ACTIVE; over && m.TimeRemaining == nil {
			t.Error("an ended grant does not say that no time is left")
		}
	}
}
