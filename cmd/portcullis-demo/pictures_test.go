package main

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"slices"
	"strings"
	"sync"
	"testing"
)

var drawOnce = sync.OnceValues(func() (both [2][]picture, err error) {
	both[0], both[1], err = drawPictures()
	return both, err
})

// drawn gives the drawn faces and plates. Tests do not change them.
func drawn(t *testing.T) (faces, plates []picture) {
	t.Helper()
	both, err := drawOnce()
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clip(both[0]), slices.Clip(both[1])
}

func TestDrawnPicturesAreTheSameEachTime(t *testing.T) {
	draw := func() []picture {
		faces, plates, err := drawPictures()
		if err != nil {
			t.Fatal(err)
		}
		if len(faces) != drawnFaces || len(plates) != drawnPlates {
			t.Fatalf("drew %d faces and %d plates", len(faces), len(plates))
		}
		return append(faces, plates...)
	}
	one, two := draw(), draw()
	for i := range one {
		if !bytes.Equal(one[i].bytes, two[i].bytes) {
			t.Errorf("%s differs between two drawings", one[i].name)
		}
	}
}

func TestDrawnPicturesDifferFromEachOther(t *testing.T) {
	faces, plates := drawn(t)
	all := append(faces, plates...)
	seen, err := newGallery(all)
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) != len(all) {
		t.Errorf("%d pictures have %d looks", len(all), len(seen))
	}
	formats := map[string]int{}
	for _, p := range all {
		_, format, err := image.DecodeConfig(bytes.NewReader(p.bytes))
		if err != nil {
			t.Fatalf("%s: %v", p.name, err)
		}
		formats[format]++
	}
	if formats["jpeg"] == 0 || formats["png"] == 0 {
		t.Errorf("formats: %v; both are wanted", formats)
	}
}

func TestPlateShowsItsText(t *testing.T) {
	img, text := drawPlate(7)
	if len(text) != 8 || text[3] != '-' {
		t.Fatalf("the plate reads %q", text)
	}
	ink := 0
	for x := 48; x < 48+len(text)*28; x++ {
		for y := 60; y < 112; y++ {
			if img.At(x, y) == (color.RGBA{25, 35, 80, 255}) {
				ink++
			}
		}
	}
	if ink < 8*16*10 { // ten dots of 4 x 4 pixels a letter
		t.Errorf("%d pixels of ink", ink)
	}
}

func TestEveryDrawnPictureIsLabelled(t *testing.T) {
	faces, plates := drawn(t)
	for _, p := range append(faces, plates...) {
		want := []string{"EXIF", "XMP", "a comment"}
		if strings.HasSuffix(p.name, ".png") {
			want = []string{"EXIF", "a text"}
		}
		if found, err := metadataIn(p.bytes); err != nil || !slices.Equal(found, want) {
			t.Errorf("%s: metadata %q, error %v; want %q", p.name, found, err, want)
		}
		if !bytes.Contains(p.bytes, []byte(confession)) {
			t.Errorf("%s does not carry the camera's words", p.name)
		}
	}
}

func TestMetadataOfPlainFiles(t *testing.T) {
	var jpg, pngFile bytes.Buffer
	if err := jpeg.Encode(&jpg, drawFace(1), nil); err != nil {
		t.Fatal(err)
	}
	if err := png.Encode(&pngFile, drawFace(1)); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string][]byte{"jpeg": jpg.Bytes(), "png": pngFile.Bytes()} {
		if found, err := metadataIn(file); err != nil || len(found) > 0 {
			t.Errorf("%s: %v, %v", name, found, err)
		}
		if _, err := metadataIn(file[:40]); err == nil {
			t.Errorf("%s: a file that ends in its headers was taken", name)
		}
	}
	if _, err := metadataIn([]byte("GIF89a")); err == nil {
		t.Error("a GIF was taken")
	}
}

// A picture is the same in two files that differ beside their pixels, and another when one
// pixel differs.
func TestLook(t *testing.T) {
	img := drawFace(3).(*image.RGBA)
	file := func(level png.CompressionLevel) []byte {
		var b bytes.Buffer
		if err := (&png.Encoder{CompressionLevel: level}).Encode(&b, img); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	look := func(file []byte) look {
		l, err := lookOf(file)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	small, large := file(png.BestCompression), file(png.NoCompression)
	if bytes.Equal(small, large) || look(small) != look(large) || look(small) != look(labelPNG(large)) {
		t.Error("files of the same pixels must have the same look")
	}
	img.SetRGBA(239, 299, color.RGBA{1, 2, 3, 255})
	if look(file(png.NoCompression)) == look(large) {
		t.Error("one other pixel must give another look")
	}
	var jpg bytes.Buffer
	if err := jpeg.Encode(&jpg, img, nil); err != nil {
		t.Fatal(err)
	}
	if look(jpg.Bytes()) != look(labelJPEG(jpg.Bytes())) {
		t.Error("metadata must not change a look")
	}
	if _, err := lookOf(jpg.Bytes()[:200]); err == nil {
		t.Error("half a picture must not have a look")
	}
}

func TestStrangers(t *testing.T) {
	faces, plates := drawn(t)
	g, err := newGallery(plates)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		pictures []picture
		want     int
	}{
		{"all", plates, 0},
		{"a face among them", []picture{plates[0], faces[0]}, 1},
		{"one twice", []picture{plates[0], plates[0]}, 1},
	} {
		if names, err := g.strangers(c.pictures); err != nil || len(names) != c.want {
			t.Errorf("%s: %v, %v; want %d", c.name, names, err, c.want)
		}
	}
}
