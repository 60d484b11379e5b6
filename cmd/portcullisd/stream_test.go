package main

import (
	"testing"
	"time"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

// TestStreamStopsOnceNobodyLooks: a call that sends many images ends when nobody makes sure any
// more that nothing was restored, as a new call is refused.
func TestStreamStopsOnceNobodyLooks(t *testing.T) {
	s := begin(t)
	p := purpose()
	s.admit(p, devOrg)
	s.store(s.as(lane), vault.Plate, 12, 300_000)
	c := s.as(matcher)
	grant, token := s.granted(c, p, 100)
	handles := s.handles(c, grant, token)
	noError(t, s.Close())
	// As while the process that looks has just been stopped.
	s.sql("UPDATE vault_mark SET good_until = 4000000000000000")
	s.cfg.Roles = roleRelease
	s.serve()
	given := 0
	err := s.as(matcher).Fetch(t.Context(), grant, token, handles, func(*pb.Image) error {
		if given++; given == 1 {
			s.sql("UPDATE vault_mark SET good_until = 0, reason = 'LOG_ROLLED_BACK'")
			time.Sleep(2 * checkedFor)
		}
		return nil
	})
	if vault.ReasonOf(err) != vault.ReasonLogRolledBack || given == 0 || given == len(handles) {
		t.Errorf("%d of %d images were given: %v", given, len(handles), err)
	}
}
