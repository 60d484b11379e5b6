package imaging

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"strings"
	"testing"
)

var testPalette = color.Palette{color.Black, color.NRGBA{R: 1, A: 9}}

// FuzzClean: whatever comes in, Clean does not panic, and what it lets through holds the
// picture alone, is no larger, comes out the same when cleaned again, and means the same to
// the standard decoders.
func FuzzClean(f *testing.F) {
	for _, file := range pictures(f) {
		if len(file) < 8<<10 { // photos are slow to change and hold nothing that these do not
			f.Add(file)
			f.Add(dirty(f, file))
		}
	}
	small := jpegOf(f, drawn(9, 9))
	f.Add(insert(small, seg(mAPP0, "JFIF\x00\x01\x02\x01\x00\x48\x00\x48", 1, 1, "rgb"), seg(mAPP0, "JFXX\x00\x10")))
	f.Add(insert(small, seg(mAPP14, "Adobe\x00\x64\x00\x00\x00\x00", 0)))
	f.Add(insert(small, seg(mAPP2, iccID, 1, 2, iccProfile(200)[:100]), seg(mAPP2, iccID, 2, 2, iccProfile(200)[100:])))
	f.Add(insert(small, seg(mAPP1, exifID, exifBlock(binary.LittleEndian, 6, nil))))
	f.Add(pngOf(f, image.NewPaletted(image.Rect(0, 0, 4, 4), testPalette)))
	f.Add([]byte("GIF89a"))
	f.Add([]byte("RIFF\x24\x00\x00\x00WEBPVP8 "))
	f.Add([]byte(nil))
	f.Fuzz(holds)
}

// FuzzCleanPNG is FuzzClean behind the checksums, which random bytes do not get past.
func FuzzCleanPNG(f *testing.F) {
	for name, file := range pictures(f) {
		if strings.HasPrefix(name, "png") {
			f.Add(file[8:])
			f.Add(dirty(f, file)[8:])
		}
	}
	f.Add(pngOf(f, image.NewPaletted(image.Rect(0, 0, 4, 4), testPalette))[8:])
	f.Fuzz(func(t *testing.T, chunks []byte) {
		raw := append([]byte(pngSignature), chunks...)
		for i := 8; i+12 <= len(raw); {
			end := i + 8 + int(binary.BigEndian.Uint32(raw[i:]))
			if end+4 > len(raw) {
				break
			}
			binary.BigEndian.PutUint32(raw[end:], crc32.ChecksumIEEE(raw[i+4:end]))
			i = end + 4
		}
		holds(t, raw)
	})
}

// holds fails unless everything that Clean promises of any input holds of this one.
func holds(t *testing.T, raw []byte) {
	before := bytes.Clone(raw)
	got, err := Clean(raw, Limits{MaxPixels: 1 << 20})
	if !bytes.Equal(raw, before) {
		t.Fatal("Clean changed its input")
	}
	if err != nil {
		bad, ok := err.(*Error)
		if !ok || bad.Offset > len(raw) || bad.Detail == "" {
			t.Fatalf("the error is %#v", err)
		}
		return
	}
	if len(got.Bytes) > len(raw) {
		t.Fatalf("%d bytes became %d", len(raw), len(got.Bytes))
	}
	if got.Orientation < 1 || got.Orientation > 8 {
		t.Fatalf("orientation %d", got.Orientation)
	}
	onlyPicture(t, got)
	again, err := Clean(got.Bytes, Limits{MaxPixels: 1 << 20})
	if err != nil || !bytes.Equal(again.Bytes, got.Bytes) {
		t.Fatalf("cleaned again it differs: %v", err)
	}
	config, kind, err := image.DecodeConfig(bytes.NewReader(raw))
	if err != nil {
		return
	}
	if config.Width != got.Width || config.Height != got.Height || "image/"+kind != got.ContentType {
		t.Fatalf("got %s of %d x %d; the decoder says %s of %d x %d", got.ContentType, got.Width, got.Height, kind, config.Width, config.Height)
	}
	if config.Width*config.Height > 1<<14 {
		return // comparing pixels is slow
	}
	if _, _, err := image.Decode(bytes.NewReader(raw)); err == nil {
		samePixels(t, raw, got.Bytes)
	} else if _, _, err := image.Decode(bytes.NewReader(got.Bytes)); err == nil {
		t.Fatal("what could not be decoded now can be: bytes of the picture have changed")
	}
}
