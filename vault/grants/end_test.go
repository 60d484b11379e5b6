package grants_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/grants"
	"github.com/portcullis/portcullis/vault/vaulttest/house"
)

// afterMint does something once Vault has minted, before anything is committed.
type afterMint struct {
	grants.Tokens
	then func()
}

func (a afterMint) Mint(ctx context.Context, grant vault.ID, contractor string, epoch int, ttl time.Duration, uses int64) (vault.Token, string, error) {
	t, accessor, err := a.Tokens.Mint(ctx, grant, contractor, epoch, ttl, uses)
	a.then()
	return t, accessor, err
}

func TestVaultAwayAtApproval(t *testing.T) {
	s := open(t)
	s.Vault.Fail("WriteFence", 2, vaultAway())
	g := s.Approved(s.acme) // no error: the approval holds
	s.state(g, vault.GrantApproved, vault.FenceDue)
	_, _, err := s.Grants.Activate(t.Context(), s.acme, g.Grant)
	s.Refused(err, vault.Unavailable, vault.ReasonVaultUnavailable)
	if s.Vault.Calls("Mint") != 0 {
		t.Error("a token was minted before the fence stood")
	}
	s.NoError(s.Grants.Sweep(t.Context()))
	s.state(g, vault.GrantApproved, vault.FenceWritten)
	_, token, err := s.Grants.Activate(t.Context(), s.acme, g.Grant)
	s.NoError(err)
	s.opens(token)
	s.state(g, vault.GrantActive, vault.FenceWritten)
	calls := s.Vault.Calls("WriteFence")
	s.NoError(s.Grants.Sweep(t.Context()))
	if s.Vault.Calls("WriteFence") != calls {
		t.Error("a sweep wrote the fence again")
	}
}

func TestMintFails(t *testing.T) {
	s := open(t)
	g := s.Approved(s.acme)
	s.Vault.Fail("Mint", 1, vaultAway())
	_, token, err := s.Grants.Activate(t.Context(), s.acme, g.Grant)
	s.Refused(err, vault.Unavailable, vault.ReasonVaultUnavailable)
	s.state(g, vault.GrantApproved, vault.FenceWritten)
	if !token.IsZero() || s.count(g, vault.EventGrantActivated) != 0 {
		t.Error("it is activated")
	}
	_, token, err = s.Grants.Activate(t.Context(), s.acme, g.Grant)
	s.NoError(err)
	s.opens(token)
}

func TestCommitFailsAfterMint(t *testing.T) {
	s := open(t)
	g := s.Approved(s.acme)
	s.Grants.Tokens = afterMint{s.Grants.Tokens, func() { s.Store.Close() }}
	_, token, err := s.Grants.Activate(t.Context(), s.acme, g.Grant)
	s.Refused(err, vault.Unavailable, vault.ReasonShuttingDown)
	if !token.IsZero() || len(s.minted) != 1 || s.Vault.Calls("RevokeToken") != 1 {
		t.Errorf("%d tokens minted, %d revoked", len(s.minted), s.Vault.Calls("RevokeToken"))
	}
	s.shut()
	s.restart()
	s.state(g, vault.GrantApproved, vault.FenceWritten)
}

func TestActivateAgain(t *testing.T) {
	s := open(t)
	g, first := s.Active(s.acme)
	s.Clock.Advance(30 * time.Minute)
	again, second, err := s.Grants.Activate(t.Context(), s.acme, g.Grant)
	s.NoError(err)
	if first == second || !again.Ends.Equal(g.Ends) {
		t.Errorf("ends %s, first %s", again.Ends, g.Ends)
	}
	s.opens(second)
	if err := s.Opens(first, s.record); vault.ReasonOf(err) != vault.ReasonKeyRefused {
		t.Errorf("the earlier token: %v", err)
	}
	if now := s.Grant(g.Grant); !second.Matches(now.TokenDigest) || first.Matches(now.TokenDigest) {
		t.Error("the row is not the newest token's")
	}
	s.Clock.Advance(30 * time.Minute) // Vault ends it by itself
	s.shut()
}

// TestEarlierTokenIsOwed: Vault hiccups while an earlier token is to end. It is not forgotten,
// not even by a crash; the sweep ends it, and an end of the grant does.
func TestEarlierTokenIsOwed(t *testing.T) {
	for name, then := range map[string]func(s *scene, g vault.Grant){
		"sweep": func(s *scene, _ vault.Grant) { s.NoError(s.Grants.Sweep(t.Context())) },
		"crash": func(s *scene, _ vault.Grant) {
			s.restart()
			s.Grants.Fences = nil // a process that holds tokens alone
			s.NoError(s.Grants.Sweep(t.Context()))
		},
		"activate again": func(s *scene, g vault.Grant) {
			_, _, err := s.Grants.Activate(t.Context(), s.acme, g.Grant)
			s.NoError(err)
		},
		"retire": func(s *scene, g vault.Grant) {
			s.Grants.Fences = nil
			_, _, err := s.Grants.Retire(t.Context(), s.acme, g.Grant)
			s.NoError(err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			g, first := s.Active(s.acme)
			s.Vault.Fail("RevokeToken", 1, vaultAway())
			_, _, err := s.Grants.Activate(t.Context(), s.acme, g.Grant)
			s.Refused(err, vault.Unavailable, vault.ReasonVaultUnavailable)
			s.opens(first)
			then(s, g)
			if err := s.Opens(first, s.record); vault.ReasonOf(err) != vault.ReasonKeyRefused {
				t.Errorf("the earlier token: %v", err)
			}
			if n := s.Ask("SELECT COUNT(*) FROM earlier_tokens"); n != "0" {
				t.Errorf("%s tokens are still owed", n)
			}
		})
	}
}

// TestEndedMeanwhile: the grant ends between Mint and commit, in each way.
func TestEndedMeanwhile(t *testing.T) {
	for name, c := range map[string]struct {
		end    func(s *scene, g vault.Grant)
		reason vault.Reason
	}{
		"revoke": {func(s *scene, g vault.Grant) {
			_, _, err := s.Grants.Revoke(context.Background(), s.Alice().Caller, g.Grant, "")
			s.NoError(err)
		}, vault.ReasonGrantRevoked},
		"retire": {func(s *scene, g vault.Grant) {
			_, _, err := s.Grants.Retire(context.Background(), s.acme, g.Grant)
			s.NoError(err)
		}, vault.ReasonGrantRetired},
		"suspend": {func(s *scene, _ vault.Grant) {
			_, err := s.Breach.Suspend(context.Background(), s.Alice().Caller, "acme", "")
			s.NoError(err)
		}, vault.ReasonContractorSuspended},
		"suspend and reinstate": {func(s *scene, _ vault.Grant) {
			_, err := s.Breach.Suspend(context.Background(), s.Alice().Caller, "acme", "")
			s.NoError(err)
			s.Admit("acme")
		}, vault.ReasonGrantRevoked},
		"expiry": {func(s *scene, _ vault.Grant) { s.Clock.Advance(time.Hour) }, vault.ReasonGrantExpired},
	} {
		for _, revokeFails := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", RevokeToken fails"}[revokeFails], func(t *testing.T) {
				s := open(t)
				g := s.Approved(s.acme)
				s.Grants.Tokens = afterMint{s.Grants.Tokens, func() {
					c.end(s, g)
					if revokeFails {
						s.Vault.Fail("RevokeToken", 1, vaultAway())
					}
				}}
				_, token, err := s.Grants.Activate(t.Context(), s.acme, g.Grant)
				if !token.IsZero() || vault.ReasonOf(err) != c.reason {
					t.Errorf("a token: %v; %v", !token.IsZero(), err)
				}
				if len(s.minted) != 1 || s.count(g, vault.EventGrantActivated) != 0 {
					t.Error("nothing was minted, or it is activated")
				}
				if !revokeFails {
					s.shut()
				}
				s.NoError(s.Grants.Sweep(t.Context()))
				s.shut()
				if s.fenced(g) {
					t.Error("Vault keeps the fence")
				}
			})
		}
	}
}

// TestApprovalMeets: before the last approval commits, the request is denied or ended.
func TestApprovalMeets(t *testing.T) {
	for name, c := range map[string]struct {
		end    func(s *scene, g vault.Grant) error
		kind   vault.Kind
		reason vault.Reason
	}{
		"deny": {func(s *scene, g vault.Grant) error {
			_, err := s.Grants.Deny(context.Background(), s.Alice().Caller, g.Grant, "no")
			return err
		}, vault.State, vault.ReasonGrantDecided},
		"revoke": {func(s *scene, g vault.Grant) error {
			_, _, err := s.Grants.Revoke(context.Background(), s.Alice().Caller, g.Grant, "")
			return err
		}, vault.State, vault.ReasonGrantDecided},
		"retire": {func(s *scene, g vault.Grant) error {
			_, _, err := s.Grants.Retire(context.Background(), s.acme, g.Grant)
			return err
		}, vault.State, vault.ReasonGrantDecided},
		"the last approval": {func(s *scene, g vault.Grant) error {
			_, err := s.sign(s.Person("admin/carol"), g)
			return err
		}, vault.State, vault.ReasonGrantDecided},
		"the end": {func(s *scene, _ vault.Grant) error {
			s.Clock.Advance(time.Hour)
			return nil
		}, vault.Denied, vault.ReasonSignatureStale},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			g := s.Requested(s.acme)
			_, err := s.sign(s.Alice(), g)
			s.NoError(err)
			s.Once("Update", func() { s.NoError(c.end(s, g)) })
			_, err = s.sign(s.Bob(), g)
			if name == "the end" {
				s.Refused(err, vault.State, vault.ReasonGrantExpired)
			} else {
				s.Refused(err, c.kind, c.reason)
			}
			approved := name == "the last approval"
			if n := s.count(g, vault.EventGrantApproved); (n == 1) != approved || n > 1 {
				t.Errorf("%d approvals", n)
			}
			if s.fenced(g) != approved {
				t.Errorf("Vault has the fence: %v", !approved)
			}
		})
	}
}

// TestFenceMeetsEnd: the grant is revoked while its fence is on the way to Vault, and the
// fence arrives last.
func TestFenceMeetsEnd(t *testing.T) {
	for name, lost := range map[string]bool{"at once": false, "by the sweep": true} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			var revoked sync.WaitGroup
			s.Once("WriteFence", func() {
				id, err := vault.ParseID("grant", s.Events(vault.EventGrantApproved)[0].Grant)
				s.NoError(err)
				if lost {
					s.Vault.Fail("CloseFence", 1, vaultAway())
				}
				revoked.Go(func() {
					_, b, err := s.Grants.Revoke(context.Background(), s.Alice().Caller, id, "")
					s.Check(err)
					if b.VaultDone == lost {
						t.Errorf("Vault has followed: %v", b.VaultDone)
					}
				})
				for len(s.Events(vault.EventGrantRevoked)) == 0 {
					time.Sleep(time.Millisecond)
				}
				time.Sleep(10 * time.Millisecond) // if nothing held it up, it would be at Vault by now
			})
			g := s.Approved(s.acme)
			revoked.Wait()
			s.Before(nil)
			if lost {
				s.NoError(s.Grants.Sweep(t.Context()))
			}
			if s.fenced(g) {
				t.Error("Vault keeps the fence of a revoked grant")
			}
			s.state(g, vault.GrantRevoked, vault.FenceClosed)
		})
	}
}

// TestRevivedRow: whoever writes to the database revives no grant that was ended.
func TestRevivedRow(t *testing.T) {
	s := open(t)
	g, _ := s.Active(s.acme)
	_, _, err := s.Grants.Revoke(t.Context(), s.Alice().Caller, g.Grant, "")
	s.NoError(err)
	s.SQL("UPDATE grants SET state = 'active', fence = 'due'")
	if err := s.Grants.Sweep(t.Context()); vault.ReasonOf(err) != vault.ReasonGrantRevoked {
		t.Errorf("the sweep: %v; want Vault's refusal", err)
	}
	_, token, err := s.Grants.Activate(t.Context(), s.acme, g.Grant)
	if err == nil || !token.IsZero() {
		t.Error("it is activated")
	}
	s.SQL("UPDATE grants SET fence = 'written'")
	s.Grants.Activate(t.Context(), s.acme, g.Grant) // gives a token, perhaps
	s.shut()
	if s.fenced(g) {
		t.Error("Vault has the fence again")
	}
}

func TestAfterTheEnd(t *testing.T) {
	s := open(t)
	g, token := s.Active(s.acme)
	s.Clock.Advance(time.Hour - time.Microsecond)
	s.NoError(s.Grants.Sweep(t.Context()))
	s.state(g, vault.GrantActive, vault.FenceWritten)
	_, _, err := s.Grants.Activate(t.Context(), s.acme, g.Grant)
	s.Refused(err, vault.State, vault.ReasonGrantExpired) // less than a second is no token's life
	s.Clock.Advance(time.Microsecond)
	_, _, err = s.Grants.Activate(t.Context(), s.acme, g.Grant)
	s.Refused(err, vault.State, vault.ReasonGrantExpired)
	if !s.fenced(g) {
		t.Fatal("the fence is gone before the sweep")
	}
	s.Trace()
	s.NoError(s.Grants.Sweep(t.Context()))
	trace := s.Trace()
	if i, j := slices.Index(trace, "DeleteFence"), slices.Index(trace, "RevokeToken"); i < 0 || j < i {
		t.Errorf("order: %s; want the fence, then the token", house.String(trace))
	}
	for range 2 {
		s.NoError(s.Grants.Sweep(t.Context()))
	}
	if got := s.Trace(); len(got) != 0 {
		t.Errorf("later sweeps called %s", house.String(got))
	}
	if s.count(g, vault.EventGrantExpired) != 1 || s.count(g, vault.EventVaultCaughtUp) != 0 || s.fenced(g) {
		t.Errorf("%d events of its expiry", s.count(g, vault.EventGrantExpired))
	}
	if err := s.Opens(token, s.record); err == nil {
		t.Error("its token opens")
	}
}

func TestRevoke(t *testing.T) {
	s := open(t)
	g, _ := s.Active(s.acme)
	elsewhere := s.Caller("contractor/beta/tuning")
	s.Trace()
	_, b, err := s.Grants.Revoke(t.Context(), s.Alice().Caller, g.Grant, "why")
	s.NoError(err)
	trace := s.Trace()
	if i, j, k := slices.Index(trace, "Update"), slices.Index(trace, "CloseFence"), slices.Index(trace, "RevokeToken"); i != 0 || j < i || k < j {
		t.Errorf("order: %s; want the commit, the fence, the token", house.String(trace))
	}
	e := s.Events(vault.EventGrantRevoked)
	if len(e) != 1 || b.Index != e[0].Index || !b.VaultDone || e[0].Note != vault.DigestOf([]byte("why")).String() {
		t.Errorf("barrier %+v, events %+v", b, e)
	}
	if cut := s.Cut(); len(cut) != 1 || cut[0].ID != s.acme.ID || cut[0].ID == elsewhere.ID {
		t.Errorf("cut: %+v; want the idle connection of the grantee", cut)
	}
	s.shut()
	// Again: nothing new in the log, and the barrier holds all the same.
	_, b, err = s.Grants.Revoke(t.Context(), s.Bob().Caller, g.Grant, "")
	s.NoError(err)
	if b.Index <= e[0].Index || s.count(g, vault.EventGrantRevoked) != 1 {
		t.Errorf("again: %+v", b)
	}
	_, _, err = s.Grants.Activate(t.Context(), s.acme, g.Grant)
	s.Refused(err, vault.State, vault.ReasonGrantRevoked)
}

func TestRetireLeavesIdleConnections(t *testing.T) {
	s := open(t)
	g, _ := s.Active(s.acme)
	_, b, err := s.Grants.Retire(t.Context(), s.acme, g.Grant)
	s.NoError(err)
	if len(s.Cut()) != 0 || b.Connections != 0 || !b.VaultDone {
		t.Errorf("cut %+v, barrier %+v", s.Cut(), b)
	}
	s.state(g, vault.GrantRetired, vault.FenceClosed)
	s.shut()
}

func TestRevokeWhileVaultIsDown(t *testing.T) {
	s := open(t)
	g, _ := s.Active(s.acme)
	s.Vault.Down(true)
	_, b, err := s.Grants.Revoke(t.Context(), s.Alice().Caller, g.Grant, "")
	s.NoError(err)
	if b.VaultDone || b.Index < 0 {
		t.Errorf("barrier %+v", b)
	}
	s.state(g, vault.GrantRevoked, vault.FenceWritten)
	s.Refused(s.Grants.Sweep(t.Context()), vault.Unavailable, vault.ReasonVaultUnavailable)
	s.Vault.Down(false)
	s.NoError(s.Grants.Sweep(t.Context()))
	s.state(g, vault.GrantRevoked, vault.FenceClosed)
	s.shut()
}

// TestRevokeOutlivesItsCaller: once it is durable, a caller that hangs up hinders nothing.
func TestRevokeOutlivesItsCaller(t *testing.T) {
	s := open(t)
	g, _ := s.Active(s.acme)
	ctx, cancel := context.WithCancel(t.Context())
	s.OnReset(cancel)
	_, b, err := s.Grants.Revoke(ctx, s.Alice().Caller, g.Grant, "")
	s.NoError(err)
	if ctx.Err() == nil || !b.VaultDone {
		t.Errorf("barrier %+v", b)
	}
	s.shut()
}

func TestSweepGoesOn(t *testing.T) {
	s := open(t)
	var all []vault.Grant
	for range 4 {
		g, _ := s.Active(s.acme)
		all = append(all, g)
	}
	s.Clock.Advance(time.Hour)
	s.Vault.Fail("DeleteFence", 2, vault.E(vault.Internal, vault.ReasonInternal, "Vault refused"))
	if err := s.Grants.Sweep(t.Context()); err == nil {
		t.Errorf("the sweep hides its failures: %v", err)
	}
	if n := len(s.Events(vault.EventGrantExpired)); n != 2 {
		t.Errorf("after two failures of four, %d are done", n)
	}
	s.NoError(s.Grants.Sweep(t.Context()))
	for _, g := range all {
		if s.count(g, vault.EventGrantExpired) != 1 || s.fenced(g) {
			t.Errorf("grant %s: %d events, fenced: %v", g.Grant, s.count(g, vault.EventGrantExpired), s.fenced(g))
		}
	}
}

// TestSweepPastMany: more grants that can not be done than a batch has do not keep the sweep
// from the others.
func TestSweepPastMany(t *testing.T) {
	s := open(t)
	g := s.Approved(s.acme)
	_, _, err := s.Grants.Revoke(t.Context(), s.Alice().Caller, g.Grant, "")
	s.NoError(err)
	s.SQL(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 250)
		INSERT INTO grants (id, state, contractor, purpose, purpose_version, purpose_digest, grantee, epoch, sites, modalities, captured_from,
		captured_until, max_records, ends, approvals, justification, requested_at, request_id, released, handle_key, token_digest, accessor, fence)
		SELECT printf('00000000-0000-4000-8000-%012d', i), 'approved', contractor, purpose, purpose_version, purpose_digest,
		grantee, epoch, sites, modalities, captured_from, captured_until, max_records, ends, approvals, justification, requested_at,
		'forged-' || i, released, handle_key, token_digest, accessor, 'due' FROM grants, n`)
	ended, _ := s.Active(s.acme)
	s.SQL("UPDATE grants SET state = 'revoked' WHERE id = ?", ended.Grant.String()) // as a suspension leaves it
	if !s.fenced(ended) {
		t.Fatal("no fence to remove")
	}
	// Batches are drawn by lot: of 251, a hundred each time, sixty misses do not happen.
	for range 60 {
		s.Refused(s.Grants.Sweep(t.Context()), vault.Denied, vault.ReasonGrantTampered)
		if s.count(ended, vault.EventVaultCaughtUp) > 0 {
			break
		}
	}
	if s.fenced(ended) {
		t.Error("forged grants keep the sweep from a revoked one")
	}
}

func TestDeny(t *testing.T) {
	s := open(t)
	g := s.Requested(s.acme)
	_, err := s.Grants.Deny(t.Context(), s.Alice().Caller, g.Grant, "no")
	s.NoError(err)
	_, err = s.Grants.Deny(t.Context(), s.Alice().Caller, g.Grant, "no")
	s.Refused(err, vault.State, vault.ReasonGrantDecided)
	_, _, err = s.Grants.Activate(t.Context(), s.acme, g.Grant)
	s.Refused(err, vault.State, vault.ReasonGrantDenied)
	if s.count(g, vault.EventGrantDenied) != 1 {
		t.Error("not once in the log")
	}
}
