package main

import (
	"strings"
	"testing"
	"text/tabwriter"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
)

// TestPartsSayWhatToDo: a part that is not up comes with its reason, and with what helps against
// that; to try again never helps against a database that is older than it was.
func TestPartsSayWhatToDo(t *testing.T) {
	for _, c := range []struct {
		reason vault.Reason
		what   string
	}{
		{vault.ReasonLogRolledBack, "the check for restores"},
		{vault.ReasonVaultUnchecked, "the check for restores"},
	} {
		down := &pb.Part{Name: "restores", State: pb.Part_STATE_DOWN, Reason: string(c.reason)}
		d := &doctor{}
		d.parts([]*pb.Part{{Name: "vault", State: pb.Part_STATE_UP}, down}, "active")
		if len(d.findings) != 1 {
			t.Fatalf("%s: %+v", c.reason, d.findings)
		}
		f := d.findings[0]
		if f.Result != bad || !strings.Contains(f.Detail, c.what) || !strings.Contains(f.Detail, string(c.reason)) || f.Next != hints[c.reason] {
			t.Errorf("%s: doctor says %+v", c.reason, f)
		}
		o := &overview{answer: &pb.GetStatusResponse{Parts: []*pb.Part{down}}}
		var b strings.Builder
		g := grid{tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)}
		o.show(&g, nil)
		if err := g.w.Flush(); err != nil {
			t.Fatal(err)
		}
		if text := strings.Join(strings.Fields(b.String()), " "); !strings.Contains(text, "restores down: "+string(c.reason)+": "+hints[c.reason]) {
			t.Errorf("%s: status says %s", c.reason, text)
		}
	}
}
