package imaging

import "fmt"

// The reasons of Error. They are stable: callers and people may rely on them.
const (
	// ReasonEmpty: there are no bytes.
	ReasonEmpty = "IMAGE_EMPTY"
	// ReasonTooLarge: the file, or the ICC profile in it, is over its limit of bytes.
	ReasonTooLarge = "IMAGE_TOO_LARGE"
	// ReasonTypeUnsupported: neither JPEG nor PNG, or a kind of them that is hardly ever
	// written and that the standard library does not decode. Detail names it.
	ReasonTypeUnsupported = "IMAGE_TYPE_UNSUPPORTED"
	// ReasonTooManyPixels: width times height is over the limit.
	ReasonTooManyPixels = "IMAGE_TOO_MANY_PIXELS"
	// ReasonMalformed: the file is broken or cut short at Offset.
	ReasonMalformed = "IMAGE_MALFORMED"
)

// Error tells why an image was refused. It holds names, numbers and positions, and nothing
// of the image's content or metadata, so it may be shown to whoever sent the image.
type Error struct {
	Reason string // one of the Reason constants
	Detail string // for people
	Offset int    // where in the file, in bytes from its start; -1 if no place is meant
}

func (e *Error) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("%s: %s", e.Reason, e.Detail)
	}
	return fmt.Sprintf("%s: %s (at byte %d)", e.Reason, e.Detail, e.Offset)
}

func malformed(at int, format string, args ...any) error {
	return &Error{Reason: ReasonMalformed, Offset: at, Detail: fmt.Sprintf(format, args...)}
}

func unsupported(at int, format string, args ...any) error {
	return &Error{Reason: ReasonTypeUnsupported, Offset: at, Detail: fmt.Sprintf(format, args...)}
}

func profileTooLarge(at int) error {
	return &Error{Reason: ReasonTooLarge, Offset: at, Detail: fmt.Sprintf("the ICC profile is over the limit of %d bytes", MaxProfile)}
}
