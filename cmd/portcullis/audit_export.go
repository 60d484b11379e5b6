package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portcullis/portcullis/internal/tlog"
	"github.com/portcullis/portcullis/vault/client"
)

func (a *app) auditExportCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "export DIR",
		Short: "take the whole log along, in a form that other tools can check",
		Long: `Export writes the log to DIR in the layout of C2SP tlog-tiles: the signed checkpoint, the tiles
of the tree, and the events in bundles. DIR must be new, empty, or hold an export. Repeating it adds
what is new; after an interruption it goes on where it was. Every event that comes has proved to
belong to the checkpoint before that is written, and the checkpoint to begin with the one that was
there. What was there already is left to "audit verify".`,
		Example: "  portcullis --profile auditor audit export ./log",
		Args:    exactly(1),
	}
	c.RunE = a.call(func(ctx context.Context, s *session, args []string) error {
		dir := args[0]
		if err := forExport(dir); err != nil {
			return err
		}
		had := exportedSize(dir, s.client.LogKey)
		step, done := a.steps("exporting")
		at, err := s.ExportLog(ctx, dir, step)
		done()
		if err != nil {
			return exportFailed(ctx, err, dir, s.client.LogKey)
		}
		if a.output == jsonOutput {
			return a.showJSON(struct {
				Dir        string         `json:"dir"`
				New        int64          `json:"new"` // events
				Checkpoint checkpointBody `json:"checkpoint"`
			}{dir, at.Size - had, bodyOf(at)})
		}
		return a.showTable(func(t *grid) {
			t.line("%s in %s, %d of them new; \"portcullis audit verify %s\" checks them without the service",
				count(at.Size, "event"), dir, at.Size-had, dir)
		})
	})
	return c
}

// steps gives what hears how far a work on the log is, which shows a bar, and what takes that away.
func (a *app) steps(what string) (step func(done, all int64), end func()) {
	bar := progress{}
	return func(done, all int64) {
		if bar.bar == nil {
			bar = a.bar(what, int(all))
		}
		bar.set(done)
	}, func() { bar.done() }
}

// forExport refuses a folder that holds something else than an export, or the beginning of one.
func forExport(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &usageError{err: fmt.Errorf("export to %s: %w", dir, err), hint: "name a new or empty folder, or that of an earlier export"}
	}
	var others []string
	for _, e := range entries {
		switch e.Name() {
		case "checkpoint":
			return nil
		case "tile", ".new": // what an interrupted one leaves
		default:
			others = append(others, e.Name())
		}
	}
	if len(others) == 0 {
		return nil
	}
	shown := strings.Join(others[:min(len(others), 3)], ", ")
	if len(others) > 3 {
		shown += ", …"
	}
	return &usageError{
		err:  fmt.Errorf("export to %s: it is no export, and holds something else: %s", dir, shown),
		hint: "name a new or empty folder, or that of an earlier export",
	}
}

// exportedSize is how many events an export has, by its checkpoint; 0 if that does not open.
func exportedSize(dir, key string) int64 {
	v, err := tlog.ParseKey(key)
	if err != nil {
		return 0
	}
	signed, err := tlog.Dir(dir).Checkpoint()
	if err != nil {
		return 0
	}
	at, err := tlog.Open(signed, v)
	if err != nil {
		return 0
	}
	return at.Size
}

// exportFailed says what to do about an export that did not come to its end.
func exportFailed(ctx context.Context, err error, dir, key string) error {
	switch {
	case ctx.Err() != nil:
		return &hinted{context.Canceled, fmt.Sprintf("what came is kept in %s: run the command again, and it goes on there", dir)}
	case errors.Is(err, client.ErrLogRewritten), errors.Is(err, client.ErrNoLogKey):
		return err // the hints for these fit
	case foreign(err):
		if signed, readErr := tlog.Dir(dir).Checkpoint(); readErr == nil && signed != nil && exportedSize(dir, key) == 0 {
			return &hinted{err, "is log_key right? Then the export that is there is of another log, or was changed: keep it, and export to a new folder"}
		}
	case errors.Is(err, tlog.ErrDamaged):
		v, keyErr := tlog.ParseKey(key)
		if keyErr != nil || exportedSize(dir, key) == 0 {
			break
		}
		got, readErr := tlog.Dir(dir).Verify(ctx, v, nil, func(int64, int64) {})
		switch {
		case readErr != nil:
		case len(got.Findings) > 0:
			return &hinted{err, fmt.Sprintf("the export that is there was changed: \"portcullis audit verify %s\" says where; keep it, and export to a new folder", dir)}
		default:
			return &hinted{err, fmt.Sprintf("the export in %s is sound, so the service's log is not: keep it, it is evidence, and tell the operator and the agency's auditors", dir)}
		}
	}
	return err
}

// verifiedBody is the outcome of a verification, in JSON.
type verifiedBody struct {
	Dir   string `json:"dir"`
	Sound bool   `json:"sound"`
	Size  int64  `json:"size"`
	Kept  int    `json:"kept"` // checkpoints kept elsewhere that the log fits
	// Seen is how many events the log had when this program last saw it, if the export has
	// fewer; else 0.
	Seen     int64    `json:"seen"`
	Findings []string `json:"findings"`
}

func (a *app) auditVerifyCommand() *cobra.Command {
	var key string
	var files []string
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
	c.Flags().StringArrayVar(&files, "kept", nil, "a `FILE` of signed checkpoints that was kept elsewhere")
	c.RunE = a.local(func(ctx context.Context, args []string) error {
		w, err := a.witnesses(key, files)
		if err != nil {
			return err
		}
		return a.verify(ctx, args[0], w)
	})
	return c
}

func (a *app) verify(ctx context.Context, dir string, w witnesses) error {
	body := verifiedBody{Dir: dir}
	kept := w.kept
	if signed, err := tlog.Dir(dir).Checkpoint(); err == nil && signed == nil {
		return &hinted{fmt.Errorf("%s is no export: it has no file checkpoint", dir),
			"\"portcullis audit export DIR\" makes one; while it is not finished it has no checkpoint"}
	}
	if size := exportedSize(dir, w.text); w.seen != nil {
		// An export that is older than what was seen is no sign of anything.
		if w.seen.Size > size {
			body.Seen = w.seen.Size
		} else {
			kept = append(slices.Clone(kept), *w.seen)
		}
	}
	step, done := a.steps("verifying")
	got, err := tlog.Dir(dir).Verify(ctx, w.key, furthest(kept, exportedSize(dir, w.text)), step)
	done()
	if err != nil {
		return err
	}
	opened := got.Checkpoint.Origin != ""
	body.Sound, body.Size, body.Kept, body.Findings = len(got.Findings) == 0, got.Checkpoint.Size, got.Kept, append([]string{}, got.Findings...)
	if !opened {
		body.Seen = 0
	}
	if a.output == jsonOutput {
		err = a.showJSON(body)
	} else {
		err = a.showTable(func(t *grid) { body.show(t, w) })
	}
	if err != nil || body.Sound {
		return err
	}
	next := "keep the export and the checkpoints as they are: they are the evidence"
	switch {
	case !opened:
		next = "is this the key that the operator gave, and of this log? Then the checkpoint was changed. The rest was not looked at"
	case slices.ContainsFunc(kept, func(k tlog.Kept) bool { return k.Size > body.Size }):
		next += ". If only this export is older than the kept checkpoint, export again, and verify that"
	}
	return &hinted{&unsound{fmt.Sprintf("the log in %s is not sound: %s", dir, count(len(got.Findings), "finding"))}, next}
}

func (b verifiedBody) show(t *grid, w witnesses) {
	for _, f := range b.Findings {
		t.line("%s", f)
	}
	if !b.Sound {
		return
	}
	fit := "fit"
	if b.Kept == 1 {
		fit = "fits"
	}
	t.line("sound: %s, signed by %s; %s kept elsewhere %s", count(b.Size, "event"), w.key.Name(), count(b.Kept, "checkpoint"), fit)
	if b.Kept == 0 {
		t.line("(only such a checkpoint shows a log that was rewritten and signed anew: \"portcullis audit verify --help\")")
	}
	if b.Seen > 0 {
		t.line("(the log had %s when it was last seen: \"portcullis audit export %s\" adds what is missing)", count(b.Seen, "event"), b.Dir)
	}
}
