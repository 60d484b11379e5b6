package house_test

import (
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/grants"
)

// drawScope draws a window, mostly on whole days or hours.
func (p *play) drawScope(rt *rapid.T) vault.Scope {
	now := p.law.now
	day, hour := down(now, 24*time.Hour), down(now, time.Hour)
	s := vault.Scope{Sites: pick(rt, "sites", sites, sites[:1], sites[1:]), Modalities: pick(rt, "modalities", halves...)}
	type window struct{ from, until time.Time }
	w := pick(rt, "window",
		window{day.AddDate(0, 0, -1), day.AddDate(0, 0, 1)}, window{day.AddDate(0, 0, -2), day}, window{day, day.AddDate(0, 0, 1)},
		window{hour.Add(-3 * time.Hour), hour.Add(time.Hour)}, window{hour.Add(-3 * time.Hour), hour.Add(time.Hour)},
		window{now.Add(-100 * time.Minute), now.Add(time.Second)}, window{day, day.AddDate(0, 0, 3)}, window{})
	if s.From, s.Until = w.from, w.until; w == (window{}) {
		s.Live = true
	}
	return s
}

func (p *play) request(rt *rapid.T) { p.asked(rt) }

func (p *play) asked(rt *rapid.T) *permit {
	org := pick(rt, "org", orgs...)
	c := p.caller(org)
	r := grants.Request{
		ID: vault.NewID(), Purpose: pick(rt, "purpose", "p", "q"), Scope: p.drawScope(rt), Justification: "WO-1",
		MaxRecords: pick(rt, "max_records", int64(1), 2, 50), MaxBytes: pick(rt, "max_bytes", int64(0), 300, 1<<20), TTL: pick(rt, "ttl", 30*time.Minute, 3*time.Hour, 30*time.Hour),
	}
	if q, ok := p.law.newest(r.Purpose); ok && pick(rt, "fit", true, true, true, false) {
		org, r = p.fit(rt, q, org, r)
		c = p.caller(org)
	}
	want := &permit{who: c.ID, org: org, epoch: p.law.orgs[org].epoch, scope: r.Scope, asked: p.law.now, ends: p.law.now.Add(r.TTL), records: r.MaxRecords, bytes: r.MaxBytes, left: map[vault.ID]bool{}}
	newest, ok := p.law.newest(r.Purpose)
	want.purpose, want.version = newest, newest.Version
	if want.bytes == 0 {
		want.bytes = newest.MaxBytes
	}
	if r.Scope.Live {
		u := unit(newest.Precision)
		want.scope.From, want.scope.Until = up(p.law.now, u), down(want.ends, u)
		ok = ok && want.scope.From.Before(want.scope.Until)
	}
	if end := up(p.law.now, unit(newest.Precision)); ok && !newest.Live && !r.Scope.Live && want.scope.From.Before(end) && want.scope.Until.After(end) {
		want.scope.Until = end // what was captured by now
	}
	ok = ok && p.law.standing(c.ID, org) && p.law.grantable(want, p.law.now) && p.law.apart(want)
	g, err := p.h.Grants.Request(p.ctx(), c, r)
	if p.agree(rt, "requested", ok, err); err != nil {
		return nil
	}
	want.id = g.Grant
	p.law.grants[g.Grant] = want
	return want
}

// fit makes a request lawful, as far as the purpose alone decides.
func (p *play) fit(rt *rapid.T, q lawful, org string, r grants.Request) (string, grants.Request) {
	if !slices.Contains(q.Contractors, org) {
		org = q.Contractors[0]
	}
	if !subset(r.Scope.Modalities, q.Modalities) || !q.Linkage && pick(rt, "one half", true, true, false) {
		r.Scope.Modalities = []vault.Modality{pick(rt, "modality", q.Modalities...)}
	}
	if !subset(r.Scope.Sites, q.Sites) {
		r.Scope.Sites = q.Sites
	}
	r.TTL, r.MaxRecords, r.MaxBytes = min(r.TTL, q.MaxTTL), min(r.MaxRecords, q.MaxRecords), min(r.MaxBytes, q.MaxBytes)
	if r.Scope.Live && !q.Live {
		r.Scope.Live = false
	}
	if u := unit(q.Precision); !r.Scope.Live {
		r.Scope.From = up(p.law.now.Add(-min(q.MaxRecordAge, 50*time.Hour)), u)
		r.Scope.Until = pick(rt, "until", up(p.law.now, 24*time.Hour), up(p.law.now, u))
		if !r.Scope.From.Before(r.Scope.Until) {
			r.Scope.From = r.Scope.Until.Add(-max(u, time.Hour))
		}
	}
	return org, r
}

// some picks one of the permits, the later ones more often.
func (p *play) some(rt *rapid.T, fit func(*permit) bool) *permit {
	var all []*permit
	for _, g := range p.law.grants {
		if fit(g) {
			all = append(all, g)
		}
	}
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, func(a, b *permit) int { // as the drawing must not hang on the map's order
		if c := b.asked.Compare(a.asked); c != 0 {
			return c
		}
		return slices.Compare(a.id[:], b.id[:])
	})
	return pick(rt, "grant", all[:min(len(all), 6)]...)
}

func (p *play) approve(rt *rapid.T) {
	if g := p.some(rt, func(g *permit) bool { return g.approved.IsZero() || rapid.Bool().Draw(rt, "approved too") }); g != nil {
		p.sign(rt, g, pick(rt, "admin", admins...))
	}
}

func (p *play) sign(rt *rapid.T, g *permit, name string) {
	seen, err := p.h.Grants.Get(p.ctx(), p.admin(name).Caller, g.id)
	row := seen.Grant
	if err != nil {
		rt.Fatal(err)
	}
	ok := p.law.approvable(g, name)
	row, err = p.h.Grants.Approve(p.ctx(), p.admin(name).Caller, g.id, p.admin(name).Sign(row.Decision()))
	if p.agree(rt, "approved", ok, err); err != nil {
		return
	}
	if g.signed = append(g.signed, name); len(g.signed) == g.purpose.Approvals {
		g.approved = p.law.now
	}
	if (row.State == vault.GrantApproved) != !g.approved.IsZero() {
		rt.Fatalf("after %d of %d approvals the grant is %s", len(g.signed), g.purpose.Approvals, row.State)
	}
}

func (p *play) activate(rt *rapid.T) {
	if g := p.some(rt, func(*permit) bool { return true }); g != nil {
		p.token(rt, g, pick(rt, "org", g.org, g.org, g.org, "acme", "gamma"))
	}
}

func (p *play) token(rt *rapid.T, g *permit, org string) {
	c := p.caller(org)
	ok := c.ID == g.who && !g.approved.IsZero() && p.law.usable(g) && g.ends.Sub(p.law.now) >= time.Second
	_, t, err := p.h.Grants.Activate(p.ctx(), c, g.id)
	if p.agree(rt, "activated", ok, err); err == nil {
		g.token, g.active = t, true
		p.tokens = append(p.tokens, t)
	}
}

// whole takes a request as far as it goes.
func (p *play) whole(rt *rapid.T) {
	g := p.asked(rt)
	for _, name := range admins {
		if g == nil || !g.approved.IsZero() {
			break
		}
		if p.law.approvable(g, name) {
			p.sign(rt, g, name)
		}
	}
	if g != nil && !g.approved.IsZero() {
		p.token(rt, g, g.org)
		p.fetchOf(rt, g)
	}
}

func (p *play) list(rt *rapid.T) {
	g := p.some(rt, func(g *permit) bool { return g.active })
	if g == nil {
		return
	}
	c := p.caller(pick(rt, "org", g.org, g.org, g.org, "beta"))
	page, err := p.h.Release.List(p.ctx(), c, g.token, g.id, "", 0)
	p.agree(rt, "listed", p.law.open(g, c.ID, g.token), err)
	if want := p.law.seen(g); err == nil && len(page.Views) != want {
		rt.Fatalf("the listing has %d records, the law %d", len(page.Views), want)
	}
}

func (p *play) fetch(rt *rapid.T) {
	ended := pick(rt, "ended too", false, false, false, true)
	if g := p.some(rt, func(g *permit) bool { return g.active && (ended || !p.law.over(g)) }); g != nil {
		p.fetchOf(rt, g)
	}
}

// fetchOf fetches some records, most of them covered ones.
func (p *play) fetchOf(rt *rapid.T, g *permit) {
	seen, err := p.h.Grants.Get(p.ctx(), p.admin("alice").Caller, g.id)
	row := seen.Grant
	if err != nil {
		rt.Fatal(err)
	}
	var near []*shot
	for _, r := range p.law.records {
		if p.law.covers(g, r) {
			near = append(near, r)
		}
	}
	for range pick(rt, "records", 1, 2, 4) {
		from := p.law.records
		if len(near) > 0 && pick(rt, "covered", true, true, true, false) {
			from = near
		}
		r := pick(rt, "record", from...)
		c, t := p.caller(pick(rt, "org", g.org, g.org, g.org, g.org, "gamma")), g.token
		if len(p.tokens) > 0 && pick(rt, "other token", false, false, false, true) {
			t = pick(rt, "token", p.tokens...)
		}
		sent := false
		ok := p.law.release(g, c.ID, t, r)
		err := p.h.Release.Fetch(p.ctx(), c, t, g.id, row.HandleKey.Handle(r.ID), func(vault.Image) error { sent = true; return nil })
		if p.agree(rt, "released", ok, err); sent != ok {
			rt.Fatalf("the law says %v, and an image was sent: %v", ok, sent)
		}
		if ok && !g.purpose.Linkage {
			p.did["released without linkage"]++
		}
	}
}

func (p *play) end(rt *rapid.T) {
	g := p.some(rt, func(*permit) bool { return true })
	if g == nil || pick(rt, "really", false, false, true) {
		return
	}
	var err error
	switch pick(rt, "how", "deny", "revoke", "retire") {
	case "deny":
		_, err = p.h.Grants.Deny(p.ctx(), p.admin("bob").Caller, g.id, "")
		if err == nil {
			g.denied = true
		}
	case "revoke":
		_, _, err = p.h.Grants.Revoke(p.ctx(), p.admin("bob").Caller, g.id, "")
		if err == nil {
			g.ended = true
		}
	case "retire":
		_, _, err = p.h.Grants.Retire(p.ctx(), p.caller(g.org), g.id)
		if err == nil {
			g.ended = true
		}
	}
	if err != nil && vault.KindOf(err) != vault.State && vault.KindOf(err) != vault.Denied {
		rt.Fatal(err)
	}
}

// suspend cuts a contractor off, or brings it back.
func (p *play) suspend(rt *rapid.T) {
	name := pick(rt, "org", orgs...)
	o := p.law.orgs[name]
	if o.suspended {
		for _, who := range admins[:2] {
			d, err := p.h.Breach.Propose(p.ctx(), p.admin(who).Caller, breach.Action{Contractor: &vault.Contractor{Name: name, Title: "An example", Group: o.group}})
			if err == nil {
				_, _, err = p.h.Breach.Sign(p.ctx(), p.admin(who).Caller, d.ID, p.admin(who).Sign(d.Decision))
			}
			if err != nil {
				rt.Fatal(err)
			}
		}
		o.suspended = false
		o.epoch++
		return
	}
	if rapid.IntRange(0, 7).Draw(rt, "really") > 0 {
		return
	}
	if _, err := p.h.Breach.Suspend(p.ctx(), p.admin("alice").Caller, name, ""); err != nil {
		rt.Fatal(err)
	}
	o.suspended = true
	for _, g := range p.law.grants {
		if g.org == name {
			g.ended = true
		}
	}
}

func (p *play) revokeKey(rt *rapid.T) {
	if len(p.law.records) == 0 || pick(rt, "really", false, false, true) {
		return
	}
	r := pick(rt, "record", p.law.records...)
	_, err := p.h.Breach.Revoke(p.ctx(), p.admin("bob").Caller, vault.Selection{Record: r.ID}, "")
	if err != nil && vault.KindOf(err) != vault.NotFound && vault.KindOf(err) != vault.State {
		rt.Fatal(err)
	}
	r.revoked = true
}
