package main

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

const (
	// livePages is how many pages of grants are read to find those that live.
	livePages = 5
	// mostAsked is how many kept tokens are asked for one by one.
	mostAsked = 50
)

// health is the service as a caller sees it.
type health struct {
	Address  string            `json:"address"`
	Version  string            `json:"version"`
	Serving  bool              `json:"serving"`
	Services map[string]bool   `json:"services"` // by the last part of their names
	Parts    map[string]string `json:"parts"`    // up, down or sealed
	Reasons  map[string]string `json:"reasons"`  // why those parts are not up that are not
	Time     string            `json:"time"`
	// Offset is how far this machine's clock is ahead of the service's, in seconds, and
	// Doubt how far off that may be.
	Offset float64 `json:"clock_offset_seconds"`
	Doubt  float64 `json:"clock_doubt_seconds"`
}

// overview is a status in JSON. Only the facts of the caller's role are there.
type overview struct {
	ID             string            `json:"id"`
	Role           string            `json:"role"`
	Profile        string            `json:"profile"`
	Config         string            `json:"configuration"`
	Standing       string            `json:"standing"` // active, refused or unknown
	StandingReason string            `json:"standing_reason"`
	Service        health            `json:"service"`
	Capture        *captureStatus    `json:"capture,omitempty"`
	Contractor     *contractorStatus `json:"contractor,omitempty"`
	Admin          *adminStatus      `json:"admin,omitempty"`
	Auditor        *auditorStatus    `json:"auditor,omitempty"`
	answer         *pb.GetStatusResponse
}

type captureStatus struct {
	Site string `json:"site"`
	Lane string `json:"lane"`
}

type contractorStatus struct {
	Grants []json.RawMessage `json:"grants"` // that live, newest first
	More   bool              `json:"more"`   // there may be older ones that live
	Tokens []heldToken       `json:"tokens"`
	live   []*pb.Grant
}

// heldToken is a token that is kept for a grant.
type heldToken struct {
	Grant   string `json:"grant"`
	State   string `json:"state"` // of the grant; unknown if the service did not say
	Removed bool   `json:"removed"`
}

type adminStatus struct {
	Pending        int               `json:"grants_pending"`
	Live           int               `json:"grants_live"` // approved or active
	More           bool              `json:"more"`        // there may be older ones
	Suspended      []string          `json:"contractors_suspended"`
	OpenCount      int64             `json:"decisions_open_count"`
	Open           []json.RawMessage `json:"decisions_open"`
	KeysRevoking   int64             `json:"keys_revoking"`
	KeysRestoring  int64             `json:"keys_restoring"`
	KeysDestroying int64             `json:"keys_destroying"`
	pending        []*pb.Grant
}

type auditorStatus struct {
	Size   int64  `json:"log_size"`
	Newest string `json:"newest_event_time"` // empty if there is none
	// Signed is how many events the newest checkpoint covers, which fits the one that was seen
	// before. Null without a log_key: then nothing was checked.
	Signed *int64 `json:"checkpoint_size"`
}

func (a *app) statusCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "tell how the service is, and what matters to you",
		Long: `Status says who the service takes you for, whether it serves, how far the two clocks are apart,
and what matters to your role: a lane its site; a contractor its grants that live, with what is left
of them, and the tokens that are kept; an admin what waits; an auditor how long the log is, and how
much of it the newest checkpoint covers, which is compared with the one seen before. Kept tokens of
grants that the service says are over are removed.

It exits with 0 only if all that the service offers is served, 3 if you are suspended, 4 if not.
If something is wrong, "portcullis doctor" looks for the cause.`,
		Example: "  portcullis --profile contractor status",
		Args:    exactly(0),
	}
	c.RunE = a.call(func(ctx context.Context, s *session, _ []string) error {
		o, err := a.look(ctx, s)
		if err != nil {
			return err
		}
		var failed error
		if o.Standing == "active" {
			// What is known is shown also when the rest could not be had.
			failed = a.roleStatus(ctx, s, o)
		}
		if a.output == jsonOutput {
			err = a.showJSON(o)
		} else {
			err = a.showTable(func(t *grid) { o.show(t, a) })
		}
		switch {
		case err != nil:
			return err
		case o.Standing == "refused":
			reason := vault.Reason(o.StandingReason)
			return vault.E(vault.Denied, reason, "%s may call nothing: %s", o.ID, strings.ToLower(strings.ReplaceAll(o.StandingReason, "_", " ")))
		case !o.Service.Serving:
			return &hinted{vault.E(vault.Unavailable, "", "the service does not serve: %s", strings.Join(o.Service.down(), ", ")), hintDoctor}
		}
		return failed
	})
	return c
}

const hintDoctor = "\"portcullis doctor\" looks for the cause"

// look asks the service for what everybody may know.
func (a *app) look(ctx context.Context, s *session) (*overview, error) {
	st, offset, doubt, err := a.serviceStatus(ctx, s)
	if err != nil {
		return nil, err
	}
	o := &overview{
		ID: st.Id, Role: st.Role, Profile: s.name, Config: s.file, answer: st,
		Standing: standing(st), StandingReason: st.StandingReason,
		Service: health{
			Address: s.client.Address, Version: st.Version, Services: map[string]bool{}, Parts: map[string]string{}, Reasons: map[string]string{},
			Time: when(st.ServerTime), Offset: offset.Seconds(), Doubt: doubt.Seconds(),
		},
	}
	for _, p := range st.Parts {
		o.Service.Parts[p.Name] = partWord(p)
		if p.Reason != "" {
			o.Service.Reasons[p.Name] = p.Reason
		}
	}
	served, err := s.Health(ctx)
	if err != nil {
		return nil, err
	}
	o.Service.Serving = served[""]
	for name, up := range served {
		if name != "" {
			o.Service.Services[name[strings.LastIndexByte(name, '.')+1:]] = up
		}
	}
	return o, nil
}

// serviceStatus asks how the service is. The offset is how far this machine's clock is ahead
// of the service's, as of the middle of the call; doubt is how far off that may be.
func (a *app) serviceStatus(ctx context.Context, s *session) (st *pb.GetStatusResponse, offset, doubt time.Duration, err error) {
	// The first call also makes the connection, which would blur the time.
	if _, err = s.Identity.GetStatus(ctx, &pb.GetStatusRequest{}); err != nil {
		return nil, 0, 0, err
	}
	before := a.now()
	st, err = s.Identity.GetStatus(ctx, &pb.GetStatusRequest{})
	after := a.now()
	if err != nil {
		return nil, 0, 0, err
	}
	// Elapsed time by the steady clock, of which Sub makes use.
	took := after.Sub(before)
	offset = before.Add(took / 2).Sub(st.GetServerTime().AsTime())
	return st, offset, took / 2, nil
}

func standing(st *pb.GetStatusResponse) string {
	switch st.GetStanding() {
	case pb.Standing_STANDING_ACTIVE:
		return "active"
	case pb.Standing_STANDING_REFUSED:
		return "refused"
	}
	return "unknown"
}

func partWord(p *pb.Part) string {
	switch p.GetState() {
	case pb.Part_STATE_UP, pb.Part_STATE_DOWN, pb.Part_STATE_SEALED:
		return word(p.State, "STATE_")
	}
	return "unknown"
}

// down names the services that do not serve.
func (h *health) down() (out []string) {
	for name, up := range h.Services {
		if !up {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	if len(out) == 0 {
		return []string{"it is stopping, or says so of itself"}
	}
	return out
}

// liveGrants gives grants in the states that are not over, newest first, and whether there
// may be more. Grants are listed newest first, so those older than any may live are over.
func liveGrants(ctx context.Context, s *session, states ...pb.Grant_State) (out []*pb.Grant, more bool, err error) {
	req := &pb.ListGrantsRequest{PageSize: 1000, States: states}
	for range livePages {
		got, err := s.Grants.ListGrants(ctx, req)
		if err != nil {
			return nil, false, err
		}
		for _, g := range got.Grants {
			if g.GetReadTime().AsTime().Sub(g.GetRequestTime().AsTime()) > vault.MaxTTL {
				return out, false, nil
			}
			if !over(g) {
				out = append(out, g)
			}
		}
		if req.PageToken = got.NextPageToken; req.PageToken == "" {
			return out, false, nil
		}
	}
	return out, true, nil
}
