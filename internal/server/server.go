// Package server is the gRPC API: it says who may call what, reads requests, and is the
// only place where an error becomes a status.
package server

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/portcullis/portcullis/internal/tlog"
	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/breach"
	"github.com/portcullis/portcullis/vault/capture"
	"github.com/portcullis/portcullis/vault/grants"
	"github.com/portcullis/portcullis/vault/release"
)

// Facts is what the API reads besides the operations.
type Facts interface {
	// Standing refuses a suspended caller, and a contractor that is unknown or suspended.
	Standing(ctx context.Context, c vault.Caller) error
	// Record adds an event that tells of no change of state. It is durable on return.
	Record(ctx context.Context, e vault.Event) error
	// Purposes gives the newest version of each purpose.
	Purposes(ctx context.Context) ([]vault.Purpose, error)
	Contractors(ctx context.Context) ([]vault.Contractor, error)
	// Suspensions gives suspended callers in the order of their IDs, from the first after the
	// one given.
	Suspensions(ctx context.Context, after string, most int) ([]vault.Suspension, error)
	// Grants gives grants, newest first, before the one given; of one contractor if it is
	// not empty, in one of the states if any are given.
	Grants(ctx context.Context, contractor string, states []vault.GrantState, before vault.ID, most int) ([]vault.Grant, error)
	// Events gives the log's entries from an index on, of the types given if any are, the
	// index of each, where the next page begins, and the size of the log.
	Events(ctx context.Context, from int64, most int, types []string) (indexes []int64, bodies [][]byte, next, size int64, err error)
	// Work gives what waits for admins or for HashiCorp Vault, naming at most so many decisions.
	Work(ctx context.Context, most int) (vault.Work, error)
}

// Config is what a server is made of. The services that a process does not offer are nil;
// all else is wanted.
type Config struct {
	Capture *capture.Service
	Grants  *grants.Service // with Tokens: what contractors call; with Fences: what admins call
	Release *release.Service
	Breach  *breach.Service
	Facts   Facts
	Tree    tlog.Reader // of the log

	Credentials credentials.TransportCredentials
	// Caller tells who is calling, from the context of a call; it refuses a certificate
	// that has expired since its connection began.
	Caller func(ctx context.Context) (vault.Caller, error)
	Log    *slog.Logger
	Clock  func() time.Time
	// Version of the service, for WhoAmI.
	Version string
	// Parts says how what the service stands on was when it last looked. It must not block,
	// and may be nil.
	Parts func() []Part
	// Checked says whether Vault and the database were looked at lately, so that images may be
	// released and tokens minted. It is asked for each image, so it must be cheap. nil: always.
	Checked func(ctx context.Context) error
	// Stock reconciles; nil without Breach.
	Stock *breach.Reconciler
	// MaxImage is the largest image taken, in bytes.
	MaxImage int64
	// Measures may be empty.
	Measures Measures
	// ReceiveTime is how long a request may take to arrive; 0 means two minutes.
	ReceiveTime time.Duration
}

// New makes the gRPC server with all services. Serve and stop it as any.
func New(cfg Config) (*grpc.Server, *Health) {
	if cfg.ReceiveTime <= 0 {
		cfg.ReceiveTime = receiveTime
	}
	largest := largestMessage(cfg.MaxImage)
	a := &api{
		Config:   cfg,
		requests: newBudget(requestBudget, largest, busyAfter),
		fetches:  newBudget(fetchBudget, 2*cfg.MaxImage, busyAfter),
	}
	s := grpc.NewServer(
		grpc.Creds(cfg.Credentials),
		grpc.InTapHandle(a.tap),
		cfg.Measures.option(),
		grpc.ChainUnaryInterceptor(unadmitted), // there are none: see early
		grpc.ChainStreamInterceptor(a.stream),
		grpc.MaxRecvMsgSize(int(min(largest, math.MaxInt32))),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.InitialWindowSize(windowSize),
		grpc.InitialConnWindowSize(connWindow),
		grpc.WriteBufferSize(writeBuffer),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idle, Time: keepaliveTime, Timeout: keepaliveWait}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMin, PermitWithoutStream: true}),
	)
	if cfg.Capture != nil {
		pb.RegisterCaptureServiceServer(early{s}, &captureAPI{api: a})
	}
	if cfg.Release != nil {
		pb.RegisterReleaseServiceServer(early{s}, &releaseAPI{api: a})
	}
	if cfg.Grants != nil {
		pb.RegisterGrantServiceServer(early{s}, &grantAPI{api: a})
	}
	if cfg.Breach != nil {
		pb.RegisterAdminServiceServer(early{s}, &adminAPI{api: a})
	}
	pb.RegisterAuditServiceServer(early{s}, &auditAPI{api: a})
	pb.RegisterIdentityServiceServer(early{s}, &identityAPI{api: a})
	h := newHealth()
	healthpb.RegisterHealthServer(early{s}, h)
	return s, h
}

// powers says which kinds of callers may call a method. A method that is not here is
// nobody's: see the test that walks all services.
var powers = map[string][]vault.Role{
	pb.CaptureService_StoreImage_FullMethodName: {vault.RoleCapture},

	pb.GrantService_RequestGrant_FullMethodName:  {vault.RoleContractor},
	pb.GrantService_ActivateGrant_FullMethodName: {vault.RoleContractor},
	pb.GrantService_RetireGrant_FullMethodName:   {vault.RoleContractor},
	pb.GrantService_GetGrant_FullMethodName:      {vault.RoleContractor, vault.RoleAdmin, vault.RoleAuditor},
	pb.GrantService_ListGrants_FullMethodName:    {vault.RoleContractor, vault.RoleAdmin, vault.RoleAuditor},
	pb.GrantService_ApproveGrant_FullMethodName:  {vault.RoleAdmin},
	pb.GrantService_DenyGrant_FullMethodName:     {vault.RoleAdmin},
	pb.GrantService_RevokeGrant_FullMethodName:   {vault.RoleAdmin},

	pb.ReleaseService_ListRecords_FullMethodName: {vault.RoleContractor},
	pb.ReleaseService_FetchImage_FullMethodName:  {vault.RoleContractor},
	pb.ReleaseService_FetchImages_FullMethodName: {vault.RoleContractor},

	pb.AdminService_ProposeDecision_FullMethodName:      {vault.RoleAdmin},
	pb.AdminService_SignDecision_FullMethodName:         {vault.RoleAdmin},
	pb.AdminService_ListPurposes_FullMethodName:         {vault.RoleAdmin, vault.RoleAuditor},
	pb.AdminService_ListContractors_FullMethodName:      {vault.RoleAdmin, vault.RoleAuditor},
	pb.AdminService_SuspendContractor_FullMethodName:    {vault.RoleAdmin},
	pb.AdminService_SuspendCaller_FullMethodName:        {vault.RoleAdmin},
	pb.AdminService_ListSuspendedCallers_FullMethodName: {vault.RoleAdmin, vault.RoleAuditor},
	pb.AdminService_RevokeKeys_FullMethodName:           {vault.RoleAdmin},
	pb.AdminService_ListRecordKeys_FullMethodName:       {vault.RoleAdmin},
	pb.AdminService_Reconcile_FullMethodName:            {vault.RoleAdmin},
	pb.AdminService_CreateRecordList_FullMethodName:     {vault.RoleAdmin},
	pb.AdminService_GetRecordList_FullMethodName:        {vault.RoleAdmin, vault.RoleAuditor},

	pb.AdminService_GetDestructionCertificate_FullMethodName: {vault.RoleAdmin, vault.RoleAuditor},

	pb.AuditService_ListEvents_FullMethodName:          {vault.RoleAuditor},
	pb.AuditService_GetInclusionProof_FullMethodName:   {vault.RoleAuditor},
	pb.AuditService_GetTile_FullMethodName:             {vault.RoleAuditor},
	pb.AuditService_GetCheckpoint_FullMethodName:       {vault.RoleCapture, vault.RoleContractor, vault.RoleAdmin, vault.RoleAuditor},
	pb.AuditService_GetConsistencyProof_FullMethodName: {vault.RoleCapture, vault.RoleContractor, vault.RoleAdmin, vault.RoleAuditor},

	pb.IdentityService_WhoAmI_FullMethodName:    {vault.RoleCapture, vault.RoleContractor, vault.RoleAdmin, vault.RoleAuditor},
	pb.IdentityService_GetStatus_FullMethodName: {vault.RoleCapture, vault.RoleContractor, vault.RoleAdmin, vault.RoleAuditor},

	healthpb.Health_Check_FullMethodName: {vault.RoleCapture, vault.RoleContractor, vault.RoleAdmin, vault.RoleAuditor},
	healthpb.Health_List_FullMethodName:  {vault.RoleCapture, vault.RoleContractor, vault.RoleAdmin, vault.RoleAuditor},
	healthpb.Health_Watch_FullMethodName: {vault.RoleCapture, vault.RoleContractor, vault.RoleAdmin, vault.RoleAuditor},
}

// api is what all services share.
type api struct {
	Config
	refusals refusals // that were written to the audit log lately
	alerts   refusals // and to the service's own

	calls             count
	requests, fetches *budget
}

// admit says who is calling, if the caller may call the method now.
func (a *api) admit(ctx context.Context, method string) (vault.Caller, error) {
	c, err := a.Config.Caller(ctx)
	if err != nil {
		return c, err
	}
	if !a.offers(method) {
		return c, vault.E(vault.NotOffered, vault.ReasonNotOffered, "this process does not offer %s; ask the one with the role", method)
	}
	if !slices.Contains(powers[method], c.Role) {
		err = vault.E(vault.Denied, vault.ReasonRoleNotAllowed, "%s may not call %s: it is for %s", c.ID, method, roles(powers[method]))
	} else if !standingless[method] {
		err = a.Facts.Standing(ctx, c)
	}
	if err != nil {
		a.refused(ctx, c, method, err)
	} else if opening[method] {
		err = a.checked(ctx)
	}
	return c, err
}

// checked says whether images may be released and tokens minted at the moment.
func (a *api) checked(ctx context.Context) error {
	if a.Checked == nil {
		return nil
	}
	return a.Checked(ctx)
}

// opening are the methods that release, or give what releases.
var opening = map[string]bool{
	pb.GrantService_ActivateGrant_FullMethodName: true,
	pb.ReleaseService_ListRecords_FullMethodName: true,
	pb.ReleaseService_FetchImage_FullMethodName:  true,
	pb.ReleaseService_FetchImages_FullMethodName: true,
}

// offers says whether this process has the credential that a method of grants needs: admins'
// methods write policies, contractors' mint and end tokens.
func (a *api) offers(method string) bool {
	switch method {
	case pb.GrantService_ApproveGrant_FullMethodName, pb.GrantService_DenyGrant_FullMethodName, pb.GrantService_RevokeGrant_FullMethodName:
		return a.Grants.Fences != nil
	case pb.GrantService_RequestGrant_FullMethodName, pb.GrantService_ActivateGrant_FullMethodName, pb.GrantService_RetireGrant_FullMethodName:
		return a.Grants.Tokens != nil
	}
	return true
}

func roles(in []vault.Role) string {
	if len(in) == 0 {
		return "nobody"
	}
	var out []string
	for _, r := range in {
		out = append(out, string(r))
	}
	return strings.Join(out, ", ")
}

func (a *api) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	in := &incoming{ServerStream: ss, api: a, method: info.FullMethod}
	defer func() {
		a.alert(ss.Context(), info.FullMethod, in.grant, err)
		err = a.finish(ss.Context(), info.FullMethod, err, recover())
	}()
	if in.caller, err = a.admit(ss.Context(), info.FullMethod); err != nil {
		return err
	}
	defer in.done()
	return next(srv, in)
}

// finish turns what came of a call into its status. A panic ends the call, not the daemon;
// its value may hold a secret, so the log gets its type and the stack alone.
func (a *api) finish(ctx context.Context, method string, err error, panicked any) error {
	if panicked != nil {
		a.Log.ErrorContext(ctx, "panic in a call", "method", method, "type", fmt.Sprintf("%T", panicked), "stack", string(debug.Stack()))
		err = vault.E(vault.Internal, vault.ReasonInternal, "internal error")
	}
	a.ended(ctx, err)
	return toStatus(ctx, a.Log, method, err)
}

// caller tells who is calling. The interceptor has admitted the call.
func (a *api) caller(ctx context.Context) (vault.Caller, error) { return a.Config.Caller(ctx) }

// pageSize reads a page size: most when 0 and def is 0.
func pageSize(n, def, most int32) (int, error) {
	switch {
	case n < 0 || n > most:
		return 0, vault.InvalidField("page_size", "must be from 0 to %d", most)
	case n == 0:
		return int(def), nil
	}
	return int(n), nil
}
