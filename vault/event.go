package vault

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// EventType says what an event tells of.
type EventType string

// The event types.
const (
	EventCallRefused         EventType = "call.refused" // by the caller's role or standing
	EventRecordStored        EventType = "record.stored"
	EventDecisionProposed    EventType = "decision.proposed"
	EventDecisionSigned      EventType = "decision.signed"
	EventDecisionRefused     EventType = "decision.refused" // a signature on it, which changed nothing
	EventPurposeApplied      EventType = "purpose.applied"
	EventPurposeWithdrawn    EventType = "purpose.withdrawn" // nothing is granted or opened for it any more; its grants ended
	EventListCreated         EventType = "list.created"      // records that an admin chose for a contractor
	EventContractorApplied   EventType = "contractor.applied"
	EventContractorSuspended EventType = "contractor.suspended"
	EventCallerSuspended     EventType = "caller.suspended"  // one caller of any kind, cut off
	EventCallerReinstated    EventType = "caller.reinstated" // by two admins
	EventGrantRequested      EventType = "grant.requested"
	EventGrantExplained      EventType = "grant.explained" // somebody asked what speaks against a request, and asked for nothing
	EventGrantRefused        EventType = "grant.refused"   // a request, approval or activation that policy forbids
	EventGrantSigned         EventType = "grant.signed"    // one approver's signature
	EventGrantApproved       EventType = "grant.approved"
	EventGrantDenied         EventType = "grant.denied"
	EventGrantActivated      EventType = "grant.activated"
	EventGrantRetired        EventType = "grant.retired"
	EventGrantRevoked        EventType = "grant.revoked"
	EventGrantLapsed         EventType = "grant.lapsed"    // was not approved in time
	EventGrantSuspended      EventType = "grant.suspended" // ended by itself, after repeated excess
	EventGrantExpired        EventType = "grant.expired"
	EventRecordsListed       EventType = "records.listed"
	EventRecordReleased      EventType = "record.released"
	EventReleaseUnsent       EventType = "release.unsent" // nothing of that release left
	EventReleaseRefused      EventType = "release.refused"
	EventKeysRevoked         EventType = "keys.revoked"
	EventKeysRestored        EventType = "keys.restored"
	EventKeysDestroying      EventType = "keys.destroying"     // decided; the records open no more
	EventKeyDestroyed        EventType = "key.destroyed"       // gone from Vault, one record
	EventVaultCaughtUp       EventType = "vault.caught_up"     // Vault now enforces what an earlier event decided
	EventOrphansQuarantined  EventType = "orphans.quarantined" // blobs and keys that no record names, put aside
	EventOrphansReturned     EventType = "orphans.returned"    // a record names them again
	EventOrphansDestroyed    EventType = "orphans.destroyed"   // after the days of quarantine
	EventRestoreUndone       EventType = "restore.undone"      // a restore brought back keys that were revoked or destroyed
	EventVaultRestored       EventType = "vault.restored"      // Vault is older than it was; all grant tokens ended
	EventKeyMissing          EventType = "key.missing"         // was to be restored, and Vault does not have it: it stays revoked
)

// EventTypes are all types of events.
var EventTypes = []EventType{
	EventCallRefused, EventRecordStored, EventDecisionProposed, EventDecisionSigned, EventDecisionRefused,
	EventPurposeApplied, EventPurposeWithdrawn, EventListCreated, EventContractorApplied, EventContractorSuspended, EventCallerSuspended,
	EventCallerReinstated, EventGrantRequested, EventGrantExplained, EventGrantRefused, EventGrantSigned, EventGrantApproved,
	EventGrantDenied, EventGrantActivated, EventGrantRetired, EventGrantRevoked, EventGrantLapsed, EventGrantSuspended, EventGrantExpired,
	EventRecordsListed, EventRecordReleased, EventReleaseUnsent, EventReleaseRefused, EventKeysRevoked,
	EventKeysRestored, EventKeysDestroying, EventKeyDestroyed, EventVaultCaughtUp, EventOrphansQuarantined,
	EventOrphansReturned, EventOrphansDestroyed, EventRestoreUndone, EventVaultRestored, EventKeyMissing,
}

// EventVersion is the version of the events' form.
const EventVersion = 1

// MaxEvent is the longest event, in bytes: the largest entry of a C2SP tlog-tiles bundle.
const MaxEvent = 65_535

// Event is one entry of the audit log. It names records and callers by ID, free text by
// hash, and holds no image, name, plate or secret. Its bytes, as first written, are kept
// for ever: [Event.Encode] is called once.
type Event struct {
	V    int       `json:"v"`
	Type EventType `json:"type"`
	At   string    `json:"at"` // RFC 3339, UTC, microseconds

	Actor string `json:"actor"`          // SPIFFE ID, or "portcullisd" for what the daemon does by itself
	Cert  string `json:"cert,omitempty"` // digest of the actor's certificate
	Addr  string `json:"addr,omitempty"` // address of the actor

	Stored     *StoredFacts    `json:"stored,omitempty"`
	Grant      string          `json:"grant,omitempty"`
	Contractor string          `json:"contractor,omitempty"`
	Epoch      int             `json:"epoch,omitempty"`
	Caller     string          `json:"caller,omitempty"` // SPIFFE ID of whom a suspension is about
	Terms      string          `json:"terms,omitempty"`  // canonical text
	Decision   *DecisionFacts  `json:"decision,omitempty"`
	Signature  *SignatureFacts `json:"signature,omitempty"`

	List    string   `json:"list,omitempty"` // of records
	Record  string   `json:"record,omitempty"`
	Refetch bool     `json:"refetch,omitempty"`
	Release int64    `json:"release,omitempty"` // index of the release that an unsent event takes back
	Records []string `json:"records,omitempty"`
	Part    int      `json:"part,omitempty"`  // long lists come in parts, 1 and up
	Parts   int      `json:"parts,omitempty"` // how many
	Count   int64    `json:"count,omitempty"`
	Void    int64    `json:"void,omitempty"`   // signatures on what was still open, which count no more
	Digest  string   `json:"digest,omitempty"` // of the whole list

	Reason  Reason   `json:"reason,omitempty"`
	Reasons []Reason `json:"reasons,omitempty"` // all that speaks against a request, each once
	Method  string   `json:"method,omitempty"`  // of the API, in a refused call
	Note    string   `json:"note,omitempty"`    // digest of the free text that an admin gave
}

// StoredFacts are the facts of a stored record.
type StoredFacts struct {
	Record      string `json:"record"`
	Site        string `json:"site"`
	Lane        string `json:"lane"`
	Modality    string `json:"modality"`
	CapturedAt  string `json:"captured_at"`
	CrossingID  string `json:"crossing_id,omitempty"`
	ContentType string `json:"content_type"`
	Size        int64  `json:"size"`
	RequestID   string `json:"request_id"`
	KeyName     string `json:"key_name"`
	SealedHash  string `json:"sealed_hash"`
	Class       string `json:"class,omitempty"` // retention class; events from before there were classes have none: [DefaultClass]
}

// DecisionFacts are a decision.
type DecisionFacts struct {
	ID      string `json:"id"`
	Kind    string `json:"kind"`
	Expires string `json:"expires"`
	Body    string `json:"body"`
	Digest  string `json:"digest"`
}

// SignatureFacts are a signature.
type SignatureFacts struct {
	Signer   string   `json:"signer"`
	SignedAt string   `json:"signed_at"`
	Bytes    string   `json:"bytes"` // base64
	Chain    []string `json:"chain"` // base64 of DER
}

// NewEvent begins an event of the caller.
func NewEvent(t EventType, c Caller, at time.Time) Event {
	e := Event{V: EventVersion, Type: t, At: FormatTime(at), Actor: c.ID, Addr: c.Addr}
	if c.ID == "" {
		e.Actor = "portcullisd"
	}
	if c.Cert != (Digest{}) {
		e.Cert = c.Cert.String()
	}
	return e
}

// Facts gives what the log keeps of a stored record.
func (r Record) Facts() *StoredFacts {
	f := &StoredFacts{
		Record: r.ID.String(), Site: r.Site, Lane: r.Lane, Modality: string(r.Modality),
		CapturedAt: FormatTime(r.CapturedAt), ContentType: r.ContentType, Size: r.Size,
		RequestID: r.RequestID.String(), KeyName: r.KeyName(), SealedHash: r.SealedHash.String(),
		Class: r.Class,
	}
	if r.CrossingID != (ID{}) {
		f.CrossingID = r.CrossingID.String()
	}
	return f
}

// Facts gives what the log keeps of a decision.
func (d Decision) Facts() *DecisionFacts {
	return &DecisionFacts{ID: d.ID.String(), Kind: string(d.Kind), Expires: FormatTime(d.Expires), Body: d.Body, Digest: d.Digest().String()}
}

// Facts gives what the log keeps of a signature.
func (s Signature) Facts() *SignatureFacts {
	f := &SignatureFacts{Signer: s.Signer, SignedAt: FormatTime(s.SignedAt), Bytes: base64.StdEncoding.EncodeToString(s.Bytes)}
	for _, c := range s.Chain {
		f.Chain = append(f.Chain, base64.StdEncoding.EncodeToString(c))
	}
	return f
}

// Encode gives the bytes of the event: JSON on one line, the very bytes that [DecodeEvent]
// reads. It fails when they are longer than [MaxEvent]. Bytes of a text that are not UTF-8
// become U+FFFD: no ending of access may fail for the form of a text.
func (e Event) Encode() ([]byte, error) {
	out, err := e.write()
	if err == nil && bytes.Contains(out, []byte(`\ufffd`)) {
		// So the encoder writes what is not UTF-8, but not the U+FFFD that will be read from it.
		var clean Event
		if err = json.Unmarshal(out, &clean); err == nil {
			out, err = clean.write()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	if len(out) > MaxEvent {
		return nil, fmt.Errorf("encode event %s: %d bytes, at most %d are allowed", e.Type, len(out), MaxEvent)
	}
	return out, nil
}

// write gives the one form of an event, however long.
func (e Event) write() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// DecodeEvent reads what [Event.Encode] wrote, and nothing else: not another order of fields,
// a field twice, in other letters, or with nothing in it, other spaces or escapes. So an event
// of the log has one meaning, whoever reads it, and one form. Unknown fields and versions are
// refused.
func DecodeEvent(b []byte) (Event, error) {
	if len(b) > MaxEvent {
		return Event{}, fmt.Errorf("decode event: %d bytes, at most %d are allowed", len(b), MaxEvent)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	var e Event
	if err := dec.Decode(&e); err != nil {
		return Event{}, fmt.Errorf("decode event: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return Event{}, fmt.Errorf("decode event: bytes follow the event")
	}
	if e.V != EventVersion {
		return Event{}, fmt.Errorf("decode event: version %d, this program knows %d", e.V, EventVersion)
	}
	if _, err := ParseTime(e.At); err != nil {
		return Event{}, fmt.Errorf("decode event: at: %w", err)
	}
	again, err := e.write()
	if err != nil {
		return Event{}, fmt.Errorf("decode event: %w", err)
	}
	if !bytes.Equal(again, b) {
		return Event{}, fmt.Errorf("decode event: byte %d is not as the event's one form has it", differ(again, b))
	}
	return e, nil
}

// differ gives where two texts begin to differ.
func differ(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
