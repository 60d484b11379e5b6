package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/portcullis/portcullis/internal/tlog"
	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/capture"
	"github.com/portcullis/portcullis/vault/grants"
	"github.com/portcullis/portcullis/vault/release"
)

var fuzzNow = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// errReached is what all answer that stands behind the reading of requests: the database, and
// Vault. A call that ends in it was taken as well-formed.
var errReached = errors.New("the request was taken")

// desk is the real API over services that know nothing.
type desk struct {
	api     *api
	caller  vault.Caller
	changed []string // what was asked to change
	impl    map[string]any
}

// facts answer errReached, but for standing, which is good.
type facts struct{ Facts }

func (facts) Standing(context.Context, vault.Caller) error            { return nil }
func (facts) Purposes(context.Context) ([]vault.Purpose, error)       { return nil, errReached }
func (facts) Contractors(context.Context) ([]vault.Contractor, error) { return nil, errReached }
func (facts) Grants(context.Context, string, []vault.GrantState, vault.ID, int) ([]vault.Grant, error) {
	return nil, errReached
}
func (facts) Suspensions(context.Context, string, int) ([]vault.Suspension, error) {
	return nil, errReached
}
func (facts) Work(context.Context, int) (vault.Work, error) { return vault.Work{}, errReached }
func (facts) Events(context.Context, int64, int, []string) ([]int64, [][]byte, int64, int64, error) {
	return nil, nil, 0, 0, errReached
}

// ledger is that of all services. Whatever they ask of the facts answers errReached, but that
// callers are in good standing and that a capture system's image is new.
type ledger[T any] struct {
	tx T
}

func (l ledger[T]) Update(ctx context.Context, fn func(T) error) (int64, error) {
	return -1, l.View(ctx, fn)
}
func (l ledger[T]) View(_ context.Context, fn func(T) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if !unanswered() {
				panic(p)
			}
			err = errReached
		}
	}()
	return fn(l.tx)
}

func (l ledger[T]) Scan(ctx context.Context, fn func(T) error) error { return l.View(ctx, fn) }

// unanswered says whether the panic under way comes of calling a method that the transactions
// below do not have: the nil interface deep in them is asked.
func unanswered() bool {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(0, pcs)])
	for {
		frame, more := frames.Next()
		if frame.Function == "runtime.sigpanic" {
			frame, _ = frames.Next()
			return nilMethod.MatchString(frame.Function)
		}
		if !more {
			return false
		}
	}
}

var nilMethod = regexp.MustCompile(`internal/server\.\(?\*?(capture|grants|release|breach)(Tx|Rest)\)?\.`)

type common struct{ d *desk }

func (common) Now() time.Time              { return fuzzNow }
func (common) Standing(vault.Caller) error { return nil }
func (c common) Append(e vault.Event) error {
	c.d.changed = append(c.d.changed, "event "+string(e.Type))
	return errReached
}

// The rest of each transaction lies deeper, so that common's methods come first.
type (
	captureRest struct{ capture.Tx }
	grantsRest  struct{ grants.Tx }
	releaseRest struct{ release.Tx }
	breachRest  struct{ breach.Tx }

	captureTx struct {
		captureRest
		common
	}
	grantsTx struct {
		grantsRest
		common
	}
	releaseTx struct {
		releaseRest
		common
	}
	breachTx struct {
		breachRest
		common
	}
)

func (captureTx) RecordByRequest(string, vault.ID) (vault.Record, error) {
	return vault.Record{}, vault.E(vault.NotFound, vault.ReasonInternal, "new")
}

var keyNameForm = regexp.MustCompile(`^north\.(face|plate)\.2026[0-9]{4}\.[0-9a-f-]{36}$`)

// wrap is where the storing of an image ends.
type wrap struct{}

func (wrap) Wrap(_ context.Context, keyName string, dek []byte) (string, error) {
	if !keyNameForm.MatchString(keyName) || len(dek) != 32 {
		return "", fmt.Errorf("a key named %q", keyName)
	}
	return "", errReached
}

// blobs takes ciphertext, for a moment: the storing ends before anything names it.
type blobs struct{}

func (blobs) Put(context.Context, vault.ID, []byte) error { return nil }
func (blobs) Delete(context.Context, vault.ID) error      { return nil }

// tree is where questions about the log's tree end.
type tree struct{ tlog.Ledger }

func (tree) View(context.Context, func(tlog.Tx) error) error { return errReached }

func newDesk() *desk {
	d := &desk{}
	all := common{d}
	log := slog.New(slog.DiscardHandler)
	authority := func() vault.Authority { return vault.Authority{TrustDomain: "example.org"} }
	d.api = &api{Config: Config{
		Capture: &capture.Service{Ledger: ledger[capture.Tx]{captureTx{common: all}}, Keys: wrap{}, Blobs: blobs{}, Window: capture.DefaultWindow},
		Grants:  &grants.Service{Ledger: ledger[grants.Tx]{grantsTx{common: all}}, Authority: authority, Log: log},
		Release: &release.Service{Ledger: ledger[release.Tx]{releaseTx{common: all}}, Authority: authority},
		Breach:  &breach.Service{Ledger: ledger[breach.Tx]{breachTx{common: all}}, Authority: authority, Log: log},
		Facts:   facts{}, Tree: tlog.Reader{Ledger: tree{}}, Log: log, Clock: func() time.Time { return fuzzNow }, MaxImage: 1 << 20,
		Caller: func(context.Context) (vault.Caller, error) { return d.caller, nil },
	}}
	d.impl = map[string]any{
		"CaptureService": &captureAPI{api: d.api}, "GrantService": &grantAPI{api: d.api}, "ReleaseService": &releaseAPI{api: d.api},
		"AdminService": &adminAPI{api: d.api}, "AuditService": &auditAPI{api: d.api}, "IdentityService": &identityAPI{api: d.api},
	}
	return d
}

// method is a method of the API.
type method struct {
	service, name string
	input         protoreflect.MessageType
}

func (m method) full() string { return "/portcullis.v1." + m.service + "/" + m.name }

// methods gives those of all services that the .proto files declare, but for those whose
// requests have no fields: nothing of them can be wrong.
func methods(t testing.TB) (out []method) {
	t.Helper()
	protoregistry.GlobalFiles.RangeFilesByPackage("portcullis.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				m := service.Methods().Get(j)
				if m.Input().Fields().Len() == 0 {
					continue
				}
				input, err := protoregistry.GlobalTypes.FindMessageByName(m.Input().FullName())
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, method{string(service.Name()), string(m.Name()), input})
			}
		}
		return true
	})
	slices.SortFunc(out, func(a, b method) int { return strings.Compare(a.full(), b.full()) })
	return out
}

// incomingStream gives a call its request.
type incomingStream struct {
	grpc.ServerStream
	wire []byte
}

func (incomingStream) Context() context.Context { return context.Background() }
func (s incomingStream) RecvMsg(m any) error    { return proto.Unmarshal(s.wire, m.(proto.Message)) }

// call sends a request through the method's handler, as grpc would.
func (d *desk) call(t testing.TB, m method, request []byte) (err error) {
	t.Helper()
	d.changed = nil
	d.caller = map[vault.Role]vault.Caller{
		vault.RoleCapture:    {ID: "spiffe://example.org/capture/north/3", Role: vault.RoleCapture, Site: "north", Lane: "3"},
		vault.RoleContractor: {ID: "spiffe://example.org/contractor/acme/x", Role: vault.RoleContractor, Org: "acme", Workload: "x"},
		vault.RoleAdmin:      {ID: "spiffe://example.org/admin/ann", Role: vault.RoleAdmin, Name: "ann"},
		vault.RoleAuditor:    {ID: "spiffe://example.org/auditor/bob", Role: vault.RoleAuditor, Name: "bob"},
	}[powers[m.full()][0]]
	for _, service := range []grpc.ServiceDesc{
		pb.CaptureService_ServiceDesc, pb.GrantService_ServiceDesc, pb.ReleaseService_ServiceDesc,
		pb.AdminService_ServiceDesc, pb.AuditService_ServiceDesc, pb.IdentityService_ServiceDesc,
	} {
		if service.ServiceName != "portcullis.v1."+m.service {
			continue
		}
		for _, one := range service.Methods {
			if one.MethodName == m.name {
				_, err := one.Handler(d.impl[m.service], context.Background(), incomingStream{wire: request}.RecvMsg, nil)
				return err
			}
		}
		for _, one := range service.Streams {
			if one.StreamName == m.name {
				return one.Handler(d.impl[m.service], incomingStream{wire: request})
			}
		}
	}
	t.Fatalf("nothing answers %s", m.full())
	return nil
}
