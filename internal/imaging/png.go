package imaging

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"slices"
)

const pngSignature = "\x89PNG\r\n\x1a\n"

// Colour types of PNG (PNG, third edition, table 8).
const (
	ctGray      = 0
	ctTrue      = 2
	ctPalette   = 3
	ctGrayAlpha = 4
	ctTrueAlpha = 6
)

// pngDepths are the bit depths of each colour type (PNG, table 8).
var pngDepths = map[byte][]byte{
	ctGray: {1, 2, 4, 8, 16}, ctTrue: {8, 16}, ctPalette: {1, 2, 4, 8}, ctGrayAlpha: {8, 16}, ctTrueAlpha: {8, 16},
}

// pngFile is a walk over one PNG file.
type pngFile struct {
	raw []byte
	pos int
	lim Limits

	width, height    int
	depth, colour    byte
	palette          int // entries
	data             int // bytes in IDAT chunks
	inData, dataOver bool
	orientation      int             // 0 before an eXIf chunk was seen
	seen             map[string]bool // of the ancillary chunks kept

	out []byte
}

// chunk is one chunk: its name, what it holds, and all its bytes.
type chunk struct {
	name  string
	data  []byte
	whole []byte
	at    int
}

func cleanPNG(raw []byte, lim Limits) (Image, error) {
	if !bytes.HasPrefix(raw, []byte(pngSignature)) {
		return Image{}, malformed(0, "the PNG's signature is damaged, as by a transfer as text")
	}
	f := &pngFile{raw: raw, pos: len(pngSignature), lim: lim, seen: make(map[string]bool)}
	if err := f.walk(); err != nil {
		return Image{}, err
	}
	return Image{
		ContentType: TypePNG, Width: f.width, Height: f.height,
		Orientation: max(f.orientation, upright), Bytes: f.out,
	}, nil
}

// walk reads all chunks up to IEND. What follows it is not looked at.
func (f *pngFile) walk() error {
	c, err := f.next()
	if err != nil {
		return err
	}
	if err := f.header(c); err != nil {
		return err
	}
	f.out = make([]byte, 0, len(f.raw)) // only now: the pixel limit comes first
	f.out = append(append(f.out, pngSignature...), c.whole...)
	for {
		c, err := f.next()
		if err != nil {
			return err
		}
		keep, err := f.check(c)
		if err != nil {
			return err
		}
		if keep {
			f.out = append(f.out, c.whole...)
		}
		if c.name == "IEND" {
			return nil
		}
	}
}

// next reads a chunk: length, name, data, CRC of name and data (PNG, 5.3).
func (f *pngFile) next() (chunk, error) {
	at, rest := f.pos, f.raw[f.pos:]
	if len(rest) == 0 {
		return chunk{}, malformed(at, "the PNG ends without its IEND chunk")
	}
	if len(rest) < 12 {
		return chunk{}, malformed(len(f.raw), "the PNG ends inside the chunk that began at byte %d", at)
	}
	n := int64(binary.BigEndian.Uint32(rest))
	name := rest[4:8]
	for _, b := range name {
		if b|0x20 < 'a' || b|0x20 > 'z' {
			return chunk{}, malformed(at, "a chunk's name must be four letters, and is not")
		}
	}
	if n > int64(len(rest)-12) {
		return chunk{}, malformed(len(f.raw), "the PNG ends inside the chunk that began at byte %d", at)
	}
	end := 8 + int(n)
	if crc32.ChecksumIEEE(rest[4:end]) != binary.BigEndian.Uint32(rest[end:]) {
		return chunk{}, malformed(at, "the checksum of the chunk is wrong")
	}
	f.pos += end + 4
	return chunk{name: string(name), data: rest[8:end], whole: rest[:end+4], at: at}, nil
}

// header checks IHDR (PNG, 11.2.1): width, height, bit depth, colour type, and the methods of
// compression, filter and interlacing.
func (f *pngFile) header(c chunk) error {
	if c.name != "IHDR" || len(c.data) != 13 {
		return malformed(c.at, "the first chunk must be IHDR of 13 bytes")
	}
	d := c.data
	// Signed, as the format bounds both sides by 2^31-1.
	width, height := int32(binary.BigEndian.Uint32(d)), int32(binary.BigEndian.Uint32(d[4:]))
	if err := f.lim.pixels(int64(width), int64(height), c.at); err != nil {
		return err
	}
	f.width, f.height, f.depth, f.colour = int(width), int(height), d[8], d[9]
	if !slices.Contains(pngDepths[f.colour], f.depth) {
		return malformed(c.at, "colour type %d with %d bits is no PNG", f.colour, f.depth)
	}
	if d[10] != 0 || d[11] != 0 || d[12] > 1 {
		return unsupported(c.at, "PNG of unknown compression, filter or interlacing (%d, %d, %d)", d[10], d[11], d[12])
	}
	return nil
}

// check tells whether to keep a chunk, and refuses what makes the file no PNG.
func (f *pngFile) check(c chunk) (keep bool, err error) {
	if f.inData && c.name != "IDAT" {
		f.inData, f.dataOver = false, true
	}
	switch c.name {
	case "IHDR":
		return false, malformed(c.at, "a second IHDR chunk")
	case "PLTE":
		return true, f.checkPalette(c)
	case "tRNS":
		return true, f.checkTransparency(c)
	case "IDAT":
		if f.dataOver {
			return false, malformed(c.at, "the IDAT chunks do not follow one another")
		}
		if f.colour == ctPalette && f.palette == 0 {
			return false, malformed(c.at, "no PLTE chunk before the picture's data")
		}
		f.inData = true
		f.data += len(c.data)
		return true, nil
	case "IEND":
		if len(c.data) != 0 {
			return false, malformed(c.at, "the IEND chunk is not empty")
		}
		if f.data == 0 {
			return false, malformed(c.at, "the PNG ends without picture data (IDAT)")
		}
		return true, nil
	case "eXIf":
		if f.orientation == 0 {
			f.orientation, _ = orientation(c.data)
		}
		return false, nil
	}
	if c.name[0]&0x20 == 0 {
		return false, unsupported(c.at, "PNG with critical chunk %s, which no standard defines", c.name)
	}
	return f.ancillary(c)
}

func (f *pngFile) checkPalette(c chunk) error {
	n := len(c.data) / 3
	switch {
	case f.palette > 0 || f.data > 0 || f.inData || f.dataOver || f.seen["tRNS"]:
		return malformed(c.at, "the PLTE chunk stands where none may")
	case f.colour == ctGray || f.colour == ctGrayAlpha:
		return malformed(c.at, "a PLTE chunk in a PNG without colours")
	case len(c.data)%3 != 0 || n < 1 || n > 1<<min(f.depth, 8):
		return malformed(c.at, "the PLTE chunk has the wrong size")
	}
	f.palette = n
	return nil
}

func (f *pngFile) checkTransparency(c chunk) error {
	fits := false
	switch f.colour {
	case ctGray:
		fits = len(c.data) == 2
	case ctTrue:
		fits = len(c.data) == 6
	case ctPalette:
		fits = len(c.data) >= 1 && len(c.data) <= f.palette
	}
	if !fits || f.seen["tRNS"] || f.inData || f.dataOver {
		return malformed(c.at, "the tRNS chunk has the wrong size or stands where none may")
	}
	f.seen["tRNS"] = true
	return nil
}

// ancillary tells whether to keep a chunk that decoders may do without: those that tell
// colours and shape, once, before the data, and of the size they must have. Decoders pass
// over the others, and so may something hidden in them.
func (f *pngFile) ancillary(c chunk) (keep bool, err error) {
	if f.inData || f.dataOver || f.seen[c.name] {
		return false, nil
	}
	// Channels count what sBIT and bKGD hold; a palette has the three of its colours.
	channels := map[byte]int{ctGray: 1, ctTrue: 3, ctPalette: 3, ctGrayAlpha: 2, ctTrueAlpha: 4}[f.colour]
	switch n := len(c.data); c.name {
	case "gAMA", "cICP":
		keep = n == 4
	case "cHRM":
		keep = n == 32
	case "sRGB":
		keep = n == 1
	case "pHYs":
		keep = n == 9
	case "sBIT":
		keep = n == channels
	case "bKGD":
		switch f.colour {
		case ctPalette:
			keep = n == 1
		case ctGray, ctGrayAlpha:
			keep = n == 2
		default:
			keep = n == 6
		}
	case "iCCP":
		if n > MaxProfile {
			return false, profileTooLarge(c.at)
		}
		// A name of 1 to 79 bytes, a zero, method 0, and the compressed profile.
		name := bytes.IndexByte(c.data, 0)
		keep = name >= 1 && name <= 79 && n > name+2 && c.data[name+1] == 0
	}
	if keep {
		f.seen[c.name] = true
	}
	return keep, nil
}
