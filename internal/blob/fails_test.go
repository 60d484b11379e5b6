package blob

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// TestEachCallFails lets each call of each operation fail once.
func TestEachCallFails(t *testing.T) {
	d, disk := faulty(t, t.TempDir())
	data, other := bytes.Repeat([]byte("sealed"), 100), vault.NewID()
	if err := d.Put(t.Context(), other, data); err != nil {
		t.Fatal(err)
	}
	for _, short := range []bool{false, true} {
		disk.short = short
		for name, cause := range map[string]error{"broken": errBroken, "full": syscall.ENOSPC, "read-only": syscall.EROFS} {
			t.Run(fmt.Sprintf("%s, short writes %v", name, short), func(t *testing.T) {
				eachPutFails(t, d, disk, other, data, short, cause)
				eachDeleteFails(t, d, disk, data, cause)
				eachGetFails(t, d, disk, other, data, cause)
			})
		}
	}
}

// failOnce fails call n, and says afterwards whether there was one.
func failOnce(disk *faultyDisk, n int, cause error, do func()) (failed string) {
	disk.reset(func(at int, call string) error {
		if at != n {
			return nil
		}
		failed = call
		return cause
	})
	do()
	disk.reset(nil)
	return failed
}

func eachPutFails(t *testing.T, d *Dir, disk *faultyDisk, other vault.ID, data []byte, short bool, cause error) {
	failures := 0
	for n := 0; ; n++ {
		id := vault.NewID()
		id[0] = other[0]
		var err error
		failed := failOnce(disk, n, cause, func() { err = d.Put(t.Context(), id, data) })
		if failed == "" {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		failures++
		mustBeUnavailable(t, failed, err)
		if !errors.Is(err, cause) && !short {
			t.Fatalf("%s: %v does not tell the cause", failed, err)
		}
		mustMiss(t, d, id)
		if rest := leftovers(t, d); len(rest) > 0 {
			t.Fatalf("%s: left %v", failed, rest)
		}
		if err := d.Put(t.Context(), id, data); err != nil {
			t.Fatalf("%s, then again: %v", failed, err)
		}
		mustHold(t, d, id, data)
		mustHold(t, d, other, data)
	}
	if failures != 9 {
		t.Errorf("%d calls failed, want 9", failures)
	}
}

func eachDeleteFails(t *testing.T, d *Dir, disk *faultyDisk, data []byte, cause error) {
	for n := 0; ; n++ {
		id := vault.NewID()
		if err := d.Put(t.Context(), id, data); err != nil {
			t.Fatal(err)
		}
		var err error
		failed := failOnce(disk, n, cause, func() { err = d.Delete(t.Context(), id) })
		if failed != "" {
			mustBeUnavailable(t, failed, err)
			if err := d.Delete(t.Context(), id); err != nil {
				t.Fatalf("%s, then again: %v", failed, err)
			}
		} else if err != nil {
			t.Fatal(err)
		}
		mustMiss(t, d, id)
		if failed == "" {
			if n != 4 {
				t.Errorf("%d calls failed, want 4", n)
			}
			return
		}
	}
}

func eachGetFails(t *testing.T, d *Dir, disk *faultyDisk, id vault.ID, data []byte, cause error) {
	for n := 0; ; n++ {
		var got []byte
		var err error
		failed := failOnce(disk, n, cause, func() { got, err = d.Get(t.Context(), id) })
		if failed == "" {
			return
		}
		if strings.HasPrefix(failed, "close") { // all has been read
			mustHold(t, d, id, data)
			continue
		}
		mustBeUnavailable(t, failed, err)
		if got != nil {
			t.Fatalf("%s: %d bytes came with the error", failed, len(got))
		}
		mustHold(t, d, id, data)
	}
}

// TestDiskStaysBroken: from call n on nothing works any more, cleaning up included.
func TestDiskStaysBroken(t *testing.T) {
	path, data := t.TempDir(), []byte("sealed")
	for n := 0; ; n++ {
		d, disk := faulty(t, path)
		if rest := leftovers(t, d); len(rest) > 0 {
			t.Fatalf("opened again, %v is still there", rest)
		}
		id, failed := vault.NewID(), false
		disk.reset(func(at int, _ string) error {
			if at < n {
				return nil
			}
			failed = true
			return syscall.EIO
		})
		err := d.Put(t.Context(), id, data)
		if !failed {
			return
		}
		mustBeUnavailable(t, "put", err)
		d = mustOpen(t, path)
		if got, err := d.Get(t.Context(), id); err == nil && !bytes.Equal(got, data) {
			t.Fatalf("after call %d half a blob can be read", n)
		}
		if err := d.Put(t.Context(), id, data); err != nil {
			t.Fatal(err)
		}
		mustHold(t, d, id, data)
	}
}

// TestOpenFails lets each call of the first and of a later OpenDir fail.
func TestOpenFails(t *testing.T) {
	base := t.TempDir()
	for n, last := 0, false; !last; n++ {
		if n > 32 && n < 256 {
			n += 15 // the folders are all alike
		}
		path := filepath.Join(base, fmt.Sprint(n), "blobs")
		for _, fresh := range []bool{true, false} { // not fresh: as the failure left it
			disk := &faultyDisk{}
			var err error
			failed := failOnce(disk, n, errBroken, func() { _, err = open(path, disk) })
			switch {
			case failed != "":
				mustBeUnavailable(t, failed, err)
			case err != nil:
				t.Fatal(err)
			case fresh:
				last = true
			}
		}
		d, id := mustOpen(t, path), vault.NewID()
		if err := d.Put(t.Context(), id, []byte("x")); err != nil {
			t.Fatal(err)
		}
		mustHold(t, d, id, []byte("x"))
	}
}

// TestPutsOfOneIDTakeTurns: a Put that has looked whether the ID is taken is not overtaken
// before its rename.
func TestPutsOfOneIDTakeTurns(t *testing.T) {
	d, disk := faulty(t, t.TempDir())
	id := vault.NewID()
	second := make(chan error, 1)
	var once sync.Once
	disk.reset(func(_ int, call string) error {
		if strings.HasPrefix(call, "rename") {
			once.Do(func() { go func() { second <- d.Put(t.Context(), id, []byte("second")) }() })
		}
		return nil
	})
	d.fs = slowRename{disk}
	if err := d.Put(t.Context(), id, []byte("first")); err != nil {
		t.Fatal(err)
	}
	if err := <-second; vault.KindOf(err) != vault.Exists {
		t.Errorf("the second Put: %v, want kind Exists", err)
	}
	mustHold(t, d, id, []byte("first"))
}

// slowRename gives another Put the time to come in between.
type slowRename struct{ *faultyDisk }

func (d slowRename) Rename(from, to string) error {
	if err := d.called("rename", to); err != nil {
		return err
	}
	time.Sleep(100 * time.Millisecond)
	return d.disk.Rename(from, to)
}
