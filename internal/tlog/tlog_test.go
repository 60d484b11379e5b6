package tlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const origin = "example.org/portcullis"

func newSigner(t *testing.T) *Signer {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := MakeKeyFile(path); err != nil {
		t.Fatal(err)
	}
	s, err := LoadKeyFile(path, origin)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// memLog is a log in memory: the source of exports.
type memLog struct {
	signer  *Signer
	entries [][]byte
	tiles   map[string][]byte // by full path
	edge    Edge
	asked   int // entries that were asked for
	failAt  int64
	signed  []byte // that is given instead of the newest
}

func newLog(t *testing.T, size int) *memLog {
	l := &memLog{signer: newSigner(t), tiles: map[string][]byte{}, failAt: -1}
	l.grow(size)
	return l
}

func entry(i int) []byte { return fmt.Appendf(nil, `{"v":1,"index":%d}`, i) }

func (l *memLog) grow(n int) {
	for range n {
		e := entry(len(l.entries))
		l.entries = append(l.entries, e)
		for _, t := range l.edge.Append(LeafHash(e)) {
			l.tiles[TilePath(t.Level, t.Index, 0)] = t.Data
		}
	}
	for _, t := range l.edge.Partial() {
		l.tiles[TilePath(t.Level, t.Index, 0)] = t.Data
	}
}

func (l *memLog) checkpoint() Checkpoint {
	return Checkpoint{Origin: origin, Size: l.edge.Size(), Root: l.edge.Root()}
}

func (l *memLog) Checkpoint(context.Context) ([]byte, error) {
	if l.signed != nil {
		return l.signed, nil
	}
	return l.checkpoint().Sign(l.signer)
}

var errCut = errors.New("cut off")

func (l *memLog) Entries(_ context.Context, from, to int64, each func([]byte) error) error {
	for i := from; i < to && i < int64(len(l.entries)); i++ {
		if i == l.failAt {
			return errCut
		}
		l.asked++
		if err := each(l.entries[i]); err != nil {
			return err
		}
	}
	return nil
}

func (l *memLog) Tile(_ context.Context, size int64, level int, index int64, width int) ([]byte, error) {
	return l.tiles[TilePath(level, index, 0)][:width*tlog.HashSize], nil
}

type memTiles map[string][]byte

func (m memTiles) Tile(level int, index int64) ([]byte, error) {
	return m[TilePath(level, index, 0)], nil
}

func silent(int64, int64) {}

// TestEdge: at every size the root is the reference's, the edge loads from the tiles, and the
// tiles are those of the reference.
func TestEdge(t *testing.T) {
	var stored []Hash
	reference := tlog.HashReaderFunc(func(indexes []int64) ([]Hash, error) {
		out := make([]Hash, len(indexes))
		for i, x := range indexes {
			out[i] = stored[x]
		}
		return out, nil
	})
	l := &memLog{tiles: map[string][]byte{}}
	const most = 70_000 // more than 256 tiles of level 0
	for n := 0; n <= most; n++ {
		if n < 600 || n%997 == 0 || (n+1)%TileWidth < 2 || n >= 65_530 && n < 65_545 {
			want, err := tlog.TreeHash(int64(n), reference)
			if err != nil {
				t.Fatal(err)
			}
			if got := l.edge.Root(); got != want || l.edge.Size() != int64(n) {
				t.Fatalf("size %d: root %v, want %v", n, got, want)
			}
			c := Checkpoint{Size: int64(n), Root: want}
			e, err := LoadEdge(c, memTiles(l.tiles))
			if err != nil || e.Root() != want {
				t.Fatalf("size %d: %v", n, err)
			}
		}
		hashes, err := tlog.StoredHashes(int64(n), entry(n), reference)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hashes...)
		l.grow(1)
	}
	for _, tile := range tlog.NewTiles(TileHeight, 0, most+1) {
		want, err := tlog.ReadTileData(tile, reference)
		if got := l.tiles[TilePath(tile.L, tile.N, 0)]; err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: %d bytes, %v", tile.Path(), len(got), err)
		}
	}
}

func TestLoadEdgeRefusesDamage(t *testing.T) {
	l := newLog(t, 600)
	for name, change := range map[string]func(m memTiles){
		"flipped":      func(m memTiles) { m["tile/0/002"][5] ^= 1 },
		"upper":        func(m memTiles) { m["tile/1/000"][40] ^= 1 },
		"short":        func(m memTiles) { m["tile/0/002"] = m["tile/0/002"][:32] },
		"missing":      func(m memTiles) { delete(m, "tile/1/000") },
		"another size": func(m memTiles) { m["tile/0/002"], m["tile/1/000"] = m["tile/1/000"], m["tile/0/002"] },
	} {
		m := memTiles{}
		for k, v := range l.tiles {
			m[k] = slices.Clone(v)
		}
		change(m)
		if _, err := LoadEdge(l.checkpoint(), m); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestProofs(t *testing.T) {
	l := newLog(t, 0)
	var older []Checkpoint
	for _, n := range []int{0, 1, 1, 5, 248, 1, 1, 300, 1000} {
		l.grow(n)
		c := l.checkpoint()
		older = append(older, c)
		for i := int64(0); i < c.Size; i += max(1, c.Size/50) {
			proof, err := ProveEntry(c, c.Size, i, memTiles(l.tiles))
			if err != nil {
				t.Fatal(err)
			}
			if err := CheckEntry(c, i, l.entries[i], proof); err != nil {
				t.Error(err)
			}
			if CheckEntry(c, i, []byte("another"), proof) == nil || c.Size > 1 && CheckEntry(c, (i+1)%c.Size, l.entries[i], proof) == nil {
				t.Errorf("entry %d of %d: another entry is proved", i, c.Size)
			}
		}
		for _, o := range older {
			proof, err := ProveConsistency(c, o.Size, c.Size, memTiles(l.tiles))
			if err != nil {
				t.Fatal(err)
			}
			if err := CheckConsistency(o, c, proof); err != nil {
				t.Error(err)
			}
			if forked := o; forked.Size > 0 {
				forked.Root[3] ^= 1
				if CheckConsistency(forked, c, proof) == nil {
					t.Errorf("a fork at %d of %d is proved", o.Size, c.Size)
				}
			}
		}
	}
	c := l.checkpoint()
	for name, err := range map[string]error{
		"newer first":           CheckConsistency(c, older[2], nil),
		"no proof":              CheckConsistency(older[3], c, nil),
		"same size, other root": CheckConsistency(Checkpoint{Size: c.Size}, c, nil),
		"empty, other root":     CheckConsistency(Checkpoint{}, c, nil),
	} {
		if err == nil {
			t.Errorf("%s: is proved", name)
		}
	}
	for _, i := range []int64{-1, c.Size} {
		if _, err := ProveEntry(c, c.Size, i, memTiles(l.tiles)); err == nil {
			t.Errorf("entry %d is proved", i)
		}
	}
	// In an older tree, too.
	for i, o := range older {
		for _, p := range older[:i] {
			proof, err := ProveConsistency(c, p.Size, o.Size, memTiles(l.tiles))
			if err != nil {
				t.Fatal(err)
			}
			if err := CheckConsistency(p, o, proof); err != nil {
				t.Error(err)
			}
		}
		if o.Size > 0 {
			proof, err := ProveEntry(c, o.Size, o.Size-1, memTiles(l.tiles))
			if err != nil {
				t.Fatal(err)
			}
			if err := CheckEntry(o, o.Size-1, l.entries[o.Size-1], proof); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := ProveConsistency(c, 1, c.Size+1, memTiles(l.tiles)); err == nil {
		t.Error("a newer size is proved")
	}
	// A proof out of damaged tiles is none.
	l.tiles["tile/0/001"][7] ^= 1
	if _, err := ProveEntry(c, c.Size, 300, memTiles(l.tiles)); !errors.Is(err, ErrDamaged) {
		t.Errorf("damaged tile: %v", err)
	}
	if _, err := ReadTile(c, 0, 1, TileWidth, memTiles(l.tiles)); !errors.Is(err, ErrDamaged) {
		t.Errorf("damaged tile: %v", err)
	}
	if got, err := ReadTile(c, 0, 0, 200, memTiles(l.tiles)); err != nil || !bytes.Equal(got, l.tiles["tile/0/000"][:200*32]) {
		t.Errorf("whole tile: %v", err)
	}
	for _, w := range [][3]int64{{-1, 0, 1}, {0, -1, 1}, {0, 0, 0}, {0, 0, 257}, {0, 1 << 60, 1}, {2, 0, 1}, {9, 0, 1}, {1, 0, 7}, {0, 6, 23}} {
		if _, err := ReadTile(c, int(w[0]), w[1], int(w[2]), memTiles(l.tiles)); err == nil {
			t.Errorf("tile %v is read", w)
		}
	}
}

func TestCheckpoint(t *testing.T) {
	s := newSigner(t)
	c := Checkpoint{Origin: origin, Size: 12345, Root: LeafHash([]byte("x"))}
	signed, err := c.Sign(s)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParseKey(s.Key())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Open(signed, key); err != nil || got != c {
		t.Errorf("%+v, %v", got, err)
	}
	// With a signature of somebody else, and a line more, it is still ours.
	other := newSigner(t)
	n := &note.Note{Text: c.Text() + "extension\n"}
	both, err := note.Sign(n, s, other)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Open(both, key); err != nil || got != c {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := Open(signed, other.Verifier()); !errors.Is(err, errSignature) {
		t.Errorf("another key: %v", err)
	}
	for name, text := range map[string]string{
		"another log":   strings.Replace(c.Text(), origin, "example.org/other", 1),
		"no root":       origin + "\n5\n",
		"size":          strings.Replace(c.Text(), "12345", "012345", 1),
		"negative size": strings.Replace(c.Text(), "12345", "-5", 1),
		"short root":    origin + "\n5\nAAAA\n",
	} {
		signed, err := note.Sign(&note.Note{Text: text}, s)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Open(signed, key); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if _, err := (Checkpoint{Origin: "another"}).Sign(s); err == nil {
		t.Error("the key of one log signs for another")
	}
	for i := range signed {
		b := slices.Clone(signed)
		b[i] ^= 1
		if got, err := Open(b, key); err == nil && got != c {
			t.Errorf("byte %d flipped: %+v", i, got)
		}
	}
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := MakeKeyFile(path); err != nil {
		t.Fatal(err)
	}
	if err := MakeKeyFile(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("made again: %v", err)
	}
	a, err := LoadKeyFile(path, origin)
	if err != nil {
		t.Fatal(err)
	}
	b, err := LoadKeyFile(path, origin)
	if err != nil || a.Key() != b.Key() || !strings.HasPrefix(a.Key(), origin+"+") {
		t.Errorf("%s, %s, %v", a.Key(), b.Key(), err)
	}
	if _, err := LoadKeyFile(path, "with space"); err == nil {
		t.Error("a bad origin is taken")
	}
	secret, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKeyFile(path, origin); err == nil || !strings.Contains(err.Error(), "chmod") {
		t.Errorf("mode 0640: %v", err)
	}
	for _, text := range []string{"", "x", strings.Replace(string(secret), "\nM", "\nN", 1)} {
		p := filepath.Join(t.TempDir(), "bad")
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := LoadKeyFile(p, origin)
		if err == nil || strings.Contains(err.Error(), "MC4C") {
			t.Errorf("%q: %v", text, err)
		}
	}
	// A key that was changed where it is kept signs nothing.
	other := newSigner(t)
	s, err := NewSigner(origin, edKey(t, a), other.sign)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (Checkpoint{Origin: origin}).Sign(s); err == nil {
		t.Error("a signature of another key is taken")
	}
}

// edKey is the public key in a signer's text form.
func edKey(t *testing.T, s *Signer) []byte {
	t.Helper()
	b := decode64(t, strings.SplitN(s.Key(), "+", 3)[2])
	return b[1:]
}

func TestBundles(t *testing.T) {
	entries := [][]byte{{}, []byte("a"), bytes.Repeat([]byte("b"), 65_535)}
	var b []byte
	var err error
	for _, e := range entries {
		if b, err = AppendEntry(b, e); err != nil {
			t.Fatal(err)
		}
	}
	got, err := SplitBundle(b)
	if err != nil || !slices.EqualFunc(got, entries, bytes.Equal) {
		t.Errorf("%d entries, %v", len(got), err)
	}
	if _, err := AppendEntry(nil, make([]byte, 65_536)); err == nil {
		t.Error("an entry that is too long is taken")
	}
	for name, bad := range map[string][]byte{
		"length cut": {0}, "entry cut": binary.BigEndian.AppendUint16(nil, 3), "too many": make([]byte, 2*257),
	} {
		if _, err := SplitBundle(bad); err == nil {
			t.Errorf("%s: is taken", name)
		}
	}
}

func TestPaths(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{TilePath(0, 0, 0), "tile/0/000"},
		{TilePath(1, 999, 256), "tile/1/999"},
		{TilePath(3, 1234067, 17), "tile/3/x001/x234/067.p/17"},
		{BundlePath(1000, 0), "tile/entries/x001/000"},
		{BundlePath(5, 1), "tile/entries/005.p/1"},
	} {
		if c.got != c.want {
			t.Errorf("%s, want %s", c.got, c.want)
		}
	}
}
