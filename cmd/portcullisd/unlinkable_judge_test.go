package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// judge knows the truth: which crossing a handle is of, and its bucket. From it attackers learn
// the buckets alone, which they see.
type judge struct {
	of     int // crossings of which both halves were seen
	truth  map[*sight]int
	record map[*sight]vault.Record
	named  map[string]bucket // by site, time and wave
	order  []string
}

// judge looks behind the handles of two contractors, or of one grant with both.
func (d *day) judge(p vault.Purpose, faces, plates *spy) *judge {
	d.t.Helper()
	j := &judge{truth: map[*sight]int{}, record: map[*sight]vault.Record{}, named: map[string]bucket{}}
	records := map[vault.ID]vault.Record{}
	rows, err := openSQL(d.t, d.cfg.Store.Path).QueryContext(d.t.Context(), "SELECT id, site, modality, captured_at, stored_at FROM records")
	noError(d.t, err)
	defer rows.Close()
	for rows.Next() {
		var r vault.Record
		var name string
		var captured, stored int64
		noError(d.t, rows.Scan(&name, &r.Site, &r.Modality, &captured, &stored))
		r.ID, r.CapturedAt, r.StoredAt = mustID(d.t, name), time.UnixMicro(captured).UTC(), time.UnixMicro(stored).UTC()
		records[r.ID] = r
	}
	noError(d.t, rows.Err())
	p.Linkage = false // so that there are buckets
	if p.Precision == vault.PrecisionExact {
		p.Precision = vault.PrecisionHour
	}
	for _, y := range slices.Compact([]*spy{faces, plates}) {
		var raw []byte
		noError(d.t, openSQL(d.t, d.cfg.Store.Path).QueryRowContext(d.t.Context(), "SELECT handle_key FROM grants WHERE id = $1", id(y.grant)).Scan(&raw))
		key := vault.HandleKey(raw)
		for _, s := range y.seen {
			r, known := records[key.Record(s.handle)]
			crossing, mine := d.records[r.ID]
			if !known || !mine {
				d.t.Fatalf("handle %s is of no record", s.handle)
			}
			j.truth[s], j.record[s] = crossing, r
			b, _ := p.Bucket(r)
			name := fmt.Sprintf("%s %s, stored before %s", b.Site, vault.FormatTime(b.From), vault.FormatTime(b.Below))
			sides := j.named[name]
			if r.Modality == vault.Face {
				sides.faces = append(sides.faces, s)
			} else {
				sides.plates = append(sides.plates, s)
			}
			j.named[name] = sides
		}
	}
	for name := range j.named {
		j.order = append(j.order, name)
	}
	slices.Sort(j.order)
	whole := map[int]bool{}
	for _, a := range j.sights(vault.Face) {
		whole[j.truth[a]] = true
	}
	for _, b := range j.sights(vault.Plate) {
		if whole[j.truth[b]] {
			j.of++
		}
	}
	for _, b := range j.named { // what comes from a map says nothing
		for _, side := range [][]*sight{b.faces, b.plates} {
			slices.SortFunc(side, func(a, b *sight) int { return strings.Compare(a.handle.String(), b.handle.String()) })
		}
	}
	return j
}

// sights are all of a modality.
func (j *judge) sights(m vault.Modality) (out []*sight) {
	for s, r := range j.record {
		if r.Modality == m {
			out = append(out, s)
		}
	}
	return out
}

func (j *judge) same(f, p *sight) bool { return j.truth[f] == j.truth[p] }

// pots are the buckets as chance sees them.
func (j *judge) pots(in []bucket) (out []pot) {
	for _, b := range in {
		p := pot{len(b.faces), len(b.plates), 0}
		here := map[int]bool{}
		for _, f := range b.faces {
			here[j.truth[f]] = true
		}
		for _, s := range b.plates {
			if here[j.truth[s]] {
				p.pairs++
			}
		}
		out = append(out, p)
	}
	return out
}

func (j *judge) buckets() (out []bucket) {
	for _, name := range j.order {
		out = append(out, j.named[name])
	}
	return out
}

// verdict is what an attack came to.
type verdict struct {
	name      string
	right, of int
	chance    float64
	least     int  // right guesses that would be too many
	sloped    bool // it goes by one number
	trend     float64
	steep     bool
}

func (v verdict) bad() bool { return v.right >= v.least || v.steep }

// joined counts the right ones of a guess.
func (j *judge) joined(b bucket, guess []int) (right int) {
	used := map[int]bool{}
	for f, p := range guess {
		if p < 0 {
			continue
		}
		if used[p] {
			panic("a plate was given twice")
		}
		if used[p] = true; j.same(b.faces[f], b.plates[p]) {
			right++
		}
	}
	return right
}

// runs is in how many measurements attacks are tried: for this many tests at once the intervals
// are wide enough.
const runs = 2

// try lets every attack join, and measures it.
func (j *judge) try(t *testing.T, rnd *rand.Rand) (out []verdict) {
	t.Helper()
	all := j.buckets()
	list := attacks()
	tests := runs * (len(list) + 1)
	pots := j.pots(all)
	z, alarms := width(j.of, pots, tests)
	steep := steepest(tests)
	for _, a := range list {
		v := verdict{name: a.name, of: j.of, chance: chance(pots), least: tooMany(j.of, chance(pots), z)}
		var tr trend
		for _, b := range all {
			v.right += j.joined(b, a.join(b, rnd))
			if a.clue != nil {
				tr.add(j.paired(b, a.clue))
			}
		}
		v.sloped, v.trend = a.clue != nil, tr.z()
		v.steep = v.trend > steep || v.trend < -steep
		out = append(out, v)
	}
	v, halves := j.learned(all, rnd)
	learnedZ, learnedAlarms := width(j.of, halves, tests)
	v.least = tooMany(j.of, v.chance, learnedZ)
	out = append(out, v)
	t.Logf("%d crossings in %d buckets; %d tests; too many is %d of chance %.2f (interval of z %.2f, false alarms %.1e), %d where it is learned (%.2f, z %.2f, %.1e), a trend of %.2f",
		j.of, len(all), tests, out[0].least, chance(pots), z, alarms, v.least, v.chance, learnedZ, learnedAlarms, steep)
	return out
}

// paired gives the ranks by a clue of the pairs in a bucket.
func (j *judge) paired(b bucket, clue func(*sight) float64) (faces, plates []float64) {
	f, p := ranked(b.faces, clue), ranked(b.plates, clue)
	plate := map[int]*sight{}
	for _, s := range b.plates {
		plate[j.truth[s]] = s
	}
	for _, s := range b.faces {
		if other := plate[j.truth[s]]; other != nil {
			faces, plates = append(faces, f[s]), append(plates, p[other])
		}
	}
	return faces, plates
}

// learned teaches an attack one half of the crossings and lets it join the other, both ways round.
func (j *judge) learned(all []bucket, rnd *rand.Rand) (v verdict, pots []pot) {
	v = verdict{name: learning, of: j.of}
	toss := map[int]int{}
	var halves [2][]bucket
	for _, b := range all {
		var parts [2]bucket
		half := func(s *sight) int {
			crossing := j.truth[s]
			if _, known := toss[crossing]; !known {
				toss[crossing] = rnd.IntN(2)
			}
			return toss[crossing]
		}
		for _, f := range b.faces {
			parts[half(f)].faces = append(parts[half(f)].faces, f)
		}
		for _, p := range b.plates {
			parts[half(p)].plates = append(parts[half(p)].plates, p)
		}
		for i := range parts {
			halves[i] = append(halves[i], parts[i])
		}
	}
	for i := range halves {
		a := learned(halves[1-i], j.same, rnd)
		for _, b := range halves[i] {
			v.right += j.joined(b, a.join(b, rnd))
		}
		pots = append(pots, j.pots(halves[i])...)
	}
	v.chance = chance(pots)
	return v, pots
}

// table writes verdicts for people.
func table(title string, all []verdict) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%-46s %6s %6s %8s   %-18s %6s\n", title, "strategy", "right", "of", "chance", "95 % interval", "trend")
	for _, v := range all {
		low, high := wilson(v.right, v.of, 1.96)
		mark, slope := "", "-"
		if v.sloped {
			slope = fmt.Sprintf("%+.1f", v.trend)
		}
		if v.bad() {
			mark = "  above chance"
		}
		fmt.Fprintf(&b, "%-46s %6d %6d %7.2f%%   %5.2f%% to %6.2f%% %6s%s\n", v.name, v.right, v.of, 100*v.chance/float64(v.of), 100*low, 100*high, slope, mark)
	}
	return b.String()
}
