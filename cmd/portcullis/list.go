package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

func (a *app) listCommand() *cobra.Command {
	return noun("list", "lists of records that a contractor may ask for: create, show (admin)", a.listCreate(), a.listShow())
}

// maxListFile is the longest file of record IDs, in bytes: 256 of them have a seventh.
const maxListFile = 64 << 10

func (a *app) listCreate() *cobra.Command {
	var contractor, file string
	var records []string
	var request idFlag
	c := &cobra.Command{
		Use:   "create",
		Short: "choose records for a contractor (admin)",
		Long: `Create makes a list of 1 to 256 records, of at most 64 sites and 366 days, which never changes. The
contractor may then ask for a grant of it, "grant request --list LIST", and learns which images are
in it once two admins have approved that; a record's ID it never learns. For a purpose without
linkage a list needs, at each site and in each hour or day that it touches, as many crossings as the
purpose's min_bucket.

The file has one ID on a line, as "key list" shows them; empty lines, and those that begin with #,
are passed over. - is standard input. The same --request-id again gives the same list.`,
		Example: `  portcullis --profile alice list create --contractor acme-vision --file incident-12.txt`,
		Args:    exactly(0),
	}
	f := c.Flags()
	f.StringVar(&contractor, "contractor", "", "whom it is for: `NAME`")
	f.StringSliceVar(&records, "record", nil, "`ID`[,ID] of a record")
	f.StringVar(&file, "file", "", "`FILE` of IDs, or - for standard input")
	f.Var(&request, "request-id", "names this request; made at random when left out")
	required(c, "contractor")
	c.RunE = a.call(func(ctx context.Context, s *session, _ []string) error {
		org, err := slugName(wire.Contractors, "contractor", contractor)
		if err != nil {
			return err
		}
		if file != "" {
			more, err := a.recordIDs(file)
			if err != nil {
				return err
			}
			records = append(records, more...)
		}
		l := &pb.RecordList{Contractor: org}
		for _, text := range records {
			id, err := vault.ParseID("record", strings.TrimPrefix(text, wire.Records+"/"))
			if err != nil {
				return usagef("%q is not a record: give records/ and a UUID, or the UUID alone", text)
			}
			l.Records = append(l.Records, wire.Name(wire.Records, id))
		}
		if n := len(l.Records); n < 1 || n > vault.MaxRecordList {
			return usagef("%d records are named; a list has 1 to %d: give --record or --file", n, vault.MaxRecordList)
		}
		id := vault.ID(request)
		if id == (vault.ID{}) {
			id = vault.NewID()
		}
		got, err := s.Admin.CreateRecordList(ctx, &pb.CreateRecordListRequest{RecordList: l, RequestId: id.String()})
		if vault.KindOf(err) == vault.Unavailable {
			return &hinted{err, "try again, with --request-id " + id.String() + " in case the request arrived"}
		}
		if err != nil {
			return err
		}
		return a.show(got, func(t *grid) {
			t.line("%s: %s for %s", got.RecordList.GetName(), count(len(got.RecordList.GetRecords()), "record"), bare(got.RecordList.GetContractor()))
			t.line("it asks for them: portcullis grant request --list %s …", bare(got.RecordList.GetName()))
		})
	})
	return c
}

// recordIDs reads a file of record IDs.
func (a *app) recordIDs(file string) (out []string, err error) {
	var in io.Reader = a.stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, &usageError{err: err}
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxListFile+1))
	if err != nil {
		return nil, fmt.Errorf("read the list of records: %w", err)
	}
	if len(text) > maxListFile {
		return nil, usagef("%s: longer than %d bytes; a list has at most %d records", file, maxListFile, vault.MaxRecordList)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			out = append(out, line)
		}
	}
	return out, nil
}

func (a *app) listShow() *cobra.Command {
	c := &cobra.Command{
		Use: "show LIST", Short: "show a list of records (admin, auditor)", Args: exactly(1),
		Example: "  portcullis --profile alice list show 1f0c2a4e-7d53-4b1e-9a3f-0c7a8e6d5b21",
	}
	c.RunE = a.call(func(ctx context.Context, s *session, args []string) error {
		id, err := vault.ParseID("list", strings.TrimPrefix(args[0], wire.Lists+"/"))
		if err != nil {
			return usagef("%q is not a list: give lists/ and a UUID, or the UUID alone", args[0])
		}
		got, err := s.Admin.GetRecordList(ctx, &pb.GetRecordListRequest{Name: wire.Name(wire.Lists, id)})
		if err != nil {
			return err
		}
		return a.show(got, func(t *grid) {
			l := got.RecordList
			t.row("list", l.GetName())
			t.row("contractor", bare(l.GetContractor()))
			t.row("created", when(l.GetCreateTime())+" by "+person(l.GetCreatedBy()))
			first := heading("records")
			for _, r := range l.GetRecords() {
				t.row(first(), bare(r))
			}
		})
	})
	return c
}
