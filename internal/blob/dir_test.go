package blob

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/vaulttest"
)

func mustOpen(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// faulty opens a store on a disk that can be made to fail.
func faulty(t *testing.T, path string) (*Dir, *faultyDisk) {
	t.Helper()
	disk := &faultyDisk{root: path + string(filepath.Separator)}
	d, err := open(path, disk)
	if err != nil {
		t.Fatal(err)
	}
	return d, disk
}

// leftovers are the temporary files.
func leftovers(t *testing.T, d *Dir) []fs.DirEntry {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(d.path, tempDir))
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func mustHold(t *testing.T, d *Dir, id vault.ID, want []byte) {
	t.Helper()
	if got, err := d.Get(t.Context(), id); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, %v; want %d", len(got), err, len(want))
	}
}

func mustMiss(t *testing.T, d *Dir, id vault.ID) {
	t.Helper()
	if got, err := d.Get(t.Context(), id); vault.KindOf(err) != vault.NotFound || vault.ReasonOf(err) != vault.ReasonDataLoss || got != nil {
		t.Fatalf("got %d bytes, %v; want kind NotFound and reason DATA_LOSS", len(got), err)
	}
}

func mustBeUnavailable(t *testing.T, what string, err error) {
	t.Helper()
	if vault.KindOf(err) != vault.Unavailable || vault.ReasonOf(err) != vault.ReasonBlobUnavailable {
		t.Fatalf("%s: %v, want Unavailable and BLOB_UNAVAILABLE", what, err)
	}
	if e := new(vault.Error); errors.As(err, &e) && strings.ContainsAny(e.Message, "/\\") {
		t.Fatalf("%s: the message %q tells a path", what, e.Message)
	}
}

func TestConformance(t *testing.T) {
	vaulttest.TestBlobs(t, func(t *testing.T) vaulttest.Blobs { return mustOpen(t, t.TempDir()) })
}

// TestOrderOfCalls: a kill does not show a missing sync, so the calls themselves are pinned.
func TestOrderOfCalls(t *testing.T) {
	d, disk := faulty(t, filepath.Join(t.TempDir(), "blobs"))
	id := vault.ID{0xab, 1}
	name := "ab/" + id.String()
	temp := regexp.MustCompile(`tmp/[0-9a-f-]{36}`)
	for _, c := range []struct {
		op   string
		do   func() error
		want []string
	}{
		{"put", func() error { return d.Put(t.Context(), id, []byte("x")) }, []string{
			"create tmp/T", "write tmp/T", "sync tmp/T", "close tmp/T",
			"open " + name, // is it taken?
			"rename " + name, "open ab", "sync ab", "close ab",
		}},
		{"put again", func() error { return d.Put(t.Context(), id, []byte("x")) }, []string{
			"create tmp/T", "write tmp/T", "sync tmp/T", "close tmp/T",
			"open " + name, "fstat " + name, "read " + name, "read " + name, "close " + name,
			"remove tmp/T", "open ab", "sync ab", "close ab",
		}},
		{"delete", func() error { return d.Delete(t.Context(), id) }, []string{
			"remove " + name, "open ab", "sync ab", "close ab",
		}},
		{"delete again", func() error { return d.Delete(t.Context(), id) }, []string{
			"remove " + name, "open ab", "sync ab", "close ab",
		}},
	} {
		disk.reset(nil)
		if err := c.do(); err != nil {
			t.Fatalf("%s: %v", c.op, err)
		}
		got := slices.Clone(disk.trace)
		for i := range got {
			got[i] = temp.ReplaceAllString(got[i], "tmp/T")
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s:\n got %q\nwant %q", c.op, got, c.want)
		}
	}
}

// TestNewDirectoriesAreDurable: each directory's entry is synced before anything is made in it.
func TestNewDirectoriesAreDurable(t *testing.T) {
	base := t.TempDir()
	_, disk := faulty(t, filepath.Join(base, "a", "b", "blobs"))
	synced := map[string]bool{base: true}
	unsynced := map[string]bool{}
	for _, call := range disk.trace {
		op, path, _ := strings.Cut(call, " ")
		if !filepath.IsAbs(path) {
			path = filepath.Join(base, "a", "b", "blobs", path)
		}
		switch op {
		case "mkdir":
			if parent := filepath.Dir(path); !synced[parent] {
				t.Errorf("%s was made before the entry of %s was durable", path, parent)
			}
			unsynced[path] = true
		case "sync":
			for made := range unsynced {
				if filepath.Dir(made) == path {
					synced[made] = true
					delete(unsynced, made)
				}
			}
		}
	}
	if len(synced) != 1+3+256+1 || len(unsynced) > 0 {
		t.Errorf("%d directories are durable and %d are not: %q", len(synced)-1, len(unsynced), disk.trace[:20])
	}

	// A crash may have come between making the directory and the sync.
	_, disk = faulty(t, filepath.Join(base, "a", "b", "blobs"))
	if !slices.Contains(disk.trace, "sync "+filepath.Join(base, "a", "b")) || !slices.Contains(disk.trace, "sync "+filepath.Join(base, "a", "b", "blobs")) {
		t.Errorf("opened again, it syncs nothing: %q", disk.trace)
	}
}

func TestLeftoversAreRemoved(t *testing.T) {
	path := t.TempDir()
	d := mustOpen(t, path)
	id := vault.NewID()
	if err := d.Put(t.Context(), id, []byte("sealed")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{vault.NewID().String(), "anything"} {
		if err := os.WriteFile(filepath.Join(path, tempDir, name), []byte("hal"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d = mustOpen(t, path)
	if rest := leftovers(t, d); len(rest) > 0 {
		t.Errorf("%v is still there", rest)
	}
	mustHold(t, d, id, []byte("sealed"))
}

func TestModes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "blobs")
	d := mustOpen(t, path)
	id := vault.NewID()
	if err := d.Put(t.Context(), id, []byte("sealed")); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(filepath.Dir(path), func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if e.IsDir() {
			want = 0o700 | fs.ModeDir
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", name, info.Mode(), want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestTooLarge(t *testing.T) {
	d := mustOpen(t, t.TempDir())
	id := vault.NewID()
	if err := d.Put(t.Context(), id, make([]byte, MaxBlob+1)); vault.KindOf(err) != vault.Invalid {
		t.Errorf("put: %v, want kind Invalid", err)
	}
	mustMiss(t, d, id)
	if err := d.Put(t.Context(), id, make([]byte, MaxBlob)); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Get(t.Context(), id); err != nil || len(got) != MaxBlob {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if err := os.Truncate(d.fileOf(id), MaxBlob+1); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Get(t.Context(), id); vault.KindOf(err) != vault.DataLoss || got != nil {
		t.Errorf("got %d bytes, %v; want kind DataLoss", len(got), err)
	}
}

// TestSizeIsNotTrusted: what a file says of its size is not what bounds the memory.
func TestSizeIsNotTrusted(t *testing.T) {
	d := mustOpen(t, t.TempDir())
	id := vault.NewID()
	if err := d.Put(t.Context(), id, nil); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{0, 1 << 60} {
		d.fs = liar{size: size}
		if got, err := d.Get(t.Context(), id); vault.KindOf(err) != vault.DataLoss || got != nil {
			t.Errorf("size %d: got %d bytes, %v; want kind DataLoss", size, len(got), err)
		}
	}
}

// liar's files say that they have that size, and never end.
type liar struct {
	disk
	size int64
}

func (l liar) Open(path string) (file, error) {
	f, err := l.disk.Open(path)
	return endless{f, l.size}, err
}

type endless struct {
	file
	size int64
}

type sized struct {
	fs.FileInfo
	size int64
}

func (endless) Read(b []byte) (int, error) { return len(b), nil }
func (s sized) Size() int64                { return s.size }
func (e endless) Stat() (fs.FileInfo, error) {
	info, err := e.file.Stat()
	return sized{info, e.size}, err
}

func TestExistsTellsSo(t *testing.T) {
	d := mustOpen(t, t.TempDir())
	id := vault.NewID()
	if err := d.Put(t.Context(), id, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := d.Put(t.Context(), id, []byte("two")); !errors.Is(err, fs.ErrExist) || vault.KindOf(err) != vault.Exists {
		t.Errorf("put: %v, want fs.ErrExist of kind Exists", err)
	}
	if rest := leftovers(t, d); len(rest) > 0 {
		t.Errorf("left %v", rest)
	}
}

func TestOpenRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, filepath.Join(path, "below"), "a\x00b"} {
		_, err := OpenDir(path)
		mustBeUnavailable(t, path, err)
	}
}

func TestList(t *testing.T) {
	d, disk := faulty(t, t.TempDir())
	want := map[vault.ID]int64{}
	for i := range 40 {
		id := vault.NewID()
		id[0] = byte(i / 2 * 13)
		if err := d.Put(t.Context(), id, make([]byte, i)); err != nil {
			t.Fatal(err)
		}
		want[id] = int64(i)
	}
	// What Put did not name is not listed.
	stray := vault.ID{1, 2, 3}
	for _, name := range []string{"00/x", "00/" + stray.String(), "01/" + strings.ToUpper(vault.ID{1, 0xaa}.String()), "tmp/" + vault.NewID().String()} {
		if err := os.WriteFile(filepath.Join(d.path, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(d.path, "01", stray.String()), 0o700); err != nil {
		t.Fatal(err)
	}

	var got []vault.ID
	err := d.List(t.Context(), func(id vault.ID, size int64, modified time.Time) error {
		if n, ok := want[id]; !ok || n != size || time.Since(modified).Abs() > time.Hour {
			t.Errorf("%s has %d bytes, of %v", id, size, modified)
		}
		got = append(got, id)
		return nil
	})
	if err != nil || len(got) != len(want) {
		t.Fatalf("listed %d of %d, %v", len(got), len(want), err)
	}
	if !slices.IsSortedFunc(got, func(a, b vault.ID) int { return bytes.Compare(a[:], b[:]) }) {
		t.Errorf("not in order: %v", got)
	}

	stop := errors.New("stop")
	calls := 0
	if err := d.List(t.Context(), func(vault.ID, int64, time.Time) error { calls++; return stop }); err != stop || calls != 1 {
		t.Errorf("stopped with %v after %d", err, calls)
	}
	disk.reset(func(_ int, call string) error {
		if call == "readdir 80" {
			return errBroken
		}
		return nil
	})
	mustBeUnavailable(t, "a folder that does not read", d.List(t.Context(), func(vault.ID, int64, time.Time) error { return nil }))

	// A file may vanish between the reading of its folder and of its facts.
	disk.reset(nil)
	gone := 0
	err = d.List(t.Context(), func(id vault.ID, _ int64, _ time.Time) error {
		gone++
		for other := range want {
			if other[0] == id[0] && other != id {
				return d.Delete(t.Context(), other)
			}
		}
		return nil
	})
	if err != nil || gone != 20 {
		t.Errorf("listed %d of 20, %v", gone, err)
	}
}

// TestReopenedReads: a blob outlives the value that put it.
func TestReopenedReads(t *testing.T) {
	path := t.TempDir()
	id, data := vault.NewID(), []byte("sealed")
	if err := mustOpen(t, path).Put(t.Context(), id, data); err != nil {
		t.Fatal(err)
	}
	mustHold(t, mustOpen(t, path), id, data)
}
