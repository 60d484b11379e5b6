package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// The exit codes of portcullis (portcullis exit-codes).
const (
	exitOK      = 0
	exitRefused = 3
)

// callTimeout bounds one command. The slowest, storing some tens of pictures, takes about a
// second on two cores.
const callTimeout = 30 * time.Second

// scene is one step of the story while it plays. After the first thing that is not as it
// should be, its methods do nothing, so that a step reads as the story does; err then has
// what went wrong.
type scene struct {
	*demo
	ctx context.Context
	err error
}

// fail ends the scene.
func (s *scene) fail(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf(format, args...)
		s.tell.bad(s.err.Error())
	}
}

// try ends the scene if err is not nil.
func (s *scene) try(err error) {
	if err != nil {
		s.fail("%w", err)
	}
}

// say explains.
func (s *scene) say(format string, args ...any) {
	if s.err == nil {
		s.tell.say(fmt.Sprintf(format, args...))
	}
}

// check tells that something holds, or ends the scene with what is the matter.
func (s *scene) check(ok bool, good, bad string) {
	switch {
	case s.err != nil:
	case ok:
		s.tell.good(good)
	default:
		s.fail("%s", bad)
	}
}

// result is what a command gave.
type result struct {
	code   int
	stdout []byte
	reason string // why it was refused, in the service's stable words
	said   string // the same for people
}

// call runs portcullis as a profile. An error is one of running it, not of what it was told.
func (d *demo) call(ctx context.Context, as string, args ...string) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.portcullis, append([]string{"--profile", as, "--output", "json"}, args...)...)
	cmd.Dir, cmd.Env = d.dir, d.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		return result{}, fmt.Errorf("portcullis %s: %w", strings.Join(args, " "), ctx.Err())
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return result{}, fmt.Errorf("run portcullis: %w", err)
	}
	r := result{code: cmd.ProcessState.ExitCode(), stdout: stdout.Bytes()}
	r.reason, r.said = errorOf(stderr.String())
	return r, nil
}

// errorOf finds the error object in what a command wrote to standard error.
func errorOf(stderr string) (reason, said string) {
	said = strings.TrimSpace(stderr)
	for line := range strings.Lines(stderr) {
		var e struct {
			Error *struct{ Reason, Message string }
		}
		if json.Unmarshal([]byte(line), &e) == nil && e.Error != nil {
			reason, said = e.Error.Reason, e.Error.Message
		}
	}
	return reason, said
}

// run runs a command that must succeed, and reads its answer into out unless that is nil.
func (s *scene) run(out any, as string, args ...string) {
	if s.err != nil {
		return
	}
	s.tell.command(typed(append([]string{"portcullis", "--profile", as}, args...)...))
	s.quietly(out, as, args...)
}

// quietly is run without showing the command.
func (s *scene) quietly(out any, as string, args ...string) {
	if s.err != nil {
		return
	}
	r, err := s.call(s.ctx, as, args...)
	switch {
	case err != nil:
		s.try(err)
	case r.code != exitOK:
		s.fail("this must succeed, but it exited with %d: %s %s", r.code, r.reason, r.said)
	case out != nil:
		if err := json.Unmarshal(r.stdout, out); err != nil {
			s.fail("the answer does not read as JSON: %w", err)
		}
	}
}

// refused runs a command that must be refused, for this reason and no other.
func (s *scene) refused(reason, as string, args ...string) (r result) {
	if s.err != nil {
		return r
	}
	s.tell.command(typed(append([]string{"portcullis", "--profile", as}, args...)...))
	r, err := s.call(s.ctx, as, args...)
	switch {
	case err != nil:
		s.try(err)
	case r.code == exitOK:
		s.fail("this must be refused (%s), but it was done", reason)
	case r.code != exitRefused || r.reason != reason:
		s.fail("this must be refused with exit code %d and reason %s; it ended with %d, %s %s", exitRefused, reason, r.code, r.reason, r.said)
	default:
		s.tell.good(fmt.Sprintf("refused, as it must be: %s (%s)", r.reason, r.said))
	}
	return r
}

// decode reads what a command wrote to standard output.
func (s *scene) decode(r result, out any) {
	if s.err == nil {
		if err := json.Unmarshal(r.stdout, out); err != nil {
			s.fail("the answer does not read as JSON: %w", err)
		}
	}
}
