package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/portcullis/portcullis/internal/tlog"
)

// exitFailed is the exit code of a verification that found something, and of what failed.
const exitFailed = 1

// verified is what "audit verify" answers.
type verified struct {
	Sound    bool
	Size     int64
	Kept     int
	Findings []string
}

// log takes the log along and checks it, then lets an attacker rewrite it, twice.
func (d *demo) log(s *scene) {
	s.say("But who says that nobody has rewritten that log? Every entry is a leaf of a Merkle tree, whose root the service signs. The auditor takes all of it along, " +
		"and checks it without the service. It must fit the signed checkpoints that were kept elsewhere, where the service's people can not write: here those that the service ships.")
	shipped, err := os.ReadFile(filepath.Join(d.service, "checkpoints"))
	s.try(err)
	s.try(os.WriteFile(filepath.Join(d.dir, "kept"), shipped, 0o600))
	var took struct {
		Checkpoint struct{ Size int64 }
	}
	s.run(&took, "auditor", "audit", "export", "log")
	s.check(took.Checkpoint.Size > 0, fmt.Sprintf("%d entries, each proved to belong to what the service signed", took.Checkpoint.Size), "the export has no entry")
	var got verified
	s.run(&got, "auditor", "audit", "verify", "log", "--kept", "kept")
	s.check(got.Sound && got.Size == took.Checkpoint.Size && got.Kept > 0, fmt.Sprintf("sound: all %d, and %d checkpoints that were kept elsewhere fit", got.Size, got.Kept),
		fmt.Sprintf("the log must be sound; the answer is %+v", got))

	var release event
	for _, e := range s.events("record.released") {
		release = e // the last
	}
	s.check(release.Event.Record != "", fmt.Sprintf("somebody would rather not have it known that record %s… left (entry %d)", prefix(release.Event.Record), release.Index), "the log tells of no release")
	number, other := []byte(prefix(release.Event.Record)), []byte("00000000")
	s.say("First the auditor's copy is edited: in that one entry the record gets another number.")
	if s.err != nil {
		return
	}
	s.try(os.CopyFS(filepath.Join(d.dir, "log-edited"), os.DirFS(filepath.Join(d.dir, "log"))))
	s.try(editEntry(filepath.Join(d.dir, "log-edited"), release.Index, number, other))
	var found verified
	r := s.notices("audit", "verify", "log-edited")
	s.decode(r, &found)
	s.check(!found.Sound && len(found.Findings) > 0 && strings.Contains(found.Findings[0], fmt.Sprintf("entry %d was changed", release.Index)),
		"found: "+strings.Join(found.Findings, "; "), fmt.Sprintf("the verification must name entry %d; the answer is %+v", release.Index, found))

	if s.err != nil {
		return
	}
	s.say("Then the database itself, behind the daemon's back:")
	s.tell.command(typed("sqlite3", "service/facts.db", fmt.Sprintf("UPDATE events SET body = replace(body, '%s', '%s') WHERE idx = %d", number, other, release.Index)))
	before, err := rewrite(s.ctx, filepath.Join(d.service, "facts.db"), release.Index, number, other)
	s.try(err)
	r = s.notices("audit", "export", "log-again")
	s.check(strings.Contains(r.said, fmt.Sprintf("entry %d was changed", release.Index)), "found: "+r.said,
		fmt.Sprintf("the export must name entry %d; it says %q", release.Index, r.said))
	if s.err != nil {
		return
	}
	_, err = rewrite(s.ctx, filepath.Join(d.service, "facts.db"), release.Index, nil, before)
	s.try(err)
	got = verified{}
	s.run(&got, "auditor", "audit", "verify", "log")
	s.check(got.Sound, "and the export from before still tells what happened", "the export from before must still be sound")
}

// prefix is the first part of a record's number.
func prefix(id string) string { return id[:min(8, len(id))] }

// notices runs a command of the auditor's that must fail because something is wrong with the log.
func (s *scene) notices(args ...string) (r result) {
	if s.err != nil {
		return r
	}
	s.tell.command(typed(append([]string{"portcullis", "--profile", "auditor"}, args...)...))
	r, err := s.call(s.ctx, "auditor", args...)
	s.try(err)
	if s.err == nil && r.code != exitFailed {
		s.fail("this must find that the log was changed, with exit code %d; it ended with %d: %s", exitFailed, r.code, r.said)
	}
	return r
}

// editEntry replaces bytes of one entry of an export by as many others.
func editEntry(export string, index int64, from, to []byte) error {
	bundle, err := tlog.Dir(export).Bundle(index / tlog.TileWidth)
	if err != nil {
		return err
	}
	entries, err := tlog.SplitBundle(bundle)
	if err != nil {
		return err
	}
	if int64(len(entries)) <= index%tlog.TileWidth {
		return fmt.Errorf("the export has no entry %d", index)
	}
	entry := entries[index%tlog.TileWidth] // a part of bundle
	at := bytes.Index(entry, from)
	if at < 0 || len(from) != len(to) {
		return fmt.Errorf("entry %d of the export does not hold %q", index, from)
	}
	copy(entry[at:], to)
	return os.WriteFile(filepath.Join(export, tlog.BundlePath(index/tlog.TileWidth, len(entries))), bundle, 0o600)
}

// rewrite changes the body of an entry in the live database, past the service, and gives what
// it was. Without from, the whole body is replaced.
func rewrite(ctx context.Context, path string, index int64, from, to []byte) (before []byte, err error) {
	db, err := openFacts(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.QueryRowContext(ctx, "SELECT body FROM events WHERE idx = $1", index).Scan(&before); err != nil {
		return nil, fmt.Errorf("rewrite an entry: %w", err)
	}
	after := to
	if from != nil {
		after = bytes.Replace(before, from, to, 1)
	}
	_, err = db.ExecContext(ctx, "UPDATE events SET body = $1 WHERE idx = $2", after, index)
	return before, err
}
