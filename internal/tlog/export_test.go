package tlog

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

func decode64(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sound(t *testing.T, d Dir, key note.Verifier, kept ...Kept) {
	t.Helper()
	v, err := d.Verify(t.Context(), key, kept, silent)
	if err != nil || len(v.Findings) > 0 || v.Kept != len(kept) {
		t.Errorf("%d kept; %q, %v", v.Kept, v.Findings, err)
	}
}

// files gives what a directory holds.
func files(t *testing.T, d Dir) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(string(d), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		name, _ := filepath.Rel(string(d), path)
		out[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestExportGrows: however an export came to be, at once or in many steps, with cuts, it is
// the same.
func TestExportGrows(t *testing.T) {
	l := newLog(t, 0)
	key := l.signer.Verifier()
	d := Dir(t.TempDir())
	var kept []Kept
	for _, n := range []int{0, 1, 254, 1, 1, 255, 600, 3000, 1, 0, 62_000} {
		l.grow(n)
		l.asked = 0
		if n > 500 { // cut off in between, twice
			for _, at := range []int64{100, 400} {
				l.failAt = l.edge.Size() - int64(n) + at
				if _, err := d.Export(t.Context(), l, key, silent); !errors.Is(err, errCut) {
					t.Fatal(err)
				}
			}
			l.failAt = -1
		}
		c, err := d.Export(t.Context(), l, key, silent)
		if err != nil || c != l.checkpoint() {
			t.Fatalf("%+v, %v", c, err)
		}
		if l.asked > n+2*TileWidth {
			t.Errorf("%d entries were asked for, %d are new", l.asked, n)
		}
		kept = append(kept, Kept{Checkpoint: c, Where: "here"})
		sound(t, d, key, kept...)
		if n > 5000 {
			continue
		}
		fresh := Dir(t.TempDir())
		if _, err := fresh.Export(t.Context(), l, key, silent); err != nil {
			t.Fatal(err)
		}
		a, b := files(t, d), files(t, fresh)
		for name, text := range a {
			if b[name] != text {
				t.Errorf("size %d: %s differs from a fresh export's (%d bytes, %d)", c.Size, name, len(text), len(b[name]))
			}
			delete(b, name)
		}
		if len(b) > 0 {
			t.Errorf("size %d: %v are missing", c.Size, b)
		}
	}
}

// TestForgedExport: whatever is changed in an export is found, and named.
func TestForgedExport(t *testing.T) {
	l := newLog(t, 700)
	key := l.signer.Verifier()
	made := t.TempDir()
	if _, err := Dir(made).Export(t.Context(), l, key, silent); err != nil {
		t.Fatal(err)
	}
	whole := files(t, Dir(made))
	rebundle := func(f map[string]string, name string, change func([][]byte) [][]byte) {
		entries, err := SplitBundle([]byte(f[name]))
		if err != nil {
			t.Fatal(err)
		}
		var b []byte
		for _, e := range change(slices.Clone(entries)) {
			if b, err = AppendEntry(b, e); err != nil {
				t.Fatal(err)
			}
		}
		f[name] = string(b)
	}
	flip := func(f map[string]string, name string, at int) {
		b := []byte(f[name])
		b[at] ^= 1
		f[name] = string(b)
	}
	const first, second, last = "tile/entries/000", "tile/entries/001", "tile/entries/002.p/188"
	for name, c := range map[string]struct {
		forge func(f map[string]string)
		want  string
	}{
		"event edited":      {func(f map[string]string) { flip(f, second, 300) }, "entry 270 was changed"},
		"last event edited": {func(f map[string]string) { flip(f, last, len(f[last])-3) }, "entry 699 was replaced by entry 689"},
		"event dropped": {func(f map[string]string) {
			rebundle(f, first, func(e [][]byte) [][]byte { return slices.Delete(e, 7, 8) })
		}, "has 255 entries"},
		"event dropped, next": {func(f map[string]string) {
			rebundle(f, first, func(e [][]byte) [][]byte { return slices.Delete(e, 7, 8) })
		}, "entry 7 is missing"},
		"reordered": {func(f map[string]string) {
			rebundle(f, first, func(e [][]byte) [][]byte { e[3], e[4] = e[4], e[3]; return e })
		}, "entry 3 stands in another place"},
		"duplicated": {func(f map[string]string) { rebundle(f, first, func(e [][]byte) [][]byte { e[9] = e[8]; return e }) }, "entry 9 was replaced by entry 8"},
		"put in": {func(f map[string]string) {
			rebundle(f, last, func(e [][]byte) [][]byte { return slices.Insert(e, 5, []byte("forged")) })
		}, "an entry was put in before entry 517"},
		"put in at the end": {func(f map[string]string) {
			rebundle(f, last, func(e [][]byte) [][]byte { return append(e, []byte("forged")) })
		}, "has 189 entries; the checkpoint says 188"},
		"bundle cut":     {func(f map[string]string) { f[first] = f[first][:100] }, "tile/entries/000 is damaged: it ends within"},
		"bundle missing": {func(f map[string]string) { delete(f, second) }, "tile/entries/001 is missing"},
		"tile flipped":   {func(f map[string]string) { flip(f, "tile/0/001", 77) }, "tile/0/001 is damaged"},
		"upper tile":     {func(f map[string]string) { flip(f, "tile/1/000.p/2", 1) }, "tile/1/000.p/2 is damaged"},
		"partial tile":   {func(f map[string]string) { flip(f, "tile/0/002.p/188", 1) }, "tile/0/002.p/188 is damaged"},
		"tile missing":   {func(f map[string]string) { delete(f, "tile/0/000") }, "tile/0/000 is missing"},
		"signature":      {func(f map[string]string) { flip(f, "checkpoint", len(f["checkpoint"])-20) }, "not signed by the log's key"},
		"checkpoint":     {func(f map[string]string) { f["checkpoint"] = strings.Replace(f["checkpoint"], "700", "699", 1) }, "not signed by the log's key"},
		"all made anew": {func(f map[string]string) {
			forged := newLog(t, 0)
			for _, e := range l.entries {
				forged.entries = append(forged.entries, bytes.Replace(e, []byte("300"), []byte("301"), 1))
			}
			forged.edge, forged.tiles = Edge{}, map[string][]byte{}
			for _, e := range forged.entries {
				forged.edge.Append(LeafHash(e))
			}
			to := Dir(t.TempDir())
			if _, err := to.Export(t.Context(), forged, forged.signer.Verifier(), silent); err != nil {
				t.Fatal(err)
			}
			keep := f["checkpoint"]
			clear(f)
			for k, v := range files(t, to) {
				f[k] = v
			}
			f["checkpoint"] = keep
		}, "they were rewritten"},
		"event and its tile": {func(f map[string]string) {
			rebundle(f, first, func(e [][]byte) [][]byte { e[3] = []byte("forged"); return e })
			h := LeafHash([]byte("forged"))
			b := []byte(f["tile/0/000"])
			copy(b[3*32:], h[:])
			f["tile/0/000"] = string(b)
		}, "the entries do not add up to the checkpoint's root; those below tile/1/000.p/2 differ"},
	} {
		t.Run(name, func(t *testing.T) {
			f := map[string]string{}
			for k, v := range whole {
				f[k] = v
			}
			c.forge(f)
			d := Dir(t.TempDir())
			for k, v := range f {
				if err := os.MkdirAll(filepath.Dir(d.path(k)), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(d.path(k), []byte(v), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			v, err := d.Verify(t.Context(), key, nil, silent)
			if err != nil || !strings.Contains(strings.Join(v.Findings, "\n"), c.want) {
				t.Errorf("%v: found\n%s\nwant %s", err, strings.Join(v.Findings, "\n"), c.want)
			}
		})
	}
	sound(t, Dir(made), key)
	if v, err := Dir(made).Verify(t.Context(), newSigner(t).Verifier(), nil, silent); err != nil || len(v.Findings) != 1 {
		t.Errorf("another key: %q, %v", v.Findings, err)
	}
	if _, err := Dir(t.TempDir()).Verify(t.Context(), key, nil, silent); err == nil {
		t.Error("an empty directory is sound")
	}
}

// TestMovedEntries: wherever an entry of a full bundle is moved to, it is told.
func TestMovedEntries(t *testing.T) {
	var entries [][]byte
	var proved []byte
	for i := range TileWidth {
		entries = append(entries, entry(i))
		h := LeafHash(entry(i))
		proved = append(proved, h[:]...)
	}
	if found := compare(0, entries, proved); len(found) != 0 {
		t.Fatal(found)
	}
	places := []int{0, 1, 2, 127, 253, 254, 255}
	for _, from := range places {
		for _, to := range places {
			if from == to {
				continue
			}
			moved := slices.Delete(slices.Clone(entries), from, from+1)
			moved = slices.Insert(moved, to, entries[from])
			if found := compare(0, moved, proved); len(found) == 0 {
				t.Errorf("entry %d at %d: nothing is found", from, to)
			}
		}
	}
	// The last two, at the front.
	if found := compare(0, append(slices.Clone(entries[254:]), entries[:254]...), proved); len(found) == 0 {
		t.Error("two moved entries are not found")
	}
}

// TestForgedLastBundle: the entries of a partial bundle are looked at before they go on into a
// wider one.
func TestForgedLastBundle(t *testing.T) {
	l := newLog(t, 300)
	d := Dir(t.TempDir())
	if _, err := d.Export(t.Context(), l, l.signer.Verifier(), silent); err != nil {
		t.Fatal(err)
	}
	name := d.path("tile/entries/001.p/44")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-3] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	l.grow(500)
	if _, err := d.Export(t.Context(), l, l.signer.Verifier(), silent); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "entry 299 was") {
		t.Errorf("%v", err)
	}
}

// TestForgedSource: what a forger changes in the database is found by the export, which then
// keeps what it had; once the log is whole again, the export goes on.
func TestForgedSource(t *testing.T) {
	for name, c := range map[string]struct {
		forge func(l *memLog)
		want  string
	}{
		"edited":     {func(l *memLog) { l.entries[400] = []byte("forged") }, "entry 400 was changed"},
		"dropped":    {func(l *memLog) { l.entries = slices.Delete(l.entries, 400, 401) }, "damaged: entry 400 is missing\n"},
		"reordered":  {func(l *memLog) { l.entries[400], l.entries[401] = l.entries[401], l.entries[400] }, "entry 400 stands in another place"},
		"duplicated": {func(l *memLog) { l.entries[699] = l.entries[698] }, "entry 699 was replaced by entry 698"},
		"inserted":   {func(l *memLog) { l.entries = slices.Insert(l.entries, 310, []byte("forged")) }, "damaged: an entry was put in before entry 310\n"},
		"with tile": {func(l *memLog) {
			l.entries[400] = []byte("forged")
			h := LeafHash(l.entries[400])
			copy(l.tiles["tile/0/001"][(400-256)*32:], h[:])
		}, "do not fit the checkpoint, nor do the service's tiles"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t, 300)
			key := l.signer.Verifier()
			d := Dir(t.TempDir())
			if _, err := d.Export(t.Context(), l, key, silent); err != nil {
				t.Fatal(err)
			}
			l.grow(400)
			was := slices.Clone(l.entries)
			tiles := map[string][]byte{}
			for k, v := range l.tiles {
				tiles[k] = slices.Clone(v)
			}
			c.forge(l)
			if _, err := d.Export(t.Context(), l, key, silent); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error()+"\n", c.want) {
				t.Errorf("%v; want %s", err, c.want)
			}
			sound(t, d, key)
			l.entries, l.tiles = was, tiles
			if _, err := d.Export(t.Context(), l, key, silent); err != nil {
				t.Error(err)
			}
			sound(t, d, key)
		})
	}
}

// TestRemembered: rewritten and signed with the real key, or rolled back. Only who kept a
// checkpoint can tell, and does.
func TestRemembered(t *testing.T) {
	l := newLog(t, 500)
	key := l.signer.Verifier()
	var kept []Kept
	for range 3 {
		l.grow(100)
		kept = append(kept, Kept{Checkpoint: l.checkpoint(), Where: "checkpoints"})
	}
	d := Dir(t.TempDir())
	if _, err := d.Export(t.Context(), l, key, silent); err != nil {
		t.Fatal(err)
	}
	sound(t, d, key, kept...)

	findings := func(d Dir) string {
		v, err := d.Verify(t.Context(), key, kept, silent)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(v.Findings, "\n")
	}
	back := newLog(t, 650)
	back.signer = l.signer
	older := Dir(t.TempDir())
	if _, err := older.Export(t.Context(), back, key, silent); err != nil {
		t.Fatal(err)
	}
	sound(t, older, key)
	if got := findings(older); strings.Count(got, "rolled back") != 2 || strings.Contains(got, "rewritten") {
		t.Errorf("rolled back: %s", got)
	}
	if _, err := d.Export(t.Context(), back, key, silent); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "rolled back") {
		t.Errorf("export of an older log: %v", err)
	}
	fork := newLog(t, 650)
	fork.signer = l.signer
	fork.entries = append(fork.entries, []byte("another history"))
	fork.edge.Append(LeafHash([]byte("another history")))
	fork.grow(300)
	forked := Dir(t.TempDir())
	if _, err := forked.Export(t.Context(), fork, key, silent); err != nil {
		t.Fatal(err)
	}
	sound(t, forked, key)
	if got := findings(forked); strings.Count(got, "rewritten") != 2 || !strings.Contains(got, "first 700 entries") {
		t.Errorf("forked: %s", got)
	}
	if _, err := d.Export(t.Context(), fork, key, silent); !errors.Is(err, ErrRewritten) || !strings.Contains(err.Error(), "is not the beginning of") {
		t.Errorf("export of a fork: %v", err)
	}
	for file, want := range map[string]Checkpoint{checkpointFile: l.checkpoint(), conflictFile: fork.checkpoint()} {
		signed, err := d.read(file, MaxCheckpoint)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Open(signed, key); err != nil || got != want {
			t.Errorf("%s is kept of size %d, want %d: %v", file, got.Size, want.Size, err)
		}
	}
	sound(t, d, key)
}
