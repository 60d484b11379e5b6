package main

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
	"github.com/portcullis/portcullis/vault/wire"
)

// lawScene is what a violation of one field has at hand.
type lawScene struct {
	*service
	p       vault.Purpose
	c       *client.Client // the contractor's
	who     string         // its path
	admin   string         // one of whom nothing was told before
	records []string       // plates of the standard class
	other   string         // a plate of another class
}

// ask asks for a grant that the purpose allows but for a change.
func (l *lawScene) ask(change func(*pb.RequestGrantRequest)) error {
	r := l.requestFor(l.p, 1)
	r.Scope.Modalities, r.Scope.Sites = []pb.Modality{pb.Modality_MODALITY_PLATE}, []string{devSite}
	if l.p.Precision == vault.PrecisionDay {
		day := vault.PrecisionDay.Floor(time.Now())
		r.Scope.StartTime, r.Scope.EndTime = timestamppb.New(day), timestamppb.New(day.Add(24*time.Hour))
	}
	change(r)
	_, err := l.c.Grants.RequestGrant(l.t.Context(), r)
	return err
}

// fetch opens the images of a new grant of that quota, one after the other, until one is refused.
func (l *lawScene) fetch(quota int64) error {
	grant, token := l.granted(l.c, l.p, quota)
	raw := pb.NewReleaseServiceClient(l.dialAs(l.who)) // which does not wait and try again, as ours does
	for _, h := range l.handles(l.c, grant, token) {
		if _, err := raw.FetchImage(l.t.Context(), &pb.FetchImageRequest{Grant: grant, GrantToken: token.Reveal(), Handle: h}); err != nil {
			return err
		}
	}
	return nil
}

// told gives the reason of an error as it came over the wire, or as our client has it.
func told(err error) vault.Reason {
	if s, ok := status.FromError(err); ok {
		for _, d := range s.Details() {
			if info, ok := d.(*errdetails.ErrorInfo); ok {
				return vault.Reason(info.Reason)
			}
		}
	}
	return vault.ReasonOf(err)
}

// list has an admin make a list of records.
func (l *lawScene) list(records ...string) string {
	l.t.Helper()
	made, err := l.as(alice).Admin.CreateRecordList(l.t.Context(), &pb.CreateRecordListRequest{
		RequestId: vault.NewID().String(), RecordList: &pb.RecordList{Contractor: wire.Contractors + "/" + devOrg, Records: records},
	})
	noError(l.t, err)
	return made.RecordList.Name
}

func (l *lawScene) askList(records ...string) error {
	name := l.list(records...)
	return l.ask(func(r *pb.RequestGrantRequest) { r.Scope = &pb.Scope{RecordList: name} })
}

// pending asks for a grant that waits for its approvals.
func (l *lawScene) pending() string {
	l.t.Helper()
	g, err := l.request(l.c, l.p, 1)
	noError(l.t, err)
	return g.Name
}

func unlinked(p *vault.Purpose) {
	p.Linkage, p.Precision, p.MinBucket = false, vault.PrecisionDay, 2
}

// TestPurposeIsLaw: every field of a purpose's file, violated by one call: it is refused for a reason
// of its own, the audit log has that, the metric counts it, and whoever watches is told.
func TestPurposeIsLaw(t *testing.T) {
	s := begin(t, func(c *config) { c.Metrics.Listen = "127.0.0.1:0" })
	lane := s.as(lane)
	l := &lawScene{service: s, records: s.store(lane, vault.Plate, 3, 20<<10)}
	got, err := lane.Store(t.Context(), client.Image{RequestID: vault.NewID(), Modality: vault.Plate, CapturedAt: time.Now(), Class: "evidence", Bytes: picture(99, 300)})
	noError(t, err)
	l.other = got.Record
	s.admit(purpose(), devOrg)

	const request, release = "grant.refused", "release.refused"
	for i, c := range []struct {
		field   string
		change  func(*vault.Purpose)
		violate func(*lawScene) error
		reason  vault.Reason
		event   vault.EventType
	}{
		{"title", nil, func(l *lawScene) error {
			g := l.pending()
			l.p.Title += ", and more"
			l.admit(l.p)
			_, err := l.as(l.admin).Approve(t.Context(), g, yes)
			return err
		}, vault.ReasonPurposeChanged, request},
		{"legal_basis", nil, func(l *lawScene) error {
			g := l.pending()
			l.p.LegalBasis += ", and more"
			l.admit(l.p)
			_, err := l.as(l.admin).Approve(t.Context(), g, yes)
			return err
		}, vault.ReasonPurposeChanged, request},
		{"modalities", nil, func(l *lawScene) error {
			return l.ask(func(r *pb.RequestGrantRequest) { r.Scope.Modalities = []pb.Modality{pb.Modality_MODALITY_FACE} })
		}, vault.ReasonPurposeModality, request},
		{"linkage", func(p *vault.Purpose) { unlinked(p); p.Modalities = []vault.Modality{vault.Face, vault.Plate} }, func(l *lawScene) error {
			return l.ask(func(r *pb.RequestGrantRequest) {
				r.Scope.Modalities = []pb.Modality{pb.Modality_MODALITY_FACE, pb.Modality_MODALITY_PLATE}
			})
		}, vault.ReasonPurposeLinkage, request},
		{"sites", nil, func(l *lawScene) error {
			return l.ask(func(r *pb.RequestGrantRequest) { r.Scope.Sites = []string{devSite, "elsewhere"} })
		}, vault.ReasonPurposeSite, request},
		{"contractors", func(p *vault.Purpose) { p.Contractors = []string{"somebody-else"} }, func(l *lawScene) error {
			return l.ask(func(*pb.RequestGrantRequest) {})
		}, vault.ReasonPurposeContractor, request},
		{"max_ttl", nil, func(l *lawScene) error {
			return l.ask(func(r *pb.RequestGrantRequest) { r.Ttl = durationpb.New(l.p.MaxTTL + time.Second) })
		}, vault.ReasonPurposeDuration, request},
		{"max_records", nil, func(l *lawScene) error {
			return l.ask(func(r *pb.RequestGrantRequest) { r.MaxRecords = l.p.MaxRecords + 1 })
		}, vault.ReasonPurposeQuota, request},
		{"max_records", nil, func(l *lawScene) error { return l.fetch(2) }, vault.ReasonQuotaExceeded, release},
		{"max_bytes", nil, func(l *lawScene) error {
			return l.ask(func(r *pb.RequestGrantRequest) { r.MaxBytes = l.p.MaxBytes + 1 })
		}, vault.ReasonPurposeBytes, request},
		{"max_bytes", func(p *vault.Purpose) { p.MaxBytes = 30 << 10 }, func(l *lawScene) error { return l.fetch(3) }, vault.ReasonBytesExceeded, release},
		{"max_rate", func(p *vault.Purpose) { p.MaxRate = 1 }, func(l *lawScene) error { return l.fetch(3) }, vault.ReasonRateExceeded, release},
		{"max_record_age", func(p *vault.Purpose) { p.MaxRecordAge = 2 * time.Hour }, func(l *lawScene) error {
			return l.ask(func(r *pb.RequestGrantRequest) { r.Scope.StartTime = timestamppb.New(time.Now().Add(-3 * time.Hour)) })
		}, vault.ReasonPurposeAge, request},
		{"time_precision", unlinked, func(l *lawScene) error {
			return l.ask(func(r *pb.RequestGrantRequest) {
				r.Scope.StartTime = timestamppb.New(r.Scope.StartTime.AsTime().Add(time.Minute))
			})
		}, vault.ReasonPurposeWindow, request},
		{"min_bucket", func(p *vault.Purpose) { unlinked(p); p.MinBucket = 3 }, func(l *lawScene) error {
			return l.askList(l.records[0], l.records[1])
		}, vault.ReasonBucketSmall, request},
		{"approvals", nil, func(l *lawScene) error {
			g := l.pending()
			_, err := l.as(alice).Approve(t.Context(), g, yes)
			noError(t, err)
			l.sql("UPDATE grants SET state = 'approved', approvals = 1 WHERE id = ?", id(g)) // by who can write there
			_, err = l.c.Grants.ActivateGrant(t.Context(), &pb.ActivateGrantRequest{Name: g})
			return err
		}, vault.ReasonApprovalsMissing, request},
		{"approvers", func(p *vault.Purpose) { p.Approvers = []string{"bob", "carol"} }, func(l *lawScene) error {
			_, err := l.as(l.admin).Approve(t.Context(), l.pending(), yes)
			return err
		}, vault.ReasonPurposeApprover, request},
		{"strict", func(p *vault.Purpose) { p.Strict, p.MaxRecords = true, 1 }, func(l *lawScene) error {
			grant, token := l.granted(l.c, l.p, 1)
			h := l.handles(l.c, grant, token)[0]
			_, err := l.c.Release.FetchImage(t.Context(), &pb.FetchImageRequest{Grant: grant, GrantToken: token.Reveal(), Handle: h})
			noError(t, err)
			_, err = l.c.Grants.ActivateGrant(t.Context(), &pb.ActivateGrantRequest{Name: grant})
			return err
		}, vault.ReasonUsesSpent, request},
		{"live", func(p *vault.Purpose) { p.Live = false }, func(l *lawScene) error {
			return l.ask(func(r *pb.RequestGrantRequest) {
				r.Scope.StartTime, r.Scope.EndTime, r.Scope.Live = nil, nil, true
			})
		}, vault.ReasonPurposeLive, request},
		{"retention_classes", nil, func(l *lawScene) error { return l.askList(l.other) }, vault.ReasonPurposeClass, request},
		{"withdrawn", nil, func(l *lawScene) error {
			got, err := l.as(alice).Admin.ListPurposes(t.Context(), &pb.ListPurposesRequest{})
			noError(t, err)
			i := slices.IndexFunc(got.Purposes, func(p *pb.Purpose) bool { return p.Name == wire.Purposes+"/"+l.p.Name })
			now, err := wire.ParsePurpose(got.Purposes[i])
			noError(t, err)
			done, err := l.as(alice).WithdrawPurpose(t.Context(), now)
			noError(t, err)
			if done.Decision.State != pb.Decision_STATE_EFFECTIVE || done.Decision.SignaturesRequired != 1 || !done.Barrier.GetVaultDone() {
				t.Errorf("withdrawn: %v", done)
			}
			return l.ask(func(*pb.RequestGrantRequest) {})
		}, vault.ReasonPurposeWithdrawn, request},
	} {
		t.Run(c.field+" "+string(c.reason), func(t *testing.T) {
			run := *l
			run.service = &service{}
			*run.service = *s
			run.t = t
			run.p = purpose()
			run.p.Name = "law-" + strings.ReplaceAll(c.field, "_", "-")
			if c.event == release {
				run.p.Name += "-open"
			}
			if c.change != nil {
				c.change(&run.p)
			}
			s.admit(run.p)
			short := fmt.Sprintf("law-%d", i)
			who := "/contractor/" + devOrg + "/" + short
			run.c, run.who, run.admin = s.as(who), who, "/admin/"+short
			before, counted := s.index(), s.counted(c.reason)
			if err := c.violate(&run); told(err) != c.reason {
				t.Fatalf("%v, want %s", err, c.reason)
			}
			found := false
			for _, e := range s.events(string(c.event)) {
				found = found || (e.index >= before && e.Reason == c.reason)
			}
			if !found {
				t.Errorf("the audit log has no %s for %s", c.event, c.reason)
			}
			if now := s.counted(c.reason); now <= counted {
				t.Errorf("the metric counts %d, after %d", now, counted)
			}
			if c.field == "title" || c.field == "legal_basis" || c.field == "approvers" {
				who = run.admin // it is an admin who is refused
			}
			alert := regexp.MustCompile(fmt.Sprintf(`"level":"WARN","msg":"refused","alert":true,"reason":"%s","contractor":"[^"]*","caller":"[^"]*%s"`, c.reason, who))
			if !alert.MatchString(s.logs.String()) {
				t.Errorf("nobody is told of %s", c.reason)
			}
		})
	}
	if logs := s.logs.String(); strings.Contains(logs, "and more") || strings.Contains(logs, "work order 4711") {
		t.Error("the log has free text")
	}
}

// index is the index of the next event.
func (s *service) index() int64 {
	s.t.Helper()
	all := s.events()
	return all[len(all)-1].index + 1
}

// counted gives what the metric of refusals has for a reason, of all roles.
func (s *service) counted(r vault.Reason) (n int64) {
	s.t.Helper()
	for line := range strings.Lines(s.page()) {
		if !strings.HasPrefix(line, "portcullis_refusals_total{") || !strings.Contains(line, `reason="`+string(r)+`"`) {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:]), 64)
		noError(s.t, err)
		n += int64(v)
	}
	return n
}
