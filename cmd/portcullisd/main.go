// Command portcullisd is the Portcullis daemon.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	root := command(os.Stdout, os.Stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "portcullisd:", err)
		os.Exit(1)
	}
}

// command makes the whole command tree. What a person reads goes to out, the log to logs.
func command(out, logs io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "portcullisd",
		Short: "hold face and licence-plate images, and release them under grants alone",
		Long: `portcullisd holds face and licence-plate images, each sealed under a key of its own in
HashiCorp Vault, and releases them only under grants that admins have signed.

  portcullisd dev --dir DIR        try it: a real Vault, SQLite, files, development certificates
  portcullisd setup --help         prepare a Vault of yours
  portcullisd serve --config FILE  run in earnest`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetOut(out)
	root.SetErr(logs)
	root.AddCommand(serveCommand(logs), setupCommand(out), devCommand(out, logs))
	return root
}

func serveCommand(logs io.Writer) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "serve until told to stop",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(file)
			if err != nil {
				return err
			}
			log, err := logger(logs, cfg.Log.Level)
			if err != nil {
				return err
			}
			d, err := start(cmd.Context(), cfg, log)
			if err != nil {
				return err
			}
			log.Info("serving", "address", d.Addr())
			return d.Wait(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "the daemon's YAML file (required)")
	if err := cmd.MarkFlagRequired("config"); err != nil {
		panic(err) // the flag stands a line above
	}
	return cmd
}

// logger writes JSON lines of the level and above.
func logger(w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log.level: %q is none of debug, info, warn and error", level)
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l})), nil
}

// version is the module's, with the commit when it was built in a checkout.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(unknown)"
	}
	return info.Main.Version
}
