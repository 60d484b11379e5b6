package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	_ "image/jpeg" // the formats that Portcullis keeps
	_ "image/png"
)

// look is what a picture looks like: a digest of its size and every pixel, whatever file
// it comes in. Two files of the same look show the same.
type look [sha256.Size]byte

// lookOf decodes an image file.
func lookOf(file []byte) (look, error) {
	img, _, err := image.Decode(bytes.NewReader(file))
	if err != nil {
		return look{}, fmt.Errorf("decode: %w", err)
	}
	h := sha256.New()
	b := img.Bounds()
	row := binary.BigEndian.AppendUint64(nil, uint64(b.Dx()))
	row = binary.BigEndian.AppendUint64(row, uint64(b.Dy()))
	h.Write(row)
	for y := b.Min.Y; y < b.Max.Y; y++ {
		row = row[:0]
		for x := b.Min.X; x < b.Max.X; x++ {
			row = appendPixel(row, img, x, y)
		}
		h.Write(row)
	}
	return look(h.Sum(nil)), nil
}

// appendPixel writes one pixel in 16 bits a channel, not premultiplied. JPEG's own form is
// read directly: it is most of the work.
func appendPixel(row []byte, img image.Image, x, y int) []byte {
	if j, ok := img.(*image.YCbCr); ok {
		c := j.YCbCrAt(x, y)
		return append(row, c.Y, c.Cb, c.Cr)
	}
	c := color.NRGBA64Model.Convert(img.At(x, y)).(color.NRGBA64)
	row = binary.BigEndian.AppendUint16(row, c.R)
	row = binary.BigEndian.AppendUint16(row, c.G)
	row = binary.BigEndian.AppendUint16(row, c.B)
	return binary.BigEndian.AppendUint16(row, c.A)
}

// gallery counts pictures by their look.
type gallery map[look]int

func newGallery(pictures []picture) (gallery, error) {
	g := gallery{}
	for _, p := range pictures {
		l, err := lookOf(p.bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		g[l]++
	}
	return g, nil
}

// strangers gives the names of pictures that g does not hold, or not as often.
func (g gallery) strangers(pictures []picture) (names []string, err error) {
	seen := gallery{}
	for _, p := range pictures {
		l, err := lookOf(p.bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		if seen[l]++; seen[l] > g[l] {
			names = append(names, p.name)
		}
	}
	return names, nil
}
