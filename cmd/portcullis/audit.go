package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault/client"
)

const (
	// followPause is how long tail waits before it asks for new events.
	followPause = time.Second
	// tailEvents is how many events tail begins with.
	tailEvents = 10
)

func (a *app) auditCommand() *cobra.Command {
	c := noun("audit", "read the audit log, take it along, and check that nobody rewrote it (auditor)",
		a.auditEventsCommand(), a.auditTailCommand(), a.auditCheckpointCommand(), a.auditProveCommand(),
		a.auditExportCommand(), a.auditVerifyCommand())
	c.Long = `Audit reads the log of all that was stored, decided and released.

Each event is a leaf of a Merkle tree whose size and root the service signs. Whoever keeps such
a checkpoint can tell later whether the log was rewritten: this program keeps the newest it saw
beside its configuration, and compares, whichever profile is used. "audit export" takes all
events along in a form that other tools know (C2SP tlog-tiles), "audit verify" checks them
without the service.`
	return c
}

func (a *app) printEvent() func(*pb.AuditEvent) error {
	if a.output == jsonOutput {
		return a.eventJSON
	}
	return a.eventLine
}

func (a *app) auditEventsCommand() *cobra.Command {
	var from int64
	var types []string
	c := &cobra.Command{
		Use:   "events",
		Short: "list events, from the first or from --from on",
		Long: `Events gives the entries of the audit log in the order in which they were committed. With
--output json each is one line, {"index":N,"event":…}, the event byte for byte as first written.`,
		Example: "  portcullis --profile auditor audit events --type record.released,grant.revoked",
		Args:    exactly(0),
	}
	c.Flags().Int64Var(&from, "from", 0, "begin at this index: `N`")
	c.Flags().StringSliceVar(&types, "type", nil, "only these `TYPE`s, such as record.released")
	complete(c, "type", eventTypes...)
	c.RunE = a.call(func(ctx context.Context, s *session, _ []string) error {
		if from < 0 {
			return usagef("--from must not be negative")
		}
		if err := checkTypes(types); err != nil {
			return err
		}
		_, err := s.Events(ctx, from, types, a.printEvent())
		return err
	})
	return c
}

func (a *app) auditTailCommand() *cobra.Command {
	from := int64(-1)
	var types []string
	c := &cobra.Command{
		Use:   "tail",
		Short: "give the newest events, and go on with new ones until interrupted",
		Long: `Tail gives the last ten events, or those from --from on, and then each new one within a second
or so. It ends when it is interrupted (Ctrl-C), with 0.`,
		Example: `  portcullis --profile auditor audit tail
  portcullis --profile auditor audit tail --from 1200 --output json`,
		Args: exactly(0),
	}
	c.Flags().Int64Var(&from, "from", -1, "begin at this index: `N` (default: with the last 10)")
	c.Flags().StringSliceVar(&types, "type", nil, "only these `TYPE`s, such as record.released")
	complete(c, "type", eventTypes...)
	c.RunE = a.call(func(ctx context.Context, s *session, _ []string) error {
		if err := checkTypes(types); err != nil {
			return err
		}
		next := from
		if !c.Flags().Changed("from") {
			got, err := s.Identity.GetStatus(ctx, &pb.GetStatusRequest{})
			if err != nil {
				return untilInterrupted(ctx, err)
			}
			next = max(0, got.GetLogSize()-tailEvents)
		} else if from < 0 {
			return usagef("--from must not be negative")
		}
		for {
			var err error
			if next, err = s.Events(ctx, next, types, a.printEvent()); err != nil {
				return untilInterrupted(ctx, err)
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(followPause):
			}
		}
	})
	return c
}

// untilInterrupted gives an error, but none of an interrupt: that is how following ends.
func untilInterrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// checkpointBody is a checkpoint in JSON.
type checkpointBody struct {
	Origin string `json:"origin"`
	Size   int64  `json:"size"`
	Root   []byte `json:"root"`
	Signed string `json:"signed"`
}

func bodyOf(c client.Checkpoint) checkpointBody {
	return checkpointBody{Origin: c.Origin, Size: c.Size, Root: c.Root[:], Signed: string(c.Signed)}
}

func (a *app) auditCheckpointCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "checkpoint",
		Short: "give the newest signed checkpoint, after comparing it with the last one seen",
		Long: `Checkpoint asks for the newest signed checkpoint of the log, checks its signature, and has the
service prove that the log still begins with the one that was seen last, which lies in the file
log-seen beside the configuration. What it prints can be kept anywhere, and given to "audit
verify --kept" later.`,
		Example: "  portcullis --profile auditor audit checkpoint >> /mnt/elsewhere/checkpoints",
		Args:    exactly(0),
	}
	c.RunE = a.call(func(ctx context.Context, s *session, _ []string) error {
		got, err := s.Checkpoint(ctx)
		if err != nil {
			return err
		}
		if a.output == jsonOutput {
			return a.showJSON(bodyOf(got))
		}
		_, err = a.stdout.Write(got.Signed)
		return err
	})
	return c
}

func (a *app) auditProveCommand() *cobra.Command {
	var index int64
	c := &cobra.Command{
		Use:   "prove --index N",
		Short: "prove that one event is in the log, and print it",
		Long: `Prove asks for one event and for the proof that the newest signed checkpoint covers its very
bytes, and checks both. With --output json the event is byte for byte what was proved.`,
		Example: "  portcullis --profile auditor audit prove --index 1200",
		Args:    exactly(0),
	}
	c.Flags().Int64Var(&index, "index", 0, "of the event: `N`")
	required(c, "index")
	c.RunE = a.call(func(ctx context.Context, s *session, _ []string) error {
		event, at, err := s.ProveEvent(ctx, index)
		if err != nil {
			return err
		}
		if a.output == jsonOutput {
			b, err := json.Marshal(bodyOf(at))
			if err != nil {
				return err
			}
			// No encoder touches the event's bytes.
			_, err = fmt.Fprintf(a.stdout, "{\"index\":%d,\"event\":%s,\"checkpoint\":%s}\n", index, event, b)
			return err
		}
		if err := a.eventLine(&pb.AuditEvent{Index: index, Event: event}); err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.stdout, "proved to be in the log of %s\n", count(at.Size, "event"))
		return err
	})
	return c
}
