package main

import (
	"bytes"
	"image/jpeg"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portcullis/portcullis/internal/imaging"
)

func TestParse(t *testing.T) {
	o, err := parse(nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(o.clients, []int{1, 64}) || !slices.Equal(o.sizes, []int{64 << 10, 512 << 10}) || o.rounds != 3 {
		t.Errorf("by default: %+v", o)
	}
	o, err = parse([]string{"-rounds", "2", "-seconds", "0.5", "-clients", "1, 8,16", "-sizes", "4", "-dir", "."}, io.Discard)
	if err != nil || !slices.Equal(o.clients, []int{1, 8, 16}) || !slices.Equal(o.sizes, []int{4096}) || o.window != 500*time.Millisecond || !filepath.IsAbs(o.dir) {
		t.Errorf("parsed: %+v, %v", o, err)
	}
	for _, bad := range [][]string{
		{"-rounds", "0"}, {"-rounds", "51"}, {"-seconds", "0"}, {"-seconds", "61"}, {"-seconds", "NaN"}, {"-clients", ""}, {"-clients", "0"},
		{"-clients", "257"}, {"-clients", "1,x"}, {"-clients", "2,1"}, {"-clients", "1,1"}, {"-sizes", "5000"}, {"-sizes", "1,2,3,4,5,6,7,8,9"}, {"more"},
	} {
		if _, err := parse(bad, io.Discard); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestNoise(t *testing.T) {
	for _, size := range []int{4 << 10, 64 << 10, 512 << 10} {
		images, err := drawNoise(size)
		if err != nil {
			t.Fatal(err)
		}
		for i, raw := range images {
			if off := math.Abs(float64(len(raw))/float64(size) - 1); off > 0.02 {
				t.Errorf("an image of %d bytes for %d", len(raw), size)
			}
			if i > 0 && bytes.Equal(raw, images[0]) {
				t.Error("two images are the same")
			}
			if _, err := jpeg.Decode(bytes.NewReader(raw)); err != nil {
				t.Error(err)
			}
			clean, err := imaging.Clean(raw, imaging.Limits{})
			if err != nil || len(clean.Bytes) < len(raw)*9/10 {
				t.Errorf("of %d bytes the service keeps %d, %v", len(raw), len(clean.Bytes), err)
			}
		}
	}
}

func TestShare(t *testing.T) {
	all := make([]int, 103)
	for i := range all {
		all[i] = i
	}
	for _, clients := range []int{1, 2, 64, 103} {
		var got []int
		for i := range clients {
			own := share(all, i, clients)
			if len(own) == 0 {
				t.Errorf("client %d of %d has nothing to do", i, clients)
			}
			got = append(got, own...)
		}
		if !slices.Equal(got, all) {
			t.Errorf("%d clients share %v", clients, got)
		}
	}
}

func TestMachineTime(t *testing.T) {
	file := filepath.Join(t.TempDir(), "stat")
	if err := os.WriteFile(file, []byte("cpu  100 1 20 3000 40 5 6 7 800 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	busy, waiting, passed, err := machineTime(file)
	if err != nil || busy != 139*tick || waiting != 40*tick || passed != 3179*tick {
		t.Errorf("busy %s, waiting %s, passed %s, %v", busy, waiting, passed, err)
	}
	if err := os.WriteFile(file, []byte("intr 1 2 3 4 5 6 7 8 9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := machineTime(file); err == nil {
		t.Error("another file is taken for that of the machine")
	}
}

func TestStatFields(t *testing.T) {
	file := filepath.Join(t.TempDir(), "stat")
	// A program may be called anything.
	text := "42 (a) R 1 (b) S 7 42 42 0 -1 4194304 1 2 3 4 150 60 0 0 20 0\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := statFields(file)
	if err != nil || got[0] != "S" || got[1] != "7" || got[11] != "150" || got[12] != "60" {
		t.Errorf("fields %q, %v", got, err)
	}
}

func TestUsage(t *testing.T) {
	from := usage{known: true, bench: 1, daemon: 2, vault: 3, kernel: 1, busy: 10, waiting: 1, passed: 20}
	to := usage{known: true, bench: 11, daemon: 22, vault: 33, kernel: 11, busy: 110, waiting: 3, passed: 220}
	want := usage{known: true, bench: 10, daemon: 20, vault: 30, kernel: 10, busy: 100, waiting: 2, passed: 200}
	if got := to.minus(from); got != want {
		t.Errorf("the difference is %+v", got)
	}
	if got := total([]usage{from, want}); got != to {
		t.Errorf("the sum is %+v", got)
	}
	if total([]usage{from, {}}).known {
		t.Error("the sum with what is not known is known")
	}
	if to.minus(usage{}).known {
		t.Error("the difference with what is not known is known")
	}
}

func TestWords(t *testing.T) {
	const size = 64 << 10
	half := []time.Duration{500 * time.Microsecond}
	p := &parts{sync: half, put: half, commit: half, seal: half, open: half, putCrowd: half, commitCrowd: half}
	cost := usage{known: true, daemon: 2 * time.Second, kernel: time.Second, vault: 3 * time.Second, bench: time.Second, busy: 9 * time.Second, waiting: time.Second, passed: 10 * time.Second}
	idle := usage{known: true}
	r := &run{
		options: options{clients: []int{1, 64}, sizes: []int{size}},
		probe:   &probe{byKey: map[probeKey]*parts{{1, size}: p, {64, size}: p}},
	}
	for _, n := range r.clients {
		r.rows = append(r.rows,
			row{Name: "raw_vault_wrap", Clients: n, ImageBytes: size, RatePerS: 500, P50Ms: 2, cost: idle},
			row{Name: "store", Clients: n, ImageBytes: size, RatePerS: 200, P50Ms: 5, cost: cost, done: 1000},
			row{Name: "raw_vault_unwrap", Clients: n, ImageBytes: size, RatePerS: 2000, P50Ms: 0.5, cost: idle},
			row{Name: "fetch", Clients: n, ImageBytes: size, RatePerS: 1000, P50Ms: 1, cost: usage{known: true, busy: 1, passed: 2}, done: 10})
	}
	got := r.words()
	if len(got) != 5 {
		t.Fatalf("%d sentences, want 5: %q", len(got), got)
	}
	for i, want := range [][]string{
		{"store, clients: 1. 64 KiB: 5.00 ms (p50) = key made and wrapped by Vault 2.00 (40%)", "the rest, such as gRPC and TLS, 1.50 (30%)"},
		{
			"store, clients: 64.", "an image every 5.00 ms; the cores are the limit (90% busy, 10% idle for the disk)",
			"CPU for each: Vault 3.00 ms, portcullisd (50% of it in the kernel) 2.00 ms, the clients 1.00 ms",
			"as crowded: Vault 2.00 ms, transactions 0.50 ms, ciphertext to disk 0.50 ms.",
		},
		{"fetch, clients: 1. 64 KiB: 1.00 ms (p50) = ", "less what overlaps"},
		{"fetch, clients: 64.", "it waits more than it computes (50% busy"},
		{"takes 0.50 ms (p50) on this disk", "other programs had 30% of all CPU time"},
	} {
		for _, w := range want {
			if !strings.Contains(got[i], w) {
				t.Errorf("sentence %d lacks %q: %s", i+1, w, got[i])
			}
		}
	}
}

func TestLogWords(t *testing.T) {
	const size = 64 << 10
	without := row{Name: "fetch_without_log", Clients: 64, ImageBytes: size, RatePerS: 1000, cost: usage{known: true, daemon: 4 * time.Second}, done: 8000}
	with := row{Name: "fetch", Clients: 64, ImageBytes: size, RatePerS: 900, Ratio: 0.9, low: 0.8, high: 1.1, cost: usage{known: true, daemon: 6 * time.Second}, done: 8000}
	r := &run{options: options{window: 1200 * time.Millisecond}, logCosts: []row{with}, logSize: 100_001, logBytes: 40e6, rows: []row{with, without, {Name: "log_export", Clients: 1, RatePerS: 50_000.5}, {Name: "log_verify", Clients: 1, RatePerS: 200_002}}}
	got := r.logWords()
	if len(got) != 4 {
		t.Fatalf("%d sentences, want 4: %q", len(got), got)
	}
	for i, want := range []string{
		"clients: 64, 64 KiB: 900 against 1000, which is 0.90 of it (in rounds 0.80-1.10; CPU of portcullisd for each image 0.75 ms against 0.50)",
		"its tree grows each 2.2s (audit.sign_every), and a round is of 1.2s and lies between two steps", "log_export: 100001 events (40 MB as exported) take 2.0 s", "log_verify: 100001 events (40 MB as exported) take 0.5 s",
	} {
		if !strings.Contains(got[i], want) {
			t.Errorf("sentence %d lacks %q: %s", i+1, want, got[i])
		}
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	if err := table(&b, []row{{Name: "store", Clients: 64, ImageBytes: 512 << 10, RatePerS: 301.6, P50Ms: 1.234, P99Ms: 9.9, Ratio: 0.25, low: 0.2, high: 0.3}}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	if got := strings.Join(strings.Fields(lines[1]), " "); got != "store 64 512 302 1.23 9.90 0.25 0.20-0.30" {
		t.Errorf("the row reads %q", got)
	}
}

func TestWrap(t *testing.T) {
	text := strings.Repeat("word ", 60)
	got := wrap("- "+text, "  ")
	for i, line := range strings.Split(got, "\n") {
		if len(line) > width || (i > 0 && !strings.HasPrefix(line, "  word")) {
			t.Errorf("line %d: %q", i, line)
		}
	}
	if strings.Join(strings.Fields(got), " ") != "- "+strings.TrimSpace(text) {
		t.Errorf("the text has become %q", got)
	}
}
