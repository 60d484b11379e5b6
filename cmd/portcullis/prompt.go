package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// errNotConfirmed ends a command whose question was answered with no.
var errNotConfirmed = errors.New("not confirmed: nothing was signed")

// maxAnswer is the longest answer to a question, in bytes.
const maxAnswer = 256

// confirm asks for y. Without a terminal it wants --yes.
func (a *app) confirm(ctx context.Context, question string) error {
	return a.ask(ctx, question+" [y/N] ", func(answer string) bool {
		answer = strings.ToLower(answer)
		return answer == "y" || answer == "yes"
	})
}

// confirmTyped asks for the exact text want.
func (a *app) confirmTyped(ctx context.Context, question, want string) error {
	return a.ask(ctx, question+" ", func(answer string) bool { return answer == want })
}

func (a *app) ask(ctx context.Context, question string, agrees func(string) bool) error {
	if a.yes {
		return nil
	}
	if !a.asks {
		return &usageError{err: errors.New("this needs a confirmation, and there is no terminal to ask on"), hint: "read what is to be signed, then give --yes"}
	}
	fmt.Fprint(a.stderr, question)
	type reply struct {
		text string
		err  error
	}
	got := make(chan reply, 1)
	// A read of a terminal can not be ended; after an interrupt it ends with the program.
	go func() {
		text, err := a.readLine()
		got <- reply{text, err}
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.stderr)
		return ctx.Err()
	case r := <-got:
		if r.err != nil || !agrees(strings.TrimSpace(r.text)) {
			return errNotConfirmed
		}
		return nil
	}
}

func (a *app) readLine() (string, error) {
	var line []byte
	for len(line) < maxAnswer {
		b, err := a.stdin.ReadByte()
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		if err != nil || b == '\n' {
			return string(line), nil
		}
		line = append(line, b)
	}
	return "", errors.New("the answer is too long")
}

// quiet says that a script runs the command: it has agreed already, and reads JSON, also
// from standard error.
func (a *app) quiet() bool { return a.yes && a.output == jsonOutput }

// showSigned writes the text that a signature will stand under. It goes to standard error,
// beside the question, so that standard output holds the answer alone.
func (a *app) showSigned(text string) {
	if a.quiet() {
		return
	}
	fmt.Fprintln(a.stderr, "You are about to sign:")
	for line := range strings.Lines(text) {
		fmt.Fprintln(a.stderr, "  | "+printable(strings.TrimSuffix(line, "\n")))
	}
}
