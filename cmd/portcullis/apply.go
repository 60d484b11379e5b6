package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

func (a *app) contractorCommand() *cobra.Command {
	apply := &cobra.Command{
		Use:   "apply FILE.yaml",
		Short: "admit a contractor, or reinstate a suspended one (two admins run it)",
		Long: `Apply signs that the contractors in a file be admitted, and takes effect when a second admin
does the same. "-" reads standard input. A suspended contractor comes back without its old grants.

  name: acme-vision            # the organisation in its workloads' SPIFFE IDs
  title: Acme Vision, Inc.
  conflict_group: acme-holding # affiliates share one; left out, it has none

Contractors of one conflict group count as one where faces and plates must not come together: what
one of them holds or has opened is refused to the others. To change the group takes two admins, too.`,
		Example: "  portcullis --profile alice contractor apply acme.yaml\n  portcullis --profile bob contractor apply acme.yaml",
		Args:    exactly(1),
	}
	apply.RunE = a.call(func(ctx context.Context, s *session, args []string) error {
		b, err := a.readInput(args[0])
		if err != nil {
			return err
		}
		orgs, err := parseContractors(args[0], b)
		if err != nil {
			return err
		}
		return applyAll(ctx, a, orgs,
			func(c vault.Contractor) string { return wire.Contractors + "/" + c.Name }, s.ApplyContractor)
	})
	list := &cobra.Command{
		Use: "list", Short: "list all contractors", Args: exactly(0),
		Example: "  portcullis --profile alice contractor list",
	}
	list.RunE = a.call(func(ctx context.Context, s *session, _ []string) error {
		got, err := s.Admin.ListContractors(ctx, &pb.ListContractorsRequest{})
		if err != nil {
			return err
		}
		return a.show(got, func(t *grid) {
			t.row("CONTRACTOR", "STATE", "EPOCH", "CONFLICT GROUP", "TITLE")
			for _, c := range got.Contractors {
				t.row(bare(c.Name), word(c.State, "STATE_"), c.Epoch, c.ConflictGroup, c.Title)
			}
		})
	})
	return noun("contractor", "organisations that may ask for grants: apply, list, suspend", apply, list, a.suspendCommand())
}

func (a *app) suspendCommand() *cobra.Command {
	var note string
	c := &cobra.Command{
		Use:   "suspend NAME",
		Short: "stop a contractor: all its grants, all its streams, at once",
		Long: `Suspend ends all grants of a contractor and cuts what is being sent to it. When it answers,
nothing is under way any more. One admin is enough, and no question is asked. The grants never
come back; "contractor apply" by two admins reinstates the contractor itself.`,
		Example: `  portcullis --profile alice contractor suspend acme-vision --note "incident 12"`,
		Args:    exactly(1),
	}
	c.Flags().StringVar(&note, "note", "", "why: one line of `TEXT`, of which the log keeps a hash")
	c.RunE = a.call(func(ctx context.Context, s *session, args []string) error {
		name, err := slugName(wire.Contractors, "contractor", args[0])
		if err != nil {
			return err
		}
		got, err := s.Admin.SuspendContractor(ctx, &pb.SuspendContractorRequest{Name: name, Note: note})
		if err != nil {
			return err
		}
		return a.show(got, func(t *grid) {
			t.line("contractor %s is suspended; %s ended", bare(got.Contractor.GetName()), count(got.GrantsEnded, "grant"))
			t.line("%s", barrier(got.Barrier))
		})
	})
	return c
}

func (a *app) readInput(file string) (b []byte, err error) {
	if file == "-" {
		b, err = readAll("standard input", a.stdin, maxYAML)
	} else {
		b, err = readLimited(file, maxYAML)
	}
	if err != nil {
		return nil, &usageError{err: err}
	}
	return b, nil
}

// applied is what came of one document, in JSON.
type applied struct {
	Name      string          `json:"name"`
	Unchanged bool            `json:"unchanged"`          // it is in force already, just so
	Decision  json.RawMessage `json:"decision,omitempty"` // as the service gave it
}

// applyAll signs for each item in turn. What is in force already is left alone. An error
// ends it, after what was done before has been shown.
func applyAll[T any](ctx context.Context, a *app, items []T, name func(T) string, apply func(context.Context, T) (*pb.SignDecisionResponse, error)) error {
	results, lines := []applied{}, []string{}
	var failed error
	for _, item := range items {
		n := name(item)
		got, err := apply(ctx, item)
		if vault.ReasonOf(err) == vault.ReasonUnchanged {
			results, lines = append(results, applied{Name: n, Unchanged: true}), append(lines, n+": nothing to do, it is in force as it stands in the file")
			continue
		}
		if err != nil {
			failed = fmt.Errorf("%s: %w", n, err)
			break
		}
		d, err := messageJSON(got.GetDecision())
		if err != nil {
			return err
		}
		results, lines = append(results, applied{Name: n, Decision: d}), append(lines, n+": "+howFar(got.GetDecision()))
	}
	if a.output == jsonOutput {
		if err := a.showJSON(map[string]any{"results": results}); err != nil {
			return err
		}
		return failed
	}
	if err := a.showTable(func(t *grid) {
		for _, l := range lines {
			t.line("%s", l)
		}
	}); err != nil {
		return err
	}
	return failed
}

// howFar says where a decision stands and what is next.
func howFar(d *pb.Decision) string {
	if d.GetState() == pb.Decision_STATE_EFFECTIVE {
		for _, key := range []string{"version", "epoch"} {
			if v := bodyField(d.Body, key); v != "" {
				return "in force: " + key + " " + v
			}
		}
		return "in force"
	}
	var who []string
	for _, s := range d.GetSignatures() {
		who = append(who, person(s.Signer))
	}
	missing := max(int(d.GetSignaturesRequired())-len(who), 0)
	return fmt.Sprintf("signed by %s; waits for %s until %s: run the same command as another admin",
		strings.Join(who, ", "), count(missing, "more admin"), when(d.GetExpireTime()))
}

// bodyField gives the value of one line of a decision's body.
func bodyField(body, key string) string {
	for line := range strings.Lines(body) {
		if v, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), key+": "); ok {
			return v
		}
	}
	return ""
}
