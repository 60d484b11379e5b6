package house_test

import (
	"context"
	"flag"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/capture"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

// TestLaw plays any sequence of calls by any mix of callers, and holds each answer against a
// small model of policy: what the model refuses is refused, what it allows is done, and no group
// ever comes to both halves of a day but under one purpose with linkage.
func TestLaw(t *testing.T) {
	for name, value := range map[string]string{"rapid.checks": "60", "rapid.steps": "90"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() == f.DefValue {
			if err := flag.Set(name, value); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = flag.Set(name, f.DefValue) }()
		}
	}
	total := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		p := newPlay(t)
		defer p.h.Store.Close()
		p.prologue(rt)
		rt.Repeat(map[string]func(*rapid.T){
			"store": p.store, "apply": p.apply, "withdraw": p.withdraw, "request": p.request, "approve": p.approve,
			"activate": p.activate, "list": p.list, "fetch": p.fetch, "fetch again": p.fetch, "fetch more": p.fetch, "whole story": p.whole, "aged": p.aged,
			"end": p.end, "suspend": p.suspend, "revoke key": p.revokeKey, "wait": p.wait,
			"": func(rt *rapid.T) {
				if w := p.law.joined(); w != "" {
					rt.Fatal(w)
				}
			},
		})
		for k, n := range p.did {
			total[k] += n
		}
	})
	t.Logf("%v", total)
	// Those that each run meets dozens of times.
	for _, k := range []string{
		"released", "released without linkage", "listed", "requested", "approved", "activated", "tightened by one", "withdrawn",
		"requested refused as CONFLICT_RULE", "requested refused as PURPOSE_AGE", "activated refused as GRANT_PENDING",
		"released refused as BUCKET_OPEN", "released refused as HANDLE_UNKNOWN", "released refused as GRANT_TOKEN", "released refused as QUOTA_EXCEEDED",
	} {
		if total[k] == 0 {
			t.Errorf("no call was %s: the test shows nothing of it", k)
		}
	}
}

// play is one sequence.
type play struct {
	h      *house.House
	law    *law
	signed map[vault.ID]map[string]bool // decisions on purposes
	tokens []vault.Token
	did    map[string]int
}

var (
	sites    = []string{"north", "south"}
	orgs     = []string{"acme", "beta", "gamma"}
	admins   = []string{"alice", "bob", "carol"}
	workload = map[string]string{"acme": "acme/w", "beta": "beta/w", "gamma": "gamma/w"}
	both     = []vault.Modality{vault.Face, vault.Plate}
	halves   = [][]vault.Modality{{vault.Face}, {vault.Plate}, both}
)

func newPlay(t *testing.T) *play {
	h := house.New(t)
	p := &play{h: h, signed: map[vault.ID]map[string]bool{}, did: map[string]int{}, law: &law{
		orgs: map[string]*org{}, gone: map[string]bool{}, purposes: map[string][]lawful{}, grants: map[vault.ID]*permit{}, opened: map[cell]map[under]bool{},
	}}
	// acme and beta are affiliates.
	for name, group := range map[string]string{"acme": "combine", "beta": "combine", "gamma": "gamma"} {
		h.Decide(breach.Action{Contractor: &vault.Contractor{Name: name, Title: "An example", Group: group}})
		p.law.orgs[name] = &org{group: group, epoch: 1}
	}
	p.law.now = h.Clock.Now()
	return p
}

func (p *play) ctx() context.Context { return context.Background() }

func (p *play) caller(org string) vault.Caller {
	return p.h.Person("contractor/" + workload[org]).Caller
}

func (p *play) admin(name string) house.Person { return p.h.Person("admin/" + name) }

// agree compares what the service did with what the law says.
func (p *play) agree(rt *rapid.T, what string, lawful bool, err error) {
	rt.Helper()
	if lawful != (err == nil) {
		rt.Fatalf("%s: the law says %v, the service %v", what, lawful, err)
	}
	if err != nil {
		switch vault.KindOf(err) {
		case vault.Denied, vault.State, vault.NotFound, vault.Exhausted, vault.Invalid:
		default:
			rt.Fatalf("%s: %v", what, err)
		}
		what += " refused"
		p.did[what+" as "+string(vault.ReasonOf(err))]++
	}
	p.did[what]++
}

func pick[T any](rt *rapid.T, label string, in ...T) T { return rapid.SampledFrom(in).Draw(rt, label) }

// prologue sanctions two purposes and stores images.
func (p *play) prologue(rt *rapid.T) {
	for _, name := range []string{"p", "q"} {
		q := p.drawPurpose(rt)
		q.Name = name
		p.applySigned(rt, q, "alice", "bob")
	}
	for range 3 {
		p.store(rt)
	}
}

func (p *play) drawPurpose(rt *rapid.T) vault.Purpose {
	q := vault.Purpose{
		Name: pick(rt, "name", "p", "q"), Title: "A use", LegalBasis: "Order 12",
		Modalities: pick(rt, "modalities", halves...), Linkage: pick(rt, "linkage", false, true), Sites: pick(rt, "sites", sites, sites, sites[:1]),
		Contractors: pick(rt, "contractors", orgs, orgs, orgs[:2], orgs[1:]),
		MaxTTL:      pick(rt, "max_ttl", time.Hour, 48*time.Hour), MaxRecords: pick(rt, "max_records", int64(2), 100),
		MaxBytes: pick(rt, "max_bytes", int64(400), 1<<30), MaxRate: pick(rt, "max_rate", int64(2), 1000),
		MaxRecordAge: pick(rt, "max_record_age", time.Hour, 36*time.Hour, 30*24*time.Hour), Precision: pick(rt, "precision", vault.PrecisionHour, vault.PrecisionDay, vault.PrecisionNone),
		Approvals: pick(rt, "approvals", 1, 2), Approvers: pick(rt, "approvers", nil, nil, admins[1:]),
		Live: pick(rt, "live", false, true), Retention: pick(rt, "classes", []string{"special", "standard"}, []string{"standard"}),
	}
	if !q.Linkage {
		q.MinBucket = pick(rt, "min_bucket", 2, 3)
	} else if pick(rt, "exact", true, true, false) {
		q.Precision = vault.PrecisionExact
	}
	return q
}

func (p *play) apply(rt *rapid.T) {
	q := p.drawPurpose(rt)
	if old, ok := p.law.newest(q.Name); ok && pick(rt, "narrow", true, true, false) {
		// A change of a field or two, as people make it.
		fresh := q
		q = old.Purpose
		switch pick(rt, "field", "sites", "records", "rate", "approvals", "contractors", "live", "title") {
		case "sites":
			q.Sites = fresh.Sites
		case "records":
			q.MaxRecords, q.MaxBytes = fresh.MaxRecords, fresh.MaxBytes
		case "rate":
			q.MaxRate = fresh.MaxRate
		case "approvals":
			q.Approvals, q.Approvers = fresh.Approvals, fresh.Approvers
		case "contractors":
			q.Contractors = fresh.Contractors
		case "live":
			q.Live = fresh.Live
		case "title":
			q.Title = pick(rt, "title", "A use", "Another use")
		}
	}
	p.applySigned(rt, q, pick(rt, "signers", []string{"alice"}, []string{"alice", "bob"}, []string{"bob", "carol"})...)
}

// applySigned proposes a purpose and lets people sign it until it is in force.
func (p *play) applySigned(rt *rapid.T, q vault.Purpose, names ...string) {
	need := p.law.signers(q)
	d, err := p.h.Breach.Propose(p.ctx(), p.admin(names[0]).Caller, breach.Action{Purpose: &q})
	if (need == 0) != (vault.ReasonOf(err) == vault.ReasonUnchanged) || (need > 0 && err != nil) {
		rt.Fatalf("propose what wants %d signatures: %v", need, err)
	}
	if need == 0 {
		return
	}
	if p.signed[d.ID] == nil {
		p.signed[d.ID] = map[string]bool{}
	}
	for _, name := range names {
		if d.Effective || p.signed[d.ID][name] {
			continue
		}
		if d, _, err = p.h.Breach.Sign(p.ctx(), p.admin(name).Caller, d.ID, p.admin(name).Sign(d.Decision)); err != nil {
			rt.Fatalf("sign a purpose: %v", err)
		}
		p.signed[d.ID][name] = true
		if d.Effective != (len(p.signed[d.ID]) >= need) {
			rt.Fatalf("a purpose that wants %d signatures, with %d: in force %v", need, len(p.signed[d.ID]), d.Effective)
		}
	}
	if !d.Effective {
		return
	}
	if need == 1 {
		p.did["tightened by one"]++
	}
	q = q.Normal()
	q.Version = len(p.law.purposes[q.Name]) + 1
	p.law.purposes[q.Name] = append(p.law.purposes[q.Name], lawful{Purpose: q})
}

func (p *play) withdraw(rt *rapid.T) {
	if rapid.IntRange(0, 11).Draw(rt, "really") > 0 {
		return
	}
	name := pick(rt, "name", "p", "q")
	old, ok := p.law.newest(name)
	d, err := p.h.Breach.Propose(p.ctx(), p.admin("carol").Caller, breach.Action{Withdraw: name})
	if ok = ok && !old.gone; ok != (err == nil) {
		rt.Fatalf("withdraw %s: the law says %v, the service %v", name, ok, err)
	}
	if err != nil {
		return
	}
	if d, _, err = p.h.Breach.Sign(p.ctx(), p.admin("carol").Caller, d.ID, p.admin("carol").Sign(d.Decision)); err != nil || !d.Effective {
		rt.Fatalf("withdraw %s: %v", name, err)
	}
	p.did["withdrawn"]++
	old.gone = true
	old.Version++
	p.law.purposes[name] = append(p.law.purposes[name], old)
	for _, g := range p.law.grants {
		if g.purpose.Name == name {
			g.ended = true
		}
	}
}

func (p *play) store(rt *rapid.T) {
	site, class := pick(rt, "site", sites...), pick(rt, "class", "standard", "standard", "special")
	p.stored(rt, site, class, pick(rt, "ago", 0, 10*time.Minute, 100*time.Minute, 100*time.Minute, 25*time.Hour), pick(rt, "crossings", 1, 2, 3, 4))
}

// stored stores images of so many crossings.
func (p *play) stored(rt *rapid.T, site, class string, ago time.Duration, crossings int) {
	for range crossings {
		crossing := pick(rt, "crossing", vault.NewID(), vault.NewID(), vault.ID{})
		for _, m := range pick(rt, "halves", halves[2], halves[2], halves[0], halves[1]) {
			r, _, err := p.h.Capture.Store(p.ctx(), p.h.Person("capture/"+site+"/lane-1").Caller, capture.Image{
				RequestID: vault.NewID(), Modality: m, CapturedAt: p.law.now.Add(-ago), CrossingID: crossing, Class: class, Bytes: house.Picture(),
			})
			if err != nil {
				rt.Fatal(err)
			}
			p.law.records = append(p.law.records, &shot{Record: r})
		}
	}
}

// aged stores images, and asks for them once their hour has closed.
func (p *play) aged(rt *rapid.T) {
	p.stored(rt, "north", "standard", 0, 5)
	p.passes(rt, pick(rt, "for", 70*time.Minute, 25*time.Hour))
	p.whole(rt)
}

func (p *play) wait(rt *rapid.T) {
	p.passes(rt, pick(rt, "for", time.Second, 30*time.Second, 61*time.Second, 10*time.Minute, 70*time.Minute, 70*time.Minute, 25*time.Hour))
}

func (p *play) passes(rt *rapid.T, d time.Duration) {
	p.h.Clock.Advance(d)
	p.law.now = p.h.Clock.Now()
	if err := p.h.Grants.Sweep(p.ctx()); err != nil {
		rt.Fatal(err)
	}
}
