package vault_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portcullis/portcullis/vault"
)

func date(y int, m time.Month, d int) time.Time { return time.Date(y, m, d, 0, 0, 0, 0, time.UTC) }

func scopeOf(from, until time.Time) vault.Scope {
	return vault.Scope{Sites: []string{"north"}, Modalities: []vault.Modality{vault.Face}, From: from, Until: until}
}

func faceAt(at time.Time) vault.Record {
	return vault.Record{ID: vault.NewID(), Site: "north", Modality: vault.Face, CapturedAt: at}
}

// covering counts the prefixes that a record's key name begins with.
func covering(prefixes []string, r vault.Record) (n int) {
	for _, p := range prefixes {
		if strings.HasPrefix(r.KeyName(), p) {
			n++
		}
	}
	return n
}

// daysBelow says for each prefix of yyyymmdd how many days from 1960 to 2109 begin with it.
var daysBelow = countPrefixes(date(1960, 1, 1), date(2109, 12, 31))

func countPrefixes(first, last time.Time) map[string]int {
	n := map[string]int{}
	for at := first; !at.After(last); at = at.AddDate(0, 0, 1) {
		text := at.Format("20060102")
		for i := 1; i <= len(text); i++ {
			n[text[:i]]++
		}
	}
	return n
}

// fewest counts the prefixes that a range of days needs at least: a prefix may be used when
// all the days that begin with it are wanted.
func fewest(first, last time.Time) int {
	wanted := countPrefixes(first, last)
	var walk func(prefix string) int
	walk = func(prefix string) (n int) {
		for _, digit := range "0123456789" {
			p := prefix + string(digit)
			switch wanted[p] {
			case 0:
			case daysBelow[p]:
				n++
			default:
				n += walk(p)
			}
		}
		return n
	}
	return walk("")
}

// allDays are the days that a scope may have, and some around them, as they stand in the name
// of a key.
var allDays = func() (out []string) {
	for at := date(1969, 11, 1); at.Before(date(2101, 3, 1)); at = at.AddDate(0, 0, 1) {
		out = append(out, at.Format("20060102."))
	}
	return out
}()

// drawDays draws a range of days, both included, from 1970 to 2100: any, some at the edges of
// months, decades and leap days.
func drawDays(t *rapid.T) (first, last time.Time) {
	edges := []time.Time{
		date(1970, 1, 1), date(1972, 2, 29), date(1979, 12, 31), date(1999, 12, 31), date(2000, 2, 29), date(2019, 9, 30),
		date(2020, 2, 28), date(2020, 3, 1), date(2021, 2, 28), date(2099, 12, 31), date(2100, 2, 28), date(2100, 12, 31),
	}
	first = date(1970, 1, 1).AddDate(0, 0, rapid.IntRange(0, 47_846).Draw(t, "first"))
	if rapid.Bool().Draw(t, "at an edge") {
		first = rapid.SampledFrom(edges).Draw(t, "edge").AddDate(0, 0, rapid.IntRange(-31, 2).Draw(t, "off"))
	}
	length := rapid.OneOf(rapid.IntRange(1, 40), rapid.IntRange(1, 800), rapid.IntRange(1, 48_000)).Draw(t, "days")
	last = first.AddDate(0, 0, length-1)
	if first.Before(date(1970, 1, 1)) {
		first = date(1970, 1, 1)
	}
	if last.After(date(2100, 12, 31)) {
		last = date(2100, 12, 31)
	}
	if last.Before(first) {
		last = first
	}
	return first, last
}

// Every day inside begins with exactly one prefix, and no other day begins with any. There are
// as few as possible for all windows that a scope may have.
func TestKeyPrefixesCoverExactlyTheDays(t *testing.T) {
	const head = "north.face."
	rapid.Check(t, func(t *rapid.T) {
		first, last := drawDays(t)
		from := first.Add(time.Duration(rapid.Int64Range(0, int64(24*time.Hour)-1000).Draw(t, "from hour")))
		until := last.Add(time.Duration(rapid.Int64Range(int64(time.Microsecond), int64(24*time.Hour)).Draw(t, "until hour")))
		if !from.Before(until) {
			from = first
		}
		fence := scopeOf(from, until).Fence()
		prefixes := map[string]int{}
		for _, p := range fence.Prefixes {
			if !strings.HasPrefix(p, head) {
				t.Fatalf("%q is of another site or modality", p)
			}
			prefixes[p[len(head):]]++
		}
		begin, end := first.Format("20060102."), last.Format("20060102.")
		for _, day := range allDays {
			n, want := 0, 0
			for i := 1; i <= len(day); i++ {
				n += prefixes[day[:i]]
			}
			if begin <= day && day <= end {
				want = 1
			}
			if n != want {
				t.Fatalf("%s to %s: %d prefixes cover %s, want %d: %q", from, until, n, day, want, fence.Prefixes)
			}
		}
		// The same by names of keys, at the first and the last moment of the days at the edges.
		for _, at := range []time.Time{first.AddDate(0, 0, -1), first, last, last.AddDate(0, 0, 1)} {
			want := 0
			if !at.Before(first) && !at.After(last) {
				want = 1
			}
			for _, moment := range []time.Time{at, at.Add(24*time.Hour - time.Microsecond)} {
				if n := covering(fence.Prefixes, faceAt(moment)); n != want {
					t.Fatalf("%s to %s: %d prefixes cover %s, want %d: %q", from, until, n, moment, want, fence.Prefixes)
				}
			}
		}
		// Wider windows than a scope may have could do with a century's or two.
		days := int(last.Sub(first).Hours()/24) + 1
		if least := fewest(first, last); len(fence.Prefixes) > least+9 || (days <= vault.MaxWindowDays && len(fence.Prefixes) != least) {
			t.Fatalf("%s to %s: %d prefixes, %d would do: %q", first, last, len(fence.Prefixes), least, fence.Prefixes)
		}
	})
}

// TestKeyPrefixesAreFewest tries all covers of short ranges: that of the fewest prefixes, by
// whatever prefixes there are whose days all lie inside.
func TestKeyPrefixesAreFewest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first, last := drawDays(t)
		if end := first.AddDate(0, 0, rapid.IntRange(0, 150).Draw(t, "more days")); last.After(end) {
			last = end
		}
		inside := countPrefixes(first, last)
		// need[i] is the fewest for the days from the i-th on.
		days := int(last.Sub(first).Hours()/24) + 1
		need := make([]int, days+1)
		for i := days - 1; i >= 0; i-- {
			need[i] = days + 1
			day := first.AddDate(0, 0, i).Format("20060102")
			for l := 1; l <= len(day); l++ {
				p := day[:l]
				n := daysBelow[p]
				// All its days are wanted, and this is the first of them.
				if n != inside[p] || (i > 0 && strings.HasPrefix(first.AddDate(0, 0, i-1).Format("20060102"), p)) {
					continue
				}
				need[i] = min(need[i], 1+need[i+n])
			}
		}
		if got := scopeOf(first, last.AddDate(0, 0, 1)).KeyPrefixes(); len(got) != need[0] {
			t.Fatalf("%s to %s: %d prefixes, %d would do: %q", first, last, len(got), need[0], got)
		}
	})
}

// The worst window begins on the second of a month and ends on the day before a ten of days
// or a month is full; of all windows of a year at most it needs this many.
func TestKeyPrefixesWorstWindow(t *testing.T) {
	worst := 0
	for first := date(2019, 1, 1); first.Before(date(2020, 1, 1)); first = first.AddDate(0, 0, 1) {
		for length := 300; length <= vault.MaxWindowDays; length++ {
			worst = max(worst, len(scopeOf(first, first.AddDate(0, 0, length)).KeyPrefixes()))
		}
	}
	if worst != 32 {
		t.Errorf("the worst window needs %d prefixes, want 32", worst)
	}
	if 4*2*worst > vault.MaxPrefixes {
		t.Errorf("four sites of both modalities do not fit into %d prefixes in every window", vault.MaxPrefixes)
	}
}

func TestKeyPrefixesCollapse(t *testing.T) {
	for _, c := range []struct {
		name        string
		from, until time.Time
		want        []string
	}{
		{"a day", date(2019, 1, 2), date(2019, 1, 3), []string{"20190102."}},
		{"a minute", date(2019, 1, 2).Add(time.Hour), date(2019, 1, 2).Add(time.Hour + time.Minute), []string{"20190102."}},
		{"until midnight leaves the day out", date(2019, 1, 2), date(2019, 1, 4), []string{"20190102.", "20190103."}},
		{"a microsecond past midnight takes it in", date(2019, 1, 2), date(2019, 1, 3).Add(time.Microsecond), []string{"20190102.", "20190103."}},
		{"the first nine days", date(2019, 1, 1), date(2019, 1, 10), []string{"2019010"}},
		{"a month", date(2019, 1, 1), date(2019, 2, 1), []string{"201901"}},
		{"february", date(2019, 2, 1), date(2019, 3, 1), []string{"201902"}},
		{"february but for the leap day", date(2020, 2, 1), date(2020, 2, 29), []string{"2020020", "2020021",
			"20200220.", "20200221.", "20200222.", "20200223.", "20200224.", "20200225.", "20200226.", "20200227.", "20200228."}},
		{"january to september", date(2019, 1, 1), date(2019, 10, 1), []string{"20190"}},
		{"october to december", date(2019, 10, 1), date(2020, 1, 1), []string{"20191"}},
		{"a year", date(2019, 1, 1), date(2020, 1, 1), []string{"2019"}},
		{"a leap year", date(2020, 1, 1), date(2021, 1, 1), []string{"2020"}},
		{"a decade", date(2010, 1, 1), date(2020, 1, 1), []string{"201"}},
		{"another zone's midnight", date(2019, 1, 2).In(time.FixedZone("", -6*3600)), date(2019, 1, 3).In(time.FixedZone("", 9*3600)), []string{"20190102."}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i := range c.want {
				c.want[i] = "north.face." + c.want[i]
			}
			if got := scopeOf(c.from, c.until).KeyPrefixes(); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestKeyPrefixesKeepSitesAndModalitiesApart(t *testing.T) {
	sites := []string{"a", "a-b", "a1", "b", "a-b-c", "face", "plate", "a-face"}
	at := date(2019, 1, 2).Add(time.Hour)
	for _, windowDays := range []int{1, 30, 365} {
		from := date(2019, 1, 1)
		for _, site := range sites {
			for _, m := range []vault.Modality{vault.Face, vault.Plate} {
				s := vault.Scope{Sites: []string{site}, Modalities: []vault.Modality{m}, From: from, Until: from.AddDate(0, 0, windowDays+1)}
				for _, otherSite := range sites {
					for _, other := range []vault.Modality{vault.Face, vault.Plate} {
						r := vault.Record{ID: vault.NewID(), Site: otherSite, Modality: other, CapturedAt: at}
						want := 0
						if s.Covers(r) {
							want = 1
						}
						if n := covering(s.KeyPrefixes(), r); n != want {
							t.Errorf("%s %s: %d prefixes match %s, want %d", site, m, n, r.KeyName(), want)
						}
					}
				}
			}
		}
	}
	both := vault.Scope{Sites: []string{"b", "a", "b"}, Modalities: []vault.Modality{vault.Plate, vault.Face}, From: at, Until: at.Add(time.Hour)}
	want := []string{"a.face.20190102.", "a.plate.20190102.", "b.face.20190102.", "b.plate.20190102."}
	if got := both.KeyPrefixes(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The fence at Vault may be wider than the scope (whole days), never narrower.
func TestKeyPrefixesHoldWhatTheScopeCovers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawScope(t)
		s.Live, s.List, s.Records = false, vault.ID{}, nil
		r := vault.Record{ID: vault.NewID(), Site: rapid.SampledFrom(s.Sites).Draw(t, "site"), Modality: rapid.SampledFrom(s.Modalities).Draw(t, "modality")}
		r.CapturedAt = s.From.Add(time.Duration(rapid.Int64Range(0, int64(s.Until.Sub(s.From)-time.Microsecond)).Draw(t, "at"))).Truncate(time.Microsecond)
		if !s.Covers(r) || covering(s.KeyPrefixes(), r) != 1 {
			t.Fatalf("%+v covers %s: %t; prefixes that do: %d", s, r.KeyName(), s.Covers(r), covering(s.KeyPrefixes(), r))
		}
	})
}

func TestScopeCoversIsHalfOpen(t *testing.T) {
	s := scopeOf(date(2019, 1, 2), date(2019, 1, 3))
	for at, want := range map[time.Time]bool{
		s.From.Add(-time.Microsecond): false, s.From: true,
		s.Until.Add(-time.Microsecond): true, s.Until: false,
	} {
		if s.Covers(faceAt(at)) != want {
			t.Errorf("covers %s: %t, want %t", at, !want, want)
		}
	}
}

func TestScopeCheck(t *testing.T) {
	good := scopeOf(date(2019, 1, 1), date(2019, 2, 1))
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	many := make([]string, vault.MaxListed+1)
	for i := range many {
		many[i] = fmt.Sprintf("s%d", i)
	}
	for field, change := range map[string]func(*vault.Scope){
		"scope.sites":        func(s *vault.Scope) { s.Sites = nil },
		"scope.sites ":       func(s *vault.Scope) { s.Sites = many },
		"scope.sites[1]":     func(s *vault.Scope) { s.Sites = []string{"ok", "not,ok"} },
		"scope.modalities":   func(s *vault.Scope) { s.Modalities = nil },
		"scope.modalities ":  func(s *vault.Scope) { s.Modalities = []vault.Modality{"iris"} },
		"scope.modalities  ": func(s *vault.Scope) { s.Modalities = []vault.Modality{"face", "plate", "face"} },
		"scope.start_time":   func(s *vault.Scope) { s.From = date(1969, 12, 31) },
		"scope.start_time ":  func(s *vault.Scope) { s.From = time.Time{} },
		"scope.end_time":     func(s *vault.Scope) { s.Until = date(2101, 1, 1) },
		"scope.end_time ":    func(s *vault.Scope) { s.Until = s.From },
		"scope.end_time  ":   func(s *vault.Scope) { s.Until = s.From.AddDate(0, 0, vault.MaxWindowDays+1) },
	} {
		s := good
		change(&s)
		wantInvalid(t, s.Check(), strings.TrimSpace(field))
	}
	whole := scopeOf(date(2019, 1, 1), date(2019, 1, 1).AddDate(0, 0, vault.MaxWindowDays))
	if err := whole.Check(); err != nil {
		t.Errorf("a window of %d days: %v", vault.MaxWindowDays, err)
	}
}
