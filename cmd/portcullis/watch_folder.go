package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// errAway says that the folder is not where it was: nothing can be said of its files.
var errAway = errors.New("the folder is away")

// there says whether the folder that is kept up with is at its path.
func (w *watch) there() bool {
	info, err := os.Stat(w.dir)
	return err == nil && os.SameFile(info, w.folder)
}

func (w *watch) notice(e fsnotify.Event) error {
	if e.Name == w.dir {
		return w.look(w.dir) // it was moved or removed itself
	}
	if info, err := os.Lstat(e.Name); err == nil && info.IsDir() {
		return w.look(e.Name)
	}
	return w.see(e.Name)
}

// look goes through a folder and those below it. What it can not read it looks for again
// later; its errors are those of the file of results.
func (w *watch) look(dir string) error {
	if dir == w.dir {
		w.looked = time.Now()
		switch info, err := os.Stat(dir); {
		case errors.Is(err, fs.ErrNotExist), err == nil && !info.IsDir():
			w.blinded("the folder was moved or removed: waiting for one at %s", dir)
			return nil
		case err == nil && !os.SameFile(info, w.folder):
			if err := w.replaced(info); err != nil || w.blind {
				return err
			}
		case err == nil:
			if err := w.durable(); err != nil && !errors.Is(err, errAway) {
				return err
			}
		}
	}
	there := map[string]bool{}
	whole := true
	var broken error
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			whole = whole && (errors.Is(err, fs.ErrNotExist) && path != w.dir)
			if path == w.dir {
				w.blinded("can not read the folder: %v", err)
			}
			return nil
		case d.IsDir():
			if path != w.dir && (hidden(d.Name()) || !w.ours(path)) {
				return fs.SkipDir
			}
			// Where the system gives no more notices, the next look finds what is new.
			_ = w.notices.Add(path)
			return nil
		}
		there[w.name(path)] = true
		if broken = w.see(path); broken != nil {
			return fs.SkipAll
		}
		return nil
	})
	if broken != nil || dir != w.dir || !whole {
		return broken
	}
	if w.blind {
		w.blind = false
		w.say("the folder can be read again")
	}
	for name := range w.last {
		if !there[name] && !w.busy[name] {
			if err := w.vanished(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// blinded notes that the folder can not be looked at, and says so once.
func (w *watch) blinded(format string, args ...any) {
	if !w.blind {
		w.blind = true
		w.say(format, args...)
	}
}

// replaced begins with another folder that has come to the place of the one before. What is
// known of the files of that one lies in its own file of results, which is where it is.
func (w *watch) replaced(info fs.FileInfo) error {
	notices, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the folder: %w", err)
	}
	if !w.results.here() {
		last := map[string]outcome{}
		err := w.results.reopen(newest(last), func() []any { return nil })
		if err != nil {
			_ = notices.Close()
			if errors.Is(err, fs.ErrNotExist) && w.file == resultsFile(w.dir) {
				w.blinded("the folder was moved or removed: waiting for one at %s", w.dir)
				return nil
			}
			return fmt.Errorf("file of results: %w", err)
		}
		w.last = last
		w.forgiveRefused()
	}
	_ = w.notices.Close()
	w.notices, w.folder, w.blind = notices, info, false
	for _, j := range w.ready {
		delete(w.busy, j.name)
	}
	w.ready = nil
	clear(w.fresh)
	clear(w.redo)
	clear(w.stuck)
	w.say("another folder is at %s now: keeping up with that one; results in %s", w.dir, w.file)
	return nil
}

// durable makes sure that what is known of the files stands in a file of results that can be
// found: the open one may have been removed, or another one put in its place. The error is
// errAway while the folder is not at its path.
func (w *watch) durable() error {
	if w.results.here() {
		return nil
	}
	if !w.there() {
		return errAway
	}
	// The lines that are there, if any, are of another time: what is known here is newer.
	err := w.results.reopen(func([]byte) error { return nil }, func() (known []any) {
		for _, name := range slices.Sorted(maps.Keys(w.last)) {
			known = append(known, w.last[name])
		}
		return known
	})
	if err != nil {
		return fmt.Errorf("file of results was removed or replaced: %w", err)
	}
	w.say("the file of results was removed or replaced: %s has what is known of %s again, but nothing of files that are gone", w.file, count(len(w.last), "file"))
	return nil
}

// forgiveRefused lets --retry-refused try again what was refused.
func (w *watch) forgiveRefused() {
	for name, o := range w.last {
		if w.retry && o.Status == "refused" {
			delete(w.last, name)
		}
	}
}
