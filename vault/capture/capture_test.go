package capture_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"image"
	"image/png"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/portcullis/portcullis/internal/envelope"
	"github.com/portcullis/portcullis/internal/imaging"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/capture"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open is a house with one device, and what that sends.
func open(t *testing.T) (*house.House, vault.Caller, capture.Image) {
	h := house.New(t)
	return h, h.Caller("capture/north/lane-1"), h.Shot(vault.Face, time.Minute)
}

// stored says how many records the database and the log know, and that they agree.
func stored(h *house.House) int {
	h.Helper()
	n := len(h.Events(vault.EventRecordStored))
	if rows := h.Ask("SELECT COUNT(*) FROM records"); rows != string(rune('0'+n)) {
		h.Errorf("%s records in the database, %d in the log", rows, n)
	}
	return n
}

// spyKeys keeps the data keys that are wrapped.
type spyKeys struct {
	capture.Keys
	mu   sync.Mutex
	deks map[string][]byte // by key name
}

func (s *spyKeys) Wrap(ctx context.Context, name string, dek []byte) (string, error) {
	s.mu.Lock()
	if s.deks == nil {
		s.deks = map[string][]byte{}
	}
	s.deks[name] = bytes.Clone(dek)
	s.mu.Unlock()
	return s.Keys.Wrap(ctx, name, dek)
}

func TestStore(t *testing.T) {
	h, device, in := open(t)
	in.Site, in.Lane = "north", "lane-1"
	spy := &spyKeys{Keys: h.Vault}
	h.Capture.Keys = spy
	rec, repeated, err := h.Capture.Store(t.Context(), device, in)
	h.NoError(err)
	if repeated {
		t.Error("a first image is no repetition")
	}
	if got := h.Trace(); !slices.Equal(got, []string{"Put", "Wrap", "Update"}) {
		t.Errorf("order: %s; want the ciphertext, the key, the record", house.String(got))
	}
	if stored(h) != 1 {
		t.Fatal("it is not in the log")
	}
	e := h.Last()
	if *e.Stored != *rec.Facts() || e.Actor != device.ID || e.Addr != device.Addr {
		t.Errorf("the event says %+v of %+v", e, rec)
	}
	if !rec.StoredAt.Equal(h.Clock.Now()) || rec.Key != vault.KeyActive || rec.RequestID != in.RequestID || rec.CrossingID != in.CrossingID {
		t.Errorf("record %+v", rec)
	}
	var row vault.Record
	h.NoError(h.Capture.Ledger.View(t.Context(), func(tx capture.Tx) (err error) {
		row, err = tx.RecordByRequest(device.ID, in.RequestID)
		return err
	}))
	if row != rec {
		t.Errorf("the row is %+v, the answer %+v", row, rec)
	}
	sealed, err := h.Blobs.Get(t.Context(), rec.ID)
	h.NoError(err)
	if vault.DigestOf(sealed) != rec.SealedHash {
		t.Error("the hash is not that of the ciphertext")
	}
	clean, err := imaging.Clean(in.Bytes, imaging.Limits{})
	h.NoError(err)
	opened, err := envelope.Open(rec, spy.deks[rec.KeyName()], sealed)
	h.NoError(err)
	if !bytes.Equal(opened, clean.Bytes) || rec.Size != int64(len(clean.Bytes)) {
		t.Error("what was sealed is not the cleaned image")
	}
}

func TestDataKeys(t *testing.T) {
	h, device, _ := open(t)
	spy := &spyKeys{Keys: h.Vault}
	h.Capture.Keys = spy
	const n = 8
	for range n {
		_, _, err := h.Capture.Store(t.Context(), device, h.Shot(vault.Plate, 0))
		h.NoError(err)
	}
	if len(spy.deks) != n {
		t.Fatalf("%d key names for %d images", len(spy.deks), n)
	}
	seen := map[string]bool{}
	for name, dek := range spy.deks {
		if len(dek) != 32 || seen[string(dek)] || bytes.Equal(dek, make([]byte, len(dek))) {
			t.Errorf("%s: a data key of %d bytes, used before: %v", name, len(dek), seen[string(dek)])
		}
		seen[string(dek)] = true
	}
	searched := 0
	for _, suffix := range []string{"", "-wal", "-shm"} {
		file, err := os.ReadFile(h.Path() + suffix)
		h.NoError(err)
		searched += bytes.Count(file, []byte(device.ID))
		for _, dek := range spy.deks {
			for form, b := range map[string][]byte{
				"raw": dek, "base64": []byte(base64.StdEncoding.EncodeToString(dek)), "hex": []byte(hex.EncodeToString(dek)),
			} {
				if bytes.Contains(file, b) {
					t.Errorf("the database's file %q holds a data key (%s)", suffix, form)
				}
			}
		}
	}
	if searched < n {
		t.Errorf("the files searched name the device %d times: they are not the database", searched)
	}
}

func TestStepFails(t *testing.T) {
	down := vault.E(vault.Unavailable, vault.ReasonStoreUnavailable, "down")
	for name, c := range map[string]struct {
		fail   func(h *house.House)
		reason vault.Reason
	}{
		"Vault is away":       {func(h *house.House) { h.Vault.Fail("Wrap", 1, vaultAway()) }, vault.ReasonVaultUnavailable},
		"Wrap's answer lost":  {func(h *house.House) { h.Vault.FailAfter("Wrap", 1, vaultAway()) }, vault.ReasonVaultUnavailable},
		"blobs are away":      {func(h *house.House) { h.Blobs.Fail("Put", 1, blobAway()) }, vault.ReasonBlobUnavailable},
		"Put's answer lost":   {func(h *house.House) { h.Blobs.FailAfter("Put", 1, blobAway()) }, vault.ReasonBlobUnavailable},
		"the commit fails":    {func(h *house.House) { h.Capture.Ledger = &failing{h.Capture.Ledger, down, false} }, vault.ReasonStoreUnavailable},
		"the reading fails":   {func(h *house.House) { h.Capture.Ledger = &failing{h.Capture.Ledger, down, true} }, vault.ReasonStoreUnavailable},
		"the store is closed": {func(h *house.House) { h.Once("Put", func() { h.Store.Close() }) }, vault.ReasonShuttingDown},
	} {
		t.Run(name, func(t *testing.T) {
			h, device, in := open(t)
			c.fail(h)
			rec, _, err := h.Capture.Store(t.Context(), device, in)
			h.Refused(err, vault.Unavailable, c.reason)
			h.Restart()
			if stored(h) != 0 {
				t.Fatal("a failure left a record or an event")
			}
			again, repeated, err := h.Capture.Store(t.Context(), device, in)
			h.NoError(err)
			if repeated || again.ID == rec.ID || stored(h) != 1 {
				t.Errorf("the retry gave %s, a repetition: %v; the failed one was %s", again.ID, repeated, rec.ID)
			}
		})
	}
}

// TestFullDisk: while nothing can be kept, no key is made; while no key can be made, nothing is
// kept. Nothing takes a key back but the reconciler, days later.
func TestFullDisk(t *testing.T) {
	for name, c := range map[string]struct {
		fail func(h *house.House)
		keys int // that are left
	}{
		"disk full":           {func(h *house.House) { h.Blobs.Fail("Put", 1, blobAway()) }, 0},
		"Put's answer lost":   {func(h *house.House) { h.Blobs.FailAfter("Put", 1, blobAway()) }, 0},
		"Vault away":          {func(h *house.House) { h.Vault.Fail("Wrap", 1, vaultAway()) }, 0},
		"Vault's answer lost": {func(h *house.House) { h.Vault.FailAfter("Wrap", 1, vaultAway()) }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			h, device, in := open(t)
			c.fail(h)
			ctx, cancel := context.WithCancel(t.Context())
			if c.keys == 0 {
				h.Once("Wrap", cancel) // nor does it matter that the caller has left
			}
			_, _, err := h.Capture.Store(ctx, device, in)
			if err == nil {
				t.Fatal("stored")
			}
			cancel()
			keys, err := h.Vault.Keys(t.Context())
			h.NoError(err)
			blobs := 0
			h.NoError(h.Blobs.List(t.Context(), func(vault.ID, int64, time.Time) error { blobs++; return nil }))
			if len(keys) != c.keys || blobs != 0 {
				t.Errorf("%d keys and %d blobs are left, want %d keys", len(keys), blobs, c.keys)
			}
		})
	}
}

func vaultAway() error { return vault.E(vault.Unavailable, vault.ReasonVaultUnavailable, "away") }
func blobAway() error  { return vault.E(vault.Unavailable, vault.ReasonBlobUnavailable, "away") }

// failing is a ledger whose next Update, or View, fails after all was written.
type failing struct {
	capture.Ledger
	err  error
	view bool
}

func (f *failing) Update(ctx context.Context, fn func(capture.Tx) error) (int64, error) {
	return f.Ledger.Update(ctx, func(tx capture.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		if f.view {
			return nil
		}
		return f.err
	})
}

func (f *failing) View(ctx context.Context, fn func(capture.Tx) error) error {
	if f.view {
		return f.err
	}
	return f.Ledger.View(ctx, fn)
}

func TestCrash(t *testing.T) {
	for n := 0; ; n++ {
		h, device, in := open(t)
		h.CrashAfter(n)
		rec, _, err := h.Capture.Store(t.Context(), device, in)
		crashed := h.Crashed()
		h.Restart()
		if crashed != (err != nil) || stored(h) != map[bool]int{true: 0, false: 1}[crashed] {
			t.Fatalf("after %d steps: %v, %d records", n, err, stored(h))
		}
		again, repeated, err := h.Capture.Store(t.Context(), device, in)
		h.NoError(err)
		if repeated == crashed || (again.ID == rec.ID) == crashed || stored(h) != 1 {
			t.Fatalf("after %d steps, the retry is a repetition: %v", n, repeated)
		}
		if !crashed {
			if n != 3 {
				t.Fatalf("%d steps, not 3", n)
			}
			return
		}
	}
}

func TestRetry(t *testing.T) {
	h, device, in := open(t)
	first, _, err := h.Capture.Store(t.Context(), device, in)
	h.NoError(err)
	h.Trace()
	h.Clock.Advance(h.Capture.Window.Behind) // the answer may have been lost long ago
	again, repeated, err := h.Capture.Store(t.Context(), device, in)
	h.NoError(err)
	if !repeated || again != first {
		t.Errorf("repeated: %v, %+v; want %+v", repeated, again, first)
	}
	if got := h.Trace(); len(got) != 0 {
		t.Errorf("a repetition called %s", house.String(got))
	}
	// Another device's request IDs are its own.
	other := h.Shot(vault.Face, 0)
	other.RequestID = in.RequestID
	if _, repeated, err = h.Capture.Store(t.Context(), h.Caller("capture/north/lane-2"), other); err != nil || repeated {
		t.Errorf("another device: %v, %v", repeated, err)
	}
}

// TestClass: a record has the class that was named for its image, or the default one, and a
// repetition names the same.
func TestClass(t *testing.T) {
	h, device, _ := open(t)
	for named, want := range map[string]string{"": "standard", "standard": "standard", "us-citizen": "us-citizen", strings.Repeat("x", vault.MaxName): strings.Repeat("x", vault.MaxName)} {
		in := h.Shot(vault.Face, 0)
		in.Class = named
		first, _, err := h.Capture.Store(t.Context(), device, in)
		h.NoError(err)
		if in.Class = named; want == vault.DefaultClass {
			in.Class = "" // the same, named or not
		}
		again, repeated, err := h.Capture.Store(t.Context(), device, in)
		h.NoError(err)
		if first.Class != want || !repeated || again != first || h.Last().Stored.Class != want {
			t.Errorf("class %q became %q, then (repeated: %v) %q, and in the log %q", named, first.Class, repeated, again.Class, h.Last().Stored.Class)
		}
		in.Class = "another"
		_, _, err = h.Capture.Store(t.Context(), device, in)
		h.Refused(err, vault.Exists, vault.ReasonRequestIDReused)
		if row := h.Ask("SELECT class FROM records WHERE id = ?", first.ID.String()); row != want {
			t.Errorf("the row says %q", row)
		}
	}
}

func TestConcurrentRetries(t *testing.T) {
	h, device, in := open(t)
	var all sync.WaitGroup
	const n = 16
	ids := make([]vault.ID, n)
	firsts := make([]bool, n)
	for i := range n {
		all.Go(func() {
			r, repeated, err := h.Capture.Store(t.Context(), device, in)
			if err != nil {
				t.Error(err)
			}
			ids[i], firsts[i] = r.ID, !repeated
		})
	}
	all.Wait()
	if stored(h) != 1 {
		t.Errorf("%d records", stored(h))
	}
	first := 0
	for i := range ids {
		if ids[i] != ids[0] {
			t.Errorf("records %s and %s", ids[i], ids[0])
		}
		if firsts[i] {
			first++
		}
	}
	if first != 1 {
		t.Errorf("%d calls were the first", first)
	}
}

func TestRequestIDReused(t *testing.T) {
	h, device, in := open(t)
	_, _, err := h.Capture.Store(t.Context(), device, in)
	h.NoError(err)
	for name, change := range map[string]func(*capture.Image){
		"modality":     func(i *capture.Image) { i.Modality = vault.Plate },
		"capture time": func(i *capture.Image) { i.CapturedAt = i.CapturedAt.Add(time.Microsecond) },
		"crossing":     func(i *capture.Image) { i.CrossingID = vault.NewID() },
		"no crossing":  func(i *capture.Image) { i.CrossingID = vault.ID{} },
		"image":        func(i *capture.Image) { i.Bytes = wider(t) },
		"class":        func(i *capture.Image) { i.Class = "us-citizen" },
	} {
		t.Run(name, func(t *testing.T) {
			other := in
			change(&other)
			_, _, err := h.Capture.Store(t.Context(), device, other)
			h.Refused(err, vault.Exists, vault.ReasonRequestIDReused)
		})
	}
	// Meanwhile is no way round either: the other commits between the look and the commit.
	late := h.Shot(vault.Face, 0)
	other := late
	other.Modality = vault.Plate
	h.Once("Put", func() {
		_, _, err := h.Capture.Store(t.Context(), device, other)
		h.NoError(err)
	})
	_, _, err = h.Capture.Store(t.Context(), device, late)
	h.Refused(err, vault.Exists, vault.ReasonRequestIDReused)
	if stored(h) != 2 {
		t.Errorf("%d records, want 2", stored(h))
	}
}

func TestWindow(t *testing.T) {
	h, device, _ := open(t)
	w := h.Capture.Window
	for name, c := range map[string]struct {
		ago time.Duration
		ok  bool
	}{
		"now":             {0, true},
		"ahead, the most": {-w.Ahead, true},
		"too far ahead":   {-w.Ahead - time.Microsecond, false},
		"late, the most":  {w.Behind, true},
		"too late":        {w.Behind + time.Microsecond, false},
		"never":           {h.Clock.Now().Sub(time.Unix(0, 0)), false},
	} {
		t.Run(name, func(t *testing.T) {
			h.Trace()
			_, _, err := h.Capture.Store(t.Context(), device, h.Shot(vault.Face, c.ago))
			if c.ok {
				h.NoError(err)
				return
			}
			h.Refused(err, vault.Invalid, vault.ReasonCapturedAtOutOfRange)
			var e *vault.Error
			if !errors.As(err, &e) || len(e.Fields) != 1 || e.Fields[0].Name != "capture_time" {
				t.Errorf("%v names no field", err)
			}
			if got := h.Trace(); len(got) != 0 {
				t.Errorf("a refusal called %s", house.String(got))
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	h, device, in := open(t)
	refused := func(name string, k vault.Kind, r vault.Reason, change func(*capture.Image)) {
		t.Run(name, func(t *testing.T) {
			bad := in
			change(&bad)
			_, _, err := h.Capture.Store(t.Context(), device, bad)
			h.Refused(err, k, r)
		})
	}
	refused("another site", vault.Denied, vault.ReasonSiteMismatch, func(i *capture.Image) { i.Site = "south" })
	refused("another lane", vault.Denied, vault.ReasonSiteMismatch, func(i *capture.Image) { i.Site, i.Lane = "north", "lane-2" })
	refused("no request ID", vault.Invalid, vault.ReasonInvalidField, func(i *capture.Image) { i.RequestID = vault.ID{} })
	refused("no modality", vault.Invalid, vault.ReasonInvalidField, func(i *capture.Image) { i.Modality = "iris" })
	for _, class := range []string{"US-citizen", "us citizen", "us--citizen", "-", "us_citizen", "standard\n", strings.Repeat("x", vault.MaxName+1)} {
		bad := in
		bad.Class = class
		_, _, err := h.Capture.Store(t.Context(), device, bad)
		h.Refused(err, vault.Invalid, vault.ReasonInvalidField)
		if e := new(vault.Error); !errors.As(err, &e) || len(e.Fields) != 1 || e.Fields[0].Name != "retention_class" {
			t.Errorf("class %q: the error is %+v", class, err)
		}
	}
	refused("no image", vault.Invalid, vault.ReasonImageRejected, func(i *capture.Image) { i.Bytes = []byte("GIF89a") })
	refused("half an image", vault.Invalid, vault.ReasonImageRejected, func(i *capture.Image) { i.Bytes = i.Bytes[:len(i.Bytes)/2] })
	if got := h.Trace(); len(got) != 0 || stored(h) != 0 {
		t.Errorf("refusals called %s", house.String(got))
	}
}

func TestSuspendedDevice(t *testing.T) {
	h, device, in := open(t)
	suspend := func() {
		h.SQL("INSERT INTO suspended_callers (id, suspended_at) VALUES (?, ?)", device.ID, h.Clock.Now().UnixMicro())
	}
	h.Once("Put", suspend) // while its image is on its way
	_, _, err := h.Capture.Store(t.Context(), device, in)
	h.Refused(err, vault.Denied, vault.ReasonCallerSuspended)
	h.Before(nil)
	h.Trace()
	_, _, err = h.Capture.Store(t.Context(), device, in)
	h.Refused(err, vault.Denied, vault.ReasonCallerSuspended)
	if got := h.Trace(); len(got) != 0 || stored(h) != 0 {
		t.Errorf("a suspended device's image called %s", house.String(got))
	}
	if _, _, err := h.Capture.Store(t.Context(), h.Caller("capture/north/lane-2"), in); err != nil {
		t.Errorf("another device: %v", err)
	}
}

// wider is a picture of another size.
func wider(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 33, 1))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
