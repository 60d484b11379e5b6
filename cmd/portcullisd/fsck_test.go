package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portcullis/portcullis/internal/blob"
	"github.com/portcullis/portcullis/internal/store"
	"github.com/portcullis/portcullis/internal/tlog"
	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
)

// fsckReport is the JSON of fsck.
type fsckReport struct {
	Sound   bool
	Repair  breach.Reconciled
	Orphans []orphanLine
	breach.Report
}

func (s *service) fsck(o fsckOptions) (fsckReport, error) {
	s.t.Helper()
	var out, table bytes.Buffer
	o.output = "json"
	err := fsck(s.t.Context(), s.cfg, o, &out)
	var rep fsckReport
	if out.Len() > 0 {
		noError(s.t, json.Unmarshal(out.Bytes(), &rep))
		if (err == nil && !rep.Sound) || (errors.Is(err, errDamaged) && rep.Sound) {
			s.t.Fatalf("sound is %v and the error %v", rep.Sound, err)
		}
		noError(s.t, printFsck(&table, "table", nil, &rep.Report, tlog.Verified{}))
		for f := range rep.Faults {
			if !strings.Contains(table.String(), string(f)) {
				s.t.Errorf("the table does not tell of %s:\n%s", f, &table)
			}
		}
	}
	return rep, err
}

// repair is fsck --repair without a grace.
func (s *service) repair(keep time.Duration) fsckReport {
	s.t.Helper()
	rep, err := s.fsck(fsckOptions{repair: true, keep: keep})
	noError(s.t, err)
	return rep
}

// orphanKey makes a key at Vault past the service, and gives its name and a ciphertext.
func (s *service) orphanKey(id vault.ID) (name, sealed string) {
	s.t.Helper()
	name = devSite + ".plate.20260101." + id.String()
	return name, s.makeKey(name)
}

func (s *service) makeKey(name string) string {
	s.t.Helper()
	status, got := s.atVault("PUT", "portcullis/encrypt/"+name, s.vault.RootToken(),
		map[string]string{"plaintext": base64.StdEncoding.EncodeToString(make([]byte, 32))})
	if status != 200 {
		s.t.Fatal(status, got)
	}
	return got["data"].(map[string]any)["ciphertext"].(string)
}

// opens says whether Vault's most powerful token opens what the key sealed.
func (s *service) opens(name, sealed string) bool {
	s.t.Helper()
	status, _ := s.atVault("PUT", "portcullis/decrypt/"+name, s.vault.RootToken(), map[string]string{"ciphertext": sealed})
	return status == 200
}

func (s *service) blobs() *blob.Dir {
	s.t.Helper()
	d, err := blob.OpenInUse(s.cfg.Blobs.Path)
	noError(s.t, err)
	return d
}

// row takes a record's row away, and gives what puts it back.
func (s *service) row(record string) (back func()) {
	s.t.Helper()
	_, err := openSQL(s.t, s.cfg.Store.Path).ExecContext(s.t.Context(), "CREATE TABLE IF NOT EXISTS kept AS SELECT * FROM records WHERE FALSE")
	noError(s.t, err)
	s.sql("INSERT INTO kept SELECT * FROM records WHERE id = $1", record)
	s.sql("DELETE FROM records WHERE id = $1", record)
	return func() { s.sql("INSERT INTO records SELECT * FROM kept WHERE id = $1", record) }
}

func TestReconcile(t *testing.T) {
	s := begin(t)
	p := purpose()
	s.admit(p, devOrg)
	records := s.store(s.as(lane), vault.Plate, 3, 2000)
	contractor := s.as(matcher)
	grant, token := s.granted(contractor, p, 100)
	opened := func() (n int) {
		for _, h := range s.handles(contractor, grant, token) {
			if contractor.Fetch(t.Context(), grant, token, []string{h}, func(*pb.Image) error { return nil }) == nil {
				n++
			}
		}
		return n
	}
	orphan, stray := vault.NewID(), vault.NewID()
	name, sealed := s.orphanKey(orphan)
	s.makeKey("not-ours")
	noError(t, s.blobs().Put(t.Context(), stray, []byte("sealed")))

	// Young ones may be under way: they are left alone.
	rep, err := s.fsck(fsckOptions{repair: true, grace: time.Hour, keep: time.Hour})
	noError(t, err)
	if rep.Repair.Young != 2 || rep.Repair.Quarantined != 0 || rep.Keyless != 1 || rep.Blobless != 1 || rep.Foreign != 1 || !s.opens(name, sealed) {
		t.Fatalf("got %+v", rep)
	}
	// Older ones go into quarantine: nothing opens them, and nothing is lost.
	if rep = s.repair(time.Hour); rep.Repair.Quarantined != 2 || rep.Aside != 2 || rep.Keyless+rep.Blobless != 0 || s.opens(name, sealed) {
		t.Fatalf("got %+v", rep)
	}
	if _, err := s.blobs().Get(t.Context(), stray); vault.KindOf(err) != vault.NotFound {
		t.Fatal(err)
	}
	if rep = s.repair(time.Hour); rep.Repair.Quarantined != 0 || rep.Repair.Waiting != 2 || len(s.events("orphans.quarantined")) != 1 {
		t.Fatalf("a second run: %+v", rep)
	}
	for _, id := range []vault.ID{orphan, stray} {
		// A store that took so long can not be acknowledged any more.
		_, err := s.daemon.store.Update(t.Context(), func(tx *store.Tx) error { return tx.AddRecord(vault.Record{ID: id}) })
		refused(t, err, vault.ReasonStoreOvertaken)
	}

	// A record that turns up again takes back what is its own.
	back := s.row(id(records[0]))
	rep, err = s.fsck(fsckOptions{repair: true, keep: time.Hour})
	if !errors.Is(err, errDamaged) || rep.Faults[breach.FaultRecordMissing] != 1 || rep.Repair.Quarantined != 1 || opened() != 2 {
		t.Fatalf("%v, %+v", err, rep)
	}
	back()
	rep, err = s.fsck(fsckOptions{})
	if !errors.Is(err, errDamaged) || rep.Faults[breach.FaultBlobMissing] != 1 || rep.Faults[breach.FaultKeyShut] != 1 || opened() != 2 {
		t.Fatalf("%v, %+v", err, rep)
	}
	if rep = s.repair(time.Hour); rep.Repair.Returned != 1 || rep.Aside != 2 || opened() != 3 {
		t.Fatalf("%d open, %+v", opened(), rep)
	}
	// Also when the database that came back knows of no quarantine.
	back = s.row(id(records[1]))
	_, err = s.fsck(fsckOptions{repair: true, keep: time.Hour})
	if !errors.Is(err, errDamaged) || opened() != 2 {
		t.Fatal(err)
	}
	back()
	s.sql("DELETE FROM quarantine WHERE record_id = $1", id(records[1]))
	if rep = s.repair(time.Hour); rep.Repair.Returned != 1 || opened() != 3 {
		t.Fatalf("%d open, %+v", opened(), rep)
	}

	// Whoever writes to the database alone has no key opened that admins revoked.
	_, err = s.as(alice).Admin.RevokeKeys(t.Context(), &pb.RevokeKeysRequest{Selection: &pb.Selection{Record: records[2]}})
	noError(t, err)
	back = s.row(id(records[2]))
	_, err = s.fsck(fsckOptions{repair: true, keep: time.Hour})
	if !errors.Is(err, errDamaged) {
		t.Fatal(err)
	}
	back()
	s.sql("UPDATE records SET key_state = 'active' WHERE id = $1", id(records[2]))
	rep, err = s.fsck(fsckOptions{repair: true, keep: time.Hour})
	if err != nil || rep.Repair.Returned != 1 || rep.Repair.Undone != 1 || opened() != 2 { // the row is what the log says again
		t.Fatalf("%v, %+v", err, rep)
	}

	// What was aside for long enough is destroyed.
	if rep = s.repair(0); rep.Repair.Destroyed != 2 || rep.Repair.Waiting != 0 || rep.Aside != 0 || opened() != 2 {
		t.Fatalf("%d open, %+v", opened(), rep)
	}
	if status, _ := s.atVault("GET", "portcullis/keys/"+name, s.vault.RootToken(), nil); status != 404 {
		t.Fatalf("Vault answers %d for a destroyed key", status)
	}
	left, err := os.ReadDir(filepath.Join(s.cfg.Blobs.Path, "quarantine"))
	if err != nil || len(left) > 0 {
		t.Fatal(left, err)
	}
	if n, m := len(s.events("orphans.returned")), len(s.events("orphans.destroyed")); n != 3 || m != 1 {
		t.Fatalf("%d events of returns and %d of destructions", n, m)
	}
}

// TestAnOlderDatabaseDestroysNothing: by its lights the newer records' keys are orphans.
func TestAnOlderDatabaseDestroysNothing(t *testing.T) {
	s := begin(t)
	s.store(s.as(lane), vault.Plate, 2, 2000)
	noError(t, s.Close())
	older, err := os.ReadFile(s.cfg.Store.Path)
	noError(t, err)
	s.serve()
	s.store(s.as(lane), vault.Plate, 3, 2000)
	if rep := s.repair(0); rep.Records != 5 {
		t.Fatalf("got %+v", rep)
	}
	noError(t, s.Close())
	newer, err := os.ReadFile(s.cfg.Store.Path)
	noError(t, err)
	_, keys := s.atVault("LIST", "portcullis/keys", s.vault.RootToken(), nil)
	refuses := func(what string) {
		t.Helper()
		rep, err := s.fsck(fsckOptions{repair: true})
		refused(t, err, vault.ReasonLogRolledBack)
		if rep.Repair.Quarantined+rep.Repair.Waiting > 0 || rep.Faults[breach.FaultLogRolledBack] != 1 {
			t.Fatalf("%s: %+v", what, rep)
		}
		_, now := s.atVault("LIST", "portcullis/keys", s.vault.RootToken(), nil)
		if len(keyList(t, now)) != len(keyList(t, keys)) || rep.Blobless == 0 {
			t.Fatalf("%s: keys are gone", what)
		}
	}
	noError(t, os.WriteFile(s.cfg.Store.Path, older, 0o600))
	refuses("shorter")
	// Its log grows again, past the length that is remembered: it is another log all the same.
	s.serve()
	s.store(s.as(lane), vault.Plate, 5, 2000)
	noError(t, s.Close())
	_, keys = s.atVault("LIST", "portcullis/keys", s.vault.RootToken(), nil)
	refuses("longer, another")
	wait(t, "the daemon says so", func() bool { return strings.Contains(s.logs.String(), "log-remembered") })
	noError(t, os.WriteFile(s.cfg.Store.Path, newer, 0o600))
	if rep, err := s.fsck(fsckOptions{}); err != nil || rep.Records != 5 || rep.Blobless != 5 {
		t.Fatalf("%v, %+v", err, rep)
	}
	s.serve() // the clean-up closes it
}

// TestARestoredVaultOpensNothing: keys that were revoked or destroyed are so again.
func TestARestoredVaultOpensNothing(t *testing.T) {
	s := begin(t)
	records := s.store(s.as(lane), vault.Plate, 2, 2000)
	_, err := s.as(alice).Admin.RevokeKeys(t.Context(), &pb.RevokeKeysRequest{Selection: &pb.Selection{Record: records[0]}})
	noError(t, err)
	for _, admin := range []string{alice, bob} {
		_, err := s.as(admin).DestroyKeys(t.Context(), vault.Selection{Record: parseID(t, records[1])}, func(*pb.Decision) error { return nil })
		noError(t, err)
	}
	names := map[string]string{}
	for _, e := range s.events("record.stored") {
		names[e.Stored.Record] = e.Stored.KeyName
	}
	if rep := s.repair(time.Hour); rep.Repair.Undone != 0 || rep.Active != 0 {
		t.Fatalf("got %+v", rep)
	}
	status, got := s.atVault("POST", "portcullis/keys/"+names[id(records[0])]+"/config", s.vault.RootToken(), map[string]any{"min_decryption_version": 1})
	if status >= 300 {
		t.Fatal(status, got)
	}
	s.makeKey(names[id(records[1])])
	rep, err := s.fsck(fsckOptions{})
	if !errors.Is(err, errDamaged) || rep.Faults[breach.FaultKeyOpen] != 1 || rep.Faults[breach.FaultKeyLeft] != 1 || len(rep.Faults) != 2 {
		t.Fatalf("%v, %+v", err, rep)
	}
	if rep := s.repair(time.Hour); rep.Repair.Undone != 2 || len(s.events("restore.undone")) != 2 {
		t.Fatalf("got %+v", rep)
	}
}

func TestFsckFindsDamage(t *testing.T) {
	s := begin(t)
	records := s.store(s.as(lane), vault.Plate, 2, 2000)
	a := id(records[0])
	path := filepath.Join(s.cfg.Blobs.Path, a[:2], a)
	sealed, err := os.ReadFile(path)
	noError(t, err)
	var key string
	last := int64(0)
	for _, e := range s.events("record.stored") {
		if e.Stored.Record == a {
			key, last = e.Stored.KeyName, e.index
		}
	}
	body := func(change func(string) string) (undo func()) {
		var was []byte
		noError(t, openSQL(t, s.cfg.Store.Path).QueryRowContext(t.Context(), "SELECT body FROM events WHERE idx = $1", last).Scan(&was))
		s.sql("UPDATE events SET body = $1 WHERE idx = $2", []byte(change(string(was))), last)
		return func() { s.sql("UPDATE events SET body = $1 WHERE idx = $2", was, last) }
	}
	atKey := func(path string, in any) {
		t.Helper()
		if status, got := s.atVault("POST", "portcullis/keys/"+key+path, s.vault.RootToken(), in); status >= 300 {
			t.Fatal(status, got)
		}
	}
	whole := func() { noError(t, os.WriteFile(path, sealed, 0o600)) }
	for _, c := range []struct {
		want breach.Fault
		do   func() (undo func())
	}{
		{breach.FaultBlobMissing, func() func() { noError(t, os.Remove(path)); return whole }},
		{breach.FaultBlobChanged, func() func() {
			bad := bytes.Clone(sealed)
			bad[len(bad)/2] ^= 1
			noError(t, os.WriteFile(path, bad, 0o600))
			return whole
		}},
		{breach.FaultKeyShut, func() func() {
			atKey("/rotate", nil)
			atKey("/config", map[string]any{"min_decryption_version": 2})
			return func() { atKey("/config", map[string]any{"min_decryption_version": 1}) }
		}},
		{breach.FaultWrappedKey, func() func() {
			var was string
			noError(t, openSQL(t, s.cfg.Store.Path).QueryRowContext(t.Context(), "SELECT wrapped_key FROM records WHERE id = $1", a).Scan(&was))
			s.sql("UPDATE records SET wrapped_key = '' WHERE id = $1", a)
			return func() { s.sql("UPDATE records SET wrapped_key = $1 WHERE id = $2", was, a) }
		}},
		{breach.FaultRecordMissing, func() func() { return s.row(a) }},
		{breach.FaultEventDiffers, func() func() {
			s.sql("UPDATE records SET lane = 'lane-2' WHERE id = $1", a)
			return func() { s.sql("UPDATE records SET lane = 'lane-1' WHERE id = $1", a) }
		}},
		{breach.FaultEventDiffers, func() func() {
			s.sql("UPDATE records SET class = 'us-citizen' WHERE id = $1", a)
			return func() { s.sql("UPDATE records SET class = 'standard' WHERE id = $1", a) }
		}},
		{breach.FaultEventMissing, func() func() {
			return body(func(e string) string { return strings.Replace(e, "record.stored", "vault.caught_up", 1) })
		}},
		{breach.FaultEventTwice, func() func() {
			return body(func(e string) string { return strings.Replace(e, a, id(records[1]), 1) })
		}},
		{breach.FaultLogDamaged, func() func() { return body(func(e string) string { return e[1:] }) }},
		{breach.FaultKeyMissing, func() func() { // last: nobody undoes it
			atKey("/config", map[string]any{"deletion_allowed": true})
			s.atVault("DELETE", "portcullis/keys/"+key, s.vault.RootToken(), nil)
			return func() {}
		}},
	} {
		rep, err := s.fsck(fsckOptions{})
		if err != nil {
			t.Fatalf("before %s: %v, %+v", c.want, err, rep)
		}
		undo := c.do()
		rep, err = s.fsck(fsckOptions{})
		if !errors.Is(err, errDamaged) || rep.Faults[c.want] != 1 {
			t.Errorf("%s: %v, %+v", c.want, err, rep.Faults)
		}
		undo()
	}
	s.cfg.Store.Path += ".none"
	if _, err := s.fsck(fsckOptions{}); err == nil {
		t.Error("a database that is absent is checked")
	}
}

func TestRepairIsPatient(t *testing.T) {
	s := begin(t)
	text, err := s.cfg.yaml()
	noError(t, err)
	file := filepath.Join(t.TempDir(), "portcullisd.yaml")
	noError(t, os.WriteFile(file, text, 0o600))
	for _, args := range [][]string{{"--grace", "9m"}, {"--keep", "23h"}, {"--grace", "0s", "--keep", "0s"}} {
		cmd := fsckCommand(io.Discard)
		cmd.SetArgs(append([]string{"--config", file, "--repair"}, args...))
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "10m") {
			t.Errorf("%q: %v", args, err)
		}
	}
	cmd := fsckCommand(io.Discard)
	cmd.SetArgs([]string{"--config", file, "--repair", "--grace", "10m", "--keep", "24h"})
	noError(t, cmd.ExecuteContext(t.Context()))
}
