package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// lineWidth is where explanations are broken, in characters.
const lineWidth = 96

// teller prints the story.
type teller struct {
	w      io.Writer
	colour bool
	steps  int
	checks int
}

// newTeller writes to f, in colour if f is a terminal and NO_COLOR (https://no-color.org)
// is not set.
func newTeller(f *os.File) *teller {
	return &teller{w: f, colour: term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""}
}

const (
	bold  = "1"
	faint = "2"
	red   = "31"
	green = "32"
	cyan  = "36"
)

func (t *teller) paint(code, s string) string {
	if !t.colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// title begins a step.
func (t *teller) title(s string) {
	t.steps++
	fmt.Fprintf(t.w, "\n%s\n", t.paint(bold, fmt.Sprintf("%2d  %s", t.steps, s)))
}

// say explains in plain words.
func (t *teller) say(s string) { t.block("    ", "    ", s, "") }

// command shows what a person would type.
func (t *teller) command(line string) { t.block("    $ ", "        ", line, cyan) }

// good tells of something that was checked.
func (t *teller) good(s string) {
	t.checks++
	t.block("    "+t.paint(green, "✓")+" ", "      ", s, "")
}

// bad tells of something that is not as it should be.
func (t *teller) bad(s string) { t.block("    "+t.paint(red, "✗")+" ", "      ", s, "") }

// lines shows text as it is.
func (t *teller) lines(text string) {
	for l := range strings.Lines(text) {
		fmt.Fprintf(t.w, "        %s\n", t.paint(faint, strings.TrimRight(l, "\n")))
	}
}

// block writes s broken into lines.
func (t *teller) block(first, rest, s, colour string) {
	lead := first
	for _, l := range wrap(s, lineWidth-len(rest)) {
		if colour != "" {
			l = t.paint(colour, l)
		}
		fmt.Fprintf(t.w, "%s%s\n", lead, l)
		lead = rest
	}
}

// wrap breaks s at spaces into lines of at most width characters, where its words allow.
func wrap(s string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(s) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}

// typed writes a command line as a person would type it.
func typed(words ...string) string {
	out := make([]string, len(words))
	for i, w := range words {
		switch {
		case w != "" && !strings.ContainsAny(w, " \t\"'$&|;()<>*?\\`"):
		case strings.ContainsAny(w, "\"$\\`"):
			w = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		default:
			w = `"` + w + `"`
		}
		out[i] = w
	}
	return strings.Join(out, " ")
}
