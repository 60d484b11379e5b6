package blob

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// where says in which of its two places a blob is.
func where(t *testing.T, d *Dir, id vault.ID) (kept, aside bool) {
	t.Helper()
	if err := d.List(t.Context(), func(at vault.ID, _ int64, _ time.Time) error { kept = kept || at == id; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := d.Quarantined(t.Context(), func(at vault.ID) error { aside = aside || at == id; return nil }); err != nil {
		t.Fatal(err)
	}
	return kept, aside
}

func mustBe(t *testing.T, d *Dir, id vault.ID, kept, aside bool) {
	t.Helper()
	if k, a := where(t, d, id); k != kept || a != aside {
		t.Fatalf("kept %v and aside %v, want %v and %v", k, a, kept, aside)
	}
}

func TestQuarantine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "blobs")
	if _, err := OpenInUse(path); err == nil {
		t.Fatal("a directory that is absent opens")
	}
	d := mustOpen(t, path)
	id, none := vault.NewID(), vault.NewID()
	mustBe(t, d, id, false, false)
	if err := d.Put(t.Context(), id, []byte("sealed")); err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		name        string
		do          func(id vault.ID) error
		kept, aside bool
	}{
		{"quarantine", func(id vault.ID) error { return d.Quarantine(t.Context(), id) }, false, true},
		{"return", func(id vault.ID) error { return d.Return(t.Context(), id) }, true, false},
		{"quarantine", func(id vault.ID) error { return d.Quarantine(t.Context(), id) }, false, true},
		{"discard", func(id vault.ID) error { return d.Discard(t.Context(), id) }, false, false},
	}
	for _, s := range steps {
		if s.kept || !s.aside { // return and discard end the note
			for range 2 {
				if err := d.NoteKey(t.Context(), id); err != nil {
					t.Fatal(err)
				}
			}
			if ok, err := d.KeyNoted(t.Context(), id); !ok || err != nil {
				t.Fatal(ok, err)
			}
		}
		for _, at := range []vault.ID{id, id, none} { // again, and of what is missing
			if err := s.do(at); err != nil {
				t.Fatalf("%s: %v", s.name, err)
			}
		}
		mustBe(t, d, id, s.kept, s.aside)
		if ok, err := d.KeyNoted(t.Context(), id); ok || err != nil {
			t.Fatal(ok, err)
		}
		if s.kept {
			mustHold(t, d, id, []byte("sealed"))
		} else {
			mustMiss(t, d, id)
		}
		d = mustOpen(t, path) // nothing of it is a leftover
		mustBe(t, d, id, s.kept, s.aside)
	}
}

// TestInUse: opening beside another leaves alone what that one is writing.
func TestInUse(t *testing.T) {
	path := t.TempDir()
	d := mustOpen(t, path)
	if err := d.write(filepath.Join(path, tempDir, "under-way"), []byte("half")); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenInUse(path); err != nil {
		t.Fatal(err)
	}
	if n := len(leftovers(t, d)); n != 1 {
		t.Errorf("%d files are under way, want 1", n)
	}
}

// TestEachQuarantineCallFails: after an error the blob is in one of its places, whole, and the
// operation may be done again.
func TestEachQuarantineCallFails(t *testing.T) {
	d, disk := faulty(t, t.TempDir())
	failures := 0
	for _, op := range []struct {
		do          func(vault.ID) error
		kept, aside bool
	}{
		{func(id vault.ID) error { return d.Quarantine(t.Context(), id) }, false, true},
		{func(id vault.ID) error { return d.Return(t.Context(), id) }, true, false},
		{func(id vault.ID) error { return d.Discard(t.Context(), id) }, false, false},
	} {
		for n := 0; ; n++ {
			id := vault.NewID()
			if err := d.Put(t.Context(), id, []byte("sealed")); err != nil {
				t.Fatal(err)
			}
			if !op.aside {
				if err := d.Quarantine(t.Context(), id); err != nil {
					t.Fatal(err)
				}
			}
			var err error
			failed := failOnce(disk, n, errBroken, func() { err = op.do(id) })
			if failed == "" {
				if err != nil {
					t.Fatal(err)
				}
				break
			}
			failures++
			mustBeUnavailable(t, failed, err)
			if kept, aside := where(t, d, id); kept && aside || (op.kept || op.aside) && !kept && !aside {
				t.Fatalf("%s: kept %v, aside %v", failed, kept, aside)
			}
			if err := op.do(id); err != nil {
				t.Fatalf("%s, then again: %v", failed, err)
			}
			mustBe(t, d, id, op.kept, op.aside)
		}
	}
	if failures != 11+11+5 {
		t.Errorf("%d calls failed", failures)
	}
}
