package main

import (
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis/portcullis/internal/crashfs"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
)

// TestDatabaseOnASickDisk: the disk under the database is full, read-only, broken or slow.
// Nothing leaves whose event could not be made durable; once the disk is well, all goes on.
func TestDatabaseOnASickDisk(t *testing.T) {
	dir, remove := crashfs.Scratch(t)
	t.Cleanup(remove)
	trace := crashfs.NewTrace()
	noError(t, trace.Mkdir("/db"))
	noError(t, trace.SyncDir("/"))
	disk, stop := crashfs.Watch(dir, trace, "/db")
	t.Cleanup(stop)
	o := beginOpen(t, func(c *config) { c.Store.Path = dir + "/facts.db" })
	writes := map[string]bool{"pwrite": true, "ftruncate": true, "fsync": true, "unlink": true}
	refusing := func(errno syscall.Errno) func(crashfs.Call) crashfs.Fault {
		return func(c crashfs.Call) crashfs.Fault {
			if writes[c.Op] {
				return crashfs.Fault{Errno: errno}
			}
			return crashfs.Fault{}
		}
	}
	for name, ill := range map[string]func(crashfs.Call) crashfs.Fault{
		"full": refusing(syscall.ENOSPC), "read-only": refusing(syscall.EROFS), "broken": refusing(syscall.EIO),
		"not synced": func(c crashfs.Call) crashfs.Fault {
			if c.Op == "fsync" {
				return crashfs.Fault{Errno: syscall.EIO}
			}
			return crashfs.Fault{}
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := o.within(t)
			o.goesOn(o.grant, o.token, o.handles[0])
			failed := atomic.Int64{}
			disk.Fail(func(c crashfs.Call) crashfs.Fault {
				f := ill(c)
				if f.Errno != 0 {
					failed.Add(1)
				}
				return f
			})
			reasons := map[vault.Reason]int{}
			for start := time.Now(); time.Since(start) < 2*time.Second; {
				came, err := o.fetch(o.grant, o.token, o.handles[1])
				if vault.KindOf(err) != vault.Unavailable || came != 0 {
					t.Errorf("%d images came, with %v", came, err)
					break
				}
				reasons[vault.ReasonOf(err)]++
			}
			wait(t, "health tells", func() bool { return !o.healthy(releaseName) })
			disk.Fail(nil)
			if failed.Load() == 0 {
				t.Error("no call failed: no test")
			}
			o.goesOn(o.grant, o.token, o.handles[1])
			wait(t, "all serves again", func() bool { return o.healthy(releaseName) && o.healthy("") })
			t.Logf("%d calls failed; refused for %v", failed.Load(), reasons)
		})
	}
	t.Run("slow", func(t *testing.T) {
		o := o.within(t)
		o.goesOn(o.grant, o.token, o.handles[0])
		before := o.released()
		disk.Fail(func(c crashfs.Call) crashfs.Fault {
			if c.Op == "fsync" {
				time.Sleep(1500 * time.Millisecond) // longer than the log may be behind
			}
			return crashfs.Fault{}
		})
		came, refusals, reasons := 0, 0, map[vault.Reason]int{}
		for start := time.Now(); refusals < 3 && time.Since(start) < time.Minute; {
			n, err := o.fetch(o.grant, o.token, o.handles[1])
			came += n
			if n > 0 && err == nil {
				continue
			}
			if vault.KindOf(err) != vault.Unavailable || n > 0 {
				t.Fatalf("%d images came, with %v", n, err)
			}
			reasons[vault.ReasonOf(err)]++
			refusals++
		}
		if refusals < 3 {
			t.Error("a disk that is slower than the log may be behind stops nothing")
		}
		disk.Fail(nil)
		if n := o.released() - before; n < came {
			t.Errorf("%d images came, %d releases are recorded", came, n)
		}
		o.goesOn(o.grant, o.token, o.handles[1])
		wait(t, "all serves again", func() bool { return o.healthy(releaseName) && o.healthy("") })
		t.Logf("%d images came, refused for %v", came, reasons)
	})
	o.grown()
	if found := o.treeFindings(o.cfg); len(found) > 0 {
		t.Errorf("fsck finds %q", found)
	}
	export := t.TempDir()
	if _, err := o.watching(auditor, "").ExportLog(t.Context(), export, silent); err != nil {
		t.Error(err)
	}
	o.sound(export, o.shipped())
}

// TestDiskThatTakesNothing: the system refuses the daemon, a process of its own, every byte that
// it writes to a file (RLIMIT_FSIZE, for which no disk must be full). Nothing leaves, and
// nothing is stored; once the disk takes bytes again all goes on, in the same process.
func TestDiskThatTakesNothing(t *testing.T) {
	k := beginKillable(t)
	k.run()
	o := &open{service: k.service}
	o.prepare()
	o.look()
	pid := k.child.Process.Pid
	limit := func(bytes uint64) {
		t.Helper()
		var is unix.Rlimit
		noError(t, unix.Prlimit(pid, unix.RLIMIT_FSIZE, nil, &is))
		is.Cur = min(bytes, is.Max)
		noError(t, unix.Prlimit(pid, unix.RLIMIT_FSIZE, &is, nil))
	}
	for round := range 2 {
		o.goesOn(o.grant, o.token, o.handles[0])
		before := o.released()
		limit(0)
		reasons := map[vault.Reason]int{}
		for start := time.Now(); time.Since(start) < 3*time.Second; {
			came, err := o.fetch(o.grant, o.token, o.handles[1])
			if vault.KindOf(err) != vault.Unavailable || came != 0 {
				t.Fatalf("%d images came, with %v", came, err)
			}
			reasons[vault.ReasonOf(err)]++
		}
		in := client.Image{RequestID: vault.NewID(), Modality: vault.Plate, CapturedAt: time.Now(), Bytes: picture(1, 300)}
		cfg := o.config(lane)
		cfg.Patience = -1
		if _, err := o.dial(cfg).Store(t.Context(), in); vault.KindOf(err) != vault.Unavailable {
			t.Errorf("a store on a full disk: %v", err)
		}
		wait(t, "health tells", func() bool { return !o.healthy(releaseName) })
		limit(1 << 62)
		if n := o.released(); n != before {
			t.Errorf("%d releases were recorded", n-before)
		}
		o.goesOn(o.grant, o.token, o.handles[1])
		wait(t, "all serves again", func() bool { return o.healthy(releaseName) && o.healthy("") })
		t.Logf("round %d: refused for %v", round, reasons)
		if err := syscall.Kill(pid, 0); err != nil {
			t.Fatalf("the daemon has ended: %v", err)
		}
	}
	o.grown()
	k.kill()
}
