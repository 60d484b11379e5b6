package release_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/portcullis/portcullis/internal/imaging"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/grants"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scene is a house with some records and an active grant on them.
type scene struct {
	*house.House
	acme    vault.Caller
	grant   vault.Grant
	token   vault.Token
	records []vault.Record
}

func open(t *testing.T, records int, change ...func(*grants.Request)) *scene {
	h := house.New(t)
	h.Open()
	s := &scene{House: h, records: h.Records(records), acme: h.Caller("contractor/acme/tuning")}
	s.grant, s.token = h.Active(s.acme, change...)
	h.Trace()
	return s
}

func (s *scene) handle(r vault.Record) vault.Handle { return s.grant.HandleKey.Handle(r.ID) }

// fetch fetches a record and says what was sent.
func (s *scene) fetch(r vault.Record) (sent []vault.Image, err error) {
	err = s.Release.Fetch(context.Background(), s.acme, s.token, s.grant.Grant, s.handle(r), func(img vault.Image) error {
		sent = append(sent, img)
		return nil
	})
	return sent, err
}

// refused shows that a record is not sent, why, and that the log has the refusal.
func (s *scene) refused(r vault.Record, k vault.Kind, reason vault.Reason) {
	s.Helper()
	before := len(s.Events(vault.EventRecordReleased))
	sent, err := s.fetch(r)
	s.Refused(err, k, reason)
	if len(sent) != 0 || len(s.Events(vault.EventRecordReleased)) != before {
		s.Errorf("%d images were sent", len(sent))
	}
	if e := s.Last(); e.Type != vault.EventReleaseRefused || e.Reason != reason || e.Actor != s.acme.ID || e.Grant != s.grant.Grant.String() {
		s.Errorf("the log ends in %+v; want the refusal", e)
	}
}

// ask calls Fetch as somebody else would.
func (s *scene) ask(c vault.Caller, t vault.Token, grant vault.ID, h vault.Handle) error {
	return s.Release.Fetch(context.Background(), c, t, grant, h, func(vault.Image) error {
		s.Error("it was sent")
		return nil
	})
}

func TestFetch(t *testing.T) {
	s := open(t, 0)
	in := s.Shot(vault.Face, time.Minute)
	r, _, err := s.Capture.Store(t.Context(), s.Caller("capture/north/lane-1"), in)
	s.NoError(err)
	clean, err := imaging.Clean(in.Bytes, imaging.Limits{})
	s.NoError(err)
	s.Trace()
	released := func() int { return len(s.Events(vault.EventRecordReleased)) }
	s.Before(func(_ context.Context, op string) {
		if (op == "Unwrap" || op == "Get") && released() != 1 {
			t.Errorf("%s before the release is in the log", op)
		}
	})
	err = s.Release.Fetch(t.Context(), s.acme, s.token, s.grant.Grant, s.handle(r), func(img vault.Image) error {
		if released() != 1 {
			t.Error("sent before the release is in the log")
		}
		if !bytes.Equal(img.Bytes, clean.Bytes) || img.Handle != s.handle(r) || img.Modality != vault.Face || img.ContentType != "image/png" {
			t.Errorf("not the image that was stored: %d bytes, %+v", len(img.Bytes), img.Handle)
		}
		return nil
	})
	s.NoError(err)
	if trace := s.Trace(); len(trace) != 3 || trace[0] != "Update" {
		t.Errorf("order: %s; want the event first", house.String(trace))
	}
	e := s.Last()
	if e.Type != vault.EventRecordReleased || e.Record != r.ID.String() || e.Grant != s.grant.Grant.String() ||
		e.Contractor != "acme" || e.Actor != s.acme.ID || e.Refetch {
		t.Errorf("the event says %+v", e)
	}
	// Again costs no quota, and is told.
	s.Before(nil)
	if sent, err := s.fetch(r); err != nil || len(sent) != 1 {
		t.Errorf("again: %v", err)
	}
	if e := s.Last(); !e.Refetch || s.Grant(s.grant.Grant).Released != 1 {
		t.Errorf("again: %+v, %d of the quota", e, s.Grant(s.grant.Grant).Released)
	}
}
