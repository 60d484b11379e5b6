package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// upTo gives 1 ms, 2 ms and so on.
func upTo(n int) (out []time.Duration) {
	for i := range n {
		out = append(out, time.Duration(i+1)*time.Millisecond)
	}
	return out
}

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		n    int
		q    float64
		want int // milliseconds
	}{
		{1, 0.5, 1}, {1, 0.99, 1}, {2, 0.5, 1}, {3, 0.5, 2}, {4, 0.5, 2}, {100, 0.5, 50}, {100, 0.99, 99},
		{101, 0.99, 100}, {1000, 0.99, 990}, {10, 0.99, 10}, {10, 0, 1}, {10, 1, 10},
	} {
		if got := quantile(upTo(c.n), c.q); got != time.Duration(c.want)*time.Millisecond {
			t.Errorf("quantile %g of 1 to %d is %s, want %d ms", c.q, c.n, got, c.want)
		}
	}
}

func TestMedian(t *testing.T) {
	in := []float64{9, 1, 5}
	for _, c := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{4}, 4}, {in, 5}, {[]float64{8, 2, 4, 100}, 6}} {
		if got := median(c.in); got != c.want {
			t.Errorf("median of %v is %g, want %g", c.in, got, c.want)
		}
	}
	if !slices.Equal(in, []float64{9, 1, 5}) {
		t.Errorf("median changed its argument to %v", in)
	}
	if got := median([]time.Duration{time.Second, 3 * time.Second}); got != 2*time.Second {
		t.Errorf("median of 1 s and 3 s is %s", got)
	}
}

func TestSummarize(t *testing.T) {
	in := upTo(100)
	slices.Reverse(in)
	got, err := summarize(in, 2*time.Second, usage{})
	if err != nil || got.rate != 50 || got.p50 != 50*time.Millisecond || got.p99 != 99*time.Millisecond || got.done != 100 {
		t.Errorf("summarize gives %+v, %v", got, err)
	}
	if _, err := summarize(nil, time.Second, usage{}); err == nil {
		t.Error("a round without operations is summarized")
	}
}

func TestPair(t *testing.T) {
	second := usage{known: true, daemon: time.Second}
	raw := []result{{rate: 1000}, {rate: 400}, {rate: 800}}
	service := []result{
		{rate: 500, p50: 3 * time.Millisecond, p99: 40 * time.Millisecond, done: 10, cost: second},
		{rate: 100, p50: 9 * time.Millisecond, p99: 90 * time.Millisecond, done: 20, cost: second},
		{rate: 200, p50: 5 * time.Millisecond, p99: 50 * time.Millisecond, done: 30, cost: second},
	}
	a, b := pair("raw_vault_wrap", "store", 64, 65536, raw, service)
	if a.RatePerS != 800 || a.Ratio != 0 || a.Name != "raw_vault_wrap" {
		t.Errorf("the raw row is %+v", a)
	}
	if b.RatePerS != 200 || b.Ratio != 0.25 || b.P50Ms != 5 || b.P99Ms != 50 || b.Clients != 64 || b.ImageBytes != 65536 {
		t.Errorf("the row of the service is %+v", b)
	}
	if b.low != 0.25 || b.high != 0.5 {
		t.Errorf("the ratios of rounds go from %g to %g, want 0.25 to 0.5", b.low, b.high)
	}
	if b.done != 60 || !b.cost.known || b.cost.daemon != 3*time.Second {
		t.Errorf("over all rounds: %d operations, %+v", b.done, b.cost)
	}
}

func TestJSON(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rows.json")
	a, b := pair("raw_vault_unwrap", "fetch", 1, 524288,
		[]result{{rate: 3000.00049, p50: 250 * time.Microsecond, p99: 2 * time.Millisecond}}, []result{{rate: 1500, p50: time.Millisecond, p99: 8 * time.Millisecond}})
	if err := writeJSON(file, []row{a, b}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got []map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	want := []map[string]any{
		{"name": "raw_vault_unwrap", "clients": 1.0, "image_bytes": 524288.0, "rate_per_s": 3000.0, "p50_ms": 0.25, "p99_ms": 2.0},
		{"name": "fetch", "clients": 1.0, "image_bytes": 524288.0, "rate_per_s": 1500.0, "p50_ms": 1.0, "p99_ms": 8.0, "ratio": 0.5},
	}
	if len(got) != len(want) {
		t.Fatalf("%d rows, want %d", len(got), len(want))
	}
	for i := range want {
		if len(got[i]) != len(want[i]) {
			t.Errorf("row %d has fields %v, want %v", i, got[i], want[i])
		}
		for k, v := range want[i] {
			if got[i][k] != v {
				t.Errorf("row %d: %s is %v, want %v", i, k, got[i][k], v)
			}
		}
	}
	if left, err := os.ReadDir(filepath.Dir(file)); err != nil || len(left) != 1 {
		t.Errorf("beside the rows lie %v, %v", left, err)
	}
	if err := writeJSON(filepath.Join(t.TempDir(), "absent", "rows.json"), nil); err == nil || !strings.Contains(err.Error(), "BENCH_JSON") {
		t.Errorf("a folder that is absent gives %v", err)
	}
}
