package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/fsnotify/fsnotify"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
)

// How a watch goes.
const (
	minSettle   = 50 * time.Millisecond
	maxSettle   = time.Hour
	rescanEvery = 30 * time.Second // what the system's notices missed is found by then
	endGrace    = 10 * time.Second // for what is under way at the end
	firstPause  = time.Second      // while the service is away
	mostPause   = time.Minute
	sayAgain    = 5 * time.Minute        // that it is still away
	lookAgain   = 200 * time.Millisecond // while the folder can not be read
	firstRedo   = 30 * time.Second
	mostRedo    = 15 * time.Minute // between tries of a file that can not be read
)

// watch keeps up with one folder. Its fields belong to one goroutine, that of loop.
type watch struct {
	app      *app
	run      *capture
	dir      string
	only     vault.Modality
	settle   time.Duration
	rescan   time.Duration
	remove   bool
	retry    bool
	parallel int

	results *lines
	notices *fsnotify.Watcher
	last    map[string]outcome       // newest line of each file that is there
	fresh   map[string]sighting      // files that have not settled
	redo    map[string]time.Duration // how long a file waited that failed
	ready   []*job                   // settled, in order
	busy    map[string]bool          // files in ready and under way
	under   int                      // jobs under way
	away    *outage
	stuck   map[string]bool // files of which was said that they can not be removed or read
	folder  fs.FileInfo     // which folder it is, while that is at dir
	file    string          // the results, as they were given
	blind   bool            // the last look at the folder failed
	looked  time.Time       // when the folder was last looked at
	counts  map[string]int
}

// sighting is a version of a file, and since when it is that.
type sighting struct {
	version fileVersion
	since   time.Time
	after   time.Time // not to be tried before
}

// outage is a time in which the service takes nothing.
type outage struct {
	until time.Time
	said  time.Time
	grow  backoff.ExponentialBackOff
}

// watch stores what comes into a folder until the context ends, and then ends in order.
func (a *app) watch(ctx context.Context, c *client.Client, w *watch, file string) error {
	var err error
	if w.dir, err = filepath.EvalSymlinks(w.dir); err != nil {
		return &usageError{err: ownWords(err)}
	}
	if w.folder, err = os.Stat(w.dir); err != nil || !w.folder.IsDir() {
		return usagef("%s: --watch keeps up with a folder", w.dir)
	}
	if w.only == "" && !w.has(vault.Face) && !w.has(vault.Plate) {
		return usagef("%s: has no folders face and plate; say what its pictures show, with --modality", w.dir)
	}
	if w.file = file; file == "" {
		w.file = resultsFile(w.dir)
	}
	if w.results, w.last, err = openResults(w.file); err != nil {
		return err
	}
	defer w.results.close()
	if w.notices, err = fsnotify.NewWatcher(); err != nil {
		return fmt.Errorf("watch the folder: %w", err)
	}
	defer func() { _ = w.notices.Close() }() // it may be another one by then
	w.fresh, w.redo, w.counts = map[string]sighting{}, map[string]time.Duration{}, map[string]int{}
	w.busy, w.stuck = map[string]bool{}, map[string]bool{}
	w.forgiveRefused()

	// Calls under way outlive the interrupt for a while, so that their answers are known.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	storer := c.NewStorer(client.StorerOptions{InFlight: w.parallel})
	queue, done := make(chan *job), make(chan *job, w.parallel+1)
	go w.dispatch(work, storer, queue, done)
	defer storer.Wait()
	w.say("keeping up with %s; results in %s", w.dir, w.file)
	err = w.loop(ctx, queue, done)
	close(queue)
	time.AfterFunc(endGrace, cancel)
	for w.under > 0 {
		err = errors.Join(err, w.finish(nextJobs(<-done, done)))
	}
	w.summary()
	return err
}

func (w *watch) has(m vault.Modality) bool {
	info, err := os.Stat(filepath.Join(w.dir, string(m)))
	return err == nil && info.IsDir()
}

// dispatch stores the jobs of queue until that is closed, and gives each to done.
func (w *watch) dispatch(ctx context.Context, storer *client.Storer, queue <-chan *job, done chan<- *job) {
	for j := range queue {
		err := storer.Submit(ctx, j.version.size, func() (client.Image, error) {
			return j.read(w.run, w.results, w.app.now())
		}, func(r client.Result) {
			j.result = r
			done <- j
		})
		if err != nil {
			j.result.Err = err
			done <- j
		}
	}
}

// nextJobs takes those that are done besides the first.
func nextJobs(first *job, done <-chan *job) []*job {
	jobs := []*job{first}
	for {
		select {
		case j := <-done:
			jobs = append(jobs, j)
		default:
			return jobs
		}
	}
}

func (w *watch) loop(ctx context.Context, queue chan<- *job, done <-chan *job) error {
	tick := time.NewTicker(max(w.settle/4, 20*time.Millisecond))
	defer tick.Stop()
	rescan := time.NewTicker(w.rescan)
	defer rescan.Stop()
	if err := w.look(w.dir); err != nil {
		return err
	}
	for {
		var next *job
		var hand chan<- *job
		if len(w.ready) > 0 && w.mayStart() {
			next, hand = w.ready[0], queue
		}
		var err error
		select {
		case <-ctx.Done():
			return nil
		case hand <- next:
			w.ready = w.ready[1:]
			w.under++
		case j := <-done:
			err = w.finish(nextJobs(j, done))
		case e := <-w.notices.Events:
			err = w.notice(e)
		case <-w.notices.Errors:
			err = w.look(w.dir) // notices were lost
		case <-rescan.C:
			err = w.look(w.dir)
		case <-tick.C:
			// The system tells of the folder's removal only once nothing of it is open, and the
			// results are.
			if w.ripen(); w.blind && time.Since(w.looked) >= lookAgain || !w.blind && !w.there() {
				err = w.look(w.dir)
			}
		}
		if err != nil {
			return err
		}
	}
}

func (w *watch) name(path string) string {
	rel, err := filepath.Rel(w.dir, path)
	if err != nil {
		return path
	}
	return filepath.ToSlash(rel)
}

// modality says what the pictures of a path show, "" when it is not to be stored.
func (w *watch) modality(path string) vault.Modality {
	if w.only != "" {
		return w.only
	}
	first, _, _ := strings.Cut(w.name(path), "/")
	if m := vault.Modality(first); m == vault.Face || m == vault.Plate {
		return m
	}
	return ""
}

func (w *watch) ours(path string) bool { return w.modality(path) != "" }

// see looks at one file.
func (w *watch) see(path string) error {
	name := w.name(path)
	if !pictureName(filepath.Base(path)) || !w.ours(path) || w.busy[name] ||
		slices.ContainsFunc(strings.Split(filepath.ToSlash(filepath.Dir(name)), "/"), func(s string) bool { return s != "." && hidden(s) }) {
		return nil
	}
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return w.vanished(name)
	}
	if err != nil {
		return nil
	}
	if !info.Mode().IsRegular() {
		if !w.stuck[name] {
			w.stuck[name] = true
			w.say("%s is passed over: %v", fileName(name), errNotRegular)
		}
		return nil
	}
	v := versionOf(info)
	if last, ok := w.last[name]; ok && last.of(v) {
		switch {
		case last.stored() && w.remove:
			// It was stored and its line is on the disk, and then the process ended.
			return w.unlink(path, v)
		case last.stored(), last.Status == "refused":
			return nil
		}
	}
	if at, ok := w.fresh[name]; !ok || !at.version.is(v) {
		w.fresh[name] = sighting{version: v, since: time.Now()}
	}
	return nil
}

// vanished forgets a file that is there no more.
func (w *watch) vanished(name string) error {
	if !w.there() {
		return nil // the folder is away, and its file may be with it
	}
	last, ok := w.last[name]
	delete(w.last, name)
	delete(w.fresh, name)
	delete(w.redo, name)
	if !ok || last.stored() || last.Status == "refused" {
		return nil
	}
	last.Time, last.Status, last.Error = vault.FormatTime(w.app.now()), "gone", nil
	w.tell(last)
	return w.results.append(last)
}

// ripen makes jobs of the files that have settled.
func (w *watch) ripen() {
	now := time.Now()
	var ripe []string
	for name, at := range w.fresh {
		if now.Sub(at.since) < w.settle || now.Before(at.after) {
			continue
		}
		path := filepath.Join(w.dir, filepath.FromSlash(name))
		info, err := os.Lstat(path)
		switch {
		case err != nil:
			delete(w.fresh, name) // the next look tells
		case !versionOf(info).is(at.version):
			w.fresh[name] = sighting{version: versionOf(info), since: now}
		default:
			ripe = append(ripe, name)
		}
	}
	slices.Sort(ripe)
	for _, name := range ripe {
		path := filepath.Join(w.dir, filepath.FromSlash(name))
		j := &job{folder: w.folder, name: name, picture: picture{path, w.modality(path)}, version: w.fresh[name].version, last: w.last[name]}
		j.out = outcome{File: fileName(name), Modality: j.picture.modality, Class: w.run.class}
		j.out.setVersion(j.version)
		delete(w.fresh, name)
		w.busy[name] = true
		w.ready = append(w.ready, j)
	}
}

// mayStart says whether a job may begin. While the service is away, one at a time asks.
func (w *watch) mayStart() bool {
	return w.away == nil || w.under == 0 && !time.Now().Before(w.away.until)
}

// finish writes down what came of jobs, durably, and only then removes files.
func (w *watch) finish(jobs []*job) error {
	w.under -= len(jobs)
	var told []*job
	for _, j := range jobs {
		err := j.result.Err
		switch {
		case j.folder != w.folder: // of a folder that is somewhere else now: what is here is looked at anew
			delete(w.busy, j.name)
			if err := w.see(j.picture.path); err != nil {
				return err
			}
			continue
		case errors.Is(err, errChanging), errors.Is(err, fs.ErrNotExist):
			delete(w.busy, j.name)
			if err := w.see(j.picture.path); err != nil {
				return err
			}
			continue
		case errors.Is(err, errUnchanged):
			out := j.last
			out.Status = "repeated"
			out.setVersion(j.version)
			j.out = out
		case err != nil && stops(err):
			// As if it had never been tried, but for the line that says it was.
			if j.out.RequestID != "" {
				j.last = j.out
				j.last.Status = "begun"
			}
			w.ready = append([]*job{j}, w.ready...)
			w.outage(err)
			continue
		default:
			s := w.run.judge(j.picture, j.result)
			w.answers(err)
			j.out.Status, j.out.Error = s.Status, s.Error
			if s.Image != nil {
				j.out.Record = s.Image.Record
			}
		}
		j.out.Time = vault.FormatTime(w.app.now())
		if err := w.results.append(j.out); err != nil {
			return fmt.Errorf("file of results: %w", err)
		}
		told = append(told, j)
	}
	if len(told) == 0 {
		return nil
	}
	if err := w.results.sync(); err != nil {
		return fmt.Errorf("file of results: %w", err)
	}
	for _, j := range told {
		w.last[j.name] = j.out
	}
	if err := w.durable(); err != nil && !errors.Is(err, errAway) {
		return err
	}
	for _, j := range told {
		w.counts[j.out.Status]++
		w.tell(j.out)
		delete(w.busy, j.name)
		if w.remove && j.out.stored() {
			if err := w.unlink(j.picture.path, j.version); err != nil {
				return err
			}
		}
		if err := w.see(j.picture.path); err != nil {
			return err
		}
		w.again(j)
	}
	return nil
}

// again sets when a file that failed is tried once more.
func (w *watch) again(j *job) {
	if j.out.Status != "failed" {
		delete(w.redo, j.name)
		return
	}
	wait := min(max(2*w.redo[j.name], firstRedo), mostRedo)
	w.redo[j.name] = wait
	if at, ok := w.fresh[j.name]; ok && at.version.is(j.version) {
		at.after = time.Now().Add(wait)
		w.fresh[j.name] = at
	}
}

// unlink removes a file that is stored, if that is still written down where it is looked for.
func (w *watch) unlink(path string, v fileVersion) error {
	switch err := w.durable(); {
	case errors.Is(err, errAway):
		return nil // once the folder is there again
	case err != nil:
		return err
	}
	name := w.name(path)
	err := unlink(path, v)
	if err == nil {
		delete(w.last, name)
		delete(w.stuck, name)
		return nil
	}
	if !w.stuck[name] {
		w.stuck[name] = true
		w.say("%s is stored, but can not be removed: %v", fileName(name), err)
	}
	return nil
}

// outage notes that the service takes nothing now, whatever the picture.
func (w *watch) outage(err error) {
	if w.away == nil {
		w.away = &outage{grow: backoff.ExponentialBackOff{
			InitialInterval: firstPause, RandomizationFactor: backoff.DefaultRandomizationFactor, Multiplier: 2, MaxInterval: mostPause,
		}}
	} else if w.under > 0 || time.Now().Before(w.away.until) {
		return // of those that were under way when it went
	}
	pause := w.away.grow.NextBackOff()
	w.away.until = time.Now().Add(pause)
	if time.Since(w.away.said) < sayAgain {
		return
	}
	w.away.said = time.Now()
	body, _ := describe(err)
	w.say("the service takes nothing: %s; %s wait, trying again in %s and on", body.Message, count(w.waiting(), "picture"), pause.Round(100*time.Millisecond))
	if next := hint(err, body); next != "" {
		fmt.Fprintf(w.app.stderr, "  %s\n", next)
	}
}

// answers notes that the service has judged a picture.
func (w *watch) answers(err error) {
	if w.away == nil || err != nil && vault.ReasonOf(err) == "" {
		return
	}
	w.away = nil
	w.say("the service answers again; %s wait", count(w.waiting(), "picture"))
}

// waiting is how many files have no result yet.
func (w *watch) waiting() int { return len(w.fresh) + len(w.busy) }

func (w *watch) say(format string, args ...any) {
	fmt.Fprintf(w.app.stderr, "%s portcullis: %s\n", vault.FormatTime(w.app.now()), printable(fmt.Sprintf(format, args...)))
}

// tell writes one result for whoever reads along.
func (w *watch) tell(o outcome) {
	if w.app.output == jsonOutput {
		_ = w.app.lineJSON(o)
		return
	}
	about := bare(o.Record)
	if o.Error != nil {
		about = o.Error.Message
	}
	fmt.Fprintln(w.app.stdout, strings.TrimSpace(fmt.Sprintf("%s %-8s %s %s", o.Time, o.Status, printable(o.File.String()), printable(about))))
}

func (w *watch) summary() {
	w.say("ended: %d stored, %d repeated, %d refused, %d failed; %s without a result", w.counts["stored"], w.counts["repeated"],
		w.counts["refused"], w.counts["failed"], count(w.waiting(), "picture"))
}
