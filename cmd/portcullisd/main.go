// Command portcullisd is the Portcullis daemon.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// The exit codes beside 0. The help of the root command tells them.
const (
	exitFailure = 1
	exitUsage   = 2
)

// run runs a command line, and gives the exit code.
func run(ctx context.Context, args []string, out, logs io.Writer) int {
	root := command(out, logs)
	root.SetArgs(args)
	root.SetFlagErrorFunc(flagError)
	begun := false
	noteBegun(root, &begun)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	text := err.Error()
	if !begun { // cobra lists its suggestions below the message
		text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\t' }), " ")
	}
	fmt.Fprintln(logs, "portcullisd:", text)
	if bad := (misconfigured{}); !begun || errors.As(err, &bad) {
		return exitUsage
	}
	return exitFailure
}

// noteBegun notes when a command begins: what fails before is the command line's.
func noteBegun(c *cobra.Command, begun *bool) {
	if do := c.RunE; do != nil {
		c.RunE = func(c *cobra.Command, args []string) error {
			*begun = true
			return do(c, args)
		}
	}
	for _, below := range c.Commands() {
		noteBegun(below, begun)
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
  portcullisd serve --config FILE  run in earnest

It exits with 2 when the command line or the configuration is wrong, and with 1 when
something else fails.`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetOut(out)
	root.SetErr(logs)
	root.AddCommand(serveCommand(logs), configCommand(out, logs), setupCommand(out), devCommand(out, logs), fsckCommand(out), logKeyCommand(out))
	return root
}

func serveCommand(logs io.Writer) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "serve [--config FILE] [flags]",
		Short: "serve until told to stop",
		Long: `Serve runs the daemon in the foreground until SIGINT or SIGTERM; calls under way then have
ten seconds. Every setting can stand in the YAML file, in an environment variable
(PORTCULLISD_TLS__KEY for tls.key) and in a flag; the later of these wins.

It exits with 2 when the command line or the configuration is wrong, which config check
says as well, and with 1 when something else fails.`,
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
			for _, w := range cfg.warnings(time.Now()) {
				log.Warn("the configuration is doubtful", "warning", w)
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

func configCommand(out, logs io.Writer) *cobra.Command {
	var file string
	check := &cobra.Command{
		Use:   "check [--config FILE] [flags]",
		Short: "say whether the configuration is good, and print what is in force",
		Long: `Check refuses what serve refuses: settings, and the files that they name. It connects to
nothing. What is allowed but rarely meant is a warning on standard error.

It exits with 2 when the command line or the configuration is wrong.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(file, os.Environ(), cmd.Flags())
			if err != nil {
				return err
			}
			if err := cfg.inspect(); err != nil {
				return err
			}
			for _, w := range cfg.warnings(time.Now()) {
				fmt.Fprintln(logs, "warning:", w)
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
