package vault

import (
	"crypto/sha256"
	"fmt"
	"strconv"
	"time"
)

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
	MaxBytes      int64 // of images in the clear
	Ends          time.Time
	Approvals     int    // how many admins must sign
	Justification Digest // of the text that the requester gave
}

// Normal gives t with its lists sorted and without doubles and its times cut to the
// microsecond: the form that is hashed and kept.
func (t Terms) Normal() Terms {
	t.Scope, t.Ends = t.Scope.normal(), Micro(t.Ends)
	return t
}

// Text is the terms in their one canonical form, lines of "key: value".
func (t Terms) Text() string {
	t = t.Normal()
	list, records := "none", "all"
	if t.Scope.List != (ID{}) {
		list, records = t.Scope.List.String(), idList(t.Scope.Records)
	}
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
		"live", strconv.FormatBool(t.Scope.Live),
		"list", list,
		"records", records,
		"max_records", fmt.Sprint(t.MaxRecords),
		"max_bytes", fmt.Sprint(t.MaxBytes),
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
	GrantPending   GrantState = "pending"  // waits for approvals
	GrantApproved  GrantState = "approved" // approved; its grantee may activate it
	GrantActive    GrantState = "active"   // a token was given out
	GrantDenied    GrantState = "denied"
	GrantRetired   GrantState = "retired"   // ended by its grantee
	GrantRevoked   GrantState = "revoked"   // ended by an admin, or with a suspension, or with its purpose
	GrantLapsed    GrantState = "lapsed"    // was not approved in time
	GrantSuspended GrantState = "suspended" // ended by itself, after repeated excess
)

// Grant is permission for one contractor workload to open records of a scope.
type Grant struct {
	Terms
	State         GrantState
	Contractor    string
	Justification string
	RequestedAt   time.Time
	Released      int64     // distinct records that left under it
	ReleasedBytes int64     // of their images in the clear
	HandleKey     HandleKey // for the handles
	TokenDigest   Digest    // of the newest token; zero before activation
	Accessor      string    // the newest token's accessor at HashiCorp Vault
	Signatures    []Signature
}

// PendingTTL is how long a request waits for its approvals.
const PendingTTL = DecisionTTL

// Lapsed says whether the grant was not approved in time.
func (g Grant) Lapsed(now time.Time) bool {
	return g.State == GrantLapsed || (g.State == GrantPending && !now.Before(g.RequestedAt.Add(PendingTTL)))
}

// ApprovedAt is when the last approver signed; the zero time when none did. The signatures say
// so themselves.
func (g Grant) ApprovedAt() (at time.Time) {
	for _, s := range g.Signatures {
		if s.SignedAt.After(at) {
			at = s.SignedAt
		}
	}
	return at
}

// Covers says whether the grant covers the record, under the version of the purpose that its
// terms name.
func (g Grant) Covers(p Purpose, r Record) bool { return g.Effective(p).Covers(r) && p.Sees(r) }

// Effective is the scope as it came out of the approval: a live one begins with it, at the next
// step of the purpose's precision. Of a time bucket that it parted, too few crossings might show.
func (g Grant) Effective(p Purpose) Scope {
	s := g.Scope
	if from := p.Precision.Ceil(g.ApprovedAt()); s.Live && from.After(s.From) {
		s.From = from
	}
	return s
}

// MaxExcess is how many refusals for quota or rate since its last release a grant stands; with
// the next one it ends by itself. A client that waits as long as it is told meets few: one whose
// handles are others' to open, or that goes on regardless, meets this many within seconds.
const MaxExcess = 100

// Ended says whether nothing can come of the grant any more.
func (g Grant) Ended(now time.Time) bool {
	switch g.State {
	case GrantApproved, GrantActive:
		return !now.Before(g.Ends)
	case GrantPending:
		return !now.Before(g.Ends) || g.Lapsed(now)
	default:
		return true
	}
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
	case GrantLapsed:
		return refuse(ReasonGrantLapsed, "was not approved in time")
	case GrantSuspended:
		return refuse(ReasonGrantSuspended, "ended by itself after repeated excess")
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
	for _, f := range []string{g.Decision().Text(), g.Contractor, FormatTime(g.RequestedAt)} {
		hashField(h, []byte(f))
	}
	hashSignatures(h, g.Signatures)
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

// Covered counts records that a scope covers, as of now.
type Covered struct {
	Site                     string // empty when of all sites
	Modality                 Modality
	Records, Crossings, Days int64
}

// Opened sums up what a contractor has opened for a purpose, of one site and modality.
type Opened struct {
	Contractor, Purpose, Site string
	Modality                  Modality
	Days                      int64
	First, Last               time.Time // days of capture, midnight UTC
}

// Preview is what approvers should know of a grant before they sign, as of now.
type Preview struct {
	Covered
	Sites    []Covered // by site and modality
	Waiting  int64     // records whose bucket is still open
	Hidden   int64     // records that never appear: too few crossings share their bucket
	Held     []Grant   // other live grants of the contractor and its affiliates
	Opened   []Opened  // by any of them
	Earlier  Grant     // the grantee's latest one of this purpose; zero when there is none
	Changes  []Change  // of the terms since then
	Refusals []error   // why it could not be approved now or, once it is, activated

	Truncated bool // there is more held or opened than stands here
}

// RecordList is records that an admin chose for a contractor. It never changes.
type RecordList struct {
	ID         ID
	Contractor string
	Records    []ID   // 1 to [MaxRecordList], in order
	By         string // SPIFFE ID of the admin
	At         time.Time
}

// Barrier says how access was ended. When it is given, nothing covered is under way.
type Barrier struct {
	Connections int           // reset
	Sends       int           // that were under way and ended
	Waited      time.Duration // until the last of them had ended
	Index       int64         // of the ending's event
	VaultDone   bool          // whether Vault enforces it already
}
