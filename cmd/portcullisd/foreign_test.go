package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/portcullis/portcullis/internal/imaging"
	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
	"github.com/portcullis/portcullis/vault/wire"
)

// largePicture is more bytes than a gRPC client takes in one message when nothing is said
// (4 MiB), so that a foreign client's limits are met.
const largePicture = 5 << 20

// foreign gives a command that a program which we did not write runs under: it reads nothing
// unless given, and is killed with the test or after the time.
func foreign(t *testing.T, longest time.Duration, name string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), longest)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// grpcurl is the program, from its own module, and how it is to be called.
type grpcurl struct {
	*service
	program string
}

func newGrpcurl(s *service) grpcurl {
	s.t.Helper()
	// The Go command keeps the program it builds here, and with -n prints where.
	cmd := foreign(s.t, 10*time.Minute, "go", "tool", "-C", filepath.Join("..", "..", "tools", "grpcurl"), "-n", "grpcurl")
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	path, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("build grpcurl: %v\n%s", err, stderr.String())
	}
	return grpcurl{s, strings.TrimSpace(string(path))}
}

// grpcurlStatus is what grpcurl prints of a call that failed, with -format-error. It gives
// the bytes of details whose type our .proto files do not name.
type grpcurlStatus struct {
	Code    codes.Code
	Message string
	Details []struct {
		Type  string `json:"@type"`
		Value []byte `json:"@value"`
	}
}

// call makes a call as the identity at the path. It gives the answers, or how it failed.
func (g grpcurl) call(path, method string, in proto.Message) ([]json.RawMessage, *grpcurlStatus) {
	t := g.t
	t.Helper()
	body, err := protojson.Marshal(in)
	noError(t, err)
	cfg := g.config(path)
	args := []string{
		"-cacert", cfg.Bundle, "-cert", cfg.Certificate, "-key", cfg.Key,
		"-import-path", filepath.Join("..", "..", "proto"),
		"-max-msg-sz", "67108864", "-connect-timeout", "10", "-max-time", "30", "-format-error", "-d", "@",
	}
	for _, name := range []string{"capture", "grant", "release"} {
		args = append(args, "-proto", "portcullis/v1/"+name+".proto")
	}
	cmd := foreign(t, time.Minute, g.program, append(args, cfg.Address, "portcullis.v1."+method)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(body), &stdout, &stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("grpcurl %s: %v", method, err)
	}
	if err != nil {
		// It exits with 64 and the status code.
		var s grpcurlStatus
		if err := json.Unmarshal(stderr.Bytes(), &s); err != nil || exit.ExitCode() != 64+int(s.Code) {
			t.Fatalf("grpcurl %s: %v: %s", method, exit, stderr.String())
		}
		return nil, &s
	}
	var answers []json.RawMessage
	for d := json.NewDecoder(&stdout); ; {
		var one json.RawMessage
		if err := d.Decode(&one); errors.Is(err, io.EOF) {
			return answers, nil
		} else if err != nil {
			t.Fatalf("grpcurl %s: %v", method, err)
		}
		answers = append(answers, one)
	}
}

// must makes a call that has one answer.
func (g grpcurl) must(path, method string, in, out proto.Message) {
	g.t.Helper()
	answers, failed := g.call(path, method, in)
	if failed != nil || len(answers) != 1 {
		g.t.Fatalf("grpcurl %s: %d answers, %+v", method, len(answers), failed)
	}
	noError(g.t, protojson.Unmarshal(answers[0], out))
}

// TestGrpcurl has grpcurl, with the .proto files and the certificates alone, store images,
// request and activate a grant, open them, and meet the grant's end.
func TestGrpcurl(t *testing.T) {
	s := begin(t)
	p := purpose()
	s.admit(p, devOrg)
	g := newGrpcurl(s)

	var want []string
	for seed, size := range []int{20_000, largePicture} {
		raw := picture(uint64(seed), size)
		var stored pb.StoreImageResponse
		g.must(lane, "CaptureService/StoreImage", &pb.StoreImageRequest{
			RequestId: vault.NewID().String(), Modality: pb.Modality_MODALITY_PLATE, CaptureTime: timestamppb.Now(), Image: raw,
		}, &stored)
		want = append(want, cleaned(t, raw))
	}

	var requested pb.RequestGrantResponse
	g.must(matcher, "GrantService/RequestGrant", s.requestFor(p, 10), &requested)
	name := requested.Grant.Name
	_, failed := g.call(matcher, "GrantService/ActivateGrant", &pb.ActivateGrantRequest{Name: name})
	wantReason(t, failed, vault.ReasonGrantPending)
	s.approve(name)
	var active pb.ActivateGrantResponse
	g.must(matcher, "GrantService/ActivateGrant", &pb.ActivateGrantRequest{Name: name}, &active)

	var list pb.ListRecordsResponse
	g.must(matcher, "ReleaseService/ListRecords", &pb.ListRecordsRequest{Grant: name, GrantToken: active.GrantToken}, &list)
	fetch := &pb.FetchImagesRequest{Grant: name, GrantToken: active.GrantToken}
	for _, r := range list.Records {
		fetch.Handles = append(fetch.Handles, r.Handle)
	}
	answers, failed := g.call(matcher, "ReleaseService/FetchImages", fetch)
	if failed != nil {
		t.Fatalf("fetch: %+v", failed)
	}
	var got []string
	for i, a := range answers {
		var opened pb.FetchImagesResponse
		noError(t, protojson.Unmarshal(a, &opened))
		if i < len(fetch.Handles) && opened.Image.Handle != fetch.Handles[i] {
			t.Errorf("image %d is another handle's", i)
		}
		got = append(got, digest(opened.Image.Data))
	}
	same(t, got, want)

	g.must(alice, "GrantService/RevokeGrant", &pb.RevokeGrantRequest{Name: name, Note: "enough"}, &pb.RevokeGrantResponse{})
	_, failed = g.call(matcher, "ReleaseService/FetchImages", fetch)
	wantReason(t, failed, vault.ReasonGrantRevoked)
}

// wantReason says that a call failed in the state of things, for the reason.
func wantReason(t *testing.T, s *grpcurlStatus, want vault.Reason) {
	t.Helper()
	if s == nil {
		t.Fatalf("the call was answered, want %s", want)
	}
	if s.Code != codes.FailedPrecondition || len(s.Details) == 0 || s.Details[0].Type != "type.googleapis.com/google.rpc.ErrorInfo" {
		t.Fatalf("failed with %+v, want %s", s, want)
	}
	var info errdetails.ErrorInfo
	noError(t, proto.Unmarshal(s.Details[0].Value, &info))
	if info.Reason != string(want) || info.Domain != "portcullis" {
		t.Fatalf("failed with %v (%s), want %s", &info, s.Message, want)
	}
}

// node is Node with the client of testdata/node and its packages, in a folder of the test's.
type node struct {
	*service
	dir    string
	images []string // files to store
}

func newNode(s *service) node {
	t := s.t
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("this test needs Node.js: %v", err)
		}
	}
	dir := t.TempDir()
	noError(t, os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "node"))))
	// Exactly what the lock file names, by its digests; no code of a package runs here.
	npm := foreign(t, 5*time.Minute, "npm", "ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund", "--no-update-notifier")
	npm.Dir = dir
	if out, err := npm.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	return node{service: s, dir: dir}
}

// run starts a command of the client's as the identity at the path. It gives its lines of
// JSON, and waits for its end: with nothing, or what it wrote to standard error.
func (n node) run(path, command string, change func(*client.Config)) (next func(any), end func() string) {
	t := n.t
	t.Helper()
	cfg := n.config(path)
	if change != nil {
		change(&cfg)
	}
	protos, err := filepath.Abs(filepath.Join("..", "..", "proto"))
	noError(t, err)
	text, err := json.Marshal(map[string]any{
		"address": cfg.Address, "server_id": cfg.ServerID, "certificate": cfg.Certificate, "key": cfg.Key, "bundle": cfg.Bundle,
		"protos": protos, "images": n.images, "purpose": wire.Purposes + "/" + purpose().Name, "site": devSite,
	})
	noError(t, err)
	settings := filepath.Join(t.TempDir(), "settings.json")
	noError(t, os.WriteFile(settings, text, 0o600))

	cmd := foreign(t, 3*time.Minute, "node", "client.mjs", command, settings)
	cmd.Dir = n.dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	noError(t, err)
	noError(t, cmd.Start())
	ended := false
	end = func() string {
		if ended {
			return ""
		}
		ended = true
		if err := cmd.Wait(); err != nil {
			return err.Error() + ": " + stderr.String()
		}
		return ""
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has ended, unless the test failed
		end()
	})
	lines := bufio.NewScanner(stdout)
	next = func(out any) {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("node %s has nothing more to say: %v: %s", command, lines.Err(), end())
		}
		noError(t, json.Unmarshal(lines.Bytes(), out))
	}
	return next, end
}

// TestNode has @grpc/grpc-js do the same: a camera's program stores, a contractor's program
// requests a grant, waits for it, opens the images, and goes on until the grant is revoked.
func TestNode(t *testing.T) {
	s := begin(t)
	s.admit(purpose(), devOrg)
	n := newNode(s)

	var want []string
	for seed, size := range []int{20_000, largePicture} {
		raw := picture(uint64(seed), size)
		path := filepath.Join(n.dir, digest(raw)+".jpg")
		noError(t, os.WriteFile(path, raw, 0o600))
		n.images = append(n.images, path)
		want = append(want, cleaned(t, raw))
	}
	_, end := n.run(lane, "store", func(c *client.Config) { c.ServerID += "-of-somebody-else" })
	if out := end(); !strings.Contains(out, "the service proves to be") {
		t.Fatalf("the client spoke with another service than it meant: %q", out)
	}

	next, end := n.run(lane, "store", nil)
	for range n.images {
		var stored struct{ Record string }
		if next(&stored); !strings.HasPrefix(stored.Record, wire.Records+"/") {
			t.Fatalf("stored as %q", stored.Record)
		}
	}
	if out := end(); out != "" {
		t.Fatal(out)
	}

	next, end = n.run(matcher, "open", nil)
	var requested struct{ Grant string }
	next(&requested)
	s.approve(requested.Grant)
	var opened struct {
		Handles []string
		Images  []struct {
			Handle, Type, SHA256 string
			Size                 int
		}
	}
	next(&opened)
	var got []string
	for i, img := range opened.Images {
		if i < len(opened.Handles) && img.Handle != opened.Handles[i] || img.Type != "image/jpeg" {
			t.Errorf("image %d is %+v", i, img)
		}
		got = append(got, img.SHA256)
	}
	same(t, got, want)

	_, err := s.as(alice).Grants.RevokeGrant(t.Context(), &pb.RevokeGrantRequest{Name: requested.Grant, Note: "enough"})
	noError(t, err)
	var met struct {
		Refused struct{ Code, Reason, Domain, Details string }
	}
	next(&met)
	if r := met.Refused; r.Code != "FAILED_PRECONDITION" || r.Reason != string(vault.ReasonGrantRevoked) || r.Domain != "portcullis" {
		t.Fatalf("after the revocation: %+v", r)
	}
	if out := end(); out != "" {
		t.Fatal(out)
	}
}

// approve has two admins approve a grant.
func (s *service) approve(grant string) {
	s.t.Helper()
	for _, admin := range []string{alice, bob} {
		_, err := s.as(admin).Approve(s.t.Context(), grant, yes)
		noError(s.t, err)
	}
}

// cleaned gives the digest of an image as Portcullis stores it.
func cleaned(t *testing.T, raw []byte) string {
	t.Helper()
	img, err := imaging.Clean(raw, imaging.Limits{})
	noError(t, err)
	return digest(img.Bytes)
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// same compares two sets of images: the order of records tells nothing.
func same(t *testing.T, got, want []string) {
	t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("opened %v, stored %v", got, want)
	}
}
