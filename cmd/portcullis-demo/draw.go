package main

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"image/png"
	"math/rand/v2"

	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"
)

// How many pictures the demonstration draws of each kind.
const (
	drawnFaces  = 12
	drawnPlates = 12
)

// picture is one image as a camera would hand it over.
type picture struct {
	name  string // file name
	bytes []byte // JPEG or PNG, metadata and all
}

// drawFace draws a face in 240 x 300 pixels. The same seed gives the same face.
func drawFace(seed uint64) image.Image {
	rng := rand.New(rand.NewPCG(seed, 1))
	img := image.NewRGBA(image.Rect(0, 0, 240, 300))
	backdrop(img, rng, color.RGBA{90, 110, 130, 255})
	skin := color.RGBA{uint8(150 + rng.IntN(90)), uint8(105 + rng.IntN(80)), uint8(75 + rng.IntN(70)), 255}
	hair := color.RGBA{uint8(rng.IntN(120)), uint8(rng.IntN(80)), uint8(rng.IntN(60)), 255}
	w, h := 62+rng.IntN(24), 88+rng.IntN(22)
	cx, cy := 120+rng.IntN(17)-8, 155+rng.IntN(17)-8
	oval(img, cx, cy-h/3, w+9, h*3/4, hair)
	oval(img, cx, cy, w, h, skin)
	gap, eyes := 20+rng.IntN(14), cy-14-rng.IntN(14)
	iris := color.RGBA{uint8(rng.IntN(120)), uint8(40 + rng.IntN(120)), uint8(60 + rng.IntN(140)), 255}
	for _, x := range []int{cx - gap, cx + gap} {
		oval(img, x, eyes, 12, 7, color.RGBA{245, 245, 245, 255})
		oval(img, x, eyes, 5, 6, iris)
		oval(img, x, eyes, 2, 2, color.RGBA{A: 255})
		oval(img, x, eyes-14-rng.IntN(5), 14, 3, hair)
	}
	oval(img, cx, cy+12, 6+rng.IntN(5), 11, shade(skin, 24))
	mouth, lips := cy+h/2, 18+rng.IntN(16)
	oval(img, cx, mouth, lips, 5+rng.IntN(6), color.RGBA{170, 60, 70, 255})
	oval(img, cx, mouth-rng.IntN(5), lips-4, 3, shade(skin, 12))
	return img
}

// drawPlate draws a licence plate in 320 x 160 pixels, and tells what it reads.
func drawPlate(seed uint64) (image.Image, string) {
	rng := rand.New(rand.NewPCG(seed, 2))
	text := make([]byte, 0, 8)
	for range 3 {
		text = append(text, byte('A'+rng.IntN(26)))
	}
	text = append(text, '-')
	for range 4 {
		text = append(text, byte('0'+rng.IntN(10)))
	}
	img := image.NewRGBA(image.Rect(0, 0, 320, 160))
	backdrop(img, rng, color.RGBA{70, 72, 78, 255})
	plate := image.Rect(24, 44, 296, 118)
	draw.Draw(img, plate, image.NewUniform(color.RGBA{20, 30, 60, 255}), image.Point{}, draw.Src)
	draw.Draw(img, plate.Inset(4), image.NewUniform(color.RGBA{236, 236, uint8(190 + rng.IntN(60)), 255}), image.Point{}, draw.Src)
	write(img, string(text), image.Pt(48, 60), 4, color.RGBA{25, 35, 80, 255})
	return img, string(text)
}

// write puts text on img in a fixed font of 7 x 13 pixels, each of them a square of scale
// pixels. at is the upper left corner.
func write(img draw.Image, text string, at image.Point, scale int, c color.Color) {
	face := basicfont.Face7x13
	mask := image.NewAlpha(image.Rect(0, 0, face.Advance*len(text), face.Height))
	d := font.Drawer{Dst: mask, Src: image.Opaque, Face: face, Dot: fixed.P(0, face.Ascent)}
	d.DrawString(text)
	for y := range mask.Rect.Dy() {
		for x := range mask.Rect.Dx() {
			if mask.AlphaAt(x, y).A > 127 {
				dot := image.Rect(0, 0, scale, scale).Add(at).Add(image.Pt(x*scale, y*scale))
				draw.Draw(img, dot, image.NewUniform(c), image.Point{}, draw.Src)
			}
		}
	}
}

// oval fills an ellipse around (cx, cy) with half axes a and b.
func oval(img *image.RGBA, cx, cy, a, b int, c color.RGBA) {
	for y := -b; y <= b; y++ {
		for x := -a; x <= a; x++ {
			if x*x*b*b+y*y*a*a <= a*a*b*b {
				img.SetRGBA(cx+x, cy+y, c)
			}
		}
	}
}

// backdrop fills img with a colour and the grain of a camera's sensor, without which the
// files would be long runs of the same bytes, and nothing to search for.
func backdrop(img *image.RGBA, rng *rand.Rand, c color.RGBA) {
	for y := range img.Rect.Dy() {
		for x := range img.Rect.Dx() {
			img.SetRGBA(x, y, shade(c, rng.IntN(48)))
		}
	}
}

// shade darkens c by n.
func shade(c color.RGBA, n int) color.RGBA {
	less := func(v uint8) uint8 { return uint8(max(0, int(v)-n)) }
	return color.RGBA{less(c.R), less(c.G), less(c.B), c.A}
}

// drawPictures draws the faces and plates of the demonstration: JPEG, each fourth one PNG,
// with the metadata that a careless camera adds.
func drawPictures() (faces, plates []picture, err error) {
	for i := range drawnFaces {
		p, err := develop(fmt.Sprintf("face-%02d", i+1), drawFace(uint64(i)), i)
		if err != nil {
			return nil, nil, err
		}
		faces = append(faces, p)
	}
	for i := range drawnPlates {
		img, _ := drawPlate(uint64(i))
		p, err := develop(fmt.Sprintf("plate-%02d", i+1), img, i)
		if err != nil {
			return nil, nil, err
		}
		plates = append(plates, p)
	}
	return faces, plates, nil
}

func develop(name string, img image.Image, i int) (picture, error) {
	var b bytes.Buffer
	if i%4 == 3 {
		if err := png.Encode(&b, img); err != nil {
			return picture{}, fmt.Errorf("draw %s: %w", name, err)
		}
		return picture{name + ".png", labelPNG(b.Bytes())}, nil
	}
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 88}); err != nil {
		return picture{}, fmt.Errorf("draw %s: %w", name, err)
	}
	return picture{name + ".jpg", labelJPEG(b.Bytes())}, nil
}
