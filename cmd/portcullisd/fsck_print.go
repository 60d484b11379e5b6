package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/portcullis/portcullis/internal/tlog"
	"github.com/portcullis/portcullis/vault/breach"
)

// listed is how many findings of a kind a person is shown; JSON has more.
const listed = 20

// orphanLine is an orphan as JSON shows it.
type orphanLine struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// logLine is what was found of the log's tree, as JSON shows it.
type logLine struct {
	Size     int64    `json:"size"`
	Kept     int      `json:"kept"` // checkpoints in audit.ship that it fits
	Findings []string `json:"findings"`
}

func printFsck(out io.Writer, form string, done *breach.Reconciled, rep *breach.Report, tree tlog.Verified) error {
	sound := rep.Sound() && len(tree.Findings) == 0
	orphans := make([]orphanLine, 0, len(rep.Orphans))
	for _, o := range rep.Orphans {
		orphans = append(orphans, orphanLine{string(o.Kind), o.Name})
	}
	slices.SortFunc(orphans, func(a, b orphanLine) int {
		return strings.Compare(a.Kind+" "+a.Name, b.Kind+" "+b.Name)
	})
	if form == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(struct {
			Sound   bool               `json:"sound"`
			Repair  *breach.Reconciled `json:"repair,omitempty"`
			Orphans []orphanLine       `json:"orphans"`
			Log     logLine            `json:"log"`
			*breach.Report
		}{sound, done, orphans, logLine{tree.Checkpoint.Size, tree.Kept, append([]string{}, tree.Findings...)}, rep})
	}
	var b strings.Builder
	if done != nil {
		fmt.Fprintf(&b, "repaired: %d put aside, %d taken back, %d destroyed after quarantine, %d shut again after a restore; %d left, too young\n",
			done.Quarantined, done.Returned, done.Destroyed, done.Undone, done.Young)
		for _, what := range done.Skipped {
			fmt.Fprintf(&b, "  left out: %s\n", what)
		}
	}
	fmt.Fprintf(&b, "records: %d, of which %d active\n", rep.Records, rep.Active)
	fmt.Fprintf(&b, "checked: %d ciphertexts by hash, %d keys at Vault, %d events\n", rep.Blobs, rep.Keys, rep.Events)
	fmt.Fprintf(&b, "without a record: %d ciphertexts, %d keys; in quarantine: %d; keys of others: %d\n", rep.Keyless, rep.Blobless, rep.Aside, rep.Foreign)
	fmt.Fprintf(&b, "log: a tree of %d events, which %d shipped checkpoints fit\n", tree.Checkpoint.Size, tree.Kept)
	for i, o := range orphans {
		if i == listed {
			fmt.Fprintf(&b, "  and %d more (--output json lists them)\n", len(orphans)-i)
			break
		}
		fmt.Fprintf(&b, "  %s %s\n", o.Kind, o.Name)
	}
	if sound {
		b.WriteString("sound: all of it fits together\n")
	} else {
		b.WriteString("DAMAGED:\n")
	}
	for _, f := range tree.Findings {
		fmt.Fprintf(&b, "  %-16s %s\n", "log", f)
	}
	shown := map[breach.Fault]int{}
	for _, d := range rep.Damage {
		if shown[d.Fault]++; shown[d.Fault] <= listed {
			fmt.Fprintln(&b, strings.TrimRight(fmt.Sprintf("  %-16s %-36s %s", d.Fault, d.Record, d.Detail), " "))
		}
	}
	for f, n := range rep.Faults {
		if n > listed {
			fmt.Fprintf(&b, "  %s: %d in all (--output json lists them)\n", f, n)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}
