package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/portcullis/portcullis/internal/tlog"
	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault/client"
)

const (
	// followPause is how long tail waits before it asks for new events.
	followPause = time.Second
	// tailEvents is how many events tail begins with.
	tailEvents = 10
	// hintLogKey says where the log's key comes from.
	hintLogKey = "the operator gives the log's key (\"portcullisd log-key\" prints it): put it into the configuration as log_key, or give --key"
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
		Example: `  portcullis --profile auditor audit tail
  portcullis --profile auditor audit tail --from 1200 --output json`,
		Args: exactly(0),
	}
	c.Flags().Int64Var(&from, "from", -1, "begin at this index: `N` (default: with the last 10)")
	c.Flags().StringSliceVar(&types, "type", nil, "only these `TYPE`s, such as record.released")
	complete(c, "type", eventTypes...)
	c.RunE = a.call(func(ctx context.Context, s *session, _ []string) error {
		next := from
		if !c.Flags().Changed("from") {
			got, err := s.Identity.GetStatus(ctx, &pb.GetStatusRequest{})
			if err != nil {
				return err
			}
			next = max(0, got.GetLogSize()-tailEvents)
		} else if from < 0 {
			return usagef("--from must not be negative")
		}
		for {
			var err error
			if next, err = s.Events(ctx, next, types, a.printEvent()); err != nil {
				if ctx.Err() != nil {
					return nil // interrupting is how following ends
				}
				return err
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
			return ofLog(err)
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
		Use:     "prove --index N",
		Short:   "prove that one event is in the log, and print it",
		Example: "  portcullis --profile auditor audit prove --index 1200",
		Args:    exactly(0),
	}
	c.Flags().Int64Var(&index, "index", 0, "of the event: `N`")
	required(c, "index")
	c.RunE = a.call(func(ctx context.Context, s *session, _ []string) error {
		event, at, err := s.ProveEvent(ctx, index)
		if err != nil {
			return ofLog(err)
		}
		if a.output == jsonOutput {
			return a.showJSON(struct {
				Index      int64           `json:"index"`
				Event      json.RawMessage `json:"event"`
				Checkpoint checkpointBody  `json:"checkpoint"`
			}{index, event, bodyOf(at)})
		}
		if err := a.eventLine(&pb.AuditEvent{Index: index, Event: event}); err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.stdout, "proved to be in the log of %d events\n", at.Size)
		return err
	})
	return c
}

func (a *app) auditExportCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "export DIR",
		Short: "take the whole log along, in a form that other tools can check",
		Long: `Export writes the log to DIR in the layout of C2SP tlog-tiles: the signed checkpoint, the tiles
of the tree, and the events in bundles. Repeating it adds what is new; after an interruption it
goes on where it was. Every event has proved to belong to the checkpoint before that is written.`,
		Example: "  portcullis --profile auditor audit export ./log",
		Args:    exactly(1),
	}
	c.RunE = a.call(func(ctx context.Context, s *session, args []string) error {
		if err := os.MkdirAll(args[0], 0o755); err != nil {
			return err
		}
		bar := progress{}
		at, err := s.ExportLog(ctx, args[0], func(done, all int64) {
			if bar == (progress{}) {
				bar = a.bar("exporting", int(all))
			}
			bar.set(done)
		})
		bar.done()
		if err != nil {
			return ofLog(err)
		}
		if a.output == jsonOutput {
			return a.showJSON(struct {
				Dir        string         `json:"dir"`
				Checkpoint checkpointBody `json:"checkpoint"`
			}{args[0], bodyOf(at)})
		}
		return a.showTable(func(t *grid) {
			t.line("%s are in %s; \"audit verify %s\" checks them without the service", count(at.Size, "event"), args[0], args[0])
		})
	})
	return c
}

// verifiedBody is the outcome of a verification, in JSON.
type verifiedBody struct {
	Dir      string   `json:"dir"`
	Sound    bool     `json:"sound"`
	Size     int64    `json:"size"`
	Kept     int      `json:"kept"` // checkpoints kept elsewhere that the log fits
	Findings []string `json:"findings"`
}

func (a *app) auditVerifyCommand() *cobra.Command {
	var key string
	var keptFiles []string
	c := &cobra.Command{
		Use:   "verify DIR [--key KEY] [--kept FILE]…",
		Short: "check an export without the service: signatures, hashes, and checkpoints kept elsewhere",
		Long: `Verify checks an export offline, and believes nothing of it but what the log's key signed: the
checkpoint's signature, each event and each tile against the signed root, and every checkpoint
that was kept elsewhere: the newest that this program saw (log-seen beside the configuration),
and those in the files given with --kept. Only these show a history that was rewritten or rolled
back and signed anew.

The key comes from log_key in the configuration, or from --key; without a configuration --key is
enough. It exits with 1 when something is wrong.`,
		Example: `  portcullis audit verify ./log
  portcullis audit verify ./log --key "$KEY" --kept /mnt/elsewhere/checkpoints`,
		Args: exactly(1),
	}
	c.Flags().StringVar(&key, "key", "", "the log's key, as \"portcullisd log-key\" prints it: `KEY`")
	c.Flags().StringArrayVar(&keptFiles, "kept", nil, "a `FILE` of signed checkpoints that was kept elsewhere")
	c.RunE = a.local(func(ctx context.Context, args []string) error {
		v, kept, err := a.trusted(key, keptFiles)
		if err != nil {
			return err
		}
		bar := progress{}
		got, err := tlog.Dir(args[0]).Verify(ctx, v, kept, func(done, all int64) {
			if bar == (progress{}) {
				bar = a.bar("verifying", int(all))
			}
			bar.set(done)
		})
		bar.done()
		if err != nil {
			return err
		}
		body := verifiedBody{Dir: args[0], Sound: len(got.Findings) == 0, Size: got.Checkpoint.Size, Kept: got.Kept, Findings: got.Findings}
		if body.Findings == nil {
			body.Findings = []string{}
		}
		if a.output == jsonOutput {
			err = a.showJSON(body)
		} else {
			err = a.showTable(func(t *grid) {
				for _, f := range got.Findings {
					t.line("%s", f)
				}
				if body.Sound {
					t.line("sound: %s, signed by %s; %s kept elsewhere fit", count(body.Size, "event"), v.Name(), count(int64(body.Kept), "checkpoint"))
				}
			})
		}
		if err == nil && !body.Sound {
			return &hinted{fmt.Errorf("the log in %s is not sound: %s", args[0], count(int64(len(got.Findings)), "finding")),
				"keep the export and the checkpoints as they are: they are the evidence"}
		}
		return err
	})
	return c
}

// trusted gives the log's key, and the checkpoints that were kept elsewhere.
func (a *app) trusted(key string, files []string) (note.Verifier, []tlog.Kept, error) {
	memory := ""
	if file, err := a.findConfig(); err == nil {
		cfg, err := readConfig(file)
		if err != nil {
			return nil, nil, err
		}
		if key == "" {
			key = cfg.LogKey
		}
		if key == cfg.LogKey {
			memory = logMemory(file)
		}
	} else if key == "" {
		return nil, nil, err
	}
	if key == "" {
		return nil, nil, &usageError{err: errors.New("no key of the log"), hint: hintLogKey}
	}
	v, err := tlog.ParseKey(key)
	if err != nil {
		return nil, nil, &usageError{err: err, hint: hintLogKey}
	}
	if memory != "" {
		if _, err := os.Stat(memory); err == nil {
			files = append(files, memory)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, err
		}
	}
	var kept []tlog.Kept
	for _, f := range files {
		more, err := tlog.LoadKept(f, v)
		if err != nil {
			return nil, nil, err
		}
		kept = append(kept, more...)
	}
	return v, kept, nil
}

// ofLog adds a hint to an error about the log.
func ofLog(err error) error {
	switch {
	case errors.Is(err, client.ErrLogRewritten):
		return &hinted{err, "keep both checkpoints, and tell the agency's auditors: the log is not the one that it was"}
	case errors.Is(err, tlog.ErrDamaged):
		return &hinted{err, "tell the operator: \"portcullisd fsck\" looks at the database; keep what you exported before"}
	case errors.Is(err, client.ErrNoLogKey):
		return &hinted{err, hintLogKey}
	}
	return err
}
