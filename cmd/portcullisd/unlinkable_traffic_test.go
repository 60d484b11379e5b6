package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"image"
	"image/png"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
)

// turned is the service's clock in these tests: hours pass in seconds. It never goes back.
type turned struct{ ahead atomic.Int64 }

func (c *turned) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// turn puts the clock to a time, unless it is later already.
func (c *turned) turn(to time.Time) { c.ahead.Add(max(0, int64(to.Sub(c.now())))) }

const (
	southSite = "south-gate"
	fullHour  = 200 // crossings of a site in an hour, of which [hourly] are made
	busy      = 5   // hours
	opening   = 7   // o'clock
	few       = 4   // crossings of a wave that is too small to be seen
	inFlight  = 4   // images that a lane sends at once
)

// passing is one crossing.
type passing struct {
	id          vault.ID
	device      string // path of the lane's identity
	site        string
	face, plate time.Time
}

// upload is one attempt of a lane to store an image.
type upload struct {
	passing  int
	modality vault.Modality
	device   string
	at       time.Time
	lost     bool // its answer does not arrive; another attempt follows
	image    client.Image
}

// offline is when lanes have no network. What they took meanwhile they send afterwards.
var offline = map[string]struct{ from, until time.Duration }{
	"/capture/" + devSite + "/lane-3":   {8*time.Hour + 10*time.Minute, 10*time.Hour + 10*time.Minute},
	"/capture/" + southSite + "/lane-2": {9*time.Hour + 35*time.Minute, 10*time.Hour + 9*time.Minute},
	"/capture/" + southSite + "/lane-5": {10*time.Hour + 50*time.Minute, 11*time.Hour + 8*time.Minute},
}

// traffic gives what passes two sites on a day, [hourly] crossings each, in bursts of a lane as
// after a light, and then the few whose lane was offline when the hour closed. The plate is
// taken a fraction of a second after the face.
func traffic(rnd *rand.Rand, day time.Time) (all []passing) {
	pass := func(device, site string, at time.Time) {
		plate := at.Add(150*time.Millisecond + time.Duration(rnd.Int64N(int64(500*time.Millisecond))))
		all = append(all, passing{vault.NewID(), device, site, at, plate})
	}
	for _, site := range []string{devSite, southSite} {
		for hour := range busy {
			for left := hourly; left > 0; {
				device := "/capture/" + site + "/lane-" + string(rune('1'+rnd.IntN(4)))
				at := day.Add((opening + time.Duration(hour)) * time.Hour).Add(time.Duration(rnd.Int64N(int64(3495 * time.Second))))
				n := min(left, 3+rnd.IntN(7))
				for range n {
					pass(device, site, at)
					at = at.Add(5*time.Second + time.Duration(rnd.Int64N(int64(6*time.Second))))
				}
				left -= n
			}
		}
	}
	for i := range few {
		pass("/capture/"+southSite+"/lane-5", southSite, day.Add(10*time.Hour+56*time.Minute+time.Duration(i)*9*time.Second))
	}
	return all
}

// uploads gives what the lanes do to store it, in the order of time: each sends in the order in
// which it takes, with a few images in flight.
func uploads(rnd *rand.Rand, day time.Time, all []passing) (out []upload) {
	lanes := map[string][]upload{}
	pictures := album(rnd)
	for i, p := range all {
		for m, at := range map[vault.Modality]time.Time{vault.Face: p.face, vault.Plate: p.plate} {
			lanes[p.device] = append(lanes[p.device], upload{
				passing: i, modality: m, device: p.device,
				image: client.Image{RequestID: vault.NewID(), Modality: m, CapturedAt: at, CrossingID: p.id},
			})
		}
	}
	for _, device := range slices.Sorted(func(yield func(string) bool) {
		for d := range lanes {
			if !yield(d) {
				return
			}
		}
	}) {
		queue := lanes[device]
		slices.SortFunc(queue, func(a, b upload) int { return a.image.CapturedAt.Compare(b.image.CapturedAt) })
		var free time.Time
		for _, u := range queue {
			// The size says nothing of the crossing.
			u.image.Bytes = pictures[rnd.IntN(len(pictures))]
			u.at = u.image.CapturedAt.Add(200*time.Millisecond + time.Duration(rnd.Int64N(int64(time.Second))))
			if off, ok := offline[device]; ok && !u.at.Before(day.Add(off.from)) && u.at.Before(day.Add(off.until)) {
				u.at = day.Add(off.until)
			}
			if u.at.Before(free) {
				u.at = free
			}
			if rnd.IntN(33) == 0 {
				again := u
				u.lost = true
				out = append(out, u)
				u = again
				u.at = u.at.Add(2*time.Second + time.Duration(rnd.Int64N(int64(18*time.Second))))
			}
			out = append(out, u)
			free = u.at.Add(40 * time.Millisecond)
		}
	}
	slices.SortStableFunc(out, func(a, b upload) int { return a.at.Compare(b.at) })
	return out
}

// album draws pictures of many sizes, of two types and in several orientations.
func album(rnd *rand.Rand) (out [][]byte) {
	for i := range 300 {
		if i%5 == 0 {
			m := image.NewGray(image.Rect(0, 0, 4+rnd.IntN(24), 4+rnd.IntN(24)))
			for j := range m.Pix {
				m.Pix[j] = uint8(rnd.Uint32())
			}
			var b bytes.Buffer
			if err := png.Encode(&b, m); err != nil {
				panic(err)
			}
			out = append(out, b.Bytes())
			continue
		}
		out = append(out, turnedBy(picture(rnd.Uint64(), 100+rnd.IntN(1200)), 1+i%3))
	}
	return out
}

// turnedBy puts an EXIF orientation into a JPEG.
func turnedBy(jpeg []byte, orientation int) []byte {
	tiff := []byte("MM\x00\x2a\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00")
	binary.BigEndian.PutUint16(tiff[18:], uint16(orientation))
	body := append([]byte("Exif\x00\x00"), tiff...)
	seg := append([]byte{0xff, 0xe1, 0, byte(len(body) + 2)}, body...)
	return slices.Concat(jpeg[:2], seg, jpeg[2:])
}

// day is the traffic of a day as it comes to a service.
type day struct {
	*service
	clock   *turned
	start   time.Time // midnight
	all     []passing
	pending []upload
	lanes   map[string]chan upload
	flying  sync.WaitGroup

	mu      sync.Mutex
	records map[vault.ID]int // the crossing of each
}

// dawn starts a service whose clock turns, on a day before anything passes.
func dawn(t *testing.T, seed uint64) *day {
	d := &day{clock: &turned{}, lanes: map[string]chan upload{}, records: map[vault.ID]int{}}
	d.service = begin(t, func(c *config) { c.seams = &seams{clock: d.clock.now} })
	d.start = vault.PrecisionDay.Ceil(time.Now()) // the next day: the clock goes on only
	rnd := rand.New(rand.NewPCG(seed, 5))
	d.all = traffic(rnd, d.start)
	d.pending = uploads(rnd, d.start, d.all)
	return d
}

// until lets come in what is sent before a time, each lane by itself, and turns the clock to it.
func (d *day) until(to time.Time) {
	d.t.Helper()
	for since := d.clock.now(); len(d.pending) > 0 && d.pending[0].at.Before(to); {
		u := d.pending[0]
		d.pending = d.pending[1:]
		if u.at.Sub(since) > time.Minute { // so that the clock does not run away from the lanes
			d.flying.Wait()
			since = u.at
		}
		d.clock.turn(u.at)
		d.flying.Add(1)
		d.lane(u.device) <- u
	}
	d.flying.Wait()
	d.clock.turn(to)
}

func (d *day) lane(device string) chan upload {
	if q := d.lanes[device]; q != nil {
		return q
	}
	q := make(chan upload, 32)
	d.lanes[device] = q
	c := d.as(device)
	var workers sync.WaitGroup
	for range inFlight {
		workers.Go(func() {
			for u := range q {
				d.send(c, u)
				d.flying.Done()
			}
		})
	}
	d.t.Cleanup(func() { close(q); workers.Wait() })
	return q
}

func (d *day) send(c *client.Client, u upload) {
	ctx := d.t.Context()
	if u.lost { // sometimes it was stored all the same
		short, cancel := context.WithTimeout(ctx, 4*time.Millisecond)
		defer cancel()
		_, _ = c.Store(short, u.image)
		return
	}
	got, err := c.Store(ctx, u.image)
	if err != nil {
		d.t.Error(err)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.records[mustID(d.t, id(got.Record))] = u.passing
}
