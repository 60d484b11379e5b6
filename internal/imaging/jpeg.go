package imaging

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// Markers of JPEG (ITU-T T.81, table B.1).
const (
	mSOF0  = 0xc0 // baseline
	mSOF1  = 0xc1 // extended sequential
	mSOF2  = 0xc2 // progressive
	mDHT   = 0xc4
	mDAC   = 0xcc
	mSOF15 = 0xcf
	mRST0  = 0xd0
	mRST7  = 0xd7
	mSOI   = 0xd8
	mEOI   = 0xd9
	mSOS   = 0xda
	mDQT   = 0xdb
	mDNL   = 0xdc
	mDRI   = 0xdd
	mDHP   = 0xde
	mEXP   = 0xdf
	mAPP0  = 0xe0
	mAPP1  = 0xe1
	mAPP2  = 0xe2
	mAPP14 = 0xee
	mAPP15 = 0xef
	mJPG0  = 0xf0
	mCOM   = 0xfe
)

// maxScans bounds the passes over the whole picture that a file asks of its decoder. Encoders
// write about ten; libjpeg-turbo's security notes name many scans as an attack and refuse
// more than 500 when fuzzing.
const maxScans = 500

const exifID = "Exif\x00\x00"

// jpegFile is a walk over one JPEG file.
type jpegFile struct {
	raw []byte
	pos int // of the next byte to read
	lim Limits

	width, height int
	components    []byte    // IDs; empty before the frame header
	scanned       [256]bool // by component ID
	quantized     bool      // a DQT was seen
	coded         bool      // a DHT was seen
	scans         int
	orientation   int // 0 before an EXIF block was seen

	app  jpegApp
	body []byte // tables, frame header and scans
}

func cleanJPEG(raw []byte, lim Limits) (Image, error) {
	j := &jpegFile{raw: raw, pos: 2, lim: lim}
	if err := j.walk(); err != nil {
		return Image{}, err
	}
	head, err := j.app.head(j.components)
	if err != nil {
		return Image{}, err
	}
	out := slices.Concat([]byte{0xff, mSOI}, head, j.body, []byte{0xff, mEOI})
	return Image{
		ContentType: TypeJPEG, Width: j.width, Height: j.height,
		Orientation: max(j.orientation, upright), Bytes: out,
	}, nil
}

// walk reads all segments up to the end of the image. What follows it is not looked at.
func (j *jpegFile) walk() error {
	for {
		code, at, err := j.marker()
		if err != nil {
			return err
		}
		switch {
		case code == mEOI:
			return j.ended(at)
		case code < mSOF0 || mRST0 <= code && code <= mSOI:
			return malformed(at, "marker FF%02X does not belong between segments", code)
		case !understood(code):
			return unsupported(at, "JPEG with marker FF%02X: %s", code, kindOf(code))
		}
		payload, err := j.payload(code, at)
		if err != nil {
			return err
		}
		if err := j.segment(code, payload, at); err != nil {
			return err
		}
	}
}

// marker reads a marker and the fill bytes before it. at is where its last FF stands.
func (j *jpegFile) marker() (code byte, at int, err error) {
	at = j.pos
	if at < len(j.raw) && j.raw[at] != 0xff {
		return 0, at, malformed(at, "a marker must stand here, and does not")
	}
	for at++; at < len(j.raw) && j.raw[at] == 0xff; at++ {
	}
	if at >= len(j.raw) {
		return 0, 0, malformed(len(j.raw), "the JPEG ends without its end marker")
	}
	j.pos = at + 1
	return j.raw[at], at - 1, nil
}

// payload reads the length of a segment and what it holds.
func (j *jpegFile) payload(code byte, at int) ([]byte, error) {
	rest := j.raw[j.pos:]
	if len(rest) < 2 {
		return nil, malformed(len(j.raw), "the JPEG ends inside segment FF%02X", code)
	}
	n := int(binary.BigEndian.Uint16(rest))
	if n < 2 {
		return nil, malformed(at, "segment FF%02X has length %d; it must be 2 or more", code, n)
	}
	if n > len(rest) {
		return nil, malformed(len(j.raw), "the JPEG ends inside segment FF%02X, which began at byte %d", code, at)
	}
	j.pos += n
	return rest[2:n], nil
}

// segment checks a segment and keeps it, or drops it.
func (j *jpegFile) segment(code byte, p []byte, at int) error {
	switch code {
	case mSOF0, mSOF1, mSOF2:
		return j.frame(code, p, at)
	case mSOS:
		return j.scan(p, at)
	case mDQT:
		j.quantized = true
		if !isDQT(p) {
			return malformed(at, "the quantization tables do not fill their segment")
		}
		j.keep(code, p)
	case mDHT:
		j.coded = true
		if !isDHT(p) {
			return malformed(at, "the Huffman tables do not fill their segment")
		}
		j.keep(code, p)
	case mDRI:
		if len(p) != 2 {
			return malformed(at, "the restart interval has %d bytes; it must have 2", len(p))
		}
		j.keep(code, p)
	case mAPP1:
		if tiff, ok := bytes.CutPrefix(p, []byte(exifID)); ok && j.orientation == 0 && j.scans == 0 {
			j.orientation, _ = orientation(tiff)
		}
	default:
		return j.app.add(code, p, at, j.scans > 0)
	}
	return nil
}

func (j *jpegFile) keep(code byte, payload []byte) {
	j.body = appendSegment(j.body, code, payload)
}

func appendSegment(b []byte, code byte, payload []byte) []byte {
	b = append(b, 0xff, code)
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)+2))
	return append(b, payload...)
}

// frame checks a frame header (T.81, B.2.2): precision, height, width, number of components,
// and for each its ID, sampling factors and quantization table.
func (j *jpegFile) frame(code byte, p []byte, at int) error {
	if j.components != nil {
		return malformed(at, "a second frame header")
	}
	if len(p) < 6 || len(p) != 6+3*int(p[5]) {
		return malformed(at, "the frame header's length does not fit its number of components")
	}
	if p[0] != 8 {
		return unsupported(at, "JPEG of %d bits per sample; only 8 are taken", p[0])
	}
	height, width := binary.BigEndian.Uint16(p[1:]), binary.BigEndian.Uint16(p[3:])
	if err := j.lim.pixels(int64(width), int64(height), at); err != nil {
		return err
	}
	if n := p[5]; n != 1 && n != 3 && n != 4 {
		return unsupported(at, "JPEG of %d colour components; 1, 3 and 4 are taken", n)
	}
	for c := p[6:]; len(c) > 0; c = c[3:] {
		if h, v := c[1]>>4, c[1]&15; h < 1 || h > 4 || v < 1 || v > 4 || c[2] > 3 {
			return malformed(at, "a colour component's sampling or table is out of range")
		}
		if bytes.IndexByte(j.components, c[0]) >= 0 {
			return malformed(at, "two colour components have one ID")
		}
		j.components = append(j.components, c[0])
	}
	j.width, j.height = int(width), int(height)
	j.body = slices.Grow(j.body, len(j.raw)-at) // only now: the pixel limit comes first
	j.keep(code, p)
	return nil
}

// scan checks a scan header (T.81, B.2.3) and keeps it with the coded data that follows.
func (j *jpegFile) scan(p []byte, at int) error {
	switch {
	case j.components == nil:
		return malformed(at, "a scan before the frame header")
	case !j.quantized || !j.coded:
		return malformed(at, "a scan before the tables it needs")
	case len(p) < 4 || len(p) != 4+2*int(p[0]) || p[0] < 1 || p[0] > 4:
		return malformed(at, "the scan header's length does not fit its number of components")
	}
	for c := p[1 : len(p)-3]; len(c) > 0; c = c[2:] {
		if bytes.IndexByte(j.components, c[0]) < 0 {
			return malformed(at, "a scan of a colour component that the frame does not have")
		}
		j.scanned[c[0]] = true
	}
	if j.scans++; j.scans > maxScans {
		return malformed(at, "more than %d scans", maxScans)
	}
	j.keep(mSOS, p)
	return j.coding(at)
}

// coding keeps entropy-coded data: all up to a marker that is no restart (T.81, B.1.1.5). In
// it FF is followed by a zero. Fill bytes before the closing marker are left out.
func (j *jpegFile) coding(scanAt int) error {
	start, pos, found := j.pos, j.pos, false
	for {
		n := bytes.IndexByte(j.raw[pos:], 0xff)
		if n < 0 {
			return malformed(len(j.raw), "the JPEG ends inside the scan that began at byte %d", scanAt)
		}
		found = found || n > 0
		pos += n
		next := pos + 1
		for next < len(j.raw) && j.raw[next] == 0xff {
			next++
		}
		if next == len(j.raw) {
			return malformed(len(j.raw), "the JPEG ends inside the scan that began at byte %d", scanAt)
		}
		code := j.raw[next]
		if code == 0 {
			found = true
		} else if code < mRST0 || code > mRST7 {
			break
		}
		pos = next + 1
	}
	if !found {
		return malformed(start, "a scan without data")
	}
	j.body = append(j.body, j.raw[start:pos]...)
	j.pos = pos
	return nil
}

// ended checks at the end marker that the picture is all there.
func (j *jpegFile) ended(at int) error {
	if j.components == nil {
		return malformed(at, "the JPEG ends before its frame header")
	}
	for _, c := range j.components {
		if !j.scanned[c] {
			return malformed(at, "the JPEG ends before all colour components were scanned")
		}
	}
	return nil
}
