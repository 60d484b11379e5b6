// Package capture stores images: it checks, cleans, seals and keeps each under a key of
// its own. Nothing in it can open one.
package capture

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/portcullis/portcullis/internal/envelope"
	"github.com/portcullis/portcullis/internal/imaging"
	"github.com/portcullis/portcullis/vault"
)

// Keys makes record keys.
type Keys interface {
	// Wrap makes the transit key of that name and encrypts dek by it, in one round trip.
	// A name that exists is refused. Not repeated by itself: after an error the key may
	// exist, and only a fresh name may be tried.
	Wrap(ctx context.Context, keyName string, dek []byte) (wrapped string, err error)
}

// Blobs keeps ciphertext.
type Blobs interface {
	// Put is durable on return.
	Put(ctx context.Context, id vault.ID, sealed []byte) error
	// Delete is durable on return. What is missing is no error.
	Delete(ctx context.Context, id vault.ID) error
}

// Tx is one transaction on the facts.
type Tx interface {
	Now() time.Time
	// Standing refuses a suspended caller.
	Standing(c vault.Caller) error
	// RecordByRequest gives the record that a device stored under a request ID; NotFound
	// if it stored none.
	RecordByRequest(device string, request vault.ID) (vault.Record, error)
	AddRecord(r vault.Record) error
	Append(e vault.Event) error
}

// Ledger keeps the facts and the log.
type Ledger interface {
	// Update runs fn in one transaction, durable on return. fn may run more than once.
	Update(ctx context.Context, fn func(Tx) error) (last int64, err error)
	// View runs fn on a consistent state. It writes nothing.
	View(ctx context.Context, fn func(Tx) error) error
}

// Window is how far captured_at may lie from the server's time.
type Window struct {
	Ahead  time.Duration // the device's clock may be this much fast
	Behind time.Duration // late uploads may be this old
}

// DefaultWindow allows five minutes ahead and, for devices that were offline, 31 days behind.
var DefaultWindow = Window{Ahead: 5 * time.Minute, Behind: 31 * 24 * time.Hour}

// discardTime is how long a caller waits for ciphertext to be taken away.
const discardTime = 5 * time.Second

// Service stores images. Its methods may be called at once from many goroutines.
type Service struct {
	Ledger Ledger
	Keys   Keys
	Blobs  Blobs
	Limits imaging.Limits
	Window Window
}

// Image is what a capture system sends.
type Image struct {
	RequestID  vault.ID
	Modality   vault.Modality
	Site, Lane string // empty, or the caller's own
	CapturedAt time.Time
	CrossingID vault.ID // may be zero
	Class      string   // retention class; empty for vault.DefaultClass
	Bytes      []byte
}

// Store cleans, seals and keeps an image for the caller. When it returns, the record reads
// back whatever happens. repeated tells that the request ID had been used for it before.
// A crash leaves at worst a key or ciphertext that no record names.
func (s *Service) Store(ctx context.Context, c vault.Caller, in Image) (rec vault.Record, repeated bool, err error) {
	if err := s.check(c, in); err != nil {
		return rec, false, err
	}
	clean, err := imaging.Clean(in.Bytes, s.Limits)
	if err != nil {
		return rec, false, rejected(err)
	}
	rec = vault.Record{
		ID: vault.NewID(), Site: c.Site, Lane: c.Lane, Modality: in.Modality, Class: cmp.Or(in.Class, vault.DefaultClass),
		CapturedAt: vault.Micro(in.CapturedAt), CrossingID: in.CrossingID,
		ContentType: clean.ContentType, Orientation: clean.Orientation, Size: int64(len(clean.Bytes)),
		Device: c.ID, RequestID: in.RequestID, Key: vault.KeyActive,
	}
	var known vault.Record
	err = s.Ledger.View(ctx, func(tx Tx) (err error) {
		if err := tx.Standing(c); err != nil {
			return err
		}
		// Known first: a retry is the record's, however long its answer was lost.
		known, err = tx.RecordByRequest(c.ID, in.RequestID)
		if vault.KindOf(err) == vault.NotFound {
			if late := s.inWindow(tx.Now(), rec.CapturedAt); late != nil {
				return late
			}
		}
		return err
	})
	if err == nil {
		return same(known, rec)
	}
	if vault.KindOf(err) != vault.NotFound {
		return rec, false, err
	}
	if err := s.seal(ctx, &rec, clean.Bytes); err != nil {
		return rec, false, err
	}
	return s.commit(ctx, c, rec)
}

// seal keeps the ciphertext, makes the key, and sets what the record says of them. In this
// order, for nothing here can take a key back: a full disk makes none, and the ciphertext
// that a failing Vault would leave behind is taken away at once.
func (s *Service) seal(ctx context.Context, rec *vault.Record, image []byte) (err error) {
	dek := envelope.NewKey()
	defer clear(dek)
	sealed, err := envelope.Seal(*rec, dek, image)
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	rec.SealedHash = vault.DigestOf(sealed)
	defer func() {
		if err != nil {
			s.discard(ctx, rec.ID)
		}
	}()
	if err := s.Blobs.Put(ctx, rec.ID, sealed); err != nil {
		return fmt.Errorf("keep the ciphertext: %w", err)
	}
	if rec.WrappedKey, err = s.Keys.Wrap(ctx, rec.KeyName(), dek); err != nil {
		return fmt.Errorf("wrap the data key: %w", err)
	}
	return nil
}

// discard takes away ciphertext that no record will name. Should it fail, that is an orphan.
func (s *Service) discard(ctx context.Context, id vault.ID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardTime)
	defer cancel()
	_ = s.Blobs.Delete(ctx, id)
}

// commit makes the record a fact. Of two requests with one ID the first to commit wins;
// the other's key stays behind as an orphan. So do key and ciphertext when the database fails,
// for it may have committed all the same.
func (s *Service) commit(ctx context.Context, c vault.Caller, rec vault.Record) (out vault.Record, repeated bool, err error) {
	_, err = s.Ledger.Update(ctx, func(tx Tx) error {
		if err := tx.Standing(c); err != nil {
			return err
		}
		known, err := tx.RecordByRequest(c.ID, rec.RequestID)
		if err == nil {
			out, repeated, err = same(known, rec)
			return err
		}
		if vault.KindOf(err) != vault.NotFound {
			return err
		}
		out, repeated = rec, false
		out.StoredAt = tx.Now()
		if err := tx.AddRecord(out); err != nil {
			return err
		}
		e := vault.NewEvent(vault.EventRecordStored, c, tx.Now())
		e.Stored = out.Facts()
		return tx.Append(e)
	})
	if err == nil && repeated {
		s.discard(ctx, rec.ID)
	}
	return out, repeated, err
}

// same gives the known record if the new one is a repetition of it.
func same(known, now vault.Record) (vault.Record, bool, error) {
	if known.Modality != now.Modality || known.Class != now.Class || !known.CapturedAt.Equal(now.CapturedAt) ||
		known.CrossingID != now.CrossingID || known.Size != now.Size || known.ContentType != now.ContentType {
		return known, false, vault.E(vault.Exists, vault.ReasonRequestIDReused,
			"request_id %s was used for another image of this device; give every image its own", now.RequestID)
	}
	return known, true, nil
}

func (s *Service) check(c vault.Caller, in Image) error {
	if in.RequestID == (vault.ID{}) {
		return vault.InvalidField("request_id", "must not be empty")
	}
	if err := vault.CheckModality("modality", in.Modality); err != nil {
		return err
	}
	for _, f := range []struct{ field, name string }{{"site", in.Site}, {"lane", in.Lane}, {"retention_class", in.Class}} {
		if f.name == "" {
			continue
		}
		if err := vault.CheckName(f.field, f.name); err != nil {
			return err
		}
	}
	if (in.Site != "" && in.Site != c.Site) || (in.Lane != "" && in.Lane != c.Lane) {
		return vault.E(vault.Denied, vault.ReasonSiteMismatch,
			"this certificate stores for site %s, lane %s, not for site %q, lane %q", c.Site, c.Lane, in.Site, in.Lane)
	}
	return nil
}

func (s *Service) inWindow(now, captured time.Time) error {
	if captured.After(now.Add(s.Window.Ahead)) || captured.Before(now.Add(-s.Window.Behind)) {
		return &vault.Error{
			Kind: vault.Invalid, Reason: vault.ReasonCapturedAtOutOfRange, Message: "invalid request",
			Fields: []vault.Field{{Name: "capture_time", Description: fmt.Sprintf(
				"is %s; the server's time is %s, and at most %s ahead or %s behind are taken",
				captured.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339), span(s.Window.Ahead), span(s.Window.Behind))}},
		}
	}
	return nil
}

// span writes a duration as people say it: 31 days rather than 744h0m0s.
func span(d time.Duration) string {
	if days := d / (24 * time.Hour); days > 1 && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%d days", days)
	}
	if minutes := d / time.Minute; minutes > 1 && d%time.Minute == 0 && d < time.Hour {
		return fmt.Sprintf("%d minutes", minutes)
	}
	return d.String()
}

// rejected names the request's field in what the cleaner says.
func rejected(err error) error {
	var bad *imaging.Error
	if !errors.As(err, &bad) {
		return err
	}
	return &vault.Error{
		Kind: vault.Invalid, Reason: vault.ReasonImageRejected, Message: "invalid request",
		Fields: []vault.Field{{Name: "image", Description: bad.Error()}},
	}
}
