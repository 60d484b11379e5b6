package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/portcullis/portcullis/vault/client"
)

// app is one run of the command line: where it reads and writes, and what its global flags say.
type app struct {
	stdin  *bufio.Reader
	stdout io.Writer
	stderr io.Writer
	getenv func(string) string
	now    func() time.Time
	// What a person sits at. A program that reads or writes there gets no prompts and no bars.
	asks    bool // stdin and stderr are terminals
	showBar bool // stderr is a terminal

	configFile string
	profile    string
	output     format
	yes        bool

	// started is whether a command's own work began. Errors before that are of usage.
	started bool
}

// run is the whole program. It gives the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first interrupt lets a command end in order; the second ends it at once.
	defer context.AfterFunc(ctx, stop)()
	return newApp(stdin, stdout, stderr).run(ctx, args)
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *app {
	return &app{
		stdin: bufio.NewReader(stdin), stdout: stdout, stderr: stderr,
		getenv: os.Getenv, now: time.Now,
		asks: terminal(stdin) && terminal(stderr), showBar: terminal(stderr),
		output: table,
	}
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	if wantsJSON(args) {
		root.SetVersionTemplate("{\"version\":\"{{.Version}}\"}\n")
	}
	c, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if !a.started {
		err = asUsage(c, err)
		if wantsJSON(args) {
			a.output = jsonOutput // the flags may not have been read as far as that
		}
	}
	return a.report(err)
}

func terminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func wantsJSON(args []string) bool {
	return strings.Contains(strings.Join(args, "="), "--output=json")
}

const rootHelp = `portcullis stores, requests and opens images of an encrypted vault, and ends access to them.

First steps, by role (each is a profile of portcullis.yaml; --profile NAME picks it):

  capture      portcullis --profile lane capture ./pictures
  contractor   portcullis --profile contractor grant request --purpose lane-audit \
                 --site anzalduas --modality plate --from 2026-11-01 --until 2026-11-08 \
                 --max-records 500 --for 2h --justification "work order 4711"
               portcullis --profile contractor grant wait GRANT
               portcullis --profile contractor grant activate GRANT
               portcullis --profile contractor fetch GRANT --out ./images
  admin        portcullis --profile alice contractor apply acme.yaml
               portcullis --profile alice purpose apply lane-audit.yaml
               portcullis --profile alice grant approve GRANT
               portcullis --profile alice contractor suspend acme-vision --note "breach"
  auditor      portcullis --profile auditor audit tail
  everyone     portcullis --profile NAME status; if something does not work: doctor

The configuration file is --config, else $PORTCULLIS_CONFIG, else ./portcullis.yaml, else
portcullis/portcullis.yaml in the user's configuration directory. "portcullisd dev" writes one.`

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "portcullis",
		Short:         "the command line of an encrypted vault for face and plate images",
		Long:          rootHelp,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          verbs,
		RunE:          showHelp,
	}
	root.SetVersionTemplate("portcullis {{.Version}}\n")
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(flagError)
	f := root.PersistentFlags()
	f.StringVar(&a.configFile, "config", "", "configuration `FILE` (default $PORTCULLIS_CONFIG, else ./portcullis.yaml, else the user's)")
	f.StringVar(&a.profile, "profile", "", "act as this profile `NAME` (default $PORTCULLIS_PROFILE, else the file's default_profile)")
	f.Var(&a.output, "output", "form of answers: table or json")
	f.BoolVar(&a.yes, "yes", false, "do not ask for confirmation")
	complete(root, "output", string(table), string(jsonOutput))
	_ = root.RegisterFlagCompletionFunc("profile", a.completeProfiles)
	root.AddCommand(
		a.captureCommand(), a.purposeCommand(), a.contractorCommand(), a.callerCommand(), a.grantCommand(), a.listCommand(), a.recordsCommand(),
		a.ofGrants(a.fetchCommand(), "active"), a.keyCommand(), a.reconcileCommand(), a.auditCommand(), a.whoamiCommand(),
		a.statusCommand(), a.doctorCommand(), a.reasonCommand(), exitCodesTopic(),
	)
	root.SetHelpCommand(helpCommand(root))
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Args, c.RunE = verbs, showHelp
		}
	}
	return root
}

// noun groups commands. Alone it shows its help.
func noun(use, short string, below ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: verbs, RunE: showHelp}
	c.AddCommand(below...)
	return c
}

// verbs refuses what is no command of a group: without it, cobra takes a mistyped one for a
// wish to see the help.
func verbs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	c.SuggestionsMinimumDistance = 2
	return unknownCommand(args[0], c)
}

// showHelp shows a group's help. A program that wants JSON has forgotten a word.
func showHelp(c *cobra.Command, _ []string) error {
	if out := c.Flag("output"); out != nil && out.Value.String() == string(jsonOutput) {
		return &usageError{err: fmt.Errorf("%q needs a command of its own", c.CommandPath()), hint: seeHelp(c)}
	}
	return c.Help()
}

// seeHelp says where a command's use is explained.
func seeHelp(c *cobra.Command) string { return fmt.Sprintf("see %q", c.CommandPath()+" --help") }

// helpCommand is "help", which refuses what there is no help on.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [command]",
		Short: "help on any command",
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) (out []string, _ cobra.ShellCompDirective) {
			if at, _, err := root.Find(args); err == nil {
				for _, c := range at.Commands() {
					if c.IsAvailableCommand() || c.IsAdditionalHelpTopicCommand() {
						out = append(out, c.Name()+"\t"+c.Short)
					}
				}
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			at, rest, err := root.Find(args)
			if err == nil && len(rest) > 0 {
				err = unknownCommand(rest[0], at)
			}
			if err != nil {
				return err
			}
			return at.Help()
		},
	}
}

// exactly wants n arguments, and says which.
func exactly(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		if n == 0 {
			return usagef("%s takes no arguments; it got %q", c.CommandPath(), args)
		}
		return usagef("wanted: %s; see %q", c.UseLine(), c.CommandPath()+" --help")
	}
}

// atLeastOne wants arguments.
func atLeastOne(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return nil
	}
	return usagef("wanted: %s; see %q", c.UseLine(), c.CommandPath()+" --help")
}

// atMostOne wants one argument or none.
func atMostOne(c *cobra.Command, args []string) error {
	if len(args) < 2 {
		return nil
	}
	return usagef("wanted: %s; it got %q", c.UseLine(), args)
}

func unknownCommand(name string, c *cobra.Command) error {
	msg := fmt.Sprintf("unknown command %q for %q", name, c.CommandPath())
	if near := c.SuggestionsFor(name); len(near) > 0 {
		msg += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return usagef("%s", msg)
}

// work makes a command's RunE of what it does.
func (a *app) work(do func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		a.started = true
		return do(c.Context(), args)
	}
}

// session is a connection as one profile.
type session struct {
	*client.Client
	profile
}

// call is work that needs the service.
func (a *app) call(do func(ctx context.Context, s *session, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		a.started = true
		s, err := a.dial()
		if err != nil {
			return err
		}
		defer s.Close()
		err = do(c.Context(), s, args)
		a.learnFrom(s, c, args, err)
		return err
	}
}

// local runs a command that needs no service.
func (a *app) local(do func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		a.started = true
		return do(c.Context(), args)
	}
}

// dial makes the connection of the profile that flags, environment and file name.
func (a *app) dial() (*session, error) {
	p, err := a.loadProfile()
	if err != nil {
		return nil, err
	}
	c, err := client.Dial(p.client)
	if err != nil {
		return nil, &usageError{err: err, hint: "the profile's files are named in " + p.file}
	}
	return &session{Client: c, profile: p}, nil
}

func complete(c *cobra.Command, flag string, values ...string) {
	_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

func (a *app) completeProfiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	file, err := a.findConfig()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	cfg, err := readConfig(file)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return cfg.names(), cobra.ShellCompDirectiveNoFileComp
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(unknown)"
}
