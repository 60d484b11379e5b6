package envelope

import (
	"bytes"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// FuzzSeal: whatever image is sealed for whatever record, it comes back byte for byte, and
// not at all once anything differs: a bit, the length, the key, or one of the bound facts.
func FuzzSeal(f *testing.F) {
	f.Add([]byte("\xff\xd8a picture\xff\xd9"), []byte("0123456789abcdef"), "north", "3", int64(1772000000000000), uint32(0), "x")
	f.Add([]byte{}, []byte{}, "", "", int64(0), uint32(4*8+1), "")
	f.Add(make([]byte, 300), []byte{1}, "a.b", "\x00\xff", int64(-1), uint32(1<<31), "north")
	f.Add([]byte("x"), []byte{}, "\x00\x05north", "3", int64(253402300800000000), uint32(7), "3")
	f.Fuzz(func(t *testing.T, image, id []byte, site, lane string, us int64, at uint32, other string) {
		rec := vault.Record{
			Modality: vault.Face, Site: site, Lane: lane, CapturedAt: time.UnixMicro(us).UTC(),
			ContentType: "image/jpeg", Orientation: 1, Class: other,
		}
		copy(rec.CrossingID[:], id[copy(rec.ID[:], id):])
		dek := NewKey()
		sealed, err := Seal(rec, dek, image)
		if err != nil {
			if y := rec.CapturedAt.Year(); y >= 0 && y <= 9999 && len(lane) < 1<<16 && len(other) < 1<<16 && len(rec.KeyName()) < 1<<16 {
				t.Fatal(err)
			}
			mustRefuse(t, "what can not be sealed", rec, dek, append([]byte(magic2), make([]byte, 64)...))
			return
		}
		if len(sealed) != len(image)+Overhead {
			t.Fatalf("%d bytes became %d", len(image), len(sealed))
		}
		back, err := Open(rec, dek, sealed)
		if err != nil || !bytes.Equal(back, image) {
			t.Fatalf("%d bytes came back as %d: %v", len(image), len(back), err)
		}
		if cap(back) > len(sealed)+1<<13 {
			t.Fatalf("%d bytes of memory for an image of %d", cap(back), len(image))
		}

		bit := int(at % uint32(8*len(sealed)))
		altered := bytes.Clone(sealed)
		altered[bit/8] ^= 1 << (bit % 8)
		mustRefuse(t, "a flipped bit", rec, dek, altered)
		mustRefuse(t, "cut", rec, dek, sealed[:bit/8])
		mustRefuse(t, "bytes left out in front", rec, dek, sealed[bit/8+1:])
		mustRefuse(t, "a byte behind", rec, dek, append(bytes.Clone(sealed), byte(at)))
		key := bytes.Clone(dek)
		key[at%KeySize] ^= 1 << (at % 8)
		mustRefuse(t, "another key", rec, key, sealed)

		for name, change := range map[string]func(*vault.Record){
			"id":           func(r *vault.Record) { r.ID[at%16] ^= 1 },
			"crossing":     func(r *vault.Record) { r.CrossingID[at%16] ^= 1 },
			"modality":     func(r *vault.Record) { r.Modality = vault.Plate },
			"site":         func(r *vault.Record) { r.Site = other },
			"lane":         func(r *vault.Record) { r.Lane = other },
			"border":       func(r *vault.Record) { r.Site, r.Lane = r.Site+r.Lane, "" },
			"swapped":      func(r *vault.Record) { r.Site, r.Lane = r.Lane, r.Site },
			"time":         func(r *vault.Record) { r.CapturedAt = r.CapturedAt.Add(time.Microsecond) },
			"content type": func(r *vault.Record) { r.ContentType = other },
			"class":        func(r *vault.Record) { r.Class = lane },
			"no class":     func(r *vault.Record) { r.Class = "" },
			"orientation":  func(r *vault.Record) { r.Orientation = int(at) },
		} {
			swapped := rec
			if change(&swapped); swapped != rec {
				mustRefuse(t, "another "+name, swapped, dek, sealed)
			}
		}
	})
}
