package main

import (
	"bytes"
	"crypto/tls"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/portcullis/portcullis/certs"
	"github.com/portcullis/portcullis/internal/hcvault/setup"
	"github.com/portcullis/portcullis/internal/imaging"
	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/client"
	"github.com/portcullis/portcullis/vault/wire"
)

// What is stored: of each site, modality and day as many images, captured over the whole day.
const (
	thiefDays = 5
	thiefEach = 25
	thiefGap  = 57 * time.Minute // so that 12 of a day's 25 are of its afternoon
	thiefPick = 20               // the image of each cell that the list names: of the afternoon
	southGate = "south-gate"
)

var (
	thiefSites      = []string{devSite, southGate}
	thiefModalities = []vault.Modality{vault.Plate, vault.Face}
)

// roleLog is not a role of a process: it is what signs the log, which can have a credential of its own.
const roleLog = "log"

// scene is a Portcullis of 500 images, with grants in every state, that a thief comes to. Each role
// has a folder with all that its process has: configuration, environment, credential, certificate.
type scene struct {
	*service
	days    []time.Time         // midnights; the names of their keys differ in the last digit alone
	truth   map[vault.ID][]byte // each image as it is to be opened
	listed  []vault.ID          // one of each site, modality and day
	grants  map[string]*held    // by contractor
	at      map[string]string   // the address of each role's process
	blobs   map[vault.ID][]byte // the ciphertext
	records []vault.Record      // the rows
	run     []*daemon           // the processes
	folder  string

	operator *burglar // calls Vault as root
}

// held is a grant, and its newest token.
type held struct {
	name, org string
	token     vault.Token
}

func (h *held) path() string { return "/contractor/" + h.org + "/matcher" }

// setThief sets the scene. The processes run with the roles apart.
func setThief(t *testing.T) *scene {
	s := &scene{service: begin(t), truth: map[vault.ID][]byte{}, grants: map[string]*held{}, folder: t.TempDir()}
	noError(t, s.Close()) // the one with all roles
	s.days = decadeDays(time.Now())
	for _, role := range append(allRoles, roleLog, "all") {
		s.furnish(role)
	}
	s.start(allRoles...)
	t.Cleanup(s.end)
	return s
}

// decadeDays gives the newest first to fifth day of ten that the calendar writes with the same digits
// but the last: xx01 to xx05, xx11 to xx15 or xx21 to xx25. All are over, and recent enough to be stored.
func decadeDays(now time.Time) (days []time.Time) {
	first := now.UTC().Truncate(24*time.Hour).AddDate(0, 0, -thiefDays)
	for first.Day()%10 != 1 || first.Day() == 31 {
		first = first.AddDate(0, 0, -1)
	}
	for i := range thiefDays {
		days = append(days, first.AddDate(0, 0, i))
	}
	return days
}

func (s *scene) loot(role string) string { return filepath.Join(s.folder, role) }

// furnish gives a role's process its files, and no others.
func (s *scene) furnish(role string) {
	s.t.Helper()
	dir := s.loot(role)
	noError(s.t, os.MkdirAll(filepath.Join(dir, "vault"), 0o700))
	move := func(from, to string) {
		text, err := os.ReadFile(from)
		noError(s.t, err)
		noError(s.t, os.WriteFile(filepath.Join(dir, to), text, 0o600))
	}
	own := func(role string) { move(filepath.Join(s.cfg.Vault.Credentials, role+".json"), "vault/"+role+".json") }
	admin := role == roleAdmin || role == "all"
	if admin || role == roleLog {
		move(s.cfg.Audit.Key, "log.key")
	}
	if role == roleLog {
		own(role)
		return
	}
	cfg := s.cfg
	cfg.Listen, cfg.Vault.Credentials, cfg.Audit.Key, cfg.Audit.Ship = "127.0.0.1:0", "", "", ""
	if admin {
		cfg.Audit.Key, cfg.Audit.Ship = "log.key", "checkpoints"
	}
	cfg.TLS.Certificate, cfg.TLS.Key, cfg.TLS.Bundle = "tls.pem", "tls.key", "bundle.pem"
	move(s.cfg.TLS.Certificate, "tls.pem")
	move(s.cfg.TLS.Key, "tls.key")
	move(s.cfg.TLS.Bundle, "bundle.pem")
	if role == "all" {
		for _, r := range []string{roleCapture, roleGrants, roleAdmin} {
			own(r)
		}
	} else {
		cfg.Roles = role
		if role != roleRelease { // which has none
			own(role)
		}
	}
	text, err := cfg.yaml()
	noError(s.t, err)
	noError(s.t, os.WriteFile(filepath.Join(dir, "portcullisd.yaml"), text, 0o600))
	env := envPrefix + "VAULT__CREDENTIALS=" + filepath.Join(dir, "vault") + "\n"
	noError(s.t, os.WriteFile(filepath.Join(dir, "environ"), []byte(env), 0o600))
}

// start starts processes as their folders say, in the place of those that ran.
func (s *scene) start(processes ...string) {
	s.t.Helper()
	s.end()
	s.at = map[string]string{}
	for _, p := range processes {
		env, err := os.ReadFile(filepath.Join(s.loot(p), "environ"))
		noError(s.t, err)
		cfg, err := loadConfig(filepath.Join(s.loot(p), "portcullisd.yaml"), strings.Fields(string(env)), nil)
		noError(s.t, err)
		cfg.sweepEvery, cfg.markEvery = time.Hour, time.Hour // the test says when
		log, err := logger(s.logs, "info")
		noError(s.t, err)
		d, err := start(s.t.Context(), cfg, log)
		noError(s.t, err)
		s.run = append(s.run, d)
		for _, role := range cfg.roles() {
			s.at[role] = d.Addr()
		}
	}
}

func (s *scene) end() {
	s.t.Helper()
	for _, d := range s.run {
		noError(s.t, d.Close())
	}
	s.run = nil
}

// sweepAll lets the processes give Vault what the rows say that it is owed, which they do from time to time. What they
// complain of is the forgeries.
func (s *scene) sweepAll() {
	for _, d := range s.run {
		if d.grants != nil {
			_ = d.grants.Sweep(s.t.Context())
		}
	}
}

// to gives a client of the identity at the path, to the process of a role.
func (s *scene) to(role, path string) *client.Client {
	s.t.Helper()
	cfg := s.config(path)
	cfg.Address = s.at[role]
	c, err := client.Dial(cfg)
	noError(s.t, err)
	s.t.Cleanup(func() { c.Close() })
	return c
}

// fill stores the images, each another one.
func (s *scene) fill() {
	s.t.Helper()
	type stored struct {
		id     vault.ID
		image  []byte
		listed bool
	}
	var all errgroup.Group
	all.SetLimit(32)
	done := make(chan stored, len(thiefSites)*len(thiefModalities)*thiefDays*thiefEach)
	for i, site := range thiefSites {
		camera := s.to(roleCapture, "/capture/"+site+"/lane-1")
		for j, m := range thiefModalities {
			for k, day := range s.days {
				for n := range thiefEach {
					all.Go(func() error {
						raw := picture(uint64(((i*10+j)*10+k)*100+n), 300)
						clean, err := imaging.Clean(raw, s.cfg.limits())
						if err != nil {
							return err
						}
						got, err := camera.Store(s.t.Context(), client.Image{
							RequestID: vault.NewID(), Modality: m, CapturedAt: day.Add(time.Duration(n) * thiefGap), CrossingID: vault.NewID(), Bytes: raw,
						})
						if err != nil {
							return err
						}
						record, err := wire.ParseName("record", wire.Records, got.Record)
						done <- stored{record, clean.Bytes, n == thiefPick}
						return err
					})
				}
			}
		}
	}
	noError(s.t, all.Wait())
	close(done)
	for x := range done {
		s.truth[x.id] = x.image
		if x.listed {
			s.listed = append(s.listed, x.id)
		}
	}
}

// sanction lets two admins admit the contractors and sanction the purposes.
func (s *scene) sanction(orgs []string, purposes ...vault.Purpose) {
	s.t.Helper()
	for _, admin := range []string{alice, bob} {
		c := s.to(roleAdmin, admin)
		for _, org := range orgs {
			_, err := c.ApplyContractor(s.t.Context(), vault.Contractor{Name: org, Title: "an example"})
			noError(s.t, err)
		}
		for _, p := range purposes {
			_, err := c.ApplyPurpose(s.t.Context(), p)
			noError(s.t, err)
		}
	}
}

// window is the scope from a time of one day to the end of another, counted from 1.
func (s *scene) window(site string, m vault.Modality, from, to int, at time.Duration) *pb.Scope {
	return wire.Scope(vault.Scope{
		Sites: []string{site}, Modalities: []vault.Modality{m}, From: s.days[from-1].Add(at), Until: s.days[to-1].Add(24 * time.Hour),
	})
}

// ask requests a grant for the contractor, and keeps it.
func (s *scene) ask(org, purpose string, quota int64, scope *pb.Scope) *held {
	s.t.Helper()
	h := &held{org: org}
	got, err := s.to(roleGrants, h.path()).Grants.RequestGrant(s.t.Context(), &pb.RequestGrantRequest{
		Purpose: wire.Purposes + "/" + purpose, MaxRecords: quota, Ttl: durationpb.New(time.Hour),
		Justification: "work order 4711", RequestId: vault.NewID().String(), Scope: scope,
	})
	noError(s.t, err)
	h.name = got.Grant.Name
	s.grants[org] = h
	return h
}

func (s *scene) approve(h *held, admins ...string) {
	s.t.Helper()
	for _, admin := range admins {
		_, err := s.to(roleAdmin, admin).Approve(s.t.Context(), h.name, yes)
		noError(s.t, err)
	}
}

// open activates a grant, whose earlier token ends.
func (s *scene) open(h *held) {
	s.t.Helper()
	h.token = s.activate(s.to(roleGrants, h.path()), h.name)
}

// bind lets tokens minted from now on be used from these addresses alone, or from all.
func (s *scene) bind(addresses ...string) {
	s.t.Helper()
	noError(s.t, setup.Run(s.t.Context(), setup.Options{
		Addr: s.vault.Addr(), CAFile: s.vault.CACert(), Token: s.vault.RootToken(), Mount: s.cfg.Vault.Mount,
		AuditFile: s.vault.AuditLog(), OutDir: s.cfg.Vault.Credentials, TokenCIDRs: addresses,
	}))
}

// identity makes the certificate of a caller, as its holder has it.
func (s *scene) identity(path string) *tls.Certificate {
	s.t.Helper()
	cfg := s.config(path)
	pair, err := tls.LoadX509KeyPair(cfg.Certificate, cfg.Key)
	noError(s.t, err)
	return &pair
}

// forgedIdentity makes one of the same name by an authority of the thief's own.
func (s *scene) forgedIdentity(path string) *tls.Certificate {
	s.t.Helper()
	authority, err := certs.Open(filepath.Join(s.folder, "forged"), devDomain)
	noError(s.t, err)
	pair, err := authority.Issue(strings.ReplaceAll(path[1:], "/", "-"), "spiffe://"+devDomain+path, certs.Leaf{})
	noError(s.t, err)
	loaded, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
	noError(s.t, err)
	return &loaded
}

// asRoot calls Vault as its operator.
func (s *scene) asRoot(method, path string, in any) map[string]any {
	s.t.Helper()
	status, answer := s.operator.call(method, path, s.vault.RootToken(), in)
	if status >= 300 {
		s.t.Fatalf("%s %s: %d %v", method, path, status, answer)
	}
	return answer
}

// policies gives Vault's policies, but for the marks by which the service tells a restore of Vault: it would take an old
// one for that.
func (s *scene) policies() map[string]string {
	s.t.Helper()
	out := map[string]string{}
	for _, name := range keyList(s.t, s.asRoot("LIST", "sys/policies/acl", nil)) {
		if name != "root" && !strings.HasPrefix(name, "portcullis-grant-mark") {
			out[name] = field(s.asRoot("GET", "sys/policies/acl/"+name, nil), "data", "policy")
		}
	}
	return out
}

// writePolicies makes Vault's policies what they were.
func (s *scene) writePolicies(was map[string]string) {
	s.t.Helper()
	now := s.policies()
	for name, text := range was {
		if now[name] != text {
			s.asRoot("PUT", "sys/policies/acl/"+name, map[string]string{"policy": text})
		}
	}
	for name := range now {
		if _, ok := was[name]; !ok {
			s.asRoot("DELETE", "sys/policies/acl/"+name, nil)
		}
	}
}

// ciphertext reads all of it.
func (s *scene) ciphertext() map[vault.ID][]byte {
	s.t.Helper()
	if s.blobs == nil {
		s.blobs = map[vault.ID][]byte{}
		noError(s.t, filepath.WalkDir(s.cfg.Blobs.Path, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			if id, none := vault.ParseID("name", d.Name()); none == nil {
				s.blobs[id], err = os.ReadFile(path)
			}
			return err
		}))
	}
	return s.blobs
}

// recordsOnce reads what the database tells of the images, before it is forged.
func (s *scene) recordsOnce() []vault.Record {
	t := s.t
	t.Helper()
	if s.records != nil {
		return s.records
	}
	db := openSQL(t, s.cfg.Store.Path)
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), `SELECT id, site, lane, modality, class, captured_at, crossing_id, content_type, orientation, wrapped_key FROM records`)
	noError(t, err)
	defer rows.Close()
	for rows.Next() {
		var r vault.Record
		var id, crossing string
		var at int64
		noError(t, rows.Scan(&id, &r.Site, &r.Lane, &r.Modality, &r.Class, &at, &crossing, &r.ContentType, &r.Orientation, &r.WrappedKey))
		r.ID, err = vault.ParseID("id", id)
		noError(t, err)
		r.CrossingID, err = vault.ParseID("crossing_id", crossing)
		noError(t, err)
		r.CapturedAt = time.UnixMicro(at).UTC()
		s.records = append(s.records, r)
	}
	noError(t, rows.Err())
	return s.records
}

// same says whether an image is that of the record.
func (s *scene) same(record vault.ID, image []byte) bool { return bytes.Equal(s.truth[record], image) }
