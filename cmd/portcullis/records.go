package main

import (
	"cmp"
	"context"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

func (a *app) recordsCommand() *cobra.Command {
	var grant string
	list := &cobra.Command{
		Use:   "list --grant GRANT",
		Short: "list what an active grant covers (contractor)",
		Long: `List gives the handle, modality and site of each record that a grant covers, when it was captured
as exactly as the purpose tells, and with linkage a handle of its crossing. A handle means nothing
outside its grant. Without linkage records appear a few minutes after their hour or day has closed,
and where enough crossings share it.`,
		Example: "  portcullis --profile contractor records list --grant 1f0c2a4e-7d53-4b1e-9a3f-0c7a8e6d5b21",
		Args:    exactly(0),
	}
	list.Flags().StringVar(&grant, "grant", "", "`GRANT` that was activated")
	required(list, "grant")
	list.RunE = a.call(func(ctx context.Context, s *session, _ []string) error {
		name, id, err := grantName(grant)
		if err != nil {
			return err
		}
		token, err := a.tokenOf(ctx, s, id)
		if err != nil {
			return err
		}
		out := &pb.ListRecordsResponse{}
		err = s.Records(ctx, name, token, func(r *pb.RecordView) error {
			out.Records = append(out.Records, r)
			return nil
		})
		if err != nil {
			return err
		}
		if err := a.show(out, func(t *grid) {
			t.row("HANDLE", "MODALITY", "SITE", "CAPTURED", "CROSSING")
			for _, r := range out.Records {
				t.row(r.Handle, modality(r.Modality), r.Site, captured(r), cmp.Or(r.Crossing, "-"))
			}
		}); err != nil {
			return err
		}
		if len(out.Records) == 0 {
			a.sayNothing(ctx, s, name)
		}
		return nil
	})
	return noun("records", "what an active grant covers: list", list)
}

func (a *app) whoamiCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "whoami", Short: "tell who the service takes you for", Args: exactly(0),
		Example: "  portcullis --profile alice whoami",
	}
	c.RunE = a.call(func(ctx context.Context, s *session, _ []string) error {
		got, err := s.Identity.WhoAmI(ctx, &pb.WhoAmIRequest{})
		if err != nil {
			return err
		}
		return a.show(got, func(t *grid) {
			t.row("id", got.Id)
			t.row("role", got.Role)
			t.row("certificate", got.CertificateDigest)
			t.row("profile", s.name)
			t.row("configuration", s.file)
			t.row("service", s.client.Address+", version "+got.Version)
		})
	})
	return c
}

// captured says when a record was captured, as exactly as the service tells.
func captured(r *pb.RecordView) string {
	if r.GetCaptureTime() == nil {
		return "-"
	}
	at := r.GetCaptureTime().AsTime()
	switch r.GetTimePrecision() {
	case pb.TimePrecision_TIME_PRECISION_DAY:
		return at.Format(time.DateOnly)
	case pb.TimePrecision_TIME_PRECISION_HOUR:
		return at.Format("2006-01-02T15h")
	}
	return vault.FormatTime(at)
}
