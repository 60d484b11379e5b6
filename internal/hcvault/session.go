package hcvault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/portcullis/portcullis/internal/hcvault/transport"
)

// session keeps an AppRole logged in. It logs in when first needed, anew when two thirds of the token's life are
// over, and when Vault refuses the token. One login is under way at a time; whoever has a good token does not wait
// for it.
type session struct {
	srv  *Server
	role AppRole

	mu     sync.Mutex
	tok    token
	flight *login // under way; nil when none is
	next   time.Time
}

type token struct {
	secret      string
	made, fresh time.Time // fresh: until when it is used without a thought of the next
	ends        time.Time
}

type login struct {
	done chan struct{} // closed once tok and err are set
	tok  token
	err  error
}

const (
	// settled is the age from which a refused token is given up even if Vault does not call it invalid. Without it a
	// call that is refused for good would log in each time.
	settled = 5 * time.Second
	// again is how long after a failed login the next one may start, while the old token still serves.
	again = time.Second
)

// token gives one that was good when last heard of.
func (s *session) token(ctx context.Context) (token, error) {
	s.mu.Lock()
	now := s.srv.now()
	if now.Before(s.tok.fresh) {
		defer s.mu.Unlock()
		return s.tok, nil
	}
	if now.Before(s.tok.ends) {
		defer s.mu.Unlock()
		if s.flight == nil && !now.Before(s.next) {
			s.start()
		}
		return s.tok, nil
	}
	l := s.start()
	s.mu.Unlock()
	return l.wait(ctx)
}

// renewed gives a token other than the refused one, if there is hope that it fares better.
func (s *session) renewed(ctx context.Context, refused token, why *transport.Error) (token, bool, error) {
	s.mu.Lock()
	if s.tok.secret != refused.secret {
		defer s.mu.Unlock()
		return s.tok, s.tok.secret != "", nil
	}
	if !why.Says("invalid token") && s.srv.now().Sub(refused.made) < settled {
		defer s.mu.Unlock()
		return token{}, false, nil
	}
	l := s.start()
	s.mu.Unlock()
	t, err := l.wait(ctx)
	return t, err == nil, err
}

// start begins a login unless one is under way. s.mu is held.
func (s *session) start() *login {
	if s.flight != nil {
		return s.flight
	}
	l := &login{done: make(chan struct{})}
	s.flight = l
	s.srv.logins.Go(func() {
		// Not the caller's context: others wait for this login, too.
		l.tok, l.err = s.login(s.srv.ctx)
		s.mu.Lock()
		s.flight = nil
		if l.err == nil {
			s.tok = l.tok
		} else {
			s.next = s.srv.now().Add(again)
		}
		s.mu.Unlock()
		close(l.done)
	})
	return l
}

func (l *login) wait(ctx context.Context) (token, error) {
	select {
	case <-l.done:
		return l.tok, l.err
	case <-ctx.Done():
		return token{}, ctx.Err()
	}
}

func (s *session) login(ctx context.Context) (token, error) {
	var got struct {
		Auth struct {
			ClientToken   string `json:"client_token"`
			LeaseDuration int64  `json:"lease_duration"` // seconds
		} `json:"auth"`
	}
	made := s.srv.now() // before the call: better early than late
	in := map[string]string{"role_id": s.role.RoleID, "secret_id": s.role.SecretID}
	if err := s.srv.calls.Do(ctx, "", http.MethodPost, approleAuth, in, &got); err != nil {
		return token{}, fmt.Errorf("log in: %w", err)
	}
	life := time.Duration(got.Auth.LeaseDuration) * time.Second
	if got.Auth.ClientToken == "" || life <= 0 {
		return token{}, errors.New("log in: the answer holds no token that ends")
	}
	return token{secret: got.Auth.ClientToken, made: made, fresh: made.Add(life * 2 / 3), ends: made.Add(life)}, nil
}

// do makes a call with the session's token. After a refusal (403) it may log in and make the call once more: Vault
// checks a call's rights before it does anything, so what was refused was not done, whatever the call. Nothing else
// is repeated: after any other failure the call may have been done. All of it together takes no longer than one call
// may: who waits for a Vault that hangs waits once.
func (s *session) do(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, s.srv.most)
	defer cancel()
	t, err := s.token(ctx)
	if err != nil {
		return err
	}
	err = s.srv.calls.Do(ctx, t.secret, method, path, in, out)
	var refused *transport.Error
	if !errors.As(err, &refused) || refused.Status != http.StatusForbidden {
		return err
	}
	t, ok, lerr := s.renewed(ctx, t, refused)
	if lerr != nil {
		return lerr
	}
	if !ok {
		return err
	}
	return s.srv.calls.Do(ctx, t.secret, method, path, in, out)
}
