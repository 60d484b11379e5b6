package vault_test

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/portcullis/portcullis/vault"
)

// FuzzDecodeEvent: what reads as an event is written again as the very same bytes.
func FuzzDecodeEvent(f *testing.F) {
	plain := `{"v":1,"type":"grant.expired","at":"2026-03-04T06:00:00.000000Z","actor":"portcullisd"}`
	for _, s := range []string{
		plain, plain + "\n", strings.Replace(plain, `"type"`, `"Type"`, 1), strings.Replace(plain, `,`, `,"v":1,`, 1),
		plain[:len(plain)-1] + `,"records":["a"],"part":1,"parts":2}`, strings.Replace(plain, "portcullisd", `\ufffd`, 1),
		plain[:len(plain)-1] + `,"records":null}`, plain[:len(plain)-1] + `,"decision":{}}`, strings.Replace(plain, "portcullisd", "\xff", 1),
	} {
		f.Add([]byte(s))
	}
	_, terms, sig, c := largest()
	sig.Chain, sig.Bytes = [][]byte{{1}, {}}, []byte{0, 255}
	e := vault.NewEvent(vault.EventRecordStored, c, signedAt)
	e.Stored, e.Signature, e.Decision = someRecord().Facts(), sig.Facts(), terms.Decision().Facts()
	b, err := e.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		given := bytes.Clone(b)
		e, err := vault.DecodeEvent(b)
		if !bytes.Equal(b, given) {
			t.Fatal("it changed its input")
		}
		if err != nil {
			if !reflect.DeepEqual(e, vault.Event{}) {
				t.Fatalf("%v, and an event with it: %+v", err, e)
			}
			return
		}
		if len(b) > vault.MaxEvent {
			t.Fatalf("an event of %d bytes", len(b))
		}
		if again, err := e.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%s\nis written again as\n%s, %v", b, again, err)
		}
	})
}

// FuzzEncodeEvent: what is written as an event reads back as that event.
func FuzzEncodeEvent(f *testing.F) {
	f.Add("grant.expired", "portcullisd", "", "a: b\n", int64(0), 0, true)
	f.Add("x", "\u2028\ufffd", "\\ufffd", "\x00\x7f\b\f<>&\"\\", int64(-1), -1, false)
	f.Add("", "\xff", "\xed\xa0\x80", "\U0010ffff", int64(1<<62), 1<<31, true)
	f.Fuzz(func(t *testing.T, kind, actor, record, body string, count int64, epoch int, all bool) {
		e := vault.Event{
			V: vault.EventVersion, Type: vault.EventType(kind), At: vault.FormatTime(signedAt), Actor: actor,
			Record: record, Count: count, Epoch: epoch, Refetch: all, Reason: vault.Reason(record),
		}
		if all {
			e.Decision, e.Records = &vault.DecisionFacts{Body: body}, []string{record, body}
			e.Signature, e.Stored = &vault.SignatureFacts{Signer: actor, Chain: []string{}}, &vault.StoredFacts{Lane: body, Size: count}
		}
		b, err := e.Encode()
		if err != nil {
			return
		}
		if bytes.ContainsAny(b, "\n\r") || len(b) > vault.MaxEvent {
			t.Fatalf("an event of %d bytes, or of more than one line: %s", len(b), b)
		}
		back, err := vault.DecodeEvent(b)
		if err != nil || (utf8.ValidString(strings.Join([]string{kind, actor, record, body}, " ")) && !reflect.DeepEqual(back, e)) {
			t.Fatalf("%+v, written as\n%s\nreads back as %+v, %v", e, b, back, err)
		}
		if again, err := back.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%s\nis written again as\n%s, %v", b, again, err)
		}
	})
}

// FuzzWords feeds a text to everything that reads one from outside. What is read is written
// again as the same text, and what is refused is Invalid and names the field.
func FuzzWords(f *testing.F) {
	for _, s := range []string{
		"", "north-gate-2", "a--b", "-", strings.Repeat("a", 33), "123e4567-e89b-42d3-a456-426614174000", "{123e4567-e89b-42d3-a456-426614174000}",
		"urn:uuid:123e4567-e89b-42d3-a456-426614174000", "123E4567-E89B-42D3-A456-426614174000", "123e4567e89b42d3a456426614174000",
		"2026-03-04T06:00:00.000000Z", "2026-03-04T06:00:00,000000Z", "0000-01-01T00:00:00.000000Z", "2026-03-04T24:00:00.000000Z",
		"spiffe://example.org/admin/ann", "spiffe://example.org/contractor/acme/x/", "spiffe://example.org/capture/north/3", "spiffe://example.org//admin/ann",
		"spiffe://example.org/auditor/ann/..", "face", "plate", "a\nb", "a\u2028b", "\u202e", "\xff", "sha256:", "a\r", "\x00",
		"00112233445566778899aabbccddeeff", "00112233445566778899AABBCCDDEEFF",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := vault.ParseID("id", s); err != nil {
			wantInvalid(t, err, "id")
		} else if id.String() != s {
			t.Errorf("ID %q is written %q", s, id)
		}
		if h, err := vault.ParseHandle("handle", s); err != nil {
			wantInvalid(t, err, "handle")
		} else {
			key := vault.HandleKey{1, 2, 3}
			if h.String() != s || key.Handle(key.Record(h)) != h {
				t.Errorf("handle %q is written %q, or names no one record", s, h)
			}
		}
		if at, err := vault.ParseTime(s); err == nil && (vault.FormatTime(at) != s || len(s) != 27 || !vault.Micro(at).Equal(at)) {
			t.Errorf("time %q is written %q", s, vault.FormatTime(at))
		}
		if err := vault.CheckName("name", s); err != nil {
			wantInvalid(t, err, "name")
		} else if s == "" || len(s) > vault.MaxName || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || strings.Contains("-"+s+"-", "--") {
			t.Errorf("%q passes for a name", s)
		}
		if err := vault.CheckText("text", s, 100, true); err != nil {
			wantInvalid(t, err, "text")
		} else if len(s) > 100 || strings.ContainsAny(s, "\r\n\v\f\x00\x1b\x7f\u0085\u2028\u2029\u202e\u200b\ufeff") || strings.ToValidUTF8(s, "") != s {
			t.Errorf("%q passes for one line of text", s)
		}
		if err := vault.CheckModality("modality", vault.Modality(s)); err != nil {
			wantInvalid(t, err, "modality")
		} else if s != "face" && s != "plate" {
			t.Errorf("%q passes for a modality", s)
		}
		if c, err := vault.ParseCaller("example.org", s); err != nil {
			if c != (vault.Caller{}) {
				t.Errorf("%v, and a caller with it: %+v", err, c)
			}
			wantReason(t, err, vault.Denied, vault.ReasonRoleNotAllowed)
		} else if c.ID != s || "spiffe://example.org/"+path(c) != s {
			t.Errorf("%q passes for %+v", s, c)
		}
	})
}

// path writes the path of a caller's SPIFFE ID from its parts.
func path(c vault.Caller) string {
	switch c.Role {
	case vault.RoleCapture:
		return "capture/" + c.Site + "/" + c.Lane
	case vault.RoleContractor:
		return "contractor/" + c.Org + "/" + c.Workload
	}
	return string(c.Role) + "/" + c.Name
}
