package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/portcullis/portcullis/internal/devvault"
)

// machine says on what the run is made. What can not be told is left out.
func machine(ctx context.Context) string {
	cpu := runtime.GOARCH
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				cpu = strings.TrimSpace(value)
				break
			}
		}
	}
	out := fmt.Sprintf("%s, %d cores, %s, %s", cpu, runtime.NumCPU(), runtime.Version(), vaultVersion(ctx))
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		if load, _, ok := strings.Cut(string(b), " "); ok {
			out += ", load before the run " + load
		}
	}
	return out
}

// vaultVersion asks the Vault that portcullisd finds.
func vaultVersion(ctx context.Context) string {
	const unknown = "Vault of unknown version"
	bin, err := devvault.Find()
	if err != nil {
		return unknown
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	text, err := exec.CommandContext(ctx, bin, "version").Output()
	fields := strings.Fields(string(text)) // Vault v1.21.0 (…), built …
	if err != nil || len(fields) < 2 {
		return unknown
	}
	return fields[0] + " " + strings.TrimRight(fields[1], ",")
}

// report prints the table and where the time goes.
func (r *run) report(out io.Writer, facts string) error {
	fmt.Fprintf(out, "\nPortcullis against the Vault below it, in turns; medians of rounds (%d of %s each)\n%s\n\n", r.rounds, r.window, facts)
	if err := table(out, r.rows); err != nil {
		return err
	}
	fmt.Fprintln(out, "\nWhere the time goes:")
	for _, s := range r.words() {
		fmt.Fprintln(out, wrap("- "+s, "  "))
	}
	fmt.Fprintln(out, "\nWhat the log costs:")
	for _, s := range r.logWords() {
		fmt.Fprintln(out, wrap("- "+s, "  "))
	}
	_, err := fmt.Fprintf(out, "\nThe latency of fetch is the time between the images of a stream, which may come in bursts.\n"+
		"All is warm: raw_vault_unwrap and fetch open the same records again and again. The run took %.0f s.\n", time.Since(r.began).Seconds())
	return err
}

// width of the text below the table, in characters.
const width = 110

// wrap breaks a text into lines, all but the first indented.
func wrap(text, indent string) string {
	var b strings.Builder
	column := 0
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
		case column+1+len(word) > width:
			b.WriteString("\n" + indent)
			column = len(indent)
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}

// table prints the rows; the range behind a ratio is that of the rounds.
func table(out io.Writer, rows []row) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "name\tclients\tKiB\trate/s\tp50 ms\tp99 ms\tof raw\tin rounds\t")
	for _, r := range rows {
		ratio, spread := "", ""
		if r.Ratio > 0 {
			ratio, spread = fmt.Sprintf("%.2f", r.Ratio), fmt.Sprintf("%.2f-%.2f", r.low, r.high)
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%.0f\t%.2f\t%.2f\t%s\t%s\t\n", r.Name, r.Clients, r.ImageBytes>>10, r.RatePerS, r.P50Ms, r.P99Ms, ratio, spread)
	}
	return t.Flush()
}
