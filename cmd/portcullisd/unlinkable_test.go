package main

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// The contractors of these tests.
const (
	faceFirm  = "/contractor/face-firm/matcher"
	plateFirm = "/contractor/plate-firm/reader"
	jointFirm = "/contractor/joint-firm/matcher"
)

// halves are two purposes without linkage, one for faces and one for plates.
func halves(name string, precision vault.Precision) (faces, plates vault.Purpose) {
	faces = purpose()
	faces.Name, faces.Modalities, faces.Contractors = name+"-faces", []vault.Modality{vault.Face}, []string{"face-firm"}
	faces.Sites = []string{devSite, southSite}
	faces.Linkage, faces.Precision, faces.MinBucket, faces.MaxTTL = false, precision, vault.DefaultMinBucket, 72*time.Hour
	plates = faces
	plates.Name, plates.Modalities, plates.Contractors = name+"-plates", []vault.Modality{vault.Plate}, []string{"plate-firm"}
	return faces, plates
}

// hour gives a time of the day, with a second on it so that nothing falls on a bound.
func (d *day) hour(h, minutes int) time.Time {
	return d.start.Add(time.Duration(h)*time.Hour + time.Duration(minutes)*time.Minute + time.Second)
}

// TestUnlinkable measures what two contractors can join who put together all that they were told,
// but the pictures: one has the faces, the other the plates of 2,000 crossings of two sites. It is
// the whole service on a real Vault, so that times of answers are real; only the clock of its facts
// is turned, through a day on which images come in as lanes send them.
func TestUnlinkable(t *testing.T) {
	d := dawn(t, 1)
	hourFaces, hourPlates := halves("hour", vault.PrecisionHour)
	dayFaces, dayPlates := halves("day", vault.PrecisionDay)
	joint := purpose()
	joint.Name, joint.Contractors, joint.Sites, joint.MaxTTL = "joint", []string{"joint-firm"}, hourFaces.Sites, 72*time.Hour
	joint.Modalities = []vault.Modality{vault.Face, vault.Plate}
	d.admit(joint, "face-firm", "plate-firm", "joint-firm")
	for _, p := range []vault.Purpose{hourFaces, hourPlates, dayFaces, dayPlates} {
		d.admit(p)
	}
	d.clock.turn(d.hour(6, 30))
	faces, plates := d.spy(faceFirm).hold(hourFaces, 6, 14, 5000), d.spy(plateFirm).hold(hourPlates, 6, 14, 5000)
	both := []*spy{faces, plates}

	// Hour by hour: what is shown appears all at once, and is fetched.
	began := time.Now()
	for h := opening; h <= opening+busy; h++ {
		for _, minutes := range []int{1, 5, 6, 25, 45} {
			d.until(d.hour(h, minutes))
			each(both, func(y *spy) { y.open(fresh(y.look(int32(200 + 97*(y.polls%9))))) })
		}
	}
	t.Logf("the day took %s", time.Since(began))
	each(both, func(y *spy) { y.open(y.look(250)) }) // again, all of it
	t.Logf("with second fetches %s", time.Since(began))
	d.windows(faces, hourFaces)
	d.errors(faces, plates, hourFaces)
	t.Logf("with errors %s", time.Since(began))

	hours := d.judge(hourFaces, faces, plates)
	d.together(hours)
	d.unjoined(hours, "hour")

	// Another two purposes tell days. Nothing is seen before the day is over.
	d.clock.turn(d.hour(23, 50))
	faces, plates = faces.again().hold(dayFaces, 0, 24, 5000), plates.again().hold(dayPlates, 0, 24, 5000)
	both = []*spy{faces, plates}
	for _, minutes := range []int{-5, 3, 5, 7} {
		d.clock.turn(d.hour(24, minutes))
		each(both, func(y *spy) {
			shown := y.look(333)
			if want := minutes == 7; want != (len(shown) > 0) {
				t.Errorf("%d minutes after the day, %d records are shown", minutes, len(shown))
			}
			y.open(fresh(shown))
		})
	}
	days := d.judge(dayFaces, faces, plates)
	d.unjoined(days, "day")
	t.Logf("with the day %s", time.Since(began))

	t.Run("shown to work", func(t *testing.T) { d.works(t, hours) })

	// One purpose with linkage: all of them.
	linked := d.spy(jointFirm).hold(joint, 0, 24, 5000)
	linked.look(1000)
	all := d.judge(joint, linked, linked)
	for _, v := range all.try(t, rand.New(rand.NewPCG(1, 2))) {
		if v.name != "handle of the crossing" {
			continue
		}
		if t.Log(table("with linkage:", []verdict{v})); v.right != len(d.all) || v.of != len(d.all) {
			t.Errorf("with linkage, %d of %d crossings are joined", v.right, len(d.all))
		}
	}
}

// unjoined lets the attacks try, and none may do better than chance.
func (d *day) unjoined(j *judge, name string) {
	d.t.Helper()
	got := j.try(d.t, rand.New(rand.NewPCG(rand.Uint64(), 3)))
	d.t.Log(table("times to the "+name+":", got))
	for _, v := range got {
		if v.bad() {
			d.t.Errorf("%s: by the %s %d of %d are joined, chance is %.2f; trend %.1f", name, v.name, v.right, v.of, v.chance, v.trend)
		}
	}
	pairs := 0
	for _, p := range j.pots(j.buckets()) {
		pairs += p.pairs
	}
	if pairs < j.of*97/100 {
		d.t.Errorf("of %d crossings %d have both halves in one bucket: that is not what was to be measured", j.of, pairs)
	}
}

// together says that each bucket appeared at once, whole, and those that are too small not at all.
// It counts by itself.
func (d *day) together(j *judge) {
	d.t.Helper()
	type wave struct {
		site, modality string
		hour, late     int64
	}
	in, crossings := map[vault.ID]wave{}, map[wave]map[int]bool{}
	rows, err := openSQL(d.t, d.cfg.Store.Path).QueryContext(d.t.Context(), "SELECT id, site, modality, captured_at, stored_at FROM records")
	noError(d.t, err)
	defer rows.Close()
	for rows.Next() {
		var w wave
		var name string
		var captured, stored int64
		noError(d.t, rows.Scan(&name, &w.site, &w.modality, &captured, &stored))
		const hour, minutes = int64(time.Hour / time.Microsecond), int64(5 * time.Minute / time.Microsecond)
		w.hour = captured / hour
		if after := stored - (w.hour+1)*hour - minutes; after >= 0 {
			w.late = 1 + after/hour
		}
		r := mustID(d.t, name)
		if in[r] = w; crossings[w] == nil {
			crossings[w] = map[int]bool{}
		}
		crossings[w][d.records[r]] = true
	}
	noError(d.t, rows.Err())
	seen, polls := map[vault.ID]bool{}, map[wave]int{}
	for s, r := range j.record {
		w := in[r.ID]
		if seen[r.ID] = true; polls[w] == 0 {
			polls[w] = s.poll
		}
		if s.poll != polls[w] {
			d.t.Errorf("%v: some appeared at poll %d, some at %d", w, polls[w], s.poll)
		}
	}
	for r, w := range in {
		if big := len(crossings[w]) >= vault.DefaultMinBucket; big != seen[r] {
			d.t.Errorf("%v has %d crossings, and a record of it was seen: %v", w, len(crossings[w]), seen[r])
		}
	}
	if hourly == fullHour && j.of != 2*fullHour*busy {
		d.t.Errorf("both halves were seen of %d crossings, want %d", j.of, 2*fullHour*busy)
	}
}

// windows gets further grants over windows that overlap, one after the other and activated again:
// they tell nothing that the first did not, and under other handles.
func (d *day) windows(first *spy, p vault.Purpose) {
	d.t.Helper()
	told := map[string]int{}
	for _, s := range first.seen {
		told[s.site+s.told.String()]++
	}
	for from := opening; from < opening+busy; from++ {
		y := first.again().hold(p, from, from+2, 5000)
		y.token = d.activate(y.c, y.grant)
		got := map[string]int{}
		for _, s := range y.look(400) {
			if got[s.site+s.told.String()]++; first.seen[s.handle.String()] != nil {
				d.t.Error("two grants name a record alike")
			}
		}
		for what, n := range got {
			if told[what] != n {
				d.t.Errorf("%s has %d records in one grant, %d in another", what, told[what], n)
			}
		}
	}
}

// errors shows that no error tells one record from another.
func (d *day) errors(faces, plates *spy, p vault.Purpose) {
	d.t.Helper()
	small := faces.again().hold(p, 6, 14, 5)
	said := faces.provoke(plates, small)
	for _, what := range slices.Sorted(maps.Keys(said)) {
		d.t.Logf("%s: %s", what, said[what])
		if len(said[what]) != 1 {
			d.t.Errorf("%s: answers differ: %q", what, said[what])
		}
	}
	if len(said) < 8 {
		d.t.Errorf("only %d kinds of errors", len(said))
	}
	faces.nothingBeside(d.t.Context(), d.t)
}

// works runs the same attacks on views that leak: each must be seen to leak by the attack that goes
// by it, and all but the last, which leaks little, by the one that learns.
func (d *day) works(t *testing.T, j *judge) {
	some := 2 // one crossing in so many
	if hourly == fullHour {
		some = 5
	}
	for _, leak := range []struct {
		name, by string
		times    float64                                             // more than chance, at least
		leak     func(s *sight, r vault.Record, place, crossing int) // place: in the order of storing
	}{
		{"the listing in the order of storing", "order in the listing", 5, func(s *sight, _ vault.Record, place, _ int) { s.pos = place }},
		{"exact times", "time told, nearest", 20, func(s *sight, r vault.Record, _, _ int) { s.told = r.CapturedAt }},
		{"records before their bucket has closed", "poll at which it appeared", 5, func(s *sight, r vault.Record, _, _ int) {
			s.poll, s.pollPos = int(r.StoredAt.Unix()/30), 0 // asked every half minute
		}},
		{"some crossings stand where they were stored", "order in the listing", 0, func(s *sight, _ vault.Record, place, crossing int) {
			if crossing%some == 0 {
				s.pos = place
			}
		}},
	} {
		t.Run(words(leak.name), func(t *testing.T) {
			b := j.leaking(leak.leak)
			got := b.try(t, rand.New(rand.NewPCG(4, 5)))
			t.Log(table(leak.name+":", got))
			for _, v := range got {
				if v.name != leak.by && (v.name != learning || leak.times == 0) {
					continue
				}
				if v.name == leak.by && float64(v.right) < leak.times*v.chance || !v.bad() {
					t.Errorf("by the %s %d of %d are joined, chance is %.1f; trend %.1f", v.name, v.right, v.of, v.chance, v.trend)
				}
			}
		})
	}
}

// leaking gives what would have been seen if the service leaked so.
func (j *judge) leaking(leak func(s *sight, r vault.Record, place, crossing int)) *judge {
	out := &judge{of: j.of, truth: map[*sight]int{}, record: map[*sight]vault.Record{}, named: map[string]bucket{}, order: j.order}
	byModality := map[vault.Modality][]*sight{}
	for _, name := range j.order {
		copied := func(side []*sight) (c []*sight) {
			for _, s := range side {
				twin := *s
				out.truth[&twin], out.record[&twin] = j.truth[s], j.record[s]
				c = append(c, &twin)
				m := j.record[s].Modality
				byModality[m] = append(byModality[m], &twin)
			}
			return c
		}
		b := j.named[name]
		out.named[name] = bucket{copied(b.faces), copied(b.plates)}
	}
	for _, all := range byModality {
		slices.SortFunc(all, func(a, b *sight) int { return out.record[a].StoredAt.Compare(out.record[b].StoredAt) })
		for place, s := range all {
			leak(s, out.record[s], place, out.truth[s])
		}
	}
	return out
}
