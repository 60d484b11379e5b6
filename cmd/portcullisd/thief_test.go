package main

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	pb "github.com/portcullis/portcullis/proto/portcullis/v1"
	"github.com/portcullis/portcullis/vault"
	"github.com/portcullis/portcullis/vault/wire"
)

// loopback and elsewhere are addresses of this machine: a release node's, and another.
var (
	loopback  = net.IPv4(127, 0, 0, 1)
	elsewhere = net.IPv4(127, 0, 0, 2)
)

// thiefTable reads what docs/threat-model.md says that each thief opens of the 500 images.
func thiefTable(t *testing.T) map[string]int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "threat-model.md"))
	noError(t, err)
	_, part, ok := strings.Cut(string(text), "\n## What a thief opens\n")
	if !ok {
		t.Fatal("docs/threat-model.md has no section on what a thief opens")
	}
	part, _, _ = strings.Cut(part, "\n## ")
	table := map[string]int{}
	for _, m := range regexp.MustCompile(`(?m)^\| (.+?) \| (\d+) \|`).FindAllStringSubmatch(part, -1) {
		n, err := strconv.Atoi(m[2])
		noError(t, err)
		if _, twice := table[m[1]]; twice {
			t.Fatalf("the table has the row %q twice", m[1])
		}
		table[m[1]] = n
	}
	return table
}

// rows compares what is measured with the table.
type rows struct {
	*scene
	table    map[string]int
	told     map[string]bool
	standing map[string]string // Vault's policies
}

// row measures what a thief with these things opens. Whatever it forges is set back.
func (r *rows) row(name string, from net.IP, steal func(th *burglar)) {
	r.t.Helper()
	begun := time.Now()
	restore := r.keepRows()
	th := r.burgle(from)
	steal(th)
	restore()
	if th.wrote {
		r.writePolicies(r.standing)
	}
	for h := range th.reopened {
		r.open(h) // the rows name a token that has ended since
	}
	r.told[name] = true
	want, ok := r.table[name]
	if n := th.count(); !ok || n != want {
		r.t.Errorf("%s: opens %d of %d; docs/threat-model.md says %d (%v)", name, n, len(r.truth), want, ok)
	} else {
		r.t.Logf("%3d  %s (%v)", n, name, time.Since(begun).Round(time.Millisecond))
	}
}

// TestThief takes, one after the other, what thieves may take from a Portcullis of 500 images, and tries to open
// all of them with it. The table of docs/threat-model.md says how many open.
func TestThief(t *testing.T) {
	r := &rows{scene: setThief(t), table: thiefTable(t), told: map[string]bool{}}
	r.playThief()
	r.ended()
	r.standing = r.policies()
	r.processes()
	r.tokens()
	r.database("roles apart")
	r.wider()
	r.start("all")
	r.row("all files of the one process of the default", loopback, func(th *burglar) { th.rob(r.loot("all")) })
	r.database("one process")
	for name := range r.table {
		if !r.told[name] {
			t.Errorf("docs/threat-model.md has a row that nothing measures: %s", name)
		}
	}
}

// playThief stores the images, and brings grants into every state.
func (r *rows) playThief() {
	t := r.t
	r.operator = &burglar{scene: r.scene, http: r.calls(loopback)}
	wide := purpose()
	wide.Name, wide.Modalities, wide.Sites = "wide", thiefModalities, thiefSites
	orgs := []string{"prefix-co", "list-co", "bound-co", "approved-co", "replaced-co", "revoked-co", "retired-co", "suspended-co", "expired-co", "thief-co"}
	wide.Contractors = orgs
	strict := wide
	strict.Name, strict.Strict, strict.MaxRecords, strict.Contractors = "strict", true, 5, []string{"strict-co", "counted-co"}
	r.sanction(append(orgs, strict.Contractors...), wide, strict)
	r.fill()
	if len(r.truth) != 500 || len(r.listed) != 20 {
		t.Fatalf("%d images are stored, %d of them for the list", len(r.truth), len(r.listed))
	}

	list := &pb.RecordList{Contractor: "contractors/list-co"}
	for _, id := range r.listed {
		list.Records = append(list.Records, wire.Name(wire.Records, id))
	}
	made, err := r.to(roleAdmin, alice).Admin.CreateRecordList(t.Context(), &pb.CreateRecordListRequest{RecordList: list, RequestId: vault.NewID().String()})
	noError(t, err)

	plates, faces := vault.Plate, vault.Face
	r.ask("prefix-co", "wide", 40, r.window(devSite, plates, 2, 4, 12*time.Hour))
	r.ask("list-co", "wide", 20, &pb.Scope{RecordList: made.RecordList.Name})
	r.ask("strict-co", "strict", 5, r.window(southGate, faces, 1, 1, 0))
	r.ask("counted-co", "strict", 5, r.window(southGate, faces, 1, 1, 0))
	r.ask("approved-co", "wide", 25, r.window(southGate, plates, 5, 5, 0))
	r.ask("replaced-co", "wide", 25, r.window(devSite, plates, 3, 3, 0))
	for _, org := range []string{"revoked-co", "retired-co", "suspended-co", "expired-co"} {
		r.ask(org, "wide", 25, r.window(devSite, faces, 5, 5, 0))
	}
	bound := r.ask("bound-co", "wide", 25, r.window(southGate, plates, 1, 1, 0))
	all := wire.Scope(vault.Scope{Sites: thiefSites, Modalities: thiefModalities, From: r.days[0], Until: r.days[4].Add(24 * time.Hour)})
	mine := r.ask("thief-co", "wide", 5000, all)
	r.approve(mine, alice) // and nobody else

	for org, h := range r.grants {
		if h != mine && org != "expired-co" {
			r.approve(h, alice, bob)
		}
		if h != mine && h != bound && org != "approved-co" && org != "expired-co" {
			r.open(h)
		}
	}
	r.bind("127.0.0.1")
	r.open(bound)
	r.bind()
	// One image leaves as it should, so that there is something to forget.
	prefix := r.grants["prefix-co"]
	c := r.to(roleRelease, prefix.path())
	noError(t, c.Fetch(t.Context(), prefix.name, prefix.token, r.handles(c, prefix.name, prefix.token)[:1], func(*pb.Image) error { return nil }))
}

// processes: what lies in the files of the processes, whose roles are apart, and of the log's signer.
func (r *rows) processes() {
	one := func(name string, roles ...string) {
		r.row(name, loopback, func(th *burglar) {
			var folders []string
			for _, role := range roles {
				folders = append(folders, r.loot(role))
			}
			th.rob(folders...)
		})
	}
	r.row("nothing else", loopback, func(th *burglar) {
		th.work("")
		th.sweep("")
	})
	r.row("the role IDs of all credentials, without their secrets", loopback, func(th *burglar) {
		empty := r.t.TempDir()
		var ids []string
		for _, role := range vaultRoles {
			ids = append(ids, field(r.asRoot("GET", "auth/approle/role/"+role+"/role-id", nil), "data", "role_id"))
		}
		noError(r.t, os.WriteFile(filepath.Join(empty, "roles"), []byte(strings.Join(ids, "\n")), 0o600))
		th.rob(empty)
	})
	one("all files of the capture process", roleCapture)
	one("all files of the release process", roleRelease)
	one("the log's key and its credential", roleLog)
	one("all files of the admin process", roleAdmin)
	one("all files of the capture, release and admin processes, and the log's", roleCapture, roleRelease, roleAdmin, roleLog)
	one("all files of the grants process", roleGrants)
	one("all files of the grants and admin processes", roleGrants, roleAdmin)
	r.row("all files of the admin process, and one live grant's token", loopback, func(th *burglar) {
		stolen := r.t.TempDir()
		noError(r.t, os.WriteFile(filepath.Join(stolen, "token"), []byte(r.grants["prefix-co"].token.Reveal()), 0o600))
		th.rob(r.loot(roleAdmin), stolen)
	})
	r.bind("127.0.0.1")
	r.row("all files of the grants process, where tokens are bound to addresses, from another address", elsewhere, func(th *burglar) {
		th.rob(r.loot(roleGrants))
	})
	r.bind()
}

// tokens: what a grant's token opens without the certificate of its grantee.
func (r *rows) tokens() {
	t := r.t
	service, err := tls.LoadX509KeyPair(r.cfg.TLS.Certificate, r.cfg.TLS.Key)
	noError(t, err)
	strangers := []*tls.Certificate{
		nil, &service, r.identity("/contractor/thief-co/matcher"), r.identity("/contractor/prefix-co/other"), r.identity("/contractor/list-co/other"),
		r.identity(alice), r.identity(auditor), r.identity(lane), r.forgedIdentity("/contractor/prefix-co/matcher"), r.forgedIdentity("/contractor/list-co/matcher"),
	}
	for _, kind := range []string{"prefix", "list"} {
		h := r.grants[kind+"-co"]
		r.row("the "+kind+" grant's token, through the service", loopback, func(th *burglar) {
			for _, c := range strangers {
				th.through(th.door(c), h, h.token)
			}
			for org, other := range r.grants {
				if other != h {
					d := th.door(r.identity("/contractor/" + org + "/matcher"))
					th.through(d, h, h.token)
					th.through(d, other, h.token)
				}
			}
		})
		r.row("the "+kind+" grant's token, at Vault", loopback, func(th *burglar) {
			th.work(h.token.Reveal())
			th.sweep(h.token.Reveal())
		})
	}
	bound := r.grants["bound-co"].token.Reveal()
	r.row("a token that is bound to the release nodes' addresses, at Vault from another address", elsewhere, func(th *burglar) {
		th.work(bound)
		th.sweep(bound)
	})
	r.row("the same, from a release node's address", loopback, func(th *burglar) { th.sweep(bound) })

	strict := r.grants["strict-co"]
	r.row("the strict grant's token, at Vault", loopback, func(th *burglar) { th.sweep(strict.token.Reveal()) })
	r.row("the same, after that", loopback, func(th *burglar) { th.sweep(strict.token.Reveal()) })
	r.row("the token of the next activation, if there is one", loopback, func(th *burglar) {
		next, err := th.door(r.identity(strict.path())).activate(strict)
		if err == nil {
			th.read()
			th.sweep(next.Reveal())
		}
	})
}

// ended: tokens of grants that are over, each of which opened something before.
func (r *rows) ended() {
	t := r.t
	expiring := r.grants["expired-co"]
	const left = 8 * time.Second // to be approved and activated in; a request can not ask for less than a minute
	ends := time.Now().Add(left)
	r.sql("UPDATE grants SET ends = $1 WHERE id = $2", ends.UnixMicro(), id(expiring.name))
	r.approve(expiring, alice, bob)
	r.open(expiring)

	ways := []struct {
		how string
		org string
		end func(h *held) error
	}{
		{"revoked", "revoked-co", func(h *held) error {
			_, err := r.to(roleAdmin, alice).Grants.RevokeGrant(t.Context(), &pb.RevokeGrantRequest{Name: h.name})
			return err
		}},
		{"retired", "retired-co", func(h *held) error {
			_, err := r.to(roleGrants, h.path()).Grants.RetireGrant(t.Context(), &pb.RetireGrantRequest{Name: h.name})
			return err
		}},
		{"suspended with its contractor", "suspended-co", func(h *held) error {
			_, err := r.to(roleAdmin, alice).Admin.SuspendContractor(t.Context(), &pb.SuspendContractorRequest{Name: "contractors/" + h.org})
			return err
		}},
		{"activated again", "replaced-co", func(h *held) error {
			_, err := r.to(roleGrants, h.path()).Grants.ActivateGrant(t.Context(), &pb.ActivateGrantRequest{Name: h.name})
			return err
		}},
		{"expired", "expired-co", func(*held) error { time.Sleep(time.Until(ends)); r.sweepAll(); return nil }},
	}
	for _, w := range ways {
		h := r.grants[w.org]
		if th := r.burgle(loopback); !th.opensSome(h) {
			t.Fatalf("the token of %s opens nothing while its grant is live", h.org)
		}
	}
	for _, w := range ways {
		h := r.grants[w.org]
		noError(t, w.end(h))
		r.row("the token of a grant that was "+w.how, loopback, func(th *burglar) {
			th.work(h.token.Reveal())
			th.sweep(h.token.Reveal())
			d := th.door(r.identity(h.path()))
			th.through(d, h, h.token)
			if w.org == "replaced-co" {
				return // it goes on, with another token
			}
			if token, err := d.activate(h); err == nil {
				th.work(token.Reveal())
			}
		})
	}
}

// opensSome says whether a grant's token opens at Vault one record that the grant covers.
func (th *burglar) opensSome(h *held) bool {
	d := th.deed(h)
	for _, r := range th.records {
		if d.scope.Covers(r) {
			return th.decrypt(h.token.Reveal(), "portcullis/decrypt/"+r.KeyName(), r)
		}
	}
	return false
}

// database: what who writes to the database opens, through the service as it runs and past it.
func (r *rows) database(how string) {
	own := func(org string) *tls.Certificate { return r.identity(r.grants[org].path()) }
	mine, prefix, list := r.grants["thief-co"], r.grants["prefix-co"], r.grants["list-co"]
	row := func(name string, steal func(th *burglar)) { r.row(name+" ("+how+")", loopback, steal) }
	forgeries := append(forgedGrants[:len(forgedGrants):len(forgedGrants)], falselySigned...)
	row("the database written, without a certificate, or with a lane's or an admin's", func(th *burglar) {
		th.tamper(forgedGrants[:4], mine, true, nil, nil, r.identity(lane), r.identity(alice))
	})
	row("the database written, and the certificate of a contractor without a grant", func(th *burglar) {
		th.tamper(forgeries, mine, true, nil, own("thief-co"))
	})
	row("the prefix grant's token and its grantee's certificate, through the service", func(th *burglar) {
		th.through(th.door(own("prefix-co")), prefix, prefix.token)
	})
	row("the same and the database written, through the service", func(th *burglar) {
		th.through(th.door(own("prefix-co")), prefix, prefix.token)
		th.tamper(widened, prefix, false, []vault.Token{prefix.token}, own("prefix-co"))
	})
	row("ended grants' tokens, their grantees' certificates and the database written", func(th *burglar) {
		for _, org := range []string{"revoked-co", "retired-co", "suspended-co", "expired-co"} {
			h := r.grants[org]
			th.tamper(revived, h, true, []vault.Token{h.token}, own(org))
			th.sweep(h.token.Reveal())
		}
	})
	if how == "one process" {
		return
	}
	row("the list grant's token, its grantee's certificate and the database written, through the service", func(th *burglar) {
		th.through(th.door(own("list-co")), list, list.token)
		th.tamper(widened, list, false, []vault.Token{list.token}, own("list-co"))
	})
	row("the database written, and all files of the grants process", func(th *burglar) {
		th.rob(r.loot(roleGrants))
		// What would make the admin process write wider fences, were it believed.
		th.wrote = true
		th.forge(forgedGrants[2], th.values(mine))
		for _, f := range widened[5:6] {
			th.forge(f, th.values(prefix))
		}
		th.read()
		clear(th.minted)
		th.rob(r.loot(roleGrants))
	})
	counted := r.grants["counted-co"]
	row("the strict grant's token and its grantee's certificate", func(th *burglar) {
		th.through(th.door(own("counted-co")), counted, counted.token)
		th.sweep(counted.token.Reveal())
		if next, err := th.door(own("counted-co")).activate(counted); err == nil {
			th.sweep(next.Reveal())
		}
	})
	row("the strict grant's and the database written", func(th *burglar) {
		d := th.door(own("counted-co"))
		for range 8 {
			r.sql("UPDATE grants SET accessor = '', uses_left = -1, released = 0, released_bytes = 0 WHERE id = $1", id(counted.name))
			if next, err := d.activate(counted); err == nil {
				th.read()
				th.sweep(next.Reveal())
			}
		}
	})
}

// wider shows that the counts can be other ones: a fence one digit too short opens more.
func (r *rows) wider() {
	t := r.t
	name := "portcullis-grant-" + id(r.grants["prefix-co"].name)
	day, was := r.days[1].Format("20060102"), r.standing[name]
	if !strings.Contains(was, "plate."+day+".*") {
		t.Fatalf("the fence is %s", was)
	}
	r.asRoot("PUT", "sys/policies/acl/"+name, map[string]string{"policy": strings.ReplaceAll(was, "plate."+day+".*", "plate."+day[:7]+"*")})
	th := r.burgle(loopback)
	th.sweep(r.grants["prefix-co"].token.Reveal())
	r.writePolicies(r.standing)
	if th.count() != 125 {
		t.Errorf("with a fence of %s* the token opens %d images, want all 125 plates of the site", day[:7], th.count())
	}
}
