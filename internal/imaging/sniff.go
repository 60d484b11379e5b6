package imaging

import (
	"bytes"
	"unicode/utf8"
)

// What sniff tells apart.
const (
	kindJPEG    = "JPEG"
	kindPNG     = "PNG"
	kindUnknown = "no known kind of image"
)

// signatures are how files begin.
var signatures = []struct{ prefix, kind string }{
	{"\xff\xd8", kindJPEG},
	{"\x89PNG", kindPNG}, // the rest of the signature shows damage, which cleanPNG names
	{"GIF87a", "GIF"},
	{"GIF89a", "GIF"},
	{"II*\x00", "TIFF"},
	{"MM\x00*", "TIFF"},
	{"II+\x00", "TIFF (BigTIFF)"},
	{"MM\x00+", "TIFF (BigTIFF)"},
	{"BM", "BMP"},
	{"\x00\x00\x00\x0cjP  ", "JPEG 2000"},
	{"\xff\x4f\xff\x51", "JPEG 2000"},
	{"\x00\x00\x00\x0cJXL ", "JPEG XL"},
	{"\xff\x0a", "JPEG XL"},
	{"%PDF-", "PDF"},
	{"8BPS", "Photoshop"},
}

// brands are the ISO base media files that hold still images, by their major brand.
var brands = map[string]string{
	"heic": "HEIC", "heix": "HEIC", "heim": "HEIC", "heis": "HEIC", "hevc": "HEIC", "hevx": "HEIC",
	"mif1": "HEIC", "msf1": "HEIC", "avif": "AVIF", "avis": "AVIF",
}

// sniff names the kind of file from its first bytes.
func sniff(raw []byte) string {
	for _, s := range signatures {
		// Two letters alone are also how a text may begin.
		if s.kind == "BMP" && isText(raw) {
			continue
		}
		if bytes.HasPrefix(raw, []byte(s.prefix)) {
			return s.kind
		}
	}
	if len(raw) >= 12 {
		if string(raw[:4]) == "RIFF" && string(raw[8:12]) == "WEBP" {
			return "WebP"
		}
		if string(raw[4:8]) == "ftyp" {
			if kind, ok := brands[string(raw[8:12])]; ok {
				return kind
			}
			return "a video (ISO base media)"
		}
	}
	if isText(raw) {
		return "text"
	}
	return kindUnknown
}

// isText tells whether the first bytes are UTF-8 without control characters.
func isText(raw []byte) bool {
	head := raw[:min(len(raw), 512)]
	for i := 0; i < len(head); {
		r, n := utf8.DecodeRune(head[i:])
		if r == utf8.RuneError && n == 1 {
			// The cut at 512 may go through a character.
			return len(raw) > len(head) && i > len(head)-utf8.UTFMax && !utf8.FullRune(head[i:])
		}
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0x7f {
			return false
		}
		i += n
	}
	return true
}
