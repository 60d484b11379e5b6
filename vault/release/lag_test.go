package release_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/portcullis/portcullis/internal/store"
	"github.com/portcullis/portcullis/internal/tlog"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/release"
)

// treeLedger is the house's store as the leader of its log sees it.
type treeLedger struct{ *scene }

func (l treeLedger) View(ctx context.Context, fn func(tlog.Tx) error) error {
	return l.Store.View(ctx, func(tx *store.Tx) error { return fn(tx) })
}

func (l treeLedger) Update(ctx context.Context, fn func(tlog.Tx) error) error {
	_, err := l.Store.Update(ctx, func(tx *store.Tx) error { return fn(tx) })
	return err
}

// TestNothingLeavesWhenTheLogIsBehind: images and listings stop when the log's tree does not
// keep up, and go on once it does. Each comes with the newest checkpoint.
func TestNothingLeavesWhenTheLogIsBehind(t *testing.T) {
	s := open(t, 2)
	s.Release.MaxLag = release.DefaultMaxLag
	key := filepath.Join(t.TempDir(), "key")
	s.NoError(tlog.MakeKeyFile(key))
	signer, err := tlog.LoadKeyFile(key, "example.org/portcullis")
	s.NoError(err)
	leader := &tlog.Leader{Ledger: treeLedger{s}, Signer: signer, Log: slog.New(slog.DiscardHandler), Clock: s.Clock.Now}
	grow := func() tlog.Checkpoint {
		t.Helper()
		for more := true; more; {
			more, err = leader.Step(t.Context())
			s.NoError(err)
		}
		size := int64(len(s.Events()))
		signed, err := tlog.Reader{Ledger: treeLedger{s}}.Checkpoint(t.Context())
		s.NoError(err)
		c, err := tlog.Open(signed, signer.Verifier())
		s.NoError(err)
		if c.Size != size {
			t.Fatalf("the tree has %d of %d", c.Size, size)
		}
		return c
	}
	list := func() (release.Page, error) {
		return s.Release.List(t.Context(), s.acme, s.token, s.grant.Grant, "", 0)
	}
	behind := func() {
		t.Helper()
		before := len(s.Events())
		sent, err := s.fetch(s.records[0])
		s.Refused(err, vault.Unavailable, vault.ReasonLogBehind)
		_, lerr := list()
		s.Refused(lerr, vault.Unavailable, vault.ReasonLogBehind)
		if len(sent) != 0 || len(s.Events()) != before || s.Grant(s.grant.Grant).Released != 0 {
			t.Error("something was sent, or counted")
		}
	}
	s.Clock.Advance(time.Minute)
	behind()
	c := grow()
	sent, err := s.fetch(s.records[0])
	s.NoError(err)
	with, err := tlog.Open(sent[0].Checkpoint, signer.Verifier())
	if err != nil || with != c {
		t.Errorf("the image comes with %+v, %v", with, err)
	}
	page, err := list()
	s.NoError(err)
	if with, err := tlog.Open(page.Checkpoint, signer.Verifier()); err != nil || with != c || len(page.Views) != 2 {
		t.Errorf("the page comes with %+v, %v", with, err)
	}
	// The release and the listing wait now. As long as that is short, images leave.
	s.Clock.Advance(release.DefaultMaxLag)
	_, err = s.fetch(s.records[1])
	s.NoError(err)
	s.Clock.Advance(time.Millisecond)
	sent, err = s.fetch(s.records[1])
	s.Refused(err, vault.Unavailable, vault.ReasonLogBehind)
	if len(sent) != 0 {
		t.Error("it was sent")
	}
	grow()
	_, err = s.fetch(s.records[1])
	s.NoError(err)
}
