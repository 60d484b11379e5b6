package wire_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

var now = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// sent gives the message as it comes out at the other end.
func sent[M proto.Message](t interface {
	Helper()
	Fatal(...any)
}, in M) M {
	t.Helper()
	b, err := proto.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	out := in.ProtoReflect().New().Interface()
	if err := proto.Unmarshal(b, out); err != nil {
		t.Fatal(err)
	}
	return out.(M)
}

func name(t *rapid.T, label string) string {
	return rapid.StringMatching(`[a-z0-9]{1,8}(-[a-z0-9]{1,6}){0,2}`).Draw(t, label)
}

func names(t *rapid.T, label string) []string {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string { return name(t, label) }), 1, 4).Draw(t, label+"s")
}

func moment(t *rapid.T, label string) time.Time {
	return time.UnixMicro(rapid.Int64Range(0, 4_000_000_000_000_000).Draw(t, label)).UTC()
}

func id(t *rapid.T, label string) (id vault.ID) {
	copy(id[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, label))
	return id
}

func modalities(t *rapid.T) []vault.Modality {
	return rapid.SliceOfN(rapid.SampledFrom([]vault.Modality{vault.Face, vault.Plate}), 1, 2).Draw(t, "modalities")
}

func scope(t *rapid.T) vault.Scope {
	s := vault.Scope{Sites: names(t, "site"), Modalities: modalities(t), From: moment(t, "from"), Until: moment(t, "until"), Live: rapid.Bool().Draw(t, "live")}
	if rapid.Bool().Draw(t, "listed") {
		s.List = vault.NewID()
		for range rapid.IntRange(1, 3).Draw(t, "records") {
			s.Records = append(s.Records, id(t, "record"))
		}
	}
	return s
}

func grant(t *rapid.T) vault.Grant {
	g := vault.Grant{Terms: vault.Terms{
		Grant:   id(t, "grant"),
		Purpose: vault.PurposeRef{Name: name(t, "purpose"), Version: rapid.IntRange(1, 1<<31-1).Draw(t, "version"), Digest: vault.DigestOf([]byte(name(t, "digest")))},
		Grantee: "spiffe://example.org/contractor/" + name(t, "org") + "/" + name(t, "workload"), Epoch: rapid.IntRange(1, 1<<31-1).Draw(t, "epoch"),
		Scope: scope(t), MaxRecords: rapid.Int64().Draw(t, "max"), MaxBytes: rapid.Int64().Draw(t, "bytes"), Ends: moment(t, "ends"), Approvals: rapid.IntRange(1, 5).Draw(t, "approvals"),
	}}
	g.Justification = rapid.String().Draw(t, "justification")
	g.Terms.Justification = vault.DigestOf([]byte(g.Justification))
	g.State = rapid.SampledFrom([]vault.GrantState{vault.GrantPending, vault.GrantApproved, vault.GrantActive, vault.GrantDenied, vault.GrantRetired, vault.GrantRevoked, vault.GrantLapsed, vault.GrantSuspended}).Draw(t, "state")
	g.RequestedAt, g.Released = moment(t, "requested"), rapid.Int64().Draw(t, "released")
	return g
}

// What an admin signs is what the service meant.
func TestTermsOfAGrantReadBackAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := grant(t)
		m := sent(t, wire.Grant(g, now))
		got, err := wire.ParseTerms(m)
		if err != nil {
			t.Fatal(err)
		}
		if got.Text() != g.Text() || got.Decision().Digest() != g.Decision().Digest() || m.Digest != got.Decision().Digest().String() {
			t.Fatalf("terms\n%s\nread back as\n%s", g.Text(), got.Text())
		}
	})
}

// Each field of the message that terms are read from reaches what is signed.
func TestTermsNoticeEveryField(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := wire.Grant(grant(t), now)
		before, err := wire.ParseTerms(m)
		if err != nil {
			t.Fatal(err)
		}
		for field, change := range map[string]func(*pb.Grant){
			"name":            func(m *pb.Grant) { m.Name = wire.Name(wire.Grants, vault.NewID()) },
			"purpose":         func(m *pb.Grant) { m.Purpose = "purposes/zz-other-one-of-a-long-name" },
			"purpose_version": func(m *pb.Grant) { m.PurposeVersion-- },
			"purpose_digest":  func(m *pb.Grant) { m.PurposeDigest = vault.DigestOf([]byte{0}).String() },
			"grantee":         func(m *pb.Grant) { m.Grantee += "x" },
			"epoch":           func(m *pb.Grant) { m.Epoch-- },
			"sites":           func(m *pb.Grant) { m.Scope.Sites = append(m.Scope.Sites, "zz-9-9-9-9") },
			"modalities":      func(m *pb.Grant) { m.Scope.Modalities = nil },
			"start_time":      func(m *pb.Grant) { m.Scope.StartTime.Seconds++ },
			"end_time":        func(m *pb.Grant) { m.Scope.EndTime.Seconds++ },
			"live":            func(m *pb.Grant) { m.Scope.Live = !m.Scope.Live },
			"record_list":     func(m *pb.Grant) { m.Scope.RecordList = wire.Name(wire.Lists, vault.NewID()) },
			"max_records":     func(m *pb.Grant) { m.MaxRecords ^= 1 },
			"max_bytes":       func(m *pb.Grant) { m.MaxBytes ^= 1 },
			"ends":            func(m *pb.Grant) { m.EndTime.Seconds++ },
			"approvals":       func(m *pb.Grant) { m.ApprovalsRequired-- },
			"justification":   func(m *pb.Grant) { m.Justification += "x" },
		} {
			altered := proto.CloneOf(m)
			change(altered)
			if m.Scope.RecordList == "" && field == "record_list" {
				altered.Scope.Records = []string{wire.Name(wire.Records, vault.NewID())}
			}
			if got, err := wire.ParseTerms(altered); err == nil && got.Text() == before.Text() {
				t.Fatalf("%s altered, the terms are the same", field)
			}
		}
	})
}

func TestGrantShowsItsState(t *testing.T) {
	for state, want := range map[vault.GrantState][2]pb.Grant_State{ // before the end, at it
		vault.GrantPending:   {pb.Grant_STATE_PENDING, pb.Grant_STATE_EXPIRED},
		vault.GrantApproved:  {pb.Grant_STATE_APPROVED, pb.Grant_STATE_EXPIRED},
		vault.GrantActive:    {pb.Grant_STATE_ACTIVE, pb.Grant_STATE_EXPIRED},
		vault.GrantDenied:    {pb.Grant_STATE_DENIED, pb.Grant_STATE_DENIED},
		vault.GrantRetired:   {pb.Grant_STATE_RETIRED, pb.Grant_STATE_RETIRED},
		vault.GrantRevoked:   {pb.Grant_STATE_REVOKED, pb.Grant_STATE_REVOKED},
		vault.GrantLapsed:    {pb.Grant_STATE_LAPSED, pb.Grant_STATE_LAPSED},
		vault.GrantSuspended: {pb.Grant_STATE_SUSPENDED, pb.Grant_STATE_SUSPENDED},
	} {
		g := vault.Grant{State: state, RequestedAt: now.Add(-time.Hour), Terms: vault.Terms{Ends: now}}
		for i, at := range []time.Time{now.Add(-time.Microsecond), now} {
			if got := wire.Grant(g, at).State; got != want[i] {
				t.Errorf("%s shows as %s, want %s", state, got, want[i])
			}
		}
		if back, err := wire.ParseGrantState("f", want[0]); err != nil || back != state {
			t.Errorf("%s reads as %s, %v", want[0], back, err)
		}
	}
	for _, s := range []pb.Grant_State{pb.Grant_STATE_UNSPECIFIED, pb.Grant_STATE_EXPIRED, 99, -1} {
		_, err := wire.ParseGrantState("filter", s)
		invalid(t, err, "filter")
	}
}

// A grantee's message holds no secret of the grant.
func TestGrantShowsNoSecret(t *testing.T) {
	g := vault.Grant{HandleKey: vault.HandleKey{'h', 'k', 'e', 'y'}, TokenDigest: vault.DigestOf([]byte("t")), Accessor: "accessor-1"}
	b, err := proto.Marshal(wire.Grant(g, now))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"hkey", g.Accessor, string(g.TokenDigest[:]), g.TokenDigest.String()} {
		if strings.Contains(string(b), s) {
			t.Errorf("the message holds %q", s)
		}
	}
}

func TestPurposesReadBackAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		whole := rapid.IntRange(-1<<31, 1<<31-1)
		p := vault.Purpose{
			Name: name(t, "name"), Version: rapid.IntRange(1, 1<<31-1).Draw(t, "version"), Withdrawn: rapid.Bool().Draw(t, "withdrawn"),
			Title: rapid.String().Draw(t, "title"), LegalBasis: rapid.String().Draw(t, "basis"), Modalities: modalities(t), Linkage: rapid.Bool().Draw(t, "linkage"),
			Sites: names(t, "site"), Contractors: names(t, "contractor"), MaxTTL: time.Duration(rapid.Int64().Draw(t, "ttl")),
			MaxRecords: rapid.Int64().Draw(t, "max"), MaxBytes: rapid.Int64().Draw(t, "bytes"), MaxRate: rapid.Int64().Draw(t, "rate"),
			MaxRecordAge: time.Duration(rapid.Int64().Draw(t, "age")), Precision: rapid.SampledFrom(vault.Precisions).Draw(t, "precision"),
			MinBucket: whole.Draw(t, "bucket"), Approvals: whole.Draw(t, "approvals"), Approvers: names(t, "approver"),
			Strict: rapid.Bool().Draw(t, "strict"), Live: rapid.Bool().Draw(t, "live"), Retention: names(t, "class"),
		}
		if rapid.Bool().Draw(t, "not the first") {
			p.Replaces = vault.DigestOf([]byte(p.Name))
		}
		got, err := wire.ParsePurpose(sent(t, wire.Purpose(p)))
		if err != nil || !reflect.DeepEqual(got, p) {
			t.Fatalf("%+v\nreads back as\n%+v, %v", p, got, err)
		}
	})
}

func TestScopesAndSelectionsReadBackAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := scope(t)
		if got, err := wire.ParseScope(sent(t, wire.Scope(s))); err != nil || !reflect.DeepEqual(got, s) {
			t.Fatalf("%+v\nreads back as\n%+v, %v", s, got, err)
		}
		all := vault.Selection{Site: name(t, "site"), From: moment(t, "from"), Until: moment(t, "until")}
		one := vault.Selection{Record: vault.NewID()}
		typed := all
		typed.Modality = rapid.SampledFrom([]vault.Modality{vault.Face, vault.Plate}).Draw(t, "modality")
		for _, s := range []vault.Selection{all, one, typed} {
			if got, err := wire.ParseSelection(sent(t, wire.Selection(s))); err != nil || got != s {
				t.Fatalf("%+v\nreads back as\n%+v, %v", s, got, err)
			}
		}
	})
}

func TestSignaturesAndDecisionsReadBackAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bytesOf := func(label string, most int) []byte {
			return rapid.SliceOfN(rapid.Byte(), 1, most).Draw(t, label)
		}
		s := vault.Signature{Signer: rapid.StringMatching(`[!-~]{1,40}`).Draw(t, "signer"), SignedAt: moment(t, "at"), Bytes: bytesOf("bytes", 90)}
		for range rapid.IntRange(1, vault.MaxChain).Draw(t, "chain") {
			s.Chain = append(s.Chain, bytesOf("certificate", 30))
		}
		if got, err := wire.ParseSignature(sent(t, wire.Signature(s))); err != nil || !reflect.DeepEqual(got, s) {
			t.Fatalf("%+v\nreads back as\n%+v, %v", s, got, err)
		}
		p := vault.Proposal{
			Decision: vault.Decision{ID: id(t, "id"), Kind: vault.DestroyKeys, Body: rapid.StringMatching(`([a-z_]{1,9}: [ -~é]{0,9}\n){0,4}`).Draw(t, "body"), Expires: moment(t, "expires")},
			Need:     2, Signatures: []vault.Signature{s}, Effective: rapid.Bool().Draw(t, "effective"), Payload: []byte("payload"),
		}
		m := sent(t, wire.Proposal(p, now))
		got, err := wire.ParseDecision(m)
		if err != nil || got.Text() != p.Text() || m.Digest != got.Digest().String() {
			t.Fatalf("%s\nreads back as\n%s, %v", p.Text(), got.Text(), err)
		}
		want := pb.Decision_STATE_OPEN
		if p.Effective {
			want = pb.Decision_STATE_EFFECTIVE
		} else if !now.Before(p.Expires) {
			want = pb.Decision_STATE_EXPIRED
		}
		if m.State != want || m.SignaturesRequired != 2 || len(m.Signatures) != 1 {
			t.Fatalf("message %v, want state %s", m, want)
		}
	})
}

func TestContractorsReadBack(t *testing.T) {
	m := sent(t, wire.Contractor(vault.Contractor{Name: "acme", Title: "Acme", Group: "holding", Suspended: true, Epoch: 3}))
	if m.State != pb.Contractor_STATE_SUSPENDED || m.Epoch != 3 || m.ConflictGroup != "holding" {
		t.Errorf("message %v", m)
	}
	// A client's word on epoch and standing counts for nothing.
	if got, err := wire.ParseContractor(m); err != nil || got != (vault.Contractor{Name: "acme", Title: "Acme", Group: "holding"}) {
		t.Errorf("%+v, %v", got, err)
	}
	if m := wire.Contractor(vault.Contractor{Name: "acme"}); m.State != pb.Contractor_STATE_ACTIVE || m.ConflictGroup != "acme" {
		t.Errorf("message %v", m)
	}
}

func TestBarrier(t *testing.T) {
	want := &pb.Barrier{ConnectionsReset: 1, SendsEnded: 2, Waited: durationpb.New(3), EventIndex: 4, VaultDone: true}
	if got := wire.Barrier(vault.Barrier{Connections: 1, Sends: 2, Waited: 3, Index: 4, VaultDone: true}); !proto.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func invalid(t *testing.T, err error, field string) {
	t.Helper()
	var e *vault.Error
	if !errors.As(err, &e) || e.Kind != vault.Invalid || len(e.Fields) != 1 || e.Fields[0].Name != field {
		t.Errorf("error %v, want one that is Invalid and names %s", err, field)
	}
}

// without gives a good message with one thing changed.
func without[M proto.Message](good M, change func(M)) M {
	m := proto.CloneOf(good)
	change(m)
	return m
}

func TestHostileMessagesNameTheirField(t *testing.T) {
	long := make([]string, vault.MaxListed+1)
	bad := &timestamppb.Timestamp{Seconds: 1 << 60}
	three := []pb.Modality{1, 2, 1}
	s := wire.Scope(vault.Scope{Sites: []string{"a"}, Modalities: []vault.Modality{vault.Face}, From: now, Until: now})
	g := wire.Grant(vault.Grant{Terms: vault.Terms{Grant: vault.NewID(), Purpose: vault.PurposeRef{Name: "p"}, Grantee: "spiffe://example.org/contractor/acme/x", Ends: now}}, now)
	p := wire.Purpose(vault.Purpose{Name: "p", MaxTTL: time.Hour, MaxRecordAge: time.Hour, Precision: vault.PrecisionDay})
	sel := wire.Selection(vault.Selection{Site: "a", From: now, Until: now})
	sig := wire.Signature(vault.Signature{Signer: "s", SignedAt: now, Bytes: []byte{1}, Chain: [][]byte{{1}}})
	d := wire.Proposal(vault.Proposal{Decision: vault.Decision{Kind: vault.DestroyKeys}}, now)
	for _, c := range []struct {
		field string
		parse func() error
	}{
		{"scope", func() error { _, err := wire.ParseScope(nil); return err }},
		{"scope.start_time", func() error { _, err := wire.ParseScope(&pb.Scope{}); return err }},
		{"scope.end_time", func() error { _, err := wire.ParseScope(without(s, func(m *pb.Scope) { m.EndTime = bad })); return err }},
		{"scope.modalities", func() error {
			_, err := wire.ParseScope(without(s, func(m *pb.Scope) { m.Modalities = three }))
			return err
		}},
		{"scope.modalities[1]", func() error {
			_, err := wire.ParseScope(without(s, func(m *pb.Scope) { m.Modalities = []pb.Modality{1, 0} }))
			return err
		}},
		{"scope.modalities[0]", func() error {
			_, err := wire.ParseScope(without(s, func(m *pb.Scope) { m.Modalities = []pb.Modality{-7} }))
			return err
		}},
		{"grant.name", func() error { _, err := wire.ParseTerms(nil); return err }},
		{"grant.name", func() error {
			_, err := wire.ParseTerms(without(g, func(m *pb.Grant) { m.Name = "records/" + vault.NewID().String() }))
			return err
		}},
		{"grant.purpose", func() error {
			_, err := wire.ParseTerms(without(g, func(m *pb.Grant) { m.Purpose = "purposes/p\nends: never" }))
			return err
		}},
		{"grant.purpose_digest", func() error {
			_, err := wire.ParseTerms(without(g, func(m *pb.Grant) { m.PurposeDigest = "sha256:" + strings.Repeat("g", 64) }))
			return err
		}},
		{"grant.purpose_digest", func() error {
			_, err := wire.ParseTerms(without(g, func(m *pb.Grant) { m.PurposeDigest += "00" }))
			return err
		}},
		{"scope", func() error {
			_, err := wire.ParseTerms(without(g, func(m *pb.Grant) { m.Scope = nil }))
			return err
		}},
		{"grant.end_time", func() error {
			_, err := wire.ParseTerms(without(g, func(m *pb.Grant) { m.EndTime = nil }))
			return err
		}},
		{"grant.grantee", func() error {
			_, err := wire.ParseTerms(without(g, func(m *pb.Grant) { m.Grantee += "\nepoch: 9" }))
			return err
		}},
		{"scope.sites[1]", func() error {
			_, err := wire.ParseTerms(without(g, func(m *pb.Grant) { m.Scope.Sites = []string{"a", "b,c"} }))
			return err
		}},
		{"purpose", func() error { _, err := wire.ParsePurpose(nil); return err }},
		{"purpose.name", func() error { _, err := wire.ParsePurpose(&pb.Purpose{}); return err }},
		{"purpose.modalities", func() error {
			_, err := wire.ParsePurpose(without(p, func(m *pb.Purpose) { m.Modalities = three }))
			return err
		}},
		{"purpose.contractors", func() error {
			_, err := wire.ParsePurpose(without(p, func(m *pb.Purpose) { m.Contractors = long }))
			return err
		}},
		{"purpose.contractors[1]", func() error {
			_, err := wire.ParsePurpose(without(p, func(m *pb.Purpose) { m.Contractors = []string{"contractors/a", "a"} }))
			return err
		}},
		{"purpose.time_precision", func() error {
			_, err := wire.ParsePurpose(without(p, func(m *pb.Purpose) { m.TimePrecision = 0 }))
			return err
		}},
		{"purpose.time_precision", func() error {
			_, err := wire.ParsePurpose(without(p, func(m *pb.Purpose) { m.TimePrecision = 99 }))
			return err
		}},
		{"purpose.max_record_age", func() error {
			_, err := wire.ParsePurpose(without(p, func(m *pb.Purpose) { m.MaxRecordAge = nil }))
			return err
		}},
		{"purpose.approvers", func() error {
			_, err := wire.ParsePurpose(without(p, func(m *pb.Purpose) { m.Approvers = long }))
			return err
		}},
		{"purpose.retention_classes", func() error {
			_, err := wire.ParsePurpose(without(p, func(m *pb.Purpose) { m.RetentionClasses = long }))
			return err
		}},
		{"purpose.replaces", func() error {
			_, err := wire.ParsePurpose(without(p, func(m *pb.Purpose) { m.Replaces = "sha256:00" }))
			return err
		}},
		{"scope.records", func() error {
			_, err := wire.ParseWanted(&pb.Scope{Records: []string{wire.Name(wire.Records, vault.NewID())}})
			return err
		}},
		{"scope", func() error {
			_, err := wire.ParseWanted(&pb.Scope{RecordList: wire.Name(wire.Lists, vault.NewID()), Sites: []string{"a"}})
			return err
		}},
		{"scope", func() error {
			_, err := wire.ParseWanted(&pb.Scope{Live: true, EndTime: timestamppb.New(now)})
			return err
		}},
		{"scope.record_list", func() error {
			_, err := wire.ParseWanted(&pb.Scope{RecordList: wire.Name(wire.Lists, vault.ID{})})
			return err
		}},
		{"scope.start_time", func() error { _, err := wire.ParseWanted(&pb.Scope{Sites: []string{"a"}}); return err }},
		{"purpose.max_ttl", func() error {
			_, err := wire.ParsePurpose(without(p, func(m *pb.Purpose) { m.MaxTtl = nil }))
			return err
		}},
		{"purpose.max_ttl", func() error {
			_, err := wire.ParsePurpose(without(p, func(m *pb.Purpose) { m.MaxTtl = &durationpb.Duration{Seconds: 1, Nanos: -1} }))
			return err
		}},
		{"contractor", func() error { _, err := wire.ParseContractor(nil); return err }},
		{"contractor.name", func() error {
			_, err := wire.ParseContractor(&pb.Contractor{Name: "contractors/"})
			return err
		}},
		{"selection", func() error { _, err := wire.ParseSelection(nil); return err }},
		{"selection.record", func() error { _, err := wire.ParseSelection(&pb.Selection{Record: "records/x"}); return err }},
		{"selection.modality", func() error {
			_, err := wire.ParseSelection(without(sel, func(m *pb.Selection) { m.Modality = 9 }))
			return err
		}},
		{"selection.start_time", func() error {
			_, err := wire.ParseSelection(without(sel, func(m *pb.Selection) { m.StartTime = nil }))
			return err
		}},
		{"selection.record", func() error {
			_, err := wire.ParseSelection(&pb.Selection{Record: wire.Name(wire.Records, vault.ID{})})
			return err
		}},
		{"selection.end_time", func() error {
			_, err := wire.ParseSelection(without(sel, func(m *pb.Selection) { m.EndTime = nil }))
			return err
		}},
		{"signature", func() error { _, err := wire.ParseSignature(nil); return err }},
		{"signature.signature", func() error {
			_, err := wire.ParseSignature(without(sig, func(m *pb.Signature) { m.Signature = nil }))
			return err
		}},
		{"signature.signature", func() error {
			_, err := wire.ParseSignature(without(sig, func(m *pb.Signature) { m.Signature = make([]byte, vault.MaxSignature+1) }))
			return err
		}},
		{"signature.chain", func() error {
			_, err := wire.ParseSignature(without(sig, func(m *pb.Signature) { m.Chain = nil }))
			return err
		}},
		{"signature.chain", func() error {
			_, err := wire.ParseSignature(without(sig, func(m *pb.Signature) { m.Chain = make([][]byte, vault.MaxChain+1) }))
			return err
		}},
		{"signature.chain", func() error {
			_, err := wire.ParseSignature(without(sig, func(m *pb.Signature) { m.Chain = [][]byte{make([]byte, vault.MaxCertificate+1)} }))
			return err
		}},
		{"signature.sign_time", func() error {
			_, err := wire.ParseSignature(without(sig, func(m *pb.Signature) { m.SignTime = nil }))
			return err
		}},
		{"decision.name", func() error { _, err := wire.ParseDecision(nil); return err }},
		{"decision.kind", func() error {
			_, err := wire.ParseDecision(without(d, func(m *pb.Decision) { m.Kind += "\nid: " + vault.NewID().String() }))
			return err
		}},
		{"decision.body", func() error {
			_, err := wire.ParseDecision(without(d, func(m *pb.Decision) { m.Body = "records: 1\rrecords: 2\n" }))
			return err
		}},
		{"decision.body", func() error {
			_, err := wire.ParseDecision(without(d, func(m *pb.Decision) { m.Body = "records: 1" }))
			return err
		}},
		{"signature.signer", func() error {
			_, err := wire.ParseSignature(without(sig, func(m *pb.Signature) { m.Signer += "\nsigned_at: x" }))
			return err
		}},
		{"decision.expire_time", func() error {
			_, err := wire.ParseDecision(without(d, func(m *pb.Decision) { m.ExpireTime = bad }))
			return err
		}},
		{"f", func() error { _, err := wire.ParseDuration("f", &durationpb.Duration{Seconds: 1 << 62}); return err }},
	} {
		invalid(t, c.parse(), c.field)
	}
}
