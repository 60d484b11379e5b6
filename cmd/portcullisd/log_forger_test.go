package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portcullis/portcullis/internal/tlog"
	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
)

// treeFindings gives what fsck says of the log's tree.
func (s *service) treeFindings(cfg config) []string {
	s.t.Helper()
	var out bytes.Buffer
	err := fsck(s.t.Context(), cfg, fsckOptions{output: "json"}, &out)
	if err != nil && !errors.Is(err, errDamaged) {
		s.t.Fatal(err)
	}
	var rep struct{ Log logLine }
	noError(s.t, json.Unmarshal(out.Bytes(), &rep))
	if err == nil && len(rep.Log.Findings) > 0 {
		s.t.Errorf("fsck finds %q and takes it for sound", rep.Log.Findings)
	}
	return rep.Log.Findings
}

func (s *service) fsckSays(cfg config, want string) {
	s.t.Helper()
	found := s.treeFindings(cfg)
	if !slices.ContainsFunc(found, func(f string) bool { return strings.Contains(f, want) }) {
		s.t.Errorf("fsck says %q; want %q", found, want)
	}
}

// TestForgedEvents: whoever writes to the database of the running service changes events that
// are in the tree. The next export and fsck name what was done.
func TestForgedEvents(t *testing.T) {
	s := begin(t)
	s.store(s.as(lane), vault.Plate, 300, 300)
	s.grown()
	watcher := s.watching(auditor, filepath.Join(t.TempDir(), "seen"))
	sooner := t.TempDir() // an export from before
	_, err := watcher.ExportLog(t.Context(), sooner, silent)
	noError(t, err)
	s.ddl("CREATE TABLE kept_events AS SELECT * FROM events")
	s.ddl("CREATE TABLE kept_tiles AS SELECT * FROM log_tiles")
	for name, c := range map[string]struct{ change, export, fsck string }{
		"edited":     {`UPDATE events SET body = replace(body, 'lane-1', 'lane-2') WHERE idx = 270`, "entry 270 was changed", ""},
		"dropped":    {"DELETE FROM events WHERE idx = 270", "the service gives event 271 where 270 is due", "entry 270 is missing"},
		"closed up":  {"DELETE FROM events WHERE idx = 270; UPDATE events SET idx = -idx WHERE idx > 270; UPDATE events SET idx = -idx - 1 WHERE idx < 0", "no event from", "entry 270 is missing"},
		"reordered":  {"UPDATE events SET idx = -1 WHERE idx = 270; UPDATE events SET idx = 270 WHERE idx = 271; UPDATE events SET idx = 271 WHERE idx = -1", "entry 27", ""},
		"duplicated": {"UPDATE events SET body = (SELECT body FROM events WHERE idx = 269) WHERE idx = 270", "entry 270 was replaced by entry 269", ""},
		"inserted": {"UPDATE events SET idx = -idx - 1 WHERE idx >= 100; UPDATE events SET idx = -idx WHERE idx < 0; INSERT INTO events SELECT 100, type, replace(body, 'lane-1', 'lane-2') FROM events WHERE idx = 5",
			"an entry was put in before entry 100", ""},
		"tile": {"UPDATE log_tiles SET hashes = zeroblob(length(hashes)) WHERE level = 0 AND idx = 0", "", "tile/0/000 is damaged"},
		"event and tile": {"UPDATE events SET body = body || ' ' WHERE idx = 7; UPDATE log_tiles SET hashes = zeroblob(length(hashes)) WHERE level = 0 AND idx = 0",
			"do not fit the checkpoint", "do not add up to the checkpoint's root"},
	} {
		t.Run(name, func(t *testing.T) {
			s := s.within(t)
			s.sql(c.change)
			defer func() {
				s.sql("DELETE FROM events")
				s.sql("INSERT INTO events SELECT * FROM kept_events")
				s.sql("DELETE FROM log_tiles")
				s.sql("INSERT INTO log_tiles SELECT * FROM kept_tiles")
			}()
			dir := t.TempDir()
			_, err := watcher.ExportLog(t.Context(), dir, silent)
			if c.export != "" {
				mustSay(t, "export", err, c.export)
				if !errors.Is(err, tlog.ErrDamaged) && vault.KindOf(err) != vault.DataLoss {
					t.Errorf("it is not told as damage: %v", err)
				}
			} else {
				noError(t, err) // an export makes its own tiles; whoever asks for the service's learns it:
				_, _, err = watcher.ProveEvent(t.Context(), 3)
				if vault.KindOf(err) != vault.DataLoss {
					t.Errorf("a proof out of a forged tile: %v", err)
				}
			}
			if c.fsck == "" {
				c.fsck = c.export
			}
			s.fsckSays(s.cfg, c.fsck)
			// What an auditor has already stays as it was.
			s.sound(sooner, nil)
		})
	}
	if found := s.treeFindings(s.cfg); len(found) > 0 {
		t.Errorf("after all was put back: %q", found)
	}
	if _, err := watcher.ExportLog(t.Context(), t.TempDir(), silent); err != nil {
		t.Errorf("after all was put back: %v", err)
	}
}

// TestForgedTree: the tree of a running service is put back to an older checkpoint, and its
// edge is changed while the service stands. The leader signs nothing on top of it, releases
// stop, and who remembers is told.
func TestForgedTree(t *testing.T) {
	s := begin(t)
	p := purpose()
	s.admit(p, devOrg)
	s.store(s.as(lane), vault.Plate, 3, 300)
	s.grown()
	c := s.as(matcher)
	grant, token := s.granted(c, p, 100)
	handles := s.handles(c, grant, token)
	older, signed := s.checkpoint()
	s.store(s.as(lane), vault.Plate, 3, 300)
	s.grown()
	memory := filepath.Join(t.TempDir(), "seen")
	watcher := s.watching(auditor, memory)
	newer, err := watcher.Checkpoint(t.Context())
	noError(t, err)

	s.sql("UPDATE log_tree SET size = $1, checkpoint = $2", older.Size, signed)
	_, err = watcher.Checkpoint(t.Context())
	s.rewritten(err, memory, newer.Size, older.Size)
	wait(t, "the leader says so", func() bool {
		return strings.Contains(s.logs.String(), "the log was rewritten: the database's tree has")
	})
	noError(t, s.Close())
	s.cfg.Audit.MaxLag = time.Second
	s.serve()
	s.stops(vault.ReasonLogRolledBack, grant, token, handles[0])
	s.fsckSays(s.cfg, "the log was rolled back")

	// It is as it was again: releases go on by themselves.
	s.sql("UPDATE log_tree SET size = $1, checkpoint = $2", newer.Size, newer.Signed)
	s.goesOn(grant, token, handles[0])
	s.grown()
	noError(t, s.Close())
	s.ddl("CREATE TABLE kept_tiles AS SELECT * FROM log_tiles")
	s.sql("UPDATE log_tiles SET hashes = zeroblob(length(hashes)) WHERE level = 0 AND idx = 0")
	s.serve()
	s.stops(vault.ReasonLogRolledBack, grant, token, handles[0])
	if !strings.Contains(s.logs.String(), "the log is damaged: the last tiles do not add up to the root of the checkpoint") {
		t.Error("the daemon does not say what is wrong")
	}
	s.fsckSays(s.cfg, "tile/0/000")
	s.sql("UPDATE log_tiles SET hashes = (SELECT hashes FROM kept_tiles k WHERE k.level = log_tiles.level AND k.idx = log_tiles.idx)")
	s.goesOn(grant, token, handles[0])
}

// rewritten says that err tells of a rewritten log, and that both checkpoints are kept.
func (s *service) rewritten(err error, memory string, was, is int64) {
	s.t.Helper()
	if !errors.Is(err, client.ErrLogRewritten) {
		s.t.Fatalf("not told of a rewritten log: %v", err)
	}
	mustSay(s.t, "a rewritten log", err, fmt.Sprintf("the log was rewritten: a checkpoint of %d entries was seen before, now one of %d comes that does not fit it; both are kept: %s and %s",
		was, is, memory, memory+".conflict"))
	for file, size := range map[string]int64{memory: was, memory + ".conflict": is} {
		signed, err := os.ReadFile(file)
		noError(s.t, err)
		if got := s.opened(signed); got.Size != size {
			s.t.Errorf("%s keeps a checkpoint of %d entries, not of %d", file, got.Size, size)
		}
	}
}

// fetch asks for one image once, without patience, and counts what came.
func (s *service) fetch(grant string, token vault.Token, handle string) (came int, err error) {
	s.t.Helper()
	cfg := s.config(matcher)
	cfg.Patience = -1
	c, err := client.Dial(cfg)
	noError(s.t, err)
	defer c.Close()
	err = c.Fetch(s.t.Context(), grant, token, []string{handle}, func(*pb.Image) error { came++; return nil })
	return came, err
}

// stops waits until nothing is released any more, for the reason given; then nothing leaves, and
// nothing is counted.
func (s *service) stops(why vault.Reason, grant string, token vault.Token, handle string) {
	s.t.Helper()
	left := 0
	defer func() { s.t.Logf("%d images left before releases stopped", left) }()
	wait(s.t, "releases stop", func() bool {
		came, err := s.fetch(grant, token, handle)
		left += came
		return vault.ReasonOf(err) == why
	})
	before := len(s.events(string(vault.EventRecordReleased)))
	for range 3 {
		came, err := s.fetch(grant, token, handle)
		refused(s.t, err, why)
		if came > 0 || vault.KindOf(err) != vault.Unavailable {
			s.t.Errorf("%d images came, with %v", came, err)
		}
	}
	if after := len(s.events(string(vault.EventRecordReleased))); after != before {
		s.t.Errorf("%d releases were recorded", after-before)
	}
}

// goesOn waits until an image leaves.
func (s *service) goesOn(grant string, token vault.Token, handle string) {
	s.t.Helper()
	wait(s.t, "releases go on", func() bool {
		came, err := s.fetch(grant, token, handle)
		return err == nil && came == 1
	})
}

// thief is somebody who has a copy of the database from before, the signing key, and whatever
// else the service keeps.
type thief struct {
	*service
	older     []byte // the database
	mark      []byte // what is remembered beside the ciphertext, as old
	vaultMark string // the newest

	grant  string
	token  vault.Token
	handle string

	was           tlog.Checkpoint // that others remember:
	seen          string          // of an auditor
	asked         string          // of the contractor
	export        string          // of the auditor
	shippedBefore []byte          // a copy of the shipped file,
	afterwards    []tlog.Kept     // and what is in it
}

// beginThief has a copy taken, the log go on, and others remember it.
func beginThief(t *testing.T) *thief {
	t.Helper()
	s := &thief{service: begin(t, func(c *config) { c.Audit.MaxLag = time.Second })}
	s.seen, s.asked, s.export = filepath.Join(t.TempDir(), "auditor"), filepath.Join(t.TempDir(), "contractor"), t.TempDir()
	p := purpose()
	s.admit(p, devOrg)
	s.store(s.as(lane), vault.Plate, 3, 300)
	s.grown()
	c := s.watching(matcher, s.asked)
	s.grant, s.token = s.granted(c, p, 100)
	s.handle = s.handles(c, s.grant, s.token)[0]
	s.grown()
	s.restart()
	noError(t, s.Close())
	if _, err := os.Stat(s.cfg.Store.Path + "-wal"); err == nil {
		t.Fatal("somebody has the database open: its file is no copy of it")
	}
	var err error
	s.older, err = os.ReadFile(s.cfg.Store.Path)
	noError(t, err)
	s.mark, err = os.ReadFile(filepath.Join(s.cfg.Blobs.Path, markFile))
	noError(t, err)
	s.serve()
	s.store(s.as(lane), vault.Plate, 5, 300)
	c = s.watching(matcher, s.asked)
	wait(t, "the contractor gets an image", func() bool {
		return c.Fetch(t.Context(), s.grant, s.token, []string{s.handle}, func(*pb.Image) error { return nil }) == nil
	})
	s.grown()
	_, err = s.watching(auditor, s.seen).ExportLog(t.Context(), s.export, silent)
	noError(t, err)
	_, err = s.watching(matcher, s.asked).Checkpoint(t.Context())
	noError(t, err)
	s.was, _ = s.checkpoint()
	s.restart()
	noError(t, s.Close())
	s.afterwards = s.shipped()
	s.shippedBefore, err = os.ReadFile(s.cfg.Audit.Ship)
	noError(t, err)
	if last := s.afterwards[len(s.afterwards)-1]; last.Size < s.was.Size {
		t.Fatalf("only %d events were shipped, %d were seen", last.Size, s.was.Size)
	}
	db := openSQL(t, s.cfg.Store.Path)
	noError(t, db.QueryRowContext(t.Context(), "SELECT mark FROM vault_mark").Scan(&s.vaultMark))
	noError(t, db.Close())
	return s
}

func listHandles(t *testing.T, c *client.Client, grant string, token vault.Token) (handles []string, err error) {
	err = c.Records(t.Context(), grant, token, func(r *pb.RecordView) error { handles = append(handles, r.Handle); return nil })
	return handles, err
}

// rollBack puts the copy in place of the database, and has Vault's mark and what is remembered
// beside the ciphertext fit it.
func (s *thief) rollBack() {
	s.t.Helper()
	noError(s.t, os.WriteFile(s.cfg.Store.Path, s.older, 0o600))
	s.sql("UPDATE vault_mark SET mark = $1, good_until = 0", s.vaultMark)
	noError(s.t, os.WriteFile(filepath.Join(s.cfg.Blobs.Path, markFile), s.mark, 0o600))
}

// TestRolledBackLog: an older copy of the database is put in place, and whatever else the thief
// could reach fits it. Who remembers is told; the leader signs nothing on top.
func TestRolledBackLog(t *testing.T) {
	s := beginThief(t)
	s.rollBack()
	s.serve()
	wait(t, "the leader says so", func() bool {
		return strings.Contains(s.logs.String(), "the log was rewritten: the database's tree has")
	})
	is, _ := s.checkpoint()
	if is.Size >= s.was.Size {
		t.Fatalf("nothing was rolled back: %d entries, %d before", is.Size, s.was.Size)
	}
	_, err := s.watching(auditor, s.seen).ExportLog(t.Context(), s.export, silent)
	s.rewritten(err, s.seen, s.was.Size, is.Size)
	_, err = s.watching(auditor, "").ExportLog(t.Context(), s.export, silent) // the export alone remembers, too
	mustSay(t, "export", err, "it was rolled back")
	_, err = s.watching(matcher, s.asked).Checkpoint(t.Context())
	s.rewritten(err, s.asked, s.was.Size, is.Size)
	s.fsckSays(s.cfg, "the log was rolled back")
	s.stops(vault.ReasonLogRolledBack, s.grant, s.token, s.handle)
	wait(t, "health tells", func() bool { return !s.serves(releaseName) && s.serves(adminName) })
	if now, _ := s.checkpoint(); now != is {
		t.Errorf("%+v was signed on top of what was rolled back", now)
	}
	s.sound(s.export, slices.DeleteFunc(s.afterwards, func(k tlog.Kept) bool { return k.Size > s.was.Size }))
}

// TestForkedLog: a thief with the signing key goes on from an older copy of the database, with
// other events, and removes the checkpoints that were shipped. The new history is sound in
// itself, so that whoever remembers nothing believes it: that is the limit of what a log can
// show. Everyone who kept a checkpoint is told.
func TestForkedLog(t *testing.T) {
	s := beginThief(t)
	s.rollBack()
	noError(t, os.Remove(s.cfg.Audit.Ship))
	s.serve()
	s.store(s.as(lane), vault.Plate, int(s.was.Size), 300)
	size := s.grown()
	if size <= s.was.Size {
		t.Fatalf("the fork has %d entries, the log had %d", size, s.was.Size)
	}
	// Who remembers nothing sees a log without a fault.
	dir := t.TempDir()
	if at, err := s.watching(auditor, "").ExportLog(t.Context(), dir, silent); err != nil || at.Size < size {
		t.Errorf("%+v, %v", at, err)
	}
	noError(t, outsideTool(t)(dir, s.logKey()))
	if found := s.treeFindings(s.cfg); len(found) > 0 {
		t.Errorf("fsck without the shipped checkpoints finds %q", found)
	}

	_, err := s.watching(auditor, s.seen).ExportLog(t.Context(), s.export, silent)
	now, _ := s.checkpoint()
	s.rewritten(err, s.seen, s.was.Size, now.Size)
	_, err = s.watching(auditor, "").ExportLog(t.Context(), s.export, silent)
	mustSay(t, "an export from before", err, "the log was rewritten: the export of")
	// The contractor is told with the page of handles, and with what it fetches.
	c := s.watching(matcher, s.asked)
	_, err = listHandles(t, c, s.grant, s.token)
	if !errors.Is(err, client.ErrLogRewritten) {
		t.Errorf("listing: %v", err)
	}
	err = c.Fetch(t.Context(), s.grant, s.token, []string{s.handle}, func(*pb.Image) error { return nil })
	if !errors.Is(err, client.ErrLogRewritten) {
		t.Errorf("fetching: %v", err)
	}
	conflict, rerr := os.ReadFile(s.asked + ".conflict")
	noError(t, rerr)
	s.rewritten(err, s.asked, s.was.Size, s.opened(conflict).Size)
	key, err := tlog.ParseKey(s.logKey())
	noError(t, err)
	v, err := tlog.Dir(dir).Verify(t.Context(), key, []tlog.Kept{{Checkpoint: s.was, Where: "the contractor"}}, silent)
	if err != nil || len(v.Findings) != 1 || !strings.Contains(v.Findings[0], "the log was rewritten: its first") {
		t.Errorf("the fork against a kept checkpoint: %q, %v", v.Findings, err)
	}

	// A copy of the shipped file, from where the thief did not reach, tells the operator.
	noError(t, s.Close())
	s.cfg.Audit.Ship = filepath.Join(t.TempDir(), "shipped")
	noError(t, os.WriteFile(s.cfg.Audit.Ship, s.shippedBefore, 0o600))
	s.fsckSays(s.cfg, "the log was rewritten: its first")
	s.serve()
	s.stops(vault.ReasonLogRolledBack, s.grant, s.token, s.handle)
	if !strings.Contains(s.logs.String(), "the log was rewritten: the log is damaged: the log of size") {
		t.Error("the leader does not say so")
	}
}
