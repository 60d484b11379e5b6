package grants_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/grants"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

// apart is a purpose of one modality without linkage: plates of the hour, by twos.
func apart(name string, m vault.Modality) vault.Purpose {
	p := house.Tuning()
	p.Name, p.Modalities, p.Linkage, p.Precision, p.MinBucket = name, []vault.Modality{m}, false, vault.PrecisionHour, 2
	return p
}

// sanction puts purposes in force.
func (s *scene) sanction(ps ...vault.Purpose) {
	s.Helper()
	for _, p := range ps {
		s.Decide(breach.Action{Purpose: &p})
	}
}

// live is a scope of what is still to come.
func live() vault.Scope {
	return vault.Scope{Live: true, Sites: []string{"north", "south"}, Modalities: []vault.Modality{vault.Face, vault.Plate}}
}

// of asks for a grant of a purpose, with its modalities, of whole days.
func of(p vault.Purpose) func(*grants.Request) {
	return func(r *grants.Request) { r.Purpose, r.Scope.Modalities = p.Name, p.Modalities }
}

// list makes a list for a contractor.
func (s *scene) list(org string, records ...vault.Record) vault.ID {
	s.Helper()
	r := grants.ListRequest{ID: vault.NewID(), Contractor: org}
	for _, x := range records {
		r.Records = append(r.Records, x.ID)
	}
	l, err := s.Grants.CreateList(s.Context(), s.Alice().Caller, r)
	s.NoError(err)
	return l.ID
}

// TestLiveScope: the service makes the window, of whole steps of the precision, and the same
// request again later gives the same grant.
func TestLiveScope(t *testing.T) {
	s := open(t)
	s.sanction(apart("hourly", vault.Plate))
	r := house.Ask()
	r.Scope = live()
	g, err := s.Grants.Request(t.Context(), s.acme, r)
	s.NoError(err)
	if !g.Scope.Live || !g.Scope.From.Equal(house.Start) || !g.Scope.Until.Equal(g.Ends) {
		t.Errorf("the window is from %s until %s", g.Scope.From, g.Scope.Until)
	}
	s.Clock.Advance(10 * time.Minute)
	again, err := s.Grants.Request(t.Context(), s.acme, r)
	if s.NoError(err); again.Text() != g.Text() {
		t.Errorf("another grant came of it: %s", again.Text())
	}

	r = house.Ask()
	r.Purpose, r.Scope, r.TTL = "hourly", live(), 100*time.Minute // from 12:10 to 13:50
	r.Scope.Modalities = []vault.Modality{vault.Plate}
	short := r
	short.TTL = 30 * time.Minute
	_, err = s.Grants.Request(t.Context(), s.acme, short)
	if vault.KindOf(err) != vault.Invalid || !strings.Contains(err.Error(), "ttl: is too short") ||
		!strings.HasSuffix(err.Error(), "ends at "+vault.FormatTime(house.Start.Add(2*time.Hour))) {
		t.Errorf("a life without a whole hour: %v", err)
	}
	if _, err := s.Grants.Explain(t.Context(), s.acme, short); vault.KindOf(err) != vault.Invalid {
		t.Errorf("explained: %v", err)
	}
	_, err = s.Grants.Request(t.Context(), s.acme, r)
	if vault.KindOf(err) != vault.Invalid { // 13:00 to 13:00
		t.Errorf("a life without a whole hour: %v", err)
	}
	// Under a purpose that is not live no length would do, so that is what is said.
	still := apart("still", vault.Plate)
	still.Live = false
	s.sanction(still)
	short.Purpose = "still"
	_, err = s.Grants.Request(t.Context(), s.acme, short)
	s.Refused(err, vault.Denied, vault.ReasonPurposeLive)
	r.TTL = 2 * time.Hour
	g, err = s.Grants.Request(t.Context(), s.acme, r)
	if s.NoError(err); !g.Scope.From.Equal(house.Start.Add(time.Hour)) || !g.Scope.Until.Equal(house.Start.Add(2*time.Hour)) {
		t.Errorf("the window is from %s until %s", g.Scope.From, g.Scope.Until)
	}
	r.ID, r.Scope.From, r.Scope.Until = vault.NewID(), g.Scope.From, g.Scope.Until
	if _, err = s.Grants.Request(t.Context(), s.acme, r); vault.KindOf(err) != vault.Invalid {
		t.Errorf("a live scope with times: %v", err)
	}
}

// TestBytesByThePurpose: no number is as many as the purpose allows, also when the request is
// repeated after the purpose changed.
func TestBytesByThePurpose(t *testing.T) {
	s := open(t)
	r := house.Ask()
	g, err := s.Grants.Request(t.Context(), s.acme, r)
	if s.NoError(err); g.MaxBytes != house.Tuning().MaxBytes {
		t.Errorf("%d bytes", g.MaxBytes)
	}
	p := house.Tuning()
	p.MaxBytes--
	s.sanction(p)
	again, err := s.Grants.Request(t.Context(), s.acme, r)
	if s.NoError(err); again.Grant != g.Grant {
		t.Error("another grant came of it")
	}
	for _, n := range []int64{-1, vault.MaxBytes + 1} {
		r.ID, r.MaxBytes = vault.NewID(), n
		if _, err := s.Grants.Request(t.Context(), s.acme, r); vault.KindOf(err) != vault.Invalid {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	r.MaxBytes = p.MaxBytes + 1
	_, err = s.Grants.Request(t.Context(), s.acme, r)
	s.Refused(err, vault.Denied, vault.ReasonPurposeBytes)
}

// TestListScope: a grant of a list covers its records and no others; Vault opens their keys alone.
func TestListScope(t *testing.T) {
	s := open(t)
	one, two := s.Record("north", vault.Plate, time.Hour), s.Record("south", vault.Plate, 30*time.Hour)
	id := s.list("acme", one, two)
	r := house.Ask()
	r.Scope = vault.Scope{List: id}
	g, err := s.Grants.Request(t.Context(), s.acme, r)
	s.NoError(err)
	if want := vault.SortIDs([]vault.ID{one.ID, two.ID}); !slices.Equal(g.Scope.Records, want) || !g.Scope.Covers(one) || g.Scope.Covers(s.record) {
		t.Errorf("the scope is %+v", g.Scope)
	}
	again, err := s.Grants.Request(t.Context(), s.acme, r)
	if s.NoError(err); again.Text() != g.Text() {
		t.Error("another grant came of it")
	}
	for _, p := range []house.Person{s.Alice(), s.Bob()} {
		_, err := s.sign(p, g)
		s.NoError(err)
	}
	_, token, err := s.Grants.Activate(t.Context(), s.acme, g.Grant)
	s.NoError(err)
	other := s.Record("north", vault.Plate, time.Hour) // of the same site and day
	if s.Opens(token, one) != nil || s.Opens(token, two) != nil || s.Opens(token, other) == nil || s.Opens(token, s.record) == nil {
		t.Errorf("Vault opens other keys than the list's: %v, %v, %v", s.Opens(token, one), s.Opens(token, two), s.Opens(token, other))
	}
}

// TestListRefused: what speaks against granting a list, each with its reason and its event. Of
// the records the contractor learns nothing.
func TestListRefused(t *testing.T) {
	s := open(t)
	s.sanction(apart("hourly", vault.Face))
	plate, face := s.Record("north", vault.Plate, time.Hour), s.Record("north", vault.Face, time.Hour)
	shot := s.Shot(vault.Plate, time.Hour)
	shot.Class = "minors"
	minor, _, err := s.Capture.Store(t.Context(), s.Caller("capture/north/lane-1"), shot)
	s.NoError(err)
	gone := s.Record("north", vault.Plate, time.Hour)
	lost := s.list("acme", plate, gone)
	s.SQL("DELETE FROM records WHERE id = ?", gone.ID.String())
	for name, c := range map[string]struct {
		purpose string
		list    vault.ID
		kind    vault.Kind
		reason  vault.Reason
	}{
		"absent":               {"tuning", vault.NewID(), vault.NotFound, vault.ReasonListUnknown},
		"another contractor's": {"tuning", s.list("beta", plate), vault.NotFound, vault.ReasonListUnknown},
		"a lost record":        {"tuning", lost, vault.NotFound, vault.ReasonRecordUnknown},
		"class":                {"tuning", s.list("acme", plate, minor), vault.Denied, vault.ReasonPurposeClass},
		"alone in its bucket":  {"hourly", s.list("acme", face), vault.Denied, vault.ReasonBucketSmall},
		"modality":             {"hourly", s.list("acme", plate, face), vault.Denied, vault.ReasonPurposeModality},
	} {
		t.Run(name, func(t *testing.T) {
			r := house.Ask()
			r.Purpose, r.Scope = c.purpose, vault.Scope{List: c.list}
			against, err := s.Grants.Explain(t.Context(), s.acme, r)
			s.NoError(err)
			if !slices.ContainsFunc(against, func(err error) bool { return vault.ReasonOf(err) == c.reason }) {
				t.Errorf("explained: %v", against)
			}
			_, err = s.Grants.Request(t.Context(), s.acme, r)
			s.Refused(err, c.kind, c.reason)
			for _, secret := range []vault.Record{plate, face, minor, gone} {
				if strings.Contains(err.Error(), secret.ID.String()) {
					t.Errorf("a record's ID: %v", err)
				}
			}
			if e := s.Last(); e.Type != vault.EventGrantRefused || e.Reason != c.reason || !strings.Contains(e.Terms, "list: "+c.list.String()+"\n") {
				t.Errorf("the log ends in %+v", e)
			}
		})
	}
	// Two crossings of the list in one hour, and one of them twice, are two.
	t.Run("crossings, not records", func(t *testing.T) {
		shot := s.Shot(vault.Face, time.Hour)
		shot.CrossingID = face.CrossingID
		same, _, err := s.Capture.Store(t.Context(), s.Caller("capture/north/lane-1"), shot)
		s.NoError(err)
		r := house.Ask()
		r.Purpose, r.Scope = "hourly", vault.Scope{List: s.list("acme", face, same)}
		_, err = s.Grants.Request(t.Context(), s.acme, r)
		s.Refused(err, vault.Denied, vault.ReasonBucketSmall)
		r.Scope.List = s.list("acme", face, same, s.Record("north", vault.Face, time.Hour))
		_, err = s.Grants.Request(t.Context(), s.acme, r)
		s.NoError(err)
	})
}

// TestExplain: all that speaks against a request, at once. Nothing is asked for, and the log has each
// question with its answer: nobody looks for gaps in policy unseen.
func TestExplain(t *testing.T) {
	s := open(t)
	others := house.Tuning()
	others.Name, others.Contractors, others.MaxRecords = "others", []string{"beta"}, 7
	s.sanction(others)
	r := house.Ask()
	r.ID = vault.ID{}
	r.Scope.Sites, r.MaxRecords, r.TTL = []string{"east"}, house.Tuning().MaxRecords+1, house.Tuning().MaxTTL+time.Second
	s.Trace()
	explain := func(c vault.Caller, r grants.Request) (out []vault.Reason) {
		t.Helper()
		against, err := s.Grants.Explain(t.Context(), c, r)
		s.NoError(err)
		for _, err := range against {
			out = append(out, vault.ReasonOf(err))
		}
		return out
	}
	for name, c := range map[string]struct {
		who    string
		change func(*grants.Request)
		want   []vault.Reason
	}{
		"all at once": {"acme", func(*grants.Request) {}, []vault.Reason{vault.ReasonPurposeSite, vault.ReasonPurposeDuration, vault.ReasonPurposeQuota}},
		"with a list that is unknown": {"acme", func(r *grants.Request) { r.Scope = vault.Scope{List: vault.NewID()} },
			[]vault.Reason{vault.ReasonPurposeDuration, vault.ReasonPurposeQuota, vault.ReasonListUnknown}},
		"unknown purpose":    {"acme", func(r *grants.Request) { r.Purpose = "matching" }, []vault.Reason{vault.ReasonPurposeUnknown}},
		"others' purpose":    {"acme", func(r *grants.Request) { r.Purpose = "others" }, []vault.Reason{vault.ReasonPurposeContractor}},
		"unknown contractor": {"nobody", func(*grants.Request) {}, []vault.Reason{vault.ReasonContractorUnknown}},
		"none":               {"acme", func(r *grants.Request) { *r = house.Ask() }, nil},
	} {
		r := r
		c.change(&r)
		events := len(s.Events())
		if got := explain(s.Caller("contractor/"+c.who+"/tuning"), r); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		e := s.Last()
		if n := len(s.Events()) - events; n != 1 || e.Type != vault.EventGrantExplained || !slices.Equal(e.Reasons, c.want) || e.Reason != "" || e.Grant != "" ||
			e.Contractor != c.who || e.Actor != s.Caller("contractor/"+c.who+"/tuning").ID || !strings.Contains(e.Terms, "purpose: "+r.Purpose+"\n") {
			t.Errorf("%s: of %d new events the last is %+v", name, n, e)
		}
	}
	if n, calls := s.Ask("SELECT COUNT(*) FROM grants"), slices.Compact(s.Trace()); n != "0" || !slices.Equal(calls, []string{"Update"}) {
		t.Errorf("%s grants came of it, and the calls %v", n, calls)
	}
	// Many reasons of one kind are told as one.
	var many []vault.Record
	for _, class := range []string{"minors", "diplomats"} {
		shot := s.Shot(vault.Face, time.Hour)
		shot.Class = class
		record, _, err := s.Capture.Store(t.Context(), s.Caller("capture/north/lane-1"), shot)
		s.NoError(err)
		many = append(many, record)
	}
	r = house.Ask()
	r.Scope = vault.Scope{List: s.list("acme", many...)}
	if got := explain(s.acme, r); len(got) != 2 || !slices.Equal(s.Last().Reasons, []vault.Reason{vault.ReasonPurposeClass}) {
		t.Errorf("%v; the log has %v", got, s.Last().Reasons)
	}
	// What is malformed is no question, and a question that is not logged gets no answer.
	events := len(s.Events())
	r.MaxRecords = 0
	if _, err := s.Grants.Explain(t.Context(), s.acme, r); vault.KindOf(err) != vault.Invalid || len(s.Events()) != events {
		t.Errorf("%v, and %d events", err, len(s.Events())-events)
	}
	s.Clock.Advance(time.Minute)
	s.SQL("DROP TABLE events")
	for range 2 {
		if against, err := s.Grants.Explain(t.Context(), s.acme, house.Ask()); err == nil || against != nil {
			t.Errorf("%v, %v", against, err)
		}
	}
}

// TestExplainIsNoFlood: the same answer to the same caller is written once a minute, and no other
// question comes to the database's writer.
func TestExplainIsNoFlood(t *testing.T) {
	s := open(t)
	away := house.Ask()
	away.Scope.Sites = []string{"east"}
	ask := func(c vault.Caller, times int, r grants.Request) (written, updates int) {
		t.Helper()
		before := len(s.Events())
		s.Trace()
		for n := range times {
			r.MaxRecords = int64(n + 1) // other terms, the same reasons
			_, err := s.Grants.Explain(t.Context(), c, r)
			s.NoError(err)
		}
		return len(s.Events()) - before, len(s.Trace())
	}
	for _, step := range []struct {
		who  string
		r    grants.Request
		wait time.Duration
		want int
	}{
		{"contractor/acme/tuning", house.Ask(), 0, 1}, {"contractor/acme/tuning", away, 0, 1}, {"contractor/beta/tuning", away, 0, 1},
		{"contractor/acme/tuning", away, time.Minute - time.Microsecond, 0}, {"contractor/acme/tuning", away, time.Microsecond, 1},
	} {
		s.Clock.Advance(step.wait)
		if written, updates := ask(s.Caller(step.who), 20, step.r); written != step.want || updates != step.want {
			t.Errorf("%s: of 20 questions %d were written, in %d updates; want %d", step.who, written, updates, step.want)
		}
	}
}

func TestCreateList(t *testing.T) {
	s := open(t)
	two := s.Record("south", vault.Plate, time.Minute)
	r := grants.ListRequest{ID: vault.NewID(), Contractor: "acme", Records: []vault.ID{two.ID, s.record.ID, two.ID}}
	ids := vault.SortIDs(r.Records)
	l, err := s.Grants.CreateList(t.Context(), s.Alice().Caller, r)
	s.NoError(err)
	again, err := s.Grants.CreateList(t.Context(), s.Alice().Caller, r)
	if s.NoError(err); again.ID != l.ID || !slices.Equal(l.Records, ids) || l.By != s.Alice().ID || !l.At.Equal(house.Start) {
		t.Errorf("%+v, then %+v", l, again)
	}
	got, err := s.Grants.List(t.Context(), s.Caller("auditor/ann"), l.ID)
	if s.NoError(err); got.ID != l.ID || !slices.Equal(got.Records, ids) || got.Contractor != "acme" {
		t.Errorf("got %+v", got)
	}
	e := s.Events(vault.EventListCreated)
	if len(e) != 1 || e[0].List != l.ID.String() || e[0].Contractor != "acme" || len(e[0].Records) != 2 || e[0].Count != 2 ||
		e[0].Digest != vault.DigestOfIDs(ids).String() || e[0].Actor != s.Alice().ID {
		t.Errorf("the log has %+v", e)
	}
	// Another admin's request ID is another.
	if other, err := s.Grants.CreateList(t.Context(), s.Bob().Caller, r); err != nil || other.ID == l.ID {
		t.Errorf("%s, %v", other.ID, err)
	}
	for name, c := range map[string]struct {
		change func(*grants.ListRequest)
		kind   vault.Kind
		reason vault.Reason
	}{
		"other records":      {func(r *grants.ListRequest) { r.Records = r.Records[:1] }, vault.Exists, vault.ReasonRequestIDReused},
		"other contractor":   {func(r *grants.ListRequest) { r.Contractor = "beta" }, vault.Exists, vault.ReasonRequestIDReused},
		"no request ID":      {func(r *grants.ListRequest) { r.ID = vault.ID{} }, vault.Invalid, vault.ReasonInvalidField},
		"no records":         {func(r *grants.ListRequest) { r.ID, r.Records = vault.NewID(), nil }, vault.Invalid, vault.ReasonInvalidField},
		"too many":           {func(r *grants.ListRequest) { r.ID, r.Records = vault.NewID(), make([]vault.ID, 257) }, vault.Invalid, vault.ReasonInvalidField},
		"unknown record":     {func(r *grants.ListRequest) { r.ID, r.Records = vault.NewID(), []vault.ID{two.ID, vault.NewID()} }, vault.NotFound, vault.ReasonRecordUnknown},
		"unknown contractor": {func(r *grants.ListRequest) { r.ID, r.Contractor = vault.NewID(), "nobody" }, vault.NotFound, vault.ReasonContractorUnknown},
	} {
		r := r
		c.change(&r)
		_, err := s.Grants.CreateList(t.Context(), s.Alice().Caller, r)
		if vault.KindOf(err) != c.kind || vault.ReasonOf(err) != c.reason {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.SQL("UPDATE records SET captured_at = captured_at - 400 * 86400000000 WHERE id = ?", two.ID.String())
	r.ID = vault.NewID()
	_, err = s.Grants.CreateList(t.Context(), s.Alice().Caller, r)
	s.Refused(err, vault.Invalid, vault.ReasonInvalidField)
	_, err = s.Grants.List(t.Context(), s.Alice().Caller, vault.NewID())
	s.Refused(err, vault.NotFound, vault.ReasonListUnknown)
	if n := len(s.Events(vault.EventListCreated)); n != 2 {
		t.Errorf("%d events", n)
	}
}
