// Command portcullis-demo plays the whole story of Portcullis on a real HashiCorp Vault,
// with real processes and mutual TLS, checks each step, and cleans up.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	var o options
	flag.StringVar(&o.images, "images", "", "use the pictures of `DIR`/face and DIR/plate instead of drawing some")
	flag.BoolVar(&o.keep, "keep", false, "keep the directory with all data when done")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "portcullis-demo: it takes no arguments, only --images DIR and --keep")
		os.Exit(2)
	}
	// A reader that goes away (make demo | head) must not keep it from cleaning up either.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGPIPE)
	defer stop()
	if err := play(ctx, newTeller(os.Stdout), o); err != nil {
		fmt.Fprintln(os.Stderr, "portcullis-demo:", err)
		stop()
		os.Exit(1)
	}
}
