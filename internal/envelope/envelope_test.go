package envelope

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portcullis/portcullis/vault"
)

var (
	names = rapid.StringMatching(`[a-z0-9]{1,8}(-[a-z0-9]{1,8}){0,2}`)
	ids   = rapid.Custom(func(t *rapid.T) (id vault.ID) {
		copy(id[:], rapid.SliceOfN(rapid.Byte(), len(id), len(id)).Draw(t, "id"))
		return id
	})
	times = rapid.Custom(func(t *rapid.T) time.Time {
		const from, until = 0, 4133980799999999 // 1970 to 2100
		return time.UnixMicro(rapid.Int64Range(from, until).Draw(t, "us")).UTC()
	})
	records = rapid.Custom(func(t *rapid.T) vault.Record {
		return vault.Record{
			ID: ids.Draw(t, "id"), Site: names.Draw(t, "site"), Lane: names.Draw(t, "lane"),
			Modality:   rapid.SampledFrom([]vault.Modality{vault.Face, vault.Plate}).Draw(t, "modality"),
			CapturedAt: times.Draw(t, "captured_at"), CrossingID: ids.Draw(t, "crossing"),
			ContentType: rapid.SampledFrom([]string{"image/jpeg", "image/png"}).Draw(t, "type"),
			Orientation: rapid.IntRange(1, 8).Draw(t, "orientation"),
			Class:       rapid.OneOf(rapid.Just(vault.DefaultClass), names).Draw(t, "class"),
		}
	})
	images = rapid.SliceOfN(rapid.Byte(), 0, 300)
)

// fatal is of testing.T and rapid.T alike.
type fatal interface {
	Helper()
	Fatalf(format string, args ...any)
}

func mustSeal(t fatal, rec vault.Record, dek, image []byte) []byte {
	t.Helper()
	sealed, err := Seal(rec, dek, image)
	if err != nil {
		t.Fatalf("Seal: %v", err)
	}
	return sealed
}

// mustRefuse shows that the image does not open, by the one error there is, and that no
// byte comes with it.
func mustRefuse(t fatal, why string, rec vault.Record, dek, sealed []byte) {
	t.Helper()
	image, err := Open(rec, dek, sealed)
	if err == nil {
		t.Fatalf("%s: opened", why)
	}
	if vault.KindOf(err) != vault.DataLoss || vault.ReasonOf(err) != vault.ReasonDataLoss {
		t.Fatalf("%s: %v has kind %v and reason %v", why, err, vault.KindOf(err), vault.ReasonOf(err))
	}
	if image != nil {
		t.Fatalf("%s: %d bytes came with the error", why, len(image))
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rec, image, dek := records.Draw(t, "record"), images.Draw(t, "image"), NewKey()
		given := bytes.Clone(image)
		sealed := mustSeal(t, rec, dek, image)
		if len(sealed) != len(image)+Overhead {
			t.Fatalf("%d bytes became %d, want %d more", len(image), len(sealed), Overhead)
		}
		kept := bytes.Clone(sealed)
		opened, err := Open(rec, dek, sealed)
		if err != nil || !bytes.Equal(opened, given) {
			t.Fatalf("opened %x, %v; want %x", opened, err, given)
		}
		if !bytes.Equal(image, given) || !bytes.Equal(sealed, kept) {
			t.Fatalf("an argument was changed")
		}
	})
}

// TestOtherFactsDoNotBind: what changes in a record's life must not lock its image.
func TestOtherFactsDoNotBind(t *testing.T) {
	rec, dek := vault.Record{ID: vault.NewID(), Site: "a", Modality: vault.Face, CapturedAt: time.Unix(1, 999)}, NewKey()
	sealed := mustSeal(t, rec, dek, []byte("image"))
	rec.Device, rec.RequestID, rec.StoredAt, rec.Size = "spiffe://x/capture/a/b", vault.NewID(), time.Unix(9, 0), 5
	rec.WrappedKey, rec.SealedHash, rec.Key = "vault:v2:x", vault.DigestOf(sealed), vault.KeyRevoked
	rec.CapturedAt = vault.Micro(rec.CapturedAt).In(time.FixedZone("", 3600)) // as it comes back from a database
	if _, err := Open(rec, dek, sealed); err != nil {
		t.Fatal(err)
	}
}

// changes lists, for each bound fact, a change of it.
var changes = map[string]func(t *rapid.T, r *vault.Record){
	"record_id": func(t *rapid.T, r *vault.Record) { flip(t, r.ID[:]) },
	"modality": func(_ *rapid.T, r *vault.Record) {
		r.Modality = map[vault.Modality]vault.Modality{vault.Face: vault.Plate, vault.Plate: vault.Face}[r.Modality]
	},
	"site":          func(t *rapid.T, r *vault.Record) { r.Site = other(t, names, r.Site) },
	"lane":          func(t *rapid.T, r *vault.Record) { r.Lane = other(t, names, r.Lane) },
	"captured_at":   func(t *rapid.T, r *vault.Record) { r.CapturedAt = other(t, times, r.CapturedAt) },
	"a microsecond": func(_ *rapid.T, r *vault.Record) { r.CapturedAt = r.CapturedAt.Add(time.Microsecond) },
	"a day":         func(_ *rapid.T, r *vault.Record) { r.CapturedAt = r.CapturedAt.AddDate(0, 0, 1) },
	"crossing_id":   func(t *rapid.T, r *vault.Record) { flip(t, r.CrossingID[:]) },
	"content_type": func(_ *rapid.T, r *vault.Record) {
		r.ContentType = map[string]string{"image/jpeg": "image/png", "image/png": "image/jpeg"}[r.ContentType]
	},
	"orientation":     func(_ *rapid.T, r *vault.Record) { r.Orientation = r.Orientation%8 + 1 },
	"orientation+2³²": func(_ *rapid.T, r *vault.Record) { r.Orientation += 1 << 32 },
	"class":           func(t *rapid.T, r *vault.Record) { r.Class = other(t, names, r.Class) },
	"class, none":     func(_ *rapid.T, r *vault.Record) { r.Class = "" },
	"class, longer":   func(_ *rapid.T, r *vault.Record) { r.Class += "x" },
	"site and lane swapped": func(_ *rapid.T, r *vault.Record) {
		r.Site, r.Lane = r.Lane, r.Site
		if r.Site == r.Lane {
			r.Lane += "x"
		}
	},
	"a letter from lane to site": func(_ *rapid.T, r *vault.Record) { r.Site, r.Lane = r.Site+r.Lane[:1], r.Lane[1:] },
}

func flip(t *rapid.T, b []byte) {
	b[rapid.IntRange(0, len(b)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
}

func other[T comparable](t *rapid.T, g *rapid.Generator[T], old T) T {
	return g.Filter(func(v T) bool { return v != old }).Draw(t, "other")
}

func TestChangedFactsDoNotOpen(t *testing.T) {
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				rec, dek := records.Draw(t, "record"), NewKey()
				sealed := mustSeal(t, rec, dek, images.Draw(t, "image"))
				change(t, &rec)
				mustRefuse(t, name, rec, dek, sealed)
			})
		})
	}
}

func TestChangedBytesDoNotOpen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rec, dek := records.Draw(t, "record"), NewKey()
		sealed := mustSeal(t, rec, dek, images.Draw(t, "image"))

		flipped := bytes.Clone(sealed)
		flip(t, flipped)
		mustRefuse(t, "a flipped bit", rec, dek, flipped)

		cut := rapid.IntRange(0, len(sealed)-1).Draw(t, "cut")
		mustRefuse(t, "cut short", rec, dek, sealed[:cut])
		mustRefuse(t, "its beginning gone", rec, dek, sealed[cut+1:])
		mustRefuse(t, "a byte gone inside", rec, dek, append(bytes.Clone(sealed[:cut]), sealed[cut+1:]...))

		more := rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "more")
		mustRefuse(t, "longer", rec, dek, append(bytes.Clone(sealed), more...))
		mustRefuse(t, "preceded", rec, dek, append(bytes.Clone(more), sealed...))

		wrong := bytes.Clone(dek)
		flip(t, wrong)
		mustRefuse(t, "another key", rec, wrong, sealed)
		mustRefuse(t, "a short key", rec, dek[:16], sealed)
		mustRefuse(t, "no key", rec, nil, sealed)
	})
}

// TestEveryBitCounts flips each bit of one sealed image.
func TestEveryBitCounts(t *testing.T) {
	rec, dek := vault.Record{ID: vault.NewID(), Site: "a", Lane: "b", Modality: vault.Face}, NewKey()
	sealed := mustSeal(t, rec, dek, []byte("an image of 24 characters"))
	for i := range len(sealed) * 8 {
		flipped := bytes.Clone(sealed)
		flipped[i/8] ^= 1 << (i % 8)
		mustRefuse(t, "a flipped bit", rec, dek, flipped)
	}
}

// TestSwappedRecordsDoNotOpen: whichever of blob, data key and row an attacker moves from
// one record to another, nothing opens.
func TestSwappedRecordsDoNotOpen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := records.Draw(t, "a")
		b := a // alike in all but the ID: the hardest to tell apart
		if flip(t, b.ID[:]); rapid.Bool().Draw(t, "unlike") {
			b = records.Filter(func(r vault.Record) bool { return r.ID != a.ID }).Draw(t, "b")
		}
		keyA, keyB := NewKey(), NewKey()
		image := images.Draw(t, "image")
		sealedA, sealedB := mustSeal(t, a, keyA, image), mustSeal(t, b, keyB, image)
		mustRefuse(t, "blobs swapped", a, keyA, sealedB)
		mustRefuse(t, "keys swapped", a, keyB, sealedA)
		mustRefuse(t, "rows swapped", b, keyA, sealedA)
		mustRefuse(t, "blob and key of another", a, keyB, sealedB)
		spliced := append(bytes.Clone(sealedA[:len(magic2)+nonceSize]), sealedB[len(magic2)+nonceSize:]...)
		mustRefuse(t, "nonce of another", b, keyB, spliced)
	})
}

func TestNoncesAndKeysDiffer(t *testing.T) {
	rec, dek := vault.Record{}, NewKey()
	seen := map[string]bool{}
	for range 1000 {
		seen[string(mustSeal(t, rec, dek, nil)[:Overhead])] = true
		seen[string(NewKey())] = true
	}
	if len(seen) != 2000 {
		t.Fatalf("of 2000 sealed images and keys %d differ", len(seen))
	}
}

func TestSealRefuses(t *testing.T) {
	good := vault.Record{ID: vault.NewID(), Site: "a", Lane: "b", Modality: vault.Face}
	for name, c := range map[string]struct {
		change func(*vault.Record)
		key    int
	}{
		"no key":            {func(*vault.Record) {}, 0},
		"a key for AES-128": {func(*vault.Record) {}, 16},
		"a key of 33 bytes": {func(*vault.Record) {}, 33},
		"a class too long":  {func(r *vault.Record) { r.Class = strings.Repeat("x", 65536) }, KeySize},
		"a lane too long":   {func(r *vault.Record) { r.Lane = strings.Repeat("x", 65536) }, KeySize},
		"a site too long":   {func(r *vault.Record) { r.Site = strings.Repeat("x", 65535) }, KeySize}, // for the key name
		"the year 10000":    {func(r *vault.Record) { r.CapturedAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, KeySize},
		"before the year 0": {func(r *vault.Record) { r.CapturedAt = time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC) }, KeySize},
		"a time that wraps": {func(r *vault.Record) { r.CapturedAt = time.Date(600_000, 1, 1, 0, 0, 0, 0, time.UTC) }, KeySize},
	} {
		t.Run(name, func(t *testing.T) {
			rec := good
			c.change(&rec)
			if sealed, err := Seal(rec, make([]byte, c.key), nil); err == nil || sealed != nil {
				t.Fatalf("got %d bytes and %v", len(sealed), err)
			}
			mustRefuse(t, name, rec, make([]byte, c.key), make([]byte, 100))
		})
	}
}

// TestConcurrentUse is for the race detector.
func TestConcurrentUse(t *testing.T) {
	rec, dek, image := vault.Record{ID: vault.NewID()}, NewKey(), []byte("image")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				sealed, err := Seal(rec, dek, image)
				if err != nil {
					t.Error(err)
				}
				if got, err := Open(rec, dek, sealed); err != nil || !bytes.Equal(got, image) {
					t.Errorf("got %q, %v", got, err)
				}
			}
		})
	}
	all.Wait()
}

// TestUnderFIPS runs this package's tests anew in a process where only what FIPS 140 allows
// works at all.
func TestUnderFIPS(t *testing.T) {
	const inside = "ENVELOPE_TEST_UNDER_FIPS"
	if os.Getenv(inside) != "" {
		if !fips140.Enforced() {
			t.Fatal("FIPS 140 is not enforced here")
		}
		mustNotSealWithGivenNonce(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.v", "-test.run=^(TestUnderFIPS|TestRoundTrip|TestVectors|TestRefusedVectors|TestVersion1IsOfTheDefaultClass|TestEveryBitCounts)$")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only", inside+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := bytes.Count(out, []byte("\n--- PASS: Test")); n != 6 {
		t.Fatalf("%d of 6 tests ran\n%s", n, out)
	}
}

// mustNotSealWithGivenNonce shows that the mode forbids what the format avoids.
func mustNotSealWithGivenNonce(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("this mode allows GCM with a nonce of one's own, so the test shows nothing")
		}
	}()
	block, err := aes.NewCipher(make([]byte, KeySize))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // forbidden this early is as good
	}
	aead.Seal(nil, make([]byte, nonceSize), nil, nil)
}
