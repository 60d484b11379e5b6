package wire

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

// Signature writes a signature.
func Signature(s vault.Signature) *pb.Signature {
	return &pb.Signature{Signer: s.Signer, SignTime: timestamppb.New(s.SignedAt), Signature: s.Bytes, Chain: s.Chain}
}

// ParseSignature reads a signature. That it is valid remains to be proved.
func ParseSignature(in *pb.Signature) (s vault.Signature, err error) {
	if in == nil {
		return s, vault.InvalidField("signature", "must not be empty")
	}
	switch {
	case len(in.Signature) == 0 || len(in.Signature) > vault.MaxSignature:
		return s, vault.InvalidField("signature.signature", "must have 1 to %d bytes", vault.MaxSignature)
	case len(in.Chain) == 0 || len(in.Chain) > vault.MaxChain:
		return s, vault.InvalidField("signature.chain", "must have 1 to %d certificates", vault.MaxChain)
	}
	for _, c := range in.Chain {
		if len(c) > vault.MaxCertificate {
			return s, vault.InvalidField("signature.chain", "has a certificate of %d bytes; at most %d are allowed", len(c), vault.MaxCertificate)
		}
	}
	if err := vault.CheckText("signature.signer", in.Signer, maxCallerID, false); err != nil {
		return s, err
	}
	s = vault.Signature{Signer: in.Signer, Bytes: in.Signature, Chain: in.Chain}
	s.SignedAt, err = ParseTime("signature.sign_time", in.SignTime)
	return s, err
}

func signatures(in []vault.Signature) (out []*pb.Signature) {
	for _, s := range in {
		out = append(out, Signature(s))
	}
	return out
}

// Proposal writes a decision and how far it has come.
func Proposal(p vault.Proposal, now time.Time) *pb.Decision {
	out := &pb.Decision{
		Name: Name(Decisions, p.ID), Kind: string(p.Kind), Body: p.Body, ExpireTime: timestamppb.New(p.Expires),
		Digest: p.Digest().String(), State: pb.Decision_STATE_OPEN,
		SignaturesRequired: int32(p.Need), Signatures: signatures(p.Signatures),
	}
	switch {
	case p.Effective:
		out.State = pb.Decision_STATE_EFFECTIVE
	case !now.Before(p.Expires):
		out.State = pb.Decision_STATE_EXPIRED
	}
	return out
}

// maxCallerID is the longest SPIFFE ID, in bytes (SPIFFE-ID, section 2.3).
const maxCallerID = 2048

var decisionKind = regexp.MustCompile(`^[a-z_]+\.[a-z_]+$`)

// checkBody says whether s is lines of printable text, as long as an event can tell of.
func checkBody(field, s string) error {
	if len(s) > vault.MaxEvent {
		return vault.InvalidField(field, "has %d bytes; at most %d are allowed", len(s), vault.MaxEvent)
	}
	if s == "" {
		return nil
	}
	text, ok := strings.CutSuffix(s, "\n")
	if !ok {
		return vault.InvalidField(field, "must end in a line break")
	}
	for line := range strings.SplitSeq(text, "\n") {
		if err := vault.CheckText(field, line, len(line), false); err != nil {
			return err
		}
	}
	return nil
}

// ParseDecision reads the decision itself: what a signer signs. No part of it can pass for
// another part in the decision's text.
func ParseDecision(in *pb.Decision) (d vault.Decision, err error) {
	d = vault.Decision{Kind: vault.DecisionKind(in.GetKind()), Body: in.GetBody()}
	if d.ID, err = ParseName("decision.name", Decisions, in.GetName()); err != nil {
		return d, err
	}
	if len(d.Kind) > 64 || !decisionKind.MatchString(string(d.Kind)) {
		return d, vault.InvalidField("decision.kind", "must be two words joined by a dot, such as purpose.apply")
	}
	if err = checkBody("decision.body", d.Body); err != nil {
		return d, err
	}
	d.Expires, err = ParseTime("decision.expire_time", in.GetExpireTime())
	return d, err
}

var grantStates = map[vault.GrantState]pb.Grant_State{
	vault.GrantPending:   pb.Grant_STATE_PENDING,
	vault.GrantApproved:  pb.Grant_STATE_APPROVED,
	vault.GrantActive:    pb.Grant_STATE_ACTIVE,
	vault.GrantDenied:    pb.Grant_STATE_DENIED,
	vault.GrantRetired:   pb.Grant_STATE_RETIRED,
	vault.GrantRevoked:   pb.Grant_STATE_REVOKED,
	vault.GrantLapsed:    pb.Grant_STATE_LAPSED,
	vault.GrantSuspended: pb.Grant_STATE_SUSPENDED,
}

// ParseGrantState reads a grant's state. That a grant expired shows from its terms.
func ParseGrantState(field string, s pb.Grant_State) (vault.GrantState, error) {
	for d, p := range grantStates {
		if p == s {
			return d, nil
		}
	}
	return "", vault.InvalidField(field, "must be a state of grants")
}

// Grant writes a grant as of now.
func Grant(g vault.Grant, now time.Time) *pb.Grant {
	out := &pb.Grant{
		Name: Name(Grants, g.Grant), State: grantStates[g.State],
		Purpose: Purposes + "/" + g.Purpose.Name, PurposeVersion: int32(g.Purpose.Version), PurposeDigest: g.Purpose.Digest.String(),
		Grantee: g.Grantee, Epoch: int32(g.Epoch), Scope: Scope(g.Scope), MaxRecords: g.MaxRecords,
		RequestTime: timestamppb.New(g.RequestedAt), EndTime: timestamppb.New(g.Ends), Justification: g.Justification,
		ApprovalsRequired: int32(g.Approvals), Approvals: signatures(g.Signatures), RecordsReleased: g.Released,
		Digest: g.Decision().Digest().String(), ReadTime: timestamppb.New(now), TimeRemaining: durationpb.New(0),
		MaxBytes: g.MaxBytes, BytesReleased: g.ReleasedBytes,
	}
	switch live := g.State == vault.GrantPending || g.State == vault.GrantApproved || g.State == vault.GrantActive; {
	case g.Lapsed(now):
		out.State = pb.Grant_STATE_LAPSED
	case live && g.Ended(now):
		out.State = pb.Grant_STATE_EXPIRED
	case live:
		out.RecordsRemaining = max(g.MaxRecords-g.Released, 0)
		out.BytesRemaining = max(g.MaxBytes-g.ReleasedBytes, 0)
		out.TimeRemaining = durationpb.New(g.Ends.Sub(now))
	}
	return out
}

// ParseTerms reads the terms of a grant out of its message: what an approver sees is what
// an approver signs. No field of them can pass for another line of their text.
func ParseTerms(in *pb.Grant) (t vault.Terms, err error) {
	t = vault.Terms{
		Purpose: vault.PurposeRef{Version: int(in.GetPurposeVersion())},
		Grantee: in.GetGrantee(), Epoch: int(in.GetEpoch()), MaxRecords: in.GetMaxRecords(), MaxBytes: in.GetMaxBytes(),
		Approvals: int(in.GetApprovalsRequired()), Justification: vault.DigestOf([]byte(in.GetJustification())),
	}
	if t.Grant, err = ParseName("grant.name", Grants, in.GetName()); err != nil {
		return t, err
	}
	if t.Purpose.Name, err = ParseSlug("grant.purpose", Purposes, in.GetPurpose()); err != nil {
		return t, err
	}
	if t.Purpose.Digest, err = ParseDigest("grant.purpose_digest", in.GetPurposeDigest()); err != nil {
		return t, err
	}
	if err = vault.CheckText("grant.grantee", t.Grantee, maxCallerID, false); err != nil {
		return t, err
	}
	if t.Scope, err = ParseScope(in.GetScope()); err != nil {
		return t, err
	}
	for i, site := range t.Scope.Sites {
		if err = vault.CheckName(fmt.Sprintf("scope.sites[%d]", i), site); err != nil {
			return t, err
		}
	}
	t.Ends, err = ParseTime("grant.end_time", in.GetEndTime())
	return t.Normal(), err
}

// ParseDigest reads a digest, "sha256:<hex>".
func ParseDigest(field, s string) (d vault.Digest, err error) {
	text, ok := strings.CutPrefix(s, "sha256:")
	if ok && len(text) == 2*len(d) {
		if _, err := hex.Decode(d[:], []byte(text)); err == nil {
			return d, nil
		}
	}
	return vault.Digest{}, vault.InvalidField(field, "must be sha256: and %d hexadecimal digits", 2*len(d))
}

// GrantFor writes a grant as of now for a caller: contractors never learn records' IDs.
func GrantFor(c vault.Caller, g vault.Grant, now time.Time) *pb.Grant {
	out := Grant(g, now)
	if c.Role == vault.RoleContractor {
		out.Scope.Records = nil
	}
	return out
}
