package imaging

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"runtime"
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
	f.Add(insert(small, seg(mAPP14, "Adobe\x00\x64\x00\x00\x00\x00", 1, marked)))
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

// FuzzCleanJPEG is FuzzClean behind the lengths of segments, which random changes break: the
// bytes are read as segments of a code, a length in one byte and what they hold. A scan's data
// follow its header in the same form.
func FuzzCleanJPEG(f *testing.F) {
	for name, file := range pictures(f) {
		if strings.HasPrefix(name, "jpeg") && len(file) < 8<<10 {
			f.Add(loose(f, file))
			f.Add(loose(f, insert(file, seg(mAPP1, exifID, exifBlock(binary.BigEndian, 6, nil)), seg(mCOM, marked), seg(mAPP14, "Adobe\x00\x64\x00\x00\x00\x00", 1))))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		raw := []byte{0xff, mSOI}
		take := func() (out []byte) {
			if len(b) > 0 {
				n := min(int(b[0]), len(b)-1)
				out, b = b[1:1+n], b[1+n:]
			}
			return out
		}
		for len(b) > 0 {
			code := b[0]
			b = b[1:]
			raw = append(raw, seg(code, take())...)
			if code == mSOS {
				raw = append(raw, take()...)
			}
		}
		holds(t, append(raw, 0xff, mEOI))
	})
}

// loose writes a JPEG's segments as FuzzCleanJPEG reads them, each cut to 255 bytes.
func loose(t testing.TB, file []byte) (out []byte) {
	put := func(b []byte) {
		b = b[:min(len(b), 255)]
		out = append(append(out, byte(len(b))), b...)
	}
	for _, s := range segments(t, file) {
		if s.code == mEOI {
			break
		}
		whole := file[s.start:s.end]
		n := 2 + int(binary.BigEndian.Uint16(whole[2:]))
		out = append(out, s.code)
		put(whole[4:n])
		if s.code == mSOS {
			put(whole[n:])
		}
	}
	return out
}

// allocated gives the bytes that the program has allocated so far. Counting stops the world,
// so it is done for one file in sixteen, told by its bytes.
func allocated(raw []byte) uint64 {
	if crc32.ChecksumIEEE(raw)%16 != 0 {
		return 0
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// holds fails unless everything that Clean promises of any input holds of this one.
func holds(t *testing.T, raw []byte) {
	before := bytes.Clone(raw)
	start := allocated(raw)
	got, err := Clean(raw, Limits{MaxPixels: 1 << 20})
	// Twice the file, for the parts of the picture and the whole, and what the walk itself needs.
	if used, most := allocated(raw)-start, uint64(4*len(raw)+1<<17); used > most {
		t.Fatalf("%d bytes of memory for a file of %d; %d are enough", used, len(raw), most)
	}
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
