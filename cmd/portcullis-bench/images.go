package main

import (
	"bytes"
	"fmt"
	"image"
	"image/jpeg"
	"math"
	"math/rand/v2"
)

// variants is how many different images there are of each size.
const variants = 4

// drawNoise makes JPEGs of noise, each within 2% of so many bytes: noise neither packs nor
// repeats, so the service handles as many bytes as of a photograph of that size.
func drawNoise(size int) ([][]byte, error) {
	out := make([][]byte, variants)
	for i := range out {
		source := rand.NewChaCha8([32]byte{byte(i)})
		var err error
		if out[i], err = noise(source, size); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func noise(source *rand.ChaCha8, size int) ([]byte, error) {
	const tries = 20
	pixels := float64(size) // a grey pixel of noise takes about a byte
	for range tries {
		side := max(1, int(math.Sqrt(pixels)))
		grey := image.NewGray(image.Rect(0, 0, side, max(1, int(pixels)/side)))
		source.Read(grey.Pix) // never fails
		var b bytes.Buffer
		if err := jpeg.Encode(&b, grey, &jpeg.Options{Quality: 90}); err != nil {
			return nil, err
		}
		off := float64(b.Len()) / float64(size)
		if math.Abs(off-1) <= 0.02 {
			return b.Bytes(), nil
		}
		pixels /= off
	}
	return nil, fmt.Errorf("no JPEG of noise comes near %d bytes", size)
}
