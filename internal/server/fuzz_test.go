package server

import (
	"bytes"
	"context"
	"errors"
	picture "image"
	"image/png"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

// goodRequests has one request of each kind that is taken, and some more. A method of the API
// that is not here fails TestEveryRequestIsFuzzed.
func goodRequests(t testing.TB) map[string][]proto.Message {
	t.Helper()
	var photo bytes.Buffer
	if err := png.Encode(&photo, picture.NewGray(picture.Rect(0, 0, 3, 2))); err != nil {
		t.Fatal(err)
	}
	const id = "123e4567-e89b-42d3-a456-426614174000"
	at, later := timestamppb.New(fuzzNow.Add(-time.Hour)), timestamppb.New(fuzzNow)
	both := []pb.Modality{pb.Modality_MODALITY_PLATE, pb.Modality_MODALITY_FACE}
	scope := &pb.Scope{Sites: []string{"north", "south"}, Modalities: both, StartTime: at, EndTime: later}
	signature := &pb.Signature{Signer: "spiffe://example.org/admin/ann", SignTime: later, Signature: []byte{1}, Chain: [][]byte{{1}, {2}}}
	window := &pb.Selection{Site: "north", Modality: pb.Modality_MODALITY_FACE, StartTime: at, EndTime: later}
	purpose := &pb.Purpose{
		Name: "purposes/lane-audit", Title: "Lane audit", LegalBasis: "a law", Modalities: both, Sites: []string{"north"}, Contractors: []string{"contractors/acme"},
		MaxTtl: durationpb.New(time.Hour), MaxRecords: 5, MaxBytes: 6, MaxRate: 7, MaxRecordAge: durationpb.New(24 * time.Hour),
		TimePrecision: pb.TimePrecision_TIME_PRECISION_DAY, MinBucket: 8, Approvals: 2, Approvers: []string{"ann", "bob"}, RetentionClasses: []string{"standard"},
	}
	const handle, token, page = "00112233445566778899aabbccddeeff", "hvs.token", "AAECAwQFBgcICQoLJnueG4ojo4AmS-6HrtFNTMFHP6_qi2rvspe_C7tjUkk"
	return map[string][]proto.Message{
		"StoreImage": {&pb.StoreImageRequest{
			RequestId: id, Modality: pb.Modality_MODALITY_FACE, Site: "north", Lane: "3", CaptureTime: later, CrossingId: id, Image: photo.Bytes(),
		}, &pb.StoreImageRequest{
			RequestId: id, Modality: pb.Modality_MODALITY_PLATE, CaptureTime: later, Image: photo.Bytes(), RetentionClass: "us-citizen",
		}},
		"RequestGrant": {&pb.RequestGrantRequest{
			Purpose: "purposes/lane-audit", Scope: scope, MaxRecords: 5, Ttl: durationpb.New(time.Hour), Justification: "work order 7", RequestId: id,
		}, &pb.RequestGrantRequest{
			Purpose: "purposes/lane-audit", Scope: &pb.Scope{Sites: []string{"north"}, Modalities: both, Live: true}, MaxRecords: 5, MaxBytes: 7,
			Ttl: durationpb.New(time.Hour), Justification: "work order 7", RequestId: id,
		}, &pb.RequestGrantRequest{
			Purpose: "purposes/lane-audit", Scope: &pb.Scope{RecordList: "lists/" + id}, MaxRecords: 5, Ttl: durationpb.New(time.Hour), Justification: "work order 7", ValidateOnly: true,
		}},
		"GetGrant": {&pb.GetGrantRequest{Name: "grants/" + id}},
		"CreateRecordList": {&pb.CreateRecordListRequest{
			RequestId: id, RecordList: &pb.RecordList{Contractor: "contractors/acme", Records: []string{"records/" + id}},
		}},
		"GetRecordList":             {&pb.GetRecordListRequest{Name: "lists/" + id}},
		"ListGrants":                {&pb.ListGrantsRequest{}, &pb.ListGrantsRequest{Live: true}, &pb.ListGrantsRequest{PageSize: 5, PageToken: id, States: []pb.Grant_State{1, 2}}},
		"ApproveGrant":              {&pb.ApproveGrantRequest{Name: "grants/" + id, Signature: signature}},
		"DenyGrant":                 {&pb.DenyGrantRequest{Name: "grants/" + id, Note: "no"}},
		"ActivateGrant":             {&pb.ActivateGrantRequest{Name: "grants/" + id}},
		"RevokeGrant":               {&pb.RevokeGrantRequest{Name: "grants/" + id, Note: "enough"}},
		"RetireGrant":               {&pb.RetireGrantRequest{Name: "grants/" + id}},
		"ListRecords":               {&pb.ListRecordsRequest{Grant: "grants/" + id, GrantToken: token, PageSize: 5, PageToken: page}},
		"FetchImage":                {&pb.FetchImageRequest{Grant: "grants/" + id, GrantToken: token, Handle: handle}},
		"FetchImages":               {&pb.FetchImagesRequest{Grant: "grants/" + id, GrantToken: token, Handles: []string{handle, handle}}},
		"SignDecision":              {&pb.SignDecisionRequest{Name: "decisions/" + id, Signature: signature}},
		"SuspendContractor":         {&pb.SuspendContractorRequest{Name: "contractors/acme", Note: "breach"}},
		"RevokeKeys":                {&pb.RevokeKeysRequest{Selection: window, Note: "breach"}, &pb.RevokeKeysRequest{Selection: &pb.Selection{Record: "records/" + id}}},
		"ListRecordKeys":            {&pb.ListRecordKeysRequest{Selection: window, PageSize: 5, PageToken: id}},
		"GetDestructionCertificate": {&pb.GetDestructionCertificateRequest{Name: "decisions/" + id}},
		"ListEvents":                {&pb.ListEventsRequest{StartIndex: 7, PageSize: 5, Types: []string{"record.released"}}},
		"GetConsistencyProof":       {&pb.GetConsistencyProofRequest{FirstSize: 5, SecondSize: 7}},
		"GetInclusionProof":         {&pb.GetInclusionProofRequest{Index: 5, Size: 7}},
		"GetTile":                   {&pb.GetTileRequest{Level: 1, Index: 3, Width: 7}},
		"SuspendCaller":             {&pb.SuspendCallerRequest{Caller: "spiffe://example.org/capture/north/3", Note: "stolen"}},
		"ListSuspendedCallers":      {&pb.ListSuspendedCallersRequest{PageSize: 5, PageToken: "spiffe://example.org/admin/ann"}},
		"ProposeDecision": {
			&pb.ProposeDecisionRequest{Action: &pb.ProposeDecisionRequest_ApplyPurpose{ApplyPurpose: purpose}},
			&pb.ProposeDecisionRequest{Action: &pb.ProposeDecisionRequest_ApplyContractor{ApplyContractor: &pb.Contractor{Name: "contractors/acme", Title: "Acme"}}},
			&pb.ProposeDecisionRequest{Action: &pb.ProposeDecisionRequest_WithdrawPurpose{WithdrawPurpose: "purposes/lane-audit"}},
			&pb.ProposeDecisionRequest{Action: &pb.ProposeDecisionRequest_ReinstateCaller{ReinstateCaller: "spiffe://example.org/admin/ann"}},
			&pb.ProposeDecisionRequest{Action: &pb.ProposeDecisionRequest_RestoreKeys{RestoreKeys: window}},
			&pb.ProposeDecisionRequest{Action: &pb.ProposeDecisionRequest_DestroyKeys{DestroyKeys: &pb.Selection{Record: "records/" + id}}},
		},
	}
}

// TestEveryRequestIsFuzzed walks the .proto files: each request has good seeds, and they are
// taken.
func TestEveryRequestIsFuzzed(t *testing.T) {
	good, d := goodRequests(t), newDesk()
	all := methods(t)
	if len(all) != len(good) {
		t.Errorf("%d methods and seeds for %d", len(all), len(good))
	}
	for _, m := range all {
		if len(good[m.name]) == 0 {
			t.Errorf("%s has no seed", m.full())
		}
		for _, request := range good[m.name] {
			if request.ProtoReflect().Type() != m.input {
				t.Errorf("%s: a seed is a %T", m.full(), request)
				continue
			}
			b, err := proto.Marshal(request)
			if err != nil {
				t.Fatal(err)
			}
			if err := d.call(t, m, b); !errors.Is(err, errReached) {
				t.Errorf("%s refuses its seed: %v", m.full(), err)
			}
		}
	}
}

// FuzzRequests sends requests of any bytes, and good ones with some fields changed, through
// the handlers. Each is refused with the field named and nothing touched, or taken; what is
// taken is within all limits.
func FuzzRequests(f *testing.F) {
	all := methods(f)
	good := goodRequests(f)
	for _, m := range all {
		for i, request := range good[m.name] {
			b, err := proto.Marshal(request)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(m.name, b, []byte{}, "")
			f.Add(m.name, b, []byte{byte(i), 1, byte(i + 3), 2, 2, 0x84}, "a\nb")
			f.Add(m.name, b, []byte{byte(i), 0, byte(i + 1), 0xf3, 3, 0xa5}, strings.Repeat("x", 40))
		}
	}
	d := newDesk()
	f.Fuzz(func(t *testing.T, name string, request, edits []byte, text string) {
		m := all[0]
		if i := slices.IndexFunc(all, func(m method) bool { return m.name == name }); i >= 0 {
			m = all[i]
		} else if len(name) > 0 {
			m = all[int(name[len(name)-1])%len(all)]
		}
		in := m.input.New()
		if proto.Unmarshal(request, in.Interface()) != nil {
			return // grpc answers it
		}
		for ; len(edits) >= 2; edits = edits[2:] {
			edit(in, edits[0], edits[1], text)
		}
		request, err := proto.MarshalOptions{Deterministic: true}.Marshal(in.Interface())
		if err != nil || len(request) > 1<<20 {
			return // not UTF-8, or more than is read
		}
		judge(t, d, m, in.Interface(), request, d.call(t, m, request))
	})
}

// TestOneFieldWrong gives every field of every good request, one at a time, what it should
// not have.
func TestOneFieldWrong(t *testing.T) {
	d, good := newDesk(), goodRequests(t)
	texts := []string{
		"", "x", "a\nb", "\x00", "a\u2028b", "\u202e", strings.Repeat("x", 600), strings.Repeat("é", 3_000), "../..", "grants/", "records/" + (vault.ID{}).String(), (vault.ID{}).String(),
	}
	hows := []byte{0, 4}
	for n := range byte(16) {
		hows = append(hows, n<<3|1, n<<3|5)
	}
	refused, seen := 0, map[vault.Digest]bool{}
	for _, m := range methods(t) {
		for _, request := range good[m.name] {
			for which := range byte(edit(proto.Clone(request).ProtoReflect(), 0, 0, "")) {
				for _, how := range hows {
					for _, text := range texts {
						in := proto.Clone(request)
						edit(in.ProtoReflect(), which, how, text)
						b, err := proto.Marshal(in)
						id := vault.DigestOf(append([]byte(m.name), b...))
						if err != nil || len(b) > 1<<20 || seen[id] {
							continue
						}
						seen[id] = true
						err = d.call(t, m, b)
						judge(t, d, m, in, b, err)
						if !errors.Is(err, errReached) {
							refused++
						}
					}
				}
			}
		}
	}
	if refused < 1500 {
		t.Errorf("only %d requests were refused", refused)
	}
}

// judge fails unless the outcome of a request is one that it may have.
func judge(t *testing.T, d *desk, m method, in proto.Message, request []byte, err error) {
	t.Helper()
	if len(d.changed) > 0 {
		t.Fatalf("%s: before anything was found, it wrote %v", m.name, d.changed)
	}
	var e *vault.Error
	switch {
	case errors.Is(err, errReached):
		within(t, m.name, in.ProtoReflect())
		roundTrip(t, d, in)
		return
	case err == nil:
		t.Fatalf("%s answered", m.name)
	case !errors.As(err, &e):
		t.Fatalf("%s: %v, which callers hear of as an internal error", m.name, err)
	case e.Kind == vault.Denied && e.Reason == vault.ReasonSiteMismatch:
	case e.Kind != vault.Invalid || e.Reason == "" || len(e.Fields) == 0:
		t.Fatalf("%s: %#v", m.name, e)
	}
	for _, f := range e.Fields {
		if !hasField(m.input.Descriptor(), f.Name) || f.Description == "" {
			t.Fatalf("%s has no field %q (%v)", m.input.Descriptor().Name(), f.Name, err)
		}
	}
	s := status.Convert(toStatus(context.Background(), d.api.Log, m.full(), err))
	if size := proto.Size(s.Proto()); size > 2048 {
		t.Fatalf("%s: the answer to %d bytes is an error of %d", m.name, len(request), size)
	}
	if e.Kind == vault.Invalid {
		i := slices.IndexFunc(s.Details(), func(d any) bool { _, ok := d.(*errdetails.BadRequest); return ok })
		if s.Code() != codes.InvalidArgument || i < 0 {
			t.Fatalf("%s: status %v with %v", m.name, s, s.Details())
		}
	}
}

var index = regexp.MustCompile(`\[[0-9]+\]$`)

// hasField says whether a message has a field, or a choice, of that path.
func hasField(in protoreflect.MessageDescriptor, path string) bool {
	for {
		first, rest, more := strings.Cut(path, ".")
		bare := index.ReplaceAllString(first, "")
		if !more && in.Oneofs().ByName(protoreflect.Name(first)) != nil {
			return true
		}
		field := in.Fields().ByName(protoreflect.Name(bare))
		if field == nil || (bare != first && !field.IsList()) {
			return false
		}
		if !more {
			return true
		}
		if in = field.Message(); in == nil {
			return false
		}
		path = rest
	}
}

// within fails if something of a request that was taken is longer than anything may be, or is
// a text of more than one line.
func within(t *testing.T, what string, in protoreflect.Message) {
	t.Helper()
	one := func(field protoreflect.FieldDescriptor, v protoreflect.Value) {
		name := what + "." + string(field.Name())
		switch field.Kind() {
		case protoreflect.StringKind:
			secret := field.Options().(*descriptorpb.FieldOptions).GetDebugRedact()
			if err := vault.CheckText(name, v.String(), 2048, true); err != nil && !(secret && len(v.String()) <= vault.MaxToken) {
				t.Fatalf("taken: %v", err)
			}
		case protoreflect.BytesKind:
			if most := 8 << 10; len(v.Bytes()) > most && field.Name() != "image" {
				t.Fatalf("taken: %s of %d bytes", name, len(v.Bytes()))
			}
		case protoreflect.MessageKind:
			within(t, name, v.Message())
		}
	}
	in.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if !field.IsList() {
			one(field, v)
			return true
		}
		if v.List().Len() > 1000 {
			t.Fatalf("taken: %s.%s with %d entries", what, field.Name(), v.List().Len())
		}
		for i := range v.List().Len() {
			one(field, v.List().Get(i))
		}
		return true
	})
}

// roundTrip fails unless what a request means, written as a request, means the same.
func roundTrip(t *testing.T, d *desk, in proto.Message) {
	t.Helper()
	var was, is any
	switch in := in.(type) {
	case *pb.StoreImageRequest:
		x, err := parseImage(in)
		if err != nil {
			t.Fatal(err)
		}
		out := &pb.StoreImageRequest{
			RequestId: x.RequestID.String(), Modality: wire.Modality(x.Modality), Site: x.Site, Lane: x.Lane,
			CaptureTime: timestamppb.New(x.CapturedAt), CrossingId: x.CrossingID.String(), Image: x.Bytes, RetentionClass: x.Class,
		}
		if x.CrossingID == (vault.ID{}) {
			out.CrossingId = ""
		}
		y, err := parseImage(out)
		if was, is = x, y; err != nil {
			t.Fatal(err)
		}
	case *pb.RequestGrantRequest:
		x, err := parseRequest(in)
		if err != nil {
			t.Fatal(err)
		}
		y, err := parseRequest(&pb.RequestGrantRequest{
			Purpose: wire.Purposes + "/" + x.Purpose, Scope: wire.Wanted(x.Scope), MaxRecords: x.MaxRecords, MaxBytes: x.MaxBytes,
			Ttl: durationpb.New(x.TTL), Justification: x.Justification, RequestId: x.ID.String(),
		})
		if was, is = x, y; err != nil {
			t.Fatal(err)
		}
		if text := (vault.Terms{Scope: x.Scope, Grantee: d.caller.ID}).Text(); strings.Count(text, "\n") != 18 {
			t.Fatalf("terms of other lines than they should have:\n%s", text)
		}
	case *pb.ProposeDecisionRequest:
		x, err := parseAction(in)
		if err != nil {
			t.Fatal(err)
		}
		out := &pb.ProposeDecisionRequest{Action: in.Action}
		switch {
		case x.Purpose != nil:
			out.Action = &pb.ProposeDecisionRequest_ApplyPurpose{ApplyPurpose: wire.Purpose(*x.Purpose)}
		case x.Withdraw != "":
			out.Action = &pb.ProposeDecisionRequest_WithdrawPurpose{WithdrawPurpose: wire.Purposes + "/" + x.Withdraw}
		case x.Contractor != nil:
			out.Action = &pb.ProposeDecisionRequest_ApplyContractor{ApplyContractor: wire.Contractor(*x.Contractor)}
		case x.Restore != nil:
			out.Action = &pb.ProposeDecisionRequest_RestoreKeys{RestoreKeys: wire.Selection(*x.Restore)}
		case x.Destroy != nil:
			out.Action = &pb.ProposeDecisionRequest_DestroyKeys{DestroyKeys: wire.Selection(*x.Destroy)}
		}
		y, err := parseAction(out)
		if err != nil {
			t.Fatal(err)
		}
		if x.Contractor != nil { // no group is its own
			*x.Contractor = x.Contractor.Normal()
		}
		was, is = x, y
	default:
		return
	}
	if !reflect.DeepEqual(was, is) {
		t.Fatalf("%+v\nwritten anew is\n%+v", was, is)
	}
}

// edit changes one field of a message: which of all that it could have, and how. It says how
// many that are.
func edit(in protoreflect.Message, which, how byte, text string) int {
	var places []protoreflect.FieldDescriptor
	var owners []protoreflect.Message
	var collect func(m protoreflect.Message)
	collect = func(m protoreflect.Message) {
		for i := range m.Descriptor().Fields().Len() {
			field := m.Descriptor().Fields().Get(i)
			places, owners = append(places, field), append(owners, m)
			if field.Message() != nil && !field.IsList() && m.Has(field) {
				collect(m.Get(field).Message())
			}
		}
	}
	collect(in)
	if len(places) == 0 {
		return 0
	}
	field, m := places[int(which)%len(places)], owners[int(which)%len(places)]
	numbers := []int64{0, 1, -1, 2, 999_999_999, 1_000_000_000, 1 << 31, -1 << 63, 1<<63 - 1, 253402300799, 253402300800, -62135596801}
	value := func(old protoreflect.Value) protoreflect.Value {
		n := numbers[int(how>>3)%len(numbers)]
		switch field.Kind() {
		case protoreflect.StringKind:
			if how&4 != 0 {
				return protoreflect.ValueOfString(old.String() + text)
			}
			return protoreflect.ValueOfString(text)
		case protoreflect.BytesKind:
			if how&4 != 0 {
				return protoreflect.ValueOfBytes(append(bytes.Clone(old.Bytes()), text...))
			}
			return protoreflect.ValueOfBytes([]byte(text))
		case protoreflect.EnumKind:
			return protoreflect.ValueOfEnum(protoreflect.EnumNumber(int32(n)))
		case protoreflect.Int32Kind:
			return protoreflect.ValueOfInt32(int32(n))
		case protoreflect.BoolKind:
			return protoreflect.ValueOfBool(n != 0)
		default:
			return protoreflect.ValueOfInt64(n)
		}
	}
	switch {
	case how&3 == 0:
		m.Clear(field)
	case field.IsList():
		list := m.Mutable(field).List()
		for range 1 << min(how>>3, 11) {
			if field.Message() != nil || list.Len()*len(text) > 1<<17 {
				break
			}
			list.Append(value(list.NewElement()))
		}
	case field.Message() != nil:
		m.Set(field, m.NewField(field))
	default:
		m.Set(field, value(m.Get(field)))
	}
	return len(places)
}
