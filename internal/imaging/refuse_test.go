package imaging

import (
	"bytes"
	"encoding/binary"
	"errors"
	"image"
	"slices"
	"strings"
	"testing"
)

// refused fails unless Clean refuses the file for that reason, naming what is wanted.
func refused(t testing.TB, name string, file []byte, reason, names string) {
	t.Helper()
	got, err := Clean(file, Limits{})
	var bad *Error
	switch {
	case !errors.As(err, &bad):
		t.Errorf("%s: got %v, want %s", name, err, reason)
	case bad.Reason != reason || !strings.Contains(bad.Detail, names):
		t.Errorf("%s: got %q, want %s with %q", name, bad, reason, names)
	case bad.Offset > len(file):
		t.Errorf("%s: byte %d lies outside the file", name, bad.Offset)
	case got.Bytes != nil:
		t.Errorf("%s: bytes came with the error", name)
	case strings.Contains(bad.Error(), marked):
		t.Errorf("%s: the error shows metadata", name)
	}
}

func TestCleanRefusesOtherTypes(t *testing.T) {
	for _, c := range []struct{ names, file string }{
		{"GIF", "GIF87a\x01\x00\x01\x00"},
		{"GIF", "GIF89a\x01\x00\x01\x00"},
		{"WebP", "RIFF\x24\x00\x00\x00WEBPVP8 "},
		{"TIFF", "II*\x00\x08\x00\x00\x00"},
		{"TIFF", "MM\x00*\x00\x00\x00\x08"},
		{"BigTIFF", "II+\x00\x08\x00\x00\x00"},
		{"BMP", "BM\x46\x00\x00\x00\x00\x00\x00\x00\x36\x00"},
		{"HEIC", "\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"},
		{"AVIF", "\x00\x00\x00\x18ftypavif\x00\x00\x00\x00"},
		{"video", "\x00\x00\x00\x18ftypisom\x00\x00\x00\x00"},
		{"JPEG 2000", "\x00\x00\x00\x0cjP  \r\n\x87\n"},
		{"JPEG XL", "\xff\x0a\x00\x00"},
		{"PDF", "%PDF-1.7\n"},
		{"text", "BMW seen in lane 3\n"},
		{"text", "<svg xmlns='http://www.w3.org/2000/svg'/>"},
		{"text", strings.Repeat("ü", 400)},
		{"text", "x" + strings.Repeat("ü", 400)},
		{"text", "JFIF"},
		{"no known kind", "\x00\x01\x02\x03"},
		{"no known kind", "\xff"},
		{"no known kind", "abc\xff\xfeabc"},
		{"no known kind", "RIFF\x24\x00\x00\x00WAVEfmt "},
	} {
		refused(t, c.file[:min(len(c.file), 20)], []byte(c.file), ReasonTypeUnsupported, c.names)
	}
	refused(t, "empty", nil, ReasonEmpty, "no bytes")
	refused(t, "empty", []byte{}, ReasonEmpty, "no bytes")
}

func TestCleanLimits(t *testing.T) {
	for kind, file := range map[string][]byte{"jpeg": jpegOf(t, drawn(20, 10)), "png": pngOf(t, drawn(20, 10))} {
		size := int64(len(file))
		for _, c := range []struct {
			lim    Limits
			reason string
		}{
			{Limits{}, ""},
			{Limits{MaxBytes: -1, MaxPixels: -1}, ""},
			{Limits{MaxBytes: size, MaxPixels: 200}, ""},
			{Limits{MaxBytes: size - 1}, ReasonTooLarge},
			{Limits{MaxPixels: 199}, ReasonTooManyPixels},
		} {
			_, err := Clean(file, c.lim)
			var bad *Error
			if errors.As(err, &bad); (err == nil) != (c.reason == "") || err != nil && bad.Reason != c.reason {
				t.Errorf("%s %+v: got %v, want %q", kind, c.lim, err, c.reason)
			}
		}
	}
	refused(t, "default size", make([]byte, 8<<20+1), ReasonTooLarge, "8388609 bytes are over the limit of 8388608")
	refused(t, "pixels of PNG", join(pngSignature, ihdr(60_000, 60_000, 8, 2)), ReasonTooManyPixels, "60000 x 60000 pixels are over the limit of 50000000")
	refused(t, "pixels of JPEG", join("\xff\xd8", seg(mSOF0, 8, "\xff\xff\xff\xff\x01", "\x01\x11\x00")), ReasonTooManyPixels, "65535 x 65535")
	refused(t, "widest PNG", join(pngSignature, ihdr(1<<31-1, 1<<31-1, 8, 2)), ReasonTooManyPixels, "2147483647")
}

// No beginning of a file passes for a file.
func TestCleanRefusesTruncated(t *testing.T) {
	small := drawn(9, 9)
	files := map[string][]byte{
		"jpeg": insert(jpegOf(t, small), seg(mAPP1, exifID, exifBlock(binary.BigEndian, 1, nil)), seg(mCOM, "x")),
		"png":  insertPNG(pngOf(t, small), chunkOf("tEXt", "a\x00b")),

		"progressive": handmade(true, 3, 1, seg(mCOM, "x")),
	}
	for name, file := range files {
		for n := 8; n < len(file); n++ {
			refused(t, name, file[:n], ReasonMalformed, "")
		}
		clean(t, file)
	}
	// Also with the end put back on, at each boundary of segments before the last scan's data.
	for _, s := range segments(t, files["jpeg"]) {
		if s.code != mEOI {
			refused(t, "end marker too early", join(files["jpeg"][:s.start], "\xff\xd9"), ReasonMalformed, "before")
		}
	}
}

func TestCleanRefusesBadJPEG(t *testing.T) {
	good := jpegOf(t, drawn(20, 10))
	hand := handmade(false, 4, 0, nil)
	at := func(file []byte, code byte) int {
		for _, s := range segments(t, file) {
			if s.code == code {
				return s.start
			}
		}
		t.Fatalf("no segment FF%02X", code)
		return 0
	}
	set := func(file []byte, i int, b ...byte) []byte {
		file = slices.Clone(file)
		copy(file[i:], b)
		return file
	}
	before := func(code byte, more ...any) []byte {
		i := at(good, code)
		return slices.Concat(good[:i], join(more...), good[i:])
	}
	without := func(code byte) (out []byte) {
		out = append(out, good[:2]...)
		for _, s := range segments(t, good) {
			if s.code != code {
				out = append(out, good[s.start:s.end]...)
			}
		}
		return out
	}
	sof, dqt, dht, sos, eoi := at(good, mSOF0), at(good, mDQT), at(good, mDHT), at(good, mSOS), at(good, mEOI)
	handSOS := at(hand, mSOS)
	for _, c := range []struct {
		name   string
		file   []byte
		reason string
		names  string
	}{
		{"garbage behind SOI", before(mDQT, "x"), ReasonMalformed, "marker must stand here"},
		{"garbage between segments", before(mSOF0, marked), ReasonMalformed, "marker must stand here"},
		{"zero byte between segments", before(mSOF0, 0), ReasonMalformed, "marker must stand here"},
		{"stuffed zero between segments", before(mSOF0, "\xff\x00"), ReasonMalformed, "FF00"},
		{"restart between segments", before(mSOF0, "\xff\xd0"), ReasonMalformed, "FFD0"},
		{"reserved marker", before(mSOF0, "\xff\x02"), ReasonMalformed, "FF02"},
		{"second SOI", before(mSOF0, "\xff\xd8"), ReasonMalformed, "FFD8"},
		{"data behind a comment in a scan", join(good[:eoi], seg(mCOM, "x"), "more data", good[eoi:]), ReasonMalformed, "marker must stand here"},
		{"length zero", before(mSOF0, "\xff\xfe\x00\x00"), ReasonMalformed, "length 0"},
		{"length one", before(mSOF0, "\xff\xe1\x00\x01"), ReasonMalformed, "length 1"},
		{"length over the end", before(mEOI, "\xff\xe1\xff\xff"), ReasonMalformed, "ends inside segment FFE1"},
		{"lossless", set(good, sof+1, 0xc3), ReasonTypeUnsupported, "lossless"},
		{"hierarchical", set(good, sof+1, 0xc5), ReasonTypeUnsupported, "hierarchical"},
		{"arithmetic", set(good, sof+1, 0xc9), ReasonTypeUnsupported, "arithmetic"},
		{"arithmetic tables", before(mSOS, seg(mDAC, 0, 0)), ReasonTypeUnsupported, "arithmetic"},
		{"JPEG-LS", set(good, sof+1, 0xf7), ReasonTypeUnsupported, "extension"},
		{"DNL", before(mEOI, seg(mDNL, 0, 10)), ReasonTypeUnsupported, "height given after"},
		{"twelve bits", set(good, sof+4, 12), ReasonTypeUnsupported, "12 bits"},
		{"no height", set(good, sof+5, 0, 0), ReasonMalformed, "width and height"},
		{"no width", set(good, sof+7, 0, 0), ReasonMalformed, "width and height"},
		{"frame length", set(good, sof+9, 4), ReasonMalformed, "length does not fit"},
		{"two components", before(mSOF0, seg(mSOF0, 8, "\x00\x08\x00\x08", 2, "\x01\x11\x00\x02\x11\x00")), ReasonTypeUnsupported, "2 colour components"},
		{"component twice", set(good, sof+13, 1), ReasonMalformed, "one ID"},
		{"sampling", set(good, sof+11, 0x51), ReasonMalformed, "out of range"},
		{"two frames", before(mSOS, good[sof:dht]), ReasonMalformed, "second frame"},
		{"empty frame header", before(mSOF0, seg(mSOF0)), ReasonMalformed, "length does not fit"},
		{"no frame", without(mSOF0), ReasonMalformed, "before the frame"},
		{"no quantization", without(mDQT), ReasonMalformed, "tables"},
		{"no Huffman tables", without(mDHT), ReasonMalformed, "tables"},
		{"no scan", without(mSOS), ReasonMalformed, "before all colour components"},
		{"nothing", []byte("\xff\xd8\xff\xd9"), ReasonMalformed, "before its frame"},
		{"only SOI", []byte("\xff\xd8"), ReasonMalformed, "without its end"},
		{"quantization table cut", join(good[:dqt], seg(mDQT, 0, make([]byte, 63)), good[dqt:]), ReasonMalformed, "quantization"},
		{"quantization table over", join(good[:dqt], seg(mDQT, 0, make([]byte, 65)), good[dqt:]), ReasonMalformed, "quantization"},
		{"quantization table empty", before(mDQT, seg(mDQT)), ReasonMalformed, "quantization"},
		{"Huffman table over", before(mDHT, seg(mDHT, 0, make([]byte, 16), marked)), ReasonMalformed, "Huffman"},
		{"Huffman table cut", before(mDHT, seg(mDHT, 0, 1, make([]byte, 15))), ReasonMalformed, "Huffman"},
		{"restart interval", before(mSOS, seg(mDRI, "abc")), ReasonMalformed, "restart interval"},
		{"scan of what is not there", set(good, sos+5, 9), ReasonMalformed, "does not have"},
		{"scan header", set(good, sos+4, 2), ReasonMalformed, "scan header"},
		{"scan of nothing", before(mSOS, seg(mSOS, 0, 0, 63, 0), "data"), ReasonMalformed, "scan header"},
		{"scan of five", before(mSOS, seg(mSOS, 5, "\x01\x00\x01\x00\x01\x00\x01\x00\x01\x00", 0, 63, 0), "data"), ReasonMalformed, "scan header"},
		{"empty scan header", before(mSOS, seg(mSOS)), ReasonMalformed, "scan header"},
		{"scan without data", join(good[:sos+14], "\xff\xd9"), ReasonMalformed, "without data"},
		{"only restarts in a scan", join(hand[:handSOS+10], "\xff\xd0\xff\xd1\xff\xd9"), ReasonMalformed, "without data"},
		{"a component never scanned", join(good[:sos], seg(mSOS, 1, 1, 0, 0, 63, 0), "data\xff\xd9"), ReasonMalformed, "before all colour components"},
		{"many scans", join(hand[:len(hand)-2], bytes.Repeat(hand[handSOS:len(hand)-2], maxScans), "\xff\xd9"), ReasonMalformed, "more than 500 scans"},
	} {
		refused(t, c.name, c.file, c.reason, c.names)
	}
	// Fill bytes before markers, stuffed zeros and broken picture data are no reason to refuse.
	filled := join(good[:dqt], "\xff\xff", good[dqt:sos], "\xff", good[sos:eoi], "\xff\xff\xff", good[eoi:])
	if got := clean(t, filled); !bytes.Equal(got.Bytes, good) {
		t.Error("fill bytes were not taken out")
	}
	clean(t, join(good[:sos+20], "\xff\x00\xff\x00broken", good[sos+40:]))
	clean(t, join(hand[:len(hand)-2], bytes.Repeat(hand[handSOS:len(hand)-2], maxScans-1), "\xff\xd9"))
}

func TestCleanRefusesBadPNG(t *testing.T) {
	good := pngOf(t, drawn(20, 10))
	paletted := pngOf(t, image.NewPaletted(image.Rect(0, 0, 4, 4), testPalette))
	data := chunkOf("IDAT", "x")
	end := chunkOf("IEND")
	file := func(parts ...any) []byte { return append([]byte(pngSignature), join(parts...)...) }
	colour, indexed, grey := ihdr(4, 4, 8, 2), ihdr(4, 4, 1, 3), ihdr(4, 4, 8, 0)
	interlaced := slices.Clone(colour[8:21])
	interlaced[12] = 2
	badCRC := func(chunk []byte) []byte {
		chunk = slices.Clone(chunk)
		chunk[len(chunk)-1] ^= 1
		return chunk
	}
	for _, c := range []struct {
		name   string
		file   []byte
		reason string
		names  string
	}{
		{"signature damaged", join("\x89PNG\n\x1a\n", good[8:]), ReasonMalformed, "signature"},
		{"only the signature", file(), ReasonMalformed, "without its IEND"},
		{"IHDR not first", file(chunkOf("tEXt", "a\x00b"), colour, data, end), ReasonMalformed, "first chunk"},
		{"Apple's own", file(chunkOf("CgBI", "\x50\x00\x20\x02"), colour, data, end), ReasonMalformed, "first chunk"},
		{"short IHDR", file(chunkOf("IHDR", "1234"), data, end), ReasonMalformed, "first chunk"},
		{"second IHDR", file(colour, colour, data, end), ReasonMalformed, "second IHDR"},
		{"no width", file(ihdr(0, 4, 8, 2), data, end), ReasonMalformed, "width and height"},
		{"no height", file(ihdr(4, 0, 8, 2), data, end), ReasonMalformed, "width and height"},
		{"negative width", file(ihdr(1<<31, 4, 8, 2), data, end), ReasonMalformed, "width and height"},
		{"colour of 4 bits", file(ihdr(4, 4, 4, 2), data, end), ReasonMalformed, "colour type 2 with 4 bits"},
		{"colour type", file(ihdr(4, 4, 8, 5), data, end), ReasonMalformed, "colour type 5"},
		{"palette of 16 bits", file(ihdr(4, 4, 16, 3), data, end), ReasonMalformed, "colour type 3"},
		{"interlacing", file(chunkOf("IHDR", interlaced), data, end), ReasonTypeUnsupported, "interlacing"},
		{"checksum of IHDR", file(badCRC(colour), data, end), ReasonMalformed, "checksum"},
		{"checksum of IDAT", file(colour, badCRC(data), end), ReasonMalformed, "checksum"},
		{"checksum of IEND", file(colour, data, badCRC(end)), ReasonMalformed, "checksum"},
		{"checksum of what is dropped", file(colour, badCRC(chunkOf("tEXt", "a\x00b")), data, end), ReasonMalformed, "checksum"},
		{"name", file(colour, chunkOf("a\x00bc", "x"), data, end), ReasonMalformed, "four letters"},
		{"length over the end", file(colour, "\x7f\xff\xff\xffIDAT", "xxxx"), ReasonMalformed, "ends inside"},
		{"length of 2^32-1", file(colour, "\xff\xff\xff\xffIDAT", "xxxx"), ReasonMalformed, "ends inside"},
		{"unknown critical chunk", file(colour, chunkOf("ABCD", marked), data, end), ReasonTypeUnsupported, "ABCD"},
		{"no data", file(colour, end), ReasonMalformed, "IDAT"},
		{"empty data", file(colour, chunkOf("IDAT"), end), ReasonMalformed, "IDAT"},
		{"no end", file(colour, data), ReasonMalformed, "without its IEND"},
		{"data in the end", file(colour, data, chunkOf("IEND", marked)), ReasonMalformed, "not empty"},
		{"data in two places", file(colour, data, chunkOf("tIME", "x"), data, end), ReasonMalformed, "follow one another"},
		{"no palette", file(indexed, data, end), ReasonMalformed, "no PLTE"},
		{"palette twice", file(indexed, chunkOf("PLTE", "rgb"), chunkOf("PLTE", "rgb"), data, end), ReasonMalformed, "stands where none may"},
		{"palette behind the data", file(colour, data, chunkOf("PLTE", "rgb"), end), ReasonMalformed, "stands where none may"},
		{"palette of grey", file(grey, chunkOf("PLTE", "rgb"), data, end), ReasonMalformed, "without colours"},
		{"palette too large", file(indexed, chunkOf("PLTE", "rgbrgbrgb"), data, end), ReasonMalformed, "wrong size"},
		{"palette in part", file(indexed, chunkOf("PLTE", "rgbr"), data, end), ReasonMalformed, "wrong size"},
		{"palette empty", file(indexed, chunkOf("PLTE"), data, end), ReasonMalformed, "wrong size"},
		{"transparency before palette", file(indexed, chunkOf("tRNS", "a"), chunkOf("PLTE", "rgb"), data, end), ReasonMalformed, "tRNS"},
		{"transparency too long", file(indexed, chunkOf("PLTE", "rgb"), chunkOf("tRNS", marked), data, end), ReasonMalformed, "tRNS"},
		{"transparency with alpha", insertPNG(good, chunkOf("tRNS", "123456")), ReasonMalformed, "tRNS"},
		{"transparency twice", file(grey, chunkOf("tRNS", "12"), chunkOf("tRNS", "12"), data, end), ReasonMalformed, "tRNS"},
		{"transparency behind the data", file(grey, data, chunkOf("tRNS", "12"), end), ReasonMalformed, "tRNS"},
	} {
		refused(t, c.name, c.file, c.reason, c.names)
	}
	clean(t, paletted)
	clean(t, file(grey, chunkOf("tRNS", "12"), data, data, end))
}
