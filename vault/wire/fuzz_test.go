package wire_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

// form is a message that has a meaning in the domain.
type form struct {
	empty proto.Message
	// parse gives the meaning and its text, write the message anew.
	parse func(proto.Message) (value any, text string, err error)
	write func(value any, in proto.Message) proto.Message
	lines int // of the text; 0 when their number differs or when Check is what bounds them
}

var forms = []form{
	{
		&pb.Grant{},
		func(m proto.Message) (any, string, error) {
			x, err := wire.ParseTerms(m.(*pb.Grant))
			return x, x.Text(), err
		},
		func(v any, in proto.Message) proto.Message {
			return wire.Grant(vault.Grant{Terms: v.(vault.Terms), Justification: in.(*pb.Grant).Justification}, now)
		},
		18,
	},
	{
		&pb.Purpose{},
		func(m proto.Message) (any, string, error) {
			x, err := wire.ParsePurpose(m.(*pb.Purpose))
			if err == nil && x.Check() != nil {
				return x, "", nil
			}
			return x, x.Text(), err
		},
		func(v any, _ proto.Message) proto.Message { return wire.Purpose(v.(vault.Purpose)) },
		22,
	},
	{
		&pb.Decision{},
		func(m proto.Message) (any, string, error) {
			x, err := wire.ParseDecision(m.(*pb.Decision))
			return x, x.Text(), err
		},
		func(v any, _ proto.Message) proto.Message {
			return wire.Proposal(vault.Proposal{Decision: v.(vault.Decision)}, now)
		},
		0,
	},
	{
		&pb.Selection{},
		func(m proto.Message) (any, string, error) {
			x, err := wire.ParseSelection(m.(*pb.Selection))
			if err == nil && x.Check() != nil {
				return nil, "", nil // both a record and a window, for one
			}
			return x, x.Text(), err
		},
		func(v any, in proto.Message) proto.Message {
			if v == nil {
				return in
			}
			return wire.Selection(v.(vault.Selection))
		},
		0,
	},
	{
		&pb.Scope{},
		func(m proto.Message) (any, string, error) {
			x, err := wire.ParseScope(m.(*pb.Scope))
			return x, "", err
		},
		func(v any, _ proto.Message) proto.Message { return wire.Scope(v.(vault.Scope)) },
		0,
	},
	{
		&pb.Signature{},
		func(m proto.Message) (any, string, error) {
			x, err := wire.ParseSignature(m.(*pb.Signature))
			return x, "signer: " + x.Signer + "\n", err
		},
		func(v any, _ proto.Message) proto.Message { return wire.Signature(v.(vault.Signature)) },
		1,
	},
	{
		&pb.Contractor{},
		func(m proto.Message) (any, string, error) {
			x, err := wire.ParseContractor(m.(*pb.Contractor))
			if err == nil && x.Check() != nil {
				return x.Normal(), "", nil
			}
			return x.Normal(), x.Text(), err
		},
		func(v any, _ proto.Message) proto.Message { return wire.Contractor(v.(vault.Contractor)) },
		4,
	},
}

// FuzzParse: a message is refused as Invalid with the field, or has one meaning: written anew
// it means the same, and its text has one line for each thing that it says.
func FuzzParse(f *testing.F) {
	both := []vault.Modality{vault.Plate, vault.Face}
	scope := vault.Scope{Sites: []string{"b", "a"}, Modalities: both, From: now, Until: now.Add(time.Hour)}
	signature := vault.Signature{Signer: "spiffe://example.org/admin/ann", SignedAt: now, Bytes: []byte{1}, Chain: [][]byte{{1}, {2}}}
	terms := vault.Terms{
		Purpose: vault.PurposeRef{Name: "p", Version: 1}, Grantee: "spiffe://example.org/contractor/acme/x",
		Epoch: 1, Scope: scope, MaxRecords: 5, Ends: now, Approvals: 2,
	}
	for i, m := range []proto.Message{
		wire.Grant(vault.Grant{Terms: terms, Justification: "work order 7", Signatures: []vault.Signature{signature}}, now),
		wire.Purpose(vault.Purpose{Name: "p", Version: 1, Title: "t", Modalities: both, Sites: scope.Sites, Contractors: []string{"acme"}, MaxTTL: time.Hour, MaxRecords: 5, Approvals: 2, LegalBasis: "law", MaxBytes: 9, MaxRate: 8, MaxRecordAge: time.Hour, Precision: vault.PrecisionNone, MinBucket: 7, Approvers: []string{"ann", "bob"}, Retention: []string{"standard"}, Replaces: vault.DigestOf(nil), Strict: true, Live: true, Withdrawn: true}),
		wire.Proposal(vault.Proposal{Decision: terms.Decision(), Signatures: []vault.Signature{signature}}, now),
		wire.Selection(vault.Selection{Site: "a", Modality: vault.Face, From: now, Until: now.Add(time.Hour)}),
		wire.Scope(scope), wire.Signature(signature), wire.Contractor(vault.Contractor{Name: "acme", Title: "Acme"}),
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		if reflect.TypeOf(m) != reflect.TypeOf(forms[i].empty) {
			f.Fatalf("a %T among the %T", m, forms[i].empty)
		}
		if _, text, err := forms[i].parse(m); err != nil || strings.Count(text, "\n") < forms[i].lines {
			f.Fatalf("a seed is refused: %T, %v", m, err)
		}
		f.Add(uint8(i), b)
	}
	// Scopes of the other kinds, and terms of them.
	for _, sc := range []vault.Scope{
		{Sites: scope.Sites, Modalities: both, From: now, Until: now.Add(time.Hour), Live: true},
		{Sites: scope.Sites, Modalities: both, From: now, Until: now.Add(time.Hour), List: vault.ID{7}, Records: []vault.ID{{1}, {2}}},
	} {
		of := terms
		of.Scope, of.MaxBytes = sc, 1<<40
		for i, m := range map[uint8]proto.Message{0: wire.Grant(vault.Grant{Terms: of, Justification: "x"}, now), 4: wire.Scope(sc)} {
			b, err := proto.Marshal(m)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(i, b)
		}
	}
	record := vault.ID{1}
	for _, m := range []*pb.Selection{
		wire.Selection(vault.Selection{Record: record}),
		{Record: wire.Name(wire.Records, record), Site: "a"},
		{Record: wire.Name(wire.Records, vault.ID{}), Site: "a", StartTime: timestamppb.New(now), EndTime: timestamppb.New(now.Add(time.Hour))},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(3), b)
	}
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		form := forms[int(kind)%len(forms)]
		m := form.empty.ProtoReflect().New().Interface()
		if proto.Unmarshal(b, m) != nil {
			return // grpc answers it
		}
		v, text, err := form.parse(m)
		if err != nil {
			if vault.KindOf(err) != vault.Invalid || vault.ReasonOf(err) != vault.ReasonInvalidField {
				t.Errorf("%T: %v is not Invalid", m, err)
			}
			return
		}
		if sel, ok := m.(*pb.Selection); ok && v != nil && sel.Record != "" && v.(vault.Selection).Record == (vault.ID{}) {
			t.Errorf("%v reads as all of a site", sel)
		}
		again, text2, err := form.parse(sent(t, form.write(v, m)))
		if err != nil || !reflect.DeepEqual(again, v) || text2 != text {
			t.Fatalf("%+v, written anew, reads as\n%+v, %v", v, again, err)
		}
		if n := strings.Count(text, "\n"); form.lines > 0 && text != "" && n != form.lines {
			t.Errorf("a text of %d lines, which should have %d:\n%s", n, form.lines, text)
		}
		for line := range strings.Lines(text) {
			if !strings.Contains(line, ": ") && line != "portcullis decision v1\n" && form.lines > 0 {
				t.Errorf("the line %q says nothing of anything:\n%s", line, text)
			}
		}
	})
}
