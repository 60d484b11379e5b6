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
	}
	KeyName        string   `json:"key_name"`
	DEK            hexBytes `json:"dek"`
	AssociatedData hexBytes `json:"associated_data"`
	Image, Sealed  hexBytes
}

func (v vector) record() vault.Record {
	r := v.Record
	return vault.Record{
		ID: r.RecordID, Modality: r.Modality, Site: r.Site, Lane: r.Lane, CapturedAt: time.UnixMicro(r.CapturedAtUS),
		CrossingID: r.CrossingID, ContentType: r.ContentType, Orientation: r.Orientation,
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
	for _, v := range vectors(t, "testdata/v1.json") {
		t.Run(v.Name, func(t *testing.T) {
			rec := v.record()
			if got := rec.KeyName(); got != v.KeyName {
				t.Errorf("key name %s, want %s", got, v.KeyName)
			}
			aad, err := associatedData(rec)
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
	for _, v := range vectors(t, "testdata/v1_refused.json") {
		mustRefuse(t, v.Name, v.record(), v.DEK, v.Sealed)
	}
}

// parse reads associated data back. That every record comes back as it was shows that no
// two records share theirs.
func parse(t fatal, aad []byte) (rec vault.Record, keyName string) {
	t.Helper()
	var fields [][]byte
	for len(aad) > 0 {
		n := 2 + int(binary.BigEndian.Uint16(aad))
		fields, aad = append(fields, aad[2:n]), aad[n:]
	}
	if len(fields) != 10 || string(fields[0]) != "PSI\x01" {
		t.Fatalf("%d fields, the first %q", len(fields), fields[0])
	}
	rec = vault.Record{
		ID: vault.ID(fields[1]), Modality: vault.Modality(fields[2]), Site: string(fields[3]), Lane: string(fields[4]),
		CapturedAt: time.UnixMicro(int64(binary.BigEndian.Uint64(fields[5]))), CrossingID: vault.ID(fields[6]),
		ContentType: string(fields[7]), Orientation: int(int64(binary.BigEndian.Uint64(fields[8]))),
	}
	return rec, string(fields[9])
}

func checkInjective(t fatal, rec vault.Record) {
	t.Helper()
	aad, err := associatedData(rec)
	if err != nil {
		return // such a record is never sealed
	}
	back, keyName := parse(t, aad)
	if again, err := associatedData(back); err != nil || !bytes.Equal(again, aad) {
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
	f.Add(make([]byte, 32), "face", "north", "1", int64(0), "image/jpeg", int64(1))
	f.Add([]byte("x"), "", "a.b", "\x00\x01", int64(-1), "\xff", int64(math.MinInt64))
	f.Add([]byte{}, "", "", "", int64(math.MaxInt64), "", int64(0))
	f.Fuzz(func(t *testing.T, raw []byte, modality, site, lane string, us int64, contentType string, orientation int64) {
		rec := vault.Record{
			Modality: vault.Modality(modality), Site: site, Lane: lane, CapturedAt: time.UnixMicro(us),
			ContentType: contentType, Orientation: int(orientation),
		}
		copy(rec.CrossingID[:], raw[copy(rec.ID[:], raw):])
		checkInjective(t, rec)
	})
}

func FuzzOpen(f *testing.F) {
	all := append(vectors(f, "testdata/v1.json"), vectors(f, "testdata/v1_refused.json")...)
	for _, v := range all {
		f.Add([]byte(v.DEK), []byte(v.Sealed))
	}
	first := all[0]
	f.Fuzz(func(t *testing.T, dek, sealed []byte) {
		image, err := Open(first.record(), dek, sealed)
		switch {
		case err == nil && bytes.Equal(sealed, first.Sealed) && bytes.Equal(dek, first.DEK) && bytes.Equal(image, first.Image):
		case err == nil:
			t.Fatalf("opened %x under %x", sealed, dek)
		case image != nil || vault.KindOf(err) != vault.DataLoss || vault.ReasonOf(err) != vault.ReasonDataLoss:
			t.Fatalf("%d bytes and %v", len(image), err)
		}
	})
}
