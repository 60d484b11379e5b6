package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
)

// confession is the text that the drawn pictures carry in EXIF, XMP and comments. None of
// it may come out again.
const confession = "booth 4, officer J. Doe, 26.10N 98.22W"

const pngSignature = "\x89PNG\r\n\x1a\n"

// labelJPEG adds EXIF, XMP and a comment to a JPEG.
func labelJPEG(jpg []byte) []byte {
	segment := func(marker byte, body string) []byte {
		s := binary.BigEndian.AppendUint16([]byte{0xff, marker}, uint16(2+len(body)))
		return append(s, body...)
	}
	return slices.Concat(jpg[:2],
		segment(0xe1, "Exif\x00\x00"+exif()),
		segment(0xe1, "http://ns.adobe.com/xap/1.0/\x00<x:xmpmeta xmlns:x='adobe:ns:meta/'>"+confession+"</x:xmpmeta>"),
		segment(0xfe, confession),
		jpg[2:])
}

// labelPNG adds EXIF and a text to a PNG, behind its header.
func labelPNG(png []byte) []byte {
	chunk := func(kind, body string) []byte {
		c := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
		c = append(c, kind+body...)
		return binary.BigEndian.AppendUint32(c, crc32.ChecksumIEEE(c[4:]))
	}
	header := len(pngSignature) + 12 + 13 // signature; length, kind and check of IHDR; its body
	return slices.Concat(png[:header],
		chunk("eXIf", exif()),
		chunk("tEXt", "Comment\x00"+confession),
		png[header:])
}

// exif is a TIFF directory with one entry: ImageDescription (270), ASCII.
func exif() string {
	const text = confession + "\x00"
	b := []byte("MM\x00*\x00\x00\x00\x08\x00\x01")
	b = append(b, 0x01, 0x0e, 0x00, 0x02)
	b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
	b = binary.BigEndian.AppendUint32(b, 8+2+12+4) // behind the directory
	b = append(b, 0, 0, 0, 0)                      // no further directory
	return string(b) + text
}

// metadataIn names what an image file carries besides the picture and its colours: EXIF,
// XMP, comments, texts, times, unknown segments.
func metadataIn(file []byte) ([]string, error) {
	switch {
	case bytes.HasPrefix(file, []byte("\xff\xd8\xff")):
		return jpegMetadata(file)
	case bytes.HasPrefix(file, []byte(pngSignature)):
		return pngMetadata(file)
	}
	return nil, errors.New("neither JPEG nor PNG")
}

// jpegMetadata walks the segments to the first scan.
func jpegMetadata(file []byte) (found []string, err error) {
	for at := 2; at+4 <= len(file); {
		if file[at] != 0xff {
			return found, fmt.Errorf("no marker at byte %d", at)
		}
		marker := file[at+1]
		if marker == 0xff { // fill byte
			at++
			continue
		}
		size := int(binary.BigEndian.Uint16(file[at+2:]))
		if size < 2 || at+2+size > len(file) {
			return found, fmt.Errorf("the segment at byte %d does not end in the file", at)
		}
		body := file[at+4 : at+2+size]
		switch {
		case marker == 0xda: // the scan
			return found, nil
		case marker == 0xfe:
			found = append(found, "a comment")
		case marker == 0xe1 && bytes.HasPrefix(body, []byte("Exif")):
			found = append(found, "EXIF")
		case marker == 0xe1:
			found = append(found, "XMP")
		case marker == 0xe0, marker == 0xe2 && bytes.HasPrefix(body, []byte("ICC_PROFILE")), marker == 0xee:
			// JFIF, ICC and Adobe say how to read the colours
		case marker >= 0xe0 && marker <= 0xef:
			found = append(found, fmt.Sprintf("segment APP%d", marker-0xe0))
		}
		at += 2 + size
	}
	return found, errors.New("the file ends before its picture")
}

// pngMetadata walks the chunks.
func pngMetadata(file []byte) (found []string, err error) {
	for at := len(pngSignature); at+12 <= len(file); {
		size := int(binary.BigEndian.Uint32(file[at:]))
		if size > len(file)-at-12 {
			return found, fmt.Errorf("the chunk at byte %d does not end in the file", at)
		}
		switch kind := string(file[at+4 : at+8]); kind {
		case "IEND":
			return found, nil
		case "tEXt", "zTXt", "iTXt":
			found = append(found, "a text")
		case "eXIf":
			found = append(found, "EXIF")
		case "tIME":
			found = append(found, "a time")
		}
		at += 12 + size
	}
	return found, errors.New("the file ends before its picture")
}
