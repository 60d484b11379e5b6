package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/spf13/cobra"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

// held gives the grants whose tokens the folder holds. Other files in it are passed over.
func (t tokens) held() (out []vault.ID, err error) {
	entries, err := os.ReadDir(string(t))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("folder of grant tokens: %w", err)
	}
	for _, e := range entries {
		if id, err := vault.ParseID("", e.Name()); err == nil && e.Type().IsRegular() {
			out = append(out, id)
		}
	}
	return out, nil
}

// drop removes the token of a grant, and says whether there was one.
func (t tokens) drop(id vault.ID) (bool, error) {
	held, err := t.held()
	if err != nil || !slices.Contains(held, id) {
		return false, err
	}
	return true, t.forget(id)
}

// learn removes the kept tokens of grants that the service says are over: they open nothing
// any more. A token that can not be removed is told of, and fails nothing.
func (a *app) learn(s *session, grants ...*pb.Grant) {
	for _, g := range grants {
		if !over(g) {
			continue
		}
		_, id, err := grantName(g.GetName())
		if err != nil {
			continue
		}
		a.dropped(s, id, word(g.GetState(), "STATE_"))
	}
}

// endings are the reasons that say for certain that a grant is over. All others, and errors
// without a reason, may pass: no token is removed on their account.
var endings = map[vault.Reason]string{
	vault.ReasonGrantExpired:   "expired",
	vault.ReasonGrantRevoked:   "revoked",
	vault.ReasonGrantRetired:   "retired",
	vault.ReasonGrantDenied:    "denied",
	vault.ReasonGrantLapsed:    "lapsed",
	vault.ReasonGrantSuspended: "suspended",
}

// learnFrom does the same when a command that named one grant was refused because it is over.
func (a *app) learnFrom(s *session, c *cobra.Command, args []string, err error) {
	how, ok := endings[vault.ReasonOf(err)]
	if !ok {
		return
	}
	named := ""
	if f := c.Flags().Lookup("grant"); f != nil {
		named = f.Value.String()
	} else if len(args) == 1 {
		named = args[0]
	}
	if _, id, err := grantName(named); err == nil {
		a.dropped(s, id, how)
	}
}

func (a *app) dropped(s *session, id vault.ID, how string) {
	was, err := s.tokens().drop(id)
	switch {
	case a.output == jsonOutput:
	case err != nil:
		fmt.Fprintf(a.stderr, "the kept token of grant %s, which is %s, could not be removed: %s\n", id, how, printable(err.Error()))
	case was:
		fmt.Fprintf(a.stderr, "the kept token of grant %s, which is %s, was removed\n", id, how)
	}
}
