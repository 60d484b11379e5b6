package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/portcullis/portcullis/internal/tlog"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
)

// The exit codes. Scripts rely on them.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitRefused     = 3
	exitUnavailable = 4
	exitInVain      = 5
	exitTimedOut    = 6
)

func exitCodesTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "what the exit codes mean",
		Long: `The exit codes of portcullis:

  0  done
  1  failed: a file, the service or the connection's proof (either side's certificate); or some of
     many files or checks failed
  2  the command line, its files or the request is malformed: mend it
  3  refused: denied, not found, not in the right state, over a quota, there already, changed meanwhile
  4  the service, its Vault or its database is away: try again
  5  grant wait: it can not come to that any more; error.reason says how the grant ended
  6  grant wait: --timeout was over first

With --output json an error is one object on standard error, alone there if --yes is given, too:
  {"error":{"kind":"denied","reason":"PURPOSE_SITE","message":"…","fields":[{"name":"…","description":"…"}]}}
kind is usage, invalid, not_found, denied, state, exhausted, exists, conflict, data_loss, not_offered,
unavailable, unproved (the connection's proof failed), canceled, incomplete (some of many files or
checks failed), in_vain, timeout or internal. reason is stable; it is empty when the service did not speak.`,
	}
}

// usageError is a mistake in what was typed or configured.
type usageError struct {
	err  error
	hint string // what to try next, may be empty
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...)}
}

// hinted is a failure with what to try next.
type hinted struct {
	err  error
	hint string
}

func (e *hinted) Error() string { return e.err.Error() }
func (e *hinted) Unwrap() error { return e.err }

// ownWords leaves the system call's name out of a file's error.
func ownWords(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return fmt.Errorf("%s: %w", p.Path, p.Err)
	}
	return err
}

// incomplete says that some of many things were not done, each for a reason of its own.
type incomplete struct{ msg string }

func (e *incomplete) Error() string { return e.msg }

// asUsage makes what cobra says about a command line a usage error, on one line.
func asUsage(c *cobra.Command, err error) error {
	var u *usageError
	if errors.As(err, &u) {
		return err
	}
	if m := missingFlags.FindStringSubmatch(err.Error()); m != nil {
		flags := "--" + strings.ReplaceAll(strings.ReplaceAll(m[1], `"`, ""), ", ", ", --")
		return &usageError{err: fmt.Errorf("missing: %s", flags), hint: seeHelp(c)}
	}
	// cobra lists its suggestions below the message.
	lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\t' })
	return usagef("%s", strings.Join(lines, " "))
}

// missingFlags is how cobra says which flags a command can not do without.
var missingFlags = regexp.MustCompile(`^required flag\(s\) (.*) not set$`)

// valueError says what is wrong with a flag's value. The words of the flags that this program
// makes stand; those of Go's parsers do not.
func valueError(err *pflag.InvalidValueError) error {
	why := err.Unwrap()
	switch err.GetFlag().Value.Type() {
	case "int", "int64":
		why = errors.New("must be a whole number, such as 500")
	case "duration":
		why = errors.New("must be a duration, such as 500ms, 2s or 1m")
	case "bool":
		why = errors.New("must be true or false")
	}
	return fmt.Errorf("--%s %q: %w", err.GetFlag().Name, err.GetValue(), why)
}

// flagError adds to a flag that does not exist those that come near it.
func flagError(c *cobra.Command, err error) error {
	var value *pflag.InvalidValueError
	if errors.As(err, &value) {
		return &usageError{err: valueError(value), hint: seeHelp(c)}
	}
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) || len(unknown.GetSpecifiedName()) < 2 {
		return &usageError{err: err, hint: seeHelp(c)}
	}
	name := unknown.GetSpecifiedName()
	var near []string
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && (levenshtein.ComputeDistance(name, f.Name) <= 2 || strings.HasPrefix(f.Name, name)) {
			near = append(near, "--"+f.Name)
		}
	})
	if len(near) > 0 {
		err = fmt.Errorf("%w; did you mean %s?", err, strings.Join(near, " or "))
	}
	return &usageError{err: err, hint: seeHelp(c)}
}

// didYouMean names those that come near to what was typed, if any do.
func didYouMean(typed string, known []string) string {
	var near []string
	best := max(2, len(typed)/2) + 1
	for _, k := range known {
		switch d := levenshtein.ComputeDistance(typed, k); {
		case d < best:
			best, near = d, []string{k}
		case d == best && near != nil:
			near = append(near, k)
		}
	}
	if len(near) == 0 {
		return ""
	}
	return "; did you mean " + strings.Join(near[:min(3, len(near))], " or ") + "?"
}

// errorBody is an error in JSON.
type errorBody struct {
	Kind    string       `json:"kind"`
	Reason  vault.Reason `json:"reason"`
	Message string       `json:"message"`
	Fields  []fieldBody  `json:"fields"`
}

type fieldBody struct {
	Name        string `json:"name"`
	Description string `json:"description"`
}

var kindNames = map[vault.Kind]struct {
	name string
	exit int
}{
	vault.Internal:    {"internal", exitFailure},
	vault.Invalid:     {"invalid", exitUsage},
	vault.NotFound:    {"not_found", exitRefused},
	vault.Denied:      {"denied", exitRefused},
	vault.State:       {"state", exitRefused},
	vault.Exhausted:   {"exhausted", exitRefused},
	vault.Exists:      {"exists", exitRefused},
	vault.Conflict:    {"conflict", exitRefused},
	vault.DataLoss:    {"data_loss", exitFailure},
	vault.Unavailable: {"unavailable", exitUnavailable},
	vault.NotOffered:  {"not_offered", exitUsage},
}

// interrupts is what an interrupted call says, as often as its layers repeat it.
var interrupts = regexp.MustCompile(`context canceled(: context canceled)*`)

// message gives an error's text on one line: of joined errors, each only once.
func message(err error) string {
	var parts []string
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" && !slices.Contains(parts, line) {
			parts = append(parts, line)
		}
	}
	return printable(strings.Join(parts, "; "))
}

// describe gives an error's JSON form and exit code.
func describe(err error) (errorBody, int) {
	body := errorBody{Kind: "internal", Reason: vault.ReasonOf(err), Message: message(err), Fields: []fieldBody{}}
	var e *vault.Error
	if errors.As(err, &e) {
		for _, f := range e.Fields {
			body.Fields = append(body.Fields, fieldBody{printable(f.Name), printable(f.Description)})
		}
	}
	var u *usageError
	var some *incomplete
	var vain *waitedInVain
	switch {
	case errors.As(err, &vain) && vain.timedOut:
		body.Kind = "timeout"
		return body, exitTimedOut
	case errors.As(err, &vain):
		body.Kind = "in_vain"
		return body, exitInVain
	case errors.As(err, &u):
		body.Kind = "usage"
		return body, exitUsage
	case errors.As(err, &some):
		body.Kind = "incomplete"
		return body, exitFailure
	case errors.Is(err, context.Canceled):
		body.Kind = "canceled"
		body.Message = interrupts.ReplaceAllString(body.Message, "interrupted")
		return body, exitFailure
	case errors.Is(err, client.ErrUnproved):
		body.Kind = "unproved"
		return body, exitFailure
	case errors.Is(err, client.ErrLogRewritten), errors.Is(err, tlog.ErrDamaged):
		body.Kind = "data_loss"
		return body, exitFailure
	case errors.Is(err, context.DeadlineExceeded):
		body.Kind = "unavailable"
		return body, exitUnavailable
	case e != nil:
		k := kindNames[e.Kind]
		body.Kind = k.name
		return body, k.exit
	}
	return body, exitFailure
}

// report writes an error for its reader, and gives the exit code.
func (a *app) report(err error) int {
	body, code := describe(err)
	if a.output == jsonOutput {
		enc := json.NewEncoder(a.stderr)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(map[string]errorBody{"error": body})
		return code
	}
	fmt.Fprintf(a.stderr, "portcullis: %s\n", body.Message)
	if next := hint(err, body); next != "" {
		fmt.Fprintf(a.stderr, "  %s\n", next)
	}
	return code
}
