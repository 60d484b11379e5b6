package vault

import (
	"fmt"
	"time"
)

// MaxPrefixes is the most paths of a grant's policy at Vault (256 cost 1.2 ms a decrypt).
const MaxPrefixes = 256

// Fence is what Vault itself holds a grant's tokens to: they open by keys of these names and
// by no others. Prefixes and Names have 1 to [MaxPrefixes] entries together.
type Fence struct {
	// Prefixes begin the names of keys. Each is <site>.<modality>. and the beginning of a day,
	// one digit or more; a whole day ends in a dot: "north.plate.2019", "north.plate.20190102.".
	Prefixes []string
	// Names are the whole names of records' keys, as [Record.KeyName] gives them. No other
	// key opens by one, also none whose name begins with it.
	Names []string
}

// Paths counts the paths of the policy.
func (f Fence) Paths() int { return len(f.Prefixes) + len(f.Names) }

// Fence gives what Vault enforces of the scope. Days are whole: hours are finer than Vault's
// fence.
func (s Scope) Fence() Fence { return Fence{Prefixes: s.KeyPrefixes()} }

// KeyPrefixes gives prefixes of key names that together cover exactly the scope's sites,
// modalities and days: every key of a record in scope begins with one, and no key of
// another site, modality or day does. Days are whole: hours are finer than Vault's fence.
func (s Scope) KeyPrefixes() []string {
	days := dayPrefixes(s.From, s.Until.Add(-time.Microsecond))
	out := make([]string, 0, len(s.Sites)*len(s.Modalities)*len(days))
	for _, site := range sorted(s.Sites) {
		for _, m := range sorted(s.Modalities) {
			for _, d := range days {
				out = append(out, site+"."+string(m)+"."+d)
			}
		}
	}
	return out
}

// dayPrefixes covers the days from first to last, both included, by as few digit prefixes
// of yyyymmdd as possible. A prefix shorter than a day stands only for days that exist.
// A whole day ends in a dot, which closes the field in a key name.
func dayPrefixes(first, last time.Time) []string {
	day := func(t time.Time) time.Time {
		y, m, d := t.UTC().Date()
		return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
	}
	first, last = day(first), day(last)
	var out []string
	for at := first; !at.After(last); {
		prefix, next := at.Format("20060102")+".", at.AddDate(0, 0, 1)
		// Try ever wider blocks that begin at this day: ten days, a month, ten months,
		// a year, ten years and so on. A block may be used if it begins here and ends
		// within the range.
		for _, b := range blocks(at) {
			if b.begins.Equal(at) && !b.ends.After(last.AddDate(0, 0, 1)) {
				prefix, next = b.prefix, b.ends
			}
		}
		out = append(out, prefix)
		at = next
	}
	return out
}

// block is the set of existing days that begin with prefix: [begins, ends).
type block struct {
	prefix       string
	begins, ends time.Time
}

// blocks gives the blocks that hold the day, narrow to wide.
func blocks(at time.Time) []block {
	y, m, d := at.Date()
	date := func(y int, m time.Month, d int) time.Time { return time.Date(y, m, d, 0, 0, 0, 0, time.UTC) }
	nextMonth := date(y, m+1, 1)

	tenDays := block{fmt.Sprintf("%04d%02d%d", y, m, d/10), date(y, m, max(1, d/10*10)), date(y, m, d/10*10+10)}
	if tenDays.ends.After(nextMonth) {
		tenDays.ends = nextMonth
	}
	month := block{fmt.Sprintf("%04d%02d", y, m), date(y, m, 1), nextMonth}
	tenMonths := block{fmt.Sprintf("%04d%d", y, m/10), date(y, max(1, m/10*10), 1), date(y, 10, 1)}
	if m >= 10 {
		tenMonths.ends = date(y+1, 1, 1)
	}
	year := block{fmt.Sprintf("%04d", y), date(y, 1, 1), date(y+1, 1, 1)}
	tenYears := block{fmt.Sprintf("%03d", y/10), date(y/10*10, 1, 1), date(y/10*10+10, 1, 1)}
	return []block{tenDays, month, tenMonths, year, tenYears}
}
