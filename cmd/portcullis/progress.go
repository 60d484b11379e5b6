package main

import (
	"time"

	"github.com/schollz/progressbar/v3"
)

// progress shows how far a long work is. The zero value shows nothing.
type progress struct{ bar *progressbar.ProgressBar }

// bar begins a progress bar on standard error, if a person sits there.
func (a *app) bar(what string, total int) progress {
	if !a.showBar || total == 0 {
		return progress{}
	}
	return progress{progressbar.NewOptions(total,
		progressbar.OptionSetWriter(a.stderr),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(),
		progressbar.OptionShowIts(),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)}
}

func (p progress) add() {
	if p.bar != nil {
		_ = p.bar.Add(1)
	}
}

// done takes the bar away.
func (p progress) done() {
	if p.bar != nil {
		_ = p.bar.Clear()
		_ = p.bar.Exit()
	}
}
