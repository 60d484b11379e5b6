package main

import (
	"errors"
	"io/fs"

	"golang.org/x/mod/sumdb/note"

	"github.com/portcullis/portcullis/internal/tlog"
	"github.com/portcullis/portcullis/vault/client"
)

// witnesses are what an export is checked against.
type witnesses struct {
	key  note.Verifier
	text string      // of the key
	kept []tlog.Kept // in files that were given
	seen *tlog.Kept  // what this program saw last; nil if it is not known
}

// witnesses gives the log's key, and the checkpoints that were kept elsewhere.
func (a *app) witnesses(key string, files []string) (w witnesses, err error) {
	memory := ""
	if file, err := a.findConfig(); err == nil {
		cfg, err := readConfig(file)
		if err != nil {
			return w, err
		}
		if key == "" {
			key = cfg.LogKey
		}
		if key == cfg.LogKey {
			memory = logMemory(file)
		}
	} else if key == "" {
		return w, &usageError{err: err, hint: "give --key KEY, or a configuration that has log_key"}
	}
	if key == "" {
		return w, &usageError{err: client.ErrNoLogKey, hint: hintLogKey}
	}
	w.text = key
	if w.key, err = tlog.ParseKey(key); err != nil {
		return w, &usageError{err: err, hint: hintLogKey}
	}
	for _, f := range files {
		more, err := tlog.LoadKept(f, w.key)
		if err != nil {
			return w, err
		}
		w.kept = append(w.kept, more...)
	}
	if memory == "" {
		return w, nil
	}
	seen, err := tlog.LoadKept(memory, w.key)
	if errors.Is(err, fs.ErrNotExist) {
		return w, nil
	}
	if err != nil {
		return w, err
	}
	w.seen = &seen[len(seen)-1]
	return w, nil
}

// furthest leaves out, of the checkpoints that are ahead of a log of the size, all but the one
// that is furthest ahead: the others tell nothing more.
func furthest(kept []tlog.Kept, size int64) (out []tlog.Kept) {
	var ahead *tlog.Kept
	for _, k := range kept {
		switch {
		case k.Size <= size:
			out = append(out, k)
		case ahead == nil || k.Size > ahead.Size:
			ahead = &k
		}
	}
	if ahead != nil {
		out = append(out, *ahead)
	}
	return out
}

// unsound says that an export is not what was logged.
type unsound struct{ msg string }

func (e *unsound) Error() string        { return e.msg }
func (e *unsound) Is(target error) bool { return target == tlog.ErrDamaged }

// foreign says whether an error is of a checkpoint that the log's key did not sign.
func foreign(err error) bool {
	var unsigned *note.UnverifiedNoteError
	var wrong *note.InvalidSignatureError
	return errors.As(err, &unsigned) || errors.As(err, &wrong)
}

// hintLogKey says where the log's key comes from.
const hintLogKey = "the operator gives the log's key (\"portcullisd log-key\" prints it): put it into the configuration as log_key; \"audit verify\" also takes --key"

// logHint says what to try next after an error about the audit log, "" after others.
func logHint(err error) string {
	switch {
	case errors.Is(err, client.ErrLogRewritten):
		return "keep both checkpoints, and tell the agency's auditors: the log is not the one that it was"
	case foreign(err):
		return "is log_key what \"portcullisd log-key\" prints, and \"server\" that service? If both are right, ask the operator whether the log has a new key"
	case errors.Is(err, tlog.ErrDamaged):
		return "tell the operator: \"portcullisd fsck\" looks at the database; keep what you exported before"
	case errors.Is(err, client.ErrNoLogKey):
		return hintLogKey
	}
	return ""
}
