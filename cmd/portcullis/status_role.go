package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
	"github.com/portcullis/portcullis/vault/wire"
)

// roleStatus adds what matters to the caller's role.
func (a *app) roleStatus(ctx context.Context, s *session, o *overview) error {
	switch vault.Role(o.Role) {
	case vault.RoleCapture:
		c, err := vault.ParseCaller(trustDomain(o.ID), o.ID)
		if err != nil {
			return fmt.Errorf("the service's answer: %w", err)
		}
		o.Capture = &captureStatus{Site: c.Site, Lane: c.Lane}
	case vault.RoleContractor:
		return a.contractorStatus(ctx, s, o)
	case vault.RoleAdmin:
		return adminWork(ctx, s, o)
	case vault.RoleAuditor:
		return auditorLog(ctx, s, o)
	}
	return nil
}

// trustDomain gives the trust domain of a SPIFFE ID.
func trustDomain(id string) string {
	td, _, _ := strings.Cut(strings.TrimPrefix(id, "spiffe://"), "/")
	return td
}

func rawMessages[M proto.Message](in []M) ([]json.RawMessage, error) {
	out := []json.RawMessage{}
	for _, m := range in {
		b, err := messageJSON(m)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

func (a *app) contractorStatus(ctx context.Context, s *session, o *overview) error {
	live, more, err := liveGrants(ctx, s, pb.Grant_STATE_PENDING, pb.Grant_STATE_APPROVED, pb.Grant_STATE_ACTIVE)
	if err != nil {
		return err
	}
	c := &contractorStatus{More: more, live: live, Tokens: []heldToken{}}
	if c.Grants, err = rawMessages(live); err != nil {
		return err
	}
	o.Contractor = c
	held, err := heldTokens(ctx, s, live)
	if err != nil {
		return err
	}
	for _, h := range held {
		if h.grant != nil && over(h.grant) {
			if err := s.tokens().forget(h.id); err != nil {
				return err
			}
			h.Removed = true
		}
		c.Tokens = append(c.Tokens, h.heldToken)
	}
	return nil
}

// asked is a kept token and its grant, which is nil if the service did not give it.
type asked struct {
	heldToken
	id    vault.ID
	grant *pb.Grant
}

// heldTokens says of each kept token how its grant is. known saves asking for those in it.
func heldTokens(ctx context.Context, s *session, known []*pb.Grant) (out []asked, err error) {
	ids, err := s.tokens().held()
	if err != nil {
		return nil, err
	}
	byName := map[string]*pb.Grant{}
	for _, g := range known {
		byName[g.GetName()] = g
	}
	questions := 0
	for _, id := range ids {
		name := wire.Name(wire.Grants, id)
		h := asked{heldToken: heldToken{Grant: name, State: "unknown"}, id: id, grant: byName[name]}
		if h.grant == nil && questions < mostAsked {
			questions++
			got, err := s.Grants.GetGrant(ctx, &pb.GetGrantRequest{Name: name})
			if err != nil && vault.KindOf(err) != vault.NotFound {
				return out, err
			}
			if got.GetGrant().GetName() == name {
				h.grant = got.Grant
			}
		}
		if h.grant != nil {
			h.State = word(h.grant.GetState(), "STATE_")
		}
		out = append(out, h)
	}
	return out, nil
}

func adminWork(ctx context.Context, s *session, o *overview) error {
	w := o.answer.GetWork()
	if err := s.leaveOvertaken(ctx, w); err != nil {
		return err
	}
	ad := &adminStatus{
		OpenCount: w.GetOpenDecisionCount(), Suspended: []string{},
		KeysRevoking: w.GetKeysRevoking(), KeysRestoring: w.GetKeysRestoring(), KeysDestroying: w.GetKeysDestroying(),
	}
	var err error
	if ad.Open, err = rawMessages(w.GetOpenDecisions()); err != nil {
		return err
	}
	o.Admin = ad
	live, more, err := liveGrants(ctx, s, pb.Grant_STATE_PENDING, pb.Grant_STATE_APPROVED, pb.Grant_STATE_ACTIVE)
	if err != nil {
		return err
	}
	ad.More = more
	for _, g := range live {
		if g.State == pb.Grant_STATE_PENDING {
			ad.Pending++
			ad.pending = append(ad.pending, g)
		} else {
			ad.Live++
		}
	}
	got, err := s.Admin.ListContractors(ctx, &pb.ListContractorsRequest{})
	// A process without the admin role does not tell of contractors.
	if err != nil && vault.KindOf(err) != vault.NotOffered {
		return err
	}
	for _, c := range got.GetContractors() {
		if c.State == pb.Contractor_STATE_SUSPENDED {
			ad.Suspended = append(ad.Suspended, bare(c.Name))
		}
	}
	return nil
}

func auditorLog(ctx context.Context, s *session, o *overview) error {
	o.Auditor = &auditorStatus{Size: o.answer.GetLogSize()}
	if o.Auditor.Size == 0 {
		return nil
	}
	got, err := s.Audit.ListEvents(ctx, &pb.ListEventsRequest{StartIndex: o.Auditor.Size - 1, PageSize: 1})
	if err != nil {
		return err
	}
	for _, e := range got.Events {
		ev, err := vault.DecodeEvent(e.Event)
		if err != nil {
			return fmt.Errorf("event %d: %w", e.Index, err)
		}
		o.Auditor.Newest = ev.At
	}
	at, err := s.Checkpoint(ctx)
	if errors.Is(err, client.ErrNoLogKey) {
		return nil
	}
	if err == nil {
		o.Auditor.Signed = &at.Size
	}
	return err
}

// mostShown is how many lines of one kind a table shows.
const mostShown = 20

func (o *overview) show(t *grid, a *app) {
	t.row("id", o.ID)
	t.row("role", o.Role)
	stands := o.Standing
	if o.StandingReason != "" {
		stands += ": " + o.StandingReason
	}
	t.row("standing", stands)
	t.row("profile", o.Profile+", of "+o.Config)
	t.row("service", o.Service.Address+", version "+o.Service.Version)
	serves := "yes"
	if !o.Service.Serving {
		serves = "no: " + strings.Join(o.Service.down(), ", ")
	}
	t.row("serving", serves)
	for _, p := range o.answer.GetParts() {
		word := partWord(p)
		if word == "up" {
			continue
		}
		if p.Reason != "" {
			word += ": " + p.Reason
		}
		if next := hints[vault.Reason(p.Reason)]; next != "" {
			word += ": " + next
		}
		t.row(p.Name, word)
	}
	t.row("its time", o.Service.Time+", "+clockWords(seconds(o.Service.Offset), seconds(o.Service.Doubt)))
	switch {
	case o.Capture != nil:
		t.row("site", o.Capture.Site)
		t.row("lane", o.Capture.Lane)
	case o.Contractor != nil:
		o.Contractor.show(t)
	case o.Admin != nil:
		o.Admin.show(t, o.answer.GetWork())
	case o.Auditor != nil:
		t.row("log", fmt.Sprintf("%s, the newest of %s", count(o.Auditor.Size, "event"), atLeast(o.Auditor.Newest)))
		t.row("checkpoint", o.Auditor.checkpointWords())
	}
}

func atLeast(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func seconds(f float64) time.Duration { return time.Duration(f * float64(time.Second)) }

// clockWords says how far this machine's clock is off.
func clockWords(offset, doubt time.Duration) string {
	switch off := offset.Abs(); {
	case off <= doubt+time.Second:
		return "as here"
	case offset > 0:
		return "this clock is " + span(off) + " ahead"
	default:
		return "this clock is " + span(off) + " behind"
	}
}

func (c *contractorStatus) show(t *grid) {
	t.row("grants", fmt.Sprintf("%d that live", len(c.live)))
	for i, g := range c.live {
		if i == mostShown {
			t.line("  and more: \"portcullis grant list\" shows them")
			break
		}
		t.row("  "+bare(g.Name), standsWords(g)+"; opened "+quotaWords(g)+"; ends "+endWords(g)+"; "+grantee(g.Grantee))
	}
	if c.More {
		t.line("  older ones were not looked at")
	}
	t.row("tokens", fmt.Sprintf("%d kept", len(c.Tokens)))
	for _, h := range c.Tokens {
		what := h.State
		switch {
		case h.Removed:
			what += ": removed"
		case h.State == "unknown":
			what += ": this service does not know the grant, or did not say; the token stays"
		}
		t.row("  "+bare(h.Grant), what)
	}
}

func (ad *adminStatus) show(t *grid, w *pb.Work) {
	plus := ""
	if ad.More {
		plus = " or more"
	}
	t.row("grants", fmt.Sprintf("%d pending, %d approved or active%s", ad.Pending, ad.Live, plus))
	for i, g := range ad.pending {
		if i == mostShown {
			t.line("  and more: \"portcullis grant list --state pending\" shows them")
			break
		}
		t.row("  "+bare(g.Name), standsWords(g)+"; "+bare(g.Purpose)+" for "+grantee(g.Grantee)+"; ends "+endWords(g))
	}
	suspended := "none"
	if len(ad.Suspended) > 0 {
		suspended = strings.Join(ad.Suspended[:min(len(ad.Suspended), mostShown)], ", ")
	}
	t.row("suspended contractors", suspended)
	t.row("open decisions", ad.OpenCount)
	for _, d := range w.GetOpenDecisions() {
		t.row("  "+d.GetKind()+" "+decisionAbout(d), howFar(d))
	}
	t.row("keys under way", fmt.Sprintf("%d revoking, %d restoring, %d destroying", ad.KeysRevoking, ad.KeysRestoring, ad.KeysDestroying))
}

// decisionAbout names what a decision is about, in a word.
func decisionAbout(d *pb.Decision) string {
	for _, key := range []string{"purpose", "contractor", "site", "record"} {
		if v := bodyField(d.GetBody(), key); v != "" {
			return v
		}
	}
	return bare(d.GetName())
}

// checkpointWords says how far the newest checkpoint comes.
func (au *auditorStatus) checkpointWords() string {
	switch {
	case au.Signed == nil:
		return "not checked"
	case *au.Signed < au.Size:
		return fmt.Sprintf("signed up to %d, %s behind; fits what was seen before", *au.Signed, count(au.Size-*au.Signed, "event"))
	}
	return fmt.Sprintf("signed up to %d; fits what was seen before", *au.Signed)
}
