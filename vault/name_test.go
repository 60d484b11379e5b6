package vault_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/portcullis/portcullis/vault"
)

func TestCheckName(t *testing.T) {
	for _, s := range []string{"a", "0", "north-gate-2", "a-b-c", strings.Repeat("x", vault.MaxName)} {
		if err := vault.CheckName("f", s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{
		"", "-", "a-", "-a", "a--b", "A", "a_b", "a.b", "a b", "a/b", "a\n", "\na", "a,b", "é", "ａ", "а" /* Cyrillic */, "a\x00", "a*", "+",
		strings.Repeat("x", vault.MaxName+1),
	} {
		wantInvalid(t, vault.CheckName("f", s), "f")
	}
}

func TestCheckText(t *testing.T) {
	for _, s := range []string{"x", "two words: 50 % of \"lanes\"", "Köln, 東京, Δ – ok", "👍🏽", strings.Repeat("x", 20), "שלום"} {
		if err := vault.CheckText("f", s, 40, false); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	if err := vault.CheckText("f", "", 40, true); err != nil {
		t.Errorf("optional and empty: %v", err)
	}
	wantInvalid(t, vault.CheckText("f", "", 40, false), "f")
	wantInvalid(t, vault.CheckText("f", strings.Repeat("é", 20)+"x", 40, true), "f")
	wantInvalid(t, vault.CheckText("f", "\xff", 40, true), "f")
	wantInvalid(t, vault.CheckText("f", "a\xed\xa0\x80", 40, true), "f")
}

// What people sign must read as it is: nothing in it starts a line, turns the direction of
// reading, or takes no room.
func TestCheckTextRefusesWhatDeceives(t *testing.T) {
	for name, runes := range map[string][]rune{
		"line ends":          {'\n', '\r', '\v', '\f', 0x85, 0x2028, 0x2029},
		"controls":           {0, '\t', 0x1b, 0x7f, 0x9b},
		"bidi controls":      {0x061c, 0x200e, 0x200f, 0x202a, 0x202b, 0x202c, 0x202d, 0x202e, 0x2066, 0x2067, 0x2068, 0x2069},
		"zero width":         {0x200b, 0x200c, 0x200d, 0x2060, 0xfeff, 0x00ad, 0x180e},
		"spaces but the one": {0xa0, 0x2003, 0x202f, 0x3000},
		"tags":               {0xe0001, 0xe0041, 0xe007f},
		"no characters":      {0xfffe, 0xe000, 0x10ffff, 0x0378},
	} {
		for _, r := range runes {
			if err := vault.CheckText("f", "good"+string(r)+"text", 100, true); err == nil {
				t.Errorf("%s: %U passes", name, r)
			}
		}
	}
}

func TestParseCaller(t *testing.T) {
	for id, want := range map[string]vault.Caller{
		"spiffe://example.org/capture/north/lane-1": {Role: vault.RoleCapture, Site: "north", Lane: "lane-1"},
		"spiffe://example.org/contractor/acme/w1":   {Role: vault.RoleContractor, Org: "acme", Workload: "w1"},
		"spiffe://example.org/admin/ann":            {Role: vault.RoleAdmin, Name: "ann"},
		"spiffe://example.org/auditor/o-2":          {Role: vault.RoleAuditor, Name: "o-2"},
	} {
		want.ID = id
		if got, err := vault.ParseCaller("example.org", id); err != nil || got != want {
			t.Errorf("%s: %+v, %v", id, got, err)
		}
	}
	for _, id := range []string{
		"", "spiffe://example.org", "spiffe://example.org/", "spiffe://example.org/admin", "spiffe://example.org/admin/",
		"spiffe://example.org/admin/ann/", "spiffe://example.org//admin/ann", "spiffe://example.org/admin/ann/x",
		"spiffe://example.org/Admin/ann", "spiffe://example.org/admin/Ann", "spiffe://example.org/admin/a%6en", "spiffe://example.org/admin/..",
		"spiffe://example.org/contractor/acme", "spiffe://example.org/contractor/acme/w1/x", "spiffe://example.org/contractor//w1",
		"spiffe://example.org/capture/north", "spiffe://example.org/capture/north/1/2", "spiffe://example.org/root/ann",
		"spiffe://example.org.evil/admin/ann", "spiffe://example.orgadmin/ann", "spiffe://xexample.org/admin/ann", "spiffe://EXAMPLE.org/admin/ann",
		"https://example.org/admin/ann", " spiffe://example.org/admin/ann", "spiffe://example.org/admin/ann\n", "spiffe://example.org/admin/ann?x",
		"spiffe://example.org/admin/" + strings.Repeat("a", vault.MaxName+1),
	} {
		c, err := vault.ParseCaller("example.org", id)
		wantReason(t, err, vault.Denied, vault.ReasonRoleNotAllowed)
		if c != (vault.Caller{}) {
			t.Errorf("%q gave %+v with its error", id, c)
		}
	}
}

func TestErrorsKeepKindReasonAndCause(t *testing.T) {
	cause := errors.New("disk on fire")
	err := fmt.Errorf("store: %w", vault.E(vault.Exists, vault.ReasonRequestIDReused, "taken by %d", 7).Because(cause))
	if vault.KindOf(err) != vault.Exists || vault.ReasonOf(err) != vault.ReasonRequestIDReused || !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
	if got := err.Error(); got != "store: taken by 7: disk on fire" {
		t.Errorf("message %q", got)
	}
	if vault.KindOf(cause) != vault.Internal || vault.ReasonOf(cause) != "" || vault.ReasonOf(nil) != "" {
		t.Error("an error of elsewhere is internal, without a reason")
	}
	if got := vault.InvalidField("a.b", "must be %d", 3).Error(); got != "invalid request; a.b: must be 3" {
		t.Errorf("message %q", got)
	}
}
