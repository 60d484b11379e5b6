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
	root.AddCommand(serveCommand(logs), configCommand(out), setupCommand(out), devCommand(out, logs), fsckCommand(out), logKeyCommand(out))
	return root
}

func serveCommand(logs io.Writer) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "serve [--config FILE] [flags]",
		Short: "serve until told to stop",
		Long: `Serve runs the daemon in the foreground until SIGINT or SIGTERM; calls under way then have
ten seconds. Every setting can stand in the YAML file, in an environment variable
(PORTCULLISD_TLS__KEY for tls.key) and in a flag; the later of these wins.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(file, os.Environ(), cmd.Flags())
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
	cmd.Flags().StringVar(&file, "config", "", "YAML file")
	configFlags(cmd.Flags())
	return cmd
}

func configCommand(out io.Writer) *cobra.Command {
	var file string
	check := &cobra.Command{
		Use:   "check [--config FILE] [flags]",
		Short: "say whether the configuration is good, and print what is in force",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(file, os.Environ(), cmd.Flags())
			if err != nil {
				return err
			}
			text, err := cfg.yaml()
			if err != nil {
				return err
			}
			_, err = out.Write(text)
			return err
		},
	}
	check.Flags().StringVar(&file, "config", "", "YAML file")
	configFlags(check.Flags())
	cmd := &cobra.Command{Use: "config", Short: "look at the configuration", Args: cobra.NoArgs}
	cmd.AddCommand(check)
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
