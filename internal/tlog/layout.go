package tlog

import (
	"encoding/binary"
	"fmt"
	"math"
)

// TilePath gives where a tile lies in an export: C2SP tlog-tiles. Width is the number of
// hashes of a partial tile, 0 or 256 for a full one.
func TilePath(level int, index int64, width int) string {
	return fmt.Sprintf("tile/%d/%s", level, number(index, width))
}

// BundlePath gives where a bundle of entries lies, 256 to a bundle.
func BundlePath(index int64, width int) string { return "tile/entries/" + number(index, width) }

// number writes an index in elements of three digits, all but the last with an x before.
func number(index int64, width int) string {
	out := fmt.Sprintf("%03d", index%1000)
	for index >= 1000 {
		index /= 1000
		out = fmt.Sprintf("x%03d/%s", index%1000, out)
	}
	if width != 0 && width != TileWidth {
		out += fmt.Sprintf(".p/%d", width)
	}
	return out
}

// AppendEntry adds an entry to the bytes of a bundle: its length in two bytes, big endian,
// then its bytes.
func AppendEntry(bundle, entry []byte) ([]byte, error) {
	if len(entry) > math.MaxUint16 {
		return nil, fmt.Errorf("an entry of %d bytes does not fit a bundle; at most %d are allowed", len(entry), math.MaxUint16)
	}
	bundle = binary.BigEndian.AppendUint16(bundle, uint16(len(entry)))
	return append(bundle, entry...), nil
}

// SplitBundle gives the entries of a bundle, which share its memory.
func SplitBundle(bundle []byte) (entries [][]byte, err error) {
	for at := 0; at < len(bundle); {
		if len(bundle)-at < 2 {
			return nil, fmt.Errorf("it ends within the length of entry %d", len(entries))
		}
		n := int(binary.BigEndian.Uint16(bundle[at:]))
		at += 2
		if len(bundle)-at < n {
			return nil, fmt.Errorf("it ends within entry %d", len(entries))
		}
		if len(entries) == TileWidth {
			return nil, fmt.Errorf("it has more than %d entries", TileWidth)
		}
		entries = append(entries, bundle[at:at+n:at+n])
		at += n
	}
	return entries, nil
}
