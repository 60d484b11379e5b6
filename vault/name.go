package vault

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"time"
	"unicode"
	"unicode/utf8"
)

// MaxName is the longest site, lane, organisation, workload, admin, auditor or purpose name, in bytes.
const MaxName = 32

var nameForm = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// CheckName says whether s is a name: [a-z0-9]+(-[a-z0-9]+)*, at most [MaxName]
// bytes. field is the request field that an error names.
func CheckName(field, s string) error {
	switch {
	case s == "":
		return InvalidField(field, "must not be empty")
	case len(s) > MaxName:
		return InvalidField(field, "has %d bytes; at most %d are allowed", len(s), MaxName)
	case !nameForm.MatchString(s):
		return InvalidField(field, "must be lower-case letters and digits, parts joined by single hyphens, for example %q", "north-gate-2")
	}
	return nil
}

// CheckText says whether s is one line of printable text of at most most bytes; empty is
// refused unless optional. Such text may stand in what people sign: it can not forge a line.
func CheckText(field, s string, most int, optional bool) error {
	if s == "" && !optional {
		return InvalidField(field, "must not be empty")
	}
	if len(s) > most {
		return InvalidField(field, "has %d bytes; at most %d are allowed", len(s), most)
	}
	if !utf8.ValidString(s) {
		return InvalidField(field, "must be valid UTF-8")
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return InvalidField(field, "must be one line of printable text; it holds %U", r)
		}
	}
	return nil
}

// Digest is a SHA-256.
type Digest [sha256.Size]byte

// DigestOf hashes b.
func DigestOf(b []byte) Digest { return sha256.Sum256(b) }

// String gives "sha256:" and 64 hexadecimal digits.
func (d Digest) String() string { return "sha256:" + hex.EncodeToString(d[:]) }

// timeForm is the one way a time is written in what is signed, hashed or logged.
const timeForm = "2006-01-02T15:04:05.000000Z"

// FormatTime writes t in UTC to the microsecond, always 27 bytes.
func FormatTime(t time.Time) string { return t.UTC().Format(timeForm) }

// ParseTime reads what [FormatTime] wrote, and nothing else.
func ParseTime(s string) (time.Time, error) {
	t, err := time.Parse(timeForm, s)
	if err == nil && FormatTime(t) != s { // time.Parse also takes a comma, and hours of one digit
		err = fmt.Errorf("time %q is not of the form %s", s, timeForm)
	}
	return t, err
}

// Micro cuts t to the microsecond in UTC, the precision in which all times are kept.
func Micro(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
