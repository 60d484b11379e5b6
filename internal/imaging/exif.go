package imaging

import "encoding/binary"

// upright is the orientation of a picture that needs no turning.
const upright = 1

// orientation reads tag 274 of the first directory of an EXIF block (a TIFF file: TIFF 6.0,
// section 2). ok is false if the block is broken or does not say: like viewers, Clean then
// shows the picture as stored, for a camera's bad EXIF is no reason to lose the picture.
func orientation(tiff []byte) (value int, ok bool) {
	if len(tiff) < 8 {
		return 0, false
	}
	var order binary.ByteOrder
	switch string(tiff[:4]) {
	case "II*\x00":
		order = binary.LittleEndian
	case "MM\x00*":
		order = binary.BigEndian
	default:
		return 0, false
	}
	start := uint64(order.Uint32(tiff[4:]))
	if start+2 > uint64(len(tiff)) {
		return 0, false
	}
	count := int(order.Uint16(tiff[start:]))
	const (
		entrySize      = 12
		tagOrientation = 0x0112
		typeShort      = 3
	)
	entries := tiff[start+2:]
	for ; count > 0 && len(entries) >= entrySize; count-- {
		e := entries[:entrySize]
		entries = entries[entrySize:]
		if order.Uint16(e) != tagOrientation {
			continue
		}
		v := int(order.Uint16(e[8:]))
		if order.Uint16(e[2:]) != typeShort || order.Uint32(e[4:]) != 1 || v < 1 || v > 8 {
			return 0, false
		}
		return v, true
	}
	return 0, false
}
