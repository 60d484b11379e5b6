package vault_test

import (
	"bytes"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portcullis/portcullis/vault"
)

func TestGrantStates(t *testing.T) {
	ends := signedAt
	for _, c := range []struct {
		state        vault.GrantState
		usable, open vault.Reason // before the end; "" when it may
		usableOver   vault.Reason // at the end and after it
		openOver     vault.Reason
		endedBefore  bool
	}{
		{state: vault.GrantPending, usable: vault.ReasonGrantPending, open: vault.ReasonGrantPending, usableOver: vault.ReasonGrantPending, openOver: vault.ReasonGrantPending},
		{state: vault.GrantApproved, open: vault.ReasonGrantNotActive, usableOver: vault.ReasonGrantExpired, openOver: vault.ReasonGrantExpired},
		{state: vault.GrantActive, usableOver: vault.ReasonGrantExpired, openOver: vault.ReasonGrantExpired},
		{state: vault.GrantDenied, usable: vault.ReasonGrantDenied, open: vault.ReasonGrantDenied, usableOver: vault.ReasonGrantDenied, openOver: vault.ReasonGrantDenied, endedBefore: true},
		{state: vault.GrantRetired, usable: vault.ReasonGrantRetired, open: vault.ReasonGrantRetired, usableOver: vault.ReasonGrantRetired, openOver: vault.ReasonGrantRetired, endedBefore: true},
		{state: vault.GrantRevoked, usable: vault.ReasonGrantRevoked, open: vault.ReasonGrantRevoked, usableOver: vault.ReasonGrantRevoked, openOver: vault.ReasonGrantRevoked, endedBefore: true},
		{state: vault.GrantLapsed, usable: vault.ReasonGrantLapsed, open: vault.ReasonGrantLapsed, usableOver: vault.ReasonGrantLapsed, openOver: vault.ReasonGrantLapsed, endedBefore: true},
		{state: vault.GrantSuspended, usable: vault.ReasonGrantSuspended, open: vault.ReasonGrantSuspended, usableOver: vault.ReasonGrantSuspended, openOver: vault.ReasonGrantSuspended, endedBefore: true},
		{state: "odd", endedBefore: true, usable: vault.ReasonInternal, open: vault.ReasonInternal, usableOver: vault.ReasonInternal, openOver: vault.ReasonInternal},
	} {
		t.Run(string(c.state), func(t *testing.T) {
			g := vault.Grant{Terms: vault.Terms{Ends: ends}, State: c.state, RequestedAt: ends.Add(-time.Hour)}
			for now, want := range map[time.Time][2]vault.Reason{
				ends.Add(-time.Microsecond): {c.usable, c.open},
				ends:                        {c.usableOver, c.openOver},
				ends.Add(time.Hour):         {c.usableOver, c.openOver},
			} {
				for i, err := range []error{g.Usable(now), g.Open(now)} {
					if vault.ReasonOf(err) != want[i] || (err == nil) != (want[i] == "") {
						t.Errorf("%s before the end, check %d: %v, want %q", ends.Sub(now), i, err, want[i])
					}
					if err != nil && c.state != "odd" && vault.KindOf(err) != vault.State {
						t.Errorf("kind %d of %v", vault.KindOf(err), err)
					}
				}
				if got, want := g.Ended(now), c.endedBefore || !now.Before(ends); got != want {
					t.Errorf("ended %s before the end: %t, want %t", ends.Sub(now), got, want)
				}
			}
		})
	}
}

// TestPendingLapses: nothing waits for approvals longer than a day, whatever its row says.
func TestPendingLapses(t *testing.T) {
	g := vault.Grant{Terms: vault.Terms{Ends: signedAt.Add(7 * 24 * time.Hour)}, State: vault.GrantPending, RequestedAt: signedAt}
	if now := signedAt.Add(vault.PendingTTL - time.Microsecond); g.Lapsed(now) || g.Ended(now) {
		t.Error("it lapsed before its time")
	}
	if now := signedAt.Add(vault.PendingTTL); !g.Lapsed(now) || !g.Ended(now) {
		t.Error("it did not lapse")
	}
	g.State = vault.GrantApproved
	if now := signedAt.Add(vault.PendingTTL); g.Lapsed(now) || g.Ended(now) {
		t.Error("an approved one lapsed")
	}
}

func TestFingerprintSeesEveryPart(t *testing.T) {
	ca := newAuthority(t, nil)
	ann, bob := ca.admin("ann"), ca.admin("bob")
	terms := someTerms()
	base := func() vault.Grant {
		return vault.Grant{Terms: terms, Signatures: []vault.Signature{
			{Signer: adminID("ann"), SignedAt: signedAt, Bytes: []byte("one"), Chain: ann.chain},
			{Signer: adminID("bob"), SignedAt: signedAt, Bytes: []byte("two"), Chain: bob.chain},
		}}
	}
	same := base()
	same.State, same.Released, same.Accessor = vault.GrantActive, 9, "x" // not of the proof
	if same.Fingerprint() != base().Fingerprint() {
		t.Error("the fingerprint takes in what no signature covers")
	}
	for name, change := range map[string]func(*vault.Grant){
		"terms":         func(g *vault.Grant) { g.MaxRecords++ },
		"signer":        func(g *vault.Grant) { g.Signatures[0].Signer += "x" },
		"time":          func(g *vault.Grant) { g.Signatures[0].SignedAt = signedAt.Add(time.Microsecond) },
		"bytes":         func(g *vault.Grant) { g.Signatures[1].Bytes = []byte("twp") },
		"chain":         func(g *vault.Grant) { g.Signatures[1].Chain = ann.chain },
		"chain longer":  func(g *vault.Grant) { g.Signatures[1].Chain = append(bob.chain[:1:1], nil) },
		"a signature":   func(g *vault.Grant) { g.Signatures = g.Signatures[:1] },
		"no signatures": func(g *vault.Grant) { g.Signatures = nil },
		"order":         func(g *vault.Grant) { g.Signatures[0], g.Signatures[1] = g.Signatures[1], g.Signatures[0] },
	} {
		g := base()
		change(&g)
		if g.Fingerprint() == base().Fingerprint() {
			t.Errorf("%s altered, the fingerprint is the same", name)
		}
	}
	// Where one part ends and the next begins is seen, too.
	a, b := base(), base()
	a.Signatures[0].Chain, b.Signatures[0].Chain = [][]byte{[]byte("ab"), []byte("c")}, [][]byte{[]byte("a"), []byte("bc")}
	if a.Fingerprint() == b.Fingerprint() {
		t.Error("two chains of the same bytes have one fingerprint")
	}
}

func TestHandles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var k, other vault.HandleKey
		copy(k[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "key"))
		copy(other[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "other"))
		id := drawID(t, "record")
		h := k.Handle(id)
		if k.Record(h) != id {
			t.Fatal("the handle names another record")
		}
		if other != k && (other.Handle(id) == h || other.Record(h) == id) {
			t.Fatal("another grant has the same handle")
		}
		back, err := vault.ParseHandle("handle", h.String())
		if err != nil || back != h {
			t.Fatalf("%s reads back as %s, %v", h, back, err)
		}
	})
}

// The vector is AES-128 of FIPS 197, appendix C.1.
func TestHandleVector(t *testing.T) {
	var k vault.HandleKey
	var id vault.ID
	for i := range k {
		k[i], id[i] = byte(i), byte(i*0x11)
	}
	if got := k.Handle(id).String(); got != "69c4e0d86a7b0430d8cdb78070b4c55a" {
		t.Errorf("handle %s", got)
	}
}

func TestParseHandleRefuses(t *testing.T) {
	for _, s := range []string{"", "69c4", "69C4E0D86A7B0430D8CDB78070B4C55A", "69c4e0d86a7b0430d8cdb78070b4c55g", "69c4e0d86a7b0430d8cdb78070b4c55a00", " 9c4e0d86a7b0430d8cdb78070b4c55a"} {
		h, err := vault.ParseHandle("handles[3]", s)
		wantInvalid(t, err, "handles[3]")
		if h != (vault.Handle{}) {
			t.Errorf("%q gave %s with its error", s, h)
		}
	}
}

func TestParseID(t *testing.T) {
	id := vault.NewID()
	if id.Version() != 4 {
		t.Errorf("version %d tells the time", id.Version())
	}
	if got, err := vault.ParseID("x", id.String()); err != nil || got != id {
		t.Errorf("%s: %s, %v", id, got, err)
	}
	for _, s := range []string{"", "{" + id.String() + "}", "urn:uuid:" + id.String(), "123E4567-e89b-42d3-a456-426614174000", "123e4567e89b42d3a456426614174000", id.String() + " "} {
		_, err := vault.ParseID("x", s)
		wantInvalid(t, err, "x")
	}
	if bytes.Equal(id[:], make([]byte, 16)) {
		t.Error("zero ID")
	}
}
