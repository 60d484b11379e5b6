// Package imaging checks an image and cleans it of metadata before it is sealed.
//
// Clean takes a JPEG or PNG file, told by its content, walks its segments or chunks, and
// copies those that make the picture. No pixel is decoded and nothing is decompressed, so a
// small file cannot cost much memory or time: work and memory are linear in the file's size.
//
// What comes out:
//
//   - the picture's own data, byte for byte: tables, frame header, scans, pixel data;
//   - what colours need: JFIF and Adobe headers (cut to their fixed part), an ICC profile up
//     to MaxProfile, and PNG's gAMA, cHRM, sRGB, iCCP, cICP, sBIT, bKGD and pHYs;
//   - nothing else: no EXIF, XMP, IPTC, comment, text, time, thumbnail, second image,
//     animation, private segment or chunk, and no byte after the picture's end.
//
// EXIF goes whole, and with it the note how to turn the picture, so that is handed back as
// Image.Orientation.
//
// What it does not promise: an ICC profile is kept as it is, with the names of profile and
// vendor in it; whether compressed picture data is intact, or hides a message, is not looked
// into; and what the picture shows is what it shows.
package imaging

import "fmt"

const (
	// DefaultMaxBytes is the limit of a file's size, 8 MiB. The largest of the real photos
	// tried while designing had less than 1 MiB.
	DefaultMaxBytes = 8 << 20
	// DefaultMaxPixels is the limit of width times height. 50 million is what the sensors of
	// current lane cameras stay well below.
	DefaultMaxPixels = 50_000_000
	// MaxProfile is the limit of an ICC profile in bytes, 1 MiB; in a PNG, of its compressed
	// form. Profiles of screens and cameras have a few KiB, those of printers some hundred.
	MaxProfile = 1 << 20
)

// The content types of Image.
const (
	TypeJPEG = "image/jpeg"
	TypePNG  = "image/png"
)

// Limits bound what Clean takes. A limit of zero or less means the default.
type Limits struct {
	MaxBytes  int64 // the file as it came, DefaultMaxBytes
	MaxPixels int64 // width times height, DefaultMaxPixels
}

func (l Limits) orDefault() Limits {
	if l.MaxBytes <= 0 {
		l.MaxBytes = DefaultMaxBytes
	}
	if l.MaxPixels <= 0 {
		l.MaxPixels = DefaultMaxPixels
	}
	return l
}

// pixels refuses a picture of no area and one over the limit. at is where its header begins.
func (l Limits) pixels(width, height int64, at int) error {
	if width <= 0 || height <= 0 {
		return malformed(at, "width and height are %d and %d; neither may be zero or over 2147483647", width, height)
	}
	// Both sides are below 2^31, so the product fits.
	if width*height > l.MaxPixels {
		return &Error{
			Reason: ReasonTooManyPixels, Offset: at,
			Detail: fmt.Sprintf("%d x %d pixels are over the limit of %d", width, height, l.MaxPixels),
		}
	}
	return nil
}

// Image is a clean image.
type Image struct {
	ContentType   string // TypeJPEG or TypePNG, by content
	Width, Height int    // in pixels, as stored: before Orientation is applied
	// Orientation tells how to turn the picture for showing: 1 to 8 as in EXIF (TIFF 6.0, tag
	// 274), 1 being upright. It is what the EXIF of the uncleaned file said, else 1. Bytes no
	// longer says it.
	Orientation int
	Bytes       []byte // the cleaned file; shares no memory with what Clean was given
}

// Clean checks raw and strips its metadata. Its errors are *Error. Bytes cleaned before come
// out as they are. It keeps no reference to raw, does not change it, and may be called at
// once from many goroutines.
func Clean(raw []byte, lim Limits) (Image, error) {
	lim = lim.orDefault()
	if len(raw) == 0 {
		return Image{}, &Error{Reason: ReasonEmpty, Offset: -1, Detail: "the image has no bytes"}
	}
	if int64(len(raw)) > lim.MaxBytes {
		return Image{}, &Error{
			Reason: ReasonTooLarge, Offset: -1,
			Detail: fmt.Sprintf("%d bytes are over the limit of %d", len(raw), lim.MaxBytes),
		}
	}
	switch kind := sniff(raw); kind {
	case kindJPEG:
		return cleanJPEG(raw, lim)
	case kindPNG:
		return cleanPNG(raw, lim)
	default:
		return Image{}, unsupported(-1, "neither JPEG nor PNG; it looks like %s", kind)
	}
}
