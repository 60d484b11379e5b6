package vault

import (
	"fmt"
	"time"
)

// Mark is what stands in HashiCorp Vault and in the database alike, and grows: whichever of the two was restored from
// a copy has an older one. The zero Mark says that none was made yet.
type Mark struct {
	Number int64
	ID     ID // tells two of the same number apart
}

// String gives the mark as text; empty for none.
func (m Mark) String() string {
	if m == (Mark{}) {
		return ""
	}
	return fmt.Sprintf("%d %s", m.Number, m.ID)
}

// ParseMark reads what String wrote.
func ParseMark(s string) (m Mark, err error) {
	if s == "" {
		return m, nil
	}
	var id string
	if _, err := fmt.Sscanf(s, "%d %s", &m.Number, &id); err != nil {
		return Mark{}, fmt.Errorf("mark %.60q: %w", s, err)
	}
	if m.ID, err = ParseID("mark", id); err != nil || m.Number < 1 || m.String() != s {
		return Mark{}, fmt.Errorf("mark %.60q: is not a number and an ID", s)
	}
	return m, nil
}

// After gives a new mark, later than these.
func (m Mark) After(other ...Mark) Mark {
	n := m.Number
	for _, o := range other {
		n = max(n, o.Number)
	}
	return Mark{Number: n + 1, ID: NewID()}
}

// Marked is what the database knows of marks.
type Marked struct {
	Mark, Next Mark  // the one in Vault, and the one that is being written to it, if any
	Log        int64 // size of the log before Mark was written: what Vault did for earlier events is in any copy that has Mark
	NextLog    int64
	Claimed    time.Time // until when the process that writes Next is alone with that

	Good   time.Time // until when releases may rest on the last check
	Reason Reason    // why they may not, if the check said so
}
