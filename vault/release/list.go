package release

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/portcullis/portcullis/vault"
)

const (
	// MaxPage is the most records of a page.
	MaxPage = 1000
	// defaultWindow is how many handles of a listing are kept in order, 16 bytes each.
	defaultWindow = 1 << 17
	// defaultListings is how many listings are kept: at most 128 MiB in all.
	defaultListings = 64
	// fresh is how long a listing is begun anew without looking again at all that the grant
	// covers, if that is at least dear records: fewer take some milliseconds.
	fresh = 5 * time.Second
	dear  = 10_000
	// maxScans is how many listings look at all that their grants cover at once, one of each
	// contractor: this many keep as many cores busy.
	maxScans = 2
	// turnWait is how long a listing waits for its turn to do so.
	turnWait = 30 * time.Second
)

// View is what a grantee learns of a record besides its picture.
type View struct {
	Handle    vault.Handle
	Modality  vault.Modality
	Site      string
	Captured  time.Time // cut to Precision; zero when that is none
	Precision vault.Precision
	Crossing  vault.Handle // with linkage, the same for all records of a crossing; otherwise zero
}

// Page is a part of a listing.
type Page struct {
	Views      []View
	Next       string // token of the next page; empty after the last
	Checkpoint []byte // the newest of the log, signed
}

// List gives a page of the records that the grant covers and that appear ([vault.Purpose.Appears]),
// in the order of their handles, which tells nothing and is another in each grant. token is that of
// the page before; an empty one begins. One of another grant, or that was altered, is Invalid.
// Records that come into the scope while a listing is under way may be left out of it.
//
// The page is read beside the one writer of the database, which is asked for the event alone.
func (s *Service) List(ctx context.Context, c vault.Caller, t vault.Token, grant vault.ID, token string, most int) (page Page, err error) {
	if most < 0 || most > MaxPage {
		return Page{}, vault.InvalidField("page_size", "must be from 0 to %d", MaxPage)
	}
	if err := vault.CheckPage(pageField, token); err != nil {
		return Page{}, err
	}
	if most == 0 {
		most = MaxPage
	}
	var g vault.Grant
	var p vault.Purpose
	var unread error
	err = s.Ledger.View(ctx, func(tx Tx) error {
		g, p, unread = s.grant(tx, c, t, grant)
		return nil
	})
	if err == nil && unread == nil {
		page.Views, page.Next, err = s.page(ctx, g, p, token, most)
	}
	if err != nil {
		return Page{}, err
	}
	var refused error
	_, err = s.Ledger.Update(ctx, func(tx Tx) error {
		if page.Checkpoint, err = s.keepsUp(tx); err != nil {
			return err
		}
		if refused = unread; refused != nil {
			return refuse(tx, c, grant, refused)
		}
		g, _, err := s.grant(tx, c, t, grant) // again: it may have ended meanwhile
		if refused = err; err != nil {
			return refuse(tx, c, grant, err)
		}
		e := vault.NewEvent(vault.EventRecordsListed, c, tx.Now())
		e.Grant, e.Contractor, e.Count = grant.String(), g.Contractor, int64(len(page.Views))
		return tx.Append(e)
	})
	if err := errors.Join(err, refused); err != nil {
		return Page{}, err
	}
	return page, nil
}

// pageField is the field of the API that a page token stands in.
const pageField = "page_token"

func (s *Service) page(ctx context.Context, g vault.Grant, p vault.Purpose, token string, most int) (views []View, next string, err error) {
	after, err := g.HandleKey.OpenPage(pageField, g.Grant, token)
	if err != nil {
		return nil, "", err
	}
	judge := func(tx Tx) *judge { return s.judge(tx, g, p) }
	views, more, err := s.listings.of(g).page(ctx, s.Ledger, g, judge, after, most)
	if more {
		next = g.HandleKey.SealPage(g.Grant, views[len(views)-1].Handle)
	}
	return views, next, err
}

// listings keeps the order of listings under way, so that only the first page of one costs
// as much as the grant covers.
type listings struct {
	window, most int // 0 for the defaults

	mu     sync.Mutex
	grants []vault.ID // the one used last stands last
	known  map[vault.ID]*listing

	scans turns
}

// of gives the listing of a grant.
func (l *listings) of(g vault.Grant) *listing {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.grants, g.Grant); i >= 0 {
		l.grants = append(slices.Delete(l.grants, i, i+1), g.Grant)
		return l.known[g.Grant]
	}
	if len(l.grants) >= cmp.Or(l.most, defaultListings) {
		delete(l.known, l.grants[0])
		l.grants = slices.Delete(l.grants, 0, 1)
	}
	if l.known == nil {
		l.known = map[vault.ID]*listing{}
	}
	l.grants = append(l.grants, g.Grant)
	l.known[g.Grant] = &listing{window: cmp.Or(l.window, defaultWindow), turn: make(chan struct{}, 1), scans: &l.scans}
	return l.known[g.Grant]
}

// listing is a part of what a grant covers, in the order of handles: all after one handle, or
// as many as the window takes. It is but an order: each record is looked up when its page is
// read.
type listing struct {
	window  int
	scans   *turns
	turn    chan struct{} // held by whoever uses the rest
	after   vault.Handle
	handles []vault.Handle
	whole   bool      // there is nothing behind the last
	covered int       // records that its scope had
	at      time.Time // when that was
}

// page reads a page. A grantee that asks many times at once occupies the database once.
func (l *listing) page(ctx context.Context, ledger Ledger, g vault.Grant, judge func(Tx) *judge, after vault.Handle, most int) (views []View, more bool, err error) {
	if err := take(ctx, l.turn); err != nil {
		return nil, false, err
	}
	defer func() { <-l.turn }()
	begin := after == (vault.Handle{})
	for {
		over := false
		err := ledger.View(ctx, func(tx Tx) (err error) {
			if begin && !l.recent(tx.Now()) {
				return nil
			}
			views, over, more, err = l.read(judge(tx), &after, most, views)
			return err
		})
		if err != nil || over {
			return views, more, err
		}
		begin = false
		if err := l.order(ctx, ledger, g, judge, after); err != nil {
			return nil, false, err
		}
	}
}

// recent says whether a listing may begin with what is known.
func (l *listing) recent(now time.Time) bool {
	age := now.Sub(l.at)
	return l.covered >= dear && l.after == (vault.Handle{}) && age >= 0 && age < fresh
}

// read reads what is known of a page behind a handle, and moves the handle on. over says that
// the page is there; otherwise what comes after the handle must be put in order first.
func (l *listing) read(j *judge, after *vault.Handle, most int, known []View) (views []View, over, more bool, err error) {
	views = known
	if !l.leads(*after) {
		return views, false, false, nil
	}
	i, found := slices.BinarySearchFunc(l.handles, *after, compare)
	if found {
		i++
	}
	crossings := j.g.HandleKey.Crossings()
	for i < len(l.handles) {
		part := l.handles[i:min(i+most+1-len(views), len(l.handles))]
		records, err := j.records(part)
		if err != nil {
			return nil, false, false, err
		}
		for _, h := range part {
			r, ok := records[h]
			if !ok {
				continue
			}
			if len(views) == most {
				return views, true, true, nil
			}
			v := View{Handle: h, Modality: r.Modality, Site: r.Site, Captured: j.p.Precision.Cut(r.CapturedAt), Precision: j.p.Precision}
			if j.p.Linkage && r.CrossingID != (vault.ID{}) {
				v.Crossing = crossings.Handle(r.CrossingID)
			}
			views = append(views, v)
		}
		i += len(part)
		*after = part[len(part)-1]
	}
	return views, l.whole, false, nil
}

// records gives those of the records that the grant covers and that appear, now.
func (j *judge) records(handles []vault.Handle) (map[vault.Handle]vault.Record, error) {
	ids := make([]vault.ID, len(handles))
	for i, h := range handles {
		ids[i] = j.g.HandleKey.Record(h)
	}
	records, err := j.tx.RecordsOf(ids)
	if err != nil {
		return nil, err
	}
	out := make(map[vault.Handle]vault.Record, len(records))
	for _, r := range records {
		if r.Key != vault.KeyActive || !j.g.Covers(j.p, r) {
			continue
		}
		hidden, err := j.sees(r)
		if err != nil {
			return nil, err
		}
		if hidden == nil {
			out[j.g.HandleKey.Handle(r.ID)] = r
		}
	}
	return out, nil
}

// leads says whether what comes after a handle is known.
func (l *listing) leads(after vault.Handle) bool {
	if l.whole {
		return compare(l.after, after) <= 0
	}
	return len(l.handles) > 0 && compare(l.after, after) <= 0 && compare(after, l.handles[len(l.handles)-1]) < 0
}

// order looks at all that the grant covers and keeps the first handles after one. It needs
// room for two windows.
func (l *listing) order(ctx context.Context, ledger Ledger, g vault.Grant, judge func(Tx) *judge, after vault.Handle) error {
	leave, err := l.scans.enter(ctx, g.Contractor)
	if err != nil {
		return err
	}
	defer leave()
	var cut bool
	anew := func() { l.after, l.handles, l.whole, cut = after, l.handles[:0], false, false }
	anew()
	sort := func() {
		slices.SortFunc(l.handles, compare)
		if len(l.handles) > l.window {
			l.handles, cut = l.handles[:l.window], true
		}
	}
	err = ledger.Scan(ctx, func(tx Tx) (err error) {
		l.at = tx.Now()
		l.covered, err = judge(tx).each(anew, func(r vault.Record) {
			h := g.HandleKey.Handle(r.ID)
			if compare(h, after) <= 0 {
				return
			}
			if l.handles = append(l.handles, h); len(l.handles) == 2*l.window {
				sort()
			}
		})
		return err
	})
	if err != nil {
		l.handles, l.covered = nil, 0
		return err
	}
	sort()
	l.handles, l.whole = slices.Clone(l.handles), !cut // without the room that sorting took
	return nil
}

func compare(a, b vault.Handle) int { return bytes.Compare(a[:], b[:]) }
