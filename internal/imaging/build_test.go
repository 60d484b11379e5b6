package imaging

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// marked is what tests hide in metadata and must not find again.
const marked = "SECRET-METADATA"

// drawn is a picture with detail in all channels.
func drawn(w, h int) *image.NRGBA {
	m := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			m.SetNRGBA(x, y, color.NRGBA{uint8(x * 7), uint8(y * 5), uint8(x*y + x), uint8(255 - x%3)})
		}
	}
	return m
}

func jpegOf(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: 85}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func pngOf(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// join concatenates strings and byte slices.
func join(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case []byte:
			b = append(b, p...)
		case string:
			b = append(b, p...)
		case int:
			b = append(b, byte(p))
		}
	}
	return b
}

func seg(code byte, payload ...any) []byte {
	p := join(payload...)
	b := binary.BigEndian.AppendUint16([]byte{0xff, code}, uint16(len(p)+2))
	return append(b, p...)
}

// insert puts segments behind a JPEG's SOI.
func insert(file []byte, segs ...[]byte) []byte {
	return slices.Concat(file[:2], slices.Concat(segs...), file[2:])
}

func chunkOf(name string, data ...any) []byte {
	d := join(data...)
	b := binary.BigEndian.AppendUint32(nil, uint32(len(d)))
	b = append(append(b, name...), d...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:]))
}

// insertPNG puts chunks behind IHDR.
func insertPNG(file []byte, chunks ...[]byte) []byte {
	const end = 8 + 12 + 13
	return slices.Concat(file[:end], slices.Concat(chunks...), file[end:])
}

func ihdr(w, h uint32, depth, colour byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, w)
	b = binary.BigEndian.AppendUint32(b, h)
	return chunkOf("IHDR", b, []byte{depth, colour, 0, 0, 0})
}

type byteOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

// exifBlock is an EXIF block with a maker's name, an orientation and a thumbnail.
func exifBlock(order byteOrder, orient uint16, thumbnail []byte) []byte {
	b := []byte("II*\x00")
	if order.Uint16([]byte{0, 1}) == 1 {
		b = []byte("MM\x00*")
	}
	b = order.AppendUint32(b, 8)
	b = order.AppendUint16(b, 2)
	for _, e := range [][4]uint32{{0x010f, 2, uint32(len(marked)), 38}, {0x0112, 3, 1, 0}} {
		b = order.AppendUint16(b, uint16(e[0]))
		b = order.AppendUint16(b, uint16(e[1]))
		b = order.AppendUint32(b, e[2])
		if e[0] == 0x0112 {
			b = append(order.AppendUint16(b, orient), 0, 0)
		} else {
			b = order.AppendUint32(b, e[3])
		}
	}
	b = order.AppendUint32(b, 0)
	return append(append(b, marked...), thumbnail...)
}

// iccProfile is a profile of n bytes that passes for one.
func iccProfile(n int) []byte {
	b := bytes.Repeat([]byte{'p'}, n)
	binary.BigEndian.PutUint32(b, uint32(n))
	copy(b[36:], "acsp")
	return b
}

// bits writes entropy-coded data.
type bits struct {
	out  []byte
	acc  uint32
	held int
}

func (w *bits) put(code uint32, n int) {
	for n--; n >= 0; n-- {
		w.acc = w.acc<<1 | code>>n&1
		if w.held++; w.held == 8 {
			w.out = append(w.out, byte(w.acc))
			if byte(w.acc) == 0xff {
				w.out = append(w.out, 0)
			}
			w.acc, w.held = 0, 0
		}
	}
}

func (w *bits) flush() {
	for w.held != 0 {
		w.put(1, 1)
	}
}

// handmade is a grey JPEG of 8 x 8 blocks, made bit by bit: the standard encoder writes
// neither progressive files nor restart markers. between goes between the scans.
func handmade(progressive bool, blocks, restart int, between []byte) []byte {
	w := 8 * blocks
	sof := byte(mSOF0)
	if progressive {
		sof = mSOF2
	}
	quant := bytes.Repeat([]byte{8}, 64)
	two := make([]byte, 16)
	two[1] = 3 // three codes of two bits: 00, 01, 10
	b := join("\xff\xd8",
		seg(mDQT, 0, quant),
		seg(sof, 8, []byte{0, 8, byte(w >> 8), byte(w)}, 1, []byte{1, 0x11, 0}),
		seg(mDHT, 0x00, two, []byte{0, 2, 3}),          // DC: no difference, 2 bits, 3 bits
		seg(mDHT, 0x10, two, []byte{0x00, 0x01, 0x02}), // AC: end of block, 1 bit, 2 bits
	)
	if restart > 0 {
		b = append(b, seg(mDRI, 0, restart)...)
	}
	dc := func(o *bits, i int) {
		if i%2 == 0 {
			o.put(2, 2) // three bits follow
			o.put(uint32(4+i%4), 3)
		} else {
			o.put(1, 2) // two bits follow
			o.put(uint32(i%2), 2)
		}
	}
	ac := func(o *bits, i int) {
		o.put(2, 2)
		o.put(uint32(i%4), 2)
		o.put(1, 2)
		o.put(uint32(i%2), 1)
		o.put(0, 2)
	}
	scan := func(from, to, approx int, block func(o *bits, i int)) {
		b = append(b, seg(mSOS, 1, 1, 0x00, from, to, approx)...)
		o := &bits{}
		for i := range blocks {
			if restart > 0 && i > 0 && i%restart == 0 {
				o.flush()
				o.out = append(o.out, 0xff, byte(mRST0+(i/restart-1)%8))
			}
			block(o, i)
		}
		o.flush()
		b = append(append(b, o.out...), between...)
	}
	if progressive {
		scan(0, 0, 0x01, dc)
		scan(1, 5, 0x00, ac)
		scan(6, 63, 0x00, func(o *bits, i int) { o.put(0, 2) })
		scan(0, 0, 0x10, func(o *bits, i int) { o.put(uint32(i), 1) })
	} else {
		scan(0, 63, 0, func(o *bits, i int) { dc(o, i); ac(o, i) })
	}
	return append(b, 0xff, mEOI)
}

// segments lists a JPEG's segments; what follows a scan header belongs to it.
func segments(t testing.TB, file []byte) (out []struct {
	code       byte
	start, end int
}) {
	t.Helper()
	for i := 2; i < len(file); {
		if file[i] != 0xff || i+1 == len(file) {
			t.Fatalf("no marker at %d of %d", i, len(file))
		}
		code, start := file[i+1], i
		i += 2
		if code != mEOI {
			i += int(binary.BigEndian.Uint16(file[i:]))
		}
		if code == mSOS {
			for file[i] != 0xff || file[i+1] == 0 || file[i+1] == 0xff || file[i+1]&0xf8 == mRST0 {
				i++
			}
		}
		out = append(out, struct {
			code       byte
			start, end int
		}{code, start, i})
	}
	return out
}

// chunks lists the names of a PNG's chunks.
func chunks(t testing.TB, file []byte) (names []string) {
	t.Helper()
	for i := 8; i < len(file); i += 12 + int(binary.BigEndian.Uint32(file[i:])) {
		names = append(names, string(file[i+4:i+8]))
	}
	return names
}

// pictures are good files of all kinds: drawn here, and those of a directory if one is set.
func pictures(t testing.TB) map[string][]byte {
	t.Helper()
	nrgba := drawn(61, 43)
	gray, gray16, deep := image.NewGray(nrgba.Rect), image.NewGray16(nrgba.Rect), image.NewNRGBA64(nrgba.Rect)
	opaque := image.NewRGBA(nrgba.Rect)
	indexed := image.NewPaletted(nrgba.Rect, color.Palette{color.Black, color.White, color.NRGBA{200, 10, 10, 128}})
	for y := range 43 {
		for x := range 61 {
			c := nrgba.NRGBAAt(x, y)
			gray.Set(x, y, c)
			gray16.Set(x, y, c)
			deep.Set(x, y, c)
			indexed.Set(x, y, c)
			c.A = 255
			opaque.Set(x, y, c)
		}
	}
	out := map[string][]byte{
		"jpeg colour": jpegOf(t, nrgba), "jpeg grey": jpegOf(t, gray),
		"jpeg restart": handmade(false, 40, 3, nil), "jpeg baseline by hand": handmade(false, 40, 0, nil),
		"jpeg progressive": handmade(true, 40, 0, nil), "jpeg progressive restart": handmade(true, 40, 1, nil),
		"png colour and alpha": pngOf(t, nrgba), "png colour": pngOf(t, opaque), "png grey": pngOf(t, gray),
		"png grey 16": pngOf(t, gray16), "png 16": pngOf(t, deep), "png palette": pngOf(t, indexed),
	}
	dir := os.Getenv("PORTCULLIS_TEST_IMAGES")
	if dir == "" {
		return out
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if ext := filepath.Ext(path); err != nil || d.IsDir() || !slices.Contains([]string{".jpg", ".jpeg", ".png"}, ext) {
			return err
		}
		out[d.Name()], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files with those of the directory", len(out))
	return out
}

// samePixels fails unless both files decode to the same picture.
func samePixels(t testing.TB, before, after []byte) {
	t.Helper()
	a, kind, err := image.Decode(bytes.NewReader(before))
	if err != nil {
		t.Fatalf("decode what went in: %v", err)
	}
	b, kind2, err := image.Decode(bytes.NewReader(after))
	if err != nil {
		t.Fatalf("decode what came out: %v", err)
	}
	if kind != kind2 || a.Bounds() != b.Bounds() || a.ColorModel() != nil && !sameModel(a.ColorModel(), b.ColorModel()) {
		t.Fatalf("%s of %v became %s of %v, or changed its colour model", kind, a.Bounds(), kind2, b.Bounds())
	}
	for y := a.Bounds().Min.Y; y < a.Bounds().Max.Y; y++ {
		for x := a.Bounds().Min.X; x < a.Bounds().Max.X; x++ {
			if a.At(x, y) != b.At(x, y) {
				t.Fatalf("pixel %d,%d was %v and is %v", x, y, a.At(x, y), b.At(x, y))
			}
		}
	}
}

func sameModel(a, b color.Model) bool {
	p, ok := a.(color.Palette)
	q, ok2 := b.(color.Palette)
	if ok || ok2 {
		return ok && ok2 && slices.Equal(p, q)
	}
	return a == b
}
