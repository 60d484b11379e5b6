package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// row is one line of the result, as BENCH_JSON has it.
type row struct {
	Name       string  `json:"name"` // raw_vault_wrap, store, raw_vault_unwrap, fetch, fetch_without_log, log_export or log_verify
	Clients    int     `json:"clients"`
	ImageBytes int     `json:"image_bytes"` // asked for; the images are within 2% of it; 0 where none are handled
	RatePerS   float64 `json:"rate_per_s"`  // images or keys; events of log_export and log_verify, whose latencies are of 256
	P50Ms      float64 `json:"p50_ms"`
	P99Ms      float64 `json:"p99_ms"`
	// Ratio is the row's rate by that of the raw row beside it; raw rows have none.
	Ratio float64 `json:"ratio,omitempty"`

	low, high float64 // the least and the greatest ratio of a round
	cost      usage   // of all rounds
	done      int     // operations of all rounds
}

// result is what one round gave.
type result struct {
	rate     float64 // operations a second
	p50, p99 time.Duration
	done     int
	cost     usage
}

// summarize makes a result of the latencies of a round's counted operations.
func summarize(latencies []time.Duration, window time.Duration, cost usage) (result, error) {
	if len(latencies) == 0 {
		return result{}, errors.New("no operation ended within a round: give it more -seconds")
	}
	slices.Sort(latencies)
	return result{
		rate: float64(len(latencies)) / window.Seconds(),
		p50:  quantile(latencies, 0.50), p99: quantile(latencies, 0.99),
		done: len(latencies), cost: cost,
	}, nil
}

// quantile gives the nearest rank: the least value that at least the share q of all does
// not exceed. sorted must hold something, in rising order.
func quantile(sorted []time.Duration, q float64) time.Duration {
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// median gives the middle value, or the mean of the two in the middle; 0 of nothing.
func median[T float64 | time.Duration](in []T) T {
	if len(in) == 0 {
		return 0
	}
	in = slices.Sorted(slices.Values(in))
	mid := len(in) / 2
	if len(in)%2 == 1 {
		return in[mid]
	}
	return (in[mid-1] + in[mid]) / 2
}

// rowOf gives the medians of rounds.
func rowOf(name string, clients, size int, rounds []result) row {
	r := row{Name: name, Clients: clients, ImageBytes: size}
	var rate []float64
	var p50, p99 []time.Duration
	var costs []usage
	for _, x := range rounds {
		rate, p50, p99 = append(rate, x.rate), append(p50, x.p50), append(p99, x.p99)
		costs = append(costs, x.cost)
		r.done += x.done
	}
	r.cost = total(costs)
	r.RatePerS, r.P50Ms, r.P99Ms = thousandth(median(rate)), thousandth(ms(median(p50))), thousandth(ms(median(p99)))
	return r
}

// pair gives the rows of a raw and a service measurement whose rounds took turns.
func pair(raw, service string, clients, size int, rawRounds, rounds []result) (a, b row) {
	a, b = rowOf(raw, clients, size, rawRounds), rowOf(service, clients, size, rounds)
	b.Ratio = thousandth(b.RatePerS / a.RatePerS)
	for i := range min(len(rounds), len(rawRounds)) {
		ratio := rounds[i].rate / rawRounds[i].rate
		if i == 0 || ratio < b.low {
			b.low = ratio
		}
		b.high = max(b.high, ratio)
	}
	return a, b
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func thousandth(f float64) float64 { return math.Round(f*1000) / 1000 }

// writeJSON writes the rows as an array, so that the file is there complete or not at all.
func writeJSON(file string, rows []row) (err error) {
	text, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return fmt.Errorf("BENCH_JSON: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*")
	if err != nil {
		return fmt.Errorf("BENCH_JSON: %w", err)
	}
	defer os.Remove(f.Name()) // nothing is there after the rename
	_, err = f.Write(append(text, '\n'))
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return fmt.Errorf("BENCH_JSON: %w", err)
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return fmt.Errorf("BENCH_JSON: %w", err)
	}
	return nil
}
