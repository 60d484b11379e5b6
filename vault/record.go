package vault

import (
	"crypto/sha256"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"
)

// ID is a random UUID (version 4): an ID must not tell the time.
type ID = uuid.UUID

// NewID makes a random ID.
func NewID() ID { return uuid.New() }

// ParseID reads a UUID in its canonical form of 36 lower-case characters.
func ParseID(field, s string) (ID, error) {
	id, err := uuid.Parse(s)
	if err != nil || id.String() != s {
		return ID{}, InvalidField(field, "must be a UUID such as 123e4567-e89b-42d3-a456-426614174000")
	}
	return id, nil
}

// Modality is what an image shows.
type Modality string

// The modalities.
const (
	Face  Modality = "face"
	Plate Modality = "plate"
)

// CheckModality says whether m is one of the modalities.
func CheckModality(field string, m Modality) error {
	if m != Face && m != Plate {
		return InvalidField(field, "must be face or plate")
	}
	return nil
}

// KeyState says what has become of a record's key.
type KeyState string

// The key states. Only an active key opens anything. The states that end in -ing are
// decided and in force here, while Vault's part is still to be done.
const (
	KeyActive     KeyState = "active"
	KeyRevoking   KeyState = "revoking"
	KeyRevoked    KeyState = "revoked"
	KeyRestoring  KeyState = "restoring"
	KeyDestroying KeyState = "destroying"
	KeyDestroyed  KeyState = "destroyed"
)

// DefaultClass is the retention class of records for which none was named, and of all that
// were stored before there were classes.
const DefaultClass = "standard"

// Record is one stored image and its facts.
type Record struct {
	ID          ID
	Site, Lane  string
	Modality    Modality
	Class       string    // retention class: a name as [CheckName] takes it, such as [DefaultClass]; never empty
	CapturedAt  time.Time // UTC, microseconds
	CrossingID  ID        // zero when the capture system knows none
	ContentType string    // image/jpeg or image/png
	Orientation int       // 1 to 8, as in EXIF: how to turn the picture for showing; 1 is upright
	Size        int64     // bytes of the cleaned image
	Device      string    // SPIFFE ID of the capture system
	RequestID   ID        // names the image at its device
	StoredAt    time.Time
	WrappedKey  string // the data key, encrypted by the record's transit key; empty once destroyed
	SealedHash  Digest // SHA-256 of the sealed image, so that files can be checked without keys
	Key         KeyState
}

// KeyName is the name of the record's transit key: <site>.<modality>.<yyyymmdd>.<id>,
// day in UTC.
func (r Record) KeyName() string {
	return fmt.Sprintf("%s.%s.%s.%s", r.Site, r.Modality, r.CapturedAt.UTC().Format("20060102"), r.ID)
}

// Selection names records for work on their keys: either one record, or those of a site
// in a window of capture times.
type Selection struct {
	Record      ID        // one record, or
	Site        string    // all records of a site
	Modality    Modality  // of this modality only, if not empty
	From, Until time.Time // captured at or after From and before Until
}

// MaxSelection is the most records one key operation takes.
const MaxSelection = 100_000

// Check says whether s is well-formed.
func (s Selection) Check() error {
	if s.Record != (ID{}) {
		if s.Site != "" || s.Modality != "" || !s.From.IsZero() || !s.Until.IsZero() {
			return InvalidField("selection", "names either one record or a site and window, not both")
		}
		return nil
	}
	if err := CheckName("selection.site", s.Site); err != nil {
		return err
	}
	if s.Modality != "" {
		if err := CheckModality("selection.modality", s.Modality); err != nil {
			return err
		}
	}
	return checkWindow("selection", s.From, s.Until)
}

// Text is the selection in its one canonical form.
func (s Selection) Text() string {
	if s.Record != (ID{}) {
		return lines("record", s.Record.String())
	}
	m := string(s.Modality)
	if m == "" {
		m = "any"
	}
	return lines("site", s.Site, "modality", m,
		"captured_from", FormatTime(s.From), "captured_until", FormatTime(s.Until))
}

// DigestOfIDs hashes a list of records: their UUIDs, one on a line, in the order given.
func DigestOfIDs(ids []ID) Digest {
	h := sha256.New()
	for _, id := range ids {
		io.WriteString(h, id.String()+"\n")
	}
	return Digest(h.Sum(nil))
}

func checkWindow(field string, from, until time.Time) error {
	for _, t := range []struct {
		name string
		at   time.Time
	}{{".start_time", from}, {".end_time", until}} {
		if y := t.at.Year(); y < 1970 || y > 2100 {
			return InvalidField(field+t.name, "must be a time from 1970 to 2100")
		}
	}
	if !from.Before(until) {
		return InvalidField(field+".end_time", "must be after start_time")
	}
	return nil
}
