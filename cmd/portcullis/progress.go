package main

import (
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"
)

// progress shows how far a long work is. The zero value shows nothing.
type progress struct {
	bar   *progressbar.ProgressBar
	what  string
	begun time.Time
	bytes *int64 // of the things so far
}

// barEvery is how often a bar is drawn at most.
const barEvery = 100 * time.Millisecond

// bar begins a progress bar of things on standard error, if a person sits there.
func (a *app) bar(what string, total int) progress {
	return a.newBar(what, int64(total), progressbar.OptionShowCount(), progressbar.OptionShowIts())
}

// bytesBar begins one of bytes.
func (a *app) bytesBar(what string, total int64) progress {
	return a.newBar(what, total, progressbar.OptionShowBytes(true), progressbar.OptionUseIECUnits(true), progressbar.OptionShowTotalBytes(true))
}

func (a *app) newBar(what string, total int64, more ...progressbar.Option) progress {
	if !a.showBar || total == 0 {
		return progress{}
	}
	return progress{what: what, begun: time.Now(), bytes: new(int64), bar: progressbar.NewOptions64(total, append([]progressbar.Option{
		progressbar.OptionSetWriter(a.stderr),
		progressbar.OptionSetDescription(what),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionThrottle(barEvery),
		progressbar.OptionClearOnFinish(),
	}, more...)...)}
}

func (p progress) add() { p.addAll(1) }

func (p progress) addAll(n int64) {
	if p.bar != nil {
		_ = p.bar.Add64(n)
	}
}

// set says how many are done.
func (p progress) set(n int64) {
	if p.bar != nil {
		_ = p.bar.Set64(n)
	}
}

// addSized adds one thing of some bytes, of which nobody knows how many will come in all.
func (p progress) addSized(bytes int64) {
	if p.bar == nil {
		return
	}
	*p.bytes += bytes
	rate := float64(*p.bytes) / max(time.Since(p.begun).Seconds(), 0.001)
	p.bar.Describe(p.what + ", " + humanize.IBytes(uint64(*p.bytes)) + " at " + humanize.IBytes(uint64(rate)) + "/s")
	p.add()
}

// say shows why nothing goes on, and whether there is a bar to show it on.
func (p progress) say(why string) bool {
	if p.bar == nil {
		return false
	}
	time.Sleep(barEvery) // or it would not be drawn
	p.bar.Describe(p.what + ", " + why)
	return true
}

// done takes the bar away.
func (p progress) done() {
	if p.bar != nil {
		_ = p.bar.Clear()
		_ = p.bar.Exit()
	}
}
