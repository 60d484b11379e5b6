package vault_test

import (
	"bytes"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portcullis/portcullis/vault"
)

func someCaller() vault.Caller {
	return vault.Caller{ID: adminID("ann"), Role: vault.RoleAdmin, Name: "ann", Conn: 7, Cert: vault.DigestOf([]byte("c")), Addr: "192.0.2.1:443"}
}

func someRecord() vault.Record {
	return vault.Record{
		ID: vault.NewID(), Site: "north", Lane: "3", Modality: vault.Face, CapturedAt: signedAt, CrossingID: vault.NewID(),
		ContentType: "image/jpeg", Orientation: 1, Size: 8 << 20, Device: "spiffe://example.org/capture/north/3", RequestID: vault.NewID(),
		StoredAt: signedAt, WrappedKey: "vault:v1:x", SealedHash: vault.DigestOf([]byte("s")), Key: vault.KeyActive, Class: "us-citizen",
	}
}

func TestEventsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := vault.NewEvent(vault.EventGrantRequested, someCaller(), drawTime(t, "at"))
		terms := drawTerms(t)
		d := terms.Decision()
		e.Terms, e.Decision, e.Stored = terms.Text(), d.Facts(), someRecord().Facts()
		e.Signature = vault.Signature{Signer: rapid.String().Draw(t, "signer"), SignedAt: signedAt, Bytes: []byte{0, 255}, Chain: [][]byte{{1}, {}}}.Facts()
		e.Records = rapid.SliceOfN(rapid.StringMatching(`[ -~]{0,9}`), 1, 3).Draw(t, "records")
		e.Release, e.Count = rapid.Int64().Draw(t, "release"), rapid.Int64().Draw(t, "count")
		e.Refetch, e.Epoch, e.Part, e.Parts = rapid.Bool().Draw(t, "refetch"), rapid.Int().Draw(t, "epoch"), 1, 2
		e.Reasons = []vault.Reason{vault.ReasonPurposeSite, vault.Reason(rapid.StringMatching(`[A-Z_]{0,9}`).Draw(t, "reason"))}
		e.Note = rapid.StringMatching(`[<>&"\\ -~]{0,20}`).Draw(t, "note")
		b, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if bytes.ContainsAny(b, "\n") {
			t.Fatal("an event of more than one line")
		}
		back, err := vault.DecodeEvent(b)
		if err != nil || !reflect.DeepEqual(e, back) {
			t.Fatalf("%+v\nreads back as\n%+v, %v", e, back, err)
		}
	})
}

func TestNewEvent(t *testing.T) {
	own := vault.NewEvent(vault.EventGrantExpired, vault.Caller{}, signedAt)
	if own.Actor != "portcullisd" || own.Cert != "" || own.Addr != "" || own.V != vault.EventVersion || own.At != "2026-03-04T06:00:00.000000Z" {
		t.Errorf("the daemon's own event: %+v", own)
	}
	c := someCaller()
	theirs := vault.NewEvent(vault.EventKeysRevoked, c, signedAt)
	if theirs.Actor != c.ID || theirs.Cert != c.Cert.String() || theirs.Addr != c.Addr {
		t.Errorf("a caller's event: %+v", theirs)
	}
	r := someRecord()
	r.CrossingID = vault.ID{}
	if f := r.Facts(); f.CrossingID != "" || f.KeyName != "north.face.20260304."+r.ID.String() {
		t.Errorf("facts %+v", f)
	}
}

// Facts must not hold what opens an image.
func TestFactsHoldNoKey(t *testing.T) {
	r := someRecord()
	r.WrappedKey = "vault:v1:wrapped"
	if s := fmt.Sprintf("%+v", *r.Facts()); strings.Contains(s, "wrapped") {
		t.Errorf("facts %s hold the wrapped key", s)
	}
}

func TestDecodeEventIsStrict(t *testing.T) {
	good := `{"v":1,"type":"grant.expired","at":"2026-03-04T06:00:00.000000Z","actor":"portcullisd"}`
	if _, err := vault.DecodeEvent([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"empty":             "",
		"null":              "null",
		"a list":            "[]",
		"cut":               good[:len(good)-1],
		"two":               good + good,
		"bytes behind":      good + "x",
		"an unknown field":  good[:len(good)-1] + `,"extra":1}`,
		"unknown, deep":     good[:len(good)-1] + `,"decision":{"x":1}}`,
		"another version":   strings.Replace(good, `"v":1`, `"v":2`, 1),
		"no version":        strings.Replace(good, `"v":1,`, ``, 1),
		"no time":           strings.Replace(good, `2026-03-04T06:00:00.000000Z`, ``, 1),
		"a coarse time":     strings.Replace(good, `00.000000Z`, `00Z`, 1),
		"a fine time":       strings.Replace(good, `00.000000Z`, `00.000000000Z`, 1),
		"a time of a zone":  strings.Replace(good, `000000Z`, `000000+00:00`, 1),
		"a comma in a time": strings.Replace(good, `.000000`, `,000000`, 1),
		"a short hour":      strings.Replace(good, `T06`, `T6`, 1),
		"a wrong type":      strings.Replace(good, `"portcullisd"`, `7`, 1),
		"too long":          good + strings.Repeat(" ", vault.MaxEvent),
		"a field twice":     strings.Replace(good, `"type"`, `"type":"grant.revoked","type"`, 1),
		"other letters":     strings.Replace(good, `"type"`, `"Type"`, 1),
		"both letters":      strings.Replace(good, `"type"`, `"TYPE":"grant.revoked","type"`, 1),
		"another order":     `{"type":"grant.expired","v":1,` + good[len(`{"v":1,"type":"grant.expired",`):],
		"a space":           strings.Replace(good, `,`, `, `, 1),
		"a line break":      good + "\n",
		"an empty field":    good[:len(good)-1] + `,"grant":""}`,
		"a null":            good[:len(good)-1] + `,"stored":null}`,
		"an escape":         strings.Replace(good, `grant.`, `grant\u002e`, 1),
		"not UTF-8":         strings.Replace(good, `portcullisd`, "\xff", 1),
		"a long number":     strings.Replace(good, `"v":1`, `"v":1.0`, 1),
	} {
		if e, err := vault.DecodeEvent([]byte(bad)); err == nil {
			t.Errorf("%s: reads as %+v", name, e)
		}
	}
}

func TestParseTimeReadsWhatFormatTimeWrote(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := drawTime(t, "at")
		text := vault.FormatTime(at.Add(999 * time.Nanosecond).In(time.FixedZone("", -7200)))
		back, err := vault.ParseTime(text)
		if err != nil || !back.Equal(at) || len(text) != 27 {
			t.Fatalf("%s reads back as %s, %v", text, back, err)
		}
	})
	for _, s := range []string{"2026-03-04T6:00:00.000000Z", "2026-03-04T06:00:00,000000Z", "2026-03-04T06:00:00.00000Z", "2026-02-30T06:00:00.000000Z", "2026-03-04T24:00:00.000000Z", "2026-03-04T06:00:60.000000Z", "2026-03-04t06:00:00.000000z", " 2026-03-04T06:00:00.000000Z"} {
		if at, err := vault.ParseTime(s); err == nil {
			t.Errorf("%s reads as %s", s, at)
		}
	}
}

func TestEncodeRefusesTooLong(t *testing.T) {
	e := vault.NewEvent(vault.EventKeysRevoked, vault.Caller{}, signedAt)
	empty, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	room := vault.MaxEvent - len(empty) - len(`,"note":""`)
	e.Note = strings.Repeat("x", room)
	if b, err := e.Encode(); err != nil || len(b) != vault.MaxEvent {
		t.Errorf("an event of just the most bytes: %d, %v", len(b), err)
	} else if _, err := vault.DecodeEvent(b); err != nil {
		t.Error(err)
	}
	e.Note += "x"
	if b, err := e.Encode(); err == nil {
		t.Errorf("an event of %d bytes", len(b))
	}
}

// largest gives the largest valid purpose, terms, selection, contractor and signature: an
// operation must never find that its event does not fit.
func largest() (vault.Purpose, vault.Terms, vault.Signature, vault.Caller) {
	names := make([]string, vault.MaxListed)
	for i := range names {
		names[i] = fmt.Sprintf("%02d%s", i, strings.Repeat("x", vault.MaxName-2))
	}
	long := strings.Repeat("x", vault.MaxName)
	both := []vault.Modality{vault.Face, vault.Plate}
	id := "spiffe://" + strings.Repeat("d", 255) + "/contractor/" + long + "/" + long
	p := vault.Purpose{
		Name: long, Version: math.MaxInt32, Title: strings.Repeat(`"\`, vault.MaxTitle/2), Modalities: both, Sites: names, Contractors: names,
		MaxTTL: vault.MaxTTL, MaxRecords: vault.MaxQuota, Approvals: vault.MaxApprovals,
		LegalBasis: strings.Repeat(`"\`, vault.MaxTitle/2), MaxBytes: vault.MaxBytes, MaxRate: vault.MaxRate, MaxRecordAge: vault.MaxRecordAge,
		Precision: vault.PrecisionNone, MinBucket: vault.MaxBucket, Approvers: names, Strict: true, Live: true, Retention: names,
	}
	t := vault.Terms{
		Purpose: vault.PurposeRef{Name: long, Version: math.MaxInt32}, Grantee: id, Epoch: math.MaxInt32,
		Scope:      vault.Scope{Sites: names, Modalities: both, From: signedAt, Until: signedAt, List: vault.NewID(), Records: make([]vault.ID, vault.MaxRecordList)},
		MaxRecords: math.MaxInt64, MaxBytes: math.MaxInt64, Ends: signedAt, Approvals: vault.MaxApprovals,
	}
	s := vault.Signature{Signer: id, SignedAt: signedAt, Bytes: make([]byte, vault.MaxSignature)}
	for range vault.MaxChain {
		s.Chain = append(s.Chain, make([]byte, vault.MaxCertificate))
	}
	return p, t, s, vault.Caller{ID: id, Cert: vault.DigestOf(nil), Addr: "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff%enp0s31f6]:65535"}
}

func TestLargestEventsFit(t *testing.T) {
	p, terms, sig, c := largest()
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	records := make([]string, 1000)
	for i := range records {
		records[i] = vault.NewID().String()
	}
	apply := vault.Decision{ID: vault.NewID(), Kind: vault.ApplyContractor, Body: p.Text(), Expires: signedAt}
	approve := terms.Decision()
	for name, fill := range map[string]func(*vault.Event){
		"a purpose proposed, with a signature": func(e *vault.Event) { e.Decision, e.Signature = apply.Facts(), sig.Facts() },
		"a grant requested": func(e *vault.Event) {
			e.Terms, e.Decision, e.Contractor, e.Grant = terms.Text(), approve.Facts(), p.Name, terms.Grant.String()
		},
		"a grant signed": func(e *vault.Event) {
			e.Terms, e.Decision, e.Signature, e.Note, e.Digest = terms.Text(), approve.Facts(), sig.Facts(), p.Digest().String(), p.Digest().String()
		},
		"a thousand records": func(e *vault.Event) {
			e.Records, e.Part, e.Parts, e.Count, e.Digest = records, math.MaxInt32, math.MaxInt32, math.MaxInt64, p.Digest().String()
			e.Decision, e.Note, e.Reason = apply.Facts(), p.Digest().String(), vault.ReasonCapturedAtOutOfRange
		},
		"a record stored": func(e *vault.Event) {
			r := someRecord()
			r.Site, r.Lane, r.Size = p.Name, p.Name, math.MaxInt64
			e.Stored = r.Facts()
		},
	} {
		e := vault.NewEvent(vault.EventContractorSuspended, c, signedAt)
		fill(&e)
		b, err := e.Encode()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(b) > vault.MaxEvent {
			t.Errorf("%s: %d bytes", name, len(b))
		}
		t.Logf("%s: %d bytes of %d", name, len(b), vault.MaxEvent)
	}
}

// Whatever a text holds, what is written reads back.
func TestEventsOfOddTexts(t *testing.T) {
	for s, want := range map[string]string{
		`\ufffd`: `\ufffd`, `\\ufffd`: `\\ufffd`, "\ufffd": "\ufffd", "\u2028\x00\x7f<>&": "\u2028\x00\x7f<>&", "\U0001f6a7": "\U0001f6a7",
		"a\xffb": "a\ufffdb", `\ufffd` + "\xff": `\ufffd` + "\ufffd", "\xed\xa0\x80": "\ufffd\ufffd\ufffd",
	} {
		b, err := vault.NewEvent(vault.EventGrantRevoked, vault.Caller{ID: s}, signedAt).Encode()
		if err != nil {
			t.Errorf("%q: %v", s, err)
			continue
		}
		if back, err := vault.DecodeEvent(b); err != nil || back.Actor != want {
			t.Errorf("%q reads back as %q, %v", s, back.Actor, err)
		}
	}
}

// The bytes of events are hashed and kept for years: a change of this one, by ours or of the
// encoder, would make the log unreadable.
func TestEventForm(t *testing.T) {
	e := vault.NewEvent(vault.EventRecordStored, vault.Caller{ID: "spiffe://example.org/admin/ann", Cert: vault.DigestOf([]byte("c")), Addr: "[::1]:443"}, signedAt)
	e.Stored = &vault.StoredFacts{Record: "r", Size: 8 << 20}
	e.Signature = &vault.SignatureFacts{Signer: "\u00e9 <&> \" \\ \u2028 \ufffd", Bytes: "AP8=", Chain: []string{"", "AQ=="}}
	e.Decision = &vault.DecisionFacts{Body: "a: b\nc:\td\b\f\x00\x7f\n"}
	e.Records, e.Release, e.Refetch, e.Reason, e.Epoch = []string{"1", "2"}, math.MaxInt64, true, vault.ReasonRoleNotAllowed, -1
	b, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "event.json", string(b)+"\n")
	if back, err := vault.DecodeEvent(b); err != nil || !reflect.DeepEqual(back, e) {
		t.Fatalf("reads back as %+v, %v", back, err)
	}
}
