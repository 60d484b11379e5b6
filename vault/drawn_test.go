package vault_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portcullis/portcullis/vault"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with testdata/<name>. These texts are signed and hashed: a change of one
// makes every signature given before worthless.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s changed; signatures and digests given before would be worthless:\n%s\nwant\n%s", name, got, want)
	}
}

// wantInvalid demands an Invalid error that names exactly the field.
func wantInvalid(t interface {
	Helper()
	Errorf(string, ...any)
}, err error, field string) {
	t.Helper()
	var e *vault.Error
	if !errors.As(err, &e) || e.Kind != vault.Invalid || e.Reason != vault.ReasonInvalidField || len(e.Fields) != 1 || e.Fields[0].Name != field {
		t.Errorf("error %v, want one that is Invalid and names %s", err, field)
	}
}

// wantReason demands an error of the kind and reason.
func wantReason(t interface {
	Helper()
	Errorf(string, ...any)
}, err error, k vault.Kind, r vault.Reason) {
	t.Helper()
	if err == nil || vault.KindOf(err) != k || vault.ReasonOf(err) != r {
		t.Errorf("error %v (kind %d, reason %s), want kind %d, reason %s", err, vault.KindOf(err), vault.ReasonOf(err), k, r)
	}
}

func drawName(t *rapid.T, label string) string {
	return rapid.StringMatching(`[a-z0-9]{1,8}(-[a-z0-9]{1,6}){0,2}`).Draw(t, label)
}

func drawModalities(t *rapid.T) []vault.Modality {
	return rapid.SliceOfN(rapid.SampledFrom([]vault.Modality{vault.Face, vault.Plate}), 1, 2).Draw(t, "modalities")
}

func drawTime(t *rapid.T, label string) time.Time {
	return time.UnixMicro(rapid.Int64Range(0, 4_000_000_000_000_000).Draw(t, label)).UTC()
}

func drawScope(t *rapid.T) vault.Scope {
	s := vault.Scope{Sites: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string { return drawName(t, "site") }), 1, 4).Draw(t, "sites")}
	s.Modalities = drawModalities(t)
	s.From = drawTime(t, "from")
	s.Until = s.From.Add(time.Duration(rapid.Int64Range(1, int64(vault.MaxWindowDays)*24*3600*1e6).Draw(t, "window")) * time.Microsecond)
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		s.Live = true
	case 1:
		s.List = vault.ID{7}
		s.Records = rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) vault.ID { return drawID(t, "record") }), 1, 3, rapid.ID[vault.ID]).Draw(t, "records")
	}
	return s
}

func drawDigest(t *rapid.T, label string) vault.Digest {
	return vault.DigestOf([]byte(rapid.StringN(0, 3, -1).Draw(t, label)))
}

func drawID(t *rapid.T, label string) (id vault.ID) {
	copy(id[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, label))
	return id
}

// drawTerms draws valid terms, small in number so that two of them are often alike but for one thing.
func drawTerms(t *rapid.T) vault.Terms {
	return vault.Terms{
		Grant:   drawID(t, "grant"),
		Purpose: vault.PurposeRef{Name: drawName(t, "purpose"), Version: rapid.IntRange(1, 30).Draw(t, "version"), Digest: drawDigest(t, "digest")},
		Grantee: "spiffe://example.org/contractor/" + drawName(t, "org") + "/" + drawName(t, "workload"),
		Epoch:   rapid.IntRange(1, 30).Draw(t, "epoch"), Scope: drawScope(t),
		MaxRecords: rapid.Int64Range(1, vault.MaxQuota).Draw(t, "max"), MaxBytes: rapid.Int64Range(1, vault.MaxBytes).Draw(t, "bytes"), Ends: drawTime(t, "ends"),
		Approvals: rapid.IntRange(1, vault.MaxApprovals).Draw(t, "approvals"), Justification: drawDigest(t, "justification"),
	}
}
