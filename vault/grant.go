package vault

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// Scope says which records a grant covers: sites × modalities × capture window.
type Scope struct {
	Sites       []string
	Modalities  []Modality
	From, Until time.Time // captured at or after From and before Until
}

// Check says whether s is well-formed.
func (s Scope) Check() error {
	if err := checkNames("scope.sites", s.Sites); err != nil {
		return err
	}
	if err := checkModalities("scope.modalities", s.Modalities); err != nil {
		return err
	}
	if err := checkWindow("scope", s.From, s.Until); err != nil {
		return err
	}
	if s.Until.Sub(s.From) > MaxWindowDays*24*time.Hour {
		return InvalidField("scope.end_time", "is more than %d days after start_time", MaxWindowDays)
	}
	return nil
}

// Covers says whether the record lies in the scope.
func (s Scope) Covers(r Record) bool {
	return slices.Contains(s.Sites, r.Site) && slices.Contains(s.Modalities, r.Modality) &&
		!r.CapturedAt.Before(s.From) && r.CapturedAt.Before(s.Until)
}

// PurposeRef names one version of a purpose.
type PurposeRef struct {
	Name    string
	Version int
	Digest  Digest
}

// Terms are all that a grant allows. Approvers sign them; they never change.
type Terms struct {
	Grant         ID
	Purpose       PurposeRef
	Grantee       string // SPIFFE ID of one contractor workload
	Epoch         int    // the contractor's epoch in which the grant lives
	Scope         Scope
	MaxRecords    int64
	Ends          time.Time
	Approvals     int    // how many admins must sign
	Justification Digest // of the text that the requester gave
}

// Normal gives t with its lists sorted and without doubles and its times cut to the
// microsecond: the form that is hashed and kept.
func (t Terms) Normal() Terms {
	t.Scope.Sites = sorted(t.Scope.Sites)
	t.Scope.Modalities = sorted(t.Scope.Modalities)
	t.Scope.From, t.Scope.Until, t.Ends = Micro(t.Scope.From), Micro(t.Scope.Until), Micro(t.Ends)
	return t
}

// Text is the terms in their one canonical form, lines of "key: value".
func (t Terms) Text() string {
	t = t.Normal()
	return lines(
		"grant", t.Grant.String(),
		"purpose", t.Purpose.Name,
		"purpose_version", fmt.Sprint(t.Purpose.Version),
		"purpose_digest", t.Purpose.Digest.String(),
		"grantee", t.Grantee,
		"epoch", fmt.Sprint(t.Epoch),
		"sites", join(t.Scope.Sites),
		"modalities", join(t.Scope.Modalities),
		"captured_from", FormatTime(t.Scope.From),
		"captured_until", FormatTime(t.Scope.Until),
		"max_records", fmt.Sprint(t.MaxRecords),
		"ends", FormatTime(t.Ends),
		"approvals", fmt.Sprint(t.Approvals),
		"justification", t.Justification.String(),
	)
}

// Decision is what an approver signs.
func (t Terms) Decision() Decision {
	return Decision{ID: t.Grant, Kind: ApproveGrant, Body: t.Text(), Expires: Micro(t.Ends)}
}

// GrantState is where a grant stands in its life. That a grant has expired shows from its
// terms and the time, not from its state.
type GrantState string

// The grant states.
const (
	GrantPending  GrantState = "pending"  // waits for approvals
	GrantApproved GrantState = "approved" // approved; its grantee may activate it
	GrantActive   GrantState = "active"   // a token was given out
	GrantDenied   GrantState = "denied"
	GrantRetired  GrantState = "retired" // ended by its grantee
	GrantRevoked  GrantState = "revoked" // ended by an admin
)

// Grant is permission for one contractor workload to open records of a scope.
type Grant struct {
	Terms
	State         GrantState
	Contractor    string
	Justification string
	RequestedAt   time.Time
	Released      int64     // distinct records that left under it
	HandleKey     HandleKey // for the handles
	TokenDigest   Digest    // of the newest token; zero before activation
	Accessor      string    // the newest token's accessor at HashiCorp Vault
	Signatures    []Signature
}

// Ended says whether nothing can come of the grant any more.
func (g Grant) Ended(now time.Time) bool {
	return !now.Before(g.Ends) || g.State == GrantDenied || g.State == GrantRetired || g.State == GrantRevoked
}

// Open says whether the grant may release now; the error has the reason.
func (g Grant) Open(now time.Time) error {
	if err := g.Usable(now); err != nil {
		return err
	}
	if g.State != GrantActive {
		return E(State, ReasonGrantNotActive, "grant %s was not activated", g.Grant)
	}
	return nil
}

// Usable says whether the grant may be activated or used now; the error has the reason.
func (g Grant) Usable(now time.Time) error {
	refuse := func(r Reason, what string) error {
		return E(State, r, "grant %s %s", g.Grant, what)
	}
	switch g.State {
	case GrantApproved, GrantActive:
	case GrantPending:
		return refuse(ReasonGrantPending, "waits for approval")
	case GrantDenied:
		return refuse(ReasonGrantDenied, "was denied")
	case GrantRetired:
		return refuse(ReasonGrantRetired, "was retired by its grantee")
	case GrantRevoked:
		return refuse(ReasonGrantRevoked, "was revoked")
	default:
		return E(Internal, ReasonInternal, "grant %s has unknown state %q", g.Grant, g.State)
	}
	if !now.Before(g.Ends) {
		return refuse(ReasonGrantExpired, "ended at "+FormatTime(g.Ends))
	}
	return nil
}

// Fingerprint hashes all that the proof of a grant rests on, its terms and the signatures on
// them first: two rows of the same fingerprint are proved, or not, alike.
func (g Grant) Fingerprint() Digest {
	h := sha256.New()
	field := func(b []byte) {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
		h.Write(b)
	}
	field([]byte(g.Decision().Text()))
	field([]byte(g.Contractor))
	field([]byte(FormatTime(g.RequestedAt)))
	for _, s := range g.Signatures {
		field([]byte(s.Signer))
		field([]byte(FormatTime(s.SignedAt)))
		field(s.Bytes)
		field(binary.BigEndian.AppendUint64(nil, uint64(len(s.Chain))))
		for _, c := range s.Chain {
			field(c)
		}
	}
	return Digest(h.Sum(nil))
}

// FenceState says what Vault has been told of a grant.
type FenceState string

// The fence states.
const (
	FenceNone    FenceState = "none"    // nothing
	FenceDue     FenceState = "due"     // approved; the policy is to be written
	FenceWritten FenceState = "written" // the policy stands
	FenceClosed  FenceState = "closed"  // the policy allows nothing, and keeps its place until the grant's end
	FenceRemoved FenceState = "removed" // the policy is gone
)

// Release is one image leaving in the clear under a grant.
type Release struct {
	Index      int64 // of its event in the log
	At         time.Time
	Grant      ID
	Contractor string
	Caller     Caller
	Record     Record
	Refetch    bool   // the record had left under this grant before; it cost no quota
	Checkpoint []byte // the newest of the log, signed
}

// Image is one opened image, under the name that its grantee knows.
type Image struct {
	Handle      Handle
	Modality    Modality
	ContentType string
	Orientation int
	Bytes       []byte
	Checkpoint  []byte // the newest of the log when it was released, signed
}

// Ending says what access has ended, in a transaction that is durable: that of grants, of
// a contractor, to records, or of callers. A release that it covers and that was authorized
// before must not be sent any more.
type Ending struct {
	Index      int64    // of the ending's last event; of the next event, if it had ended before
	Grants     []ID     // these grants, or
	Contractor string   // all of this contractor's, or
	Records    []ID     // the keys of these records
	Grantees   []string // workloads whose connections are cut in any case
	Callers    []string // SPIFFE IDs, of any kind: all that they have under way, on all connections
	Spare      string   // address of the one connection of these callers that stays, for the answer
}

// Preview is what a grant would open, as of now.
type Preview struct {
	Records, Crossings, Days int64
}

// Barrier says how access was ended. When it is given, nothing covered is under way.
type Barrier struct {
	Connections int           // reset
	Sends       int           // that were under way and ended
	Waited      time.Duration // until the last of them had ended
	Index       int64         // of the ending's event
	VaultDone   bool          // whether Vault enforces it already
}
