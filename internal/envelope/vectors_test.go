package envelope

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portcullis/portcullis/vault"
)

// hexBytes are hexadecimal digits in JSON.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

type vector struct {
	Name   string
	Record struct {
		RecordID     vault.ID `json:"record_id"`
		Modality     vault.Modality
		Site, Lane   string
		CapturedAtUS int64    `json:"captured_at_us"`
		CrossingID   vault.ID `json:"crossing_id"`
		ContentType  string   `json:"content_type"`
		Orientation  int
		Class        *string // records of version 1 have none
	}
	KeyName        string   `json:"key_name"`
	DEK            hexBytes `json:"dek"`
	AssociatedData hexBytes `json:"associated_data"`
	Image, Sealed  hexBytes
}

func (v vector) record() vault.Record {
	r, class := v.Record, vault.DefaultClass
	if r.Class != nil {
		class = *r.Class
	}
	return vault.Record{
		ID: r.RecordID, Modality: r.Modality, Site: r.Site, Lane: r.Lane, CapturedAt: time.UnixMicro(r.CapturedAtUS),
		CrossingID: r.CrossingID, ContentType: r.ContentType, Orientation: r.Orientation, Class: class,
	}
}

func vectors(t testing.TB, file string) []vector {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []vector
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&all); err != nil || len(all) == 0 {
		t.Fatalf("%s: %d vectors, %v", file, len(all), err)
	}
	return all
}

func TestVectors(t *testing.T) {
	for _, v := range append(vectors(t, "testdata/v1.json"), vectors(t, "testdata/v2.json")...) {
		t.Run(v.Name, func(t *testing.T) {
			rec := v.record()
			if got := rec.KeyName(); got != v.KeyName {
				t.Errorf("key name %s, want %s", got, v.KeyName)
			}
			aad, err := associatedData(string(v.Sealed[:4]), rec)
			if err != nil || !bytes.Equal(aad, v.AssociatedData) {
				t.Errorf("associated data\n%x, %v; want\n%x", aad, err, v.AssociatedData)
			}
			image, err := Open(rec, v.DEK, v.Sealed)
			if err != nil || !bytes.Equal(image, v.Image) {
				t.Errorf("opened %x, %v; want %x", image, err, v.Image)
			}
			if len(v.Sealed) != len(v.Image)+Overhead {
				t.Errorf("sealed has %d bytes, the image %d", len(v.Sealed), len(v.Image))
			}
		})
	}
}

func TestRefusedVectors(t *testing.T) {
	for _, v := range append(vectors(t, "testdata/v1_refused.json"), vectors(t, "testdata/v2_refused.json")...) {
		mustRefuse(t, v.Name, v.record(), v.DEK, v.Sealed)
	}
}

// TestVersion1IsOfTheDefaultClass: an image from before there were classes opens, but not for
// a record whose class somebody has changed.
func TestVersion1IsOfTheDefaultClass(t *testing.T) {
	for _, v := range vectors(t, "testdata/v1.json") {
		rec := v.record()
		if rec.Class = "standard"; vault.DefaultClass != "standard" {
			t.Fatal("the default class of all records that are stored has another name now")
		}
		if image, err := Open(rec, v.DEK, v.Sealed); err != nil || !bytes.Equal(image, v.Image) {
			t.Errorf("%s: opened %x, %v", v.Name, image, err)
		}
		for _, class := range []string{"", "us-citizen", "standard-2", "standar", "Standard", "standard\x00"} {
			rec.Class = class
			mustRefuse(t, v.Name+" as of class "+class, rec, v.DEK, v.Sealed)
		}
	}
}

func TestSealWritesVersion2(t *testing.T) {
	for _, class := range []string{vault.DefaultClass, "us-citizen"} {
		sealed := mustSeal(t, vault.Record{ID: vault.NewID(), Class: class}, NewKey(), []byte("image"))
		if !bytes.HasPrefix(sealed, []byte("PSI\x02")) {
			t.Errorf("an image of class %s begins with %q", class, sealed[:4])
		}
	}
}

// parse reads associated data of either version back. That every record comes back as it was shows that no
// two records share theirs.
func parse(t fatal, aad []byte) (rec vault.Record, keyName string) {
	t.Helper()
	var fields [][]byte
	for len(aad) > 0 {
		n := 2 + int(binary.BigEndian.Uint16(aad))
		fields, aad = append(fields, aad[2:n]), aad[n:]
	}
	if n := map[string]int{"PSI\x01": 10, "PSI\x02": 11}[string(fields[0])]; len(fields) != n {
		t.Fatalf("%d fields, the first %q", len(fields), fields[0])
	}
	rec = vault.Record{
		ID: vault.ID(fields[1]), Modality: vault.Modality(fields[2]), Site: string(fields[3]), Lane: string(fields[4]),
		CapturedAt: time.UnixMicro(int64(binary.BigEndian.Uint64(fields[5]))), CrossingID: vault.ID(fields[6]),
		ContentType: string(fields[7]), Orientation: int(int64(binary.BigEndian.Uint64(fields[8]))),
	}
	if len(fields) == 11 {
		rec.Class = string(fields[10])
	}
	return rec, string(fields[9])
}

func checkInjective(t fatal, rec vault.Record) {
	t.Helper()
	checkInjectiveIn(t, magic2, rec)
	rec.Class = "" // version 1 binds none
	checkInjectiveIn(t, magic1, rec)
}

func checkInjectiveIn(t fatal, magic string, rec vault.Record) {
	t.Helper()
	aad, err := associatedData(magic, rec)
	if err != nil {
		return // such a record is never sealed
	}
	back, keyName := parse(t, aad)
	if again, err := associatedData(magic, back); err != nil || !bytes.Equal(again, aad) {
		t.Fatalf("%x, read and written again, is %x: %v", aad, again, err)
	}
	if keyName != rec.KeyName() {
		t.Fatalf("key name %q, want %q", keyName, rec.KeyName())
	}
	if !back.CapturedAt.Equal(vault.Micro(rec.CapturedAt)) {
		t.Fatalf("captured at %v, want %v", back.CapturedAt, rec.CapturedAt)
	}
	if back.CapturedAt = rec.CapturedAt; back != rec {
		t.Fatalf("read back %+v, want %+v", back, rec)
	}
}

func TestAssociatedDataIsInjective(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { checkInjective(t, records.Draw(t, "record")) })
}

func FuzzAssociatedData(f *testing.F) {
	f.Add(make([]byte, 32), "face", "north", "1", int64(0), "image/jpeg", int64(1), "us-citizen")
	f.Add([]byte("x"), "", "a.b", "\x00\x01", int64(-1), "\xff", int64(math.MinInt64), "\x00")
	f.Add([]byte{}, "", "", "", int64(math.MaxInt64), "", int64(0), "")
	f.Fuzz(func(t *testing.T, raw []byte, modality, site, lane string, us int64, contentType string, orientation int64, class string) {
		rec := vault.Record{
			Modality: vault.Modality(modality), Site: site, Lane: lane, CapturedAt: time.UnixMicro(us),
			ContentType: contentType, Orientation: int(orientation), Class: class,
		}
		copy(rec.CrossingID[:], raw[copy(rec.ID[:], raw):])
		checkInjective(t, rec)
	})
}

func FuzzOpen(f *testing.F) {
	var firsts []vector
	for _, version := range []string{"testdata/v1", "testdata/v2"} {
		all := append(vectors(f, version+".json"), vectors(f, version+"_refused.json")...)
		for _, v := range all {
			f.Add([]byte(v.DEK), []byte(v.Sealed))
		}
		firsts = append(firsts, all[0])
	}
	f.Fuzz(func(t *testing.T, dek, sealed []byte) {
		for _, first := range firsts {
			image, err := Open(first.record(), dek, sealed)
			switch {
			case err == nil && bytes.Equal(sealed, first.Sealed) && bytes.Equal(dek, first.DEK) && bytes.Equal(image, first.Image):
			case err == nil:
				t.Fatalf("opened %x under %x", sealed, dek)
			case image != nil || vault.KindOf(err) != vault.DataLoss || vault.ReasonOf(err) != vault.ReasonDataLoss:
				t.Fatalf("%d bytes and %v", len(image), err)
			}
		}
	})
}
