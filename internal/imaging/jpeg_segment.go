package imaging

import (
	"bytes"
	"slices"
)

// understood tells whether a marker may occur: those of the processes that the standard
// library decodes. The others are hardly ever written.
func understood(code byte) bool {
	switch {
	case code == mDHT, code <= mSOF2:
		return true
	case code <= mSOF15, mDNL == code, mDHP == code, mEXP == code:
		return false
	}
	return code < mJPG0 || code == mCOM
}

// kindOf names what a marker that is not understood stands for.
func kindOf(code byte) string {
	switch {
	case code == 0xc3:
		return "lossless coding"
	case code >= 0xc9 && code <= mSOF15:
		return "arithmetic coding"
	case code < 0xc9 || code == mDHP || code == mEXP:
		return "hierarchical coding"
	case code == mDNL:
		return "height given after the first scan"
	}
	return "an extension"
}

// isDQT tells whether quantization tables fill a segment: each has a byte of precision and
// number, then 64 values of one or two bytes (T.81, B.2.4.1).
func isDQT(p []byte) bool {
	if len(p) == 0 {
		return false
	}
	for len(p) > 0 {
		precision, number := int(p[0]>>4), p[0]&15
		n := 1 + 64*(precision+1)
		if precision > 1 || number > 3 || len(p) < n {
			return false
		}
		p = p[n:]
	}
	return true
}

// isDHT tells whether Huffman tables fill a segment: each has a byte of class and number, how
// many codes there are of the lengths 1 to 16, and a byte for each code (T.81, B.2.4.2).
func isDHT(p []byte) bool {
	if len(p) == 0 {
		return false
	}
	for len(p) > 0 {
		if len(p) < 17 || p[0]>>4 > 1 || p[0]&15 > 3 {
			return false
		}
		n := 0
		for _, c := range p[1:17] {
			n += int(c)
		}
		if n > 256 || len(p) < 17+n {
			return false
		}
		p = p[17+n:]
	}
	return true
}

const (
	jfifID    = "JFIF\x00"
	jfifSize  = 14 // ID, version, unit, density, size of the thumbnail
	adobeID   = "Adobe"
	adobeSize = 12 // ID, version, two flags, colour transform
)

// jpegApp is what is kept of application segments: they tell decoders the colours.
type jpegApp struct {
	jfif    []byte // without thumbnail
	adobe   []byte
	profile profile
	notJFIF bool // the last APP0 is not JFIF
}

// add takes an application segment or a comment, and drops it if it is none of those kept.
// late means that a scan came before it.
func (a *jpegApp) add(code byte, p []byte, at int, late bool) error {
	switch {
	case code == mAPP0 && len(p) >= len(jfifID):
		a.notJFIF = !bytes.HasPrefix(p, []byte(jfifID))
		if a.notJFIF {
			return nil // JFXX, which holds thumbnails, or a camera's own
		}
		if len(p) < jfifSize {
			return malformed(at, "the JFIF header has %d bytes; it must have %d or more", len(p), jfifSize)
		}
		if late {
			return malformed(at, "a JFIF header after a scan")
		}
		if a.jfif == nil {
			a.jfif = slices.Clone(p[:jfifSize])
			a.jfif[12], a.jfif[13] = 0, 0
		}
	case code == mAPP14 && len(p) >= adobeSize && bytes.HasPrefix(p, []byte(adobeID)):
		if late {
			return malformed(at, "an Adobe header after a scan")
		}
		if a.adobe != nil && a.adobe[adobeSize-1] != p[adobeSize-1] {
			return malformed(at, "two Adobe headers that disagree on the colours")
		}
		a.adobe = p[:adobeSize]
	case code == mAPP2 && !late && bytes.HasPrefix(p, []byte(iccID)):
		return a.profile.add(p, at)
	}
	return nil
}

// head gives the segments kept, in a fixed order.
func (a *jpegApp) head(components []byte) ([]byte, error) {
	// Decoders differ on whether an APP0 behind the JFIF header takes back that the colours
	// are YCbCr. It goes, so where it would matter the picture's colours are unknown.
	rgb := a.adobe != nil && a.adobe[adobeSize-1] == 0 || string(components) == "RGB"
	if a.jfif != nil && a.notJFIF && rgb && len(components) == 3 {
		return nil, malformed(2, "the application segments disagree on the colours")
	}
	var b []byte
	if a.jfif != nil {
		b = appendSegment(b, mAPP0, a.jfif)
	}
	if a.adobe != nil {
		b = appendSegment(b, mAPP14, a.adobe)
	}
	for _, part := range a.profile.whole() {
		b = appendSegment(b, mAPP2, part)
	}
	return b, nil
}
