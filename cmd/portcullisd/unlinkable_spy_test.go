package main

import (
	"context"
	"crypto"
	"crypto/tls"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/portcullis/portcullis/internal/tlog"
	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
	"github.com/portcullis/portcullis/vault/wire"
)

// sight is all that a contractor learned of one record, but the picture.
type sight struct {
	handle   vault.Handle
	crossing string // as told: empty without linkage
	site     string
	told     time.Time
	// From the polls: at which one it first appeared, where in it, and the log's size then.
	poll, pollPos int
	pollLog       int64
	// From the last listing.
	pos, page, inPage int
	token             string // that came with its page
	// From the fetches.
	turn        int
	took, again time.Duration
	size, kind  int // kind: content type and orientation
	fetchLog    int64
}

// spy is a contractor that notes everything.
type spy struct {
	day   *day
	c     *client.Client
	path  string
	grant string
	token vault.Token
	seen  map[string]*sight
	polls int
	turns int
	waits int // answers that asked to come again
}

// spy makes a contractor's client, which repeats nothing by itself: that would hide how long
// answers take.
func (d *day) spy(path string) *spy {
	d.t.Helper()
	cfg := d.config(path)
	cfg.Patience = -1
	c, err := client.Dial(cfg)
	noError(d.t, err)
	d.t.Cleanup(func() { c.Close() })
	return &spy{day: d, c: c, path: path, seen: map[string]*sight{}}
}

// again is another grant of the same contractor.
func (y *spy) again() *spy { return &spy{day: y.day, c: y.c, path: y.path, seen: map[string]*sight{}} }

// hold gets a grant on hours of the day, counted from midnight, approved by two admins. They sign
// by the service's clock.
func (y *spy) hold(p vault.Purpose, from, until int, quota int64) *spy {
	d, t := y.day, y.day.t
	t.Helper()
	got, err := y.c.Grants.RequestGrant(t.Context(), &pb.RequestGrantRequest{
		Purpose: wire.Purposes + "/" + p.Name, MaxRecords: quota, Ttl: durationpb.New(48 * time.Hour),
		Justification: "work order 4711", RequestId: vault.NewID().String(),
		Scope: wire.Scope(vault.Scope{
			Sites: p.Sites, Modalities: p.Modalities,
			From: d.start.Add(time.Duration(from) * time.Hour), Until: d.start.Add(time.Duration(until) * time.Hour),
		}),
	})
	noError(t, err)
	y.grant = got.Grant.Name
	for _, path := range []string{alice, bob} {
		cfg := d.config(path)
		pair, err := tls.LoadX509KeyPair(cfg.Certificate, cfg.Key)
		noError(t, err)
		admin := d.as(path)
		shown, err := admin.Grants.GetGrant(t.Context(), &pb.GetGrantRequest{Name: y.grant})
		noError(t, err)
		terms, err := wire.ParseTerms(shown.Grant)
		noError(t, err)
		sig, err := vault.Sign(terms.Decision(), pair.PrivateKey.(crypto.Signer), pair.Certificate, d.clock.now())
		noError(t, err)
		_, err = admin.Grants.ApproveGrant(t.Context(), &pb.ApproveGrantRequest{Name: y.grant, Signature: wire.Signature(sig)})
		noError(t, err)
	}
	y.token = d.activate(y.c, y.grant)
	return y
}

// patient repeats a call while the service asks to come again: after the clock was turned the log's
// tree looks late for a moment.
func (y *spy) patient(call func() error) error {
	for {
		err := call()
		if vault.KindOf(err) != vault.Unavailable || y.waits > 1000 {
			return err
		}
		y.waits++
		time.Sleep(20 * time.Millisecond)
	}
}

// look lists all, as one poll. With pages of such a size at most.
func (y *spy) look(size int32) (shown []*sight) {
	t := y.day.t
	t.Helper()
	y.polls++
	for token, page := "", 0; ; page++ {
		var got *pb.ListRecordsResponse
		noError(t, y.patient(func() (err error) {
			got, err = y.c.Release.ListRecords(t.Context(), &pb.ListRecordsRequest{
				Grant: y.grant, GrantToken: y.token.Reveal(), PageToken: token, PageSize: size,
			})
			return err
		}))
		log, err := tlog.SizeOf(got.Checkpoint)
		noError(t, err)
		token = got.NextPageToken
		for i, r := range got.Records {
			s := y.seen[r.Handle]
			if s == nil {
				h, err := vault.ParseHandle("handle", r.Handle)
				noError(t, err)
				s = &sight{handle: h, crossing: r.Crossing, site: r.Site, poll: y.polls, pollPos: len(shown), pollLog: log}
				if r.CaptureTime != nil {
					s.told = r.CaptureTime.AsTime()
				}
				y.seen[r.Handle] = s
			}
			s.pos, s.page, s.inPage, s.token = len(shown), page, i, token
			shown = append(shown, s)
		}
		if token == "" {
			return shown
		}
	}
}

// open fetches what was shown, one after the other, and notes how long each took.
func (y *spy) open(shown []*sight) {
	t := y.day.t
	for _, s := range shown {
		var got *pb.FetchImageResponse
		var took time.Duration
		err := y.patient(func() (err error) {
			from := time.Now()
			got, err = y.c.Release.FetchImage(t.Context(), &pb.FetchImageRequest{Grant: y.grant, GrantToken: y.token.Reveal(), Handle: s.handle.String()})
			took = time.Since(from)
			return err
		})
		if err != nil {
			t.Error(err)
			return
		}
		if s.size > 0 {
			s.again = took
			continue
		}
		y.turns++
		s.turn, s.took, s.size, s.kind = y.turns, took, len(got.Image.Data), len(got.Image.ContentType)*10+int(got.Image.Orientation)
		if s.fetchLog, err = tlog.SizeOf(got.Image.Checkpoint); err != nil {
			t.Error(err)
		}
	}
}

// fresh gives what was not fetched yet.
func fresh(shown []*sight) []*sight {
	return slices.DeleteFunc(slices.Clone(shown), func(s *sight) bool { return s.size > 0 })
}

// each lets spies do something side by side.
func each(spies []*spy, do func(*spy)) {
	var all sync.WaitGroup
	for _, y := range spies {
		all.Go(func() { do(y) })
	}
	all.Wait()
}

var named = regexp.MustCompile(`[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// provoke makes calls that fail, with everything that the other contractor knows, too. It gives
// what came back, by the kind of call: if a call's answers differ, they tell records apart.
func (y *spy) provoke(other *spy, limited *spy) map[string][]string {
	t := y.day.t
	t.Helper()
	said := map[string]map[string]bool{}
	note := func(what string, err error) {
		t.Helper()
		if err == nil {
			t.Fatalf("%s: it did not fail", what)
		}
		text := fmt.Sprintf("%v %s %s", vault.KindOf(err), vault.ReasonOf(err), named.ReplaceAllString(err.Error(), "<name>"))
		if said[what] == nil {
			said[what] = map[string]bool{}
		}
		said[what][text] = true
	}
	list := func(grant, token, page string) error {
		return y.patient(func() error {
			_, err := y.c.Release.ListRecords(t.Context(), &pb.ListRecordsRequest{Grant: grant, GrantToken: token, PageToken: page, PageSize: 10})
			return err
		})
	}
	fetch := func(by *spy, grant, token, handle string) error {
		return by.patient(func() error {
			_, err := by.c.Release.FetchImage(t.Context(), &pb.FetchImageRequest{Grant: grant, GrantToken: token, Handle: handle})
			return err
		})
	}
	own, theirs := y.look(100), other.look(100)
	for i := range 100 {
		mine, his := own[i], theirs[i]
		note("his handle under my grant", fetch(y, y.grant, y.token.Reveal(), his.handle.String()))
		note("my handle under his grant, by me", fetch(y, other.grant, other.token.Reveal(), mine.handle.String()))
		note("my handle with his token", fetch(y, y.grant, other.token.Reveal(), mine.handle.String()))
		note("a handle made up", fetch(y, y.grant, y.token.Reveal(), vault.Handle(vault.NewID()).String()))
		altered := mine.handle
		altered[15]++
		note("a handle next to mine", fetch(y, y.grant, y.token.Reveal(), altered.String()))
		if his.token != "" {
			note("his page", list(y.grant, y.token.Reveal(), his.token))
		}
		if mine.token != "" {
			swapped := strings.Map(func(r rune) rune {
				if r == rune(mine.token[i%len(mine.token)]) {
					return 'A'
				}
				return r
			}, mine.token)
			if swapped != mine.token {
				note("a page altered", list(y.grant, y.token.Reveal(), swapped))
			}
		}
	}
	small := limited.look(1000)
	limited.open(small[:5])
	for _, s := range small[5:25] {
		note("beyond the quota", fetch(limited, limited.grant, limited.token.Reveal(), s.handle.String()))
	}
	out := map[string][]string{}
	for what, texts := range said {
		out[what] = slices.Sorted(maps.Keys(texts))
	}
	return out
}

// nothingBeside shows that what else a contractor may read tells of no record.
func (y *spy) nothingBeside(ctx context.Context, t *testing.T) {
	got, err := y.c.Grants.GetGrant(ctx, &pb.GetGrantRequest{Name: y.grant})
	noError(t, err)
	if got.Preview != nil {
		t.Errorf("a contractor is told what its grant would open: %v", got.Preview)
	}
	_, err = y.c.Audit.ListEvents(ctx, &pb.ListEventsRequest{})
	refused(t, err, vault.ReasonRoleNotAllowed)
}
