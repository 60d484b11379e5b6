package main

import (
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
)

const carol = "/admin/carol"

// suspend has bob suspend the caller at a path.
func (s *service) suspend(path string) *pb.SuspendCallerResponse {
	s.t.Helper()
	got, err := s.as(bob).Admin.SuspendCaller(s.t.Context(), &pb.SuspendCallerRequest{Caller: "spiffe://" + devDomain + path, Note: "a test"})
	noError(s.t, err)
	return got
}

func agree(*pb.Decision) error { return nil }

// reinstate has admins sign that the caller at a path may call again, and says whether it may.
func (s *service) reinstate(path string, admins ...string) bool {
	s.t.Helper()
	var got *pb.SignDecisionResponse
	var err error
	for _, a := range admins {
		got, err = s.as(a).ReinstateCaller(s.t.Context(), "spiffe://"+devDomain+path, agree)
		noError(s.t, err)
	}
	return got.Decision.State == pb.Decision_STATE_EFFECTIVE
}

// TestSuspendLane suspends a lane while it stores with all its might.
func TestSuspendLane(t *testing.T) {
	s := begin(t)
	shot := func(c *client.Client) error {
		_, err := c.Store(t.Context(), client.Image{RequestID: vault.NewID(), Modality: vault.Plate, CapturedAt: time.Now(), Bytes: picture(1, 4<<10)})
		return err
	}
	var stored atomic.Int64
	var stop atomic.Bool
	var all errgroup.Group
	for range 16 {
		c := s.as(lane)
		all.Go(func() error {
			for !stop.Load() {
				if shot(c) == nil {
					stored.Add(1)
				}
			}
			return nil
		})
	}
	wait(t, "the load runs", func() bool { return stored.Load() > 30 })
	done := s.suspend(lane)
	at := stored.Load()
	if done.Barrier.ConnectionsReset < 1 || done.Barrier.EventIndex == 0 {
		t.Errorf("the barrier says %v", done.Barrier)
	}
	time.Sleep(time.Second) // the load goes on knocking
	stop.Store(true)
	noError(t, all.Wait())
	events := s.events("record.stored")
	if last := events[len(events)-1].index; last > done.Barrier.EventIndex {
		t.Errorf("a record has index %d, its lane was suspended at %d", last, done.Barrier.EventIndex)
	}
	t.Logf("%d records acknowledged when it was answered, %d after; %v", at, stored.Load()-at, done.Barrier)
	refused(t, shot(s.as(lane)), vault.ReasonCallerSuspended)
	noError(t, shot(s.as("/capture/"+devSite+"/lane-2")))
	if len(s.events("call.refused")) == 0 {
		t.Error("the log does not tell that the lane was turned away")
	}
	if s.reinstate(lane, bob) || !s.reinstate(lane, alice) {
		t.Error("reinstating does not take two admins")
	}
	noError(t, shot(s.as(lane)))
}

// TestSuspendWorkload suspends one workload of a contractor in the middle of a stream, while
// another one's goes on.
func TestSuspendWorkload(t *testing.T) {
	const images, other = 300, "/contractor/" + devOrg + "/other"
	s := begin(t)
	p := purpose()
	s.admit(p, devOrg)
	s.store(s.as(lane), vault.Plate, images, 64<<10)
	type reader struct {
		grant    string
		token    vault.Token
		received atomic.Int64
		ended    chan error
	}
	read := func(path string) *reader {
		c := s.as(path)
		r := &reader{ended: make(chan error, 1)}
		r.grant, r.token = s.granted(c, p, images)
		handles := s.handles(c, r.grant, r.token)
		go func() {
			r.ended <- c.Fetch(t.Context(), r.grant, r.token, handles, func(*pb.Image) error {
				r.received.Add(1)
				time.Sleep(5 * time.Millisecond)
				return nil
			})
		}()
		return r
	}
	first, second := read(matcher), read(other)
	wait(t, "both streams run", func() bool { return first.received.Load() > 10 && second.received.Load() > 10 })
	if got := s.past(first.token); got != 200 {
		t.Fatalf("Vault answers %d to the live token", got)
	}
	done := s.suspend(matcher)
	at := first.received.Load()
	if done.GrantsEnded != 1 || done.Barrier.ConnectionsReset < 1 || !done.Barrier.VaultDone {
		t.Errorf("the answer says %v", done)
	}
	if got := s.past(first.token); got != 403 {
		t.Errorf("Vault answers %d to the token after the suspension", got)
	}
	if err := <-first.ended; err == nil {
		t.Error("the stream went on to its end")
	}
	if err := <-second.ended; err != nil || second.received.Load() != images {
		t.Errorf("the other workload got %d of %d images: %v", second.received.Load(), images, err)
	}
	for _, e := range s.events("record.released") {
		if "grants/"+e.Grant == first.grant && e.index > done.Barrier.EventIndex {
			t.Errorf("a release has index %d, the suspension %d", e.index, done.Barrier.EventIndex)
		}
	}
	t.Logf("%d images when it was answered, %d after; %v", at, first.received.Load()-at, done.Barrier)
	c := s.as(matcher)
	_, err := s.request(c, p, 5)
	refused(t, err, vault.ReasonCallerSuspended)
	if !s.reinstate(matcher, alice, bob) {
		t.Fatal("it is not reinstated")
	}
	_, err = c.Grants.ActivateGrant(t.Context(), &pb.ActivateGrantRequest{Name: first.grant})
	refused(t, err, vault.ReasonGrantRevoked)
	if got := s.past(first.token); got != 403 {
		t.Errorf("Vault answers %d to the old token after the reinstatement", got)
	}
	_, token := s.granted(c, p, 5)
	if got := s.past(token); got != 200 {
		t.Errorf("Vault answers %d to a new token", got)
	}
}

// TestSuspendAdmin: an admin's signature on what is pending counts no more.
func TestSuspendAdmin(t *testing.T) {
	s := begin(t)
	p := purpose()
	s.admit(p, devOrg)
	s.store(s.as(lane), vault.Plate, 1, 4<<10)
	c := s.as(matcher)
	live, token := s.granted(c, p, 5)
	pending, err := s.request(c, p, 5)
	noError(t, err)
	thief := s.as(alice)
	_, err = thief.Approve(t.Context(), pending.Name, yes)
	noError(t, err)
	done := s.suspend(alice)
	if done.SignaturesVoid != 1 || len(done.Review) != 3 || done.Review[0] != live {
		t.Errorf("the answer says %v", done)
	}
	_, err = thief.Grants.ApproveGrant(t.Context(), &pb.ApproveGrantRequest{Name: pending.Name})
	refused(t, err, vault.ReasonCallerSuspended)
	_, err = thief.ReinstateCaller(t.Context(), "spiffe://"+devDomain+alice, agree)
	refused(t, err, vault.ReasonCallerSuspended)
	for i, admin := range []string{bob, carol} {
		g, err := s.as(admin).Approve(t.Context(), pending.Name, yes)
		noError(t, err)
		if want := []pb.Grant_State{pb.Grant_STATE_PENDING, pb.Grant_STATE_APPROVED}[i]; g.State != want {
			t.Errorf("after %s the grant is %v, want %v", admin, g.State, want)
		}
	}
	// What it had approved stays.
	if got := len(s.handles(c, live, token)); got != 1 {
		t.Errorf("%d records under the live grant", got)
	}
	if s.reinstate(alice, bob, bob) {
		t.Error("one admin reinstated another")
	}
	if !s.reinstate(alice, carol) {
		t.Error("two admins did not reinstate a third")
	}
	_, err = s.as(alice).Admin.ListContractors(t.Context(), &pb.ListContractorsRequest{})
	noError(t, err)

	// Itself: the answer arrives, and is its last.
	got, err := thief.Admin.SuspendCaller(t.Context(), &pb.SuspendCallerRequest{Caller: "spiffe://" + devDomain + alice})
	noError(t, err)
	if got.SuspendedCaller.SuspendedBy != "spiffe://"+devDomain+alice {
		t.Errorf("the answer says %v", got)
	}
	_, err = thief.Admin.ListContractors(t.Context(), &pb.ListContractorsRequest{})
	refused(t, err, vault.ReasonCallerSuspended)
}

// TestSuspendEverybody: a thief with one admin's certificate suspends all the others. The way
// back is two admins whom it did not know, of the same authority.
func TestSuspendEverybody(t *testing.T) {
	s := begin(t)
	thief := s.as("/admin/thief")
	for _, path := range []string{alice, bob} {
		_, err := thief.Admin.SuspendCaller(t.Context(), &pb.SuspendCallerRequest{Caller: "spiffe://" + devDomain + path})
		noError(t, err)
	}
	_, err := s.as(alice).Admin.SuspendCaller(t.Context(), &pb.SuspendCallerRequest{Caller: "spiffe://" + devDomain + "/admin/thief"})
	refused(t, err, vault.ReasonCallerSuspended)
	_, err = s.as("/admin/rescue-7f3a").Admin.SuspendCaller(t.Context(), &pb.SuspendCallerRequest{Caller: "spiffe://" + devDomain + "/admin/thief"})
	noError(t, err)
	for _, path := range []string{alice, bob} {
		if !s.reinstate(path, "/admin/rescue-7f3a", "/admin/rescue-91bc") {
			t.Errorf("%s is still suspended", path)
		}
	}
	var left []string
	noError(t, s.as(alice).SuspendedCallers(t.Context(), func(c *pb.SuspendedCaller) error {
		left = append(left, c.Caller)
		return nil
	}))
	if len(left) != 1 || left[0] != "spiffe://"+devDomain+"/admin/thief" {
		t.Errorf("still suspended: %v", left)
	}
}

// TestSuspendAuditor suspends an auditor that follows the log.
func TestSuspendAuditor(t *testing.T) {
	const ann = "/auditor/ann"
	s := begin(t)
	c := s.as(ann)
	ended, polls := make(chan error, 1), atomic.Int64{}
	go func() {
		var next int64
		var err error
		for err == nil {
			polls.Add(1)
			next, err = c.Events(t.Context(), next, nil, func(*pb.AuditEvent) error { return nil })
		}
		ended <- err
	}()
	wait(t, "it reads", func() bool { return polls.Load() > 20 })
	done := s.suspend(ann)
	if done.Barrier.ConnectionsReset != 1 {
		t.Errorf("the barrier says %v", done.Barrier)
	}
	<-ended
	_, err := c.Events(t.Context(), 0, nil, func(*pb.AuditEvent) error { return nil })
	refused(t, err, vault.ReasonCallerSuspended)
	if e := s.events("caller.suspended"); len(e) != 1 || e[0].Caller != "spiffe://"+devDomain+ann || e[0].Note != vault.DigestOf([]byte("a test")).String() {
		t.Errorf("events %+v", e)
	}
}

// TestSuspendAcrossRoles: a process that releases nothing cuts connections, too.
func TestSuspendAcrossRoles(t *testing.T) {
	s := begin(t)
	cfg := s.cfg
	cfg.Roles = roleCapture
	log, err := logger(s.logs, "info")
	noError(t, err)
	capturing, err := start(t.Context(), cfg, log)
	noError(t, err)
	t.Cleanup(func() { noError(t, capturing.Close()) })
	conf := s.config(lane)
	conf.Address = capturing.Addr()
	c, err := client.Dial(conf)
	noError(t, err)
	t.Cleanup(func() { c.Close() })
	s.store(c, vault.Plate, 1, 4<<10)
	done := s.suspend(lane)
	if done.Barrier.ConnectionsReset != 1 {
		t.Errorf("the barrier says %v", done.Barrier)
	}
	_, err = c.Store(t.Context(), client.Image{RequestID: vault.NewID(), Modality: vault.Plate, CapturedAt: time.Now(), Bytes: picture(1, 4<<10)})
	refused(t, err, vault.ReasonCallerSuspended)
}
