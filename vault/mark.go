package vault

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Mark is what stands in HashiCorp Vault and in the database alike, and grows: whichever of the two was restored from
// a copy has an older one. The zero Mark says that none was made yet.
type Mark struct {
	Number   int64
	ID       ID // tells two of the same number apart
	Database ID // of [Marked]; zero in marks of versions that did not have it
}

// Unreadable stands for a text in HashiCorp Vault that is no mark, where one must be. It is never written.
var Unreadable = Mark{Number: -1}

// String gives the mark as text; empty for none.
func (m Mark) String() string {
	if m == (Mark{}) {
		return ""
	}
	if m.Database == (ID{}) {
		return fmt.Sprintf("%d %s", m.Number, m.ID)
	}
	return fmt.Sprintf("%d %s %s", m.Number, m.ID, m.Database)
}

// ParseMark reads what String wrote.
func ParseMark(s string) (m Mark, err error) {
	if s == "" {
		return m, nil
	}
	parts := strings.Fields(s)
	if len(parts) == 2 || len(parts) == 3 {
		m.Number, err = strconv.ParseInt(parts[0], 10, 64)
		if err == nil {
			m.ID, err = ParseID("mark", parts[1])
		}
		if err == nil && len(parts) == 3 {
			m.Database, err = ParseID("database", parts[2])
		}
	}
	if err != nil || m.Number < 1 || m.String() != s {
		return Mark{}, fmt.Errorf("mark %.100q: is not a number, an ID and the ID of a database", s)
	}
	return m, nil
}

// After gives a new mark of the same database, later than these.
func (m Mark) After(other ...Mark) Mark {
	n := m.Number
	for _, o := range other {
		n = max(n, o.Number)
	}
	return Mark{Number: n + 1, ID: NewID(), Database: m.Database}
}

// Marked is what the database knows of marks. A look writes two to Vault, Begun before it checks anything and Next
// after it; Vault keeps the newest two. Whoever finds Begun beside Mark, or Next beside Begun, knows that no older copy
// took Vault's place since the earlier of the two was written.
type Marked struct {
	// Database names this database, and its copies, in its marks; it is drawn with the first of them. A Vault
	// whose marks name another one belongs to that.
	Database ID

	Mark        Mark  // the newest one that a look which succeeded has written
	Begun, Next Mark  // of the look under way, or of one that was cut short
	Log         int64 // size of the log before the look that wrote Mark: what Vault did for earlier events is in any copy that has Mark
	NextLog     int64
	Claimed     time.Time // until when the process that writes Begun and Next is alone with that

	Generation int64     // raised by whoever withdraws; a look that began at another one changes nothing
	Good       time.Time // until when releases may rest on the last check
	Reason     Reason    // why they may not, if the check said so
}
