// Command portcullis-bench measures Portcullis against the HashiCorp Vault below it, both
// driven in turns within one run, because only their ratio says anything on a machine that
// others use as well.
//
// It starts its own daemon with its own Vault on loopback addresses, and a second pair whose log
// stands still for longer, to measure what the log costs. It prints a table and where the time
// goes, writes the rows as JSON to the file that BENCH_JSON names, and removes everything it made.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Limits of the flags.
const (
	mostClients  = 256  // 4 connections take 1,024 calls at once
	mostSizeKiB  = 4096 // the service's own limit is 8 MiB
	mostListed   = 8
	mostRounds   = 50
	mostSeconds  = 60
	leastSeconds = 0.1
)

// options are what the command line and the environment choose.
type options struct {
	rounds  int
	window  time.Duration // counted part of a round
	clients []int
	sizes   []int  // bytes
	dir     string // where the directory of all data is made
	json    string // file; empty for none
}

func main() {
	o, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "portcullis-bench:", err)
		os.Exit(2)
	}
	o.json = os.Getenv("BENCH_JSON")
	// A terminal that closes must not keep it from cleaning up.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	// Nor a reader that goes away: with this, writing to it gives an error and does not end the
	// process. It must not end the run either: a daemon that dies breaks sockets, to the same signal.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	err = bench(ctx, o, os.Stdout, os.Stderr)
	if ctx.Err() != nil {
		err = errors.New("interrupted; everything it made is removed")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "portcullis-bench:", err)
		os.Exit(1)
	}
}

// parse reads the command line. Sizes are given in KiB.
func parse(args []string, usage io.Writer) (o options, err error) {
	f := flag.NewFlagSet("portcullis-bench", flag.ContinueOnError)
	f.SetOutput(usage)
	seconds := f.Float64("seconds", 1.2, "how many `SECONDS` of a measurement count in each round")
	f.IntVar(&o.rounds, "rounds", 3, "measure each `N` times, by turns, and report medians")
	clients := f.String("clients", "1,64", "how many clients work at once: a `LIST`")
	sizes := f.String("sizes", "64,512", "sizes of images, in KiB: a `LIST`")
	f.StringVar(&o.dir, "dir", os.TempDir(), "keep the data in a new directory below `DIR`, which is removed; its disk is what is measured")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	if o.rounds < 1 || o.rounds > mostRounds {
		return o, fmt.Errorf("-rounds: must be from 1 to %d", mostRounds)
	}
	if !(*seconds >= leastSeconds && *seconds <= mostSeconds) {
		return o, fmt.Errorf("-seconds: must be from %g to %d", leastSeconds, mostSeconds)
	}
	o.window = time.Duration(*seconds * float64(time.Second))
	if o.clients, err = list("-clients", *clients, mostClients); err != nil {
		return o, err
	}
	if o.sizes, err = list("-sizes", *sizes, mostSizeKiB); err != nil {
		return o, err
	}
	for i := range o.sizes {
		o.sizes[i] <<= 10
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return o, fmt.Errorf("-dir: %w", err)
	}
	return o, nil
}

// list reads numbers from 1 to most, rising, parted by commas.
func list(name, text string, most int) (out []int, err error) {
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < 1 || n > most {
			return nil, fmt.Errorf("%s: %q is no number from 1 to %d", name, part, most)
		}
		if len(out) > 0 && n <= out[len(out)-1] {
			return nil, fmt.Errorf("%s: %q: the numbers must rise", name, text)
		}
		out = append(out, n)
	}
	if len(out) > mostListed {
		return nil, fmt.Errorf("%s: at most %d numbers", name, mostListed)
	}
	return out, nil
}
