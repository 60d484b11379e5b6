package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// windowSize is the length of the pieces of picture data that are searched for, in bytes.
// 32 bytes of compressed picture do not occur elsewhere by chance.
const windowSize = 32

// searcher looks through files for pictures that can be read: for the beginnings of JPEG
// and PNG files, and for pieces of given pictures, as they are and in base64 (the form in
// which HashiCorp Vault takes and keeps bytes).
type searcher struct {
	windows map[uint64][]window // by their first eight bytes
	first   [1 << 16]bool       // whether a window begins with these two bytes
}

type window struct {
	bytes []byte
	of    string // name of the picture
}

// find is one thing found.
type find struct {
	file string
	at   int
	what string
	of   string // the picture that a piece is of
}

func (f find) String() string { return fmt.Sprintf("%s in %s at byte %d", f.what, f.file, f.at) }

// report is what a search came to.
type report struct {
	files, bytes int64
	finds        []find
}

// newSearcher makes a searcher for pieces of the pictures. It fails when a picture has no
// piece varied enough to be its own.
func newSearcher(pictures []picture) (*searcher, error) {
	s := &searcher{windows: map[uint64][]window{}}
	for _, p := range pictures {
		pieces := piecesOf(p.bytes)
		if len(pieces) == 0 {
			return nil, fmt.Errorf("%s: no piece of %d bytes is varied enough to search for", p.name, windowSize)
		}
		for _, piece := range pieces {
			s.add(piece, p.name)
			for shift := range 3 { // base64 groups bytes in threes, and a piece can begin anywhere in a group
				whole := (windowSize - shift) / 3 * 3
				s.add([]byte(base64.StdEncoding.EncodeToString(piece[shift:shift+whole])), p.name)
			}
		}
	}
	return s, nil
}

func (s *searcher) add(piece []byte, of string) {
	s.first[binary.BigEndian.Uint16(piece)] = true
	key := binary.BigEndian.Uint64(piece)
	s.windows[key] = append(s.windows[key], window{piece, of})
}

// piecesOf gives up to eight windows spread over the picture's compressed data, which
// nothing rewrites, unlike the headers before it.
func piecesOf(file []byte) (out [][]byte) {
	const most, leastVaried = 8, 20
	body := file[len(file)/4:]
	step := max(1, (len(body)-windowSize)/most)
	for at := 0; at+windowSize <= len(body) && len(out) < most; at += step {
		for i := at; i < at+step && i+windowSize <= len(body); i++ {
			if w := body[i : i+windowSize]; varied(w) >= leastVaried {
				out = append(out, w)
				break
			}
		}
	}
	return out
}

// varied counts the different bytes.
func varied(b []byte) (n int) {
	var seen [256]bool
	for _, c := range b {
		if !seen[c] {
			seen[c] = true
			n++
		}
	}
	return n
}

// search gives what is in one file's bytes, at most one find for each beginning and piece.
func (s *searcher) search(file string, b []byte) (out []find) {
	for i := 0; i+8 <= len(b); i++ {
		switch {
		case b[i] == 0xff && looksLikeJPEG(b[i:]):
			out = append(out, find{file: file, at: i, what: "the beginning of a JPEG"})
		case b[i] == pngSignature[0] && string(b[i:i+8]) == pngSignature:
			out = append(out, find{file: file, at: i, what: "the beginning of a PNG"})
		}
		if !s.first[binary.BigEndian.Uint16(b[i:])] {
			continue
		}
		for _, w := range s.windows[binary.BigEndian.Uint64(b[i:])] {
			if bytes.HasPrefix(b[i:], w.bytes) {
				out = append(out, find{file: file, at: i, what: "a piece of " + w.of, of: w.of})
			}
		}
	}
	return out
}

// looksLikeJPEG says whether b begins as a JPEG does: start of image, and a first segment
// that is followed by another marker. The start alone, 24 bits, turns up in ciphertext of
// some megabytes by chance.
func looksLikeJPEG(b []byte) bool {
	if len(b) < 6 || b[1] != 0xd8 || b[2] != 0xff || b[3] < 0xc0 || b[3] == 0xff {
		return false
	}
	next := 4 + int(binary.BigEndian.Uint16(b[4:]))
	return next+2 <= len(b) && b[next] == 0xff && b[next+1] >= 0xc0
}

// searchTree searches every file below dir. What vanishes while it looks (a temporary file)
// is passed over; everything else, dir first of all, must be readable.
func (s *searcher) searchTree(ctx context.Context, dir string) (r report, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if os.IsNotExist(err) && path != dir {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		r.files++
		r.bytes += int64(len(b))
		r.finds = append(r.finds, s.search(name, b)...)
		return err
	})
	if err != nil {
		return r, fmt.Errorf("search %s: %w", dir, err)
	}
	return r, nil
}

// pictures gives how many different pictures a piece was found of.
func (r report) pictures() int {
	seen := map[string]bool{}
	for _, f := range r.finds {
		if f.of != "" {
			seen[f.of] = true
		}
	}
	return len(seen)
}
