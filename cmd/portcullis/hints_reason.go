package main

import (
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/portcullis/portcullis/vault"
)

// reasonCommand tells what to try next, by an error's reason.
func (a *app) reasonCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "reason [REASON]",
		Short: "say what to try next after an error's reason",
		Long: `Reason lists the stable reasons that errors carry (error.reason with --output json) and what to
try next after each; or those of one reason. It asks no service.`,
		Example: "  portcullis reason GRANT_EXPIRED",
		Args:    atMostOne,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var out []string
			for _, r := range slices.Sorted(maps.Keys(hints)) {
				out = append(out, string(r)+"\t"+hints[r])
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		},
	}
	c.RunE = func(_ *cobra.Command, args []string) error {
		a.started = true
		which := slices.Sorted(maps.Keys(hints))
		if len(args) == 1 {
			if hints[vault.Reason(args[0])] == "" {
				return usagef("%q is no reason: \"portcullis reason\" lists them", args[0])
			}
			which = []vault.Reason{vault.Reason(args[0])}
		}
		if a.output == jsonOutput {
			type one struct {
				Reason vault.Reason `json:"reason"`
				Next   string       `json:"next"`
			}
			out := []one{}
			for _, r := range which {
				out = append(out, one{r, hints[r]})
			}
			return a.showJSON(map[string]any{"reasons": out})
		}
		return a.showTable(func(t *grid) {
			for _, r := range which {
				t.row(r, hints[r])
			}
		})
	}
	return c
}
