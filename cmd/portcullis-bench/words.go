package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// part is one thing that takes time, in milliseconds.
type part struct {
	what string
	ms   float64
}

// words says in five sentences or so where the time goes, from what was measured.
func (r *run) words() (out []string) {
	clients := slices.Compact([]int{r.clients[0], r.clients[len(r.clients)-1]})
	sizes := slices.Compact([]int{r.sizes[0], r.sizes[len(r.sizes)-1]})
	for _, kind := range []struct{ raw, name string }{{"raw_vault_wrap", "store"}, {"raw_vault_unwrap", "fetch"}} {
		for _, n := range clients {
			said := fmt.Sprintf("%s, clients: %d.", kind.name, n)
			for _, size := range sizes {
				tell := crowd
				if n == 1 {
					tell = alone
				}
				said += fmt.Sprintf(" %d KiB: ", size>>10) + tell(r.row(kind.raw, n, size), r.row(kind.name, n, size), r.probe.of(n, size))
			}
			out = append(out, said)
		}
	}
	return append(out, surroundings(r.probe.syncs(), r.rows))
}

// logWords says what the log costs those who fetch, and how fast an auditor has all of it.
func (r *run) logWords() (out []string) {
	said := "Releases a second with the log against without:"
	for i, c := range r.logCosts {
		if i > 0 {
			said += ";"
		}
		without := r.row("fetch_without_log", c.Clients, c.ImageBytes)
		said += fmt.Sprintf(" clients: %d, %d KiB: %.0f against %.0f, which is %.2f of it (in rounds %.2f-%.2f",
			c.Clients, c.ImageBytes>>10, c.RatePerS, without.RatePerS, c.Ratio, c.low, c.high)
		if c.cost.known && without.cost.known && c.done > 0 && without.done > 0 {
			said += fmt.Sprintf("; CPU of portcullisd for each image %.2f ms against %.2f", ms(c.cost.daemon)/float64(c.done), ms(without.cost.daemon)/float64(without.done))
		}
		said += ")"
	}
	out = append(out, said+". A ratio over 1 is noise: so much the rounds differ by themselves.",
		"Without the log means that events are written as ever, since no image leaves before its event is durable, and that "+
			"no tree is hashed, signed and stored over them meanwhile. "+
			fmt.Sprintf("It is measured at a second service with a Vault of its own and as many of the same images to fetch, by turns with the first: "+
				"its tree grows each %s (audit.sign_every), and a round is of %s and lies between two steps. ", signEvery(r.window), min(r.window, mostStill))+
			"At the first service the tree grows beside the releases, ten times a second: a "+
			"release does not wait for its event to be hashed, it reads how far the tree is behind; but the two share the cores "+
			"and the one writer of the database.")
	for _, name := range []string{"log_export", "log_verify"} {
		i := slices.IndexFunc(r.rows, func(x row) bool { return x.Name == name })
		if i < 0 {
			continue
		}
		how := "over the service's API, each event proved to belong to the signed checkpoint, all of it synced to disk"
		if name == "log_verify" {
			how = "offline, from the export alone"
		}
		out = append(out, fmt.Sprintf("%s: %.0f events (%.0f MB as exported) take %.1f s, %s. The latencies are those of 256 events.",
			name, float64(r.logSize), float64(r.logBytes)/1e6, float64(r.logSize)/r.rows[i].RatePerS, how))
	}
	return out
}

func (r *run) row(name string, clients, size int) row {
	i := slices.IndexFunc(r.rows, func(x row) bool { return x.Name == name && x.Clients == clients && x.ImageBytes == size })
	return r.rows[i] // all were measured
}

// alone splits the latency of one client's calls, whose parts follow each other.
func alone(raw, r row, p *parts) string {
	var all []part
	if r.Name == "store" {
		all = []part{
			{"key made and wrapped by Vault", raw.P50Ms}, {"ciphertext to disk", ms(median(p.put))},
			{"transaction", ms(median(p.commit))}, {"clean and seal", ms(median(p.seal))},
		}
	} else {
		all = []part{
			{"transaction", ms(median(p.commit))}, {"key unwrapped by Vault", raw.P50Ms}, {"read and open", ms(median(p.open))},
		}
	}
	return fmt.Sprintf("%.2f ms (p50) = %s.", r.P50Ms, split(all, r.P50Ms))
}

// full is the share of busy cores, in percent, from which they count as the limit.
const full = 85

// crowd tells what limits many clients: whose CPU an image takes, and what its parts take
// when as many callers do nothing else.
func crowd(raw, r row, p *parts) string {
	each := 1000 / r.RatePerS
	s := fmt.Sprintf("an image every %.2f ms", each)
	if r.cost.known && r.done > 0 {
		cpu := func(d time.Duration) float64 { return ms(d) / float64(r.done) }
		busy, waiting := percent(r.cost.busy, r.cost.passed), percent(r.cost.waiting, r.cost.passed)
		verdict := "it waits more than it computes"
		if busy >= full {
			verdict = "the cores are the limit"
		}
		whose := []part{
			{fmt.Sprintf("portcullisd (%.0f%% of it in the kernel)", percent(r.cost.kernel, r.cost.daemon)), cpu(r.cost.daemon)},
			{"Vault", cpu(r.cost.vault)}, {"the clients", cpu(r.cost.bench)},
		}
		s += fmt.Sprintf("; %s (%.0f%% busy, %.0f%% idle for the disk). CPU for each: %s", verdict, busy, waiting, named(whose))
	}
	apart := []part{{"Vault", 1000 / raw.RatePerS}, {"transactions", ms(median(p.commitCrowd))}}
	if r.Name == "store" {
		apart = append(apart, part{"ciphertext to disk", ms(median(p.putCrowd))})
	}
	return s + fmt.Sprintf(". Each part by itself, as crowded: %s.", named(apart))
}

// surroundings says what the disk costs, and how much of the machine others had.
func surroundings(sync time.Duration, rows []row) string {
	s := fmt.Sprintf("Around it: making 4 KiB durable (write and fsync) takes %.2f ms (p50) on this disk, with nothing else at work", ms(sync))
	var costs []usage
	for _, r := range rows {
		costs = append(costs, r.cost)
	}
	if u := total(costs); u.known {
		others := max(0, u.busy-u.bench-u.daemon-u.vault)
		s += fmt.Sprintf("; other programs had %.0f%% of all CPU time during the rounds, the one of the two services that was not measured among them", percent(others, u.passed))
	}
	return s + ". The probes of disk and transactions use the service's own code, on its disk."
}

// split lists the parts, the largest first, with their shares of all, and what is left.
func split(parts []part, all float64) string {
	rank(parts)
	rest := all
	var out []string
	for _, p := range parts {
		rest -= p.ms
		out = append(out, fmt.Sprintf("%s %.2f (%.0f%%)", p.what, p.ms, 100*p.ms/all))
	}
	if rest < 0 { // medians do not add up, and parts overlap
		return strings.Join(out, " + ") + ", less what overlaps"
	}
	return strings.Join(out, " + ") + fmt.Sprintf(" + the rest, such as gRPC and TLS, %.2f (%.0f%%)", rest, 100*rest/all)
}

func rank(parts []part) {
	slices.SortStableFunc(parts, func(a, b part) int { return cmp.Compare(b.ms, a.ms) })
}

// named lists the parts, the largest first.
func named(parts []part) string {
	rank(parts)
	var out []string
	for _, p := range parts {
		out = append(out, fmt.Sprintf("%s %.2f ms", p.what, p.ms))
	}
	return strings.Join(out, ", ")
}

func percent(part, all time.Duration) float64 {
	if all <= 0 {
		return 0
	}
	return 100 * float64(part) / float64(all)
}
