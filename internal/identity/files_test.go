package identity

import (
	"bytes"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// clock is turned by hand, from any goroutine.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

func TestFilesFollowTheirFiles(t *testing.T) {
	a, b := newCA(t), newCA(t)
	first, second := a.server(), a.server()
	p := a.write(first)
	var c clock
	f, err := loadFiles(p.cert, p.key, p.bundle, c.now)
	if err != nil {
		t.Fatal(err)
	}
	serves := func(want leaf) bool {
		return bytes.Equal(f.Certificate().Certificate[0], want.tls.Certificate[0])
	}
	roots := f.Roots()

	put(t, p.cert, second.certPEM)
	if !serves(first) {
		t.Error("read again before a second has passed")
	}
	c.advance(CheckEvery)
	if !serves(first) || f.Err() == nil {
		t.Errorf("a certificate without its key: taken, or no word of it (%v)", f.Err())
	}
	if strings.Contains(f.Err().Error(), "PRIVATE") {
		t.Error("the error holds key material")
	}
	put(t, p.key, second.pkey)
	c.advance(CheckEvery)
	if !serves(second) || f.Err() != nil {
		t.Errorf("the whole pair: not taken, or an error stays (%v)", f.Err())
	}
	if f.Roots() != roots {
		t.Error("the bundle is another although its file did not change")
	}

	whole := bundle(a, b)
	inFirst, inSecond := whole[:len(a.pem)/2], whole[:len(whole)-40]
	for name, content := range map[string][]byte{
		"cut off in the first": inFirst, "cut off in the second": inSecond, "empty": nil,
		"a key":            second.pkey,
		"not an authority": second.certPEM,
		"huge":             bytes.Repeat([]byte("#"), maxFile+1),
	} {
		// In place, as a careless copy does it.
		if err := os.WriteFile(p.bundle, content, 0o600); err != nil {
			t.Fatal(err)
		}
		c.advance(CheckEvery)
		if f.Roots() != roots || f.Err() == nil {
			t.Errorf("bundle %s: taken, or no word of it (%v)", name, f.Err())
		}
	}
	if err := os.Remove(p.bundle); err != nil {
		t.Fatal(err)
	}
	c.advance(CheckEvery)
	if f.Roots() != roots || f.Err() == nil {
		t.Errorf("bundle gone: dropped, or no word of it (%v)", f.Err())
	}
	put(t, p.bundle, whole)
	c.advance(CheckEvery)
	if f.Roots() == roots || f.Err() != nil {
		t.Errorf("the whole bundle: not taken, or an error stays (%v)", f.Err())
	}
}

func TestLoadFilesRefuses(t *testing.T) {
	a := newCA(t)
	for name, change := range map[string]func(p *paths){
		"no certificate":  func(p *paths) { p.cert += "x" },
		"no key":          func(p *paths) { p.key += "x" },
		"no bundle":       func(p *paths) { p.bundle += "x" },
		"another's key":   func(p *paths) { put(t, p.key, a.server().pkey) },
		"a broken bundle": func(p *paths) { put(t, p.bundle, []byte("-----BEGIN CERTIFICATE-----\n")) },
	} {
		t.Run(name, func(t *testing.T) {
			p := a.write(a.server())
			change(&p)
			if _, err := LoadFiles(p.cert, p.key, p.bundle); err == nil {
				t.Error("loaded")
			}
		})
	}
}
