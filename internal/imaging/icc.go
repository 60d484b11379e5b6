package imaging

import "encoding/binary"

const iccID = "ICC_PROFILE\x00"

// profile collects an ICC profile that JPEG spreads over APP2 segments: each holds iccID, its
// number from 1, how many there are, and a part (ICC.1:2022, annex B.4).
type profile struct {
	parts  [256][]byte // whole payloads, by number
	count  byte
	size   int  // of the parts' data
	broken bool // decoders would not use it
}

// add takes a segment's payload. It keeps a reference to it.
func (p *profile) add(payload []byte, at int) error {
	if len(payload) < len(iccID)+2 {
		p.broken = true
		return nil
	}
	number, count := payload[len(iccID)], payload[len(iccID)+1]
	if p.count == 0 {
		p.count = count
	}
	if number == 0 || number > count || count != p.count || p.parts[number] != nil {
		p.broken = true
		return nil
	}
	p.parts[number] = payload
	if p.size += len(partData(payload)); p.size > MaxProfile {
		return profileTooLarge(at)
	}
	return nil
}

func partData(payload []byte) []byte { return payload[len(iccID)+2:] }

// whole gives the payloads in order, or nothing if there is no profile, or none that a
// decoder would use: a part is missing, or what they hold is no profile.
func (p *profile) whole() [][]byte {
	if p.broken || p.count == 0 {
		return nil
	}
	parts := p.parts[1 : int(p.count)+1]
	// Header fields may lie across parts, so they are read byte by byte.
	var header [40]byte
	n := 0
	for _, part := range parts {
		if part == nil {
			return nil
		}
		n += copy(header[n:], partData(part))
	}
	// A profile begins with its size and has "acsp" at byte 36 (ICC.1:2022, section 7.2). Some
	// writers pad it to a multiple of four; more behind its end is no part of it.
	declared := int64(binary.BigEndian.Uint32(header[:]))
	if pad := int64(p.size) - declared; n < len(header) || string(header[36:]) != "acsp" || pad < 0 || pad > 3 {
		return nil
	}
	return parts
}
