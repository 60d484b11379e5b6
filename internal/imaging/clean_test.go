package imaging

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"slices"
	"strings"
	"testing"
)

func clean(t testing.TB, raw []byte) Image {
	t.Helper()
	got, err := Clean(raw, Limits{})
	if err != nil {
		t.Fatalf("Clean: %v", err)
	}
	return got
}

// dirty adds everything that must go.
func dirty(t testing.TB, file []byte) []byte {
	inner := jpegOf(t, drawn(8, 8))
	if file[0] == 0xff {
		whole := insert(file,
			seg(mAPP1, exifID, exifBlock(binary.BigEndian, 1, inner)),
			seg(mAPP1, "http://ns.adobe.com/xap/1.0/\x00", marked),
			seg(mAPP2, "MPF\x00", marked),
			[]byte{0xff, 0xff}, // fill bytes
			seg(0xed, "Photoshop 3.0\x00", marked),
			seg(0xef, marked),
			seg(mAPP14, "Short", marked),
			seg(mCOM, marked),
			seg(mCOM),
		)
		end := len(whole) - 2
		whole = slices.Concat(whole[:end], seg(mCOM, marked), seg(mAPP1, exifID, marked), whole[end:])
		return slices.Concat(whole, inner, []byte(marked))
	}
	whole := insertPNG(file,
		chunkOf("tEXt", "Comment\x00", marked), chunkOf("zTXt", "Comment\x00\x00", marked),
		chunkOf("iTXt", "XML:com.adobe.xmp\x00\x00\x00\x00\x00", marked), chunkOf("tIME", "\x07\xe0\x01\x01\x01\x01\x01"),
		chunkOf("eXIf", exifBlock(binary.LittleEndian, 1, inner)), chunkOf("hIST", marked), chunkOf("sPLT", marked),
		chunkOf("prVt", marked), chunkOf("acTL", "\x00\x00\x00\x01\x00\x00\x00\x00"), chunkOf("gAMA", marked), chunkOf("dSIG", marked),
	)
	end := len(whole) - 12
	late := slices.Concat(chunkOf("tEXt", "Late\x00", marked), chunkOf("fdAT", "\x00\x00\x00\x01", marked),
		chunkOf("gAMA", "LATE"), chunkOf("eXIf", marked))
	return slices.Concat(whole[:end], late, whole[end:], inner, []byte(marked))
}

// The promise: the same pixels come out, clean, and again the same.
func TestCleanKeepsThePictureAndNothingElse(t *testing.T) {
	for name, file := range pictures(t) {
		t.Run(name, func(t *testing.T) {
			for what, in := range map[string][]byte{"as it is": file, "dirty": dirty(t, file)} {
				before := slices.Clone(in)
				got := clean(t, in)
				if !bytes.Equal(in, before) {
					t.Fatalf("%s: Clean changed its input", what)
				}
				samePixels(t, in, got.Bytes)
				onlyPicture(t, got)
				if bytes.Contains(got.Bytes, []byte(marked)) {
					t.Fatalf("%s: metadata came out", what)
				}
				if got.Orientation != 1 && !strings.HasSuffix(name, ".jpg") {
					t.Fatalf("%s: orientation %d", what, got.Orientation)
				}
				again := clean(t, got.Bytes)
				if !bytes.Equal(again.Bytes, got.Bytes) || again.Orientation != 1 {
					t.Fatalf("%s: cleaned again it differs", what)
				}
				config, kind, err := image.DecodeConfig(bytes.NewReader(in))
				if err != nil || config.Width != got.Width || config.Height != got.Height || "image/"+kind != got.ContentType {
					t.Fatalf("%s: got %s of %d x %d; the decoder says %s of %v, %v", what, got.ContentType, got.Width, got.Height, kind, config, err)
				}
				clear(in)
				if again := clean(t, got.Bytes); !bytes.Equal(again.Bytes, got.Bytes) {
					t.Fatalf("%s: the result shares memory with the input", what)
				}
				copy(in, before)
			}
			if a, b := clean(t, file), clean(t, dirty(t, file)); !bytes.Equal(a.Bytes, b.Bytes) {
				t.Fatal("metadata left a trace: the dirty file does not clean to what the plain one does")
			}
		})
	}
}

// onlyPicture fails if an image holds a segment or chunk that is not on the list.
func onlyPicture(t testing.TB, m Image) {
	t.Helper()
	if m.ContentType == TypePNG {
		names := chunks(t, m.Bytes)
		for _, name := range names {
			if !strings.Contains("IHDR PLTE tRNS IDAT IEND gAMA cHRM sRGB iCCP sBIT bKGD pHYs cICP", name) {
				t.Fatalf("chunk %q came out", name)
			}
		}
		if i := slices.Index(names, "IEND"); i != len(names)-1 {
			t.Fatalf("chunks came out behind the end: %v", names)
		}
		return
	}
	segs := segments(t, m.Bytes)
	for i, s := range segs {
		payload := m.Bytes[min(s.start+4, s.end):s.end]
		switch s.code {
		case mSOF0, mSOF1, mSOF2, mDHT, mDQT, mDRI, mSOS:
		case mEOI:
			if i != len(segs)-1 {
				t.Fatal("segments came out behind the end")
			}
		case mAPP0:
			if len(payload) != 14 || string(payload[:5]) != "JFIF\x00" || payload[12] != 0 || payload[13] != 0 {
				t.Fatalf("APP0 came out with %q", payload)
			}
		case mAPP2:
			if !bytes.HasPrefix(payload, []byte(iccID)) {
				t.Fatalf("APP2 came out with %.20q", payload)
			}
		case mAPP14:
			if len(payload) != 12 || string(payload[:5]) != "Adobe" {
				t.Fatalf("APP14 came out with %q", payload)
			}
		default:
			t.Fatalf("segment FF%02X came out", s.code)
		}
	}
}

// The scans of a progressive file stay, and comments between them go.
func TestCleanProgressiveScans(t *testing.T) {
	plain := handmade(true, 40, 1, nil)
	got := clean(t, handmade(true, 40, 1, join(seg(mCOM, marked), "\xff\xff\xff", seg(mAPP1, marked), "\xff")))
	if !bytes.Equal(got.Bytes, plain) {
		t.Fatalf("got %d bytes, want the %d of the plain file", len(got.Bytes), len(plain))
	}
	scans, restarts := 0, bytes.Count(got.Bytes, []byte{0xff, mRST7})
	for _, s := range segments(t, got.Bytes) {
		if s.code == mSOS {
			scans++
		}
	}
	if scans != 4 || restarts < 4 {
		t.Fatalf("%d scans with %d restarts, want 4 with at least as many", scans, restarts)
	}
}

func TestCleanOrientation(t *testing.T) {
	jpg, png := jpegOf(t, drawn(20, 10)), pngOf(t, drawn(20, 10))
	for v := range uint16(10) {
		want := int(v)
		if v < 1 || v > 8 {
			want = 1
		}
		for _, order := range []byteOrder{binary.LittleEndian, binary.BigEndian} {
			block := exifBlock(order, v, nil)
			for kind, in := range map[string][]byte{
				"jpeg": insert(jpg, seg(mAPP1, "http://ns.adobe.com/xap/1.0/\x00"), seg(mAPP1, exifID, block)),
				"png":  insertPNG(png, chunkOf("eXIf", block)),
			} {
				got := clean(t, in)
				if got.Orientation != want || got.Width != 20 || got.Height != 10 {
					t.Errorf("%s %v %d: got orientation %d of %d x %d", kind, order, v, got.Orientation, got.Width, got.Height)
				}
				if again := clean(t, got.Bytes); again.Orientation != 1 {
					t.Errorf("%s: the orientation is still in the bytes", kind)
				}
			}
		}
	}
	// Broken blocks are no reason to lose a picture.
	block := exifBlock(binary.BigEndian, 6, nil)
	for n := range 34 {
		if got := clean(t, insert(jpg, seg(mAPP1, exifID, block[:n]))); got.Orientation != 1 {
			t.Errorf("EXIF cut at %d: orientation %d", n, got.Orientation)
		}
	}
	far := slices.Clone(block)
	binary.BigEndian.PutUint32(far[4:], 0xffffffff)
	if got := clean(t, insert(jpg, seg(mAPP1, exifID, far))); got.Orientation != 1 {
		t.Errorf("directory outside the block: orientation %d", got.Orientation)
	}
	asBytes := slices.Clone(block)
	asBytes[8+2+12+3] = 1 // the entry's type
	if got := clean(t, insert(jpg, seg(mAPP1, exifID, asBytes))); got.Orientation != 1 {
		t.Errorf("orientation of another type: %d", got.Orientation)
	}
	// Of several, the first that says it counts.
	other := exifBlock(binary.LittleEndian, 3, nil)
	if got := clean(t, insert(jpg, seg(mAPP1, exifID, far), seg(mAPP1, exifID, block), seg(mAPP1, exifID, other))); got.Orientation != 6 {
		t.Errorf("first of several: orientation %d, want 6", got.Orientation)
	}
}

func TestCleanJFIFAndAdobe(t *testing.T) {
	plain := jpegOf(t, drawn(40, 30))
	jfif := seg(mAPP0, "JFIF\x00\x01\x02\x01\x00\x48\x00\x48", 2, 2, bytes.Repeat([]byte{'t'}, 12))
	bare := seg(mAPP0, "JFIF\x00\x01\x02\x01\x00\x48\x00\x48", 0, 0)
	jfxx := seg(mAPP0, "JFXX\x00\x10", plain[:100])
	rgb := seg(mAPP14, "Adobe\x00\x64\x00\x00\x00\x00", 0, marked)
	ycc := seg(mAPP14, "Adobe\x00\x64\x00\x00\x00\x00", 1)
	for name, c := range map[string]struct {
		in, want []byte
		err      string
	}{
		"thumbnails go":           {insert(plain, jfif, jfxx, jfif), insert(plain, bare), ""},
		"RGB by Adobe stays RGB":  {insert(plain, rgb), insert(plain, seg(mAPP14, "Adobe\x00\x64\x00\x00\x00\x00", 0)), ""},
		"JFIF wins over Adobe":    {insert(plain, bare, rgb), insert(plain, bare, seg(mAPP14, "Adobe\x00\x64\x00\x00\x00\x00", 0)), ""},
		"order is fixed":          {insert(plain, ycc, bare), insert(plain, bare, ycc), ""},
		"JFXX takes back JFIF":    {insert(plain, bare, jfxx, rgb), nil, "disagree on the colours"},
		"two Adobe headers":       {insert(plain, rgb, ycc), nil, "disagree on the colours"},
		"short JFIF":              {insert(plain, seg(mAPP0, "JFIF\x00\x01\x02")), nil, "must have 14"},
		"JFIF behind a scan":      {slices.Concat(plain[:len(plain)-2], bare, plain[len(plain)-2:]), nil, "after a scan"},
		"Adobe behind a scan":     {slices.Concat(plain[:len(plain)-2], rgb, plain[len(plain)-2:]), nil, "after a scan"},
		"unknown APP0 goes":       {insert(plain, seg(mAPP0, "AVI1\x00", marked), seg(mAPP0)), plain, ""},
		"another APP14 goes":      {insert(plain, seg(mAPP14, "Camera maker", marked)), plain, ""},
		"a short Adobe one goes":  {insert(plain, seg(mAPP14, "Adobe\x00\x64")), plain, ""},
		"two equal Adobe headers": {insert(plain, ycc, ycc), insert(plain, ycc), ""},
	} {
		got, err := Clean(c.in, Limits{})
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: got %v, want %q", name, err, c.err)
			}
			continue
		}
		if err != nil || !bytes.Equal(got.Bytes, c.want) {
			t.Errorf("%s: got %v and other bytes than wanted", name, err)
			continue
		}
		samePixels(t, c.in, got.Bytes)
	}
}

func TestCleanProfileOfJPEG(t *testing.T) {
	plain := jpegOf(t, drawn(40, 30))
	part := func(n, of int, data []byte) []byte { return seg(mAPP2, iccID, n, of, data) }
	p := iccProfile(100_000)
	one, two := part(1, 2, p[:65000]), part(2, 2, p[65000:])
	padded := part(1, 1, slices.Concat(iccProfile(201), make([]byte, 3)))
	whole := insert(plain, one, two)
	var many [][]byte
	for i := range 17 {
		many = append(many, part(i+1, 17, make([]byte, 65000)))
	}
	for name, c := range map[string]struct {
		in, want []byte
	}{
		"kept":                  {whole, whole},
		"put in order":          {insert(plain, two, one), whole},
		"padded":                {insert(plain, padded), insert(plain, padded)},
		"part missing":          {insert(plain, two), plain},
		"part twice":            {insert(plain, one, two, two), plain},
		"part twice as padding": {insert(plain, one, part(2, 2, []byte("ab")), two), plain},
		"number zero":           {insert(plain, one, two, part(0, 2, nil)), plain},
		"counts differ":         {insert(plain, one, part(2, 3, p[65000:])), plain},
		"cut off":               {insert(plain, seg(mAPP2, iccID)), plain},
		"no profile":            {insert(plain, part(1, 1, []byte(marked))), plain},
		"more behind its end":   {insert(plain, part(1, 1, join(iccProfile(200), marked))), plain},
		"less than it says":     {insert(plain, part(1, 1, iccProfile(200)[:199])), plain},
		"behind the first scan": {slices.Concat(plain[:len(plain)-2], one, two, plain[len(plain)-2:]), plain},
	} {
		if got := clean(t, c.in); !bytes.Equal(got.Bytes, c.want) {
			t.Errorf("%s: got %d bytes, want %d", name, len(got.Bytes), len(c.want))
		}
	}
	// The header may lie across parts.
	binary.BigEndian.PutUint32(p, uint32(50_000))
	split := insert(plain, part(1, 3, p[:10]), part(2, 3, p[10:38]), part(3, 3, p[38:50_000]))
	if got := clean(t, split); !bytes.Equal(got.Bytes, split) {
		t.Error("a profile with a split header was not kept")
	}
	refused(t, "over the limit", insert(plain, many...), ReasonTooLarge, "ICC")
}

func TestCleanPNGColours(t *testing.T) {
	palette := pngOf(t, image.NewPaletted(image.Rect(0, 0, 4, 4), testPalette))
	colour := pngOf(t, drawn(4, 4))
	kept := slices.Concat(chunkOf("gAMA", "\x00\x00\xb1\x8f"), chunkOf("cHRM", make([]byte, 32)), chunkOf("sRGB", 0),
		chunkOf("iCCP", "profile\x00\x00", "compressed"), chunkOf("cICP", "\x01\x0d\x00\x01"), chunkOf("pHYs", make([]byte, 9)))
	for name, c := range map[string]struct{ in, want []byte }{
		"all":       {insertPNG(colour, kept), insertPNG(colour, kept)},
		"palette":   {insertPNG(palette, chunkOf("sBIT", "\x08\x08\x08")), insertPNG(palette, chunkOf("sBIT", "\x08\x08\x08"))},
		"only once": {insertPNG(colour, kept, kept), insertPNG(colour, kept)},
		"bad sizes": {insertPNG(colour, chunkOf("gAMA"), chunkOf("cHRM", marked), chunkOf("sRGB", marked), chunkOf("cICP", marked),
			chunkOf("pHYs", marked), chunkOf("sBIT", 1), chunkOf("bKGD", marked)), colour},
		"bad profiles": {insertPNG(colour, chunkOf("iCCP", marked), chunkOf("iCCP", "\x00\x00"), chunkOf("iCCP", "n\x00\x01", marked),
			chunkOf("iCCP", bytes.Repeat([]byte{'n'}, 80), "\x00\x00", marked), chunkOf("iCCP", "n\x00")), colour},
		"background": {insertPNG(colour, chunkOf("bKGD", "\x00\x01\x00\x01\x00\x01")), insertPNG(colour, chunkOf("bKGD", "\x00\x01\x00\x01\x00\x01"))},
	} {
		if got := clean(t, c.in); !bytes.Equal(got.Bytes, c.want) {
			t.Errorf("%s: got %q", name, chunks(t, got.Bytes))
		}
	}
	refused(t, "large profile", insertPNG(colour, chunkOf("iCCP", "n\x00\x00", make([]byte, MaxProfile))), ReasonTooLarge, "ICC")
}

// Refusing a bomb must cost nothing: it happens before memory for the picture is taken.
func TestCleanAllocatesLittleForABomb(t *testing.T) {
	for name, file := range map[string][]byte{
		"png":  join(pngSignature, ihdr(60_000, 60_000, 8, 2), chunkOf("IDAT", make([]byte, 4<<20))),
		"jpeg": join("\xff\xd8", seg(mSOF0, 8, "\xff\xff\xff\xff\x01", "\x01\x11\x00"), make([]byte, 4<<20)),
	} {
		r := testing.Benchmark(func(b *testing.B) {
			for range b.N {
				if _, err := Clean(file, Limits{}); err == nil {
					b.Fatal("taken")
				}
			}
		})
		if r.AllocedBytesPerOp() > 4096 {
			t.Errorf("%s: refusing took %d bytes of memory", name, r.AllocedBytesPerOp())
		}
	}
}

func ExampleClean() {
	_, err := Clean([]byte("GIF89a..."), Limits{})
	fmt.Println(err)
	// Output: IMAGE_TYPE_UNSUPPORTED: neither JPEG nor PNG; it looks like GIF
}
