package tlog

import (
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// edit is one step of how the proved entries of a bundle became those that are there.
type edit struct {
	gone, came *Hash
	at         int // in the proved bundle
}

// compare says what became of the entries of a bundle, whose proved hashes are given.
func compare(index int64, entries [][]byte, proved []byte) (found []string) {
	want := make([]Hash, len(proved)/tlog.HashSize)
	place := map[Hash]int64{} // where each belongs
	for i := range want {
		want[i] = Hash(proved[i*tlog.HashSize : (i+1)*tlog.HashSize])
		place[want[i]] = index*TileWidth + int64(i)
	}
	got := make([]Hash, len(entries))
	there := map[Hash]int{}
	for i, e := range entries {
		got[i] = LeafHash(e)
		there[got[i]]++
	}
	var missing, missed int64 // a run of entries: the first, how many
	tell := func() {
		switch {
		case missed == 1:
			found = append(found, fmt.Sprintf("entry %d is missing", missing))
		case missed > 1:
			found = append(found, fmt.Sprintf("entries %d to %d are missing", missing, missing+missed-1))
		}
		missed = 0
	}
	for _, e := range unshift(script(want, got), len(want)) {
		n := index*TileWidth + int64(e.at)
		if e.came == nil && there[*e.gone] == 0 {
			if missed > 0 && n != missing+missed {
				tell()
			}
			if missed++; missed == 1 {
				missing = n
			}
			continue
		}
		tell()
		switch {
		case e.gone == nil:
			if from, ok := place[*e.came]; !ok {
				found = append(found, fmt.Sprintf("an entry was put in before entry %d", n))
			} else if there[*e.came] > 1 {
				found = append(found, fmt.Sprintf("entry %d stands there again, before entry %d", from, n))
			} // else it was moved, which its going tells
		case e.came == nil:
			found = append(found, fmt.Sprintf("entry %d stands in another place", n))
		default:
			if from, ok := place[*e.came]; ok {
				found = append(found, fmt.Sprintf("entry %d was replaced by entry %d", n, from))
			} else {
				found = append(found, fmt.Sprintf("entry %d was changed: its bytes are not those that were logged", n))
			}
		}
	}
	tell()
	return found
}

// script gives the fewest steps from want to got, by their longest common subsequence: both
// have about 256 hashes.
func script(want, got []Hash) (out []edit) {
	common := make([][]int16, len(want)+1) // of what is behind i and j
	for i := range common {
		common[i] = make([]int16, len(got)+1)
	}
	for i := len(want) - 1; i >= 0; i-- {
		for j := len(got) - 1; j >= 0; j-- {
			if want[i] == got[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	for i, j := 0, 0; i < len(want) || j < len(got); {
		switch {
		case i < len(want) && j < len(got) && want[i] == got[j]:
			i, j = i+1, j+1
		case i < len(want) && j < len(got) && common[i+1][j+1] == common[i][j]:
			out = append(out, edit{gone: &want[i], came: &got[j], at: i})
			i, j = i+1, j+1
		case j == len(got) || i < len(want) && common[i+1][j] >= common[i][j+1]:
			out = append(out, edit{gone: &want[i], at: i})
			i++
		default:
			out = append(out, edit{came: &got[j], at: i})
			j++
		}
	}
	return out
}

// unshift leaves out steps at the end of a full bundle that come from steps before: what was
// put in pushed entries into the next bundle, what was dropped pulled some out of it.
func unshift(steps []edit, width int) []edit {
	last := len(steps) - 1
	if width != TileWidth || last < 1 {
		return steps
	}
	for first := 0; first < last; first++ {
		a, z := steps[first], steps[last]
		if z.at < width-1 {
			break
		}
		pushed := a.gone == nil && z.came == nil && *a.came != *z.gone // what was moved is told as such
		pulled := a.came == nil && z.gone == nil && *a.gone != *z.came
		if pushed || pulled {
			last--
		}
	}
	return steps[:last+1]
}
