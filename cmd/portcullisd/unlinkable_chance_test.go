package main

import (
	"math"
	"testing"
)

// pot is a bucket as the judge sees it: so many faces, plates, and pairs of them that are of one
// crossing.
type pot struct{ faces, plates, pairs int }

// chance is how many pairs a guess that knows nothing more gets right, on average. A matching of
// faces with plates, as large as it can be, contains a given pair with the probability 1/max(faces,
// plates): for a bucket of equally many that is one right guess, however large it is.
func chance(pots []pot) (right float64) {
	for _, p := range pots {
		if p.pairs > 0 {
			right += float64(p.pairs) / float64(max(p.faces, p.plates))
		}
	}
	return right
}

// luck is the exact distribution of the right guesses of such matchings: luck[k] is the probability
// of k. In a bucket by inclusion and exclusion over the pairs, then the sum of all buckets.
func luck(pots []pot) []float64 {
	all := []float64{1}
	for _, p := range pots {
		if p.pairs == 0 {
			continue
		}
		// together[j] is C(pairs, j) times the probability that j given pairs are all matched.
		together := []float64{1}
		for j := 0; j < min(p.pairs, 40); j++ {
			together = append(together, together[j]*float64(p.pairs-j)/float64(j+1)/float64(max(p.faces, p.plates)-j))
		}
		one := make([]float64, len(together))
		for k := range one {
			term := 1.0 // C(j, k) with its sign
			for j := k; j < len(together); j++ {
				one[k] += term * together[j]
				term *= -float64(j+1) / float64(j+1-k)
			}
			one[k] = max(0, one[k])
		}
		sum := make([]float64, min(len(all)+len(one)-1, 2000))
		for i, a := range all {
			for j, b := range one {
				if i+j < len(sum) {
					sum[i+j] += a * b
				}
			}
		}
		all = sum
	}
	return all
}

// atLeast is the probability of so many right guesses or more.
func atLeast(dist []float64, right int) (p float64) {
	for k := len(dist) - 1; k >= right && k >= 0; k-- {
		p += dist[k]
	}
	return p
}

// wilson gives the score interval (Wilson 1927) of a rate.
func wilson(right, of int, z float64) (low, high float64) {
	n, p := float64(of), float64(right)/float64(of)
	mid := (p + z*z/(2*n)) / (1 + z*z/n)
	half := z / (1 + z*z/n) * math.Sqrt(p*(1-p)/n+z*z/(4*n*n))
	return max(0, mid-half), min(1, mid+half)
}

// tooMany is the least number of right guesses whose interval lies above the chance.
func tooMany(of int, chance, z float64) int {
	for right := 0; right <= of; right++ {
		if low, _ := wilson(right, of, z); low > chance/float64(of) {
			return right
		}
	}
	return of + 1
}

// falseAlarms bounds how often tests would fail for bad luck alone, in all of the measurement:
// half of it by right guesses, half by trends.
const falseAlarms = 1e-4

// width gives the z of the intervals that a number of tests may not lie above chance with: the
// union bound (Bonferroni) over all tests of the exact probabilities stays below the budget. The
// normal approximation behind an interval is too hopeful so far out, so it is not relied on.
func width(of int, pots []pot, tests int) (z, alarms float64) {
	dist, expected := luck(pots), chance(pots)
	for z = 2; ; z += 0.01 {
		if alarms = float64(tests) * atLeast(dist, tooMany(of, expected, z)); alarms < falseAlarms/2 {
			return z, alarms
		}
	}
}

// trend is a sum over pairs that is 0 on average where nothing leaks, in standard deviations, of
// which both are exact for a random permutation within each bucket.
type trend struct{ sum, variance float64 }

func (t *trend) add(faces, plates []float64) {
	n := len(faces)
	if n < 2 {
		return
	}
	fm, pm := mean(faces), mean(plates)
	var sum, fs, ps float64
	for i := range faces {
		sum += (faces[i] - fm) * (plates[i] - pm)
		fs += (faces[i] - fm) * (faces[i] - fm)
		ps += (plates[i] - pm) * (plates[i] - pm)
	}
	if fs*ps < 1e-12 { // all alike on one side: what is left is rounding
		return
	}
	t.sum += sum
	t.variance += fs * ps / float64(n-1)
}

func (t *trend) z() float64 {
	if t.variance == 0 {
		return 0
	}
	return t.sum / math.Sqrt(t.variance)
}

// steepest is the size of a trend that as many tests may not reach, both ways.
func steepest(tests int) float64 {
	for z := 2.0; ; z += 0.01 {
		if float64(tests)*math.Erfc(z/math.Sqrt2) < falseAlarms/2 {
			return z
		}
	}
}

func mean(x []float64) (m float64) {
	for _, v := range x {
		m += v / float64(len(x))
	}
	return m
}

// TestLuck compares the exact distribution with the one that is counted out by hand.
func TestLuck(t *testing.T) {
	for _, c := range []struct {
		pots []pot
		want []float64
	}{
		{[]pot{{3, 3, 3}}, []float64{2. / 6, 3. / 6, 0, 1. / 6}},
		{[]pot{{2, 3, 2}}, []float64{3. / 6, 2. / 6, 1. / 6}},
		{[]pot{{1, 4, 1}, {2, 2, 2}}, []float64{3. / 8, 1. / 8, 3. / 8, 1. / 8}},
	} {
		got, average := luck(c.pots), 0.0
		for k := range got {
			average += float64(k) * got[k]
			want := 0.0
			if k < len(c.want) {
				want = c.want[k]
			}
			if math.Abs(got[k]-want) > 1e-12 {
				t.Errorf("%v: %d right with %v, want %v", c.pots, k, got[k], want)
			}
		}
		if math.Abs(average-chance(c.pots)) > 1e-12 {
			t.Errorf("%v: %v right on average, chance says %v", c.pots, average, chance(c.pots))
		}
	}
	if low, high := wilson(10, 2000, 1.96); math.Abs(low-0.00272) > 1e-5 || math.Abs(high-0.00918) > 1e-5 {
		t.Errorf("the interval of 10 in 2,000 is %.5f to %.5f", low, high)
	}
}
