package vault

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Kind says what sort of failure an [Error] is. The server turns it into a status.
type Kind int

// The kinds of errors that the domain knows.
const (
	Internal    Kind = iota // anything else; nothing of it reaches a caller
	Invalid                 // the request is malformed; its fields say where
	NotFound                // absent, or not the caller's to know
	Denied                  // refused, with a reason
	State                   // the state of the thing does not allow it
	Exhausted               // over a quota or rate
	Exists                  // already there
	Conflict                // changed under the caller
	DataLoss                // ciphertext, wrapped key or row does not prove intact
	Unavailable             // Vault, store or log is away; try again
	NotOffered              // another process offers it
)

// Field is one violation of a request field.
type Field struct {
	Name        string // path of the field, as in the API
	Description string // what is wrong and what is allowed
}

// Error is a failure with a kind, a stable reason and a message for the caller.
// Err is the cause; it is for the server's log alone.
type Error struct {
	Kind    Kind
	Reason  Reason
	Message string
	Fields  []Field
	After   time.Duration // when there is some use in trying again; 0 when nobody knows
	Err     error
}

// Error gives the message and the cause. Callers over the network see Message alone.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Message)
	for _, f := range e.Fields {
		fmt.Fprintf(&b, "; %s: %s", f.Name, f.Description)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// E makes an error of a kind and reason; the message follows fmt.Sprintf.
func E(k Kind, r Reason, format string, args ...any) *Error {
	return &Error{Kind: k, Reason: r, Message: fmt.Sprintf(format, args...)}
}

// Because attaches the cause, for the server's log.
func (e *Error) Because(err error) *Error {
	e.Err = err
	return e
}

// InvalidField makes an Invalid error for one field.
func InvalidField(name, format string, args ...any) *Error {
	return &Error{
		Kind: Invalid, Reason: ReasonInvalidField, Message: "invalid request",
		Fields: []Field{{Name: name, Description: fmt.Sprintf(format, args...)}},
	}
}

// KindOf gives the kind of the first [Error] in err's tree, Internal when there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}

// ReasonOf gives the reason of the first [Error] in err's tree, "" when there is none.
func ReasonOf(err error) Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}
