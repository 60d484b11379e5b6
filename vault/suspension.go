package vault

import "time"

// Suspension is a caller, of any kind, that an admin cut off.
type Suspension struct {
	Caller string // SPIFFE ID
	At     time.Time
	By     string // SPIFFE ID of the admin; empty in rows older than this field
}

// Text is the suspension in its one canonical form: what admins sign to lift it. It names the
// moment, so that no signature lifts a later suspension of the same caller.
func (s Suspension) Text() string {
	return lines("caller", s.Caller, "suspended_at", FormatTime(s.At))
}

// Review is what is in force on the signature of one admin: for people to look at, once that
// admin is suspended. Each list is in the order of its names.
type Review struct {
	Grants      []ID     // approved or active, not ended
	Purposes    []string // newest versions
	Contractors []string // admitted, not suspended
	More        bool     // a list was cut at its limit
}
