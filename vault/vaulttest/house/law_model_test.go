package house_test

import (
	"slices"
	"time"

	"github.com/portcullis/portcullis/vault"
)

// law is what policy says, told a second time: plain lists and loops, and none of the service's
// own rules. It is right, not fast.
type law struct {
	now      time.Time
	orgs     map[string]*org
	gone     map[string]bool         // suspended callers
	purposes map[string][]lawful     // versions, the newest last
	records  []*shot                 // all that were stored
	grants   map[vault.ID]*permit    // all that were asked for and not refused
	opened   map[cell]map[under]bool // by conflict group
}

type org struct {
	group     string
	suspended bool
	epoch     int
}

// lawful is one version of a purpose.
type lawful struct {
	vault.Purpose      // its plain fields alone are read
	gone          bool // withdrawn
}

type shot struct {
	vault.Record // its plain facts alone are read
	revoked      bool
}

// cell is one half of one site's day, of one conflict group.
type cell struct {
	group, site string
	day         string
	modality    vault.Modality
}

// under is for what something was opened.
type under struct {
	purpose string
	linkage bool
}

type permit struct {
	id       vault.ID
	who, org string
	epoch    int
	version  int
	purpose  lawful
	scope    vault.Scope
	asked    time.Time
	ends     time.Time
	records  int64
	bytes    int64

	denied, ended, suspended bool
	signed                   []string // names of admins
	approved                 time.Time
	token                    vault.Token
	active                   bool

	left   map[vault.ID]bool // records
	sent   int64             // bytes
	minute time.Time
	count  int64
	excess int
}

// unit is how long a bucket of times is; 0 when each moment stands for itself.
func unit(p vault.Precision) time.Duration {
	switch p {
	case vault.PrecisionHour:
		return time.Hour
	case vault.PrecisionDay, vault.PrecisionNone:
		return 24 * time.Hour
	}
	return 0
}

func down(t time.Time, u time.Duration) time.Time {
	if u == 0 {
		return t
	}
	us := t.UnixMicro()
	return time.UnixMicro(us - us%u.Microseconds()).UTC()
}

func up(t time.Time, u time.Duration) time.Time {
	if d := down(t, u); !d.Equal(t) {
		return d.Add(u)
	}
	return t
}

func subset[T comparable](a, b []T) bool {
	for _, v := range a {
		if !slices.Contains(b, v) {
			return false
		}
	}
	return true
}

// newest gives the version in force, and whether there is one.
func (l *law) newest(purpose string) (lawful, bool) {
	v := l.purposes[purpose]
	if len(v) == 0 {
		return lawful{}, false
	}
	return v[len(v)-1], true
}

// signers says how many admins must sign p in place of what is in force: 0 when nothing changes.
func (l *law) signers(p vault.Purpose) int {
	old, ok := l.newest(p.Name)
	if !ok {
		return 2
	}
	precise := map[vault.Precision]int{vault.PrecisionNone: 0, vault.PrecisionDay: 1, vault.PrecisionHour: 2, vault.PrecisionExact: 3}
	switch {
	case old.gone,
		p.Title != old.Title, p.LegalBasis != old.LegalBasis,
		!subset(p.Modalities, old.Modalities), !subset(p.Sites, old.Sites), !subset(p.Contractors, old.Contractors), !subset(p.Retention, old.Retention),
		p.Linkage && !old.Linkage, p.Live && !old.Live, old.Strict && !p.Strict,
		p.MaxTTL > old.MaxTTL, p.MaxRecords > old.MaxRecords, p.MaxBytes > old.MaxBytes, p.MaxRate > old.MaxRate, p.MaxRecordAge > old.MaxRecordAge,
		precise[p.Precision] > precise[old.Precision], (!old.Linkage || !old.Live) && unit(p.Precision) != unit(old.Precision), p.MinBucket < old.MinBucket, p.Approvals < old.Approvals,
		len(old.Approvers) > 0 && (len(p.Approvers) == 0 || !subset(p.Approvers, old.Approvers)):
		return 2
	}
	same := subset(old.Modalities, p.Modalities) && subset(old.Sites, p.Sites) && subset(old.Contractors, p.Contractors) && subset(old.Retention, p.Retention) &&
		p.Linkage == old.Linkage && p.Live == old.Live && old.Strict == p.Strict &&
		p.MaxTTL == old.MaxTTL && p.MaxRecords == old.MaxRecords && p.MaxBytes == old.MaxBytes && p.MaxRate == old.MaxRate && p.MaxRecordAge == old.MaxRecordAge &&
		p.Precision == old.Precision && p.MinBucket == old.MinBucket && p.Approvals == old.Approvals &&
		subset(old.Approvers, p.Approvers) && subset(p.Approvers, old.Approvers)
	if same {
		return 0
	}
	return 1
}

// over says whether nothing can come of the permit any more.
func (l *law) over(g *permit) bool {
	lapsed := g.approved.IsZero() && !l.now.Before(g.asked.Add(24*time.Hour))
	return g.denied || g.ended || g.suspended || lapsed || !l.now.Before(g.ends)
}

// standing says whether the workload may ask for anything.
func (l *law) standing(who, name string) bool {
	o := l.orgs[name]
	return !l.gone[who] && o != nil && !o.suspended
}

// grantable says whether policy lets the permit be asked for at that time, of what is in force.
func (l *law) grantable(g *permit, at time.Time) bool {
	p, ok := l.newest(g.purpose.Name)
	if !ok || p.gone || p.Version != g.version {
		return false
	}
	u := unit(p.Precision)
	return slices.Contains(p.Contractors, g.org) && subset(g.scope.Modalities, p.Modalities) && subset(g.scope.Sites, p.Sites) &&
		(len(g.scope.Modalities) < 2 || p.Linkage) &&
		g.ends.Sub(at) <= p.MaxTTL && g.records <= p.MaxRecords && g.bytes <= p.MaxBytes &&
		!g.scope.From.Before(up(at.Add(-p.MaxRecordAge), u)) &&
		down(g.scope.From, u).Equal(g.scope.From) && down(g.scope.Until, u).Equal(g.scope.Until) &&
		(p.Live || (!g.scope.Live && !g.scope.Until.After(up(at, u))))
}

// parts gives the halves of days that the permit covers.
func (l *law) parts(g *permit) (out []cell) {
	for _, s := range g.scope.Sites {
		for _, m := range g.scope.Modalities {
			for d := down(g.scope.From, 24*time.Hour); d.Before(g.scope.Until); d = d.Add(24 * time.Hour) {
				out = append(out, cell{l.orgs[g.org].group, s, d.Format(time.DateOnly), m})
			}
		}
	}
	return out
}

// apart says whether nothing that the group holds or has opened is the other half of the permit,
// but for what is under the same purpose with linkage.
func (l *law) apart(g *permit) bool {
	have := map[cell]map[under]bool{}
	add := func(c cell, u under) {
		if have[c] == nil {
			have[c] = map[under]bool{}
		}
		have[c][u] = true
	}
	for c, all := range l.opened {
		for u := range all {
			add(c, u)
		}
	}
	for _, other := range l.grants {
		if other.id != g.id && !other.approved.IsZero() && !l.over(other) {
			for _, c := range l.parts(other) {
				add(c, under{other.purpose.Name, other.purpose.Linkage})
			}
		}
	}
	for _, c := range l.parts(g) {
		half := c
		half.modality = vault.Face
		if c.modality == vault.Face {
			half.modality = vault.Plate
		}
		for u := range have[half] {
			if u.purpose != g.purpose.Name || !u.linkage || !g.purpose.Linkage {
				return false
			}
		}
	}
	return true
}

// usable says whether the permit may still become more: an approval, or a token.
func (l *law) usable(g *permit) bool {
	o := l.orgs[g.org]
	return !l.over(g) && l.standing(g.who, g.org) && o.epoch == g.epoch && l.grantable(g, g.asked) && l.apart(g)
}

func (l *law) approvable(g *permit, admin string) bool {
	return g.approved.IsZero() && l.usable(g) && !slices.Contains(g.signed, admin) &&
		(len(g.purpose.Approvers) == 0 || slices.Contains(g.purpose.Approvers, admin))
}

// open says whether the permit lets its grantee list and fetch now.
func (l *law) open(g *permit, who string, t vault.Token) bool {
	return g.active && !l.over(g) && who == g.who && l.standing(who, g.org) && l.orgs[g.org].epoch == g.epoch && t == g.token
}

// covers says whether the permit is about the record.
func (l *law) covers(g *permit, r *shot) bool {
	return slices.Contains(g.scope.Sites, r.Site) && slices.Contains(g.scope.Modalities, r.Modality) &&
		!r.CapturedAt.Before(g.scope.From) && r.CapturedAt.Before(g.scope.Until) && slices.Contains(g.purpose.Retention, r.Class) &&
		(!g.scope.Live || !r.CapturedAt.Before(up(g.approved, unit(g.purpose.Precision))))
}

// wave is when a record appears, and which records do with it.
func (l *law) wave(g *permit, r *shot) (from, until, opens time.Time, late int64) {
	u := unit(g.purpose.Precision)
	from = down(r.CapturedAt, u)
	until = from.Add(u)
	closed := until.Add(5 * time.Minute)
	if !r.StoredAt.Before(closed) {
		late = 1 + int64(r.StoredAt.Sub(closed)/u)
	}
	return from, until, closed.Add(time.Duration(late)*u + time.Minute), late
}

// appears says whether the record may be seen by now.
func (l *law) appears(g *permit, r *shot) bool {
	if g.purpose.Linkage {
		return true
	}
	from, until, opens, late := l.wave(g, r)
	if l.now.Before(opens) {
		return false
	}
	crossings := map[vault.ID]bool{}
	for _, o := range l.records {
		if o.revoked || o.Site != r.Site || o.Modality != r.Modality || !slices.Contains(g.purpose.Retention, o.Class) || o.CapturedAt.Before(from) || !o.CapturedAt.Before(until) {
			continue
		}
		if _, _, _, when := l.wave(g, o); when != late {
			continue
		}
		if o.CrossingID == (vault.ID{}) {
			crossings[o.ID] = true
		} else {
			crossings[o.CrossingID] = true
		}
	}
	return len(crossings) >= g.purpose.MinBucket
}

// seen counts what a listing of the permit shows.
func (l *law) seen(g *permit) (n int) {
	for _, r := range l.records {
		if !r.revoked && l.covers(g, r) && l.appears(g, r) {
			n++
		}
	}
	return n
}

// release says whether the record may leave now, and counts it if it does.
func (l *law) release(g *permit, who string, t vault.Token, r *shot) bool {
	if !l.open(g, who, t) || !l.covers(g, r) || r.revoked || !l.appears(g, r) {
		return false
	}
	minute, count := g.minute, g.count
	if l.now.Sub(minute) >= time.Minute {
		minute, count = l.now, 0
	}
	fresh, size := !g.left[r.ID], r.Size
	if !fresh {
		size = 0
	}
	if (fresh && int64(len(g.left)) == g.records) || g.sent+size > g.bytes || count == g.purpose.MaxRate {
		if g.excess++; g.excess > 100 {
			g.suspended = true
		}
		return false
	}
	if fresh || minute != g.minute {
		g.excess = 0
	}
	g.left[r.ID], g.minute, g.count = true, minute, count+1
	g.sent += size
	c := cell{l.orgs[g.org].group, r.Site, r.CapturedAt.UTC().Format(time.DateOnly), r.Modality}
	if l.opened[c] == nil {
		l.opened[c] = map[under]bool{}
	}
	l.opened[c][under{g.purpose.Name, g.purpose.Linkage}] = true
	return true
}

// joined names a day of which a group has opened both halves, other than under one purpose with
// linkage: what must never be, however it came about.
func (l *law) joined() string {
	for c, faces := range l.opened {
		if c.modality != vault.Face {
			continue
		}
		half := c
		half.modality = vault.Plate
		for p := range l.opened[half] {
			for f := range faces {
				if f.purpose != p.purpose || !f.linkage || !p.linkage {
					return c.group + " has both halves of " + c.site + " on " + c.day
				}
			}
		}
	}
	return ""
}
