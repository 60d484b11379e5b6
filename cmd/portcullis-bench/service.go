package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/portcullis/portcullis/internal/hcvault"
	"github.com/portcullis/portcullis/internal/store"
	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
	"github.com/portcullis/portcullis/vault/wire"
)

// What "portcullisd dev" sets up (its profiles).
const (
	site       = "north-gate"
	lane       = "lane-1"
	contractor = "acme-vision"
)

const (
	purpose = "throughput-check"
	// grantLife outlasts the longest run that the flags allow to be of use.
	grantLife = 4 * time.Hour
	// connections is how many the clients of a measurement share, of lane and contractor each.
	connections = 4
	// mostStored bounds the disk that a run takes, in bytes of images.
	mostStored = 16 << 30
)

// settings are the parts of the files of "portcullisd dev" that say where things are.
type settings struct {
	Server   string `yaml:"server"`
	ServerID string `yaml:"server_id"`
	LogKey   string `yaml:"log_key"`
	Vault    struct {
		Address     string `yaml:"address"`
		CA          string `yaml:"ca"`
		Mount       string `yaml:"mount"`
		Credentials string `yaml:"credentials"`
	} `yaml:"vault"`
	Store struct {
		Path string `yaml:"path"`
	} `yaml:"store"`
}

// service is the running daemon, and its Vault, as the loads see them.
type service struct {
	settings
	lanes       []*client.Client
	contractors []*client.Client
	alice, bob  *client.Client
	auditor     *client.Client // it checks the log, as auditors do
	hashi       *hcvault.Server
	capture     *hcvault.Capture
	release     *hcvault.Release

	stored atomic.Int64 // bytes of images
	grant  string
	token  vault.Token
}

// connect makes clients for all profiles, and for Vault.
func connect(dir string) (_ *service, err error) {
	s := &service{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	for _, name := range []string{"portcullis.yaml", "portcullisd.yaml"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		if err := yaml.Unmarshal(text, &s.settings); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	dial := func(profile, logKey string) *client.Client {
		cert := filepath.Join(dir, "certs", profile)
		c, dialErr := client.Dial(client.Config{
			LogKey: logKey, Address: s.Server, ServerID: s.ServerID, Bundle: filepath.Join(dir, "certs", "ca.pem"),
			Certificate: cert + ".pem", Key: cert + ".key",
		})
		err = errors.Join(err, dialErr)
		return c
	}
	s.alice, s.bob, s.auditor = dial("alice", ""), dial("bob", ""), dial("auditor", s.LogKey)
	for range connections {
		s.lanes, s.contractors = append(s.lanes, dial("lane", "")), append(s.contractors, dial("contractor", ""))
	}
	if err != nil {
		return nil, err
	}
	// As the daemon connects.
	s.hashi, err = hcvault.Dial(hcvault.Config{Addr: s.Vault.Address, CAFile: s.Vault.CA, Mount: s.Vault.Mount})
	if err != nil {
		return nil, err
	}
	role, err := hcvault.LoadAppRole(s.Vault.Credentials, "capture")
	if err != nil {
		return nil, err
	}
	s.capture, s.release = s.hashi.Capture(role), s.hashi.Release()
	return s, nil
}

func (s *service) close() {
	for _, c := range append(append([]*client.Client{s.alice, s.bob, s.auditor}, s.lanes...), s.contractors...) {
		if c != nil {
			c.Close() // it ends with the process in any case
		}
	}
	if s.hashi != nil {
		s.hashi.Close()
	}
}

// day is when the images of the n-th size were captured: each size has a day of its own, by
// which a grantee can tell them apart.
func day(began time.Time, n int) time.Time {
	y, m, d := began.UTC().Date()
	return time.Date(y, m, d-1-n, 12, 0, 0, 0, time.UTC)
}

// wrapRaw makes and uses keys at Vault, with the credential and the call of the service.
func (s *service) wrapRaw(at time.Time) load {
	return repeat(func(ctx context.Context, _ int) error {
		dek := make([]byte, 32)
		rand.Read(dek) // never fails
		r := vault.Record{ID: vault.NewID(), Site: site, Modality: vault.Plate, CapturedAt: at}
		_, err := s.capture.Wrap(ctx, r.KeyName(), dek)
		return err
	})
}

// storeImages stores images, each under a request ID of its own. stored counts them.
func (s *service) storeImages(images [][]byte, at time.Time, stored *atomic.Int64) load {
	return repeat(func(ctx context.Context, i int) error {
		n := stored.Add(1)
		image := images[int(n)%len(images)]
		if s.stored.Add(int64(len(image))) > mostStored {
			return fmt.Errorf("more than %d GiB were stored: choose fewer -rounds or -seconds", mostStored>>30)
		}
		_, err := s.lanes[i%connections].Store(ctx, client.Image{
			RequestID: vault.NewID(), Modality: vault.Plate, CapturedAt: at, Bytes: image,
		})
		return err
	})
}

// permit lets two admins admit the contractor, sanction the purpose and approve a grant for
// the days from first to last, and activates it.
func (s *service) permit(ctx context.Context, first, last time.Time, quota int64) error {
	p := vault.Purpose{
		Name: purpose, Title: "measure how fast images can be opened", LegalBasis: "a benchmark", Linkage: true, Modalities: []vault.Modality{vault.Plate},
		Sites: []string{site}, Contractors: []string{contractor}, MaxTTL: grantLife, MaxRecords: quota, Approvals: 2,
		MaxBytes: vault.MaxBytes, MaxRate: vault.MaxRate, MaxRecordAge: vault.MaxRecordAge, Precision: vault.PrecisionExact, Live: true,
		Retention: []string{vault.DefaultClass},
	}
	for _, admin := range []*client.Client{s.alice, s.bob} {
		if _, err := admin.ApplyContractor(ctx, vault.Contractor{Name: contractor, Title: "a contractor"}); err != nil {
			return fmt.Errorf("admit the contractor: %w", err)
		}
		if _, err := admin.ApplyPurpose(ctx, p); err != nil {
			return fmt.Errorf("sanction the purpose: %w", err)
		}
	}
	got, err := s.contractors[0].Grants.RequestGrant(ctx, &pb.RequestGrantRequest{
		Purpose: wire.Purposes + "/" + purpose, Scope: wire.Scope(scope(first, last)), MaxRecords: quota,
		Ttl: durationpb.New(grantLife), Justification: "a benchmark", RequestId: vault.NewID().String(),
	})
	if err != nil {
		return fmt.Errorf("request the grant: %w", err)
	}
	s.grant = got.Grant.Name
	for _, admin := range []*client.Client{s.alice, s.bob} {
		if _, err := admin.Approve(ctx, s.grant, func(*pb.GetGrantResponse, string) error { return nil }); err != nil {
			return fmt.Errorf("approve the grant: %w", err)
		}
	}
	active, err := s.contractors[0].Grants.ActivateGrant(ctx, &pb.ActivateGrantRequest{Name: s.grant})
	if err != nil {
		return fmt.Errorf("activate the grant: %w", err)
	}
	s.token = vault.TokenOf(active.GrantToken)
	return nil
}

func scope(first, last time.Time) vault.Scope {
	return vault.Scope{
		Sites: []string{site}, Modalities: []vault.Modality{vault.Plate},
		From: first.Truncate(24 * time.Hour), Until: last.Truncate(24 * time.Hour).Add(24 * time.Hour),
	}
}

// errEnough ends a listing.
var errEnough = errors.New("enough")

// handles lists so many records of each day under the grant.
func (s *service) handles(ctx context.Context, days []time.Time, each int) ([][]string, error) {
	byDay := map[string]int{}
	for i, d := range days {
		byDay[d.Format(time.DateOnly)] = i
	}
	out, missing := make([][]string, len(days)), len(days)
	err := s.contractors[0].Records(ctx, s.grant, s.token, func(r *pb.RecordView) error {
		i, ok := byDay[r.CaptureTime.AsTime().Format(time.DateOnly)]
		if !ok {
			return fmt.Errorf("the service lists a record of %s", r.CaptureTime.AsTime().Format(time.DateOnly))
		}
		if len(out[i]) < each {
			if out[i] = append(out[i], r.Handle); len(out[i]) == each {
				missing--
			}
		}
		if missing == 0 {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return out, nil
	}
	return nil, errors.Join(errors.New("the service lists fewer records than were stored"), err)
}

// wrappedKeys reads from the database what the service gives to Vault for so many records
// of a day.
func (s *service) wrappedKeys(ctx context.Context, at time.Time, most int) (out []vault.Record, err error) {
	db, err := store.Open(ctx, s.Store.Path, time.Now)
	if err != nil {
		return nil, err
	}
	err = db.View(ctx, func(t *store.Tx) (err error) {
		out, err = t.RecordsInScope(scope(at, at), vault.ID{}, most)
		return err
	})
	if err == nil && len(out) < most {
		err = fmt.Errorf("the database holds %d records of a day, not %d", len(out), most)
	}
	return out, errors.Join(err, db.Close())
}

// share gives the part of all that is the client's own.
func share[T any](all []T, i, clients int) []T {
	return all[i*len(all)/clients : (i+1)*len(all)/clients]
}

// unwrapRaw opens data keys at Vault with the grant's token, as the service does.
func (s *service) unwrapRaw(records []vault.Record, clients int) load {
	return func(ctx context.Context, i int, next func() bool) error {
		own, n := share(records, i, clients), 0
		return repeat(func(ctx context.Context, _ int) error {
			r := own[n%len(own)]
			n++
			_, err := s.release.Unwrap(ctx, s.token, r.KeyName(), r.WrappedKey)
			return err
		})(ctx, i, next)
	}
}

// fetchImages streams images, over and over.
func (s *service) fetchImages(handles []string, clients, size int) load {
	return func(ctx context.Context, i int, next func() bool) error {
		own := share(handles, i, clients)
		for {
			err := s.contractors[i%connections].Fetch(ctx, s.grant, s.token, own, func(img *pb.Image) error {
				if n := len(img.Data); n < size*9/10 || n > size*11/10 {
					return fmt.Errorf("the service sent an image of %d bytes where %d were stored", n, size)
				}
				if !next() {
					return errOver
				}
				return nil
			})
			if errors.Is(err, errOver) {
				return nil
			}
			if err != nil {
				return err
			}
		}
	}
}
