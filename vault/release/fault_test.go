package release_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/grants"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

// TestNothingLeaves: each thing that can go wrong after the authorization. Nothing is sent,
// and the log takes the release back.
func TestNothingLeaves(t *testing.T) {
	away := vault.E(vault.Unavailable, vault.ReasonVaultUnavailable, "away")
	blobAway := vault.E(vault.Unavailable, vault.ReasonBlobUnavailable, "away")
	for name, c := range map[string]struct {
		kind   vault.Kind
		reason vault.Reason
		fault  func(s *scene)
	}{
		"blob missing": {vault.DataLoss, vault.ReasonDataLoss, func(s *scene) { s.NoError(s.Blobs.Delete(context.Background(), s.records[0].ID)) }},
		"blob away":    {vault.Unavailable, vault.ReasonBlobUnavailable, func(s *scene) { s.Blobs.Fail("Get", 1, blobAway) }},
		"blob flipped": {vault.DataLoss, vault.ReasonDataLoss, func(s *scene) {
			s.Blobs.Tamper(s.records[0].ID, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		}},
		"blob cut": {vault.DataLoss, vault.ReasonDataLoss, func(s *scene) {
			s.Blobs.Tamper(s.records[0].ID, func(b []byte) []byte { return b[:len(b)-1] })
		}},
		"blob empty": {vault.DataLoss, vault.ReasonDataLoss, func(s *scene) {
			s.Blobs.Tamper(s.records[0].ID, func([]byte) []byte { return nil })
		}},
		"another's blob": {vault.DataLoss, vault.ReasonDataLoss, func(s *scene) {
			other, err := s.Blobs.Get(context.Background(), s.records[1].ID)
			s.NoError(err)
			s.Blobs.Tamper(s.records[0].ID, func([]byte) []byte { return other })
		}},
		"Vault away":    {vault.Unavailable, vault.ReasonVaultUnavailable, func(s *scene) { s.Vault.Fail("Unwrap", 1, away) }},
		"Vault refuses": {vault.Denied, vault.ReasonKeyRefused, func(s *scene) { s.NoError(s.Vault.DeleteFence(context.Background(), s.grant.Grant)) }},
		"key revoked past us": {vault.Denied, vault.ReasonKeyRevoked, func(s *scene) {
			s.NoError(s.Vault.RevokeKey(context.Background(), s.records[0].KeyName()))
		}},
		"key gone": {vault.Denied, vault.ReasonKeyDestroyed, func(s *scene) {
			s.NoError(s.Vault.DestroyKey(context.Background(), s.records[0].KeyName()))
		}},
		"gate closed": {vault.State, vault.ReasonAccessEnded, func(s *scene) {
			s.Once("Unwrap", func() {
				_, _, err := s.Grants.Revoke(context.Background(), s.Alice().Caller, s.grant.Grant, "")
				s.Check(err)
			})
			s.Grants.Fences = deaf{s.Vault} // so that Vault's own refusal does not hide the gate's
			s.Grants.Tokens = nil
		}},
		"too slow": {vault.Unavailable, vault.ReasonAccessEnded, func(s *scene) {
			s.Once("Unwrap", func() { s.Clock.Advance(3 * time.Minute) })
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, 2)
			c.fault(s)
			sent, err := s.fetch(s.records[0])
			s.Refused(err, c.kind, c.reason)
			if len(sent) != 0 {
				t.Error("it was sent")
			}
			released, unsent := s.Events(vault.EventRecordReleased), s.Events(vault.EventReleaseUnsent)
			if len(released) != 1 || len(unsent) != 1 {
				t.Fatalf("%d releases, %d taken back", len(released), len(unsent))
			}
			e := unsent[0]
			if e.Release != released[0].Index || e.Index <= e.Release || e.Record != released[0].Record || e.Grant != released[0].Grant || e.Reason != c.reason {
				t.Errorf("%+v takes back %+v", e, released[0])
			}
		})
	}
}

// TestUsesSpent: Vault refuses a strict grant's token that it has counted to the end as it refuses any
// other. The caller is told that this may be it, and the next activation says so.
func TestUsesSpent(t *testing.T) {
	s := open(t, 1)
	s.acme = s.Caller("contractor/beta/tuning") // acme may have both halves under the other purpose
	p := house.Tuning()
	p.Name, p.Strict = "counted", true
	s.Decide(breach.Action{Purpose: &p})
	s.grant, s.token = s.Active(s.acme, func(r *grants.Request) { r.Purpose, r.MaxRecords = p.Name, 1 })
	_, err := s.fetch(s.records[0])
	s.NoError(err)
	_, err = s.fetch(s.records[0]) // again costs no quota, but a use
	s.Refused(err, vault.Denied, vault.ReasonKeyRefused)
	if e := new(vault.Error); !errors.As(err, &e) || !strings.Contains(e.Message, "uses") {
		t.Errorf("the caller is told %q", e.Message)
	}
	if e := s.Last(); e.Type != vault.EventReleaseUnsent || e.Reason != vault.ReasonKeyRefused {
		t.Errorf("the log ends in %+v", e)
	}
	_, _, err = s.Grants.Activate(t.Context(), s.acme, s.grant.Grant)
	s.Refused(err, vault.State, vault.ReasonUsesSpent)
}

// deaf is a Vault that is told of fences and does nothing.
type deaf struct{ grants.Fences }

func (deaf) WriteFence(context.Context, vault.ID, vault.Fence) error { return nil }
func (deaf) CloseFence(context.Context, vault.ID) error              { return nil }
func (deaf) DeleteFence(context.Context, vault.ID) error             { return nil }

// TestSendFails: nobody knows how much of it left, so it counts as having left.
func TestSendFails(t *testing.T) {
	s := open(t, 1)
	broken := errors.New("connection reset")
	err := s.Release.Fetch(t.Context(), s.acme, s.token, s.grant.Grant, s.handle(s.records[0]), func(vault.Image) error { return broken })
	if !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if e := s.Last(); e.Type != vault.EventRecordReleased || len(s.Events(vault.EventReleaseUnsent)) != 0 {
		t.Errorf("the log ends in %+v", e)
	}
	// Neither it nor a panic keeps its place at the gate.
	func() {
		defer func() { _ = recover() }()
		s.Release.Fetch(t.Context(), s.acme, s.token, s.grant.Grant, s.handle(s.records[0]), func(vault.Image) error { panic("send") })
	}()
	_, b, err := s.Grants.Revoke(t.Context(), s.Alice().Caller, s.grant.Grant, "")
	s.NoError(err)
	if b.Sends != 0 {
		t.Errorf("%d sends under way", b.Sends)
	}
}

// TestCallerLeaves: the release is taken back though its caller has hung up.
func TestCallerLeaves(t *testing.T) {
	s := open(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	s.Once("Unwrap", cancel)
	err := s.Release.Fetch(ctx, s.acme, s.token, s.grant.Grant, s.handle(s.records[0]), func(vault.Image) error {
		t.Error("it was sent")
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if e := s.Last(); e.Type != vault.EventReleaseUnsent {
		t.Errorf("the log ends in %+v", e)
	}
}

// TestNoEventNoImage: what can not be recorded is not opened.
func TestNoEventNoImage(t *testing.T) {
	s := open(t, 1)
	s.CrashAfter(0)
	sent, err := s.fetch(s.records[0])
	s.Refused(err, vault.Unavailable, vault.ReasonShuttingDown)
	if len(sent) != 0 || s.Vault.Calls("Unwrap") != 0 || s.Blobs.Calls("Get") != 0 {
		t.Errorf("%d sent, %d unwrapped", len(sent), s.Vault.Calls("Unwrap"))
	}
}

// TestUnsentFails: if the release can not be taken back either, it counts as having left.
func TestUnsentFails(t *testing.T) {
	s := open(t, 1)
	s.Once("Unwrap", func() { s.Store.Close() })
	s.Blobs.Fail("Get", 1, vault.E(vault.Unavailable, vault.ReasonBlobUnavailable, "away"))
	sent, err := s.fetch(s.records[0])
	s.Refused(err, vault.Unavailable, vault.ReasonBlobUnavailable)
	s.Restart()
	if len(sent) != 0 || s.Last().Type != vault.EventRecordReleased {
		t.Errorf("%d sent, the log ends in %+v", len(sent), s.Last())
	}
}
