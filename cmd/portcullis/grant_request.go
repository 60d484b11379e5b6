package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

// wanted is the scope that somebody asks for.
type wanted struct {
	sites       []string
	mods        modalitiesFlag
	from, until timeFlag
	live        bool
	list        idFlag
}

// scope gives what the flags mean together.
func (w wanted) scope() (vault.Scope, error) {
	s := vault.Scope{Sites: w.sites, Modalities: w.mods, From: w.from.Time, Until: w.until.Time, Live: w.live, List: vault.ID(w.list)}
	missing := func(flags ...string) error { return usagef("missing: --%s", strings.Join(flags, ", --")) }
	switch window := !w.from.IsZero() || !w.until.IsZero(); {
	case s.List != (vault.ID{}):
		if window || w.live || len(w.sites)+len(w.mods) > 0 {
			return s, usagef("--list names all records: give no --site, --modality, --from, --until or --live with it")
		}
		return s, nil
	case len(w.sites) == 0:
		return s, missing("site")
	case len(w.mods) == 0:
		return s, missing("modality")
	case w.live && window:
		return s, usagef("--live covers what is captured after the approval: give no --from or --until with it")
	case w.live:
		return s, nil
	case w.from.IsZero() && w.until.IsZero():
		return s, usagef("missing: --from and --until, or --live")
	case w.from.IsZero():
		return s, missing("from")
	case w.until.IsZero():
		return s, missing("until")
	}
	if err := s.Check(); err != nil {
		return s, &usageError{err: err}
	}
	return s, nil
}

func (a *app) grantRequest() *cobra.Command {
	var (
		purpose, why string
		want         wanted
		most         int64
		bytes        sizeFlag
		ttl          durationFlag
		request      idFlag
		explain      bool
	)
	c := &cobra.Command{
		Use:   "request",
		Short: "ask for a grant (contractor)",
		Long: `Request asks for permission to open the images of a scope, which is one of three:

  --site --modality --from --until   records captured at or after --from and before --until; a time
                                     is 2026-11-23T14:30:00Z, or 2026-11-23 for that midnight in UTC
  --site --modality --live           records captured after the approval, as they come
  --list LIST                        records that an admin chose

The grant's life, --for, is counted from now. With --explain nothing is asked for: it says all that
speaks against the request, with exit code 3 if anything does. The log has the question.

When an answer is lost, give the same --request-id again: no second grant comes of it.`,
		Example: `  portcullis --profile contractor grant request --purpose lane-audit --site anzalduas \
    --modality plate --from 2026-11-01 --until 2026-11-08 --max-records 500 --max-bytes 2GiB --for 2h \
    --justification "work order 4711"`,
		Args: exactly(0),
	}
	f := c.Flags()
	f.StringVar(&purpose, "purpose", "", "sanctioned purpose `NAME`")
	f.StringSliceVar(&want.sites, "site", nil, "`SITE`[,SITE]")
	f.Var(&want.mods, "modality", "what to open")
	f.Var(&want.from, "from", "captured at or after")
	f.Var(&want.until, "until", "captured before")
	f.BoolVar(&want.live, "live", false, "captured after the approval, as they come")
	f.Var(&want.list, "list", "a list of records, as an admin names it")
	f.Int64Var(&most, "max-records", 0, "how many records may be opened: `N`")
	f.Var(&bytes, "max-bytes", "how many bytes of images, such as 2GiB; as many as the purpose allows when left out")
	f.Var(&ttl, "for", "how long the grant lives, from now")
	f.StringVar(&why, "justification", "", "why, such as a work order: one line of `TEXT`")
	f.BoolVar(&explain, "explain", false, "only say what speaks against it")
	f.Var(&request, "request-id", "names this request; made at random when left out")
	required(c, "purpose", "max-records", "for", "justification")
	complete(c, "modality", "face", "plate", "face,plate")
	_ = c.RegisterFlagCompletionFunc("purpose", a.completePurposes)
	c.RunE = a.call(func(ctx context.Context, s *session, _ []string) error {
		name, err := slugName(wire.Purposes, "purpose", purpose)
		if err != nil {
			return err
		}
		scope, err := want.scope()
		if err != nil {
			return err
		}
		req := &pb.RequestGrantRequest{
			Purpose: name, Scope: wire.Wanted(scope), MaxRecords: most, MaxBytes: int64(bytes),
			Ttl: durationpb.New(time.Duration(ttl)), Justification: why,
		}
		if explain {
			req.ValidateOnly = true
			return asFlags(a.explain(ctx, s, req))
		}
		id := vault.ID(request)
		if id == (vault.ID{}) {
			id = vault.NewID()
		}
		req.RequestId = id.String()
		got, err := s.Grants.RequestGrant(ctx, req)
		if vault.KindOf(err) == vault.Unavailable {
			return &hinted{err, "try again, with --request-id " + id.String() + " in case the request arrived"}
		}
		if err != nil {
			return asFlags(err)
		}
		if err := a.show(got, func(t *grid) {
			t.line("%s", got.Grant.GetName())
			t.line("waits for %s: portcullis grant approve %s", count(got.Grant.GetApprovalsRequired(), "admin"), bare(got.Grant.GetName()))
			t.line("to be told: portcullis grant wait %s", bare(got.Grant.GetName()))
		}); err != nil {
			return err
		}
		a.cautions(ctx, s, scope, got.Grant)
		return nil
	})
	return c
}

// cautions says what of a request's wish its grant does not cover, or gives too late.
func (a *app) cautions(ctx context.Context, s *session, want vault.Scope, g *pb.Grant) {
	if end := g.GetScope().GetEndTime(); !want.Live && want.List == (vault.ID{}) && end.AsTime().Before(want.Until) {
		a.aside("captured before %s: this purpose is not live", when(end))
	}
	got, err := s.Grants.GetGrant(ctx, &pb.GetGrantRequest{Name: g.GetName()})
	if err != nil {
		return // it was asked for, all the same
	}
	if late := lateWords(got.Grant, got.PurposeTerms); late != "" {
		a.aside("%s", late)
	}
}

// asFlags names the flag of a field that the service did not take.
func asFlags(err error) error {
	var e *vault.Error
	if !errors.As(err, &e) {
		return err
	}
	for _, f := range e.Fields {
		if f.Name != "ttl" {
			continue
		}
		if _, until, ok := strings.Cut(f.Description, " ends at "); ok {
			return &hinted{err, "--for must reach past " + until}
		}
		return &hinted{err, "that is --for"}
	}
	return err
}

// explain says what speaks against a request.
func (a *app) explain(ctx context.Context, s *session, req *pb.RequestGrantRequest) error {
	got, err := s.Grants.RequestGrant(ctx, req)
	if err != nil {
		return err
	}
	if err := a.show(got, func(t *grid) {
		if len(got.Refusals) == 0 {
			t.line("nothing speaks against it now; nothing was asked for")
		}
		refusals(t, got.Refusals)
	}); err != nil || len(got.Refusals) == 0 {
		return err
	}
	// What to do about each stands beside it.
	return &hinted{vault.E(vault.Denied, vault.Reason(got.Refusals[0].Reason), "the request would be refused, for %s", count(len(got.Refusals), "reason")), ""}
}

// refusals writes what speaks against something, with what to do about it: once for each reason.
func refusals(t *grid, in []*pb.Refusal) {
	told := map[string]bool{}
	for _, r := range in {
		t.line("%s: %s", r.Reason, r.Message)
		if next := hints[vault.Reason(r.Reason)]; next != "" && !told[r.Reason] {
			t.line("  %s", next)
		}
		told[r.Reason] = true
	}
}

// sizeFlag is a number of bytes.
type sizeFlag int64

func (s *sizeFlag) String() string {
	if *s == 0 {
		return ""
	}
	return sizeText(int64(*s))
}
func (s *sizeFlag) Type() string { return "SIZE" }
func (s *sizeFlag) Set(text string) error {
	v, ok := parseSize(text)
	if !ok {
		return fmt.Errorf("must be a size such as 1048576, 500MiB, 2GiB or 10GB")
	}
	*s = sizeFlag(v)
	return nil
}
