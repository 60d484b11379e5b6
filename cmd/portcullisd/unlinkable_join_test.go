package main

import (
	"cmp"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/portcullis/portcullis/vault"
)

// bucket is what two contractors have of one site and time bucket.
type bucket struct{ faces, plates []*sight }

// attack is what an attacker does to join faces with plates: for each bucket it gives the plate
// for each face, -1 for none, and none twice. It knows no more than the sights. Where it can not
// decide it draws lots.
type attack struct {
	name string
	join func(bucket, *rand.Rand) []int
	// clue is what it goes by, if that is one number: of this the trend is measured, too.
	clue func(*sight) float64
}

// clues are all facts of a record that are numbers.
var clues = []struct {
	name string
	of   func(*sight) float64
}{
	{"order in the listing", func(s *sight) float64 { return float64(s.pos) }},
	{"place on its page", func(s *sight) float64 { return float64(s.inPage) }},
	{"poll at which it appeared", func(s *sight) float64 { return float64(s.poll)*1e6 + float64(s.pollPos) }},
	{"time of capture as told", func(s *sight) float64 { return float64(s.told.UnixMicro()) }},
	{"size of the image", func(s *sight) float64 { return float64(s.size) }},
	{"time that its fetch took", func(s *sight) float64 { return float64(s.took) }},
	{"time that its second fetch took", func(s *sight) float64 { return float64(s.again) }},
	{"shorter of both", func(s *sight) float64 { return float64(min(s.took, s.again)) }},
	{"log's size with the image", func(s *sight) float64 { return float64(s.fetchLog) }},
	{"log's size when it appeared", func(s *sight) float64 { return float64(s.pollLog) }},
	{"type and orientation", func(s *sight) float64 { return float64(s.kind) }},
	{"low bytes of the handle", func(s *sight) float64 { return float64(uint16(s.handle[14])<<8 | uint16(s.handle[15])) }},
	{"bytes of its page's token", func(s *sight) float64 { return float64(number(s.token)) }},
}

func number(s string) (n uint64) {
	for i := range min(8, len(s)) {
		n = n<<8 | uint64(s[i])
	}
	return n >> 11 // what a float holds exactly
}

// attacks are all but the one that learns.
func attacks() (out []attack) {
	for _, c := range clues {
		out = append(out, attack{name: c.name, clue: c.of, join: func(b bucket, rnd *rand.Rand) []int { return inOrder(b, rnd, c.of) }})
	}
	nearest := func(name string, cost func(f, p *sight) float64) {
		out = append(out, attack{name: name, join: func(b bucket, rnd *rand.Rand) []int { return byCost(b, rnd, cost) }})
	}
	nearest("handles that differ in the fewest bits", func(f, p *sight) float64 { return float64(differ(f.handle, p.handle)) })
	nearest("page tokens that differ in the fewest bytes", func(f, p *sight) float64 { return float64(unlike(f.token, p.token)) })
	nearest("time told, nearest", func(f, p *sight) float64 { return math.Abs(f.told.Sub(p.told).Seconds() + 0.4) }) // the plate comes after the face
	nearest("handle of the crossing", func(f, p *sight) float64 {
		if f.crossing != "" && f.crossing == p.crossing {
			return 0
		}
		return 1
	})
	return out
}

func differ(a, b vault.Handle) (n int) {
	for i := range a {
		n += bits.OnesCount8(a[i] ^ b[i])
	}
	return n
}

func unlike(a, b string) (n int) {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			n++
		}
	}
	return n
}

// inOrder puts faces and plates in the order of a clue and joins first with first. Where one side
// has more, it spreads the other over it.
func inOrder(b bucket, rnd *rand.Rand, clue func(*sight) float64) []int {
	faces, plates := ordered(b.faces, rnd, clue), ordered(b.plates, rnd, clue)
	out := make([]int, len(faces))
	for i := range out {
		out[i] = -1
	}
	for i := range min(len(faces), len(plates)) {
		f, p := i, i
		if len(faces) < len(plates) {
			p = i * len(plates) / len(faces)
		} else {
			f = i * len(faces) / len(plates)
		}
		out[faces[f]] = plates[p]
	}
	return out
}

func ordered(s []*sight, rnd *rand.Rand, clue func(*sight) float64) []int {
	out := rnd.Perm(len(s)) // equal ones in an order that says nothing
	slices.SortStableFunc(out, func(a, b int) int { return cmp.Compare(clue(s[a]), clue(s[b])) })
	return out
}

// byCost gives each face the plate of least cost that is left.
func byCost(b bucket, rnd *rand.Rand, cost func(f, p *sight) float64) []int {
	out := make([]int, len(b.faces))
	left := rnd.Perm(len(b.plates))
	for _, f := range rnd.Perm(len(b.faces)) {
		out[f] = -1
		best := -1
		least := math.Inf(1)
		for i, p := range left {
			if c := cost(b.faces[f], b.plates[p]); c < least {
				best, least = i, c
			}
		}
		if best >= 0 {
			out[f] = left[best]
			left[best] = left[len(left)-1]
			left = left[:len(left)-1]
		}
	}
	return out
}

// example is a face and a plate, and whether they are of one crossing.
type example struct {
	x    []float64
	same bool
}

// features compares a face with a plate by every clue: by its rank in the bucket.
func features(ranks map[*sight][]float64, f, p *sight) []float64 {
	a, b := ranks[f], ranks[p]
	out := make([]float64, 0, 2*len(a)+4)
	for i := range a {
		d := math.Abs(a[i] - b[i])
		out = append(out, d, math.Exp(-50*d))
	}
	equal := func(is bool) float64 {
		if is {
			return 1
		}
		return 0
	}
	return append(out, equal(f.kind == p.kind), equal(f.size == p.size), float64(differ(f.handle, p.handle)-64)/64,
		math.Exp(-math.Abs(f.told.Sub(p.told).Seconds()+0.4)))
}

// rank gives each record of a bucket its ranks by all clues, from 0 to 1, equal ones alike.
func rank(ranks map[*sight][]float64, side []*sight) {
	for _, s := range side {
		ranks[s] = make([]float64, len(clues))
	}
	for i, c := range clues {
		for s, r := range ranked(side, c.of) {
			ranks[s][i] = r
		}
	}
}

func ranked(side []*sight, clue func(*sight) float64) map[*sight]float64 {
	in := slices.Clone(side)
	slices.SortFunc(in, func(a, b *sight) int { return cmp.Compare(clue(a), clue(b)) })
	out := make(map[*sight]float64, len(in))
	for i := 0; i < len(in); {
		j := i
		for j < len(in) && clue(in[j]) == clue(in[i]) {
			j++
		}
		for _, s := range in[i:j] {
			out[s] = float64(i+j-1) / 2 / float64(max(1, len(in)-1))
		}
		i = j
	}
	return out
}

// learn fits a logistic score to examples, by gradient descent.
func learn(examples []example) (weights []float64) {
	if len(examples) == 0 {
		return nil
	}
	weights = make([]float64, len(examples[0].x)+1)
	speed := make([]float64, len(weights)) // per weight, as in Adagrad
	for range 30 {
		for _, e := range examples {
			wrong := 1 / (1 + math.Exp(-score(weights, e.x)))
			if e.same {
				wrong--
			}
			for i := range weights {
				g := wrong
				if i < len(e.x) {
					g *= e.x[i]
				}
				speed[i] += g * g
				weights[i] -= 0.3 * g / (1e-6 + math.Sqrt(speed[i]))
			}
		}
	}
	return weights
}

func score(weights, x []float64) float64 {
	s := weights[len(weights)-1]
	for i, v := range x {
		s += weights[i] * v
	}
	return s
}

// learning is the name of the attack that learns.
const learning = "all of it, learned"

// learned joins by a score of all clues that is fitted to buckets whose joins it knows.
func learned(known []bucket, same func(f, p *sight) bool, rnd *rand.Rand) attack {
	ranks := map[*sight][]float64{}
	var examples []example
	for _, b := range known {
		rank(ranks, b.faces)
		rank(ranks, b.plates)
		for _, f := range b.faces {
			for _, p := range b.plates {
				// Each pair that is one, and some that are none.
				if is := same(f, p); is || rnd.IntN(len(b.plates)) < 4 {
					examples = append(examples, example{features(ranks, f, p), is})
				}
			}
		}
	}
	rnd.Shuffle(len(examples), func(i, j int) { examples[i], examples[j] = examples[j], examples[i] })
	weights := learn(examples)
	return attack{name: learning, join: func(b bucket, rnd *rand.Rand) []int {
		clear(ranks)
		rank(ranks, b.faces)
		rank(ranks, b.plates)
		return byCost(b, rnd, func(f, p *sight) float64 { return -score(weights, features(ranks, f, p)) })
	}}
}

// words writes a name for a test.
func words(s string) string { return strings.ReplaceAll(s, " ", "-") }
